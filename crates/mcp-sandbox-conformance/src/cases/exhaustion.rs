//! Using things up, and not going away.

use std::time::Duration;

use mcp_sandbox_executor::{Command, Enforcement, Exit, KillReason, Limits};

use super::commands::finish;
use crate::case::{Case, Context, Result, cases, ensure, run, sh, still_usable};
use crate::probe::{attempt_in, control, python};

pub(crate) const CASES: &[Case] = cases![true;
    "R01" "the number of processes is limited, and the sandbox recovers" processes;
    "R02" "memory is limited: the eater dies and that is said" memory;
    "R03" "processor time is limited" processor;
    "R04" "space on its own file systems is limited" disk;
    "R05" "the number of files on them is limited" inodes;
    "R09" "open files are limited" open_files;
    "R10" "a flood of output is cut and does not stop the command" flood;
    "R11" "a daemon that hides does not outlive the sandbox" daemon;
    "R16" "orphans are reaped" zombies;
];

async fn processes(context: &Context<'_>) -> Result {
    hard(
        context,
        context.capabilities.limits.processes,
        "limit on processes",
    )?;
    let mut limits = Limits::default();
    limits.processes = Some(48);
    let sandbox = context
        .sandbox_of(crate::spec().with_limits(limits))
        .await?;
    let got = attempt_in(&*sandbox, "forks", &["200"]).await?.text();
    ensure!(got.starts_with("held"), "{got}");
    let bomb = Command::new(["sh", "-c", "bomb() { bomb | bomb & }; bomb; sleep 1"])
        .with_timeout(Duration::from_secs(2));
    let bombed = run(&*sandbox, bomb).await?;
    ensure!(bombed.took < Duration::from_secs(4), "{bombed:?}");
    finish(sandbox).await?;
    Ok(control(context, "forks", &["200"], |said| {
        said == "open 200"
    }))
}

async fn memory(context: &Context<'_>) -> Result {
    hard(
        context,
        context.capabilities.limits.memory,
        "hard limit on memory",
    )?;
    let mut limits = Limits::default();
    limits.memory_bytes = Some(64 << 20);
    let sandbox = context
        .sandbox_of(crate::spec().with_limits(limits))
        .await?;
    let eat = "import sys\nx=[]\nwhile len(x)<300: x.append(bytearray(1<<20))\nprint('open')";
    let got = python(&*sandbox, Command::new(["python3", "-c", eat])).await?;
    ensure!(
        got.exit == Exit::Killed(KillReason::OutOfMemory),
        "{:?} {}",
        got.exit,
        got.text()
    );
    let shm = sh(&*sandbox, "head -c 200M /dev/zero > /dev/shm/x; echo $?").await?;
    ensure!(shm.text() != "0", "200 MiB of shared memory were had");
    still_usable(&*sandbox).await?;
    finish(sandbox).await
}

async fn processor(context: &Context<'_>) -> Result {
    hard(
        context,
        context.capabilities.limits.cpu,
        "limit on processor time",
    )?;
    let mut limits = Limits::default();
    limits.cpu_millis = Some(300);
    let sandbox = context
        .sandbox_of(crate::spec().with_limits(limits))
        .await?;
    let got = attempt_in(&*sandbox, "spin", &["1"]).await?.text();
    let used = got.parse::<f64>().unwrap_or(f64::MAX);
    ensure!(used < 0.75, "0.3 processors for a second gave {used} s");
    finish(sandbox).await?;
    Ok(control(context, "spin", &["0.5"], |said| {
        said.parse::<f64>().is_ok_and(|used| used > 0.3)
    }))
}

async fn disk(context: &Context<'_>) -> Result {
    hard(context, context.capabilities.limits.disk, "limit on space")?;
    let mut limits = Limits::default();
    limits.disk_bytes = Some(8 << 20);
    let sandbox = context
        .sandbox_of(crate::spec().with_limits(limits))
        .await?;
    for dir in [
        sandbox.info().temp_dir.clone(),
        sandbox.info().working_dir.clone(),
        "/dev/shm".to_owned(),
    ] {
        let got = attempt_in(&*sandbox, "fill", &[&format!("{dir}/fill"), "50000000"])
            .await?
            .text();
        ensure!(got.starts_with("held"), "{dir}: {got}");
    }
    finish(sandbox).await
}

async fn inodes(context: &Context<'_>) -> Result {
    hard(context, context.capabilities.limits.disk, "limit on files")?;
    let mut limits = Limits::default();
    limits.inodes = Some(200);
    let sandbox = context
        .sandbox_of(crate::spec().with_limits(limits))
        .await?;
    let path = format!("{}/many", sandbox.info().temp_dir);
    let got = attempt_in(&*sandbox, "many", &[&path, "1000"])
        .await?
        .text();
    ensure!(got.starts_with("held"), "{got}");
    finish(sandbox).await
}

async fn open_files(context: &Context<'_>) -> Result {
    let mut limits = Limits::default();
    limits.open_files = Some(64);
    let sandbox = context
        .sandbox_of(crate::spec().with_limits(limits))
        .await?;
    let got = sh(
        &*sandbox,
        "ulimit -n; ulimit -Hn; ulimit -n 100 2>/dev/null && echo raised",
    )
    .await?
    .text();
    finish(sandbox).await?;
    if got.starts_with("64\n64") {
        ensure!(!got.contains("raised"), "{got}");
        return Ok(None);
    }
    Err(crate::case::Stop::Skip(crate::lacks(
        "limit on open files",
        &context.capabilities,
    )))
}

async fn flood(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    let script = "head -c 50000000 /dev/zero; head -c 50000000 /dev/zero >&2; exit 9";
    let command = Command::new(["sh", "-c", script]).with_output_bytes(100_000);
    let got = run(&*sandbox, command).await?;
    let kept = got.stdout.len() + got.stderr.len();
    ensure!(
        got.truncated && kept == 100_000,
        "{kept} bytes, truncated: {}",
        got.truncated
    );
    ensure!(got.exit == Exit::Code(9), "{:?}", got.exit);
    let endless = Command::new(["yes"])
        .with_output_bytes(1000)
        .with_timeout(Duration::from_millis(500));
    let got = run(&*sandbox, endless).await?;
    ensure!(
        got.exit == Exit::Killed(KillReason::Timeout) && got.truncated,
        "{:?}",
        got.exit
    );
    finish(sandbox).await
}

async fn daemon(context: &Context<'_>) -> Result {
    let host = context.host()?;
    let sandbox = context.sandbox().await?;
    let script = "(setsid sh -c '(trap \"\" TERM HUP INT; sleep 731.5) >/dev/null 2>&1 </dev/null &' &); sleep 0.1; echo up";
    let got = sh(&*sandbox, script).await?;
    ensure!(got.text() == "up", "{got:?}");
    ensure!(
        host.runs("731.5") == Some(true),
        "the host view does not see the daemon"
    );
    sandbox.destroy().await?;
    ensure!(
        host.runs("731.5") == Some(false),
        "the daemon survived the sandbox"
    );
    Ok(None)
}

async fn zombies(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    context.need_proc(&*sandbox).await?;
    let got = attempt_in(&*sandbox, "zombies", &["100"]).await?.text();
    ensure!(got.starts_with("held"), "{got} zombies");
    finish(sandbox).await
}

fn hard(context: &Context<'_>, enforcement: Enforcement, what: &str) -> Result<()> {
    context.need(enforcement == Enforcement::Hard, what)
}
