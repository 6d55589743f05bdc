//! What a command could learn, and what one sandbox could learn of another.

use mcp_sandbox_executor::{Command, Isolation, ProcessEvent};

use super::commands::finish;
use crate::case::{Case, Context, Result, Stop, cases, ensure, sh};
use crate::probe::attempt_in;

pub(crate) const CASES: &[Case] = cases![true;
    "L01" "no variable of the host's environment is visible" environment;
    "L02" "only the sandbox's own processes are visible" processes;
    "L03" "files, memory and sockets of another sandbox are not visible" neighbours;
    "L04" "the host's name and paths do not show" identity;
];

async fn environment(context: &Context<'_>) -> Result {
    let names = context.host()?.secret_variables();
    let sandbox = context.sandbox().await?;
    let got = sh(
        &*sandbox,
        "env; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'",
    )
    .await?
    .text();
    let seen = got
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name);
    let leaked = seen
        .filter(|name| names.iter().any(|n| n == name))
        .collect::<Vec<_>>();
    ensure!(leaked.is_empty(), "{leaked:?}");
    finish(sandbox).await?;
    Ok(names
        .is_empty()
        .then(|| "(no control here: the host has no other variable)".to_owned()))
}

async fn processes(context: &Context<'_>) -> Result {
    let (victim, _) = context.host()?.victim().ok_or(Stop::NotObservable)?;
    let sandbox = context.sandbox().await?;
    let got = sh(
        &*sandbox,
        "ls /proc | grep '^[0-9]' | wc -l; cat /proc/[0-9]*/cmdline | tr '\\0' ' '",
    )
    .await?
    .text();
    let count = got
        .lines()
        .next()
        .and_then(|n| n.trim().parse::<u32>().ok())
        .unwrap_or(u32::MAX);
    ensure!(count < 10 && !got.contains("sleep 3600"), "{got}");
    let seen = sh(
        &*sandbox,
        &format!("test -e /proc/{victim}/status && cat /proc/{victim}/cmdline"),
    )
    .await?
    .text();
    ensure!(
        !seen.contains("3600"),
        "process {victim} of the host is visible"
    );
    finish(sandbox).await
}

async fn neighbours(context: &Context<'_>) -> Result {
    let (one, two) = (context.sandbox().await?, context.sandbox().await?);
    let temp = &one.info().temp_dir;
    sh(&*one, &format!("echo mark > {temp}/mark; echo mark > /dev/shm/mark; echo mark > mark; echo mark > ~/mark")).await?;
    let other = &two.info().temp_dir;
    let script = format!("cat {other}/mark /dev/shm/mark mark ~/mark 2>/dev/null; true");
    let got = sh(&*two, &script).await?.text();
    ensure!(got.is_empty(), "files of the other sandbox: {got}");
    // Where there is no such memory or socket at all, none is shared either.
    if attempt_in(&*one, "shm", &["make"])
        .await?
        .text()
        .starts_with("open")
    {
        let seen = attempt_in(&*two, "shm", &["find"]).await?.text();
        ensure!(
            seen.starts_with("held"),
            "the other sandbox's shared memory: {seen}"
        );
    }
    let program = include_str!("../probe.py");
    let listen = [
        "python3",
        "-c",
        program,
        "sock",
        "listen",
        "conformance-neighbour",
    ];
    let mut listener = one.exec(Command::new(listen)).await?;
    let up = listener.next_event().await?;
    if up == Some(ProcessEvent::Stdout("open\n".into())) {
        let connect = ["connect", "conformance-neighbour"];
        let own = attempt_in(&*one, "sock", &connect).await?.text();
        ensure!(
            own.starts_with("open"),
            "a sandbox cannot reach its own socket: {own}"
        );
        let seen = attempt_in(&*two, "sock", &connect).await?.text();
        ensure!(
            seen.starts_with("held"),
            "the other sandbox's socket: {seen}"
        );
    }
    drop(listener);
    two.destroy().await?;
    finish(one).await
}

async fn identity(context: &Context<'_>) -> Result {
    let host = context.host()?;
    let rules = context.capabilities.isolation == Isolation::Rules;
    context.need(!rules, "host name of its own")?;
    let name = host
        .read("/proc/sys/kernel/hostname")
        .ok_or(Stop::NotObservable)?;
    let name = String::from_utf8_lossy(&name).trim().to_owned();
    let sandbox = context.sandbox().await?;
    let got = sh(
        &*sandbox,
        "uname -n; cat /etc/hostname /etc/machine-id 2>/dev/null; cat /proc/cmdline",
    )
    .await?
    .text();
    let machine = host.read("/etc/machine-id").unwrap_or_default();
    let machine = String::from_utf8_lossy(&machine).trim().to_owned();
    ensure!(
        !got.lines()
            .any(|line| line == name || (!machine.is_empty() && line == machine)),
        "{got}"
    );
    let line = host.read("/proc/cmdline").unwrap_or_default();
    let line = String::from_utf8_lossy(&line).trim().to_owned();
    ensure!(
        line.is_empty() || !got.contains(&line),
        "the host's kernel command line shows"
    );
    finish(sandbox).await
}
