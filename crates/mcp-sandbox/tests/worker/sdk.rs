//! Changing the worker is configuration: one application, written with the official SDK, runs unchanged with two
//! environment files, one of an environment that the vendor's own worker serves, one of ours; and is told the same.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::process::{Child, Command};

use crate::console::Console;
use crate::program::{Program, bare, output, possible, workdir};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What `cargo xtask setup` installs.
fn python() -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR");
    let target = target.map_or_else(|| root().join("target"), PathBuf::from);
    let python = target.join("tools/python/bin/python");
    if python.exists() {
        return Some(python);
    }
    let why = format!("{} is missing: run `cargo xtask setup`", python.display());
    assert!(std::env::var_os("CI_REQUIRE_ALL").is_none(), "{why}");
    eprintln!("SKIPPED: {why}");
    None
}

/// The content of an environment file.
type Variables = Vec<(&'static str, String)>;

/// A program of the official SDK, with the variables of an environment file.
fn program(python: &Path, name: &str, variables: &Variables) -> Command {
    let programs = root().join("examples/cloud/tests/sdk");
    let mut command = Command::new(python);
    command
        .arg(programs.join(name))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("SCRIPT", programs.join("script.json"))
        .envs(variables.iter().cloned());
    command
}

async fn lines(command: Command) -> Vec<Value> {
    let output = output(command).await;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{error}");
    told.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The two files: agent and environment are the official SDK's doing, the workers' key apart.
async fn made(python: &Path, console: &Console) -> (Variables, String) {
    let mut file = vec![
        ("ANTHROPIC_BASE_URL", console.url()),
        ("ANTHROPIC_API_KEY", "operator".to_owned()),
    ];
    let made = lines(program(python, "administer.py", &file))
        .await
        .remove(0);
    let text = |member: &str| made[member].as_str().unwrap().to_owned();
    file.push(("AGENT_ID", text("agent")));
    file.push(("ENVIRONMENT_ID", text("environment")));
    (file, text("key"))
}

fn official_worker(python: &Path, file: &Variables, key: String, workdir: &Path) -> Child {
    let folder = workdir.to_string_lossy().into_owned();
    let mut file = file.clone();
    file.retain(|(name, _)| *name != "ANTHROPIC_API_KEY");
    file.push(("ANTHROPIC_ENVIRONMENT_KEY", key));
    file.push(("WORKDIR", folder.clone()));
    file.push(("HOME", folder));
    program(python, "worker.py", &file)
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

fn our_worker(file: &Variables, key: String, workdir: &Path) -> Program {
    let value = |wanted: &str| {
        let found = file.iter().find(|(name, _)| *name == wanted);
        found.unwrap().1.clone()
    };
    let mut command = bare();
    command
        .arg("worker")
        .env("ANTHROPIC_BASE_URL", value("ANTHROPIC_BASE_URL"))
        .env("ANTHROPIC_ENVIRONMENT_ID", value("ENVIRONMENT_ID"))
        .env("ANTHROPIC_ENVIRONMENT_KEY", key);
    Program::spawn(command, workdir)
}

/// Calls as they were told, but for where the files are and for the words of errors.
fn calls(lines: &[Value], workdir: &str) -> Vec<Value> {
    let calls = lines.iter().filter_map(|line| line.get("call"));
    calls
        .map(|call| {
            let mut call = call.clone();
            let own_words = call["is_error"] == true && call["name"] != "bash";
            let text = match own_words {
                true => String::new(),
                false => call["text"].as_str().unwrap().replace(workdir, "WORKDIR"),
            };
            call["text"] = text.trim_end().into();
            call
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_application_runs_unchanged_with_either_worker() {
    if !possible("one_application_runs_unchanged_with_either_worker").await {
        return;
    }
    let Some(python) = python() else {
        return;
    };
    let console = Console::start().await;
    let (theirs, ours) = (workdir(), workdir());
    let (file, key) = made(&python, &console).await;
    let worker = official_worker(&python, &file, key, theirs.path());
    let told = lines(program(&python, "client.py", &file)).await;
    drop(worker);
    let folder = theirs.path().canonicalize().unwrap();
    let official = calls(&told, &folder.to_string_lossy());
    let (file, key) = made(&python, &console).await;
    let worker = our_worker(&file, key, ours.path());
    let told_by_ours = lines(program(&python, "client.py", &file)).await;
    worker.terminate().await;
    assert_eq!(calls(&told_by_ours, "/workspace"), official);
    let kinds = |lines: &[Value]| -> Vec<Value> {
        // Two calls at once: whose result comes first says nothing.
        let events = lines.iter().find_map(|line| line["events"].as_array());
        let mut events = events.unwrap().clone();
        events.retain(|kind| kind != "session.status_running" && kind != "session.status_idle");
        events
    };
    assert_eq!(kinds(&told_by_ours), kinds(&told));
}
