//! What the fuzz targets reach; no part of the interface.

use std::fs;
use std::path::Path;

use crate::message::{FromInit, FromLauncher, ToInit, ToLauncher};
use crate::{cgroup, inside, wire};

/// A packet, as each of the four kinds of message.
pub fn packet(bytes: &[u8]) {
    let _ = wire::decode::<ToLauncher>(bytes, Vec::new());
    let _ = wire::decode::<FromLauncher>(bytes, Vec::new());
    let _ = wire::decode::<ToInit>(bytes, Vec::new());
    let _ = wire::decode::<FromInit>(bytes, Vec::new());
}

/// The kernel's lists of mounts and groups.
pub fn control_groups(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (mounts, own) = text.split_once('\0').unwrap_or((&text, ""));
    cgroup::find(mounts, own);
}

/// An archive, unpacked below a directory; whatever it holds, nothing may change
/// beside that directory.
pub fn archive(bytes: &[u8], dir: &Path) {
    let (into, beside) = (dir.join("into"), dir.join("beside"));
    let _ = fs::remove_dir_all(&into);
    fs::create_dir_all(&beside).expect("the directory is ours");
    let mut bytes = bytes;
    let _ = inside::unpack(&into, &mut bytes);
    let mut names = fs::read_dir(dir)
        .expect("the directory is ours")
        .map(|e| e.expect("an entry").file_name());
    assert!(
        names.all(|name| name == "into" || name == "beside"),
        "something appeared outside"
    );
    assert!(
        fs::read_dir(&beside).expect("still there").next().is_none(),
        "something appeared beside"
    );
}
