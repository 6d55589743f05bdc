//! A skill's files where they come in one ZIP archive.
//!
//! The central directory says what there is; of a local header only the length counts. What comes out is counted and
//! never believed. No encryption, no ZIP64: an archive that needs it is larger than any that is taken. The worker has a
//! reader of its own for what it fetches, which writes to disk and knows tar as well.

use std::io::Read;

use bytes::Bytes;
use flate2::CrcReader;
use flate2::read::DeflateDecoder;

/// A file of an archive.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ZipFile {
    /// As the archive has it: not judged yet.
    pub(super) path: String,
    pub(super) executable: bool,
    pub(super) content: Bytes,
}

/// Why an archive is not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ZipError {
    #[error("the archive is no ZIP file that can be read, or a part of it is missing")]
    Broken,
    #[error("the archive is encrypted")]
    Encrypted,
    #[error("an entry of the archive is compressed in a way that is not known here: deflate is")]
    Method,
    #[error("an entry of the archive is damaged")]
    Damaged,
    #[error("the archive has a link or a special file, and a skill has only files")]
    Special,
    #[error("a name in the archive is not UTF-8")]
    Name,
    #[error("the archive has more than {ENTRIES_MOST} entries")]
    TooMany,
    #[error("the archive unpacks to more than is taken")]
    TooLarge,
}

/// Whether these bytes begin like an archive that has an entry.
pub(super) fn is_zip(content: &[u8]) -> bool {
    content.starts_with(b"PK\x03\x04")
}

/// The files of an archive that unpacks to at most `most` bytes; directories, and what macOS adds, are left out.
pub(super) fn files(archive: &[u8], most: u64) -> Result<Vec<ZipFile>, ZipError> {
    let end = end_record(archive)?;
    let count = usize::from(u16_at(end, 10)?);
    if count > ENTRIES_MOST {
        return Err(ZipError::TooMany);
    }
    let mut directory = from(archive, u32_at(end, 16)?)?;
    let (mut files, mut left) = (Vec::new(), most);
    for _ in 0..count {
        let (entry, rest) = Entry::next(archive, directory)?;
        directory = rest;
        if entry.is_left_out() {
            continue;
        }
        let content = entry.content(left)?;
        left -= content.len() as u64;
        files.push(ZipFile {
            path: entry.path.to_owned(),
            executable: entry.mode & 0o111 != 0,
            content: content.into(),
        });
    }
    Ok(files)
}

/// One entry of the central directory.
struct Entry<'a> {
    path: &'a str,
    /// Unix mode with its file type; 0 where the archive was made elsewhere.
    mode: u32,
    method: u16,
    crc: u32,
    size: u32,
    packed: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The first entry of `directory`, and what follows it.
    fn next(archive: &'a [u8], directory: &'a [u8]) -> Result<(Self, &'a [u8]), ZipError> {
        if u32_at(directory, 0)? != CENTRAL {
            return Err(ZipError::Broken);
        }
        if u16_at(directory, 8)? & ENCRYPTED != 0 {
            return Err(ZipError::Encrypted);
        }
        let [name, extra, comment] = [28, 30, 32].map(|at| u16_at(directory, at));
        let name_end = CENTRAL_BYTES + usize::from(name?);
        let end = name_end + usize::from(extra?) + usize::from(comment?);
        let path = directory.get(CENTRAL_BYTES..name_end);
        let path = std::str::from_utf8(path.ok_or(ZipError::Broken)?);
        let mode = match directory.get(5) {
            Some(&UNIX) => u32_at(directory, 38)? >> 16,
            _ => 0,
        };
        let local = from(archive, u32_at(directory, 42)?)?;
        if u32_at(local, 0)? != LOCAL {
            return Err(ZipError::Broken);
        }
        let start = LOCAL_BYTES + usize::from(u16_at(local, 26)?) + usize::from(u16_at(local, 28)?);
        let length = usize::try_from(u32_at(directory, 20)?).map_err(|_| ZipError::Broken)?;
        let packed = local.get(start..).and_then(|data| data.get(..length));
        let entry = Self {
            path: path.map_err(|_| ZipError::Name)?,
            mode,
            method: u16_at(directory, 10)?,
            crc: u32_at(directory, 16)?,
            size: u32_at(directory, 24)?,
            packed: packed.ok_or(ZipError::Broken)?,
        };
        let rest = directory.get(end..).ok_or(ZipError::Broken)?;
        Ok((entry, rest))
    }

    fn is_left_out(&self) -> bool {
        let of_macos = self.path.starts_with("__MACOSX/") || self.path.ends_with(".DS_Store");
        self.path.ends_with('/') || of_macos
    }

    fn content(&self, left: u64) -> Result<Vec<u8>, ZipError> {
        if !matches!(self.mode & FILE_TYPE, 0 | REGULAR) {
            return Err(ZipError::Special);
        }
        let plain: Box<dyn Read + '_> = match self.method {
            0 => Box::new(self.packed),
            8 => Box::new(DeflateDecoder::new(self.packed)),
            _ => return Err(ZipError::Method),
        };
        if u64::from(self.size) > left {
            return Err(ZipError::TooLarge);
        }
        let mut content = Vec::new();
        let mut checked = CrcReader::new(plain.take(u64::from(self.size) + 1));
        let read = checked.read_to_end(&mut content);
        let crc = checked.crc();
        if read.is_err() || crc.amount() != self.size || crc.sum() != self.crc {
            return Err(ZipError::Damaged);
        }
        Ok(content)
    }
}

/// The end record: the last one that the archive's length agrees with.
fn end_record(archive: &[u8]) -> Result<&[u8], ZipError> {
    let last = archive
        .len()
        .checked_sub(END_BYTES)
        .ok_or(ZipError::Broken)?;
    let first = last.saturating_sub(usize::from(u16::MAX));
    let records = (first..=last).rev().filter_map(|at| archive.get(at..));
    let fits = |record: &&[u8]| {
        let comment = u16_at(record, 20).map(usize::from);
        u32_at(record, 0) == Ok(END) && comment == Ok(record.len() - END_BYTES)
    };
    records.into_iter().find(fits).ok_or(ZipError::Broken)
}

fn from(bytes: &[u8], at: u32) -> Result<&[u8], ZipError> {
    let at = usize::try_from(at).map_err(|_| ZipError::Broken)?;
    bytes.get(at..).ok_or(ZipError::Broken)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, ZipError> {
    let found = bytes.get(at..at + 2).and_then(|two| two.try_into().ok());
    found.map(u16::from_le_bytes).ok_or(ZipError::Broken)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, ZipError> {
    let found = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    found.map(u32::from_le_bytes).ok_or(ZipError::Broken)
}

/// Entries of one archive, directories included.
const ENTRIES_MOST: usize = 2000;

const END: u32 = 0x0605_4b50;
const END_BYTES: usize = 22;
const CENTRAL: u32 = 0x0201_4b50;
const CENTRAL_BYTES: usize = 46;
const LOCAL: u32 = 0x0403_4b50;
const LOCAL_BYTES: usize = 30;
const UNIX: u8 = 3;
const ENCRYPTED: u16 = 1;
const FILE_TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;

#[cfg(test)]
#[path = "zip_tests.rs"]
pub(super) mod tests;
