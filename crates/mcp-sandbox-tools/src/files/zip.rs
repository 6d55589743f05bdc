//! Just enough of the ZIP format to read a skill: the central directory, stored and deflated entries.
//!
//! Everything comes from the central directory, which is what other readers show; a local header only says where its data
//! begins. No encryption, no ZIP64 (an archive that needs it is larger than any that is taken here), no spanning.

use std::io::{self, Read};

use flate2::CrcReader;
use flate2::read::DeflateDecoder;

const END: u32 = 0x0605_4b50;
const END_BYTES: usize = 22;
const CENTRAL: u32 = 0x0201_4b50;
const CENTRAL_BYTES: usize = 46;
const LOCAL: u32 = 0x0403_4b50;
const LOCAL_BYTES: usize = 30;
/// The comment after the end record is at most this long.
const COMMENT_BYTES: usize = 65_535;
const UNIX: u8 = 3;
const ENCRYPTED: u16 = 1;

/// One entry, as the central directory has it.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    /// Unix mode with its file type; 0 where the archive was made elsewhere.
    pub(super) mode: u32,
    method: u16,
    crc: u32,
    size: u32,
    /// Its compressed bytes.
    data: &'a [u8],
}

/// All entries of an archive, at most `limit`.
///
/// # Errors
/// It is no such archive, or has more entries.
pub(super) fn entries(archive: &[u8], limit: usize) -> io::Result<Vec<Entry<'_>>> {
    let end = end_record(archive)?;
    let count = usize::from(u16_at(end, 10)?);
    if count > limit {
        return Err(io::Error::other("the archive has too many entries"));
    }
    let mut rest = archive
        .get(u32_at(end, 16)? as usize..)
        .ok_or_else(broken)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let (entry, length) = entry(archive, rest)?;
        entries.push(entry);
        rest = rest.get(length..).ok_or_else(broken)?;
    }
    Ok(entries)
}

impl Entry<'_> {
    /// Whether it is a directory by its name.
    pub(super) fn is_directory(&self) -> bool {
        self.name.ends_with(b"/")
    }

    /// Hands its content to `take`, and checks that all of it came as the archive says.
    pub(super) fn read<T>(
        &self,
        take: impl FnOnce(&mut dyn Read) -> io::Result<T>,
    ) -> io::Result<T> {
        let plain: Box<dyn Read + '_> = match self.method {
            0 => Box::new(self.data),
            8 => Box::new(DeflateDecoder::new(self.data)),
            _ => return Err(io::Error::other("unknown compression in the archive")),
        };
        let mut content = CrcReader::new(plain.take(u64::from(self.size) + 1));
        let taken = take(&mut content)?;
        let crc = content.crc();
        if crc.amount() != self.size || crc.sum() != self.crc {
            return Err(io::Error::other("an entry of the archive is damaged"));
        }
        Ok(taken)
    }
}

/// The end record: the last one that the archive's length agrees with.
fn end_record(archive: &[u8]) -> io::Result<&[u8]> {
    let last = archive.len().checked_sub(END_BYTES).ok_or_else(broken)?;
    let first = last.saturating_sub(COMMENT_BYTES);
    for at in (first..=last).rev() {
        let Some(record) = archive.get(at..) else {
            continue;
        };
        let fits = || {
            let comment = usize::from(u16_at(record, 20).ok()?);
            (END_BYTES + comment == record.len()).then_some(())
        };
        if u32_at(record, 0)? == END && fits().is_some() {
            return Ok(record);
        }
    }
    Err(broken())
}

/// One record of the central directory and its length.
fn entry<'a>(archive: &'a [u8], record: &'a [u8]) -> io::Result<(Entry<'a>, usize)> {
    if u32_at(record, 0)? != CENTRAL {
        return Err(broken());
    }
    if u16_at(record, 8)? & ENCRYPTED != 0 {
        return Err(io::Error::other("the archive is encrypted"));
    }
    let name_length = usize::from(u16_at(record, 28)?);
    let length = CENTRAL_BYTES
        + name_length
        + usize::from(u16_at(record, 30)?)
        + usize::from(u16_at(record, 32)?);
    let name = record
        .get(CENTRAL_BYTES..CENTRAL_BYTES + name_length)
        .ok_or_else(broken)?;
    let mode = match record.get(5) {
        Some(&UNIX) => u32_at(record, 38)? >> 16,
        _ => 0,
    };
    let local = archive
        .get(u32_at(record, 42)? as usize..)
        .ok_or_else(broken)?;
    if u32_at(local, 0)? != LOCAL {
        return Err(broken());
    }
    let start = LOCAL_BYTES + usize::from(u16_at(local, 26)?) + usize::from(u16_at(local, 28)?);
    let packed = u32_at(record, 20)? as usize;
    let data = local.get(start..).and_then(|data| data.get(..packed));
    let entry = Entry {
        name,
        mode,
        method: u16_at(record, 10)?,
        crc: u32_at(record, 16)?,
        size: u32_at(record, 24)?,
        data: data.ok_or_else(broken)?,
    };
    Ok((entry, length))
}

fn u16_at(bytes: &[u8], at: usize) -> io::Result<u16> {
    let found = bytes.get(at..at + 2).and_then(|two| two.try_into().ok());
    found.map(u16::from_le_bytes).ok_or_else(broken)
}

fn u32_at(bytes: &[u8], at: usize) -> io::Result<u32> {
    let found = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    found.map(u32::from_le_bytes).ok_or_else(broken)
}

fn broken() -> io::Error {
    io::Error::other("not a ZIP archive that can be read")
}
