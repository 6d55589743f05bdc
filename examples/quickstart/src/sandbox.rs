//! One command in a sandbox, and what it could not reach.

use crate::steps::Steps;
use anyhow::{Context, Result, bail};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Output;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// How long a command in a sandbox may take here.
const TIME: Duration = Duration::from_secs(20);

/// Tries to get at what this program has; each line says what came of it.
const REACH: &str = "cat \"$1\" 2>/dev/null && echo read; bash -c \"exec 3<>/dev/tcp/127.0.0.1/$2\" 2>/dev/null && echo connected; \
    kill -0 \"$3\" 2>/dev/null && echo signalled; touch /usr/quickstart 2>/dev/null && echo written; echo \"tried all\"";

pub(crate) async fn show(steps: &mut Steps, programs: &Path, folder: &Path) -> Result<()> {
    steps.step("Run one command in a sandbox, and see what it cannot reach");
    steps.command("mcp-sandbox exec -- sh -c 'id; ls /'");
    let seen = exec(programs, &["sh", "-c", "id; ls / | tr '\\n' ' '"]).await?;
    if !seen.status.success() {
        // This machine lets nobody make one, and the message says what to do about it.
        steps.say(&String::from_utf8_lossy(&seen.stderr));
        return Ok(());
    }
    steps.say(&String::from_utf8_lossy(&seen.stdout));

    let secret = folder.join("secret");
    std::fs::write(&secret, "of this host\n").context("writing a file to look for")?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening")?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port().to_string();
    let own = std::process::id().to_string();
    let secret = secret.to_string_lossy();
    let tried = exec(programs, &["sh", "-c", REACH, "sh", &secret, &port, &own]).await?;
    let said = String::from_utf8_lossy(&tried.stdout);
    if said.trim() != "tried all" || listener.accept().is_ok() {
        bail!("the sandbox let something through: {said}");
    }
    steps.good("it could not read a file of this host, connect to a port of it, signal this program, or write to /usr");
    Ok(())
}

async fn exec(programs: &Path, command: &[&str]) -> Result<Output> {
    let mut sandbox = Command::new(programs.join("mcp-sandbox"));
    sandbox.args(["exec", "--"]).args(command);
    let output = sandbox.kill_on_drop(true).output();
    let output = timeout(TIME, output).await;
    output
        .context("a command in a sandbox took too long")?
        .context("starting mcp-sandbox")
}
