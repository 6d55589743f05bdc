//! What sandboxes hold on this machine.

use std::fs;
use std::path::Path;

/// Inits, groups and mounts that sandboxes hold on this machine.
pub(crate) fn holdings() -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let nested = status
            .lines()
            .any(|line| line.starts_with("NSpid:") && line.split_whitespace().count() > 2);
        if nested && !status.contains("State:\tZ") {
            all.push(format!("process {}", entry.path().display()));
        }
    }
    let roots = fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten();
    roots.for_each(|root| groups(&root.path(), &mut all, 5));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    all.extend(mounts.lines().map(|line| format!("mount {line}")));
    all.sort();
    all
}

/// Groups of sandboxes: numbers below a group of a launcher.
fn groups(dir: &Path, all: &mut Vec<String>, depth: u32) {
    let ours = dir
        .file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with("mcp-sandbox-"));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if !path.is_dir() || depth == 0 {
            continue;
        }
        if ours {
            all.push(format!("group {}", path.display()));
        } else {
            groups(&path, all, depth - 1);
        }
    }
}
