//! The toolset beside the official Python SDK's: the same result, or a difference that is listed and argued.
//!
//! Each case is a folder, made twice, and some calls; results and folders are compared afterwards. The list of differences
//! is complete both ways: one that is not listed fails, and so does a listed one that no longer shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use mcp_sandbox_tools::ToolResult;
use serde_json::{Value, json};

use crate::local::{Agent, Local};

/// What differs on purpose: a name, which the README explains, and how it shows.
const DIFFERENCES: &[(&str, Shows)] = &[
    ("write counts bytes", |d| {
        let words = |text: &str| text.split(' ').nth(2).map(str::to_owned);
        d.tool == "write"
            && words(&d.ours.as_text()) == words(&d.theirs.as_text())
            && !d.error_differs()
    }),
    ("an empty failure shows its status", |d| {
        d.tool == "bash"
            && d.ours.as_text().starts_with("(no output; exit status ")
            && d.theirs.as_text() == "(no output)"
    }),
    ("a time-out says what is kept", |d| {
        let said = d.theirs.as_text();
        d.tool == "bash"
            && said.starts_with("bash: bash command timed out after")
            && d.ours.as_text().contains(&said)
    }),
    ("bash goes on after exit and time-out", |d| {
        let dead = [
            "bash: bash session terminated; restart required",
            "BrokenResourceError()",
            "(no output)",
        ];
        d.theirs.is_error && dead.contains(&d.theirs.as_text().as_str()) && !d.ours.is_error
    }),
    ("exit says that it ended the shell", |d| {
        let said = d.theirs.as_text().replace("(no output)", "");
        d.tool == "bash"
            && d.ours.as_text().starts_with(&said)
            && d.ours.as_text().contains("was restarted")
    }),
    ("open quotes do not hang", |d| {
        d.tool == "bash"
            && d.ours.as_text().contains("unexpected")
            && d.theirs.as_text().contains("timed out")
    }),
    ("lines of a command are counted from its start", |d| {
        let plain = |result: &ToolResult| {
            let text = result.as_text();
            let mut parts = text.split("line ");
            let first = parts.next().map(str::to_owned);
            let rest = parts.map(|part| {
                part.trim_start_matches(|c: char| c.is_ascii_digit())
                    .to_owned()
            });
            first.into_iter().chain(rest).collect::<Vec<_>>()
        };
        // A syntax error is one of `eval` here.
        let syntax = |result: &ToolResult| result.as_text().contains("syntax error");
        d.tool == "bash"
            && !d.error_differs()
            && (plain(d.ours) == plain(d.theirs) || syntax(d.ours) && syntax(d.theirs))
    }),
    ("a shell without output does not hang", |d| {
        d.tool == "bash"
            && d.theirs.as_text().contains("timed out")
            && !d.ours.as_text().contains("timed out")
    }),
    ("traces show that a command is evaluated", |d| {
        d.tool == "bash" && d.ours.as_text().contains("++ ") && d.theirs.as_text().contains("+ ")
    }),
    ("a little more of a long output is kept", |d| {
        let (ours, theirs) = (d.ours.as_text(), d.theirs.as_text());
        let body = theirs.strip_prefix("[output truncated]\n").unwrap_or("-");
        d.tool == "bash" && ours.starts_with("[output truncated]\n") && ours.ends_with(body)
    }),
    ("arguments are refused in other words", |d| {
        let said = |result: &ToolResult| {
            result.is_error && result.as_text().contains("nvalid arguments for ")
        };
        said(d.ours) && said(d.theirs) || d.both_errors("bash: ")
    }),
    ("braces are alternatives", |d| {
        d.tool == "glob" && d.input["pattern"].as_str().is_some_and(|p| p.contains('{'))
    }),
    ("two asterisks at the end match files", |d| {
        d.tool == "glob"
            && d.input["pattern"]
                .as_str()
                .is_some_and(|p| p.ends_with("**"))
            && d.ours_has_all_of_theirs()
    }),
    ("two asterisks within a name are one", |d| {
        let pattern = d.input["pattern"].as_str().unwrap_or_default();
        let within = pattern
            .split('/')
            .any(|name| name.contains("**") && name != "**");
        d.tool == "glob" && within && d.theirs.as_text().contains("entire path component")
    }),
    ("patterns are refused in other words", |d| {
        d.tool == "glob" && d.both_errors("glob: ")
    }),
    ("a range of characters that is empty is an error", |d| {
        d.ours
            .as_text()
            .starts_with("glob: invalid pattern: invalid range")
            && !d.theirs.is_error
    }),
    ("a place that does not exist is an error", |d| {
        d.theirs.as_text() == "no matches"
            && d.ours.is_error
            && ["no such file or directory", "not a directory"]
                .iter()
                .any(|why| d.ours.as_text().ends_with(why))
    }),
    ("expressions are refused in other words", |d| {
        d.both_errors("grep: invalid regex: ")
    }),
    ("expressions are linear in time", |d| {
        let pattern = d.input["pattern"].as_str().unwrap_or_default();
        let beyond = pattern.contains("(?=") || pattern.contains("\\1");
        d.ours.as_text().starts_with("grep: invalid regex: ") && beyond
    }),
    ("expressions are of Rust", |d| {
        let invalid = |result: &ToolResult| result.as_text().starts_with("grep: invalid regex: ");
        invalid(d.ours) != invalid(d.theirs)
    }),
    ("long lines are cut", |d| {
        d.tool == "grep" && d.ours.as_text().contains(" [line cut]") && d.ours_has_all_of_theirs()
    }),
    ("a file is text up to its first NUL", |d| {
        d.tool == "grep" && d.input["path"] == "binary"
    }),
];

type Shows = fn(&Difference<'_>) -> bool;

/// Two results of the same call that are not equal.
struct Difference<'a> {
    tool: &'a str,
    input: &'a Value,
    ours: &'a ToolResult,
    theirs: &'a ToolResult,
}

impl Difference<'_> {
    fn error_differs(&self) -> bool {
        self.ours.is_error != self.theirs.is_error
    }

    fn both_errors(&self, prefix: &str) -> bool {
        let both = [self.ours, self.theirs];
        both.iter()
            .all(|result| result.is_error && result.as_text().starts_with(prefix))
    }

    fn ours_has_all_of_theirs(&self) -> bool {
        let ours: BTreeSet<_> = self.ours.as_text().lines().map(str::to_owned).collect();
        let theirs = self.theirs.as_text();
        theirs == "no matches" || theirs.lines().all(|line| ours.contains(line))
    }
}

/// A folder and what is called in it.
struct Case {
    files: Vec<(String, Vec<u8>)>,
    links: Vec<(&'static str, &'static str)>,
    calls: Vec<(&'static str, Value)>,
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_those_of_the_python_sdk() {
    let Some(python) = python() else { return };
    let cases = cases();
    let calls: usize = cases.iter().map(|case| case.calls.len()).sum();
    assert!(cases.len() >= 300, "{} cases", cases.len());
    let folders: Vec<_> = cases
        .iter()
        .map(|case| (Local::new(), made(case)))
        .collect();
    let request: Vec<_> = cases
        .iter()
        .zip(&folders)
        .map(|(case, (_, theirs))| {
            json!({"root": theirs.path().join("work"), "env": {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}, "calls": case.calls})
        })
        .collect();
    let theirs = tokio::task::spawn_blocking(move || sdk(&python, &json!(request)));
    let mut ours = Vec::new();
    for (case, (local, _)) in cases.iter().zip(&folders) {
        fill(case, local.work());
        let agent = Agent::over(local.clone());
        let mut results = Vec::new();
        for (tool, input) in &case.calls {
            results.push(agent.call(tool, input.clone()).await);
        }
        ours.push(results);
    }
    let theirs = theirs.await.unwrap();
    let mut seen = BTreeMap::new();
    let mut unlisted = Vec::new();
    for ((case, (local, folder)), (ours, theirs)) in
        cases.iter().zip(&folders).zip(ours.iter().zip(&theirs))
    {
        let roots = [
            local.work().to_owned(),
            folder.path().canonicalize().unwrap().join("work"),
        ];
        for ((tool, input), (ours, theirs)) in case.calls.iter().zip(ours.iter().zip(theirs)) {
            let (ours, theirs) = (plain(tool, ours, &roots), plain(tool, theirs, &roots));
            if ours == theirs {
                *seen.entry("the same").or_insert(0) += 1;
                continue;
            }
            let difference = Difference {
                tool,
                input,
                ours: &ours,
                theirs: &theirs,
            };
            match DIFFERENCES.iter().find(|(_, shows)| shows(&difference)) {
                Some((name, _)) => *seen.entry(*name).or_insert(0) += 1,
                None => unlisted.push(format!(
                    "{tool} {input}\n  ours   {ours:?}\n  theirs {theirs:?}"
                )),
            }
        }
        let (left, right) = (content(&roots[0]), content(&roots[1]));
        // What follows an end of their shell happens only here, and what their shell hangs on, too.
        if left != right && !case.calls.iter().any(|(tool, _)| *tool == "bash") {
            unlisted.push(format!(
                "{:?}\n  leaves {left:?}\n  and {right:?}",
                case.calls
            ));
        }
    }
    println!("{} cases, {calls} calls: {seen:#?}", cases.len());
    assert!(
        unlisted.is_empty(),
        "{} unlisted differences:\n{}",
        unlisted.len(),
        unlisted.join("\n")
    );
    let stale: Vec<_> = DIFFERENCES
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !seen.contains_key(name))
        .collect();
    assert!(stale.is_empty(), "listed and not seen: {stale:?}");
    let readme = include_str!("../../README.md");
    for (name, _) in DIFFERENCES {
        assert!(readme.contains(name), "the README does not explain: {name}");
    }
}

/// A result without what must differ: the folder, and the order of what grep finds.
fn plain(tool: &str, result: &ToolResult, roots: &[PathBuf; 2]) -> ToolResult {
    let mut text = result.as_text();
    for root in roots {
        text = text.replace(root.to_str().unwrap(), "ROOT");
    }
    if tool == "grep" && !result.is_error {
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        text = lines.join("\n");
    }
    if tool == "glob" && text.contains("zlink") {
        // A link is as old as what it leads to.
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        text = lines.join("\n");
    }
    if tool == "glob" && !result.is_error {
        // Python 3.11 keeps the slash at the end.
        text = text
            .lines()
            .map(|line| line.trim_end_matches('/'))
            .collect::<Vec<_>>()
            .join("\n");
    }
    let mut plain = result.clone();
    if let [mcp_sandbox_tools::Block::Text { text: only }] = plain.content.as_mut_slice() {
        *only = text;
    }
    plain
}

fn sdk(python: &Path, request: &Value) -> Vec<Vec<ToolResult>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/toolset/sdk.py");
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input
        .write_all(&serde_json::to_vec(request).unwrap())
        .unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the SDK's side failed");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The Python of `cargo xtask setup`.
fn python() -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
        PathBuf::from,
    );
    let python = target.join("tools/python/bin/python");
    if python.exists() {
        return Some(python);
    }
    assert!(
        std::env::var("CI_REQUIRE_ALL").as_deref() != Ok("1"),
        "the Python SDK is missing: run `cargo xtask setup`"
    );
    println!("\n*** SKIPPED: the Python SDK is missing: run `cargo xtask setup`\n");
    None
}

fn made(case: &Case) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("work")).unwrap();
    fill(case, &folder.path().join("work"));
    folder
}

fn fill(case: &Case, root: &Path) {
    let mut paths = BTreeSet::new();
    for (name, content) in &case.files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        paths.extend(
            path.ancestors()
                .take_while(|above| *above != root)
                .map(Path::to_owned),
        );
    }
    for (target, link) in &case.links {
        std::os::unix::fs::symlink(target, root.join(link)).unwrap();
    }
    // Times that tell everything apart, the same on both sides; from below, since files change the folders' times.
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    for (number, path) in paths.iter().rev().enumerate() {
        let number = u64::try_from(number * 7919 % 1009).unwrap();
        File::open(path)
            .unwrap()
            .set_modified(start + Duration::from_secs(number))
            .unwrap();
    }
}

fn content(root: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_owned();
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
                all.insert(name, None);
            } else {
                all.insert(name, fs::read(&path).ok());
            }
        }
    }
    all
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    fn text(&mut self, alphabet: &[&str], longest: usize) -> String {
        (0..self.below(longest + 1))
            .map(|_| self.pick(alphabet))
            .collect()
    }
}

fn cases() -> Vec<Case> {
    let mut dice = Dice(0x2545_F491_4F6C_DD1D);
    let mut cases = Vec::new();
    for _ in 0..70 {
        cases.push(read(&mut dice));
        cases.push(edit(&mut dice));
        cases.push(glob(&mut dice));
        cases.push(grep(&mut dice));
    }
    for _ in 0..40 {
        cases.push(write(&mut dice));
        cases.push(bash(&mut dice));
    }
    cases.extend(fixed());
    cases
}

const TEXT: &[&str] = &[
    "a",
    "b",
    "\n",
    "\r\n",
    " ",
    "\u{e9}",
    "\u{1f600}",
    "\t",
    "x=1",
];
const PATHS: &[&str] = &[
    "f",
    "./f",
    "d/../f",
    "d",
    "none",
    "none/x",
    "f/x",
    "../f",
    "/etc/passwd",
    "out",
    "in",
    "loop",
    "dangling",
    "d/g",
    "",
];
const LINKS: &[(&str, &str)] = &[
    ("../outside", "out"),
    ("d", "in"),
    ("loop", "loop"),
    ("../gone", "dangling"),
];

fn read(dice: &mut Dice) -> Case {
    let lines = |dice: &mut Dice| dice.text(TEXT, 30).into_bytes();
    let content = match dice.below(8) {
        0 => vec![b'a', 0xff, b'\n'],
        1 => format!("{}\n", "x".repeat(1000)).repeat(300).into_bytes(),
        2 => vec![b'y'; 300_000],
        _ => lines(dice),
    };
    let number = |dice: &mut Dice| dice.pick(&[-1, 0, 1, 2, 3, 5, 100, 299, 300, 301]);
    let mut calls = Vec::new();
    for _ in 0..4 {
        let path = if dice.below(3) == 0 {
            dice.pick(PATHS)
        } else {
            "f"
        };
        let mut input = json!({"file_path": path});
        match dice.below(10) {
            0 => {}
            1 => input["view_range"] = json!([1]),
            2 => input["view_range"] = json!([]),
            3 => input["view_range"] = Value::Null,
            4 => input["view_range"] = json!(["2", 3.0]),
            _ => input["view_range"] = json!([number(dice), number(dice)]),
        }
        calls.push(("read", input));
    }
    let name = dice.pick(&["p.png", "p.PDF", "p.webp", "p.txt"]);
    calls.push(("read", json!({"file_path": name})));
    let files = vec![
        ("f".to_owned(), content),
        ("d/g".to_owned(), lines(dice)),
        (name.to_owned(), lines(dice)),
    ];
    Case {
        files,
        links: LINKS.to_vec(),
        calls,
    }
}

fn write(dice: &mut Dice) -> Case {
    let mut calls = Vec::new();
    for _ in 0..3 {
        let input = json!({"file_path": dice.pick(PATHS), "content": dice.text(TEXT, 6)});
        calls.push(("write", input));
        calls.push(("read", json!({"file_path": dice.pick(PATHS)})));
    }
    let files = vec![
        ("f".to_owned(), b"old".to_vec()),
        ("d/g".to_owned(), b"old".to_vec()),
    ];
    Case {
        files,
        links: LINKS.to_vec(),
        calls,
    }
}

fn edit(dice: &mut Dice) -> Case {
    let alphabet = ["a", "b", "\n", "\u{e9}"];
    let mut calls = Vec::new();
    for _ in 0..4 {
        let path = if dice.below(6) == 0 {
            dice.pick(PATHS)
        } else {
            "f"
        };
        let (old, new) = (dice.text(&alphabet, 3), dice.text(&alphabet, 3));
        let mut input = json!({"file_path": path, "old_string": old, "new_string": new});
        match dice.below(4) {
            0 => input["replace_all"] = json!(true),
            1 => input["replace_all"] = json!("yes"),
            2 => input["replace_all"] = json!(false),
            _ => {}
        }
        calls.push(("edit", input));
        // The files are compared at the end only, and then all edits must have been alike.
        calls.push(("read", json!({"file_path": "f"})));
    }
    let files = vec![
        ("f".to_owned(), dice.text(&alphabet, 12).into_bytes()),
        ("d/g".to_owned(), Vec::new()),
    ];
    Case {
        files,
        links: LINKS.to_vec(),
        calls,
    }
}

fn tree(dice: &mut Dice) -> Vec<(String, Vec<u8>)> {
    let mut files = BTreeMap::new();
    for _ in 0..dice.below(10) {
        let depth = dice.below(3);
        let mut path: String = (0..depth)
            .map(|_| dice.pick(&["d/", "a.b/", ".h/", "x/"]))
            .collect();
        path.push_str(dice.pick(&["a.rs", "b.rs", "c.py", ".e", "[id].ts", "a"]));
        let lines = [
            "one",
            "Two words",
            "x=1\r",
            "caf\u{e9}",
            "",
            "one two",
            "fn main() {}",
        ];
        let text: String = (0..dice.below(6))
            .map(|_| format!("{}\n", dice.pick(&lines)))
            .collect();
        files.insert(path, text.into_bytes());
    }
    // A name cannot be a file and a folder.
    let folders: BTreeSet<_> = files
        .keys()
        .filter_map(|path| Some(path.rsplit_once('/')?.0.to_owned()))
        .collect();
    let files = files
        .into_iter()
        .filter(|(path, _)| !folders.iter().any(|folder| folder == path));
    files.collect()
}

fn glob(dice: &mut Dice) -> Case {
    let name = |dice: &mut Dice| {
        dice.pick(&[
            "*",
            "*.rs",
            "**",
            "?.rs",
            "[ab].rs",
            "[!a]*",
            ".*",
            "a.rs",
            "d",
            "x",
            "*.*",
            "[a.rs",
            "[z-a]",
            "a**",
            "{a,b}.rs",
            "[[]id].ts",
        ])
    };
    let mut calls = Vec::new();
    for _ in 0..4 {
        let depth = 1 + dice.below(3);
        let mut pattern = (0..depth).map(|_| name(dice)).collect::<Vec<_>>().join("/");
        match dice.below(12) {
            0 => pattern.insert(0, '/'),
            1 => pattern.insert_str(0, "../"),
            2 => pattern.push('/'),
            3 => pattern.insert_str(0, "./"),
            _ => {}
        }
        let mut input = json!({"pattern": pattern});
        if dice.below(4) == 0 {
            input["path"] = json!(dice.pick(&["d", "x", ".", "..", "", "none", "up"]));
        }
        calls.push(("glob", input));
    }
    let links = vec![("..", "up"), ("d", "zlink"), ("nowhere", "dead.rs")];
    Case {
        files: tree(dice),
        links,
        calls,
    }
}

fn grep(dice: &mut Dice) -> Case {
    let patterns = [
        "one",
        "^one$",
        "(?i)two",
        "x=\\d",
        "caf.",
        "\\bone\\b",
        "o|T",
        "^$",
        "fn \\w+\\(",
        "[",
        "(",
        "a{2",
        "(?=one)one",
        "(o)n\\1",
        "\\p{L}+",
        "1\\r?$",
        "",
    ];
    let mut calls = Vec::new();
    for _ in 0..4 {
        let mut input = json!({"pattern": dice.pick(&patterns)});
        if dice.below(3) == 0 {
            input["path"] = json!(dice.pick(&["d", "a.rs", ".", "..", "", "none", "up", "binary"]));
        }
        calls.push(("grep", input));
    }
    let mut files = tree(dice);
    files.push((".git/config".to_owned(), b"one\n".to_vec()));
    files.push(("node_modules/m.js".to_owned(), b"one\n".to_vec()));
    files.push(("raw".to_owned(), b"one \xff\n".to_vec()));
    Case {
        files,
        links: vec![("..", "up"), ("a.rs", "zlink")],
        calls,
    }
}

fn bash(dice: &mut Dice) -> Case {
    let scripts = [
        "echo one; echo two >&2; echo three",
        "X=1; cd d; f() { echo \"f $1\"; }",
        "echo $X; pwd; f 2",
        "export Y='a b'; sh -c 'echo $Y'",
        "printf 'no end'",
        "printf '\\033[1mbold\\033[0m \\377\\n\\n'",
        "cat; read line; echo \"<$line>\"",
        "(exit 3)",
        "echo oops >&2; (exit 4)",
        "false",
        "true",
        "no-such-command",
        "sleep 60 & sleep 0.2; echo started; kill $!; wait $!; echo $?",
        "A=(1 2); echo ${A[1]} ${#A[@]}",
        "cat <<E\nhere $X\nE",
        "for i in 1 2; do echo $i; done | tail -1",
        "ls -A | sort",
        "echo made > made; cat made f",
        "set -o pipefail; false | true; echo $?",
        "echo \u{e9}; exec 3> three; echo 3 >&3; cat three",
        "jobs; echo $-",
        "umask; umask 077; umask",
        "{ echo braces; }; (echo sub; cd /; pwd)",
    ];
    let mut calls: Vec<_> = (0..5)
        .map(|_| ("bash", json!({"command": dice.pick(&scripts)})))
        .collect();
    if dice.below(4) == 0 {
        calls.insert(2, ("bash", json!({"restart": true})));
    }
    let files = vec![
        ("f".to_owned(), b"file\n".to_vec()),
        ("d/g".to_owned(), Vec::new()),
    ];
    Case {
        files,
        links: Vec::new(),
        calls,
    }
}

/// What chance would not hit.
fn fixed() -> Vec<Case> {
    let bash = |scripts: &[&str]| {
        let call = |script: &&str| ("bash", json!({"command": script, "timeout_ms": 500}));
        Case {
            files: Vec::new(),
            links: Vec::new(),
            calls: scripts.iter().map(call).collect(),
        }
    };
    let call = |tool: &'static str, input: Value| Case {
        files: vec![("f".to_owned(), b"ab".to_vec())],
        links: Vec::new(),
        calls: vec![(tool, input)],
    };
    let mut long = b"x one\n".to_vec();
    long.extend("y".repeat(3000).bytes());
    long.extend(b" one\n");
    let mut late = vec![b'z'; 600];
    late.extend(b"\none\n\0\none\n");
    vec![
        bash(&["echo before; exit 3", "echo after"]),
        bash(&["exit 0", "echo after"]),
        bash(&["set -e; false", "echo after"]),
        bash(&["echo begun; sleep 5", "echo after"]),
        bash(&["echo 'open", "echo after"]),
        bash(&["fi", "echo after"]),
        bash(&["exec > /dev/null", "echo after"]),
        bash(&["set -x; true"]),
        bash(&["seq 1 50000"]),
        call("bash", json!({})),
        call("bash", json!({"command": ""})),
        call("bash", json!({"command": "echo x", "timeout_ms": "0"})),
        call("bash", json!({"command": "echo x", "timeout_ms": -1})),
        call("bash", json!({"comand": "echo x"})),
        call("read", json!({})),
        call("read", json!({"file_path": 1})),
        call("read", json!({"file_path": "f", "limit": 3})),
        call("write", json!({"file_path": "f"})),
        call(
            "edit",
            json!({"file_path": "f", "old_string": "", "new_string": "-"}),
        ),
        call("glob", json!({"pattern": ""})),
        call("grep", json!({"pattern": "x", "glob": "*"})),
        Case {
            files: vec![("long".to_owned(), long), ("binary".to_owned(), late)],
            links: Vec::new(),
            calls: vec![
                ("grep", json!({"pattern": "one", "path": "long"})),
                ("grep", json!({"pattern": "one", "path": "binary"})),
            ],
        },
    ]
}
