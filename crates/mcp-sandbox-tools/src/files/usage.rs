//! How much a directory holds.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Files after which the count is given up: what it found until then is the answer.
const ENTRIES: usize = 1_000_000;

/// Bytes of disk below `root`, no link followed.
///
/// # Errors
/// The directory itself cannot be read.
pub(super) fn usage(root: &Path) -> io::Result<u64> {
    let mut waiting = vec![fs::read_dir(root)?];
    let (mut bytes, mut seen) = (0_u64, 0);
    while let Some(listing) = waiting.pop() {
        for entry in listing.flatten() {
            seen += 1;
            if seen > ENTRIES {
                return Ok(bytes);
            }
            let Ok(found) = fs::symlink_metadata(entry.path()) else {
                continue;
            };
            bytes = bytes.saturating_add(found.blocks().saturating_mul(512));
            if found.is_dir() {
                waiting.extend(fs::read_dir(entry.path()));
            }
        }
    }
    Ok(bytes)
}
