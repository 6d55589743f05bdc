//! Coverage-guided fuzzing: the targets of `fuzz/` under libFuzzer, on the stable compiler.

use crate::shell::{cargo, quiet_step, root, step};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// What tells libFuzzer which code an input reached. The sancov pass is part of every rustc; address checking would need a
/// nightly one and finds little in code without `unsafe`.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Ccodegen-units=1";

/// Fuzzes one target, or each in turn, for `seconds` each.
pub(crate) fn run(only: Option<&str>, seconds: u32) -> Result<()> {
    let corpus = root().join("fuzz/corpus");
    let names = targets(&corpus)?;
    if let Some(name) = only.filter(|name| !names.iter().any(|known| known == name)) {
        bail!("no fuzz target {name}; there are: {}", names.join(", "));
    }
    let program = build()?;
    for name in names
        .iter()
        .filter(|name| only.is_none_or(|only| only == name.as_str()))
    {
        // New inputs go to a folder that is not committed; the committed corpus is the seed.
        let found = root().join("target/fuzz").join(name);
        fs::create_dir_all(&found)?;
        let mut command = Command::new(&program);
        command
            .arg(&found)
            .arg(corpus.join(name))
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/crash-", found.display()))
            .args([
                "-rss_limit_mb=2048",
                "-timeout=20",
                "-verbosity=0",
                "-print_final_stats=1",
            ])
            .env("FUZZ_TARGET", name);
        quiet_step(&format!("fuzzing {name} for {seconds} s"), &mut command)?;
    }
    Ok(())
}

fn targets(corpus: &PathBuf) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(corpus).with_context(|| format!("reading {}", corpus.display()))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Builds apart from the rest, so that neither build throws the other's away.
fn build() -> Result<PathBuf> {
    let target = root().join("target/fuzz-build");
    let triple = "x86_64-unknown-linux-gnu";
    let mut command = cargo("build --locked --quiet --package fuzz --bin fuzz --release --target");
    command
        .arg(triple)
        .args([
            "--config",
            "profile.release.lto=\"off\"",
            "--config",
            "profile.release.strip=\"none\"",
        ])
        .env("RUSTFLAGS", COVERAGE)
        .env("CARGO_TARGET_DIR", &target);
    step("building the fuzz targets", &mut command)?;
    Ok(target.join(triple).join("release/fuzz"))
}
