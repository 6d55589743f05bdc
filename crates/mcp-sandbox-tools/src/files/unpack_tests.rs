use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

fn tar_of(entries: &[(&str, &str, u32)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content, mode) in entries {
        let mut header = tar::Header::new_ustar();
        // Written by hand: the library refuses names that a hostile archive has.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        let directory = name.ends_with('/');
        header.set_entry_type(if directory {
            tar::EntryType::Directory
        } else {
            tar::EntryType::Regular
        });
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        header.set_cksum();
        archive.append(&header, content.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

fn zip_of(entries: &[(&str, u32, &[u8])]) -> Vec<u8> {
    mcp_skill_zip::archive(entries).unwrap()
}

/// Unpacks to `skill` in a fresh folder.
fn run(archive: &[u8]) -> (tempfile::TempDir, io::Result<usize>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("archive");
    fs::write(&path, archive).unwrap();
    let done = unpack(&path, &folder.path().join("skill"));
    assert!(!path.exists(), "the archive is removed");
    assert!(!folder.path().join("skill.new").exists());
    (folder, done)
}

#[track_caller]
fn check_unpacks(archive: &[u8]) {
    let (folder, done) = run(archive);
    assert_eq!(done.unwrap(), 2);
    let skill = folder.path().join("skill");
    assert_eq!(fs::read(skill.join("SKILL.md")).unwrap(), b"words");
    let script = skill.join("bin/run");
    assert_eq!(fs::read(&script).unwrap(), b"#!/bin/sh");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&script), 0o755);
    assert_eq!(mode(&skill.join("SKILL.md")), 0o644);
    assert_eq!(mode(&skill.join("bin")), 0o700);
}

#[track_caller]
fn check_refused(archive: &[u8], why: &str) {
    let (folder, done) = run(archive);
    let error = done.unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
    assert!(!folder.path().join("skill").exists());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

const FILES: [(&str, &str, u32); 3] = [
    ("SKILL.md", "words", 0o600),
    ("bin/", "", 0o4777),
    ("bin/run", "#!/bin/sh", 0o4711),
];

fn within(folder: &str) -> Vec<(String, &'static str, u32)> {
    let named = FILES.map(|(name, content, mode)| (format!("{folder}{name}"), content, mode));
    named.to_vec()
}

#[test]
fn tar_gzip_and_zip_come_out_alike_with_and_without_a_directory_around() {
    for folder in ["", "./", "my-skill/"] {
        let named = within(folder);
        let tar = named.iter().map(|(n, c, m)| (n.as_str(), *c, *m));
        let tar = tar_of(&tar.collect::<Vec<_>>());
        check_unpacks(&tar);
        check_unpacks(&gzip(&tar));
        let mode = |n: &str, m| {
            if n.ends_with('/') {
                0o40_755
            } else {
                0o100_000 | m
            }
        };
        let zip = named.iter();
        let zip = zip.map(|(n, c, m)| (n.as_str(), mode(n, *m), c.as_bytes()));
        check_unpacks(&zip_of(&zip.collect::<Vec<_>>()));
    }
}

#[test]
fn names_that_lead_out_are_refused() {
    for name in ["../x", "/etc/x", "a/../../x", "a/.."] {
        check_refused(
            &tar_of(&[("ok", "", 0o644), (name, "x", 0o644)]),
            "leads out",
        );
        check_refused(
            &zip_of(&[("ok", 0o644, b""), (name, 0o644, b"x")]),
            "leads out",
        );
    }
}

#[test]
fn links_and_special_files_are_skipped() {
    let zip = zip_of(&[
        ("SKILL.md", 0o100_644, b"words"),
        ("link", 0o120_777, b"/etc/passwd"),
    ]);
    let mut tar = tar::Builder::new(Vec::new());
    for (name, kind) in [
        ("link", tar::EntryType::Symlink),
        ("hard", tar::EntryType::Link),
        ("fifo", tar::EntryType::Fifo),
        ("SKILL.md", tar::EntryType::Regular),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_path(name).unwrap();
        header.set_link_name("/etc/passwd").unwrap();
        header.set_size(0);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, io::empty()).unwrap();
    }
    for archive in [zip, tar.into_inner().unwrap()] {
        let (folder, done) = run(&archive);
        assert_eq!(done.unwrap(), 1);
        let names = fs::read_dir(folder.path().join("skill")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["SKILL.md"]);
    }
}

#[test]
fn bombs_are_counted_as_they_come() {
    let much = vec![0; usize::try_from(UNPACKED_BYTES).unwrap() + 1];
    let mut zip = zip_of(&[("a", 0o644, &much)]);
    check_refused(&zip, "too much");
    // It states little; no more than that is ever read.
    let central = zip.windows(4).position(|four| four == b"PK\x01\x02");
    let size = central.unwrap() + 24;
    zip[size..size + 4].copy_from_slice(&10u32.to_le_bytes());
    check_refused(&zip, "damaged");
    let mut tar = tar_of(&[]);
    tar.clear();
    let mut header = tar::Header::new_ustar();
    header.set_path("a").unwrap();
    header.set_size(much.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    let mut archive = tar::Builder::new(tar);
    archive.append(&header, much.as_slice()).unwrap();
    check_refused(&gzip(&archive.into_inner().unwrap()), "too much");
}

#[test]
fn too_many_entries_and_too_deep_ones_are_refused() {
    let names = (0..=ENTRIES).map(|n| format!("f{n}")).collect::<Vec<_>>();
    let entries = names.iter().map(|n| (n.as_str(), "", 0o644));
    check_refused(&tar_of(&entries.collect::<Vec<_>>()), "too many");
    let entries = names.iter().map(|n| (n.as_str(), 0o644, &b""[..]));
    check_refused(&zip_of(&entries.collect::<Vec<_>>()), "too many");
    let deep = "d/".repeat(DEPTH) + "f";
    check_refused(&tar_of(&[(&deep, "", 0o644)]), "too deep");
}

#[test]
fn damage_anywhere_is_an_error_and_never_a_panic() {
    let zip = zip_of(&[("SKILL.md", 0o100_644, b"words words words")]);
    let tar = gzip(&tar_of(&FILES));
    for whole in [zip, tar] {
        for cut in 0..whole.len() {
            let (folder, done) = run(&whole[..cut]);
            // A tar may lose its end marks without harm.
            assert!(done.is_err() || done.is_ok_and(|files| files <= 2));
            drop(folder);
        }
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 0x55;
            let _ = run(&bad);
        }
    }
}

#[test]
fn what_stood_there_is_replaced_and_a_link_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let canary = folder.path().join("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("keep"), "x").unwrap();
    let skill = folder.path().join("skill");
    std::os::unix::fs::symlink(&canary, &skill).unwrap();
    for _ in 0..2 {
        fs::write(folder.path().join("archive"), tar_of(&FILES)).unwrap();
        unpack(&folder.path().join("archive"), &skill).unwrap();
        assert!(fs::symlink_metadata(&skill).unwrap().is_dir());
        assert!(!skill.join("stale").exists());
        fs::write(skill.join("stale"), "x").unwrap();
    }
    assert!(canary.join("keep").exists() && !canary.join("SKILL.md").exists());
}
