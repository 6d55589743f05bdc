//! Nothing is left: of many sandboxes, of a killed service, of a killed launcher.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test with a main of its own"
)]

#[path = "support/holdings.rs"]
mod holdings;
mod support;

use std::env;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use holdings::holdings;
use mcp_sandbox_executor::{Command, Executor as _, SandboxSpec};
use mcp_sandbox_linux::{Config, LinuxExecutor};
use tokio::task::JoinSet;

/// Set in the process that is to be killed.
const VICTIM: &str = "LEFTOVERS_VICTIM";

fn main() {
    mcp_sandbox_linux::enter_helper();
    if env::var_os(VICTIM).is_some() {
        return victim();
    }
    let _alone = holdings::alone();
    support::main(support::cases![
        a_thousand_sandboxes_leave_nothing,
        fifty_at_once_work_and_leave_nothing,
        a_dropped_create_leaves_nothing,
        a_killed_service_leaves_nothing,
        a_killed_launcher_leaves_nothing_after_the_next_start,
    ]);
}

async fn executor() -> LinuxExecutor {
    LinuxExecutor::start(Config::new()).await.unwrap()
}

/// The machine holds nothing that it did not hold before.
#[track_caller]
fn assert_nothing_beyond(before: &[String]) {
    let now = holdings();
    let left = now
        .iter()
        .filter(|line| !before.contains(line))
        .collect::<Vec<_>>();
    assert!(left.is_empty(), "left: {left:?}");
}

/// Waits until the machine holds nothing that it did not hold before.
#[track_caller]
fn assert_back_to(before: &[String]) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let now = holdings();
        let left = now
            .iter()
            .filter(|line| !before.contains(line))
            .collect::<Vec<_>>();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "left: {left:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

async fn a_thousand_sandboxes_leave_nothing() {
    let executor = executor().await;
    let before = holdings();
    let started = Instant::now();
    for i in 0..1000 {
        let sandbox = executor.create(SandboxSpec::new()).await.unwrap();
        if i % 100 == 0 {
            let mut process = sandbox
                .exec(Command::new(["sh", "-c", "(setsid sleep 751 &) ; exit 3"]))
                .await
                .unwrap();
            while process.next_event().await.unwrap().is_some() {}
        }
        sandbox.destroy().await.unwrap();
    }
    println!("1,000 created and destroyed in {:?}", started.elapsed());
    assert_nothing_beyond(&before);
    assert!(executor.list(&[]).await.unwrap().is_empty());
}

async fn fifty_at_once_work_and_leave_nothing() {
    let executor = executor().await;
    let before = holdings();
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..50 {
        let executor = executor.clone();
        tasks.spawn(async move {
            let sandbox = executor.create(SandboxSpec::new()).await.unwrap();
            let mut process = sandbox.exec(Command::new(["true"])).await.unwrap();
            while process.next_event().await.unwrap().is_some() {}
            sandbox
        });
    }
    let sandboxes = tasks.join_all().await;
    println!("50 at once in {:?}", started.elapsed());
    assert_eq!(executor.list(&[]).await.unwrap().len(), 50);
    for sandbox in sandboxes {
        sandbox.destroy().await.unwrap();
    }
    assert_nothing_beyond(&before);
}

async fn a_dropped_create_leaves_nothing() {
    let executor = executor().await;
    let before = holdings();
    for micros in [0, 100, 500, 1000, 2000, 3000, 5000] {
        let create = executor.create(SandboxSpec::new());
        let _ = tokio::time::timeout(Duration::from_micros(micros), create).await;
        let sandbox = executor.create(SandboxSpec::new()).await.unwrap();
        sandbox.destroy().await.unwrap();
    }
    // One that came into being while its future was dropped stays until its handle is: none is.
    for info in executor.list(&[]).await.unwrap() {
        executor
            .attach(&info.id)
            .await
            .unwrap()
            .destroy()
            .await
            .unwrap();
    }
    assert_back_to(&before);
}

/// Makes sandboxes for ever, with daemons in them, and says when the first is up.
fn victim() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        let executor = executor().await;
        let mut kept = Vec::new();
        for round in 0.. {
            let sandbox = executor.create(SandboxSpec::new()).await.unwrap();
            let script = "trap '' TERM; (setsid sh -c 'sleep 752' &) ; sleep 753";
            let process = sandbox
                .exec(Command::new(["sh", "-c", script]))
                .await
                .unwrap();
            kept.push((sandbox, process));
            if round == 5 {
                println!("{}", executor.launcher_pid());
            }
            if kept.len() > 20 {
                let (sandbox, process) = kept.remove(0);
                drop(process);
                sandbox.destroy().await.unwrap();
            }
        }
    });
}

fn start_victim() -> (Child, i32) {
    let mut child = Process::new(env::current_exe().unwrap())
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    (child, line.trim().parse().unwrap())
}

async fn a_killed_service_leaves_nothing() {
    let before = holdings();
    for wait in [0, 3, 11] {
        let (mut child, _) = start_victim();
        assert!(holdings().len() > before.len());
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_back_to(&before);
    }
}

async fn a_killed_launcher_leaves_nothing_after_the_next_start() {
    let before = holdings();
    let (mut child, launcher) = start_victim();
    child.kill().unwrap();
    let launcher = rustix::process::Pid::from_raw(launcher).unwrap();
    let _ = rustix::process::kill_process(launcher, rustix::process::Signal::KILL);
    child.wait().unwrap();
    // Processes and mounts go by themselves; groups are removed by whoever starts next.
    let executor = executor().await;
    drop(executor);
    assert_back_to(&before);
}
