//! The suite on a foreign root file system: a busybox tree, made here.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test with a main of its own"
)]

#[path = "support/holdings.rs"]
mod holdings;
#[path = "support/layout.rs"]
mod layout;
mod support;
#[path = "support/user.rs"]
mod user;

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use mcp_sandbox_conformance::{LocalHost, Suite};
use mcp_sandbox_executor::{Command, Executor as _, ProcessEvent, SandboxSpec};
use mcp_sandbox_linux::{Config, LinuxExecutor, StartError, Tier};

fn main() {
    mcp_sandbox_linux::enter_helper();
    if user::is_second_run() {
        return support::main(support::cases![
            an_image_is_unpacked_once_and_is_the_root,
            a_damaged_image_is_refused_and_leaves_nothing,
        ]);
    }
    let _alone = holdings::alone();
    support::main(support::cases![
        an_image_is_unpacked_once_and_is_the_root,
        a_damaged_image_is_refused_and_leaves_nothing,
        and_as_an_ordinary_user,
        the_suite_passes_on_a_busybox_tree,
        a_root_that_is_no_folder_is_refused,
    ]);
}

async fn the_suite_passes_on_a_busybox_tree() {
    let Some(busybox) = static_busybox() else {
        assert!(
            env::var_os("CI_REQUIRE_ALL").is_none(),
            "busybox-static is not installed"
        );
        return println!("SKIPPED: busybox-static is not installed");
    };
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    plant(&busybox, &tree);
    let mut config = Config::new().with_root_folder(&tree).unwrap();
    // The static program, whose launcher and init then make the sandboxes.
    if let Some(helper) = env::var_os("SANDBOX_HELPER") {
        config = config.with_helper(helper);
    }
    // Without namespaces there is no root of one's own.
    let executor = match LinuxExecutor::start(config).await {
        Ok(executor) if executor.report().tier < Tier::T3 => executor,
        other => return println!("SKIPPED: needs namespaces: {other:?}"),
    };
    let sandbox = executor.create(SandboxSpec::new()).await.unwrap();
    let script = "cat /etc/mark; ls /usr 2>&1; head -c 4 /bin/sh | tail -c 3";
    let mut process = sandbox
        .exec(Command::new(["sh", "-c", script]))
        .await
        .unwrap();
    let mut text = String::new();
    while let Some(event) = process.next_event().await.unwrap() {
        if let ProcessEvent::Stdout(bytes) = event {
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    assert!(
        text.starts_with("foreign\n") && text.contains("No such file") && text.ends_with("ELF"),
        "{text}"
    );
    sandbox.destroy().await.unwrap();
    let host = LocalHost::start()
        .unwrap()
        .with_holdings(holdings::holdings);
    let outcome = Suite::new(&executor).with_host(&host).run().await;
    println!("{outcome}");
    assert!(outcome.passed());
    // There is no python3 in the tree, so that attempts by single system calls are left out.
    let functional = |id: &str| matches!(id.chars().next(), Some('C' | 'D' | 'S'));
    let skipped = outcome
        .skipped()
        .filter(|case| functional(case.id))
        .map(|case| case.id);
    let expect: &[&str] = if executor.capabilities().persistence.suspend {
        &["S06"]
    } else {
        &["S05", "S06"]
    };
    assert_eq!(
        skipped.collect::<Vec<_>>(),
        expect,
        "no state directory here, hence S06"
    );
}

async fn and_as_an_ordinary_user() {
    user::run_again(None);
}

/// What a command prints in a sandbox of this executor.
async fn output(executor: &LinuxExecutor, script: &str) -> String {
    let sandbox = executor.create(SandboxSpec::new()).await.unwrap();
    let command = Command::new(["sh", "-c", script]);
    let mut process = sandbox.exec(command).await.unwrap();
    let mut text = String::new();
    while let Some(event) = process.next_event().await.unwrap() {
        if let ProcessEvent::Stdout(bytes) | ProcessEvent::Stderr(bytes) = event {
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    sandbox.destroy().await.unwrap();
    text
}

fn state_dir() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let state = tempfile::tempdir().unwrap();
    fs::set_permissions(state.path(), fs::Permissions::from_mode(0o711)).unwrap();
    state
}

async fn an_image_is_unpacked_once_and_is_the_root() {
    let Some(busybox) = static_busybox() else {
        return println!("SKIPPED: busybox-static is not installed");
    };
    let (image, state) = (layout::Layout::of_busybox(&busybox), state_dir());
    let config = || {
        let config = Config::new().with_state_dir(state.path()).unwrap();
        config.with_root_folder(image.path()).unwrap()
    };
    let executor = match LinuxExecutor::start(config()).await {
        Ok(executor) => executor,
        Err(error) => return println!("SKIPPED: {error}"),
    };
    let script = "cat /etc/mark /etc/lower; ls /etc/gone /usr 2>&1; stat -c %a /bin/busybox /etc/mark; touch /etc/x; readlink /bin/sh";
    let text = output(&executor, script).await;
    assert!(text.starts_with("upper\nlower\n"), "{text}");
    assert_eq!(text.matches("No such file").count(), 2, "{text}");
    assert!(text.contains("\n755\n644\n"), "setuid is not kept: {text}");
    assert!(text.contains("Read-only"), "{text}");
    drop(executor);
    // Kept by its digest: the layers are not read again.
    image.remove_layers();
    let again = LinuxExecutor::start(config()).await.unwrap();
    assert_eq!(output(&again, "cat /etc/mark").await, "upper\n");
    let kept = fs::read_dir(state.path().join("setup")).unwrap();
    let kept = kept.map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    assert_eq!(kept.len(), 1, "{kept:?}");
    use std::os::unix::fs::MetadataExt as _;
    let owner = fs::metadata(kept[0].join("bin/busybox")).unwrap().uid();
    assert_ne!(owner, 0, "a file of root came out of an image");
}

async fn a_damaged_image_is_refused_and_leaves_nothing() {
    let Some(busybox) = static_busybox() else {
        return println!("SKIPPED: busybox-static is not installed");
    };
    for damage in layout::DAMAGES {
        let (image, state) = (layout::Layout::of_busybox(&busybox), state_dir());
        damage(&image);
        let config = Config::new().with_state_dir(state.path()).unwrap();
        let config = config.with_root_folder(image.path()).unwrap();
        let error = LinuxExecutor::start(config).await.unwrap_err();
        println!("{error}");
        let StartError::Image(_) = error else {
            panic!("{error:?}")
        };
        let left = fs::read_dir(state.path().join("setup"));
        assert_eq!(left.map_or(0, Iterator::count), 0);
        assert!(!state.path().join("outside").exists());
    }
    let image = layout::Layout::of_busybox(&busybox);
    let homeless = Config::new().with_root_folder(image.path()).unwrap();
    assert!(LinuxExecutor::start(homeless).await.is_err());
}

async fn a_root_that_is_no_folder_is_refused() {
    assert!(Config::new().with_root_folder("/etc/passwd").is_err());
    assert!(Config::new().with_root_folder("/no/such/place").is_err());
}

/// A busybox that needs no library.
fn static_busybox() -> Option<PathBuf> {
    let found = ["/bin/busybox", "/usr/bin/busybox"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.exists())?;
    let linked = Process::new("ldd")
        .arg(&found)
        .output()
        .is_ok_and(|output| output.status.success());
    (!linked).then_some(found)
}

fn plant(busybox: &Path, tree: &Path) {
    fs::create_dir_all(tree.join("bin")).unwrap();
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::copy(busybox, tree.join("bin/busybox")).unwrap();
    let list = Process::new(busybox).arg("--list").output().unwrap();
    for applet in String::from_utf8(list.stdout)
        .unwrap()
        .lines()
        .filter(|name| *name != "busybox")
    {
        symlink("busybox", tree.join("bin").join(applet)).unwrap();
    }
    fs::write(tree.join("etc/mark"), "foreign\n").unwrap();
    fs::write(
        tree.join("etc/passwd"),
        "agent:x:1000:1000::/home/agent:/bin/sh\n",
    )
    .unwrap();
}
