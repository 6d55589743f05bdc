//! What sessions do, and whether each of it happened as its result says.

use super::Chance;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// Where the folder of effects is in a sandbox.
pub(super) const INSIDE: &str = "/effects";

/// Longest pause of a call, in hundredths of a second: kills meet it before, in and after it.
const LONGEST: usize = 20;

/// The calls of one session, one turn each: each appends its number to a file of the host and to one of the workspace; the
/// last one shows the latter.
pub(super) fn script(name: &str, calls: usize, chance: &mut Chance) -> Value {
    let bash = |command: String| json!({"name": "bash", "input": {"command": command}});
    let mut pause = || format!("sleep 0.{:02}", chance.below(LONGEST));
    let effects = (0..calls).map(|call| {
        let (before, after) = (pause(), pause());
        bash(format!(
            "{before}; echo {call} >> {INSIDE}/{name} && echo {call} >> lines && {after} && echo done"
        ))
    });
    let mut all: Vec<Value> = effects.collect();
    all.push(bash("cat lines".to_owned()));
    Value::Array(all)
}

/// The folder that all sandboxes see.
#[derive(Clone, Debug)]
pub(super) struct Effects {
    folder: PathBuf,
}

/// What calls came to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) calls: u64,
    /// Cut short by a kill, and not run again.
    pub(super) interrupted: u64,
    /// Of those, whose effect is there.
    pub(super) had_effect: u64,
    /// Answers that said that the workspace is new.
    pub(super) moved: u64,
    /// Sessions whose making was not heard of.
    pub(super) strays: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.interrupted += other.interrupted;
        self.had_effect += other.had_effect;
        self.moved += other.moved;
        self.strays += other.strays;
    }
}

impl Effects {
    pub(super) fn new(folder: &Path) -> Self {
        let folder = folder.to_owned();
        Self { folder }
    }

    /// Looks through the history of a session that has ended.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn judge(&self, name: &str, events: &[Value]) -> Result<Tally> {
        let ran = lines(&self.folder.join(name))?;
        let twice = ran.iter().find(|(_, times)| **times > 1);
        ensure!(
            twice.is_none(),
            "the effect {twice:?} of {name} came more than once"
        );
        let (mut tally, mut done) = (Tally::default(), BTreeSet::new());
        let calls = events
            .iter()
            .filter(|event| event["type"] == "agent.tool_use");
        let mut shown = None;
        for (number, call) in calls.enumerate() {
            let (text, is_error) = only_result(events, call)?;
            tally.calls += 1;
            if text.contains("are not here]") {
                tally.moved += 1;
                done.clear();
            }
            let is_effect = call["input"]["command"] != "cat lines";
            let has_effect = ran.contains_key(&number.to_string());
            if is_error && text.contains("interrupted, may have run") {
                tally.interrupted += 1;
                tally.had_effect += u64::from(is_effect && has_effect);
            } else if is_effect {
                ensure!(!is_error, "call {number} of {name} failed: {text}");
                ensure!(
                    has_effect,
                    "call {number} of {name} did not run, and says {text:?}"
                );
                done.insert(number.to_string());
            } else {
                shown = Some((text, is_error));
            }
        }
        // Files are kept, or it is said that they are not.
        if let Some((text, is_error)) = shown {
            let kept: BTreeSet<String> = text.lines().map(str::to_owned).collect();
            let all = kept.is_superset(&done) && (!is_error || done.is_empty());
            ensure!(
                all,
                "{name} wrote {done:?} since it moved last, and has {text:?}"
            );
            let lines = text.lines().filter(|line| line.parse::<u32>().is_ok());
            let twice = lines.clone().count() > lines.collect::<BTreeSet<_>>().len();
            ensure!(!twice, "a line of {name} is there twice: {text:?}");
        }
        Ok(tally)
    }
}

/// Text of a call's result and whether it is an error.
fn only_result(events: &[Value], call: &Value) -> Result<(String, bool)> {
    let mut results = events
        .iter()
        .filter(|event| event["type"] == "user.tool_result" && event["tool_use_id"] == call["id"]);
    let result = results
        .next()
        .with_context(|| format!("{} has no result", call["id"]))?;
    ensure!(results.next().is_none(), "{} has two results", call["id"]);
    let blocks = result["content"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let texts: Vec<&str> = blocks
        .iter()
        .filter_map(|block| block["text"].as_str())
        .collect();
    Ok((texts.join("\n"), result["is_error"] == true))
}

/// How often each line is in a file; none where there is no file.
fn lines(path: &Path) -> Result<BTreeMap<String, u32>> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        text => text.with_context(|| format!("reading {}", path.display()))?,
    };
    let mut lines = BTreeMap::new();
    for line in text.lines() {
        *lines.entry(line.to_owned()).or_insert(0) += 1;
    }
    Ok(lines)
}
