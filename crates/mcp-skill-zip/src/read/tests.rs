//! Archives, whole and broken.

use proptest::prelude::*;

use super::*;
use crate::archive;

const FILE: u32 = REGULAR | 0o644;

/// What comes out: names, kinds and contents.
type Found = Vec<(String, Kind, Vec<u8>)>;

fn unpacked(archive: &[u8], most: usize) -> Result<Found, ZipError> {
    let entries = entries(archive, most)?;
    let unpacked = entries.iter().map(|entry| {
        let mut content = Vec::new();
        entry.read(|from| {
            let read = from.read_to_end(&mut content);
            read.map_err(|_| ZipError::Damaged)
        })?;
        let name = String::from_utf8_lossy(entry.name()).into_owned();
        Ok((name, entry.kind(), content))
    });
    unpacked.collect()
}

#[test]
fn entries_come_out_as_what_they_are() {
    let packed = archive(&[
        ("a/", 0o040_755, b""),
        ("a/SKILL.md", FILE, b"text"),
        ("a/run", REGULAR | 0o755, b"x"),
        ("a/none", 0, b"y"),
        ("a/link", 0o120_777, b"/etc/passwd"),
    ])
    .unwrap();
    assert!(is_zip(&packed) && !is_zip(b"---\nname: a"));
    let file = |executable| Kind::File { executable };
    let found = unpacked(&packed, 5).unwrap();
    let found = found.iter().map(|(n, k, c)| (n.as_str(), *k, c.as_slice()));
    let expected: [(&str, Kind, &[u8]); 5] = [
        ("a/", Kind::Directory, b""),
        ("a/SKILL.md", file(false), b"text"),
        ("a/run", file(true), b"x"),
        ("a/none", file(false), b"y"),
        ("a/link", Kind::Other, b"/etc/passwd"),
    ];
    assert!(found.eq(expected));
    assert_eq!(unpacked(&packed, 4), Err(ZipError::TooMany { most: 4 }));
}

#[test]
fn what_cannot_be_read_says_why() {
    assert_eq!(unpacked(b"PK\x03\x04", 1), Err(ZipError::Broken));
    let whole = archive(&[("a", FILE, b"text")]).unwrap();
    let central = whole
        .windows(4)
        .position(|four| four == CENTRAL.to_le_bytes());
    for (at, with, expected) in [
        (8, 1, ZipError::Encrypted),
        (10, 12, ZipError::Method),
        (16, 0, ZipError::Damaged),
        (24, 3, ZipError::Damaged),
        (45, 1, ZipError::Broken),
    ] {
        let mut bad = whole.clone();
        bad[central.unwrap() + at] = with;
        assert_eq!(unpacked(&bad, 1), Err(expected), "{at}");
    }
}

proptest! {
    #[test]
    fn damage_is_an_error_or_changes_nothing_that_is_checked(at: prop::sample::Index, with: u8) {
        let mut packed = archive(&[("a/SKILL.md", FILE, b"text of a skill"), ("a/b", FILE, b"x")]).unwrap();
        let at = at.index(packed.len());
        packed[at] = with;
        if let Ok(found) = unpacked(&packed, 10) {
            let known: [&[u8]; 2] = [b"text of a skill", b"x"];
            prop_assert!(found.iter().all(|(_, _, content)| known.contains(&content.as_slice())));
        }
    }

    #[test]
    fn nothing_panics(mut bytes: Vec<u8>) {
        let _ = unpacked(&bytes, 10);
        bytes.extend(END.to_le_bytes());
        bytes.extend([0; 18]);
        let _ = unpacked(&bytes, 10);
    }
}
