//! Instructions by valgrind: they do not depend on how busy a machine is.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{path::Path, process::Command};

/// How often a thing is done, and once more twice as often: the difference is free of what comes before and after.
struct Effort {
    frames: u64,
    units: u64,
    /// How many of [`PEERS`] are measured.
    peers: usize,
}

const FULL: Effort = Effort {
    frames: 4096,
    units: 2048,
    peers: PEERS.len(),
};

/// Ours alone, to see what a change costs.
const QUICK: Effort = Effort {
    frames: 1024,
    units: 512,
    peers: 2,
};

const SIZES: [(&str, u64); 3] = [("64 B", 64), ("1 KiB", 1024), ("16 KiB", 16 * 1024 - 8)];
const WORKS: [&str; 4] = [
    "decode",
    "transmit",
    "application to application",
    "the same, resumable",
];
/// As the program `mux` calls them.
const PEERS: [&str; 6] = [
    "mcp-tunnel",
    "mcp-tunnel, resumable",
    "yamux",
    "tokio-yamux",
    "h2",
    "tls",
];
/// The load, how many units make one that is shown, and its name.
const LOADS: [(&str, u64, &str); 6] = [
    ("bulk1", 64, "64 KiB of bulk, 1 stream"),
    ("bulk64", 64, "64 KiB of bulk, 64 streams"),
    ("turns1", 1, "1 KiB ping-pong, 1 stream"),
    ("turns64", 1, "1 KiB ping-pong, 64 streams"),
    ("calls1", 1, "open, call, close; 1 at once"),
    ("calls64", 1, "open, call, close; 64 at once"),
];

/// Seconds after which a run counts as stuck.
const LONGEST: &str = "120";

/// Prints the tables, and answers with their figures.
pub(super) fn run(codec: &Path, mux: &Path, quick: bool) -> Result<Value> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!(
            "\n== instructions: left out, there is no valgrind (`cargo xtask setup --benches`)"
        );
        return Ok(Value::Null);
    }
    eprintln!("\n== instructions");
    let effort = if quick { &QUICK } else { &FULL };
    let frames = frames(codec, effort)?;
    let loads = loads(mux, effort)?;
    Ok(json!({ "frames": frames, "loads": loads }))
}

fn frames(codec: &Path, effort: &Effort) -> Result<Vec<Value>> {
    heading("instructions per frame", &SIZES.map(|(name, _)| name));
    let mut rows = Vec::new();
    for work in WORKS {
        let mut counts = Vec::new();
        for (_, size) in SIZES {
            let frames = effort.frames;
            let more = added(codec, &format!("{work}:{size}"), frames)?;
            counts.push(Some(more / frames));
        }
        rows.push(row(work, &counts));
    }
    Ok(rows)
}

fn loads(mux: &Path, effort: &Effort) -> Result<Vec<Value>> {
    let peers = PEERS.get(..effort.peers).unwrap_or_default();
    heading("instructions, both ends in memory, TLS included", peers);
    let mut rows = Vec::new();
    for (load, shown, name) in LOADS {
        let mut counts = Vec::new();
        for peer in peers {
            let more = || added(mux, &format!("{load}:{peer}"), effort.units * shown);
            counts.push(if fits(peer, load) {
                Some(more()? / effort.units)
            } else {
                None
            });
        }
        rows.push(row(name, &counts));
    }
    Ok(rows)
}

/// TLS alone has one stream, and no calls; tokio-yamux stops under bulk.
fn fits(peer: &str, load: &str) -> bool {
    match peer {
        "tls" => matches!(load, "bulk1" | "turns1"),
        "tokio-yamux" => !load.starts_with("bulk"),
        _ => true,
    }
}

/// Instructions of `count` times the work.
fn added(program: &Path, work: &str, count: u64) -> Result<u64> {
    let less = collect(program, work, count)?;
    let more = collect(program, work, 2 * count)?;
    Ok(more.saturating_sub(less))
}

/// Instructions of one run.
fn collect(program: &Path, work: &str, count: u64) -> Result<u64> {
    let output = Command::new("timeout")
        .args([LONGEST, "valgrind"])
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["--once", work, &count.to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{work} under valgrind: {said}");
    let line = said.lines().find_map(|line| line.split_once("Collected :"));
    let (_, number) = line.with_context(|| format!("no count in what valgrind said: {said}"))?;
    Ok(number.trim().parse()?)
}

fn heading(title: &str, columns: &[&str]) {
    println!("\n| {title} | {} |", columns.join(" | "));
    println!("|---|{}", "---|".repeat(columns.len()));
}

/// Prints a row, and answers with it.
fn row(name: &str, counts: &[Option<u64>]) -> Value {
    let texts = counts
        .iter()
        .map(|count| count.map_or_else(String::new, with_separators));
    println!("| {name} | {} |", texts.collect::<Vec<_>>().join(" | "));
    json!({ "name": name, "figures": counts })
}

fn with_separators(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
