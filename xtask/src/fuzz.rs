//! Coverage-guided fuzzing: the targets of `fuzz/` under libFuzzer, on the stable compiler.
//!
//! ```text
//! fuzz/corpus/NAME   written by hand, among them what once failed    ─┐
//! fuzz/found/NAME    found by the fuzzer, few and short: `--keep`    ─┼─▶ seeds; replayed by plain `cargo test`
//! target/fuzz/NAME   found since, never committed                    ─┘
//! ```

use crate::shell::{cargo, quiet_step, root, step};
use anyhow::{Context, Result, bail};
use std::{
    cmp::Reverse,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What tells libFuzzer which code an input reached. The sancov pass is part of every rustc; address checking would need a
/// nightly one and finds little in code without `unsafe`.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Ccodegen-units=1";

/// Of what `--keep` commits for a target: the longest input in bytes, and how many.
const LONGEST: u32 = 1024;
const MOST: usize = 96;

/// Fuzzes one target, or each in turn, for `seconds` each; with `keep` what it found becomes seeds.
pub(crate) fn run(only: Option<&str>, seconds: u32, keep: bool) -> Result<()> {
    let names = targets(&root().join("fuzz/corpus"))?;
    if let Some(name) = only.filter(|name| !names.iter().any(|known| known == name)) {
        bail!("no fuzz target {name}; there are: {}", names.join(", "));
    }
    let program = build()?;
    for name in names
        .iter()
        .filter(|name| only.is_none_or(|only| only == name.as_str()))
    {
        let target = Target::new(&program, name)?;
        target.fuzz(seconds)?;
        if keep {
            target.keep()?;
        }
    }
    Ok(())
}

/// One target, and where its inputs lie.
struct Target<'a> {
    name: &'a str,
    program: &'a Path,
    written: PathBuf,
    kept: PathBuf,
    found: PathBuf,
}

impl<'a> Target<'a> {
    fn new(program: &'a Path, name: &'a str) -> Result<Self> {
        let target = Self {
            name,
            program,
            written: root().join("fuzz/corpus").join(name),
            kept: root().join("fuzz/found").join(name),
            found: root().join("target/fuzz").join(name),
        };
        for folder in [&target.found, &target.kept] {
            fs::create_dir_all(folder)?;
        }
        Ok(target)
    }

    fn fuzz(&self, seconds: u32) -> Result<()> {
        let mut command = self.command();
        command
            .args([&self.found, &self.written, &self.kept])
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/crash-", self.found.display()))
            .args(["-timeout=20", "-verbosity=0", "-print_final_stats=1"]);
        quiet_step(
            &format!("fuzzing {} for {seconds} s", self.name),
            &mut command,
        )
    }

    /// Chooses anew, from all there is, few inputs that reach the code that those written by hand do not.
    fn keep(&self) -> Result<()> {
        let scratch = self.found.with_extension("keep");
        fs::create_dir_all(&scratch)?;
        let written = files(&self.written)?;
        for file in &written {
            fs::copy(file, scratch.join(name(file)?))?;
        }
        let mut command = self.command();
        command
            .args(["-merge=1", "-set_cover_merge=1", "-use_counters=0"])
            .arg(format!("-max_len={LONGEST}"))
            .args([&scratch, &self.kept, &self.found]);
        quiet_step(&format!("keeping what {} reached", self.name), &mut command)?;
        for file in files(&self.kept)? {
            fs::remove_file(file)?;
        }
        for file in written {
            fs::remove_file(scratch.join(name(&file)?))?;
        }
        // Longer ones reach more.
        let mut chosen = files(&scratch)?;
        chosen.sort_by_key(|file| Reverse(fs::metadata(file).map_or(0, |found| found.len())));
        for file in chosen.iter().take(MOST) {
            fs::copy(file, self.kept.join(name(file)?))?;
        }
        fs::remove_dir_all(scratch)?;
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.program);
        command
            .arg("-rss_limit_mb=2048")
            .env("FUZZ_TARGET", self.name);
        command
    }
}

fn targets(corpus: &Path) -> Result<Vec<String>> {
    let folders = files(corpus)?;
    folders
        .iter()
        .map(|folder| Ok(name(folder)?.to_string_lossy().into_owned()))
        .collect()
}

/// What a folder holds, sorted.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut files = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

fn name(file: &Path) -> Result<&OsStr> {
    file.file_name().context("a file has a name")
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
