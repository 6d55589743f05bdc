use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, DirEntry};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use globset::{GlobBuilder, GlobMatcher};

use super::path::canonical;
use super::{FileError, Places};

/// Paths that one call returns; those of the newest files.
pub(super) const MAX_RESULTS: usize = 200;
/// Matches among which the newest are chosen. They are kept in memory: about 10 MiB at worst.
pub(super) const MAX_MATCHES: usize = 50_000;
/// Directory entries that one call looks at: some seconds at worst.
pub(super) const MAX_ENTRIES: usize = 1_000_000;
/// Patterns that one pattern with braces may stand for.
const MAX_PATTERNS: usize = 256;
/// Bytes of a pattern.
const MAX_PATTERN_BYTES: usize = 16 * 1024;

/// Paths below `path` (none: the working directory) that match a pattern, newest first.
///
/// `*`, `?` and `[…]` match within one name, dots included; `**` matches any number of directories and does not follow
/// links; `{a,b}` is one or the other.
///
/// # Errors
/// Any [`FileError`] of paths and patterns.
pub(super) fn glob(
    places: &Places,
    pattern: &str,
    path: Option<&str>,
) -> Result<String, FileError> {
    let patterns = parse(pattern)?;
    let path = path.filter(|path| !path.is_empty());
    let root = places.resolve(path.unwrap_or("."))?;
    // A place that does not exist is not a place without matches.
    fs::read_dir(&root).map_err(|error| FileError::io(path.unwrap_or("."), error))?;
    let mut walk = Walk::new(&root);
    for parts in &patterns {
        walk.select(&root, parts, false);
    }
    Ok(walk.into_text())
}

/// One component of a pattern.
#[derive(Clone, Debug)]
pub(super) enum Part {
    /// A name without wildcards.
    Name(OsString),
    /// A name with wildcards.
    Wild(GlobMatcher),
    /// `**`
    Deep,
    /// The slash at the end: only directories.
    Directory,
}

pub(super) fn parse(pattern: &str) -> Result<Vec<Vec<Part>>, FileError> {
    let invalid = |reason: &str| FileError::Pattern {
        reason: reason.to_owned(),
    };
    if pattern.is_empty() {
        return Err(invalid("it is empty"));
    }
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(invalid("it is too long"));
    }
    let mut patterns = Vec::new();
    expand(pattern, &mut patterns)
        .ok_or_else(|| invalid("its braces stand for too many patterns"))?;
    patterns.iter().map(|pattern| parts(pattern)).collect()
}

fn parts(pattern: &str) -> Result<Vec<Part>, FileError> {
    let mut parts = Vec::new();
    for component in Path::new(pattern).components() {
        match component {
            Component::RootDir | Component::Prefix(_) => return Err(FileError::AbsolutePattern),
            Component::ParentDir => return Err(FileError::ParentPattern),
            Component::CurDir => {}
            Component::Normal(name) => {
                let name = name.to_str().unwrap_or_default();
                if name != "**" {
                    parts.push(part(name)?);
                } else if !matches!(parts.last(), Some(Part::Deep)) {
                    parts.push(Part::Deep);
                }
            }
        }
    }
    if parts.is_empty() {
        return Err(FileError::Pattern {
            reason: "it names nothing".to_owned(),
        });
    }
    if pattern.ends_with('/') {
        parts.push(Part::Directory);
    }
    Ok(parts)
}

fn part(name: &str) -> Result<Part, FileError> {
    if !name.contains(['*', '?', '[']) {
        return Ok(Part::Name(name.into()));
    }
    let built = GlobBuilder::new(&escape(name))
        .literal_separator(true)
        .backslash_escape(false)
        .build();
    match built {
        Ok(glob) => Ok(Part::Wild(glob.compile_matcher())),
        Err(error) => Err(FileError::Pattern {
            reason: error.kind().to_string(),
        }),
    }
}

/// Braces that are left over, and a bracket that is never closed, stand for themselves.
fn escape(name: &str) -> String {
    let mut plain = String::new();
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '[' => class_length(rest),
            _ => None,
        };
        match (first, length) {
            (_, Some(length)) => plain.push_str(&rest[..length]),
            ('[' | '{' | '}', None) => plain.extend(['[', first, ']']),
            (_, None) => plain.push(first),
        }
        rest = &rest[length.unwrap_or_else(|| first.len_utf8())..];
    }
    plain
}

/// Bytes of the `[…]` at the start; a `]` in the first place belongs to it.
fn class_length(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('[')?;
    let content = inner.strip_prefix(['!', '^']).unwrap_or(inner);
    let content = content.strip_prefix(']').unwrap_or(content);
    let skipped = text.len() - content.len();
    content.find(']').map(|end| skipped + end + 1)
}

/// Writes out `{a,b}`, inner ones first; a group without a comma stands for itself. `None`: too many.
fn expand(pattern: &str, into: &mut Vec<String>) -> Option<()> {
    let mut open = Vec::new();
    let mut commas = Vec::new();
    for (at, byte) in pattern.bytes().enumerate() {
        match byte {
            b'{' => {
                open.push(at);
                commas.clear();
            }
            b',' if !open.is_empty() => commas.push(at),
            b'}' => {
                let start = open.pop();
                if let Some(start) = start.filter(|_| !commas.is_empty()) {
                    let ends = commas.iter().copied().chain([at]);
                    let mut from = start + 1;
                    for end in ends {
                        let (head, tail) = (&pattern[..start], &pattern[at + 1..]);
                        expand(&format!("{head}{}{tail}", &pattern[from..end]), into)?;
                        from = end + 1;
                    }
                    return Some(());
                }
                commas.clear();
            }
            _ => {}
        }
    }
    if into.len() == MAX_PATTERNS {
        return None;
    }
    into.push(pattern.to_owned());
    Some(())
}

/// Goes through directories and keeps what matches.
struct Walk<'a> {
    root: &'a Path,
    entries: usize,
    seen: HashSet<PathBuf>,
    found: Vec<(SystemTime, PathBuf)>,
    incomplete: bool,
}

impl<'a> Walk<'a> {
    fn new(root: &'a Path) -> Self {
        Self {
            root,
            entries: 0,
            seen: HashSet::new(),
            found: Vec::new(),
            incomplete: false,
        }
    }

    /// `linked`: a link was followed on the way here, so that it may be anywhere.
    fn select(&mut self, at: &Path, parts: &[Part], linked: bool) {
        if self.incomplete {
            return;
        }
        let Some((part, rest)) = parts.split_first() else {
            self.keep(at, linked);
            return;
        };
        match part {
            Part::Directory => {
                if at.is_dir() {
                    self.keep(at, linked);
                }
            }
            Part::Name(name) => {
                let next = at.join(name);
                if next.exists() {
                    let linked = linked || next.is_symlink();
                    self.select(&next, rest, linked);
                }
            }
            Part::Wild(matcher) => {
                for entry in self.read(at) {
                    if matcher.is_match(entry.file_name()) && leads_on(&entry, rest) {
                        let linked = linked || is_link(&entry);
                        self.select(&entry.path(), rest, linked);
                    }
                }
            }
            Part::Deep => self.deep(at, parts, rest, linked),
        }
    }

    /// Here, and in every directory below that is no link.
    fn deep(&mut self, at: &Path, parts: &[Part], rest: &[Part], linked: bool) {
        self.select(at, rest, linked);
        for entry in self.read(at) {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.select(&entry.path(), parts, linked);
            } else if rest.is_empty() {
                self.keep(&entry.path(), linked || is_link(&entry));
            }
        }
    }

    /// The entries of a directory by name; none where it may not be read.
    fn read(&mut self, at: &Path) -> Vec<DirEntry> {
        let left = MAX_ENTRIES.saturating_sub(self.entries);
        let mut entries: Vec<_> = fs::read_dir(at)
            .into_iter()
            .flatten()
            .flatten()
            .take(left)
            .collect();
        self.entries += entries.len();
        self.incomplete |= entries.len() == left;
        entries.sort_by_key(DirEntry::file_name);
        entries
    }

    fn keep(&mut self, path: &Path, linked: bool) {
        if linked && !canonical(path).is_ok_and(|canonical| canonical.starts_with(self.root)) {
            return;
        }
        if !self.seen.insert(path.to_owned()) {
            return;
        }
        let changed = fs::metadata(path).and_then(|found| found.modified());
        let changed = changed.unwrap_or(SystemTime::UNIX_EPOCH);
        self.found.push((changed, path.to_owned()));
        self.incomplete |= self.found.len() == MAX_MATCHES;
    }

    fn into_text(mut self) -> String {
        if self.found.is_empty() && !self.incomplete {
            return "no matches".to_owned();
        }
        // Stable: paths of the same time stay in the order of their names.
        self.found.sort_by(|(a, _), (b, _)| b.cmp(a));
        let newest = self.found.iter().take(MAX_RESULTS);
        let mut lines: Vec<_> = newest
            .map(|(_, path)| path.to_string_lossy().into_owned())
            .collect();
        if self.incomplete {
            lines.push(format!(
                "[search stopped after {} entries and {} matches; narrow the pattern]",
                self.entries,
                self.found.len()
            ));
        }
        lines.join("\n")
    }
}

fn is_link(entry: &DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_symlink())
}

/// Whether an entry can be what the rest of a pattern asks for: only directories have something below.
fn leads_on(entry: &DirEntry, rest: &[Part]) -> bool {
    rest.is_empty() || entry.path().is_dir()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use proptest::prelude::*;

    use super::super::places;
    use super::*;

    fn place() -> (tempfile::TempDir, Places) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("work");
        for dir in ["src/deep/er", "src/.hidden", "docs", "[id]"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        for file in [
            "a.rs",
            "b.py",
            ".env",
            "src/lib.rs",
            "src/deep/x.rs",
            "src/deep/er/y.rs",
            "src/.hidden/z.rs",
            "docs/{x}.md",
            "docs/x.md",
            "[id]/page.ts",
        ] {
            fs::write(root.join(file), file).unwrap();
        }
        fs::write(folder.path().join("secret.rs"), "").unwrap();
        symlink("..", root.join("up")).unwrap();
        symlink("src", root.join("link")).unwrap();
        symlink("nowhere", root.join("dangling.rs")).unwrap();
        (folder, places(&root))
    }

    fn names(roots: &Places, pattern: &str, path: Option<&str>) -> BTreeSet<String> {
        let root = format!(
            "{}/",
            Path::new(&roots.working_dir)
                .canonicalize()
                .unwrap()
                .display()
        );
        let text = glob(roots, pattern, path).unwrap();
        text.lines().map(|line| line.replace(&root, "")).collect()
    }

    #[track_caller]
    fn check(pattern: &str, expect: &[&str]) {
        let (_folder, roots) = place();
        let expect = expect.iter().map(|s| (*s).to_owned()).collect();
        assert_eq!(names(&roots, pattern, None), expect, "{pattern}");
    }

    #[test]
    fn wildcards_match_within_a_name() {
        check("*.rs", &["a.rs", "dangling.rs"]);
        check("?.py", &["b.py"]);
        check(".*", &[".env"]);
        check("[!b].rs", &["a.rs"]);
        check("src/*.rs", &["src/lib.rs"]);
        check("link/*.rs", &["link/lib.rs"]);
        check("src/lib.rs", &["src/lib.rs"]);
        check("./src//*/x.rs", &["src/deep/x.rs"]);
        check("docs/", &["docs"]);
        check("nothing*", &["no matches"]);
        check("[[]id]/*", &["[id]/page.ts"]);
        check("docs/[x.md", &["no matches"]);
    }

    #[test]
    fn two_asterisks_match_directories_without_following_links() {
        check(
            "**/*.rs",
            &[
                "a.rs",
                "dangling.rs",
                "src/lib.rs",
                "src/deep/x.rs",
                "src/deep/er/y.rs",
                "src/.hidden/z.rs",
            ],
        );
        check("src/**/y.rs", &["src/deep/er/y.rs"]);
        check("**/**/**/y.rs", &["src/deep/er/y.rs"]);
        check(
            "src/deep/**",
            &[
                "src/deep",
                "src/deep/x.rs",
                "src/deep/er",
                "src/deep/er/y.rs",
            ],
        );
        check("**/deep/", &["src/deep"]);
    }

    #[test]
    fn braces_are_alternatives() {
        check("*.{rs,py}", &["a.rs", "b.py", "dangling.rs"]);
        check(
            "{src/{deep,none},docs}/x.{rs,md}",
            &["src/deep/x.rs", "docs/x.md"],
        );
        check("docs/{x}.md", &["docs/{x}.md"]);
        check("docs/{x}*", &["docs/{x}.md"]);
        let (_folder, roots) = place();
        let many = "{a,b}".repeat(9);
        assert!(matches!(
            glob(&roots, &many, None),
            Err(FileError::Pattern { .. })
        ));
    }

    #[test]
    fn no_match_leads_out() {
        check("up/*", &["up/work"]);
        check("up/*.rs", &["no matches"]);
        check("up", &["no matches"]);
        let (_folder, roots) = place();
        for (pattern, expect) in [
            (
                "/etc/*",
                "absolute pattern not permitted; pass a relative pattern (and optionally path)",
            ),
            ("../*", "'..' is not permitted in the pattern"),
            ("{a,..}/*", "'..' is not permitted in the pattern"),
            ("", "invalid pattern: it is empty"),
            ("[z-a]", "invalid pattern: invalid range; 'z' > 'a'"),
        ] {
            assert_eq!(glob(&roots, pattern, None).unwrap_err().to_string(), expect);
        }
        let outside = glob(&roots, "*", Some("..")).unwrap_err();
        assert!(matches!(outside, FileError::Outside { .. }));
        let missing = glob(&roots, "*", Some("none")).unwrap_err();
        assert_eq!(missing.to_string(), "none: no such file or directory");
    }

    #[test]
    fn the_newest_come_first_and_at_most_200() {
        let folder = tempfile::tempdir().unwrap();
        let start = SystemTime::now();
        for number in 0..250_u64 {
            let file = fs::File::create(folder.path().join(format!("f{number}"))).unwrap();
            let earlier = std::time::Duration::from_secs(number);
            file.set_modified(start - earlier).unwrap();
        }
        let text = glob(&places(folder.path()), "f*", None).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), MAX_RESULTS);
        assert!(lines[0].ends_with("/f0") && lines[199].ends_with("/f199"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn names_are_those_that_find_finds(
            paths in prop::collection::btree_set("([ab.]{1,2}/){0,3}[abc.]{1,3}", 0..12),
            pattern in "[abc*?.]{1,3}",
        ) {
            prop_assume!(!matches!(pattern.as_str(), "." | ".." | "**"));
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().canonicalize().unwrap();
            for path in &paths {
                let full = root.join(path);
                if path.split('/').all(|name| !name.trim_matches('.').is_empty()) {
                    let _ = fs::create_dir_all(full.parent().unwrap());
                    let _ = fs::write(full, "");
                }
            }
            let found = Command::new("find").arg(&root).args(["-mindepth", "1", "-name", &pattern]).output().unwrap();
            let mut expect: BTreeSet<_> = String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect();
            if expect.is_empty() {
                expect.insert("no matches".to_owned());
            }
            let got = glob(&places(&root), &format!("**/{pattern}"), None).unwrap();
            prop_assert_eq!(got.lines().map(str::to_owned).collect::<BTreeSet<_>>(), expect);
        }
    }
}
