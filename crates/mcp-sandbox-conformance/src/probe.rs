//! Attempts that are single system calls, made by a small Python program.
//!
//! It prints `held WHY` or `open WHAT`. The same program runs on the host as the
//! control: an attempt that is held there too proves nothing, and the verdict
//! says so.

use mcp_sandbox_executor::{Command, Sandbox, SandboxError};

use crate::case::{Context, Finished, Result, Stop, ensure, run, still_usable};

const PROGRAM: &str = include_str!("probe.py");

/// Makes an attempt in a new sandbox; it must be held, and be open on the host.
pub(crate) async fn attempt(context: &Context<'_>, name: &str, arguments: &[&str]) -> Result {
    let sandbox = context.sandbox().await?;
    let finished = attempt_in(&*sandbox, name, arguments).await?;
    sandbox.destroy().await?;
    let said = finished.text();
    // A call that kills its caller is held, too.
    let killed = !finished.exit.success() && said.is_empty();
    ensure!(
        said.starts_with("held") || killed,
        "{said} {} ({:?})",
        finished.errors(),
        finished.exit
    );
    Ok(control(context, name, arguments, |said| {
        said.starts_with("open")
    }))
}

/// Makes an attempt in a given sandbox and returns what it printed.
pub(crate) async fn attempt_in(
    sandbox: &dyn Sandbox,
    name: &str,
    arguments: &[&str],
) -> Result<Finished> {
    let argv = ["python3", "-c", PROGRAM, name]
        .into_iter()
        .chain(arguments.iter().copied());
    let finished = python(sandbox, Command::new(argv)).await?;
    ensure!(
        finished.took.as_millis() < 15_000,
        "the attempt took {:?}",
        finished.took
    );
    still_usable(sandbox).await?;
    Ok(finished)
}

/// Runs a command of `python3`, or skips the case where there is none.
pub(crate) async fn python(sandbox: &dyn Sandbox, command: Command) -> Result<Finished> {
    match run(sandbox, command).await {
        Err(Stop::Sandbox(SandboxError::ProgramNotFound)) => {
            Err(Stop::Skip("there is no python3 inside".to_owned()))
        }
        finished => finished,
    }
}

/// Runs the attempt on the host; a remark when it does not show anything there.
pub(crate) fn control(
    context: &Context<'_>,
    name: &str,
    arguments: &[&str],
    works: impl Fn(&str) -> bool,
) -> Option<String> {
    let argv = ["python3", "-c", PROGRAM, name]
        .into_iter()
        .chain(arguments.iter().copied());
    let output = context.try_host()?.control(&argv.collect::<Vec<_>>())?;
    let said = output.stdout.trim_end();
    (!works(said)).then(|| format!("(no control here: {said})"))
}
