//! Unit tests of the core under the interpreter that finds undefined behaviour, in the code that it uses too.
//!
//! It takes hundreds of times as long as the processor, and has one thread at a time: the tests are dealt out to as many
//! processes as there are processors. A test that would take minutes there says so (`cfg_attr(miri, ignore)`).

use crate::shell::{cargo, left_out, works};
use anyhow::{Context, Result, ensure};
use std::{process::Child, thread};

/// The nightly compiler of the day on which the tests passed.
pub(crate) const TOOLCHAIN: &str = "nightly-2026-05-20";

/// How often a property is tried there.
const CASES: &str = "4";

const PACKAGE: &str = "--quiet --locked -p mcp-tunnel-proto --all-features --lib";

/// Says so where the toolchain is missing.
pub(crate) fn run() -> Result<()> {
    let title = "miri over the protocol core";
    if !works(&format!("+{TOOLCHAIN} miri --version")) {
        let cure = format!("rustup toolchain install {TOOLCHAIN} -c miri -c rust-src");
        left_out(title, &cure);
        return Ok(());
    }
    let tests = tests()?;
    let shards = thread::available_parallelism()?.get();
    eprintln!("\n== {title}: {} tests in {shards} processes", tests.len());
    let running: Vec<Child> = (0..shards)
        .map(|first| {
            let mut miri = cargo(&format!("+{TOOLCHAIN} miri test {PACKAGE} -- --exact"));
            miri.args(tests.iter().skip(first).step_by(shards));
            miri.env("MIRIFLAGS", "-Zmiri-disable-isolation")
                .env("PROPTEST_CASES", CASES)
                .spawn()
        })
        .collect::<std::io::Result<_>>()?;
    // Every shard is waited for, so that none goes on behind an error.
    let ended: Vec<_> = running.into_iter().map(|mut shard| shard.wait()).collect();
    for status in ended {
        let status = status?;
        ensure!(status.success(), "{title}: ended with {status}");
    }
    Ok(())
}

/// What the library's test program calls its tests.
fn tests() -> Result<Vec<String>> {
    let list = format!("+{TOOLCHAIN} miri test {PACKAGE} -- --list --format terse");
    let list = cargo(&list).output()?;
    let said = String::from_utf8_lossy(&list.stderr);
    ensure!(list.status.success(), "listing the tests: {said}");
    let listed = String::from_utf8(list.stdout).context("names of tests")?;
    let names = listed
        .lines()
        .filter_map(|line| line.strip_suffix(": test"));
    Ok(names.map(str::to_owned).collect())
}
