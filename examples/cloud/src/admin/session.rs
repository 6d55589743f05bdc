//! `mcp-cloud session`: commands in an environment, without a model.

use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};
use managed_agents_api::{
    Agent, AgentModel, AgentTool, AgentToolset, ContentBlock, CreateAgent, CreateSession, Event,
    EventBody, EventFilter, PageQuery, Session, StopReason, UserMessage,
};
use serde::Serialize;
use serde_json::json;
use tokio::time::timeout;

use super::table::{Table, ago, or_dash, visible};
use super::{Cloud, environment};
use crate::failure::Failure;
use crate::out::say;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs shell commands in an environment, to see whether its workers work
    Run(RunArguments),
    /// Shows a session, and what happened in it
    Show {
        /// Its id
        session: String,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RunArguments {
    /// Id or name; may be left out where there is only one
    #[arg(long, value_name = "ENVIRONMENT")]
    environment: Option<String>,
    /// Seconds to wait for each result
    #[arg(long, value_name = "SECONDS", default_value = "180")]
    wait: u64,
    /// Commands, one call of the tool `bash` each
    #[arg(required = true, value_name = "COMMAND")]
    commands: Vec<String>,
}

/// One call, and what came back.
#[derive(Debug, Serialize)]
struct Answered {
    command: String,
    is_error: bool,
    output: String,
}

/// The exit code is 1 where a command failed.
pub(crate) async fn run(cloud: &Cloud, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Run(arguments) => run_commands(cloud, arguments).await,
        Command::Show { session } => show(cloud, &session).await.map(|()| 0),
    }
}

async fn run_commands(cloud: &Cloud, arguments: RunArguments) -> Result<u8, Failure> {
    let environment = environment::find(cloud, arguments.environment.as_deref()).await?;
    let agent = scripted(cloud).await?;
    let mut new = CreateSession::new(&agent.id, &environment.id);
    new.title = Some("mcp-cloud session run".to_owned());
    let session = cloud.client.sessions().create(&new).await?;
    let calls: Vec<_> = arguments
        .commands
        .iter()
        .map(|command| json!({"name": "bash", "input": {"command": command}}))
        .collect();
    let calls = serde_json::to_string_pretty(&calls).map_err(Failure::internal)?;
    let message = EventBody::UserMessage(UserMessage {
        content: vec![ContentBlock::text(format!("```json\n{calls}\n```"))],
    });
    cloud.client.events(&session.id).send(&[message]).await?;
    let wait = Duration::from_secs(arguments.wait);
    let answered = answers(cloud, &session, arguments.commands, wait).await?;
    cloud.client.sessions().archive(&session.id).await?;
    let answer = json!({"session_id": session.id, "calls": answered});
    cloud.answer(&answer, || {
        for one in &answered {
            say!("$ {}", visible(&one.command));
            for line in one.output.lines() {
                say!("{}", visible(line));
            }
            if one.is_error {
                say!("(failed)");
            }
        }
    })?;
    Ok(u8::from(answered.iter().any(|one| one.is_error)))
}

/// The results of the commands, in their order.
async fn answers(
    cloud: &Cloud,
    session: &Session,
    commands: Vec<String>,
    wait: Duration,
) -> Result<Vec<Answered>, Failure> {
    let mut commands = commands.into_iter();
    let mut answered = Vec::new();
    let mut events = cloud.client.events(&session.id).follow();
    loop {
        let event = timeout(wait, events.next()).await;
        let event = event.map_err(|_| nobody(cloud, session))??;
        let Some(event) = event else {
            return Err(Failure::refused(
                "the session ended before its commands did",
                format!("see why: {} session show {}", cloud.called_as, session.id),
            ));
        };
        match event.body().map_err(Failure::internal)? {
            EventBody::UserToolResult(result) => answered.push(Answered {
                command: commands.next().unwrap_or_default(),
                is_error: result.is_error == Some(true),
                output: text_of(&result.content),
            }),
            EventBody::SessionStatusIdle(idle) => match idle.stop_reason {
                StopReason::RequiresAction(_) => {}
                StopReason::EndTurn(_) => return Ok(answered),
                other => {
                    return Err(Failure::refused(
                        format_args!("the session stopped: {}", other.kind()),
                        format!("see why: {} session show {}", cloud.called_as, session.id),
                    ));
                }
            },
            _ => {}
        }
    }
}

fn nobody(cloud: &Cloud, session: &Session) -> Failure {
    Failure::unreachable(
        anyhow::anyhow!("no worker answered"),
        format!(
            "is one running (mcp-sandbox worker), with a key of {}? see what is: {} environment list",
            session.environment_id, cloud.called_as
        ),
    )
}

/// The agent that does what messages spell out: made once, found later.
async fn scripted(cloud: &Cloud) -> Result<Agent, Failure> {
    let mut query = PageQuery {
        include_archived: None,
        limit: Some(managed_agents_api::LIMIT_MAX),
        page: None,
    };
    loop {
        let page = cloud.client.agents().page(&query).await?;
        let found = page.data.into_iter().find(|agent| agent.name == AGENT);
        if let Some(agent) = found.filter(|agent| agent.model.id == AgentModel::SCRIPTED) {
            return Ok(agent);
        }
        query.page = page.next_page;
        if query.page.is_none() {
            break;
        }
    }
    let mut new = CreateAgent::new(AGENT, AgentModel::named(AgentModel::SCRIPTED));
    new.tools = Some(vec![AgentTool::Toolset(AgentToolset::default())]);
    Ok(cloud.client.agents().create(&new).await?)
}

async fn show(cloud: &Cloud, id: &str) -> Result<(), Failure> {
    let session = cloud.client.sessions().retrieve(id).await?;
    let events = history(cloud, id).await?;
    let answer = json!({"session": session, "events": events});
    cloud.answer(&answer, || {
        say!("session      {}", session.id);
        say!("status       {}", session.status);
        say!(
            "title        {}",
            or_dash(session.title.as_deref().map(visible))
        );
        say!(
            "agent        {} version {}",
            visible(&session.agent.name),
            session.agent.version
        );
        say!("environment  {}", session.environment_id);
        say!("created      {}", ago(Some(session.created_at)));
        say!();
        let mut table = Table::new(&["EVENT", "WHEN", "WHAT"]);
        for event in &events {
            table.row([
                event.kind().to_string(),
                ago(event.processed_at()),
                what(event),
            ]);
        }
        table.print("nothing happened in it yet");
    })
}

async fn history(cloud: &Cloud, id: &str) -> Result<Vec<Event>, Failure> {
    let mut filter = EventFilter::default();
    let mut all = Vec::new();
    loop {
        let page = cloud.client.events(id).page(&filter).await?;
        all.extend(page.data);
        filter.page = page.next_page;
        if filter.page.is_none() {
            return Ok(all);
        }
    }
}

/// A few words of an event: neither arguments nor outputs, which may be long or secret.
fn what(event: &Event) -> String {
    match event.body() {
        Ok(EventBody::AgentToolUse(call)) => call.name,
        Ok(EventBody::AgentCustomToolUse(call)) => call.name,
        Ok(EventBody::UserToolResult(result)) if result.is_error == Some(true) => {
            "failed".to_owned()
        }
        Ok(EventBody::SessionStatusIdle(idle)) => idle.stop_reason.kind().to_owned(),
        Ok(EventBody::SessionError(error)) => error.error.message,
        _ => String::new(),
    }
}

fn text_of(content: &[ContentBlock]) -> String {
    let texts: Vec<&str> = content.iter().filter_map(ContentBlock::as_text).collect();
    texts.join("\n")
}

/// Its name in the list of agents.
const AGENT: &str = "mcp-cloud session run";
