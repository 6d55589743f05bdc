use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::{FileError, Places};

/// More links than this on the way are a loop; what the kernel says, too.
const MAX_LINKS: usize = 40;

impl Places {
    /// The canonical form of a path, which lies in a permitted directory and holds no link.
    ///
    /// `.` and `..` go first, by their letters; then every link is followed, the last one and dangling ones included. What
    /// does not exist yet keeps its name.
    ///
    /// # Errors
    /// [`FileError::Outside`], [`FileError::Path`].
    pub(super) fn resolve(&self, path: &str) -> Result<PathBuf, FileError> {
        let wrap = |source| FileError::Path {
            path: path.to_owned(),
            source,
        };
        let root = canonical(Path::new(&self.working_dir)).map_err(wrap)?;
        // An absolute path replaces the root.
        let full = canonical(&root.join(path)).map_err(wrap)?;
        let allows =
            |root: &String| canonical(Path::new(root)).is_ok_and(|root| full.starts_with(root));
        let mut others = self.allowed_roots.iter().chain(&self.read_only_roots);
        if full.starts_with(&root) || others.any(allows) {
            return Ok(full);
        }
        Err(FileError::Outside {
            path: path.to_owned(),
            others: !(self.allowed_roots.is_empty() && self.read_only_roots.is_empty()),
        })
    }

    /// As [`Roots::resolve`], for writing.
    ///
    /// # Errors
    /// Also [`FileError::ReadOnly`].
    pub(super) fn resolve_for_writing(&self, path: &str) -> Result<PathBuf, FileError> {
        let full = self.resolve(path)?;
        // One that cannot be resolved protects everything.
        let covers = |root: &&String| {
            canonical(Path::new(root)).map_or(true, |canonical| full.starts_with(canonical))
        };
        match self.read_only_roots.iter().find(covers) {
            Some(root) => Err(FileError::ReadOnly {
                path: path.to_owned(),
                root: root.clone(),
            }),
            None => Ok(full),
        }
    }
}

/// Collapses dots and follows links; names that do not exist stay at the end.
pub(super) fn canonical(path: &Path) -> io::Result<PathBuf> {
    let mut prefix = without_dots(path);
    let mut missing: Vec<OsString> = Vec::new();
    let mut links = 0;
    loop {
        let unresolved = match fs::canonicalize(&prefix) {
            Ok(mut found) => {
                found.extend(missing.iter().rev());
                return Ok(found);
            }
            Err(error) if is_missing(&error) => error,
            Err(error) => return Err(error),
        };
        match fs::symlink_metadata(&prefix) {
            Ok(found) if found.is_symlink() => {}
            Ok(_) => return Err(unresolved),
            Err(error) if is_missing(&error) => {
                let (Some(parent), Some(name)) = (prefix.parent(), prefix.file_name()) else {
                    return Err(error);
                };
                missing.push(name.to_owned());
                prefix = parent.to_owned();
                continue;
            }
            Err(error) => return Err(error),
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        let parent = fs::canonicalize(prefix.parent().unwrap_or(&prefix))?;
        let mut target = parent.join(fs::read_link(&prefix)?);
        target.extend(missing.drain(..).rev());
        prefix = without_dots(&target);
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Collapses `.` and `..` by their letters alone.
fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            // At the root it stays there.
            Component::ParentDir => {
                plain.pop();
            }
            Component::Normal(_) | Component::RootDir | Component::Prefix(_) => {
                plain.push(component);
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    struct Place {
        _folder: tempfile::TempDir,
        root: PathBuf,
        places: Places,
    }

    fn place() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        let root = base.join("work");
        fs::create_dir_all(root.join("dir/deep")).unwrap();
        fs::create_dir_all(base.join("memory")).unwrap();
        fs::create_dir_all(base.join("work-evil")).unwrap();
        fs::write(root.join("file"), "x").unwrap();
        fs::write(base.join("secret"), "x").unwrap();
        for (target, link) in [
            ("../secret", "out"),
            ("../work-evil", "sibling"),
            ("../nowhere/x", "dangling_out"),
            ("new", "dangling_in"),
            ("loop", "loop"),
            ("b", "a"),
            ("a", "b"),
            ("dir", "inner"),
            ("../memory/note", "remembered"),
        ] {
            symlink(target, root.join(link)).unwrap();
        }
        let mut places = Places::new(root.to_str().unwrap());
        let memory = base.join("memory").to_str().unwrap().to_owned();
        places.read_only_roots.push(memory);
        Place {
            _folder: folder,
            root,
            places,
        }
    }

    #[track_caller]
    fn check(path: &str, expect: Result<&str, &str>) {
        let place = place();
        let found = place.places.resolve(path).map_err(|e| e.to_string());
        let expect = expect
            .map(|path| without_dots(&place.root.join(path)))
            .map_err(|why| why.replace('P', path));
        assert_eq!(found, expect, "{path}");
    }

    const OUTSIDE: &str =
        "path 'P' is outside the session's working directory and its other permitted directories";
    const LOOP: &str = "path 'P': too many levels of symbolic links";

    #[test]
    fn paths_inside_are_canonical() {
        check("file", Ok("file"));
        check("./dir/../file/", Ok("file"));
        check("inner/deep", Ok("dir/deep"));
        check("inner/new/x", Ok("dir/new/x"));
        check("", Ok(""));
        check("dangling_in", Ok("new"));
        check("dangling_in/x", Ok("new/x"));
        check("file/x", Ok("file/x"));
        check("remembered", Ok("../memory/note"));
        // By letters, as the links are not followed yet.
        check("inner/../file", Ok("file"));
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        for path in [
            "..",
            "/",
            "/etc/passwd",
            "../work-evil/x",
            "out",
            "sibling",
            "sibling/x",
            "dangling_out",
            "dangling_out/deeper",
            "/proc/self/root/etc/passwd",
        ] {
            check(path, Err(OUTSIDE));
        }
        check("loop", Err(LOOP));
        check("a/x", Err(LOOP));
    }

    #[test]
    fn memory_may_be_read_only() {
        let place = place();
        let refused = place.places.resolve_for_writing("remembered").unwrap_err();
        assert!(matches!(refused, FileError::ReadOnly { .. }), "{refused:?}");
        assert!(place.places.resolve_for_writing("new").is_ok());
    }

    #[test]
    fn a_nul_byte_is_refused() {
        let refused = place().places.resolve("a\0b").unwrap_err();
        assert!(matches!(refused, FileError::Path { .. }), "{refused:?}");
    }

    proptest! {
        #[test]
        fn whatever_resolves_lies_inside_and_holds_no_link(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "..", ".", "dir", "deep", "inner", "out", "loop", "a", "file", "new", "sibling",
                    "dangling_in", "dangling_out", "remembered", "/", "",
                ]),
                0..6,
            )
        ) {
            let place = place();
            if let Ok(full) = place.places.resolve(&parts.join("/")) {
                let memory = place.root.with_file_name("memory");
                prop_assert!(full.starts_with(&place.root) || full.starts_with(memory));
                for above in full.ancestors() {
                    let linked = fs::symlink_metadata(above).is_ok_and(|found| found.is_symlink());
                    prop_assert!(!linked, "{}", above.display());
                }
            }
        }
    }
}
