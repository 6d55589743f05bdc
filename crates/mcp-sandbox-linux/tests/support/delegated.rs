//! Limits of an ordinary user to whom a subtree of the control groups was given.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;

use mcp_sandbox_executor::{
    Command, Enforcement, Executor as _, Exit, KillReason, LayerState, Limits, ProcessEvent,
    SandboxSpec,
};
use mcp_sandbox_linux::{Config, LinuxExecutor, Tier};

use crate::user;

const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

/// As root: gives a subtree away and runs this again in it. As that user: security 23 the other way round.
pub(crate) async fn a_group_given_to_an_ordinary_user_limits_hard() {
    if user::is_second_run() {
        return limits_hold().await;
    }
    if !rustix::process::geteuid().is_root() {
        return println!("SKIPPED: needs root");
    }
    let Some(groups) = Groups::make() else {
        return println!("SKIPPED: no control groups to give away");
    };
    groups.enter();
    user::run_again(None);
}

/// The groups, and where this process came from.
struct Groups {
    given: Vec<PathBuf>,
    before: Vec<PathBuf>,
}

impl Groups {
    fn make() -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let mut groups = Self {
            given: Vec::new(),
            before: Vec::new(),
        };
        for line in own.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (names, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
            let one = names.split(',').find(|name| CONTROLLERS.contains(name));
            let root = match one {
                Some(_) => PathBuf::from("/sys/fs/cgroup").join(names),
                None if names.is_empty() => PathBuf::from("/sys/fs/cgroup"),
                None => continue,
            };
            let version_2 = one.is_none();
            if version_2 && !root.join("cgroup.controllers").exists() {
                continue;
            }
            // Of version 2 only the top divides itself with processes in it.
            let parent = if version_2 {
                root.clone()
            } else {
                root.join(path)
            };
            let given = parent.join(format!("given-{}", std::process::id()));
            if version_2 {
                let _ = fs::write(parent.join("cgroup.subtree_control"), "+memory +pids +cpu");
            }
            fs::create_dir(&given).ok()?;
            let user = Some(user::USER);
            chown(&given, user, user).ok()?;
            for file in ["cgroup.procs", "cgroup.subtree_control"] {
                let _ = chown(given.join(file), user, user);
            }
            groups.before.push(root.join(path));
            groups.given.push(given);
        }
        (!groups.given.is_empty()).then_some(groups)
    }

    fn enter(&self) {
        self.given.iter().for_each(|group| Self::join(group));
    }

    fn join(group: &std::path::Path) {
        let own = std::process::id().to_string();
        fs::write(group.join("cgroup.procs"), own).unwrap();
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        self.before.iter().for_each(|group| Self::join(group));
        for group in &self.given {
            for below in fs::read_dir(group).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(below.path());
            }
            let _ = fs::remove_dir(group);
        }
    }
}

async fn limits_hold() {
    let executor = LinuxExecutor::start(Config::new()).await.unwrap();
    let report = executor.report();
    assert_eq!(report.tier, Tier::T2);
    let limits = executor.capabilities().limits;
    assert_eq!(limits.memory, Enforcement::Hard, "{report:?}");
    assert_eq!(limits.cpu, Enforcement::Hard);
    let layer = report.layers.iter().find(|layer| layer.name == "limits");
    assert_eq!(layer.unwrap().state, LayerState::InForce);
    let mut limits = Limits::default();
    limits.memory_bytes = Some(64 << 20);
    let spec = SandboxSpec::new().with_limits(limits);
    let sandbox = executor.create(spec).await.unwrap();
    // Each below a limit for one process: only a group counts them together.
    let eat = "for n in 1 2 3 4; do head -c 30000000 /dev/zero | tail -c 30000000 >/dev/null & done; wait; \
        exec tail /dev/zero";
    let mut process = sandbox.exec(Command::new(["sh", "-c", eat])).await.unwrap();
    let mut exit = None;
    while let Some(event) = process.next_event().await.unwrap() {
        if let ProcessEvent::Exit(ended) = event {
            exit = Some(ended);
        }
    }
    assert_eq!(exit, Some(Exit::Killed(KillReason::OutOfMemory)));
    sandbox.destroy().await.unwrap();
}
