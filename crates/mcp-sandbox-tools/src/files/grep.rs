use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{BinaryDetection, Searcher, SearcherBuilder, Sink, SinkMatch};
use ignore::{DirEntry, WalkBuilder};

use super::glob::ENTRIES;
use super::path::search_root;
use super::{Failure, Places};
use crate::input::GrepInput;
use crate::result::ToolResult;

/// Most bytes of an answer.
const OUTPUT_BYTES: usize = 100 * 1024;
/// Longer lines are cut.
const LINE_CHARS: usize = 2000;
/// A search ends after this time.
const TIME: Duration = Duration::from_secs(30);
/// Memory of the search itself; a longer line ends the search of its file.
const HEAP_BYTES: usize = 16 * 1024 * 1024;

pub(super) fn grep(places: &Places, input: &GrepInput) -> Result<ToolResult, Failure> {
    let root = search_root(places, input.path.as_deref())?;
    // Linear in the text whatever the pattern; matches lie within a line.
    let matcher = RegexMatcherBuilder::new()
        .line_terminator(Some(b'\n'))
        .build(&input.pattern)
        .map_err(|error| Failure::new(format!("invalid regex: {error}")))?;
    let mut hits = Hits {
        text: String::new(),
        full: false,
        until: Instant::now() + TIME,
    };
    if root.is_file() {
        hits.search(&matcher, &root);
    } else if root.exists() {
        let walk = WalkBuilder::new(&root)
            .standard_filters(false)
            .follow_links(false)
            .sort_by_file_name(OsStr::cmp)
            .filter_entry(worth_searching)
            .build();
        let files = walk
            .flatten()
            .filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file()));
        for file in files.take(ENTRIES) {
            if hits.full {
                break;
            }
            if hits.late() {
                return Err(Failure::new(format!("timed out after {}s", TIME.as_secs())));
            }
            hits.search(&matcher, file.path());
        }
    } else {
        return Err(Failure::io(
            input.path.as_deref().unwrap_or("."),
            &io::ErrorKind::NotFound.into(),
        ));
    }
    let text = hits.text.trim_end_matches('\n');
    Ok(ToolResult::text(if text.is_empty() {
        "no matches"
    } else {
        text
    }))
}

fn worth_searching(entry: &DirEntry) -> bool {
    let folder = entry.file_type().is_some_and(|kind| kind.is_dir());
    entry.depth() == 0
        || !folder
        || !matches!(entry.file_name().to_str(), Some(".git" | "node_modules"))
}

/// What was found so far.
struct Hits {
    text: String,
    full: bool,
    until: Instant,
}

impl Hits {
    fn search(&mut self, matcher: &RegexMatcher, path: &Path) {
        if !fs::symlink_metadata(path).is_ok_and(|kind| kind.is_file()) {
            return;
        }
        let mut searcher = SearcherBuilder::new()
            .line_number(true)
            .binary_detection(BinaryDetection::quit(0))
            .heap_limit(Some(HEAP_BYTES))
            .build();
        // A file that cannot be read has no hits.
        let _ = searcher.search_path(matcher, path, Lines { hits: self, path });
    }

    fn late(&self) -> bool {
        Instant::now() > self.until
    }

    fn push(&mut self, line: &str) -> bool {
        if self.text.len() + line.len() + 1 > OUTPUT_BYTES {
            self.text
                .push_str(&format!("[output truncated at {OUTPUT_BYTES} bytes]"));
            self.full = true;
            return false;
        }
        self.text.push_str(line);
        self.text.push('\n');
        true
    }
}

/// The hits of one file.
struct Lines<'a> {
    hits: &'a mut Hits,
    path: &'a Path,
}

impl Sink for Lines<'_> {
    type Error = io::Error;

    fn matched(&mut self, _searcher: &Searcher, found: &SinkMatch<'_>) -> io::Result<bool> {
        let line = String::from_utf8_lossy(found.bytes());
        let line = line.trim_end_matches(['\n', '\r']);
        let cut = line
            .char_indices()
            .nth(LINE_CHARS)
            .map_or(line.len(), |(at, _)| at);
        let number = found.line_number().unwrap_or(0);
        let text = format!("{}:{number}:{}", self.path.display(), &line[..cut]);
        Ok(self.hits.push(&text) && !self.hits.late())
    }
}
