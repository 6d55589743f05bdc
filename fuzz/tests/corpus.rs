//! Replays every committed input, and a few thousand small changes of each that was written by hand.

use std::{fs, path::Path};

#[test]
fn corpora_and_their_neighbours_do_not_panic() {
    for (name, run) in fuzz::TARGETS {
        run(b"");
        let inputs = inputs(&Path::new("corpus").join(name));
        assert!(!inputs.is_empty(), "{name} has no input");
        for bytes in inputs {
            run(&bytes);
            neighbours(&bytes, *run);
        }
    }
}

#[test]
fn what_the_fuzzer_found_does_not_panic() {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("found");
    for (name, run) in fuzz::TARGETS {
        // Not every target has reached more than what is written by hand does.
        if found.join(name).exists() {
            inputs(&found.join(name))
                .iter()
                .for_each(|bytes| run(bytes));
        }
    }
}

fn inputs(folder: &Path) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files =
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    files
        .map(|file| fs::read(file.expect("a readable folder").path()).expect("a readable input"))
        .collect()
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
