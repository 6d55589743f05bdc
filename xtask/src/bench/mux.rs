//! `cargo xtask bench mux`: the codec, the multiplexers side by side, and what lies idle, in one run.

use super::{instructions, target};
use crate::shell::{cargo, step};
use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The parts, in order.
const PARTS: [(&str, &str); 3] = [
    ("codec", "frames, without IO"),
    ("mux", "multiplexers side by side"),
    ("idle", "memory of what lies idle"),
];

/// Runs all parts and prints their tables; `json` gets the same figures.
pub(super) fn run(quick: bool, json: Option<&Path>) -> Result<()> {
    let programs = build()?;
    let folder = target().join("bench");
    fs::create_dir_all(&folder)?;
    let mut figures = Map::new();
    for (part, title) in PARTS {
        let file = folder.join(format!("{part}.json"));
        let mut bench = Command::new(program(&programs, part)?);
        bench.arg("--json").arg(&file);
        if quick {
            bench.arg("--quick");
        }
        step(title, &mut bench)?;
        let tables: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
        figures.insert(part.to_owned(), tables);
    }
    let (codec, mux) = (program(&programs, "codec")?, program(&programs, "mux")?);
    let counts = instructions::run(codec, mux, quick)?;
    figures.insert("instructions".to_owned(), counts);
    if let Some(file) = json {
        fs::write(file, Value::Object(figures).to_string())
            .with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}

fn program<'a>(programs: &'a BTreeMap<String, PathBuf>, part: &str) -> Result<&'a Path> {
    let program = programs.get(part).map(PathBuf::as_path);
    program.with_context(|| format!("cargo built no benchmark {part}"))
}

/// Builds the parts and says where they lie.
fn build() -> Result<BTreeMap<String, PathBuf>> {
    let benches = PARTS.map(|(part, _)| format!("--bench {part}")).join(" ");
    let command = format!(
        "bench --package benches {benches} --no-run --locked \
         --message-format json-render-diagnostics"
    );
    eprintln!("\n== release build of what is measured");
    let output = cargo(&command).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the benchmarks do not build");
    let messages = String::from_utf8(output.stdout)?;
    let artifacts = messages.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let name = message["target"]["name"].as_str()?.to_owned();
        Some((name, PathBuf::from(message["executable"].as_str()?)))
    });
    Ok(artifacts.collect())
}
