//! Escapes by privilege and by the kernel's surface.

use mcp_sandbox_executor::SandboxError;

use super::commands::finish;
use crate::case::{Case, Context, Result, Stop, cases, ensure, sh};
use crate::probe::{attempt, attempt_in};

pub(crate) const CASES: &[Case] = cases![true;
    "P01" "no new privileges can be gained, and no setuid program works" privileges;
    "P02" "no capability is held, nor can one be had" capabilities;
    "P03" "the host's root is not mapped" user_map;
    "P04" "no namespace can be made or entered" namespaces;
    "P05" "the sandbox's first process cannot be traced, read or robbed" first_process;
    "P07" "no process of the host can be seen or signalled" signals;
    "P08" "keyrings are out of reach" keyrings;
    "P09" "risky kernel interfaces are out of reach" interfaces;
    "P10" "foreign call numbers and architectures do not work" foreign_calls;
    "P11" "arguments with ignored bits do not pass; no typing into terminals" high_bits;
    "P12" "io_uring is out of reach" io_uring;
    "P17" "no core dumps" core_dumps;
];

async fn privileges(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    context.need_proc(&*sandbox).await?;
    let got = attempt_in(&*sandbox, "status", &["NoNewPrivs", "Uid"])
        .await?
        .text();
    let fields = got.split_whitespace().collect::<Vec<_>>();
    ensure!(fields.first() == Some(&"1"), "NoNewPrivs: {got}");
    ensure!(
        fields.get(1).is_some_and(|uid| *uid != "0"),
        "commands run as user 0: {got}"
    );
    let got = sh(&*sandbox, "for p in su sudo mount; do command -v $p >/dev/null && $p -c id </dev/null 2>/dev/null; done; id -u").await?;
    ensure!(got.text() == fields[1], "{}", got.text());
    finish(sandbox).await
}

async fn capabilities(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    context.need_proc(&*sandbox).await?;
    let names = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
    let got = attempt_in(&*sandbox, "status", &names).await?.text();
    let none = |set: &str| set.bytes().all(|b| b == b'0');
    // Where namespaces cannot be made the bounding set may stay; without new privileges it is idle.
    let (bounding, held) = (got.split(' ').nth(3).unwrap_or(""), got.split(' '));
    let held = held
        .enumerate()
        .filter(|(at, _)| *at != 3)
        .all(|(_, set)| none(set));
    ensure!(held, "{got}");
    finish(sandbox).await?;
    Ok((!none(bounding)).then(|| format!("(bounding set {bounding})")))
}

async fn user_map(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    context.need_proc(&*sandbox).await?;
    let got = sh(&*sandbox, "cat /proc/self/uid_map").await?.text();
    let maps_root = got.lines().any(|line| {
        let mut fields = line.split_whitespace();
        fields.nth(1) == Some("0")
    });
    finish(sandbox).await?;
    if maps_root && got.split_whitespace().eq(["0", "0", "4294967295"]) {
        return Err(Stop::Skip("there are no user namespaces here".to_owned()));
    }
    ensure!(!maps_root, "{got}");
    Ok(None)
}

async fn namespaces(context: &Context<'_>) -> Result {
    attempt(context, "namespaces", &[]).await
}

async fn first_process(context: &Context<'_>) -> Result {
    // No control: the host's first process is another thing, and not to be touched.
    let sandbox = context.sandbox().await?;
    let got = attempt_in(&*sandbox, "first_process", &[]).await?;
    ensure!(
        got.text().starts_with("held"),
        "{} {}",
        got.text(),
        got.errors()
    );
    finish(sandbox).await?;
    attempt(
        context,
        "reach",
        &["ptrace", "process_vm_readv", "pidfd_getfd", "kcmp"],
    )
    .await
}

async fn signals(context: &Context<'_>) -> Result {
    let host = context.host()?;
    let (pid, _) = host.victim().ok_or(Stop::NotObservable)?;
    let sandbox = context.sandbox().await?;
    let got = attempt_in(&*sandbox, "signals", &[&pid.to_string()]).await?;
    ensure!(got.text().starts_with("held"), "{}", got.text());
    // Where no namespace hides it a command may end its own sandbox, and nothing else.
    let all = match sh(&*sandbox, "kill -TERM -1; kill -9 1; true").await {
        Err(Stop::Sandbox(SandboxError::Gone | SandboxError::Lost)) => None,
        finished => Some(finished?),
    };
    ensure!(
        host.victim().is_some_and(|(_, lives)| lives),
        "the host's process was killed: {all:?}"
    );
    finish(sandbox).await?;
    let shown = host.control(&["sh", "-c", &format!("kill -0 {pid} && echo open")]);
    Ok(shown
        .filter(|c| c.stdout.trim() != "open")
        .map(|_| "(no control here)".to_owned()))
}

async fn keyrings(context: &Context<'_>) -> Result {
    attempt(context, "reach", &["keyctl", "add_key", "request_key"]).await
}

async fn interfaces(context: &Context<'_>) -> Result {
    let calls = [
        "bpf",
        "perf_event_open",
        "userfaultfd",
        "kexec_load",
        "init_module",
        "finit_module",
        "swapon",
        "acct",
        "quotactl",
        "reboot",
        "settimeofday",
        "clock_settime",
        "syslog",
        "fanotify_init",
        "setns",
        "memfd_secret",
    ];
    attempt(context, "reach", &calls).await
}

async fn foreign_calls(context: &Context<'_>) -> Result {
    attempt(context, "foreign_calls", &[]).await
}

async fn high_bits(context: &Context<'_>) -> Result {
    attempt(context, "high_bits", &[]).await
}

async fn io_uring(context: &Context<'_>) -> Result {
    attempt(
        context,
        "reach",
        &["io_uring_setup", "io_uring_enter", "io_uring_register"],
    )
    .await
}

async fn core_dumps(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    let got = attempt_in(&*sandbox, "core", &[]).await?.text();
    ensure!(got == "0", "{got}");
    finish(sandbox).await
}
