//! Instructions by valgrind: they do not depend on how busy a machine is.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{path::Path, process::Command};

/// Done once and twice as often; the difference is free of what comes before and after.
const FRAMES: u64 = 4000;
const CALLS: u64 = 1000;

const SIZES: [(&str, u64); 3] = [("64 B", 64), ("1 KiB", 1024), ("16 KiB", 16 * 1024 - 8)];
const WORKS: [&str; 4] = [
    "decode",
    "transmit",
    "application to application",
    "the same, resumable",
];
const PEERS: [&str; 5] = ["mcp-tunnel", "yamux", "tokio-yamux", "h2", "tls"];
const LOADS: [(&str, &str); 3] = [
    ("bulk", "1 KiB of bulk"),
    ("turns", "1 KiB ping-pong"),
    ("calls", "open, call, close"),
];

/// Prints the tables, and answers with their figures.
pub(super) fn run(codec: &Path, mux: &Path) -> Result<Value> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!(
            "\n== instructions: left out, there is no valgrind (`cargo xtask setup --benches`)"
        );
        return Ok(Value::Null);
    }
    eprintln!("\n== instructions");
    println!(
        "\n| instructions per frame | {} |",
        SIZES.map(|(name, _)| name).join(" | ")
    );
    println!("|---|---|---|---|");
    let mut frames = Vec::new();
    for work in WORKS {
        let mut counts = Vec::new();
        for (_, size) in SIZES {
            counts.push(per_unit(codec, &format!("{work}:{size}"), FRAMES)?);
        }
        println!("| {work} | {} |", shown(&counts));
        frames.push(json!({ "name": work, "figures": counts }));
    }
    println!(
        "\n| instructions, both ends in memory, TLS included | {} |",
        PEERS.join(" | ")
    );
    println!("|---|---|---|---|---|---|");
    let mut loads = Vec::new();
    for (load, name) in LOADS {
        let mut counts = Vec::new();
        for peer in PEERS {
            // TLS alone has one stream only.
            let fits = peer != "tls" || load != "calls";
            let count = || per_unit(mux, &format!("{load}:{peer}"), CALLS);
            counts.push(if fits { Some(count()?) } else { None });
        }
        let texts = counts
            .iter()
            .map(|count| count.map_or_else(String::new, with_separators));
        println!("| {name} | {} |", texts.collect::<Vec<_>>().join(" | "));
        loads.push(json!({ "name": name, "figures": counts }));
    }
    Ok(json!({ "frames": frames, "loads": loads }))
}

fn per_unit(program: &Path, work: &str, count: u64) -> Result<u64> {
    let (less, more) = (
        collect(program, work, count)?,
        collect(program, work, 2 * count)?,
    );
    Ok(more.saturating_sub(less) / count)
}

/// Instructions of one run.
fn collect(program: &Path, work: &str, count: u64) -> Result<u64> {
    let output = Command::new("valgrind")
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

fn shown(counts: &[u64]) -> String {
    let texts: Vec<_> = counts.iter().copied().map(with_separators).collect();
    texts.join(" | ")
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
