//! Third-party MCP clients, each made to list the tools and call one of them.

use crate::{
    process::Process,
    rmcp_client,
    tools::{self, Need},
};
use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{path::PathBuf, time::Duration};
use tokio::process::Command;

/// How long one client may take, start to end.
const DEADLINE: Duration = Duration::from_secs(60);

/// A client and the way in which it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Driver {
    /// Python SDK, `initialize` handshake.
    PythonLegacy,
    /// Python SDK, probes first (its default).
    PythonAuto,
    /// Python SDK, `2026-07-28` without a probe.
    PythonModern,
    /// Python SDK over HTTP+SSE of 2024-11-05.
    PythonSse,
    /// TypeScript SDK 1.x.
    TypeScript1,
    /// TypeScript client 2.x (its default is the handshake).
    TypeScript2,
    /// TypeScript client 2.x, probes first.
    TypeScript2Auto,
    /// MCP Inspector's command line, as it comes.
    Inspector,
    /// MCP Inspector's command line, modern era.
    InspectorModern,
    /// rmcp, `initialize` handshake.
    RmcpLegacy,
    /// rmcp, `server/discover`.
    RmcpModern,
}

/// Where and how a client calls.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Target {
    /// The MCP endpoint.
    pub url: String,
    /// Headers for every request.
    pub headers: Vec<(String, String)>,
    /// A certificate authority to trust, PEM.
    pub ca: Option<PathBuf>,
    /// Names that end in this resolve to 127.0.0.1.
    pub resolve: Option<String>,
    /// The tool to call.
    pub tool: String,
    /// Its arguments.
    pub arguments: Value,
}

impl Target {
    /// Calls `echo` at `url`.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            headers: Vec::new(),
            ca: None,
            resolve: None,
            tool: "echo".to_owned(),
            arguments: json!({ "text": "hello" }),
        }
    }
}

/// What a client made of it.
#[derive(Clone, Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct Outcome {
    /// Whether the tool's answer arrived and was no error.
    pub ok: bool,
    /// The protocol version that was agreed, where the client tells.
    #[serde(default)]
    pub era: String,
    /// Names of the tools.
    #[serde(default)]
    pub tools: Vec<String>,
    /// Text of the tool's answer.
    #[serde(default)]
    pub text: String,
    /// Progress notifications that arrived.
    #[serde(default)]
    pub progress: u32,
    /// What the client showed its user when it failed.
    #[serde(default)]
    pub error: String,
}

impl Driver {
    /// Every driver of Streamable HTTP.
    pub const STREAMABLE_HTTP: [Self; 10] = [
        Self::PythonLegacy,
        Self::PythonAuto,
        Self::PythonModern,
        Self::TypeScript1,
        Self::TypeScript2,
        Self::TypeScript2Auto,
        Self::Inspector,
        Self::InspectorModern,
        Self::RmcpLegacy,
        Self::RmcpModern,
    ];

    /// What must be installed.
    #[must_use]
    pub fn needs(self) -> &'static [Need] {
        match self {
            Self::PythonLegacy | Self::PythonAuto | Self::PythonModern | Self::PythonSse => {
                &[Need::Python]
            }
            Self::TypeScript1 | Self::TypeScript2 | Self::TypeScript2Auto => &[Need::Node],
            Self::Inspector | Self::InspectorModern => &[Need::Node, Need::Inspector],
            Self::RmcpLegacy | Self::RmcpModern => &[],
        }
    }

    /// Lists the tools and calls one.
    ///
    /// # Errors
    /// The client could not be run at all; what it says of the server is in the outcome.
    pub async fn drive(self, target: &Target) -> Result<Outcome> {
        match self {
            Self::PythonLegacy => python("legacy", target).await,
            Self::PythonAuto => python("auto", target).await,
            Self::PythonModern => python("modern", target).await,
            Self::PythonSse => python("sse", target).await,
            Self::TypeScript1 => typescript("1", target).await,
            Self::TypeScript2 => typescript("2", target).await,
            Self::TypeScript2Auto => typescript("2-auto", target).await,
            Self::Inspector => inspector(&[], target).await,
            Self::InspectorModern => inspector(&["--protocol-era", "modern"], target).await,
            Self::RmcpLegacy => rmcp_client::drive(rmcp_client::legacy(), target).await,
            Self::RmcpModern => rmcp_client::drive(rmcp_client::modern(), target).await,
        }
    }
}

async fn python(mode: &str, target: &Target) -> Result<Outcome> {
    let mut command = Command::new(tools::python());
    command
        .arg(tools::script("client.py"))
        .args([mode, &target.url]);
    if let Some(ca) = &target.ca {
        command.env("SSL_CERT_FILE", ca);
    }
    scripted("Python client", command, target).await
}

async fn typescript(sdk: &str, target: &Target) -> Result<Outcome> {
    let mut command = node_command(target)?;
    command
        .env("DRIVER_MODULES", tools::root().join("node"))
        .arg(tools::script("client.mjs"))
        .args([sdk, &target.url]);
    scripted("TypeScript client", command, target).await
}

/// Runs a script that prints one JSON object.
async fn scripted(name: &str, mut command: Command, target: &Target) -> Result<Outcome> {
    let headers: serde_json::Map<_, _> = target
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
        .collect();
    command
        .env("DRIVER_HEADERS", Value::from(headers).to_string())
        .env("DRIVER_TOOL", &target.tool)
        .env("DRIVER_ARGUMENTS", target.arguments.to_string());
    if let Some(suffix) = &target.resolve {
        command.env("DRIVER_RESOLVE", suffix);
    }
    let said = run(name, command).await?.1;
    let report = said.lines().rev().find(|line| line.starts_with('{'));
    let report = report.with_context(|| format!("{name} reported nothing:\n{said}"))?;
    Ok(serde_json::from_str(report)?)
}

async fn inspector(options: &[&str], target: &Target) -> Result<Outcome> {
    let (listed, tools) = inspect(options, target, "tools/list").await?;
    if !listed {
        return Ok(Outcome {
            error: tools,
            ..Outcome::default()
        });
    }
    let (called, answer) = inspect(options, target, "tools/call").await?;
    let answer: Value = serde_json::from_str(&answer).unwrap_or(Value::String(answer));
    let tools: Value = serde_json::from_str(&tools)?;
    let names = tools["tools"].as_array().into_iter().flatten();
    Ok(Outcome {
        ok: called && answer["isError"] != true,
        tools: names
            .filter_map(|tool| tool["name"].as_str())
            .map(str::to_owned)
            .collect(),
        text: answer["content"][0]["text"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        ..Outcome::default()
    })
}

/// Runs the Inspector once; what it printed is JSON or an error text.
async fn inspect(options: &[&str], target: &Target, method: &str) -> Result<(bool, String)> {
    let mut command = node_command(target)?;
    command
        .arg(tools::modules("inspector").join(".bin/mcp-inspector"))
        .args(["--cli", "--server-url", &target.url, "--transport", "http"])
        .args(options)
        .args(["--method", method]);
    for (name, value) in &target.headers {
        command.args(["--header", &format!("{name}: {value}")]);
    }
    if method == "tools/call" {
        command.args(["--tool-name", &target.tool]);
        for (name, value) in target.arguments.as_object().into_iter().flatten() {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            command.args(["--tool-arg", &format!("{name}={value}")]);
        }
    }
    let (ok, said) = run("MCP Inspector", command).await?;
    // It may remark on the end of the session after the answer, on standard error.
    let start = said.find('{').unwrap_or(0);
    let end = said.rfind('}').map_or(said.len(), |end| end + 1);
    Ok((ok, said.get(start..end).unwrap_or(&said).to_owned()))
}

fn node_command(target: &Target) -> Result<Command> {
    let mut command = Command::new(tools::node().context("no Node.js")?);
    if let Some(ca) = &target.ca {
        command.env("NODE_EXTRA_CA_CERTS", ca);
    }
    if let Some(suffix) = &target.resolve {
        command.env("DRIVER_RESOLVE", suffix);
        command.arg("--import").arg(tools::script("lookup.mjs"));
    }
    Ok(command)
}

async fn run(name: &str, command: Command) -> Result<(bool, String)> {
    let mut process = Process::start(name, command)?;
    let status = process.exit(DEADLINE).await?;
    Ok((status.success(), process.log().text()))
}
