//! The path rule.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::{Failure, LOOP, Places, reason};

/// More links than this are a loop.
const HOPS: usize = 40;

/// Resolves a path that a tool was given; refuses what lies outside the permitted roots.
///
/// `.` and `..` are collapsed by spelling first, then every link is followed, the
/// last one and dangling ones too. What does not exist yet is kept as spelled.
pub(super) fn resolve(places: &Places, given: &str) -> Result<PathBuf, Failure> {
    if given.contains('\0') {
        return Err(Failure::new("path holds a NUL character"));
    }
    let working_dir = canonical_root(&places.working_dir);
    let found = canonical(&working_dir.join(given))
        .map_err(|error| Failure::new(format!("path '{given}': {}", reason(&error))))?;
    let others = places.allowed_roots.iter().chain(&places.read_only_roots);
    let mut roots = [working_dir]
        .into_iter()
        .chain(others.map(|root| canonical_root(root)));
    if roots.any(|root| found.starts_with(root)) {
        return Ok(found);
    }
    let none = places.allowed_roots.is_empty() && places.read_only_roots.is_empty();
    let more = if none {
        ""
    } else {
        " and its other permitted directories"
    };
    Err(Failure::new(format!(
        "path '{given}' is outside the session's working directory{more}"
    )))
}

/// As [`resolve`], and refuses directories that may not be changed.
pub(super) fn resolve_for_change(places: &Places, given: &str) -> Result<PathBuf, Failure> {
    let found = resolve(places, given)?;
    let inside = |root: &&String| found.starts_with(canonical_root(root));
    match places.read_only_roots.iter().find(inside) {
        Some(root) => Err(Failure::new(format!(
            "{given} is inside read-only directory {root}"
        ))),
        None => Ok(found),
    }
}

/// Where a directory is searched: the one given, or the working directory.
pub(super) fn search_root(places: &Places, given: Option<&str>) -> Result<PathBuf, Failure> {
    match given {
        Some(path) if !path.is_empty() => resolve(places, path),
        _ => Ok(canonical_root(&places.working_dir)),
    }
}

fn canonical_root(root: &str) -> PathBuf {
    canonical(Path::new(root)).unwrap_or_else(|_| PathBuf::from(root))
}

/// Follows every link of an absolute path.
pub(super) fn canonical(path: &Path) -> io::Result<PathBuf> {
    let mut rest = spelled_out(path);
    let (mut done, mut hops) = (PathBuf::from("/"), 0);
    while let Some(name) = rest.pop() {
        if name == ".." {
            done.pop();
            continue;
        }
        let next = done.join(&name);
        match fs::symlink_metadata(&next) {
            Ok(kind) if kind.is_symlink() => {
                hops += 1;
                if hops > HOPS {
                    return Err(io::Error::from_raw_os_error(LOOP));
                }
                let target = fs::read_link(&next)?;
                if target.is_absolute() {
                    done = PathBuf::from("/");
                }
                rest.extend(parts(&target).into_iter().rev());
            }
            Ok(_) => done = next,
            Err(error) if error.kind() == io::ErrorKind::NotFound => done = next,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => done = next,
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// The names of a path, the last one first, with `.` and `..` collapsed.
fn spelled_out(path: &Path) -> Vec<OsString> {
    let mut names = Vec::new();
    for part in parts(path) {
        if part == ".." {
            names.pop();
        } else {
            names.push(part);
        }
    }
    names.reverse();
    names
}

fn parts(path: &Path) -> Vec<OsString> {
    let part = |part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    };
    path.components().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Tree {
        dir: tempfile::TempDir,
        places: Places,
    }

    fn tree() -> Tree {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        fs::create_dir_all(base.join("work/sub")).unwrap();
        fs::create_dir_all(base.join("memory")).unwrap();
        fs::write(base.join("secret"), "x").unwrap();
        let work = base.join("work");
        symlink("../secret", work.join("up")).unwrap();
        symlink("/etc/passwd", work.join("away")).unwrap();
        symlink("../new-outside", work.join("dangling")).unwrap();
        symlink("loop", work.join("loop")).unwrap();
        symlink("sub", work.join("inside")).unwrap();
        symlink("..", work.join("parent")).unwrap();
        let mut places = Places::new(work.to_str().unwrap());
        places
            .read_only_roots
            .push(base.join("memory").to_str().unwrap().to_owned());
        Tree { dir, places }
    }

    #[track_caller]
    fn check(tree: &Tree, given: &str, expect: Option<&str>) {
        let base = tree.dir.path().canonicalize().unwrap();
        let got = resolve(&tree.places, given).ok();
        assert_eq!(got, expect.map(|path| base.join(path)), "{given}");
    }

    #[test]
    fn what_leads_outside_is_refused() {
        let tree = tree();
        for outside in [
            "../secret",
            "/etc/passwd",
            "up",
            "away",
            "dangling",
            "loop",
            "parent/secret",
            "sub/../../secret",
            "inside/../../secret",
            "",
            "/work",
            "a\0b",
        ] {
            let expect = if outside.is_empty() {
                Some("work")
            } else {
                None
            };
            check(&tree, outside, expect);
        }
    }

    #[test]
    fn what_stays_inside_is_found_or_kept_as_spelled() {
        let tree = tree();
        check(&tree, "sub", Some("work/sub"));
        check(&tree, "inside/new/file", Some("work/sub/new/file"));
        check(&tree, "./a/../b", Some("work/b"));
        check(&tree, "parent/work/x", Some("work/x"));
        check(&tree, "up/../x", Some("work/x"));
        check(&tree, "../memory/note", Some("memory/note"));
    }

    #[test]
    fn read_only_roots_may_not_be_changed() {
        let tree = tree();
        assert!(resolve_for_change(&tree.places, "../memory/note").is_err());
        assert!(resolve_for_change(&tree.places, "note").is_ok());
    }
}
