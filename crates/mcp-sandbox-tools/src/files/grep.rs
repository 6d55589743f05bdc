use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use grep_matcher::LineTerminator;
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{BinaryDetection, MmapChoice, Searcher, SearcherBuilder, Sink, SinkMatch};
use ignore::{DirEntry, WalkBuilder};

use super::{FileError, Places, open};

/// Bytes of results: 100 KiB.
pub(super) const MAX_OUTPUT_BYTES: usize = 100 * 1024;
/// Characters of a line that are shown.
pub(super) const MAX_LINE_CHARS: usize = 2000;
/// Files that one call searches.
pub(super) const MAX_FILES: usize = 50_000;
/// Time that one call takes.
pub(super) const MAX_TIME: Duration = Duration::from_secs(30);
/// Bytes of a pattern.
const MAX_PATTERN_BYTES: usize = 64 * 1024;
/// Bytes of one line in memory; a longer one ends the search of its file.
const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

/// Lines that match a regular expression, as `path:line:text`, in files below `path` (none: the working directory).
///
/// Skipped are `.git`, `node_modules`, links, and the rest of a file after a NUL byte.
///
/// # Errors
/// Any [`FileError`] of paths, [`FileError::Regex`], [`FileError::TimedOut`].
pub(super) fn grep(
    places: &Places,
    pattern: &str,
    path: Option<&str>,
) -> Result<String, FileError> {
    let path = path.filter(|path| !path.is_empty());
    let root = places.resolve(path.unwrap_or("."))?;
    let matcher = matcher(pattern)?;
    let found = root
        .symlink_metadata()
        .map_err(|error| FileError::io(path.unwrap_or("."), error))?;
    if !found.is_file() && !found.is_dir() {
        return Err(FileError::not_regular(path.unwrap_or(".")));
    }
    let mut search = Search::new(matcher);
    let walk = WalkBuilder::new(&root)
        .standard_filters(false)
        .sort_by_file_name(Ord::cmp)
        .filter_entry(worth_searching)
        .build();
    for entry in walk {
        // What may not be read is passed over.
        let Ok(entry) = entry else { continue };
        if entry.file_type().is_some_and(|kind| kind.is_file()) {
            search.file(entry.path())?;
            if search.full {
                break;
            }
        }
        search.hurry()?;
    }
    Ok(search.into_text())
}

fn worth_searching(entry: &DirEntry) -> bool {
    let folder = entry.file_type().is_some_and(|kind| kind.is_dir());
    let skipped = matches!(entry.file_name().to_str(), Some(".git" | "node_modules"));
    entry.depth() == 0 || !(folder && skipped)
}

fn matcher(pattern: &str) -> Result<RegexMatcher, FileError> {
    let invalid = |reason: String| FileError::Regex { reason };
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(invalid("it is too long".to_owned()));
    }
    RegexMatcherBuilder::new()
        .multi_line(true)
        .line_terminator(Some(b'\n'))
        .crlf(true)
        .build(pattern)
        .map_err(|error| invalid(error.to_string()))
}

struct Search {
    matcher: RegexMatcher,
    searcher: Searcher,
    started: Instant,
    files: usize,
    output: String,
    full: bool,
}

impl Search {
    fn new(matcher: RegexMatcher) -> Self {
        let searcher = SearcherBuilder::new()
            .line_number(true)
            .line_terminator(LineTerminator::crlf())
            .memory_map(MmapChoice::never())
            .heap_limit(Some(MAX_LINE_BYTES))
            .binary_detection(BinaryDetection::quit(0))
            .build();
        Self {
            matcher,
            searcher,
            started: Instant::now(),
            files: 0,
            output: String::new(),
            full: false,
        }
    }

    fn file(&mut self, path: &Path) -> Result<(), FileError> {
        if self.files == MAX_FILES {
            self.note(&format!("[search stopped after {MAX_FILES} files]"));
            return Ok(());
        }
        self.files += 1;
        let name = path.to_string_lossy();
        // It may have gone, or become something else.
        let Ok((file, _)) = open::for_reading(path, &name) else {
            return Ok(());
        };
        let mut lines = Lines {
            name: &name,
            output: &mut self.output,
            started: self.started,
            full: false,
            late: false,
        };
        // A file that cannot be read to its end has shown what it could.
        let _ = self.searcher.search_file(&self.matcher, &file, &mut lines);
        let (full, late) = (lines.full, lines.late);
        if late {
            return Err(FileError::TimedOut(MAX_TIME));
        }
        if full {
            self.note(&format!("[output truncated at {MAX_OUTPUT_BYTES} bytes]"));
        }
        Ok(())
    }

    fn hurry(&self) -> Result<(), FileError> {
        if self.started.elapsed() > MAX_TIME {
            return Err(FileError::TimedOut(MAX_TIME));
        }
        Ok(())
    }

    fn note(&mut self, text: &str) {
        self.output.push_str(text);
        self.output.push('\n');
        self.full = true;
    }

    fn into_text(mut self) -> String {
        if self.output.is_empty() {
            return "no matches".to_owned();
        }
        self.output.pop();
        self.output
    }
}

/// Receives the lines of one file.
struct Lines<'a> {
    name: &'a str,
    output: &'a mut String,
    started: Instant,
    full: bool,
    late: bool,
}

impl Sink for Lines<'_> {
    type Error = io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> io::Result<bool> {
        let text = String::from_utf8_lossy(found.bytes());
        let text = text.trim_end_matches(['\r', '\n']);
        let shown = match text.char_indices().nth(MAX_LINE_CHARS) {
            Some((end, _)) => format!("{} [line cut]", &text[..end]),
            None => text.to_owned(),
        };
        let number = found.line_number().unwrap_or_default();
        let line = format!("{}:{number}:{shown}\n", self.name);
        if self.output.len() + line.len() > MAX_OUTPUT_BYTES {
            self.full = true;
            return Ok(false);
        }
        self.output.push_str(&line);
        self.late = self.started.elapsed() > MAX_TIME;
        Ok(!self.late)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::places;
    use super::*;

    fn place() -> (tempfile::TempDir, Places) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("work");
        fs::create_dir_all(root.join("b/.git")).unwrap();
        fs::write(root.join("a.txt"), "one\r\nTwo\nthree caf\u{e9}\n").unwrap();
        fs::write(root.join("b/c.txt"), "one\u{ff}\n").unwrap();
        fs::write(root.join("b/raw"), b"one \xff\n").unwrap();
        fs::write(root.join("b/binary"), b"one\0one\n").unwrap();
        fs::write(root.join("b/.git/x"), "one\n").unwrap();
        fs::write(root.join(".hidden"), "one\n").unwrap();
        fs::create_dir_all(root.join("node_modules/m")).unwrap();
        fs::write(root.join("node_modules/m/x"), "one\n").unwrap();
        fs::write(folder.path().join("secret"), "one\n").unwrap();
        symlink("../secret", root.join("link")).unwrap();
        symlink("..", root.join("up")).unwrap();
        let made = std::process::Command::new("mkfifo")
            .arg(root.join("fifo"))
            .status();
        assert!(made.unwrap().success());
        (folder, places(&root))
    }

    #[track_caller]
    fn check(pattern: &str, path: Option<&str>, expect: &str) {
        let (_folder, roots) = place();
        let root = format!(
            "{}/",
            Path::new(&roots.working_dir)
                .canonicalize()
                .unwrap()
                .display()
        );
        let got = match grep(&roots, pattern, path) {
            Ok(text) => text.replace(&root, ""),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expect, "{pattern}");
    }

    #[test]
    fn lines_are_shown_with_path_and_number() {
        check("^one$", None, ".hidden:1:one\na.txt:1:one");
        check(
            "^one",
            None,
            ".hidden:1:one\na.txt:1:one\nb/c.txt:1:one\u{ff}\nb/raw:1:one \u{fffd}",
        );
        check("(?i)tw", Some("a.txt"), "a.txt:2:Two");
        check("caf.$", Some("."), "a.txt:3:three caf\u{e9}");
        check("nothing", None, "no matches");
    }

    #[test]
    fn named_places_are_searched_though_they_would_be_skipped() {
        check("one", Some("node_modules"), "node_modules/m/x:1:one");
        check("one", Some("b/.git/x"), "b/.git/x:1:one");
        check("one", Some("b/binary"), "no matches");
    }

    #[test]
    fn what_cannot_be_searched_is_said() {
        check("one", Some("none"), "none: no such file or directory");
        check("one", Some("fifo"), "fifo: not a regular file");
        check(
            "one",
            Some("link"),
            "path 'link' is outside the session's working directory",
        );
        check(
            "one",
            Some("up"),
            "path 'up' is outside the session's working directory",
        );
        let (_folder, roots) = place();
        for pattern in ["(", "(?=x)", r"(a)\1"] {
            let error = grep(&roots, pattern, None).unwrap_err();
            assert!(error.to_string().starts_with("invalid regex: "), "{error}");
        }
    }

    #[test]
    fn output_and_lines_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let roots = places(folder.path());
        fs::write(folder.path().join("long"), "x".repeat(10_000)).unwrap();
        let text = grep(&roots, "x", None).unwrap();
        assert!(text.ends_with("x [line cut]") && text.len() < 2200);
        fs::write(folder.path().join("many"), "needle\n".repeat(20_000)).unwrap();
        let text = grep(&roots, "needle", None).unwrap();
        assert!(text.ends_with("needle\n[output truncated at 102400 bytes]"));
        assert!(text.len() <= MAX_OUTPUT_BYTES + 40);
    }
}
