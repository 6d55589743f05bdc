//! Attributes and words that may not stand in a source file.

use super::{Source, finding};

pub(super) fn check(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    let own = source.path.ends_with("tidy/words.rs");
    if !source.is_rust() || own {
        return findings;
    }
    for (index, line) in source.text.lines().enumerate() {
        let code = line.trim();
        let mut complain = |text: &str| findings.push(finding(&source.path, index + 1, text));
        if code.starts_with("#[allow(") || code.starts_with("#![allow(") {
            complain("`allow` goes stale: use `expect` with a reason");
        }
        if code == "#[ignore]" {
            complain("an ignored test needs a reason");
        }
        if code.contains("todo!(") || code.contains("unimplemented!(") {
            complain("unfinished code does not land");
        }
        if code.starts_with("// TODO") || code.contains("FIXME") {
            complain("no TODO without an issue");
        }
        if code.starts_with("#[should_panic") {
            complain("compare a returned error instead of `should_panic`");
        }
    }
    if is_library_root(source) && !source.text.contains("#![forbid(unsafe_code)]") {
        findings.push(finding(&source.path, 1, "add `#![forbid(unsafe_code)]`"));
    }
    findings
}

/// Every library but the one that holds the system calls forbids unsafe code.
fn is_library_root(source: &Source) -> bool {
    source.path.starts_with("crates")
        && source.path.ends_with("src/lib.rs")
        && !source.path.starts_with("crates/mcp-sandbox-linux")
}
