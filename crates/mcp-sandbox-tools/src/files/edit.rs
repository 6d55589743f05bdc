use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use super::read::MAX_FILE_BYTES;
use super::{FileError, Places, open};

/// Bytes that a file may have after an edit: 64 MiB. A short text that is replaced everywhere by a long one could otherwise
/// fill any memory.
pub(super) const MAX_RESULT_BYTES: u64 = 64 * 1024 * 1024;

/// Replaces a file's content, or makes it and the directories above; says what it did.
///
/// # Errors
/// Any [`FileError`] of paths, [`FileError::NotRegular`], [`FileError::Io`].
pub(super) fn write(places: &Places, path: &str, content: &[u8]) -> Result<String, FileError> {
    let full = places.resolve_for_writing(path)?;
    if let Some(parent) = full.parent() {
        make_directories(parent).map_err(|error| FileError::io(path, error))?;
    }
    replace(&full, path, content)?;
    Ok(format!("wrote {} bytes to {path}", content.len()))
}

/// Replaces the only place where `old` stands in a file, or all places; says what it did.
///
/// # Errors
/// Any [`FileError`] of paths and of reading text, [`FileError::OldStringMissing`], [`FileError::OldStringNotUnique`].
pub(super) fn edit(
    places: &Places,
    path: &str,
    old: &str,
    new: &str,
    all: bool,
) -> Result<String, FileError> {
    let full = places.resolve_for_writing(path)?;
    let text = text_of(&full, path)?;
    let count = text.matches(old).count();
    if count == 0 {
        return Err(FileError::OldStringMissing {
            path: path.to_owned(),
        });
    }
    if count > 1 && !all {
        return Err(FileError::OldStringNotUnique {
            path: path.to_owned(),
            count,
        });
    }
    let size =
        (text.len() - count * old.len()) as u64 + (count as u64).saturating_mul(new.len() as u64);
    if size > MAX_RESULT_BYTES {
        return Err(FileError::TooLarge {
            path: format!("the result in {path}"),
            size,
            limit: MAX_RESULT_BYTES,
            hint: ".",
        });
    }
    replace(&full, path, text.replace(old, new).as_bytes())?;
    Ok(format!("edited {path} ({count} replacement(s))"))
}

fn text_of(full: &Path, path: &str) -> Result<String, FileError> {
    let (file, size) = open::for_reading(full, path)?;
    let too_large = || FileError::TooLarge {
        path: path.to_owned(),
        size,
        limit: MAX_FILE_BYTES,
        hint: ". The edit tool loads the whole file and cannot modify a file this large.",
    };
    if size > MAX_FILE_BYTES {
        return Err(too_large());
    }
    let bytes = open::read_up_to(file, MAX_FILE_BYTES, path)?.ok_or_else(too_large)?;
    String::from_utf8(bytes).map_err(|_| FileError::NotText {
        path: path.to_owned(),
        hint: "cannot edit binary files",
    })
}

/// In place, so that mode, owner and hard links stay.
fn replace(full: &Path, path: &str, content: &[u8]) -> Result<(), FileError> {
    let mut file = open::for_writing(full, path)?;
    file.set_len(0)
        .and_then(|()| file.write_all(content))
        .map_err(|error| FileError::io(path, error))
}

fn make_directories(parent: &Path) -> io::Result<()> {
    fs::create_dir_all(parent).map_err(|error| {
        // What is in the way is a file.
        if error.kind() == io::ErrorKind::NotADirectory || parent.is_file() {
            io::ErrorKind::AlreadyExists.into()
        } else {
            error
        }
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use proptest::prelude::*;

    use super::super::places;
    use super::*;

    #[track_caller]
    fn check(text: &str, old: &str, new: &str, all: bool, expect: Result<&str, &str>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, text).unwrap();
        let done = edit(&places(folder.path()), "f", old, new, all);
        let after = fs::read_to_string(&path).unwrap();
        match expect {
            Ok(expect) => {
                done.unwrap();
                assert_eq!(after, expect);
            }
            Err(why) => {
                assert_eq!(done.unwrap_err().to_string(), why);
                assert_eq!(after, text);
            }
        }
    }

    #[test]
    fn edits_replace_what_is_unique() {
        check("a b c", "b", "x", false, Ok("a x c"));
        check("a b b", "b", "x", true, Ok("a x x"));
        check("a\r\nb", "\r\n", "\n", false, Ok("a\nb"));
        check("", "", "x", false, Ok("x"));
        check("ab", "", "-", true, Ok("-a-b-"));
        check("a", "z", "x", false, Err("old_string not found in f"));
        check(
            "a a a",
            "a",
            "x",
            false,
            Err("old_string appears 3 times in f (must be unique)"),
        );
        check(
            "aaaa",
            "aa",
            "x",
            false,
            Err("old_string appears 2 times in f (must be unique)"),
        );
    }

    #[test]
    fn an_edit_cannot_grow_without_bound() {
        let text = "a".repeat(usize::try_from(MAX_FILE_BYTES).unwrap());
        let new = "b".repeat(257);
        let why = "the result in f is 67371008 bytes, exceeds 67108864-byte limit.";
        check(&text, "a", &new, true, Err(why));
    }

    #[test]
    fn writing_keeps_mode_and_inode_and_makes_directories() {
        let folder = tempfile::tempdir().unwrap();
        let roots = places(folder.path());
        assert_eq!(
            write(&roots, "a/b/c", "h\u{e9}".as_bytes()).unwrap(),
            "wrote 3 bytes to a/b/c"
        );
        let path = folder.path().join("a/b/c");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        let before = path.metadata().unwrap();
        write(&roots, "a/b/c", b"").unwrap();
        let after = path.metadata().unwrap();
        assert_eq!(
            (after.len(), after.ino(), after.mode()),
            (0, before.ino(), before.mode())
        );
    }

    #[track_caller]
    fn refused(path: &str, why: &str) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("dir")).unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let fifo = folder.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(fifo).status();
        assert!(made.unwrap().success());
        let error = write(&places(folder.path()), path, b"x").unwrap_err();
        assert_eq!(error.to_string(), why);
    }

    #[test]
    fn only_regular_files_are_written() {
        refused("dir", "dir: is a directory");
        refused("fifo", "fifo: not a regular file");
        refused("file/x", "file/x: file already exists");
        refused("file/x/y", "file/x/y: file already exists");
        refused(
            "../x",
            "path '../x' is outside the session's working directory",
        );
    }

    proptest! {
        #[test]
        fn an_edit_happens_exactly_when_the_text_is_unique(
            text in "[ab\n]{0,12}", old in "[ab\n]{1,3}", new in "[abc]{0,3}",
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("f");
            fs::write(&path, &text).unwrap();
            let done = edit(&places(folder.path()), "f", &old, &new, false);
            let after = fs::read_to_string(&path).unwrap();
            // Counted by hand, from the left, without overlaps.
            let (mut count, mut from) = (0, 0);
            while let Some(at) = text[from..].find(&old) {
                count += 1;
                from += at + old.len();
            }
            prop_assert_eq!(done.is_ok(), count == 1);
            if count == 1 {
                let (left, right) = text.split_once(&old).unwrap();
                prop_assert_eq!(after, format!("{left}{new}{right}"));
            } else {
                prop_assert_eq!(after, text);
            }
        }
    }
}
