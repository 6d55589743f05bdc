//! Commands, their streams, statuses and signals.

use std::time::Duration;

use bytes::Bytes;
use mcp_sandbox_executor::{
    Command, Exit, Isolation, KillReason, ProcessEvent, Sandbox, SandboxError, Signal, Stdin,
    Terminal,
};

use crate::case::{Case, Context, Result, Stop, cases, ensure, run, sh};

pub(crate) const CASES: &[Case] = cases![false;
    "C01" "a command runs in the working directory with its environment" environment;
    "C02" "standard output and standard error come apart" streams;
    "C03" "every exit code and signal is reported as it was" statuses;
    "C04" "a program that cannot start is an error that says why" not_started;
    "C05" "without input a command reads the end of file at once" no_input;
    "C06" "input and output of several megabytes pass unchanged" big_streams;
    "C07" "output bytes that are no text are kept" raw_bytes;
    "C08" "a signal reaches the command" signal;
    "C09" "kill ends a command that ignores every other signal" kill;
    "C10" "a time limit kills the whole tree and says so" time_limit;
    "C11" "a background child that holds the output does not hold the call" background;
    "C12" "a dropped handle kills its command" dropped;
    "C13" "a terminal is one, with its size" terminal;
    "C14" "commands of one sandbox run side by side" side_by_side;
    "C15" "waiting for an event can be given up and taken up again" cancel_safe;
    "C16" "long command lines arrive" long_arguments;
    "C17" "the streams can be opened by name" named_streams;
];

async fn environment(context: &Context<'_>) -> Result {
    let spec = crate::spec()
        .with_env("FROM_SPEC", "a b")
        .with_env("BOTH", "spec");
    let sandbox = context.sandbox_of(spec).await?;
    let command = Command::new([
        "sh",
        "-c",
        "pwd; echo \"$FROM_SPEC|$BOTH|$1\"",
        "sh",
        "it's; $x",
    ])
    .with_env("BOTH", "command");
    let got = run(&*sandbox, command).await?.text();
    let expect = format!("{}\na b|command|it's; $x", sandbox.info().working_dir);
    ensure!(got == expect, "{got:?}, not {expect:?}");
    let command = Command::new(["pwd"]).with_working_dir("/etc");
    ensure!(
        run(&*sandbox, command).await?.text() == "/etc",
        "the working directory is not used"
    );
    finish(sandbox).await
}

async fn streams(context: &Context<'_>) -> Result {
    context.need(
        context.capabilities.separate_stderr,
        "separate standard error",
    )?;
    let sandbox = context.sandbox().await?;
    let got = sh(&*sandbox, "echo out; echo err >&2").await?;
    ensure!(got.text() == "out" && got.errors() == "err", "{got:?}");
    finish(sandbox).await
}

async fn statuses(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    for code in [0, 1, 2, 126, 127, 128, 137, 255] {
        let got = sh(&*sandbox, &format!("exit {code}")).await?.exit;
        ensure!(got == Exit::Code(code), "exit {code} became {got:?}");
    }
    for (name, number) in [("TERM", 15), ("SEGV", 11), ("KILL", 9)] {
        let got = sh(&*sandbox, &format!("kill -{name} $$; sleep 5"))
            .await?
            .exit;
        ensure!(got == Exit::Signal(number), "signal {name} became {got:?}");
    }
    finish(sandbox).await
}

async fn not_started(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    let missing = sandbox.exec(Command::new(["no-such-program"])).await.err();
    ensure!(
        matches!(missing, Some(SandboxError::ProgramNotFound)),
        "{missing:?}"
    );
    let data = sandbox.exec(Command::new(["/etc/passwd"])).await.err();
    ensure!(
        matches!(data, Some(SandboxError::ProgramNotExecutable)),
        "{data:?}"
    );
    let nowhere = sandbox
        .exec(Command::new(["true"]).with_working_dir("/no/such/place"))
        .await
        .err();
    ensure!(
        matches!(nowhere, Some(SandboxError::WorkingDirectory)),
        "{nowhere:?}"
    );
    let empty = sandbox.exec(Command::new(Vec::<String>::new())).await.err();
    ensure!(
        matches!(empty, Some(SandboxError::Invalid { .. })),
        "{empty:?}"
    );
    let nul = sandbox.exec(Command::new(["echo", "a\0b"])).await.err();
    ensure!(matches!(nul, Some(SandboxError::Invalid { .. })), "{nul:?}");
    finish(sandbox).await
}

async fn no_input(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    let got = sh(&*sandbox, "cat; read x; echo done").await?;
    ensure!(
        got.text() == "done" && got.took < Duration::from_secs(2),
        "{got:?}"
    );
    finish(sandbox).await
}

async fn big_streams(context: &Context<'_>) -> Result {
    context.need_streaming()?;
    context.need(context.capabilities.stdin, "input")?;
    let sandbox = context.sandbox().await?;
    let mut process = sandbox
        .exec(Command::new(["cat"]).with_stdin(Stdin::Piped))
        .await?;
    let piece = Bytes::from((0..=255).cycle().take(64 * 1024).collect::<Vec<u8>>());
    let (mut sent, mut got, total) = (0, 0_usize, 64 * piece.len());
    loop {
        // One piece at a time: a pipe holds that much, so neither side waits for ever.
        if sent < total {
            process.write_stdin(piece.clone()).await?;
            sent += piece.len();
        } else {
            process.close_stdin().await?;
        }
        while got < sent {
            match process.next_event().await? {
                Some(ProcessEvent::Stdout(bytes)) => {
                    let right = bytes
                        .iter()
                        .enumerate()
                        .all(|(i, b)| usize::from(*b) == (got + i) % 256);
                    ensure!(right, "bytes changed near {got}");
                    got += bytes.len();
                }
                other => return Err(Stop::Failed(format!("{other:?} after {got} bytes"))),
            }
        }
        if sent == total {
            break;
        }
    }
    process.close_stdin().await?;
    let end = process.next_event().await?;
    ensure!(end == Some(ProcessEvent::Exit(Exit::Code(0))), "{end:?}");
    finish(sandbox).await
}

async fn raw_bytes(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    let got = sh(
        &*sandbox,
        r"printf 'a\000b\377\r\n\033[31m\303'; printf '\251'",
    )
    .await?;
    ensure!(
        got.stdout[..] == b"a\0b\xff\r\n\x1b[31m\xc3\xa9"[..],
        "{:?}",
        got.stdout
    );
    finish(sandbox).await
}

async fn signal(context: &Context<'_>) -> Result {
    context.need_streaming()?;
    context.need(context.capabilities.signals, "signals")?;
    let sandbox = context.sandbox().await?;
    let script = "trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let mut process = sandbox.exec(Command::new(["sh", "-c", script])).await?;
    let first = process.next_event().await?;
    ensure!(
        first == Some(ProcessEvent::Stdout(Bytes::from_static(b"ready\n"))),
        "{first:?}"
    );
    process.signal(Signal::Terminate).await?;
    let (mut text, mut exit) = (Vec::new(), None);
    while let Some(event) = process.next_event().await? {
        match event {
            ProcessEvent::Stdout(bytes) => text.extend_from_slice(&bytes),
            ProcessEvent::Exit(status) => exit = Some(status),
            _ => {}
        }
    }
    ensure!(
        text == b"got\n" && exit == Some(Exit::Code(5)),
        "{text:?} {exit:?}"
    );
    finish(sandbox).await
}

async fn kill(context: &Context<'_>) -> Result {
    context.need_streaming()?;
    let sandbox = context.sandbox().await?;
    let script = "trap '' TERM INT HUP QUIT; echo ready; while :; do sleep 1; done";
    let mut process = sandbox.exec(Command::new(["sh", "-c", script])).await?;
    process.next_event().await?;
    process.signal(Signal::Kill).await?;
    let end = process.next_event().await?;
    let expect = Some(ProcessEvent::Exit(Exit::Killed(KillReason::Requested)));
    ensure!(end == expect, "{end:?}");
    finish(sandbox).await
}

async fn time_limit(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    let script =
        "trap '' TERM; (trap '' TERM; sleep 71) & setsid sleep 71 & kill -STOP $$; sleep 71";
    let command = Command::new(["sh", "-c", script]).with_timeout(Duration::from_millis(300));
    let got = run(&*sandbox, command).await?;
    ensure!(
        got.exit == Exit::Killed(KillReason::Timeout),
        "{:?}",
        got.exit
    );
    ensure!(got.took < Duration::from_secs(2), "took {:?}", got.took);
    // Where nothing is isolated a process that hides cannot be told from the host's own.
    if context.capabilities.isolation != Isolation::Nothing {
        let left = sh(
            &*sandbox,
            "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '",
        )
        .await?
        .text();
        ensure!(!left.contains("sleep 71"), "survivors: {left}");
    }
    finish(sandbox).await
}

async fn background(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    let got = sh(&*sandbox, "sleep 30 & echo started").await?;
    ensure!(got.text() == "started" && got.exit.success(), "{got:?}");
    ensure!(got.took < Duration::from_secs(2), "took {:?}", got.took);
    finish(sandbox).await
}

async fn dropped(context: &Context<'_>) -> Result {
    context.need_streaming()?;
    let sandbox = context.sandbox().await?;
    let mut process = sandbox
        .exec(Command::new(["sh", "-c", "echo up; sleep 714"]))
        .await?;
    process.next_event().await?;
    drop(process);
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' \
                  | grep -q 'sleep 71[4]' || { echo gone; exit; }; sleep 0.1; done; echo alive";
    let got = sh(&*sandbox, script).await?.text();
    ensure!(got == "gone", "{got}");
    finish(sandbox).await
}

async fn terminal(context: &Context<'_>) -> Result {
    context.need(context.capabilities.terminal, "terminals")?;
    let sandbox = context.sandbox().await?;
    let size = Terminal {
        rows: 33,
        columns: 101,
    };
    let script = "test -t 0 && test -t 1 && test -t 2 && stty size && read line && echo \"<$line>\" && stty size";
    let command = Command::new(["sh", "-c", script]).with_terminal(size);
    let mut process = sandbox.exec(command).await?;
    let (mut text, mut exit, mut answered) = (String::new(), None, false);
    while let Some(event) = process.next_event().await? {
        match event {
            ProcessEvent::Stdout(bytes) => text.push_str(&String::from_utf8_lossy(&bytes)),
            ProcessEvent::Exit(status) => exit = Some(status),
            other => return Err(Stop::Failed(format!("{other:?}"))),
        }
        if text.contains("33 101") && !answered {
            answered = true;
            process
                .resize(Terminal {
                    rows: 10,
                    columns: 20,
                })
                .await?;
            process.write_stdin(Bytes::from_static(b"hello\n")).await?;
        }
    }
    ensure!(
        text.contains("<hello>") && text.contains("10 20"),
        "{text:?}"
    );
    ensure!(exit == Some(Exit::Code(0)), "{exit:?}");
    finish(sandbox).await
}

async fn side_by_side(context: &Context<'_>) -> Result {
    context.need_streaming()?;
    let sandbox = context.sandbox().await?;
    let mut processes = Vec::new();
    for i in 0..8 {
        let script = format!("sleep 0.3; echo {i}; exit {i}");
        processes.push(sandbox.exec(Command::new(["sh", "-c", &script])).await?);
    }
    let started = std::time::Instant::now();
    for (i, mut process) in processes.into_iter().enumerate() {
        let text = process.next_event().await?;
        let expect = Bytes::from(format!("{i}\n"));
        ensure!(text == Some(ProcessEvent::Stdout(expect)), "{i}: {text:?}");
        let exit = process.next_event().await?;
        let code = u8::try_from(i).unwrap_or(255);
        ensure!(
            exit == Some(ProcessEvent::Exit(Exit::Code(code))),
            "{i}: {exit:?}"
        );
    }
    ensure!(
        started.elapsed() < Duration::from_secs(2),
        "one after the other"
    );
    finish(sandbox).await
}

async fn cancel_safe(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    let script = "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.02; done; exit 3";
    let mut process = sandbox.exec(Command::new(["sh", "-c", script])).await?;
    let (mut text, mut exit) = (Vec::new(), None);
    for _ in 0..2000 {
        match tokio::time::timeout(Duration::from_millis(1), process.next_event()).await {
            Err(_) => {}
            Ok(event) => match event? {
                Some(ProcessEvent::Stdout(bytes)) => text.extend_from_slice(&bytes),
                Some(ProcessEvent::Exit(status)) => exit = Some(status),
                Some(_) => {}
                None => break,
            },
        }
    }
    ensure!(
        text == b"1\n2\n3\n4\n5\n6\n7\n8\n" && exit == Some(Exit::Code(3)),
        "{text:?} {exit:?}"
    );
    finish(sandbox).await
}

async fn long_arguments(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    let long = "x".repeat(100_000);
    let argv = [
        "sh",
        "-c",
        "echo ${#1} ${#2} ${#3}",
        "sh",
        &long,
        &long,
        &long,
    ];
    let got = run(&*sandbox, Command::new(argv)).await?.text();
    ensure!(got == "100000 100000 100000", "{got}");
    finish(sandbox).await
}

async fn named_streams(context: &Context<'_>) -> Result {
    let sandbox = context.sandbox().await?;
    let script = "echo out >/dev/stdout; echo err | tee /dev/stderr >/dev/null; cat /dev/stdin";
    let got = sh(&*sandbox, script).await?;
    ensure!(got.text() == "out", "{:?}", got.text());
    if context.capabilities.separate_stderr {
        let error = String::from_utf8_lossy(&got.stderr).into_owned();
        ensure!(error == "err\n", "{error:?}");
    }
    finish(sandbox).await
}

pub(super) async fn finish(sandbox: Box<dyn Sandbox>) -> Result {
    sandbox.destroy().await?;
    Ok(None)
}
