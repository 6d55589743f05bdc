use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::FileError;

/// Opens a regular file for reading, given its canonical path.
///
/// Anything else is refused before it is opened, since opening a device may do something, and judged again afterwards.
pub(super) fn for_reading(full: &Path, path: &str) -> Result<(File, u64), FileError> {
    let wrap = |error| FileError::io(path, error);
    if !full.symlink_metadata().map_err(wrap)?.is_file() {
        return Err(FileError::not_regular(path));
    }
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(FLAGS);
    checked(options.open(full).map_err(wrap)?, path)
}

/// Opens a regular file for writing, made when it is missing, content untouched.
pub(super) fn for_writing(full: &Path, path: &str) -> Result<File, FileError> {
    let wrap = |error| FileError::io(path, error);
    match full.symlink_metadata() {
        Ok(found) if found.is_dir() => {
            return Err(FileError::io(path, io::ErrorKind::IsADirectory.into()));
        }
        Ok(found) if !found.is_file() => return Err(FileError::not_regular(path)),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(FLAGS);
    Ok(checked(options.open(full).map_err(wrap)?, path)?.0)
}

/// Reads at most `limit` bytes; `None` when there are more.
pub(super) fn read_up_to(file: File, limit: u64, path: &str) -> Result<Option<Vec<u8>>, FileError> {
    let mut content = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut content)
        .map_err(|error| FileError::io(path, error))?;
    Ok((content.len() as u64 <= limit).then_some(content))
}

/// Neither a link nor a FIFO that was put there in the meantime does harm.
const FLAGS: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;

fn checked(file: File, path: &str) -> Result<(File, u64), FileError> {
    let found = file
        .metadata()
        .map_err(|error| FileError::io(path, error))?;
    if !found.is_file() {
        return Err(FileError::not_regular(path));
    }
    Ok((file, found.len()))
}
