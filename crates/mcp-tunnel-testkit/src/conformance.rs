//! The official conformance suite: runs it against a URL and compares two runs check by check.

use crate::{
    process::Process,
    tools::{modules, node},
};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::{collections::BTreeMap, fmt, path::Path, time::Duration};
use tokio::process::Command;

/// A frozen set of scenarios of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Requirements {
    /// The last revision with sessions.
    Legacy2025,
    /// The first revision without.
    Modern2026,
}

impl fmt::Display for Requirements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Legacy2025 => "2025-11-25",
            Self::Modern2026 => "2026-07-28",
        })
    }
}

/// Every check of one run: scenario, check id and status, with how often it occurred.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checks(BTreeMap<(String, String, String), usize>);

/// One run of the suite.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Run {
    /// Whether every scored scenario passed, as the suite's exit code says.
    pub passed: bool,
    /// All checks, scored or not.
    pub checks: Checks,
    /// What the suite printed.
    pub report: String,
}

/// Runs the scenarios of `requirements` against the MCP endpoint at `url`.
///
/// # Errors
/// The suite cannot be started, does not end in time, or leaves no results.
pub async fn run(url: &str, requirements: Requirements, within: Duration) -> Result<Run> {
    let results = tempfile::tempdir()?;
    let mut command = Command::new(node().context("no Node.js")?);
    command
        .arg(modules("node").join(".bin/conformance"))
        .args(["server", "--url", url])
        .args(["--requirements", &requirements.to_string()])
        .arg("--output-dir")
        .arg(results.path());
    let mut suite = Process::start("conformance suite", command)?;
    let status = suite.exit(within).await?;
    let report = suite.log().text();
    let checks = Checks::read(results.path())?;
    ensure!(!checks.0.is_empty(), "the suite left no results:\n{report}");
    Ok(Run {
        passed: status.success(),
        checks,
        report,
    })
}

#[derive(Deserialize)]
struct Check {
    id: String,
    status: String,
}

impl Checks {
    /// Reads the folder that the suite writes: one folder a scenario, `checks.json` in each.
    fn read(results: &Path) -> Result<Self> {
        let mut all = BTreeMap::new();
        for folder in std::fs::read_dir(results)? {
            let folder = folder?;
            let name = folder.file_name().to_string_lossy().into_owned();
            // `server-NAME-2026-11-24T07-09-42-776Z`: without the time, which is the last 25.
            let scenario = name.get(..name.len().saturating_sub(25)).unwrap_or(&name);
            let file = folder.path().join("checks.json");
            let text =
                std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
            for check in serde_json::from_slice::<Vec<Check>>(&text)? {
                *all.entry((scenario.to_owned(), check.id, check.status))
                    .or_insert(0) += 1;
            }
        }
        Ok(Self(all))
    }

    /// How many checks there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.values().sum()
    }

    /// How many checks ended with `status`.
    #[must_use]
    pub fn with_status(&self, status: &str) -> usize {
        let matching = self.0.iter().filter(|((_, _, is), _)| is == status);
        matching.map(|(_, count)| count).sum()
    }

    /// What differs, a line each; empty if both runs agree check by check.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        let (mut here, mut there) = (self.0.clone(), other.0.clone());
        for (mine, yours, sign) in [(&mut here, &other.0, '-'), (&mut there, &self.0, '+')] {
            mine.retain(|check, count| yours.get(check) != Some(count));
            for ((scenario, id, status), count) in mine {
                lines.push(format!("{sign} {scenario}: {id} {status} ({count})"));
            }
        }
        lines
    }
}
