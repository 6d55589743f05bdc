//! Archives of skills, unpacked where they can only fool the sandbox.
//!
//! ```text
//! names of all entries  ->  refuse absolute, `..`, too many, too deep
//!                       ->  one directory around everything is left out
//! content               ->  INTO.new, counted as it comes, then renamed to INTO
//! ```
//!
//! Links and special files are skipped. A size that an archive states is never believed: what comes out is counted.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
use mcp_skill_zip::{Kind, entries};

/// Largest archive: what the worker fetches at most.
const ARCHIVE_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes that may come out of one archive, names of tar included.
const UNPACKED_BYTES: u64 = if cfg!(test) { 4 } else { 256 } * 1024 * 1024;
/// Files and directories of one archive.
const ENTRIES: usize = 10_000;
/// Directories above a file.
const DEPTH: usize = 32;

/// What an archive is read for; names alone need not be decompressed where the format has them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    Names,
    Content,
}

/// Gets each entry: its name, what it is (what is neither directory nor file is skipped), and its content.
type Visit<'a> = dyn FnMut(&Path, Kind, &mut dyn Read) -> io::Result<()> + 'a;

/// Unpacks an archive, which is removed, to a directory, which is replaced; says how many files came out.
///
/// # Errors
/// The archive cannot be read or is refused; nothing stays then.
pub(super) fn unpack(archive: &Path, into: &Path) -> io::Result<usize> {
    let mut content = Vec::new();
    let file = fs::File::open(archive)?;
    fs::remove_file(archive)?;
    file.take(ARCHIVE_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > ARCHIVE_BYTES {
        return Err(io::Error::other("the archive is too large"));
    }
    let mut name = into.as_os_str().to_owned();
    name.push(".new");
    let fresh = PathBuf::from(name);
    remove(&fresh)?;
    let done = write_all(&content, &fresh).and_then(|files| {
        remove(into)?;
        fs::rename(&fresh, into)?;
        Ok(files)
    });
    if done.is_err() {
        let _ = remove(&fresh);
    }
    done
}

fn write_all(archive: &[u8], root: &Path) -> io::Result<usize> {
    let mut names = Vec::new();
    each(archive, Pass::Names, &mut |name, kind, _| {
        if kind != Kind::Other {
            names.push((checked(name)?, kind));
        }
        Ok(())
    })?;
    let around = around(&names);
    directory(root)?;
    let (mut files, mut left) = (0, UNPACKED_BYTES);
    each(archive, Pass::Content, &mut |name, kind, content| {
        let name = checked(name)?;
        let inner = around.map_or(name.as_path(), |outer| {
            name.strip_prefix(outer).unwrap_or(&name)
        });
        let path = root.join(inner);
        match kind {
            Kind::Other => {}
            Kind::Directory => directory(&path)?,
            Kind::File { executable } => {
                if let Some(parent) = path.parent() {
                    directory(parent)?;
                }
                left -= write(&path, executable, content, left)?;
                files += 1;
            }
        }
        Ok(())
    })?;
    Ok(files)
}

/// The one directory that holds everything, if there is one.
fn around(names: &[(PathBuf, Kind)]) -> Option<&Path> {
    let top = names.iter().find_map(|(name, _)| name.iter().next())?;
    let inside = |(name, kind): &(PathBuf, Kind)| {
        let mut parts = name.iter();
        match parts.next() {
            Some(first) => first == top && (parts.next().is_some() || *kind == Kind::Directory),
            // The directory itself, as `./`.
            None => true,
        }
    };
    names.iter().all(inside).then_some(Path::new(top))
}

/// The name with its dots gone.
fn checked(name: &Path) -> io::Result<PathBuf> {
    let refused = || io::Error::other("an entry of the archive leads out of its directory");
    let mut plain = PathBuf::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => plain.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(refused());
            }
        }
    }
    if name.as_os_str().as_bytes().contains(&0) {
        return Err(refused());
    }
    if plain.components().count() > DEPTH {
        return Err(io::Error::other("an entry of the archive is too deep"));
    }
    Ok(plain)
}

fn directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a new file of at most `left` bytes; says how many.
fn write(path: &Path, executable: bool, content: &mut dyn Read, left: u64) -> io::Result<u64> {
    let mode = if executable { 0o755 } else { 0o644 };
    let mut options = OpenOptions::new();
    // What stands there is this archive's own: a name that it has twice.
    options.write(true).create_new(true).mode(mode);
    let mut file = options.open(path)?;
    let written = io::copy(&mut content.take(left.saturating_add(1)), &mut file)?;
    if written > left {
        return Err(io::Error::other("the archive unpacks to too much"));
    }
    Ok(written)
}

fn each(archive: &[u8], pass: Pass, visit: &mut Visit<'_>) -> io::Result<()> {
    if archive.starts_with(b"PK") {
        each_of_zip(archive, pass, visit)
    } else if archive.starts_with(&[0x1f, 0x8b]) {
        each_of_tar(MultiGzDecoder::new(archive), visit)
    } else {
        each_of_tar(archive, visit)
    }
}

fn each_of_zip(archive: &[u8], pass: Pass, visit: &mut Visit<'_>) -> io::Result<()> {
    for entry in entries(archive, ENTRIES)? {
        let name = Path::new(OsStr::from_bytes(entry.name()));
        let kind = entry.kind();
        match (kind, pass) {
            (Kind::File { .. }, Pass::Content) => {
                entry.read(|content| visit(name, kind, content))?;
            }
            _ => visit(name, kind, &mut io::empty())?,
        }
    }
    Ok(())
}

fn each_of_tar(archive: impl Read, visit: &mut Visit<'_>) -> io::Result<()> {
    // The reader keeps long names in memory: the bound is on everything that comes out.
    let mut archive = tar::Archive::new(Bounded {
        inner: archive,
        left: UNPACKED_BYTES + UNPACKED_BYTES / 4,
    });
    for (count, entry) in archive.entries()?.enumerate() {
        if count >= ENTRIES {
            return Err(io::Error::other("the archive has too many entries"));
        }
        let mut entry = entry?;
        let kind = match entry.header().entry_type() {
            kind if kind.is_dir() => Kind::Directory,
            kind if kind.is_file() => Kind::File {
                executable: entry.header().mode().unwrap_or(0) & 0o111 != 0,
            },
            _ => Kind::Other,
        };
        let name = entry.path()?.into_owned();
        visit(&name, kind, &mut entry)?;
    }
    Ok(())
}

/// Says that there is too much instead of ending early, which would look like a short archive.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        match self.left.checked_sub(count as u64) {
            Some(left) => {
                self.left = left;
                Ok(count)
            }
            None => Err(io::Error::other("the archive unpacks to too much")),
        }
    }
}

/// Removes whatever stands there, a link itself and not what it leads to.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
