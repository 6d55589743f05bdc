//! A skill's files where they come in one ZIP archive.

use bytes::Bytes;
use mcp_skill_zip::{Entry, Kind, ZipError, entries};

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
pub(super) enum ArchiveError {
    #[error(transparent)]
    Zip(#[from] ZipError),
    #[error("the archive has a link or a special file, and a skill has only files")]
    Special,
    #[error("a name in the archive is not UTF-8")]
    Name,
    #[error("the archive unpacks to more than is taken")]
    TooLarge,
}

/// The files of an archive that unpacks to at most `most` bytes; directories, and what macOS adds, are left out.
pub(super) fn files(archive: &[u8], most: u64) -> Result<Vec<ZipFile>, ArchiveError> {
    let (mut files, mut left) = (Vec::new(), most);
    for entry in entries(archive, ENTRIES_MOST)? {
        let path = std::str::from_utf8(entry.name()).map_err(|_| ArchiveError::Name)?;
        let of_macos = path.starts_with("__MACOSX/") || path.ends_with(".DS_Store");
        let executable = match entry.kind() {
            _ if of_macos => continue,
            Kind::Directory => continue,
            Kind::File { executable } => executable,
            Kind::Other => return Err(ArchiveError::Special),
        };
        let content = content(&entry, left)?;
        left -= content.len() as u64;
        files.push(ZipFile {
            path: path.to_owned(),
            executable,
            content: content.into(),
        });
    }
    Ok(files)
}

fn content(entry: &Entry<'_>, left: u64) -> Result<Vec<u8>, ArchiveError> {
    if u64::from(entry.size()) > left {
        return Err(ArchiveError::TooLarge);
    }
    let mut content = Vec::new();
    entry.read(|from| {
        let read = from.read_to_end(&mut content);
        read.map_err(|_| ZipError::Damaged)
    })?;
    Ok(content)
}

/// Entries of one archive, directories included.
const ENTRIES_MOST: usize = 2000;

#[cfg(test)]
mod tests {
    use mcp_skill_zip::archive;

    use super::*;

    const FILE: u32 = 0o100_644;

    #[test]
    fn files_come_out_and_directories_do_not() {
        let archive = archive(&[
            ("a/", 0o040_755, b""),
            ("a/SKILL.md", FILE, b"text"),
            ("a/run", 0o100_755, b"x"),
            ("__MACOSX/a/._SKILL.md", FILE, b"mac"),
            ("a/.DS_Store", FILE, b"mac"),
        ])
        .unwrap();
        let file = |path: &str, executable, content: &'static [u8]| ZipFile {
            path: path.to_owned(),
            executable,
            content: content.into(),
        };
        let expected = vec![
            file("a/SKILL.md", false, b"text"),
            file("a/run", true, b"x"),
        ];
        assert_eq!(files(&archive, 5), Ok(expected));
        assert_eq!(files(&archive, 4), Err(ArchiveError::TooLarge));
    }

    #[test]
    fn what_is_no_plain_file_is_refused() {
        let link = archive(&[("a/SKILL.md", 0o120_777, b"/etc/passwd")]).unwrap();
        assert_eq!(files(&link, 100), Err(ArchiveError::Special));
        let most = ENTRIES_MOST;
        let many = archive(&vec![("a", FILE, &b""[..]); most + 1]).unwrap();
        assert_eq!(files(&many, 100), Err(ZipError::TooMany { most }.into()));
        assert_eq!(files(b"PK\x03\x04", 100), Err(ZipError::Broken.into()));
    }

    #[test]
    fn a_size_that_is_a_lie_is_found_out() {
        let content = vec![0; 100_000];
        let mut archive = archive(&[("a", FILE, &content)]).unwrap();
        let central = archive.windows(4).position(|four| four == b"PK\x01\x02");
        let size = central.unwrap() + 24;
        archive[size..size + 4].copy_from_slice(&10u32.to_le_bytes());
        assert_eq!(files(&archive, 100), Err(ZipError::Damaged.into()));
    }
}
