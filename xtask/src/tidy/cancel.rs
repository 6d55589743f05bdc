//! Every public async function of the crates that move bytes has a test that drops it half-way.

use super::{Source, finding};
use std::collections::BTreeSet;

const CRATES: [&str; 3] = [
    "crates/mcp-tunnel-transport",
    "crates/mcp-tunnel-edge",
    "crates/mcp-tunnel-connector",
];

/// What comes before the names in the comment of such a test.
const MARK: &str = "/// CANCEL: ";

pub(super) fn check(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for name in CRATES {
        let of_crate: Vec<&Source> = sources
            .iter()
            .filter(|source| source.path.starts_with(name) && source.is_rust())
            .collect();
        let mut tested: BTreeSet<&str> = BTreeSet::new();
        for source in of_crate.iter().filter(|source| source.is_test()) {
            tested.extend(source.text.lines().flat_map(named));
        }
        let mut declared = BTreeSet::new();
        for source in of_crate.iter().filter(|source| !source.is_test()) {
            for (line, function) in public_async(&source.text) {
                if !tested.contains(function.as_str()) {
                    let text =
                        format!("no test drops `{function}` half-way: see CANCEL in the tests");
                    findings.push(finding(&source.path, line, &text));
                }
                declared.insert(function);
            }
        }
        for gone in tested.iter().filter(|name| !declared.contains(**name)) {
            findings.push(format!(
                "{name}: CANCEL names `{gone}`, which is no public async fn"
            ));
        }
    }
    findings
}

/// The functions that a test's comment names: `Type::function`, or a free function without its module.
fn named(line: &str) -> impl Iterator<Item = &str> {
    let names = line.trim().strip_prefix(MARK).unwrap_or_default();
    names.split('`').skip(1).step_by(2).map(|name| {
        let free = name.starts_with(|first: char| first.is_ascii_lowercase());
        match name.rsplit_once("::") {
            Some((_, function)) if free => function,
            _ => name,
        }
    })
}

/// Line and name of each public async function of a file.
fn public_async(text: &str) -> Vec<(usize, String)> {
    let (mut of, mut found) = (String::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        if let Some(head) = line.strip_prefix("impl") {
            of = type_of(head).to_owned();
        } else if line.starts_with('}') {
            of.clear();
        }
        let Some((_, rest)) = line.split_once("pub async fn ") else {
            continue;
        };
        let end = rest.find(['(', '<']).unwrap_or(rest.len());
        let name = rest.get(..end).unwrap_or_default();
        let full = if of.is_empty() {
            name.to_owned()
        } else {
            format!("{of}::{name}")
        };
        found.push((index + 1, full));
    }
    found
}

/// The type that an `impl` is of, without its parameters; `head` is what follows the word.
fn type_of(head: &str) -> &str {
    let rest = match head.strip_prefix('<') {
        // The parameters end at the bracket that is followed by a space.
        Some(parameters) => parameters.split_once("> ").map_or("", |(_, rest)| rest),
        None => head.trim_start(),
    };
    let rest = rest.split_once(" for ").map_or(rest, |(_, of)| of);
    let end = rest.find(['<', ' ', '{']).unwrap_or(rest.len());
    rest.get(..end).unwrap_or_default()
}
