use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use globset::{GlobBuilder, GlobMatcher};
use ignore::WalkBuilder;

use super::path::{canonical, search_root};
use super::{Failure, Places};
use crate::input::GlobInput;
use crate::result::ToolResult;

/// Most paths in an answer.
const RESULTS: usize = 200;
/// Most entries that are looked at.
pub(super) const ENTRIES: usize = 50_000;

pub(super) fn glob(places: &Places, input: &GlobInput) -> Result<ToolResult, Failure> {
    let pattern = input.pattern.as_str();
    if pattern.starts_with('/') {
        return Err(Failure::new(
            "absolute pattern not permitted; pass a relative pattern (and optionally path)",
        ));
    }
    if pattern.split('/').any(|part| part == "..") {
        return Err(Failure::new("'..' is not permitted in the pattern"));
    }
    let matcher = matcher(pattern)?;
    let root = search_root(places, input.path.as_deref())?;
    // Without `**` nothing deeper than the pattern can match.
    let deep = pattern.contains("**");
    let depth = (!deep).then(|| pattern.split('/').count());
    let mut found = walk(&root, &matcher, depth);
    if found.is_empty() {
        return Ok(ToolResult::text("no matches"));
    }
    found.sort_by(|(newer, a), (older, b)| older.cmp(newer).then_with(|| a.cmp(b)));
    let paths = found
        .iter()
        .take(RESULTS)
        .map(|(_, path)| path.to_string_lossy());
    Ok(ToolResult::text(paths.collect::<Vec<_>>().join("\n")))
}

fn matcher(pattern: &str) -> Result<GlobMatcher, Failure> {
    let pattern = pattern.trim_start_matches("./");
    if pattern.is_empty() || pattern == "." {
        return Err(Failure::new(format!("unacceptable pattern: {pattern:?}")));
    }
    GlobBuilder::new(pattern)
        .literal_separator(true)
        .build()
        .map(|glob| glob.compile_matcher())
        .map_err(|error| Failure::new(error.kind().to_string()))
}

/// What matches below `root`, with the time of its last change.
fn walk(root: &Path, matcher: &GlobMatcher, depth: Option<usize>) -> Vec<(SystemTime, PathBuf)> {
    let walk = WalkBuilder::new(root)
        .standard_filters(false)
        .follow_links(false)
        .max_depth(depth)
        .build();
    let mut found = Vec::new();
    for entry in walk.flatten().take(ENTRIES) {
        let Ok(relative) = entry.path().strip_prefix(root) else {
            continue;
        };
        if relative.as_os_str().is_empty() || !matcher.is_match(relative) {
            continue;
        }
        // A link that leads out of the searched directory is not shown.
        if entry.path_is_symlink()
            && !canonical(entry.path()).is_ok_and(|target| target.starts_with(root))
        {
            continue;
        }
        let changed = fs::metadata(entry.path()).and_then(|meta| meta.modified());
        found.push((changed.unwrap_or(SystemTime::UNIX_EPOCH), entry.into_path()));
    }
    found
}
