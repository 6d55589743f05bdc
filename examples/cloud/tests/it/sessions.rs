//! Agents, environments, skills and sessions, driven by the official SDKs, unmodified: the
//! newest for Python and one from before 1.0, which differ in headers and shapes.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::cloud::{Folder, Running, errors, text};
use crate::sdk::tool;

/// The SDKs for Python.
const PYTHONS: [&str; 2] = ["python/bin/python", "python-0/bin/python"];

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/sdk")
        .join(name)
}

/// A program of `tests/sdk`, with the variables that the SDKs read.
fn program(interpreter: &Path, name: &str, cloud: &Running, folder: &Folder) -> Command {
    let key = std::fs::read_to_string(folder.path().join("admin.key")).expect("a key");
    let mut command = Command::new(interpreter);
    command
        .arg(script(name))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("ANTHROPIC_BASE_URL", cloud.address("api"))
        .env("ANTHROPIC_API_KEY", key.trim());
    command
}

/// The lines of JSON that a program prints.
fn lines(mut command: Command) -> Vec<Value> {
    let output = command.output().expect("the interpreter runs");
    let told = (text(&output), errors(&output));
    assert!(output.status.success(), "{}\n{}", told.0, told.1);
    told.0
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[test]
fn the_official_sdks_administer_agents_environments_and_skills() {
    for python in PYTHONS {
        let Some(python) = tool(python) else {
            return;
        };
        let folder = Folder::new();
        let cloud = folder.start(&[]);
        let made = lines(program(&python, "administer.py", &cloud, &folder));
        let key = made[0]["key"].as_str().expect("a key");
        assert!(key.starts_with("mce_"));
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let file = file.unwrap().path();
            let content = std::fs::read(&file).unwrap_or_default();
            let found = content
                .windows(key.len())
                .any(|part| part == key.as_bytes());
            assert!(!found, "the key is in {}", file.display());
        }
        assert!(cloud.stop().success());
    }
}
