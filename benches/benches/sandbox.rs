//! Sandboxes beside fork and exec, bubblewrap and `docker run`: medians of one run.
//!
//! As root it measures itself again as an ordinary user.
#![expect(clippy::print_stdout, reason = "a program that prints a table")]

use std::env;
use std::fs;
use std::future::Future;
use std::os::unix::process::CommandExt as _;
use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use mcp_sandbox_executor::{Command, Executor as _, FileHelper, Sandbox, SandboxSpec};
use mcp_sandbox_linux::{Config, LinuxExecutor};
use mcp_sandbox_tools::Toolset;
use serde_json::json;
use tokio::task::JoinSet;

const ROUNDS: usize = 200;
const USER: u32 = 60_124;
const AS_USER: &str = "BENCH_AS_USER";

fn main() -> Result<()> {
    mcp_sandbox_linux::enter_helper();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let as_user = env::var_os(AS_USER).is_some();
    if !as_user {
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        println!("load {}", load.trim());
        peers();
    }
    runtime.block_on(sandbox())?;
    if !as_user && is_root() {
        let copy = env::temp_dir().join("bench-sandbox");
        fs::copy(env::current_exe()?, &copy)?;
        let status = Process::new(&copy)
            .env(AS_USER, "1")
            .uid(USER)
            .gid(USER)
            .current_dir("/")
            .status()?;
        fs::remove_file(&copy)?;
        anyhow::ensure!(status.success(), "the run as a user");
    }
    Ok(())
}

fn is_root() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|s| s.contains("\nUid:\t0\t"))
}

/// What others take to run `/bin/true` once.
fn peers() {
    let bwrap = [
        "bwrap",
        "--unshare-all",
        "--ro-bind",
        "/",
        "/",
        "--dev",
        "/dev",
        "--proc",
        "/proc",
        "--tmpfs",
        "/tmp",
        "--die-with-parent",
        "--new-session",
        "/bin/true",
    ];
    let docker = ["docker", "run", "--rm", "--network=none", "bb", "/bin/true"];
    for (name, argv, rounds) in [
        ("fork+exec /bin/true", &["/bin/true"][..], ROUNDS),
        ("bwrap --unshare-all …", &bwrap[..], ROUNDS),
        ("docker run --rm", &docker[..], 5),
    ] {
        let mut times = Vec::new();
        for _ in 0..rounds {
            let started = Instant::now();
            let quiet = Process::new(argv[0])
                .args(&argv[1..])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            if !quiet.is_ok_and(|status| status.success()) {
                break;
            }
            times.push(started.elapsed());
        }
        print(name, times);
    }
}

async fn sandbox() -> Result<()> {
    let executor = LinuxExecutor::start(Config::new()).await?;
    println!("-- {}", executor.report().tier);
    let (mut create, mut destroy) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (sandbox, took) = timed(executor.create(SandboxSpec::new())).await;
        create.push(took);
        let (destroyed, took) = timed(sandbox?.destroy()).await;
        destroyed?;
        destroy.push(took);
    }
    print("create", create);
    print("destroy", destroy);

    let sandbox: Arc<dyn Sandbox> = executor.create(SandboxSpec::new()).await?.into();
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let (ran, took) = timed(run(&*sandbox, "/bin/true")).await;
        ran?;
        times.push(took);
    }
    print("exec /bin/true in a live one", times);

    let tools = Toolset::new(Arc::clone(&sandbox), FileHelper::BuiltIn);
    for (name, tool, input) in [
        ("bash tool, builtin", "bash", json!({"command": ":"})),
        ("read tool", "read", json!({"file_path": "f"})),
    ] {
        tools
            .call("write", &json!({"file_path": "f", "content": "x"}))
            .await?;
        tools.call(tool, &input).await?;
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            // An agent thinks between two calls.
            tokio::time::sleep(Duration::from_millis(5)).await;
            let (answer, took) = timed(tools.call(tool, &input)).await;
            answer?;
            times.push(took);
        }
        print(name, times);
    }

    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..50 {
        let executor = executor.clone();
        tasks.spawn(async move { executor.create(SandboxSpec::new()).await });
    }
    let fifty = tasks
        .join_all()
        .await
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    println!(
        "{:<32} {:>8.2} ms in all",
        "50 creates at once",
        millis(started.elapsed())
    );
    memory(executor.launcher_pid())?;
    for sandbox in fifty {
        sandbox.destroy().await?;
    }
    Ok(())
}

async fn run(sandbox: &dyn Sandbox, program: &str) -> Result<()> {
    let mut process = sandbox.exec(Command::new([program])).await?;
    while process.next_event().await?.is_some() {}
    Ok(())
}

/// Proportional memory of idle inits.
fn memory(launcher: i32) -> Result<()> {
    let mut sizes = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(1));
        if parent == Some(&launcher.to_string()) {
            let rollup = fs::read_to_string(entry.path().join("smaps_rollup")).unwrap_or_default();
            let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
            sizes.extend(
                pss.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok()),
            );
        }
    }
    sizes.sort_unstable();
    match sizes.get(sizes.len() / 2) {
        Some(median) => println!("{:<32} {median:>8} KiB Pss", "idle sandbox"),
        None => println!("{:<32} not readable by this user", "idle sandbox"),
    }
    Ok(())
}

async fn timed<T>(future: impl Future<Output = T>) -> (T, Duration) {
    let started = Instant::now();
    let output = future.await;
    (output, started.elapsed())
}

fn print(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    match (
        times.first(),
        times.get(times.len() / 2),
        times.get(times.len() * 95 / 100),
    ) {
        (Some(min), Some(p50), Some(p95)) => println!(
            "{name:<32} {:>8.2} ms p50 {:>8.2} p95 {:>8.2} min",
            millis(*p50),
            millis(*p95),
            millis(*min)
        ),
        _ => println!("{name:<32} not available here"),
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
