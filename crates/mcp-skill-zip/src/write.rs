//! From entries to bytes.

use std::io::Read as _;

use flate2::bufread::DeflateEncoder;
use flate2::{Compression, Crc};

use crate::{CENTRAL, DEFLATE, END, LOCAL, UNIX};

/// An archive of deflated entries: for each its name, its Unix mode with its file type, and its content. `None` where it
/// would need ZIP64.
#[must_use]
pub fn archive(entries: &[(&str, u32, &[u8])]) -> Option<Vec<u8>> {
    let (mut archive, mut directory) = (Vec::new(), Vec::new());
    for (name, mode, content) in entries {
        let at = long(archive.len())?;
        let mut packed = Vec::new();
        let mut encoder = DeflateEncoder::new(*content, Compression::default());
        encoder.read_to_end(&mut packed).ok()?;
        let mut crc = Crc::new();
        crc.update(content);
        // From the needed version to the lengths: the same in both headers.
        let mut common = vec![VERSION, 0, 0, 0];
        common.extend(DEFLATE.to_le_bytes());
        common.extend([0; 4]);
        common.extend(crc.sum().to_le_bytes());
        common.extend(long(packed.len())?);
        common.extend(long(content.len())?);
        common.extend(short(name.len())?);
        common.extend([0; 2]);
        archive.extend(LOCAL.to_le_bytes());
        archive.extend(&common);
        archive.extend(name.bytes());
        archive.extend(packed);
        directory.extend(CENTRAL.to_le_bytes());
        directory.extend([VERSION, UNIX]);
        directory.extend(common);
        directory.extend([0; 6]);
        directory.extend((mode << 16).to_le_bytes());
        directory.extend(at);
        directory.extend(name.bytes());
    }
    let (at, length) = (long(archive.len())?, long(directory.len())?);
    let count = short(entries.len())?;
    archive.extend(directory);
    archive.extend(END.to_le_bytes());
    archive.extend([0; 4]);
    archive.extend(count);
    archive.extend(count);
    archive.extend(length);
    archive.extend(at);
    archive.extend([0; 2]);
    Some(archive)
}

fn short(number: usize) -> Option<[u8; 2]> {
    u16::try_from(number).ok().map(u16::to_le_bytes)
}

fn long(number: usize) -> Option<[u8; 4]> {
    u32::try_from(number).ok().map(u32::to_le_bytes)
}

/// 2.0: deflate and directories.
const VERSION: u8 = 20;
