//! What sandboxes hold on this machine.

use std::fs;
use std::path::Path;

/// Inits, groups and mounts that sandboxes hold on this machine.
pub(crate) fn holdings() -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let field = |name| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap_or("")
        };
        let nested = field("NSpid:").split_whitespace().count() > 1;
        let ranged = field("Uid:")
            .split_whitespace()
            .next()
            .is_some_and(|uid| uid.parse::<u32>().unwrap() >= 0x0100_0000);
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let init = line.starts_with(b"mcp-sandbox-launcher");
        if (nested || ranged || init) && !status.contains("State:\tZ") {
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

/// Held while tests look at the machine as a whole: another run of them would show.
pub(crate) fn alone() -> fs::File {
    let path = std::env::temp_dir().join("mcp-sandbox-tests.lock");
    let mut options = fs::OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap();
    file.lock().unwrap();
    file
}
