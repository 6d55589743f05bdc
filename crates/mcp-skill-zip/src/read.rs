//! From bytes to entries.

use std::io::{self, Read};

use flate2::CrcReader;
use flate2::read::DeflateDecoder;

use crate::{CENTRAL, DEFLATE, END, LOCAL, UNIX};

/// One entry, as the central directory has it.
#[derive(Debug)]
pub struct Entry<'a> {
    name: &'a [u8],
    mode: u32,
    method: u16,
    crc: u32,
    size: u32,
    packed: &'a [u8],
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by definition")]
pub enum Kind {
    /// By its name, which ends with `/`.
    Directory,
    /// A plain file; one that was packed where files have no modes is not executable.
    File {
        /// Whether anybody may execute it.
        executable: bool,
    },
    /// A link, a device, or what else is not to be unpacked.
    Other,
}

/// Why an archive is not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ZipError {
    /// A header is missing, or points out of the archive.
    #[error("the archive is no ZIP file that can be read, or a part of it is missing")]
    Broken,
    /// An entry needs a password.
    #[error("the archive is encrypted")]
    Encrypted,
    /// An entry is neither stored nor deflated.
    #[error("an entry of the archive is compressed in a way that is not known here: deflate is")]
    Method,
    /// What comes out of an entry is not what the archive says of it.
    #[error("an entry of the archive is damaged")]
    Damaged,
    /// There are more entries than are taken.
    #[error("the archive has too many entries: {most} is the most")]
    TooMany {
        /// How many are taken.
        most: usize,
    },
}

impl From<ZipError> for io::Error {
    fn from(error: ZipError) -> Self {
        Self::other(error)
    }
}

/// Whether these bytes begin like an archive that has an entry.
#[must_use]
pub fn is_zip(content: &[u8]) -> bool {
    content.starts_with(&LOCAL.to_le_bytes())
}

/// All entries of an archive, directories included, in the order of its central directory.
///
/// # Errors
/// It is no archive of this kind, or has more than `most` entries.
pub fn entries(archive: &[u8], most: usize) -> Result<Vec<Entry<'_>>, ZipError> {
    let end = end_record(archive)?;
    let count = usize::from(u16_at(end, 10)?);
    if count > most {
        return Err(ZipError::TooMany { most });
    }
    let mut directory = from(archive, u32_at(end, 16)?)?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let (entry, rest) = Entry::next(archive, directory)?;
        entries.push(entry);
        directory = rest;
    }
    Ok(entries)
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
        let name = directory.get(CENTRAL_BYTES..name_end);
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
            name: name.ok_or(ZipError::Broken)?,
            mode,
            method: u16_at(directory, 10)?,
            crc: u32_at(directory, 16)?,
            size: u32_at(directory, 24)?,
            packed: packed.ok_or(ZipError::Broken)?,
        };
        let rest = directory.get(end..).ok_or(ZipError::Broken)?;
        Ok((entry, rest))
    }

    /// Its name, not judged: any bytes.
    #[must_use]
    pub const fn name(&self) -> &'a [u8] {
        self.name
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.mode & FILE_TYPE {
            _ if self.name.ends_with(b"/") => Kind::Directory,
            0 | REGULAR => Kind::File {
                executable: self.mode & 0o111 != 0,
            },
            _ => Kind::Other,
        }
    }

    /// Bytes that come out of it, as the archive says; [`read`](Self::read) gives no more than that and one.
    #[must_use]
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// Hands its content to `take`, and checks that all of it came as the archive says.
    ///
    /// # Errors
    /// Those of `take`, [`ZipError::Method`], [`ZipError::Damaged`] where it is not what the archive says, or where `take`
    /// left something.
    pub fn read<T, E: From<ZipError>>(
        &self,
        take: impl FnOnce(&mut dyn Read) -> Result<T, E>,
    ) -> Result<T, E> {
        let plain: Box<dyn Read + '_> = match self.method {
            STORED => Box::new(self.packed),
            DEFLATE => Box::new(DeflateDecoder::new(self.packed)),
            _ => return Err(ZipError::Method.into()),
        };
        let mut content = CrcReader::new(plain.take(u64::from(self.size) + 1));
        let taken = take(&mut content)?;
        let crc = content.crc();
        if crc.amount() != self.size || crc.sum() != self.crc {
            return Err(ZipError::Damaged.into());
        }
        Ok(taken)
    }
}

/// The end record: the last one that the archive's length agrees with.
fn end_record(archive: &[u8]) -> Result<&[u8], ZipError> {
    let last = archive
        .len()
        .checked_sub(END_BYTES)
        .ok_or(ZipError::Broken)?;
    let first = last.saturating_sub(usize::from(u16::MAX));
    let mut records = (first..=last).rev().filter_map(|at| archive.get(at..));
    let fits = |record: &&[u8]| {
        let comment = u16_at(record, 20).map(usize::from);
        u32_at(record, 0) == Ok(END) && comment == Ok(record.len() - END_BYTES)
    };
    records.find(fits).ok_or(ZipError::Broken)
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

const END_BYTES: usize = 22;
const CENTRAL_BYTES: usize = 46;
const LOCAL_BYTES: usize = 30;
const STORED: u16 = 0;
const ENCRYPTED: u16 = 1;
const FILE_TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;

#[cfg(test)]
mod tests;
