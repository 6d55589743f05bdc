//! Every test that SECURITY.md names exists.

use super::{Source, finding};
use std::path::Path;

const SECURITY: &str = "SECURITY.md";

pub(super) fn check(sources: &[Source]) -> Vec<String> {
    let Some(document) = sources
        .iter()
        .find(|source| source.path == Path::new(SECURITY))
    else {
        return Vec::new();
    };
    let exists = |name: &str| {
        let head = format!("fn {name}(");
        sources
            .iter()
            .any(|source| source.is_rust() && source.text.contains(&head))
    };
    let mut findings = Vec::new();
    for (index, line) in document.text.lines().enumerate() {
        for name in line
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|word| is_test(word))
        {
            if !exists(name) {
                let text = format!("there is no test `{name}`");
                findings.push(finding(&document.path, index + 1, &text));
            }
        }
    }
    findings
}

/// Whether a word in backticks is the name of a test: lower-case words joined by underscores.
fn is_test(word: &str) -> bool {
    word.contains('_')
        && word
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}
