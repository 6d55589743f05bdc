//! Which crate may use which: the picture in ARCHITECTURE.md as a table.

use crate::packages;
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;

/// Normal dependencies inside the workspace; the table is complete.
const USES: [(&str, &[&str]); 22] = [
    ("managed-agents-api", &[]),
    ("managed-agents-client", &["managed-agents-api"]),
    ("managed-agents-loop", &["managed-agents-api"]),
    (
        "managed-agents-server",
        &[
            "managed-agents-api",
            "managed-agents-loop",
            "managed-agents-service",
            "mcp-dial-guard",
            "mcp-skill-zip",
            "mcp-tunnel-auth",
        ],
    ),
    (
        "managed-agents-service",
        &["managed-agents-api", "mcp-tunnel-auth"],
    ),
    (
        "mcp-console",
        &[
            "managed-agents-api",
            "managed-agents-service",
            "mcp-tunnel-auth",
        ],
    ),
    ("mcp-diagnostics", &[]),
    ("mcp-dial-guard", &[]),
    ("mcp-messages", &[]),
    ("mcp-sandbox-conformance", &["mcp-sandbox-executor"]),
    ("mcp-sandbox-executor", &[]),
    (
        "mcp-sandbox-linux",
        &["mcp-sandbox-executor", "mcp-sandbox-tools"],
    ),
    (
        "mcp-sandbox-tools",
        &["mcp-sandbox-executor", "mcp-skill-zip"],
    ),
    (
        "mcp-sandbox-worker",
        &[
            "managed-agents-api",
            "managed-agents-client",
            "mcp-diagnostics",
            "mcp-sandbox-executor",
            "mcp-sandbox-tools",
            "mcp-tunnel-auth",
        ],
    ),
    (
        "mcp-tunnel-connector",
        &[
            "mcp-diagnostics",
            "mcp-dial-guard",
            "mcp-messages",
            "mcp-tunnel-auth",
            "mcp-tunnel-proto",
            "mcp-tunnel-transport",
        ],
    ),
    (
        "mcp-tunnel-edge",
        &[
            "mcp-messages",
            "mcp-tunnel-auth",
            "mcp-tunnel-proto",
            "mcp-tunnel-transport",
        ],
    ),
    ("mcp-skill-zip", &[]),
    ("mcp-tunnel-auth", &[]),
    ("mcp-tunnel-proto", &[]),
    ("mcp-tunnel-transport", &["mcp-tunnel-proto"]),
    // Binaries, examples and tools compose freely.
    ("mcp-sandbox", ANY),
    ("mcp-tunnel-gateway", ANY),
];
const ANY: &[&str] = &["*"];

/// The package that only its own tests may lean on.
const TESTKIT: &str = "mcp-tunnel-testkit";

pub(super) fn check() -> Result<Vec<String>> {
    let table: BTreeMap<&str, &[&str]> = USES.into_iter().collect();
    let packages = packages::all()?;
    let names: Vec<&str> = packages
        .iter()
        .filter_map(|package| package["name"].as_str())
        .collect();
    let mut findings = Vec::new();
    for package in &packages {
        let name = package["name"].as_str().context("name")?;
        let manifest = package["manifest_path"].as_str().context("manifest_path")?;
        let is_crate = manifest.contains("/crates/");
        if is_crate && !manifest.ends_with(&format!("/crates/{name}/Cargo.toml")) {
            findings.push(format!("{manifest}: folder and crate differ in name"));
        }
        let allowed = table.get(name).copied();
        if is_crate && allowed.is_none() && name != TESTKIT {
            findings.push(format!(
                "{name}: missing in the table of xtask/src/tidy/edges.rs"
            ));
        }
        for used in uses(package, &names) {
            let free = allowed.is_none_or(|list| list == ANY || list.contains(&used.name));
            if is_crate && name != TESTKIT && !used.dev && !free {
                findings.push(format!("{name} uses {}: not in ARCHITECTURE.md", used.name));
            }
        }
    }
    Ok(findings)
}

struct Use<'a> {
    name: &'a str,
    dev: bool,
}

fn uses<'a>(package: &'a Value, names: &'a [&str]) -> impl Iterator<Item = Use<'a>> {
    package["dependencies"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|dependency| {
            let name = dependency["name"].as_str()?;
            let dev = dependency["kind"].as_str() == Some("dev");
            names.contains(&name).then_some(Use { name, dev })
        })
}
