//! The gateway's own key: made once, kept in the state folder, never sent.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use mcp_tunnel_auth::{CredentialKind, GatewayKey, TunnelId, WrongCredential};
use secrecy::zeroize::Zeroizing;

/// The key of this gateway for `tunnel`, made and stored under `state` if there is none.
///
/// Each tunnel has a key of its own, so that two tunnels cannot tell that one machine serves both. The file has mode
/// 0600 from its first byte, is complete when it gets its name, and is never replaced: of two gateways that start at
/// once the second one takes the key of the first.
///
/// # Errors
///
/// [`IdentityError`] when the folder or the file cannot be used, or others may read the file.
pub fn load_or_create(state: &Path, tunnel: TunnelId) -> Result<GatewayKey, IdentityError> {
    let path = state.join(format!("{tunnel}.key"));
    if let Some(key) = load(&path)? {
        return Ok(key);
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state)
        .map_err(|source| IdentityError::Folder {
            path: state.to_owned(),
            source,
        })?;
    create(state, &path, &*draw()?).map_err(|source| IdentityError::Write {
        path: path.clone(),
        source,
    })?;
    load(&path)?.ok_or(IdentityError::Vanished { path })
}

/// A key that lives as long as the process; each start needs a new approval.
///
/// # Errors
///
/// [`IdentityError::Entropy`] when the system has none.
pub fn ephemeral() -> Result<GatewayKey, IdentityError> {
    Ok(GatewayKey::from_bytes(*draw()?))
}

/// Why the gateway has no key. The key itself is never part of the error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The state folder cannot be made.
    #[error("creating the state folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The key cannot be stored.
    #[error("storing the gateway key {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The key cannot be read.
    #[error("reading the gateway key {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The key is gone right after it was stored.
    #[error("the gateway key {} vanished", path.display())]
    Vanished {
        /// The file.
        path: PathBuf,
    },
    /// Others than the owner may read or write the file.
    #[error("others may read the gateway key {} (mode {mode:03o}): run chmod 600 on it, or remove it and have the new key approved", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file holds a credential of another kind.
    #[error("the gateway key {} is none", path.display())]
    WrongKind {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        #[source]
        source: WrongCredential,
    },
    /// The file is not a gateway key.
    #[error("the gateway key {} is damaged: remove it and have the new key approved", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// No random bytes.
    #[error("drawing a gateway key")]
    Entropy {
        /// The system's answer.
        #[source]
        source: getrandom::Error,
    },
}

fn load(path: &Path) -> Result<Option<GatewayKey>, IdentityError> {
    let failed = |source| IdentityError::Read {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let mut text = Zeroizing::new(String::with_capacity(MAX_FILE_BYTES));
    file.take(MAX_FILE_BYTES as u64)
        .read_to_string(&mut text)
        .map_err(failed)?;
    CredentialKind::GatewayKey
        .expect(&text)
        .map_err(|source| IdentityError::WrongKind {
            path: path.to_owned(),
            source,
        })?;
    match decode(text.trim()) {
        Some(seed) => Ok(Some(GatewayKey::from_bytes(*seed))),
        None => Err(IdentityError::Damaged {
            path: path.to_owned(),
        }),
    }
}

fn draw() -> Result<Zeroizing<[u8; SEED_BYTES]>, IdentityError> {
    let mut seed = Zeroizing::new([0; SEED_BYTES]);
    getrandom::fill(seed.as_mut_slice()).map_err(|source| IdentityError::Entropy { source })?;
    Ok(seed)
}

/// Writes the key beside `path` and links it there, unless another process was first.
fn create(folder: &Path, path: &Path, seed: &[u8; SEED_BYTES]) -> io::Result<()> {
    let nonce = getrandom::u64().map_err(io::Error::other)?;
    let draft = folder.join(format!(".{nonce:016x}.draft"));
    let written = write_draft(&draft, &encode(seed)).and_then(|()| fs::hard_link(&draft, path));
    let _ = fs::remove_file(&draft);
    match written {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => File::open(folder)?.sync_all(),
    }
}

fn write_draft(draft: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(draft)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn encode(seed: &[u8; SEED_BYTES]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(MAX_FILE_BYTES));
    text.push_str(PREFIX);
    for byte in seed {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(digit.into(), 16).expect("four bits are one digit"));
        }
    }
    text.push('\n');
    text
}

fn decode(text: &str) -> Option<Zeroizing<[u8; SEED_BYTES]>> {
    let digits = text.strip_prefix(PREFIX)?.as_bytes();
    let mut seed = Zeroizing::new([0; SEED_BYTES]);
    if digits.len() != 2 * SEED_BYTES {
        return None;
    }
    let value = |digit: u8| {
        char::from(digit)
            .to_digit(16)
            .and_then(|value| u8::try_from(value).ok())
    };
    for (byte, pair) in seed.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(seed)
}

const PREFIX: &str = "mcg_";
const SEED_BYTES: usize = 32;
const MAX_FILE_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn tunnel() -> TunnelId {
        TunnelId::new(1_764_000_000_000, &[7; 10])
    }

    fn file(state: &Path) -> PathBuf {
        state.join(format!("{}.key", tunnel()))
    }

    #[test]
    fn the_key_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("a/b");
        let first = load_or_create(&state, tunnel()).unwrap().public_key();
        assert_eq!(
            load_or_create(&state, tunnel()).unwrap().public_key(),
            first
        );
        let other = TunnelId::new(1_764_000_000_001, &[7; 10]);
        assert_ne!(load_or_create(&state, other).unwrap().public_key(), first);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file(&state)), mode(&state)), (0o600, 0o700));
        assert_eq!(fs::read_dir(&state).unwrap().count(), 2, "no draft is left");
    }

    #[test]
    fn gateways_that_start_at_once_share_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let keys: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        load_or_create(folder.path(), tunnel())
                            .unwrap()
                            .public_key()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_with_the_cure() {
        let folder = tempfile::tempdir().unwrap();
        load_or_create(folder.path(), tunnel()).unwrap();
        fs::set_permissions(file(folder.path()), Permissions::from_mode(0o640)).unwrap();
        let error = load_or_create(folder.path(), tunnel()).unwrap_err();
        assert!(
            error.to_string().contains("mode 640): run chmod 600"),
            "{error}"
        );
    }

    #[test]
    fn a_damaged_or_foreign_file_is_named_and_never_echoed_or_replaced() {
        let folder = tempfile::tempdir().unwrap();
        for (text, part) in [
            ("mcg_zz", "is damaged"),
            ("", "is damaged"),
            ("mca_hunter2", "is none"),
        ] {
            fs::write(file(folder.path()), text).unwrap();
            fs::set_permissions(file(folder.path()), Permissions::from_mode(0o600)).unwrap();
            let error = load_or_create(folder.path(), tunnel()).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(
                shown.contains(part) && !shown.contains("hunter2"),
                "{shown}"
            );
            assert_eq!(fs::read_to_string(file(folder.path())).unwrap(), text);
        }
    }

    #[test]
    fn a_state_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let blocked = folder.path().join("file");
        fs::write(&blocked, "").unwrap();
        let error = load_or_create(&blocked.join("state"), tunnel()).unwrap_err();
        assert!(error.to_string().contains("state"), "{error}");
    }
}
