use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::path::resolve_for_change;
use super::{Failure, Places};
use crate::input::WriteInput;
use crate::result::ToolResult;

pub(super) fn write(places: &Places, input: &WriteInput) -> Result<ToolResult, Failure> {
    let given = &input.file_path;
    let target = resolve_for_change(places, given)?;
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(|error| Failure::io(given, &error))?;
    }
    replace(&target, input.content.as_bytes()).map_err(|error| Failure::io(given, &error))?;
    Ok(ToolResult::text(format!(
        "wrote {} bytes to {given}",
        input.content.len()
    )))
}

/// Replaces a file's content in place: its mode, owner and links stay.
pub(super) fn replace(target: &Path, content: &[u8]) -> io::Result<()> {
    if fs::metadata(target).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    let mut options = fs::OpenOptions::new();
    // O_NONBLOCK: it may have become a FIFO since.
    options
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(0o4000);
    options.open(target)?.write_all(content)
}
