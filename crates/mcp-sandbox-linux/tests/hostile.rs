//! Points 17 to 23 of the security design, as far as they are about this backend.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test with a main of its own"
)]

#[path = "support/delegated.rs"]
mod delegated;
#[path = "support/holdings.rs"]
#[expect(dead_code, reason = "only the lock is of use here")]
mod holdings;
mod support;
#[path = "support/user.rs"]
mod user;

use std::env;
use std::fs;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::time::Duration;

use delegated::a_group_given_to_an_ordinary_user_limits_hard;
use mcp_sandbox_executor::{
    Command, Enforcement, Executor as _, LayerState, Mount, ProcessEvent, Sandbox, SandboxSpec,
    Workspace, WorkspaceName,
};
use mcp_sandbox_linux::{Config, LinuxExecutor, StartError, Tier, drop_privileges};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

/// Set in the process that plays the networked service.
const SERVICE: &str = "HOSTILE_SERVICE";

fn main() {
    mcp_sandbox_linux::enter_helper();
    if env::var_os(SERVICE).is_some() {
        return service_without_root();
    }
    if user::is_second_run() {
        return support::main(support::cases![
            a_group_given_to_an_ordinary_user_limits_hard,
        ]);
    }
    let _alone = holdings::alone();
    support::main(support::cases![
        init_holds_two_sockets_and_commands_neither,
        a_group_given_to_an_ordinary_user_limits_hard,
        a_hostile_service_gets_nothing_that_was_not_allowed,
        the_service_is_not_root,
        ranges_of_ids_are_apart,
        no_set_id_file_reaches_the_host,
        a_source_swapped_for_a_link_is_not_followed,
        a_setup_script_runs_once_and_is_read_only_afterwards,
        limits_that_do_not_bind_are_not_called_hard,
        without_namespaces_there_are_no_internet_sockets,
        a_required_tier_is_a_hard_error,
        the_host_network_is_given_only_when_allowed,
    ]);
}

fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIPPED: needs root");
    }
    root
}

async fn output(sandbox: &dyn Sandbox, script: &str) -> String {
    let mut process = sandbox
        .exec(Command::new(["sh", "-c", script]))
        .await
        .unwrap();
    let mut text = Vec::new();
    while let Some(event) = process.next_event().await.unwrap() {
        if let ProcessEvent::Stdout(bytes) | ProcessEvent::Stderr(bytes) = event {
            text.extend_from_slice(&bytes);
        }
    }
    String::from_utf8_lossy(&text).trim_end().to_owned()
}

/// A launcher to which this process talks without the crate's own manners.
struct Raw {
    socket: OwnedFd,
    child: std::process::Child,
}

impl Raw {
    fn start() -> Self {
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
        let child = Process::new(env::current_exe().unwrap())
            .arg0("mcp-sandbox-launcher")
            .stdin(Stdio::from(theirs))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            socket: ours,
            child,
        }
    }

    fn say(&self, json: &str) {
        let packet = [b"\0", json.as_bytes()].concat();
        // A launcher that has ended answers with EPIPE.
        let _ = send(&self.socket, &packet, SendFlags::NOSIGNAL);
    }

    fn hear(&self) -> String {
        let mut packet = vec![0; 65_536];
        let read = rustix::io::read(self.socket.as_fd(), &mut packet).unwrap_or(0);
        String::from_utf8_lossy(&packet[..read]).into_owned()
    }

    fn configure(&self, mounts: &str) -> String {
        self.say(&format!(
            r#"{{"Configure":{{"state_dir":null,"root":"Host","mounts":{mounts},"allow_host_network":false,
            "require_tier":null,"strongest_tier":null,"owner":null,"limits":{{}},"helper":null,"setup":null}}}}"#
        ));
        self.hear()
    }

    fn ends(mut self) -> bool {
        drop(self.socket);
        for _ in 0..200 {
            if self.child.try_wait().unwrap().is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

/// Security 17: what was fixed at start is all there is.
async fn a_hostile_service_gets_nothing_that_was_not_allowed() {
    let listed = r#"[{"source":"/usr","target":"/data","access":"read_only"}]"#;
    let create = |mounts: &str, rest: &str| {
        format!(
            r#"{{"Create":{{"id":7,"workspace":null,"mounts":{mounts},"limits":{{}},"network":"none","ttl_ms":null,"setup":"None"{rest}}}}}"#
        )
    };
    let raw = Raw::start();
    assert!(raw.configure(listed).contains("Configured"));
    for asked in [
        r#"[{"source":"/","target":"/data","access":"read_only"}]"#,
        r#"[{"source":"/usr","target":"/data","access":"read_write"}]"#,
        r#"[{"source":"/usr","target":"/usr","access":"read_only"}]"#,
        r#"[{"source":"/usr/../etc","target":"/data","access":"read_only"}]"#,
    ] {
        raw.say(&create(asked, ""));
        let answer = raw.hear();
        assert!(
            answer.contains("Refused") && answer.contains("Forbidden"),
            "{asked}: {answer}"
        );
    }
    raw.say(&create(listed, "").replace("\"none\"", "\"host\""));
    assert!(raw.hear().contains("Forbidden"));
    raw.say(&create("[]", "").replace("null,\"mounts\"", "\"named\",\"mounts\""));
    assert!(raw.hear().contains("Forbidden"));
    raw.say(&create(listed, ""));
    assert!(raw.hear().contains("Created"));
    assert!(raw.ends());
    // Nonsense ends the launcher, and with it everything.
    for nonsense in [
        "{".to_owned(),
        "\"Configure\"".to_owned(),
        create("[]", "").replace("null,\"mounts\"", "\"../x\",\"mounts\""),
        r#"{"Configure":{"root":"Host"}}"#.to_owned(),
        r#"{"Exec":{"argv":["sh"]}}"#.to_owned(),
    ] {
        let raw = Raw::start();
        assert!(raw.configure("[]").contains("Configured"));
        raw.say(&nonsense);
        assert_eq!(raw.hear(), "", "{nonsense}");
        assert!(raw.ends());
    }
    let raw = Raw::start();
    assert!(raw.configure("[]").contains("Configured"));
    raw.say(
        r#"{"Configure":{"state_dir":null,"root":"Host","mounts":[],"allow_host_network":true,
        "require_tier":null,"strongest_tier":null,"owner":null,"limits":{},"helper":null,"setup":null}}"#,
    );
    assert_eq!(raw.hear(), "", "configured twice");
}

/// Security 17: the process that would hold the network connection.
async fn the_service_is_not_root() {
    if !root() {
        return;
    }
    let mut service = Process::new(env::current_exe().unwrap())
        .env(SERVICE, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    service
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert!(service.wait().unwrap().success(), "{said}");
    assert_eq!(said, "agent\n");
}

/// Plays the service: gives up root in every thread, and still has sandboxes.
fn service_without_root() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        let config = Config::new();
        let executor = LinuxExecutor::start(config.clone()).await.unwrap();
        assert!(drop_privileges(&config).unwrap());
        assert!(!rustix::process::geteuid().is_root());
        assert!(rustix::process::getgroups().unwrap().is_empty());
        let other = tokio::task::spawn_blocking(|| {
            assert!(!rustix::process::geteuid().is_root());
            fs::read("/etc/shadow").is_err() && fs::write("/etc/canary", "").is_err()
        });
        assert!(other.await.unwrap());
        let root = rustix::process::Uid::ROOT;
        assert!(rustix::thread::set_thread_res_uid(root, root, root).is_err());
        let launcher = rustix::process::Pid::from_raw(executor.launcher_pid()).unwrap();
        assert!(rustix::process::kill_process(launcher, rustix::process::Signal::TERM).is_err());
        assert!(fs::read(format!("/proc/{}/environ", launcher.as_raw_nonzero())).is_err());
        let sandbox = executor.create(SandboxSpec::new()).await.unwrap();
        println!("{}", output(&*sandbox, "id -un").await);
        sandbox.destroy().await.unwrap();
    });
}

/// Security 18.
async fn ranges_of_ids_are_apart() {
    if !root() {
        return;
    }
    let (one, two) = (
        LinuxExecutor::start(Config::new()).await.unwrap(),
        LinuxExecutor::start(Config::new()).await.unwrap(),
    );
    let mut bases = Vec::new();
    let mut kept = Vec::new();
    for executor in [&one, &one, &two, &two] {
        let sandbox = executor.create(SandboxSpec::new()).await.unwrap();
        let map = output(&*sandbox, "cat /proc/self/uid_map").await;
        let fields = map
            .split_whitespace()
            .map(|n| n.parse::<u64>().unwrap())
            .collect::<Vec<_>>();
        assert_eq!((fields[0], fields[2]), (0, 65_536), "{map}");
        assert!(fields[1] >= 65_536, "{map}");
        bases.push(fields[1]);
        // The first process is somebody else than its commands.
        let ids = output(
            &*sandbox,
            "stat -c %u /proc/1; grep ^Uid: /proc/self/status | cut -f2",
        )
        .await;
        let ids = ids.lines().collect::<Vec<_>>();
        assert_ne!(ids[0], ids[1]);
        kept.push(sandbox);
    }
    bases.sort_unstable();
    assert!(
        bases.windows(2).all(|pair| pair[1] - pair[0] >= 65_536),
        "{bases:?}"
    );
}

/// Security 19: judged on the host's side of a workspace.
async fn no_set_id_file_reaches_the_host() {
    let state = tempfile::tempdir().unwrap();
    let executor = LinuxExecutor::start(Config::new().with_state_dir(state.path()).unwrap())
        .await
        .unwrap();
    let name = WorkspaceName::parse("set-id").unwrap();
    let spec = SandboxSpec::new().with_workspace(Workspace::Named(name.clone()));
    let sandbox = executor.create(spec).await.unwrap();
    let script = "cp /bin/sh sh; for m in 4755 2755 6755 u+s g+s; do chmod $m sh 2>/dev/null && ls -l sh; done; \
        mkdir d; chmod g+s d 2>/dev/null; install -m 6755 /bin/sh sh2 2>/dev/null; \
        python3 -c 'import os; os.close(os.open(\"py\", os.O_CREAT|os.O_WRONLY, 0o6755))' 2>/dev/null; \
        perl -e 'use Fcntl; sysopen(F, \"pl\", O_CREAT|O_WRONLY, 06755)' 2>/dev/null; echo done";
    assert!(output(&*sandbox, script).await.ends_with("done"));
    sandbox.destroy().await.unwrap();
    let folder = state.path().join("workspaces/set-id");
    let mut seen = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let meta = entry.unwrap().metadata().unwrap();
        assert_eq!(meta.mode() & 0o6000, 0);
        assert!(
            !rustix::process::geteuid().is_root() || meta.uid() != 0,
            "a file of root"
        );
        seen += 1;
    }
    assert!(seen >= 2, "the control: ordinary files do appear");
    executor.delete_workspace(&name).await.unwrap();
    assert!(!folder.exists());
}

/// Security 20.
async fn a_source_swapped_for_a_link_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().canonicalize().unwrap();
    let sub = base.join("sub");
    fs::create_dir(&sub).unwrap();
    fs::write(sub.join("mark"), "first").unwrap();
    let mount = Mount::read_only(sub.to_str().unwrap(), "/data");
    let config = Config::new().with_mount(mount.clone()).unwrap();
    let executor = LinuxExecutor::start(config.clone()).await.unwrap();
    // What a session with the parent mounted could do between two sandboxes.
    fs::rename(&sub, base.join("moved")).unwrap();
    symlink("/etc", &sub).unwrap();
    let sandbox = executor
        .create(SandboxSpec::new().with_mount(mount))
        .await
        .unwrap();
    assert_eq!(
        output(&*sandbox, "cat /data/mark; ls /data").await,
        "firstmark"
    );
    let again = LinuxExecutor::start(config).await.unwrap_err();
    let StartError::NotPossible { reasons } = again else {
        panic!("{again:?}")
    };
    assert!(
        reasons.iter().all(|r| r.contains("without following links")
            || r.starts_with("T1: not")
            || r.starts_with("T3")),
        "{reasons:?}"
    );
    workspace_swapped_for_a_link(&base).await;
}

async fn workspace_swapped_for_a_link(base: &Path) {
    let state = base.join("state");
    fs::create_dir_all(state.join("workspaces")).unwrap();
    symlink("/etc", state.join("workspaces/evil")).unwrap();
    let executor = LinuxExecutor::start(Config::new().with_state_dir(&state).unwrap())
        .await
        .unwrap();
    let name = WorkspaceName::parse("evil").unwrap();
    let spec = SandboxSpec::new().with_workspace(Workspace::Named(name.clone()));
    assert!(executor.create(spec).await.is_err());
    assert!(executor.delete_workspace(&name).await.is_err());
    assert!(Path::new("/etc/passwd").exists());
}

async fn a_setup_script_runs_once_and_is_read_only_afterwards() {
    let state = tempfile::tempdir().unwrap();
    let config = || Config::new().with_state_dir(state.path()).unwrap();
    let script = "mkdir bin; printf '#!/bin/sh\\necho tool\\n' > bin/tool; chmod +x bin/tool; date +%N > when";
    let mut seen = Vec::new();
    for _ in 0..2 {
        let executor = LinuxExecutor::start(config().with_setup(script))
            .await
            .unwrap();
        for _ in 0..2 {
            let sandbox = executor.create(SandboxSpec::new()).await.unwrap();
            let text = output(
                &*sandbox,
                "tool; cat /setup/when; (echo x > /setup/when) 2>&1; touch /setup/bin/y 2>&1",
            )
            .await;
            assert!(text.starts_with("tool\n"), "{text}");
            assert_eq!(text.matches("Read-only").count(), 2, "{text}");
            seen.push(text);
        }
    }
    seen.dedup();
    assert_eq!(seen.len(), 1, "it ran once: {seen:?}");
    // Another script is another setup; one that fails leaves nothing and says why.
    let executor = LinuxExecutor::start(config().with_setup("echo oops; false"))
        .await
        .unwrap();
    let error = executor
        .create(SandboxSpec::new())
        .await
        .map(drop)
        .unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        source.contains("oops") && source.contains("Code(1)"),
        "{source}"
    );
    assert_eq!(fs::read_dir(state.path().join("setup")).unwrap().count(), 1);
    let without = LinuxExecutor::start(Config::new().with_setup("true"))
        .await
        .unwrap();
    assert!(without.create(SandboxSpec::new()).await.is_err());
}

/// Security 21: Landlock's TCP rules let UDP, MPTCP and Fast Open past.
async fn without_namespaces_there_are_no_internet_sockets() {
    let weak = Config::new().dangerous_strongest_tier(Tier::T3);
    let executor = match LinuxExecutor::start(weak.clone()).await {
        Ok(executor) => executor,
        Err(error) => return println!("SKIPPED: {error}"),
    };
    assert_eq!(executor.report().tier, Tier::T3);
    let sandbox = executor.create(SandboxSpec::new()).await.unwrap();
    let script = "python3 -c '
import socket
for family in (2, 10, 1, 40):
    for kind, protocol in ((1, 0), (2, 0), (1, 262), (3, 1)):
        try:
            socket.socket(family, kind, protocol)
            print(\"made\", family, kind, protocol)
        except OSError:
            pass
socket.socketpair()
print(\"done\")'";
    assert_eq!(output(&*sandbox, script).await, "done");
    let spec = SandboxSpec::new().with_network(mcp_sandbox_executor::Network::Host);
    assert!(executor.create(spec.clone()).await.is_err());
    let executor = LinuxExecutor::start(weak.dangerous_host_network())
        .await
        .unwrap();
    let open = executor.create(spec).await.unwrap();
    let made = output(
        &*open,
        "python3 -c 'import socket; socket.socket(2, 2)' && echo made",
    )
    .await;
    assert_eq!(made, "made");
    let layers = &open.info().layers;
    assert!(
        layers
            .iter()
            .any(|layer| layer.name == "network" && layer.state == LayerState::Absent)
    );
}

/// Security 23.
async fn limits_that_do_not_bind_are_not_called_hard() {
    let executor = LinuxExecutor::start(Config::new()).await.unwrap();
    let limits = executor.capabilities().limits;
    assert_ne!(limits.workspace_disk, Enforcement::Hard);
    let report = executor.report();
    let layer = report
        .layers
        .iter()
        .find(|layer| layer.name == "limits")
        .unwrap();
    assert_eq!(
        layer.state == LayerState::InForce,
        limits.memory == Enforcement::Hard
    );
}

async fn a_required_tier_is_a_hard_error() {
    let weak = Config::new().dangerous_strongest_tier(Tier::T2);
    let executor = LinuxExecutor::start(weak.clone()).await.unwrap();
    let report = executor.report();
    assert_eq!(report.tier, Tier::T2);
    assert!(!report.fell.is_empty(), "why it is not T1");
    let error = LinuxExecutor::start(weak.require_tier(Tier::T1))
        .await
        .unwrap_err();
    let StartError::NotPossible { reasons } = error else {
        panic!("{error:?}")
    };
    assert!(
        reasons.iter().any(|reason| reason == "T1 is required"),
        "{reasons:?}"
    );
}

async fn the_host_network_is_given_only_when_allowed() {
    let config = Config::new().dangerous_host_network();
    let executor = LinuxExecutor::start(config).await.unwrap();
    let interfaces = "cut -d: -f1 /proc/self/net/dev | tail -n +3 | tr -d ' \\n'";
    let plain = executor.create(SandboxSpec::new()).await.unwrap();
    assert!(output(&*plain, interfaces).await.starts_with("lo"));
    let spec = SandboxSpec::new().with_network(mcp_sandbox_executor::Network::Host);
    let open = executor.create(spec).await.unwrap();
    let host = fs::read_to_string("/proc/net/dev").unwrap();
    let seen = output(&*open, "cat /proc/self/net/dev | wc -l").await;
    assert_eq!(seen.trim(), host.lines().count().to_string());
    // Raw sockets, vsock and the host's own abstract sockets stay out of reach.
    let probe = "python3 -c 'import socket; socket.socket(40, 1)' 2>&1 | tail -1";
    assert!(
        output(&*open, probe)
            .await
            .contains("Address family not supported")
    );
}

/// The place of egress by policy, and the only ties of a sandbox to the outside.
async fn init_holds_two_sockets_and_commands_neither() {
    if !root() {
        return;
    }
    let executor = LinuxExecutor::start(Config::new()).await.unwrap();
    let sandbox = executor.create(SandboxSpec::new()).await.unwrap();
    let children = format!("/proc/{0}/task/{0}/children", executor.launcher_pid());
    let init = fs::read_to_string(children).unwrap();
    let open = fs::read_dir(format!("/proc/{}/fd", init.trim())).unwrap();
    let links = open.map(|entry| fs::read_link(entry.unwrap().path()).unwrap());
    let links = links.map(|link| link.to_string_lossy().into_owned());
    let links = links.collect::<Vec<_>>();
    let sockets = links.iter().filter(|link| link.starts_with("socket:"));
    assert_eq!(sockets.count(), 2, "{links:?}");
    let nulls = links.iter().filter(|link| link.ends_with("/dev/null"));
    assert_eq!(nulls.count(), 3, "{links:?}");
    // Those, what makes the kernel prefer commands, and the signals of children.
    assert!(links.len() <= 7, "{links:?}");
    let seen = output(
        &*sandbox,
        "ls -l /proc/self/fd /proc/$$/fd | grep -c socket:",
    )
    .await;
    assert_eq!(seen, "0");
}
