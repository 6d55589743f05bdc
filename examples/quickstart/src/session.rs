//! A session of an agent: a worker on this machine runs its tool calls in a sandbox.

use crate::process::{self, Program};
use crate::steps::{Steps, milliseconds};
use crate::tour::{text, write_secret};
use anyhow::{Context, Result, bail};
use managed_agents_client::api::{
    AgentModel, AgentToolset, CreateAgent, CreateEnvironment, CreateSession, EventBody, StopReason,
};
use managed_agents_client::{Client, Follow};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How long a message may take until all of its calls are answered.
const TIME: Duration = Duration::from_secs(30);

/// Shows a session; answers with the worker, where this machine can make sandboxes.
pub(crate) async fn show(
    steps: &mut Steps,
    programs: &Path,
    folder: &Path,
    client: &Client,
    api: &str,
) -> Result<Option<Program>> {
    let Some(tier) = isolation(steps, programs).await? else {
        return Ok(None);
    };
    let (environment, agent, worker) = worker(steps, programs, folder, client, api).await?;

    steps.step("Send the agent a message: it runs commands, and reads what they wrote");
    let mut session = Session::create(client, &agent, &environment).await?;
    let command = "id; echo /*; echo hello from the sandbox > note";
    let calls = json!([bash(command), {"name": "read", "input": {"file_path": "note"}}]);
    steps.command(command);
    let answers = session.run(&calls, &worker).await?;
    for (answer, since) in answers.iter().zip(["the message", "that result"]) {
        steps.say(&answer.text);
        let (name, took) = (&answer.name, milliseconds(answer.took));
        match answer.failed {
            true => bail!("{name} failed"),
            false => steps.good(&format!("{name}: {took} from {since} to its result")),
        }
    }

    let lacks = reach(steps, folder, &mut session, &worker).await?;
    if !lacks.is_empty() && !tier.starts_with("T3") {
        bail!("the sandbox let something through: {}", lacks.join(", "));
    }
    client.sessions().archive(&session.id).await?;
    Ok(Some(worker))
}

/// What keeps sandboxes apart from this machine, in one line; none where nothing can.
async fn isolation(steps: &mut Steps, programs: &Path) -> Result<Option<String>> {
    steps.step("Look at the isolation that this machine gives to sandboxes");
    steps.command("mcp-sandbox check");
    let check = process::output(programs, "mcp-sandbox", &["check", "--json"]).await?;
    let report: Value = serde_json::from_slice(&check.stdout)
        .with_context(|| String::from_utf8_lossy(&check.stderr).into_owned())
        .context("reading the report of mcp-sandbox check")?;
    let said = |line: &Value, member: &str| line[member].as_str().unwrap_or_default().to_owned();
    let mut tier = None;
    for line in report["lines"].as_array().into_iter().flatten() {
        match (line["hop"].as_str(), line["status"].as_str()) {
            (Some("tier"), Some("ok" | "warn")) => {
                steps.good(&said(line, "text"));
                tier = Some(said(line, "text"));
            }
            (Some("tier" | "stronger tier"), _) => {
                steps.less(&said(line, "text"));
                steps.say(&said(line, "cure"));
            }
            _ => {}
        }
    }
    if tier.is_none() {
        steps.less("no sandbox can be made here, so no session is shown");
    }
    Ok(tier)
}

/// Everything that a session needs, on the cloud and here: ids of an environment and an agent, and the worker.
async fn worker(
    steps: &mut Steps,
    programs: &Path,
    folder: &Path,
    client: &Client,
    api: &str,
) -> Result<(String, String, Program)> {
    steps.step("Create an environment with a key for its worker, and an agent");
    let environment = CreateEnvironment::self_hosted("quickstart");
    let environment = client.environments().create(&environment).await?.id;
    let key = client.environment_keys(&environment);
    let key = key.create("quickstart").await?;
    let agent = CreateAgent {
        tools: Some(vec![AgentToolset::default().into()]),
        ..CreateAgent::new("quickstart", AgentModel::named(AgentModel::SCRIPTED))
    };
    let agent = client.agents().create(&agent).await?.id;
    steps.good(&environment);
    steps.good(&format!(
        "{agent} makes the calls that a message lists: no model is asked"
    ));

    steps.step(
        "Start a worker; it claims sessions from the environment's queue, and listens nowhere",
    );
    let key_file = folder.join("environment-key");
    write_secret(&key_file, &key.key)?;
    let files = folder.join("sandboxes");
    let args = [
        "--log-format",
        "json",
        "worker",
        "--base-url",
        api,
        "--environment-id",
        &environment,
        "--environment-key-file",
        text(&key_file)?,
        "--workdir",
        text(&files)?,
    ];
    let mut worker = Program::start(programs, "mcp-sandbox", &args)?;
    worker
        .wait_for(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == "polling").then_some(())
        })
        .await?;
    steps.good(&format!("process {} waits for work", worker.pid()?));
    Ok((environment, agent, worker))
}

/// Tries to get at what this program has; answers with what got through.
async fn reach(
    steps: &mut Steps,
    folder: &Path,
    session: &mut Session<'_>,
    worker: &Program,
) -> Result<Vec<&'static str>> {
    steps.step("See what the sandbox cannot reach");
    let secret = folder.join("secret");
    std::fs::write(&secret, "of this host\n").context("writing a file to look for")?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening")?;
    let port = listener.local_addr()?.port();
    let own = std::process::id();
    let secret = quoted(text(&secret)?);
    let tries = [
        ("read a file of this host", format!("cat {secret}")),
        (
            "connect to a port of this host",
            format!("(exec 3<>/dev/tcp/127.0.0.1/{port})"),
        ),
        (
            "see this program",
            format!("grep -s quickstart /proc/{own}/comm"),
        ),
        ("write to /usr", "touch /usr/quickstart".to_owned()),
        (
            "find a credential of its worker",
            "env | grep ANTHROPIC_".to_owned(),
        ),
    ];
    let calls = tries.iter().map(|(_, command)| bash(command));
    let answers = session.run(&calls.collect(), worker).await?;
    let mut lacks = Vec::new();
    for ((what, command), answer) in tries.iter().zip(&answers) {
        steps.command(command);
        match answer.failed {
            true => steps.good(&format!("it could not {what}")),
            false => {
                steps.less(&format!("it could {what}"));
                lacks.push(*what);
            }
        }
    }
    Ok(lacks)
}

fn bash(command: &str) -> Value {
    json!({"name": "bash", "input": {"command": command}})
}

/// A text as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

struct Session<'a> {
    client: &'a Client,
    id: String,
    events: Follow,
}

/// What came of a call.
struct Answer {
    name: String,
    text: String,
    failed: bool,
    /// Since what happened before it.
    took: Duration,
}

impl<'a> Session<'a> {
    async fn create(client: &'a Client, agent: &str, environment: &str) -> Result<Self> {
        let session = CreateSession::new(agent, environment);
        let id = client.sessions().create(&session).await?.id;
        let events = client.events(&id).follow();
        Ok(Self { client, id, events })
    }

    /// Has the agent make these calls, one after the other.
    async fn run(&mut self, calls: &Value, worker: &Program) -> Result<Vec<Answer>> {
        let answers = timeout(TIME, self.answers(calls)).await;
        answers.unwrap_or_else(|_| {
            bail!(
                "the session has no answer after {TIME:?}; the worker said:\n{}",
                worker.said()
            )
        })
    }

    async fn answers(&mut self, calls: &Value) -> Result<Vec<Answer>> {
        let message = EventBody::user_text(format!("~~~json\n{calls}\n~~~"));
        let mut since = Instant::now();
        let sent = self.client.events(&self.id).send(&[message]).await?;
        let sent = sent.first().context("the message as it was stored")?;
        let (mut begun, mut names, mut answers) = (false, Vec::new(), Vec::new());
        while let Some(event) = self.events.next().await? {
            begun |= event.id() == sent.id();
            match event.body()? {
                _ if !begun => {}
                EventBody::AgentToolUse(call) => names.push(call.name),
                EventBody::UserToolResult(result) => {
                    let took = since.elapsed();
                    since = Instant::now();
                    let texts = result.content.iter().filter_map(|block| block.as_text());
                    answers.push(Answer {
                        name: names.get(answers.len()).cloned().unwrap_or_default(),
                        text: texts.collect(),
                        failed: result.is_error == Some(true),
                        took,
                    });
                }
                EventBody::SessionStatusIdle(idle) => match idle.stop_reason {
                    StopReason::RequiresAction(_) => {}
                    _ => return Ok(answers),
                },
                _ => {}
            }
        }
        bail!("the session ended before its calls were answered")
    }
}
