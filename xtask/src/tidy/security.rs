//! Every test that SECURITY.md and the list of other multiplexers' faults name exists.

use super::{Source, finding};
use std::path::Path;

const SECURITY: &str = "SECURITY.md";

const FAULTS: &str = "crates/mcp-tunnel-proto/src/tests/faults.rs";

pub(super) fn check(sources: &[Source]) -> Vec<String> {
    let exists = |name: &str| {
        let head = format!("fn {name}(");
        sources
            .iter()
            .any(|source| source.is_rust() && source.text.contains(&head))
    };
    let mut findings = Vec::new();
    for document in sources {
        let marked = match &document.path {
            path if path == Path::new(SECURITY) => "",
            path if path == Path::new(FAULTS) => "//! |",
            _ => continue,
        };
        for (index, line) in document.text.lines().enumerate() {
            if !line.starts_with(marked) {
                continue;
            }
            let quoted = line.split('`').skip(1).step_by(2);
            let names = quoted.map(|path| path.rsplit("::").next().unwrap_or(path));
            for name in names.filter(|word| is_test(word) && !exists(word)) {
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
