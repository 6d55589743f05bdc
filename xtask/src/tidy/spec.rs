//! Every numbered MUST of SPEC.md is cited where it is implemented and where it is tested.

use super::{Source, finding};
use anyhow::Result;
use std::collections::BTreeSet;
use std::path::Path;

const SPEC: &str = "crates/mcp-tunnel-proto/SPEC.md";

/// Marks a MUST in the specification that a later version of the code will keep.
const RESERVED: &str = "(reserved)";

pub(super) fn check(sources: &[Source]) -> Result<Vec<String>> {
    let Some(spec) = sources.iter().find(|source| source.path == Path::new(SPEC)) else {
        return Ok(Vec::new());
    };
    let (mut code, mut tests) = (BTreeSet::new(), BTreeSet::new());
    let beside = |source: &&Source| {
        source.path.starts_with("crates/mcp-tunnel-proto")
            || source.path.starts_with("crates/mcp-tunnel-transport")
    };
    for source in sources
        .iter()
        .filter(beside)
        .filter(|source| source.is_rust())
    {
        let (main, test) = match source.text.split_once("#[cfg(test)]\nmod tests {") {
            _ if source.is_test() => ("", source.text.as_str()),
            Some(parts) => parts,
            None => (source.text.as_str(), ""),
        };
        code.extend(ids(main));
        tests.extend(ids(test));
    }
    let mut findings = Vec::new();
    for (index, line) in spec.text.lines().enumerate() {
        let Some(id) = defined(line) else { continue };
        if line.contains(RESERVED) {
            continue;
        }
        for (place, cited) in [("code", &code), ("a test", &tests)] {
            if !cited.contains(id) {
                findings.push(finding(
                    &spec.path,
                    index + 1,
                    &format!("{id} is not cited in {place}"),
                ));
            }
        }
    }
    for line in unnumbered(&spec.text) {
        findings.push(finding(&spec.path, line, "a MUST without an id"));
    }
    Ok(findings)
}

/// The lines with a MUST that belongs to no id: outside of an item or paragraph that begins with one, from section 1 on.
fn unnumbered(text: &str) -> Vec<usize> {
    let mut lines = Vec::new();
    let (mut begun, mut numbered) = (false, false);
    for (index, line) in text.lines().enumerate() {
        begun |= line.starts_with("## ");
        let begins = line.starts_with(['-', '#', '|']) || line.trim().is_empty();
        numbered = defined(line).is_some() || (numbered && !begins);
        if begun && !numbered && line.contains("MUST") {
            lines.push(index + 1);
        }
    }
    lines
}

/// The id that a line of the specification defines: `**OPEN-3** …`.
fn defined(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("**")?;
    let (id, _) = rest.split_once("**")?;
    is_id(id).then_some(id)
}

fn ids(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '-'))
        .filter(|word| is_id(word))
}

fn is_id(word: &str) -> bool {
    word.split_once('-').is_some_and(|(name, number)| {
        name.len() >= 2
            && name.bytes().all(|byte| byte.is_ascii_uppercase())
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::unnumbered;

    #[test]
    fn every_must_needs_an_id() {
        let text = "MUST is explained.\n## 1\n- **OPEN-1** A side MUST,\n  and MUST NOT.\n- One MUST too.\n\nIt MUST.";
        assert_eq!(unnumbered(text), [5, 7]);
    }
}
