//! Rules of the house that no compiler knows: who may use whom, sizes, words.

mod cancel;
mod edges;
mod security;
mod sizes;
mod spec;
mod words;

use crate::shell::root;
use anyhow::{Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// Folders that the top level may hold; everything else there is a file.
const TOP_LEVEL: [&str; 8] = [
    ".cargo", ".ci", "benches", "crates", "examples", "fuzz", "target", "xtask",
];

/// Checks every rule and prints each finding as `path:line: what, and the cure`.
pub(crate) fn run() -> Result<()> {
    eprintln!("\n== tidy");
    let sources = sources()?;
    let mut findings = top_level()?;
    findings.extend(edges::check()?);
    for source in &sources {
        findings.extend(sizes::check(source)?);
        findings.extend(words::check(source));
    }
    findings.extend(spec::check(&sources)?);
    findings.extend(security::check(&sources));
    findings.extend(cancel::check(&sources));
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!("tidy: {} finding(s), listed above", findings.len());
    }
    eprintln!("== tidy: {} files, no finding", sources.len());
    Ok(())
}

/// One tracked text file of the workspace.
pub(crate) struct Source {
    /// Relative to the root of the workspace.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

impl Source {
    pub(crate) fn is_rust(&self) -> bool {
        self.path.extension().is_some_and(|end| end == "rs")
    }

    /// Whether the file holds tests, benchmarks or examples only.
    pub(crate) fn is_test(&self) -> bool {
        let inside = |folder: &str| {
            self.path
                .components()
                .any(|part| part.as_os_str() == folder)
        };
        inside("tests") || inside("benches") || self.path.ends_with("tests.rs")
    }
}

fn sources() -> Result<Vec<Source>> {
    let listed = std::process::Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root())
        .output()?;
    let mut sources = Vec::new();
    for name in String::from_utf8(listed.stdout)?
        .split('\0')
        .filter(|name| !name.is_empty())
    {
        // Data of third parties and binary files are not ours to judge.
        if let Ok(text) = fs::read_to_string(root().join(name)) {
            sources.push(Source {
                path: name.into(),
                text,
            });
        }
    }
    Ok(sources)
}

fn top_level() -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for entry in fs::read_dir(root())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let known = name == ".git" || TOP_LEVEL.contains(&name.as_str());
        if entry.file_type()?.is_dir() && !known {
            findings.push(format!(
                "{name}: no folder of this name belongs at the top level"
            ));
        }
    }
    Ok(findings)
}

/// `path:line: text`, the form that editors jump to.
pub(crate) fn finding(path: &Path, line: usize, text: &str) -> String {
    format!("{}:{line}: {text}", path.display())
}
