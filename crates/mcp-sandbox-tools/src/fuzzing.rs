//! What the fuzz targets reach; no part of the interface.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::files::{self, Places};
use crate::input::Input;
use crate::shell;

/// A path given to a tool, in a tree of links made from the bytes after it: what it
/// resolves to lies inside, and holds no link any more.
pub fn path(bytes: &[u8], dir: &Path) {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.split('\n');
    let given = parts.next().unwrap_or("");
    let root = dir.join("root");
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(root.join("a/b")).expect("the directory is ours");
    for (name, target) in ["l", "a/l", "a/b/l", "m"].into_iter().zip(parts) {
        let _ = symlink(target, root.join(name));
    }
    let root = root.canonicalize().expect("it was just made");
    let places = Places::new(root.to_string_lossy());
    if let Some(found) = files::resolved(&places, given) {
        assert!(found.starts_with(&root), "{given:?} led to {found:?}");
        let link = found.ancestors().any(Path::is_symlink);
        assert!(!link, "{given:?} led to {found:?}, which holds a link");
    }
}

/// What a shell prints, in pieces: the same output and the same end however it is cut.
pub fn shell_output(bytes: &[u8]) {
    shell::fuzzing::output(bytes);
}

/// What a shell says about itself: a state, or none; a new one that is written from it is read as the same.
pub fn shell_state(bytes: &[u8]) {
    shell::fuzzing::state(bytes);
}

/// A pattern of glob.
pub fn glob_pattern(bytes: &[u8]) {
    files::pattern(&String::from_utf8_lossy(bytes));
}

/// A tool's name, then its input.
pub fn input(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (tool, input) = text.split_once('\n').unwrap_or(("", &text));
    if let Ok(input) = serde_json::from_str(input) {
        let _ = Input::parse(tool, &input);
    }
}
