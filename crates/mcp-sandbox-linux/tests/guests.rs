//! The suite in other surroundings: a user-mode Linux guest, a default container.
//!
//! A guest has control groups of version 2 only, an older kernel and no Landlock; a
//! default container has no namespaces. Both take minutes, so that they run only
//! where `SANDBOX_GUESTS` is set, as root, with the packages `user-mode-linux` and
//! `docker.io`.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test with a main of its own"
)]

use std::env;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mcp_sandbox_linux::Tier;

/// Set in a guest, in which this program runs the suite.
const GUEST: &str = "SANDBOX_GUEST";

#[path = "support/holdings.rs"]
mod holdings;
#[path = "support/suite.rs"]
mod suite;
#[path = "support/user.rs"]
mod user;

fn main() {
    mcp_sandbox_linux::enter_helper();
    if env::args().any(|argument| argument == "--list") {
        return println!("guests: test");
    }
    if env::var_os(GUEST).is_some() {
        return suite::run_here(None, &[Tier::T1]);
    }
    if env::var_os("SANDBOX_GUESTS").is_none() {
        return println!("SKIPPED guests: they take minutes; set SANDBOX_GUESTS=1");
    }
    assert!(rustix::process::geteuid().is_root(), "guests need root");
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let only = env::args().nth(1).filter(|name| !name.starts_with('-'));
    let wanted = |name| only.as_deref().is_none_or(|only| only == name);
    if wanted("container") {
        default_container(dir.path());
    }
    if wanted("linux") {
        user_mode_linux(dir.path());
    }
}

/// This program where every guest can read it.
fn copy(dir: &Path) -> PathBuf {
    let copy = dir.join("guest");
    fs::copy(env::current_exe().unwrap(), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    copy
}

/// Version 2 of control groups only, in a group that has processes, as a service has it; no Landlock.
fn user_mode_linux(dir: &Path) {
    let init = dir.join("init");
    let script = format!(
        "#!/bin/sh\nexport PATH=/usr/sbin:/usr/bin:/sbin:/bin {GUEST}=1 CI_REQUIRE_ALL=1\n\
         mount -t proc proc /proc; mount -t sysfs sys /sys\n\
         mount -t tmpfs run /run; cp {} /run/guest; mount -t tmpfs tmp /tmp; cp /run/guest /tmp/guest\n\
         mount -t cgroup2 cgroup2 /sys/fs/cgroup; mount -t devtmpfs dev /dev; mkdir -p /sys/fs/cgroup/service\n\
         echo $$ >/sys/fs/cgroup/service/cgroup.procs; mkdir -p /dev/pts /dev/shm\n\
         mount -t devpts devpts /dev/pts; mount -t tmpfs shm /dev/shm; ip link set lo up\n\
         cd /; /tmp/guest 2>&1 && echo GUEST PASSED; echo o > /proc/sysrq-trigger; sleep 5\n",
        copy(dir).display()
    );
    fs::write(&init, script).unwrap();
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).unwrap();
    let output = Command::new("timeout")
        .args([
            "400",
            "linux",
            "mem=1024M",
            "root=/dev/root",
            "rootfstype=hostfs",
            "rootflags=/",
            "ro",
        ])
        .arg(format!("init={}", init.display()))
        .args(["quiet", "con=null", "con0=fd:0,fd:1"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(
        text.contains("GUEST PASSED"),
        "the suite in user-mode Linux"
    );
    assert!(
        text.contains("tier T1"),
        "control groups of version 2 were not used"
    );
}

/// An engine of its own, so that no other one is touched.
struct Engine {
    child: Child,
    socket: String,
}

impl Engine {
    fn start(dir: &Path) -> Self {
        let socket = format!("unix://{}/docker.sock", dir.display());
        let child = Command::new("dockerd")
            .args([
                "--iptables=false",
                "--ip6tables=false",
                "--ip-forward=false",
                "--ip-masq=false",
                "--bridge=none",
            ])
            .arg("--data-root")
            .arg(dir.join("data"))
            .arg("--exec-root")
            .arg(dir.join("exec"))
            .arg("--pidfile")
            .arg(dir.join("pid"))
            .arg("-H")
            .arg(&socket)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let engine = Self { child, socket };
        for _ in 0..300 {
            if engine.docker(&["version"]).0 {
                return engine;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("dockerd does not answer");
    }

    fn docker(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new("docker")
            .env("DOCKER_HOST", &self.socket)
            .args(arguments)
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

fn default_container(dir: &Path) {
    let image = dir.join("image");
    for folder in [
        "etc", "tmp", "proc", "sys", "dev", "run", "root", "usr", "var",
    ] {
        fs::create_dir_all(image.join(folder)).unwrap();
    }
    fs::set_permissions(image.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    for name in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), image.join(name)).unwrap();
    }
    for name in ["passwd", "group", "ld.so.cache", "nsswitch.conf"] {
        fs::copy(Path::new("/etc").join(name), image.join("etc").join(name)).unwrap();
    }
    let tar = dir.join("image.tar");
    let packed = Command::new("tar")
        .arg("cf")
        .arg(&tar)
        .arg("-C")
        .arg(&image)
        .arg(".")
        .status();
    assert!(packed.unwrap().success());
    let engine = Engine::start(dir);
    assert!(engine.docker(&["import", tar.to_str().unwrap(), "guest"]).0);
    let program = format!("{}:/guest:ro", copy(dir).display());
    let variable = format!("{GUEST}=1");
    let (passed, text) = engine.docker(&[
        "run",
        "--rm",
        "--network=none",
        "-v",
        "/usr:/usr:ro",
        "-v",
        "/etc/alternatives:/etc/alternatives:ro",
        "-v",
        &program,
        "-e",
        &variable,
        "-e",
        "CI_REQUIRE_ALL=1",
        "guest",
        "/guest",
    ]);
    println!("{text}");
    assert!(passed, "the suite in a default container");
    assert!(text.contains("tier T3"), "no tier without namespaces");
}
