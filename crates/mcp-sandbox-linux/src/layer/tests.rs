use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// An entry: path, what it is, and the content or the link.
enum Entry {
    File(&'static str, &'static str),
    Program(&'static str),
    Dir(&'static str),
    Link(&'static str, &'static str),
    Hard(&'static str, &'static str),
    Device(&'static str),
}

use Entry::{Device, Dir, File, Hard, Link, Program};

fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut archive = Vec::new();
    for entry in entries {
        let mut header = tar::Header::new_ustar();
        let (kind, path, content, link) = match entry {
            File(path, content) => (tar::EntryType::Regular, path, *content, ""),
            Program(path) => (tar::EntryType::Regular, path, "#!", ""),
            Dir(path) => (tar::EntryType::Directory, path, "", ""),
            Link(path, link) => (tar::EntryType::Symlink, path, "", *link),
            Hard(path, link) => (tar::EntryType::Link, path, "", *link),
            Device(path) => (tar::EntryType::Char, path, "", ""),
        };
        header.set_entry_type(kind);
        header.set_mode(if matches!(entry, Program(_)) {
            0o6711
        } else {
            0o600
        });
        header.set_uid(0);
        header.set_mtime(1000);
        header.set_size(content.len() as u64);
        // Not by `set_path`, which refuses what a hostile archive has.
        let header_bytes = header.as_mut_bytes();
        header_bytes[..path.len()].copy_from_slice(path.as_bytes());
        header_bytes[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        archive.extend_from_slice(header.as_bytes());
        archive.extend_from_slice(content.as_bytes());
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.extend_from_slice(&[0; 1024]);
    archive
}

struct Place {
    _dir: tempfile::TempDir,
    base: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        fs::create_dir(base.join("root")).unwrap();
        fs::create_dir(base.join("outside")).unwrap();
        Self { _dir: dir, base }
    }

    fn layer(&self, entries: &[Entry]) -> io::Result<()> {
        unpack(&self.base.join("root"), &mut tar(entries).as_slice(), false)
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.base.join("root").join(path)).ok()
    }

    #[track_caller]
    fn nothing_outside(&self) {
        assert_eq!(fs::read_dir(self.base.join("outside")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(&self.base).unwrap().count(), 2);
    }
}

#[test]
fn files_links_and_modes_are_those_of_everybody() {
    let place = Place::new();
    place
        .layer(&[
            Dir("./"),
            Dir("bin/"),
            Program("bin/sh"),
            File("etc/secret", "x"),
            Link("sbin", "bin"),
            Hard("etc/again", "etc/secret"),
            Device("dev/console"),
            File("sbin/tool", "t"),
        ])
        .unwrap();
    let root = place.base.join("root");
    let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode();
    assert_eq!(mode("bin/sh") & 0o7777, 0o755);
    assert_eq!(mode("etc/secret") & 0o7777, 0o644);
    assert_eq!(mode("etc") & 0o7777, 0o755);
    assert_eq!(place.read("etc/again").as_deref(), Some("x"));
    assert_eq!(
        place.read("bin/tool").as_deref(),
        Some("t"),
        "through the link"
    );
    assert!(!root.join("dev/console").exists());
    let time = fs::metadata(root.join("bin/sh"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(time, SystemTime::UNIX_EPOCH + Duration::from_secs(1000));
}

#[test]
fn whiteouts_hide_lower_layers_only() {
    let place = Place::new();
    let lower = [
        File("a/1", "1"),
        File("a/2", "2"),
        File("b/1", "1"),
        File("c", "c"),
        File("d/1", "1"),
    ];
    place.layer(&lower).unwrap();
    place
        .layer(&[
            File("b/new/deep", "n"),
            File("b/.wh..wh..opq", ""),
            File("a/.wh.1", ""),
            File(".wh.c", ""),
            File("a/3", "3"),
            File("a/.wh.3", ""),
            File(".wh.d", ""),
            File("a/.wh.none", ""),
        ])
        .unwrap();
    for (path, content) in [("a/2", "2"), ("a/3", "3"), ("b/new/deep", "n")] {
        assert_eq!(place.read(path).as_deref(), Some(content), "{path}");
    }
    for gone in ["a/1", "b/1", "c", "d/1", "a/.wh.1", "b/.wh..wh..opq"] {
        assert_eq!(place.read(gone), None, "{gone}");
    }
}

#[test]
fn files_links_and_directories_take_each_others_place() {
    let place = Place::new();
    place
        .layer(&[File("x", "1"), File("dir/a", "a"), Link("link", "dir")])
        .unwrap();
    place
        .layer(&[File("x/y", "2"), File("dir", "3"), Dir("link/")])
        .unwrap();
    assert_eq!(place.read("x/y").as_deref(), Some("2"));
    assert_eq!(place.read("dir").as_deref(), Some("3"));
    assert!(
        fs::symlink_metadata(place.base.join("root/link"))
            .unwrap()
            .is_dir()
    );
}

#[test]
fn nothing_leads_out() {
    for refused in [
        &[File("../outside/x", "x")][..],
        &[File("a/../../outside/x", "x")],
        &[Hard("x", "../outside/y")],
        &[Hard("x", "/etc/passwd-none")],
        &[File(".wh...", "")],
        &[File("a/.wh..", "")],
        &[Link("a", "b"), Link("b", "a"), File("a/x", "x")],
    ] {
        let place = Place::new();
        assert!(place.layer(refused).is_err());
        place.nothing_outside();
    }
    for confined in [
        &[Link("out", "../outside"), File("out/x", "x")][..],
        &[Link("out", "/"), File("out/etc/x", "x")],
        &[
            Link("a", "../../../.."),
            Link("b", "a/outside"),
            File("b/x", "x"),
        ],
        &[Link("x", "../outside/x"), File("x", "x")],
        &[File("/absolute/x", "x")],
        &[Link("d", "../outside"), Dir("d/"), File("d/x", "x")],
        &[Link("d", "../outside"), File("d/.wh..wh..opq", "")],
    ] {
        let place = Place::new();
        place.layer(confined).unwrap();
        place.nothing_outside();
    }
    assert!(!Path::new("/etc/x").exists());
}

#[test]
fn compressed_layers_are_unpacked_and_broken_ones_refused() {
    let place = Place::new();
    let root = place.base.join("root");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar(&[File("a", "a")])).unwrap();
    let bytes = gzip.finish().unwrap();
    unpack(&root, &mut bytes.as_slice(), true).unwrap();
    assert_eq!(place.read("a").as_deref(), Some("a"));
    assert!(unpack(&root, &mut &bytes[..bytes.len() / 2], true).is_err());
    assert!(unpack(&root, &mut bytes.as_slice(), false).is_err());
    assert!(unpack(&root, &mut b"no archive".as_slice(), true).is_err());
}
