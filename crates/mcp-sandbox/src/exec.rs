//! `exec`: one command in a fresh sandbox.

use std::io::{IsTerminal as _, Write as _};

use anyhow::Context as _;
use bytes::Bytes;
use mcp_sandbox_executor::{
    Command, Executor as _, Exit, KillReason, Process, ProcessEvent, ProcessInput, SandboxError,
    Stdin,
};
use mcp_sandbox_linux::{LinuxExecutor, Tier, drop_privileges};
use tokio::io::AsyncReadExt as _;

use crate::args::{ExecArgs, NetworkArg};
use crate::compose::{config, spec};

/// The sandbox could not be made (docker's convention).
const NO_SANDBOX: u8 = 125;

/// Runs it; the result is the exit code.
pub(crate) async fn run(args: ExecArgs) -> u8 {
    match try_run(args).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("mcp-sandbox: {error:#}");
            match error.downcast_ref::<SandboxError>() {
                Some(SandboxError::ProgramNotFound) => 127,
                Some(SandboxError::ProgramNotExecutable) => 126,
                _ => NO_SANDBOX,
            }
        }
    }
}

async fn try_run(args: ExecArgs) -> anyhow::Result<u8> {
    let config = config(&args.sandbox)?;
    let executor = LinuxExecutor::start(config.clone()).await?;
    drop_privileges(&config).context("giving up root")?;
    let report = executor.report();
    if report.tier != Tier::T1 {
        eprintln!(
            "mcp-sandbox: isolation is {}: {}",
            report.tier,
            report.fell.join("; ")
        );
    }
    if args.sandbox.network == NetworkArg::Host {
        eprintln!("mcp-sandbox: warning: the command can reach whatever this host can reach");
    }
    let sandbox = executor.create(spec(&args.sandbox)?).await?;
    let program = args.argv.first().cloned().unwrap_or_default();
    let mut command = Command::new(args.argv);
    command.timeout = args.timeout;
    if !std::io::stdin().is_terminal() {
        command = command.with_stdin(Stdin::Piped);
    }
    let outcome = match sandbox.exec(command).await {
        Ok(process) => follow(process).await,
        Err(error) => Err(error).with_context(|| format!("running {program} in the sandbox")),
    };
    sandbox.destroy().await?;
    outcome
}

/// Passes the streams through until the command ends.
async fn follow(mut process: Box<dyn Process>) -> anyhow::Result<u8> {
    let input = process.take_stdin();
    // Apart from the outputs: a command may answer while it is still being written to.
    let mut feeding = std::pin::pin!(feed(input));
    let mut fed = false;
    loop {
        tokio::select! {
            event = process.next_event() => match event? {
                Some(ProcessEvent::Stdout(bytes)) => std::io::stdout().write_all(&bytes)?,
                Some(ProcessEvent::Stderr(bytes)) => std::io::stderr().write_all(&bytes)?,
                Some(ProcessEvent::Exit(exit)) => {
                    std::io::stdout().flush()?;
                    return Ok(ended(exit));
                }
                Some(_) => {}
                None => anyhow::bail!("the command ended without a status"),
            },
            done = &mut feeding, if !fed => {
                done?;
                fed = true;
            }
        }
    }
}

/// Copies this program's input to the command's, and ends that with it.
async fn feed(input: Option<Box<dyn ProcessInput>>) -> anyhow::Result<()> {
    let Some(mut input) = input else {
        return Ok(());
    };
    let mut own = tokio::io::stdin();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match own.read(&mut chunk).await {
            Ok(count) if count > 0 => {
                input.write(Bytes::copy_from_slice(&chunk[..count])).await?;
            }
            _ => return Ok(()),
        }
    }
}

fn ended(exit: Exit) -> u8 {
    match exit {
        Exit::Killed(KillReason::Timeout) => eprintln!("mcp-sandbox: time is over, command killed"),
        Exit::Killed(KillReason::OutOfMemory) => {
            eprintln!("mcp-sandbox: out of memory, command killed")
        }
        _ => {}
    }
    exit.shell_status()
}
