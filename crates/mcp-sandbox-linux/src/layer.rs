//! Unpacking a layer of an image, inside a sandbox, as the commands' user.
//!
//! A layer is a tar archive over what the layers below have left. Whatever it says, it only writes below its root, makes no
//! device, no setuid file and no file that others cannot read, and belongs to the user who unpacks. Links are looked up as in
//! the image, not as where it is unpacked.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use flate2::read::MultiGzDecoder;

/// What one layer may grow to, in bytes and entries: more is a bomb.
const LAYER_BYTES: u64 = 16 << 30;
const LAYER_ENTRIES: usize = 1_000_000;
/// Links that one name may lead through.
const LINKS: usize = 40;

/// What marks a file of a lower layer as removed, and a directory as emptied.
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// A layer being unpacked.
#[derive(Debug)]
struct Layer<'a> {
    root: &'a Path,
    /// Of this layer itself: what a whiteout in it does not touch.
    own: HashSet<PathBuf>,
}

/// Unpacks a layer over what is at `root`.
pub(crate) fn unpack(root: &Path, input: &mut impl Read, gzip: bool) -> io::Result<()> {
    if gzip {
        unpack_tar(root, &mut MultiGzDecoder::new(input))
    } else {
        unpack_tar(root, input)
    }
}

fn unpack_tar(root: &Path, input: &mut impl Read) -> io::Result<()> {
    make_dir(root)?;
    let mut layer = Layer {
        root,
        own: HashSet::new(),
    };
    let mut limited = input.take(LAYER_BYTES);
    let mut archive = tar::Archive::new(&mut limited);
    for (number, entry) in archive.entries()?.enumerate() {
        if number >= LAYER_ENTRIES {
            return Err(io::Error::other("too many entries"));
        }
        layer.apply(&mut entry?)?;
    }
    // The rest, such as padding, belongs to what its digest covers.
    io::copy(&mut limited, &mut io::sink())?;
    if limited.limit() == 0 {
        return Err(io::Error::other("too large when unpacked"));
    }
    Ok(())
}

impl Layer<'_> {
    fn apply(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> io::Result<()> {
        let path = plain(&entry.path()?)?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(()); // The root itself.
        };
        let dir = self.directory(parent)?;
        if name.as_bytes() == OPAQUE {
            return self.empty(&dir);
        }
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            let hidden = OsStr::from_bytes(hidden);
            if matches!(hidden.as_bytes(), b"" | b"." | b"..") {
                return Err(io::Error::other("a whiteout of no file"));
            }
            let target = dir.join(hidden);
            return if self.own.contains(&target) {
                Ok(())
            } else {
                remove(&target)
            };
        }
        let target = dir.join(name);
        self.make(entry, &target)?;
        self.own.insert(target);
        Ok(())
    }

    fn make(&self, entry: &mut tar::Entry<'_, impl Read>, target: &Path) -> io::Result<()> {
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            if !fs::symlink_metadata(target).is_ok_and(|meta| meta.is_dir()) {
                remove(target)?;
            }
            return make_dir(target);
        }
        if kind.is_symlink() {
            let link = entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?;
            remove(target)?;
            return symlink(link, target);
        }
        if kind.is_hard_link() {
            let link = plain(&entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?)?;
            let name = link.file_name().ok_or(io::ErrorKind::InvalidData)?;
            let source = self
                .resolve(link.parent().unwrap_or_else(|| Path::new("")))?
                .join(name);
            if source == target {
                return Ok(());
            }
            remove(target)?;
            return fs::hard_link(source, target);
        }
        if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
            remove(target)?;
            let executable = entry.header().mode().unwrap_or(0) & 0o111 != 0;
            let mut options = fs::OpenOptions::new();
            options.write(true).create_new(true);
            options.mode(if executable { 0o755 } else { 0o644 });
            let mut file = options.open(target)?;
            io::copy(entry, &mut file)?;
            // Compiled files are compared with the time of their source.
            let seconds = entry.header().mtime().unwrap_or(0).min(u64::from(u32::MAX));
            return file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        }
        // Devices and pipes: a sandbox has its own.
        Ok(())
    }

    /// The directory at a path of the image, made if absent.
    fn directory(&self, path: &Path) -> io::Result<PathBuf> {
        let dir = self.resolve(path)?;
        let mut made = self.root.to_owned();
        for part in dir.strip_prefix(self.root).map_err(io::Error::other)? {
            made.push(part);
            if !fs::symlink_metadata(&made).is_ok_and(|meta| meta.is_dir()) {
                remove(&made)?;
                make_dir(&made)?;
            }
        }
        Ok(made)
    }

    /// Follows every link in a path as the image's own processes would; what does not exist is taken as it is written.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let mut rest: Vec<OsString> = path.iter().rev().map(OsStr::to_owned).collect();
        let mut at = self.root.to_owned();
        let mut links = 0;
        while let Some(part) = rest.pop() {
            match part.as_bytes() {
                b"/" => at = self.root.to_owned(),
                b"." => {}
                b".." if at == self.root => {}
                b".." => {
                    at.pop();
                }
                _ => {
                    at.push(&part);
                    let Ok(link) = fs::read_link(&at) else {
                        continue;
                    };
                    links += 1;
                    if links > LINKS {
                        return Err(io::Error::other("too many symbolic links"));
                    }
                    at.pop();
                    rest.extend(link.iter().rev().map(OsStr::to_owned));
                }
            }
        }
        Ok(at)
    }

    /// Removes what lower layers have left in a directory.
    fn empty(&self, dir: &Path) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if self.own.contains(&path) {
                if fs::symlink_metadata(&path)?.is_dir() {
                    self.empty(&path)?;
                }
            } else if !self.own.iter().any(|own| own.starts_with(&path)) {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

/// A path of an archive: relative, and never upwards.
fn plain(path: &Path) -> io::Result<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => plain.push(part),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::other("an entry leads out of the image"));
            }
        }
    }
    Ok(plain)
}

fn make_dir(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Removes whatever is there; no link is followed.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests;
