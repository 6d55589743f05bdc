//! The sandbox: packets between its processes, archives, paths.

use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// One directory for all runs of this process; each run empties it.
static DIR: LazyLock<Mutex<PathBuf>> = LazyLock::new(|| {
    let dir = std::env::temp_dir().join(format!("fuzz-sandbox-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory for temporary files");
    Mutex::new(dir)
});

pub(crate) fn archive(bytes: &[u8]) {
    let dir = lock();
    let archive = dir.join("archive");
    make(&archive);
    mcp_sandbox_linux::fuzzing::archive(bytes, &archive);
}

pub(crate) fn control_groups(bytes: &[u8]) {
    mcp_sandbox_linux::fuzzing::control_groups(bytes);
}

pub(crate) fn packet(bytes: &[u8]) {
    mcp_sandbox_linux::fuzzing::packet(bytes);
}

pub(crate) fn path(bytes: &[u8]) {
    let dir = lock();
    let tree = dir.join("path");
    make(&tree);
    mcp_sandbox_tools::fuzzing::path(bytes, &tree);
}

pub(crate) fn glob_pattern(bytes: &[u8]) {
    mcp_sandbox_tools::fuzzing::glob_pattern(bytes);
}

pub(crate) fn shell_output(bytes: &[u8]) {
    mcp_sandbox_tools::fuzzing::shell_output(bytes);
}

pub(crate) fn shell_state(bytes: &[u8]) {
    mcp_sandbox_tools::fuzzing::shell_state(bytes);
}

pub(crate) fn tool_input(bytes: &[u8]) {
    mcp_sandbox_tools::fuzzing::input(bytes);
}

fn lock() -> MutexGuard<'static, PathBuf> {
    DIR.lock().unwrap_or_else(PoisonError::into_inner)
}

fn make(dir: &Path) {
    std::fs::create_dir_all(dir).expect("a directory for temporary files");
}
