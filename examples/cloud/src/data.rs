//! The data folder: made at the first start, reused later, used by one process at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};

use crate::failure::Failure;

/// The folder, locked for this process.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    _lock: File,
}

/// Whether a file was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Found,
    Made,
}

impl DataFolder {
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let unusable = |error: anyhow::Error| {
            Failure::usage(
                error,
                "name a folder that this user may write to: --data DIR",
            )
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("making {}", path.display()))
            .map_err(unusable)?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock(path)?,
        })
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The secret in file `name`, made by `make` and written there if it is not.
    pub(crate) fn secret(
        &self,
        name: &str,
        make: impl FnOnce() -> SecretString,
    ) -> Result<(SecretString, Origin), Failure> {
        let path = self.file(name);
        if path.exists() {
            return Ok((read_secret(&path)?, Origin::Found));
        }
        let secret = make();
        self.write(name, &format!("{}\n", secret.expose_secret()), 0o600)?;
        Ok((secret, Origin::Made))
    }

    /// Writes a file whole or not at all: a process that is killed leaves the old one.
    pub(crate) fn write(&self, name: &str, text: &str, mode: u32) -> Result<(), Failure> {
        let path = self.file(name);
        self.replace(&path, text, mode)
            .with_context(|| format!("writing {}", path.display()))
            .map_err(|error| Failure::usage(error, "is the disk full, or not writable?"))
    }

    fn replace(&self, path: &Path, text: &str, mode: u32) -> io::Result<()> {
        let half = path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&half)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&half, path)?;
        File::open(&self.path)?.sync_all()
    }
}

/// A secret file's content, if nobody else can read it.
pub(crate) fn read_secret(path: &Path) -> Result<SecretString, Failure> {
    let unreadable = |error: io::Error| {
        let error = anyhow::Error::new(error).context(format!("reading {}", path.display()));
        Failure::usage(error, "is it there, and does it belong to this user?")
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(Failure::wrong(
            format_args!("{} can be read by others", path.display()),
            format!(
                "chmod 600 {}, and make a new key if others were there",
                path.display()
            ),
        ));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(unreadable)?;
    Ok(SecretString::from(text))
}

fn lock(folder: &Path) -> Result<File, Failure> {
    let path = folder.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))
        .map_err(|error| Failure::usage(error, "may this user write to the folder?"))?;
    match file.try_lock() {
        Ok(()) => {
            let noted = file
                .set_len(0)
                .and_then(|()| file.rewind())
                .and_then(|()| writeln!(file, "{}", std::process::id()));
            // Whose lock it is helps people; the lock itself is what counts.
            drop(noted);
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            drop(file.read_to_string(&mut holder));
            Err(Failure::wrong(
                format_args!(
                    "{} is in use by another mcp-cloud (process {})",
                    folder.display(),
                    holder.trim()
                ),
                "administer it with `mcp-cloud --data DIR tunnel list` and the like, stop it, or \
                 name another folder",
            ))
        }
        Err(TryLockError::Error(error)) => Err(Failure::usage(
            anyhow::Error::new(error).context(format!("locking {}", path.display())),
            "use a local disk: some network file systems have no locks",
        )),
    }
}

/// The console's database in the folder.
pub(crate) const DATABASE: &str = "console.db";

/// The database of agents, environments and sessions in the folder.
pub(crate) const SESSIONS: &str = "sessions.db";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_and_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::open(&folder.path().join("a/b")).unwrap();
        let (first, made) = data.secret("x.key", || "one".into()).unwrap();
        let (second, found) = data.secret("x.key", || "two".into()).unwrap();
        assert_eq!((made, found), (Origin::Made, Origin::Found));
        assert_eq!(second.expose_secret().trim(), first.expose_secret());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&data.file("x.key")), 0o600);
        assert_eq!(mode(&folder.path().join("a/b")), 0o700);
        fs::set_permissions(data.file("x.key"), fs::Permissions::from_mode(0o644)).unwrap();
        let refused = data.secret("x.key", || "two".into()).unwrap_err();
        assert!(refused.to_string().contains("chmod 600"));
    }

    #[test]
    fn one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::open(folder.path()).unwrap();
        let refused = DataFolder::open(folder.path()).unwrap_err();
        assert_eq!(refused.code(), 2);
        assert!(refused.to_string().contains("in use by another mcp-cloud"));
        drop(data);
        DataFolder::open(folder.path()).unwrap();
    }
}
