//! Replays every corpus file, and a few thousand small changes of each.

use std::path::Path;

#[test]
fn corpora_and_their_neighbours_do_not_panic() {
    for (name, run) in fuzz::TARGETS {
        run(b"");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(name);
        let files: Vec<_> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|file| file.unwrap().path())
            .collect();
        assert!(!files.is_empty(), "{} has no file", folder.display());
        for file in files {
            let bytes = std::fs::read(&file).unwrap();
            run(&bytes);
            neighbours(&bytes, *run);
        }
    }
}

/// Cuts at each place, and at each place puts in bytes that formats give a meaning to.
fn neighbours(bytes: &[u8], run: fn(&[u8])) {
    let bytes = &bytes[..bytes.len().min(512)];
    for at in 0..bytes.len() {
        run(&bytes[..at]);
        let mut changed = bytes.to_vec();
        for with in [
            0,
            1,
            0x7f,
            0x80,
            0xff,
            b'"',
            b'{',
            b'}',
            b'\\',
            b'\n',
            b'\r',
            b':',
            b'-',
            bytes[at] ^ 1,
        ] {
            changed[at] = with;
            run(&changed);
        }
    }
}
