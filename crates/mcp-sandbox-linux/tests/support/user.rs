//! A second run of a test, as an ordinary user.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Set in the process that runs as an ordinary user.
const AS_USER: &str = "SANDBOX_TEST_AS_USER";
/// A user id that nobody has.
pub(crate) const USER: u32 = 60_123;

/// Whether this is the second run.
pub(crate) fn is_second_run() -> bool {
    env::var_os(AS_USER).is_some()
}

/// Runs this program again as an ordinary user, if this is root.
pub(crate) fn run_again(filter: Option<&str>) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("again");
    fs::copy(env::current_exe().unwrap(), &copy).unwrap();
    for path in [dir.path(), &copy] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    println!("again as user {USER}");
    let mut command = Command::new(&copy);
    command
        .args(filter)
        .env(AS_USER, "1")
        .current_dir("/")
        .uid(USER)
        .gid(USER);
    assert!(command.status().unwrap().success());
}
