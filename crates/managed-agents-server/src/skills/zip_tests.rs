//! Archives, whole and broken.

use std::io::Write as _;

use flate2::Crc;
use flate2::write::DeflateEncoder;
use proptest::prelude::*;

use super::*;

/// An entry to be written: its name, its Unix mode and its content.
pub(in crate::skills) type Written<'a> = (&'a str, u32, &'a [u8]);

/// An archive of deflated entries.
pub(in crate::skills) fn written(entries: &[Written<'_>]) -> Vec<u8> {
    let (mut archive, mut directory) = (Vec::new(), Vec::new());
    for (name, mode, content) in entries {
        let mut packed = DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        packed.write_all(content).unwrap();
        let packed = packed.finish().unwrap();
        let mut crc = Crc::new();
        crc.update(content);
        let at = u32::try_from(archive.len()).unwrap();
        // From the needed version to the lengths: the same in both headers.
        let mut common = vec![20, 0, 0, 0, 8, 0, 0, 0, 0, 0];
        let lengths = [packed.len(), content.len()].map(|length| u32::try_from(length).unwrap());
        for number in [crc.sum(), lengths[0], lengths[1]] {
            common.extend(number.to_le_bytes());
        }
        common.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
        common.extend([0, 0]);
        archive.extend(LOCAL.to_le_bytes());
        archive.extend(&common);
        archive.extend(name.bytes());
        archive.extend(packed);
        directory.extend(CENTRAL.to_le_bytes());
        directory.extend([20, UNIX]);
        directory.extend(common);
        directory.extend([0; 6]);
        directory.extend((mode << 16).to_le_bytes());
        directory.extend(at.to_le_bytes());
        directory.extend(name.bytes());
    }
    let at = u32::try_from(archive.len()).unwrap();
    let count = u16::try_from(entries.len()).unwrap().to_le_bytes();
    archive.extend(&directory);
    archive.extend(END.to_le_bytes());
    archive.extend([0; 4]);
    archive.extend(count);
    archive.extend(count);
    archive.extend(u32::try_from(directory.len()).unwrap().to_le_bytes());
    archive.extend(at.to_le_bytes());
    archive.extend([0; 2]);
    archive
}

const FILE: u32 = REGULAR | 0o644;

#[test]
fn files_come_out_and_directories_do_not() {
    let archive = written(&[
        ("a/", 0o040_755, b""),
        ("a/SKILL.md", FILE, b"text"),
        ("a/run", REGULAR | 0o755, b"x"),
        ("__MACOSX/a/._SKILL.md", FILE, b"mac"),
        ("a/.DS_Store", FILE, b"mac"),
    ]);
    assert!(is_zip(&archive) && !is_zip(b"---\nname: a"));
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
    assert_eq!(files(&archive, 4), Err(ZipError::TooLarge));
}

#[test]
fn what_is_no_plain_file_is_refused() {
    let link = written(&[("a/SKILL.md", 0o120_777, b"/etc/passwd")]);
    assert_eq!(files(&link, 100), Err(ZipError::Special));
    let many = vec![("a", FILE, &b""[..]); ENTRIES_MOST + 1];
    assert_eq!(files(&written(&many), 100), Err(ZipError::TooMany));
    assert_eq!(files(b"PK\x03\x04", 100), Err(ZipError::Broken));
}

#[test]
fn a_size_that_is_a_lie_is_found_out() {
    let content = vec![0; 100_000];
    let mut archive = written(&[("a", FILE, &content)]);
    let at = archive
        .windows(4)
        .position(|four| four == CENTRAL.to_le_bytes());
    let at = at.unwrap() + 24;
    archive[at..at + 4].copy_from_slice(&10u32.to_le_bytes());
    assert_eq!(files(&archive, 100), Err(ZipError::Damaged));
}

proptest! {
    #[test]
    fn damage_is_an_error_or_changes_nothing_that_is_checked(at: prop::sample::Index, with: u8) {
        let mut archive = written(&[("a/SKILL.md", FILE, b"text of a skill"), ("a/b", FILE, b"x")]);
        let at = at.index(archive.len());
        archive[at] = with;
        if let Ok(files) = files(&archive, 1000) {
            let known: [&[u8]; 2] = [b"text of a skill", b"x"];
            prop_assert!(files.iter().all(|file| known.contains(&&*file.content)));
        }
    }

    #[test]
    fn nothing_panics(mut bytes: Vec<u8>) {
        let _ = files(&bytes, 1000);
        bytes.extend(END.to_le_bytes());
        bytes.extend([0; 18]);
        let _ = files(&bytes, 1000);
    }
}
