//! `mcp-cloud session`: calls in an environment, without a model.

mod told;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};
use managed_agents_api::{
    Agent, AgentModel, AgentToolset, CreateAgent, CreateSession, Event, EventBody, EventFilter,
    PageQuery, Session, StopReason,
};
use managed_agents_client::Follow;
use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::table::{ago, or_dash, visible};
use super::{Cloud, environment};
use crate::failure::Failure;
use crate::out::say;
use told::Teller;

/// The agent that `session run` makes once, and finds again; the title of its sessions too.
const AGENT: &str = "mcp-cloud session run";

/// Why nothing goes on is asked after this long without news, and then every so often.
const QUIET: Duration = Duration::from_secs(3);

/// Events of a page of history.
const PAGE: u32 = 100;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs shell commands or tool calls in an environment, to see whether its workers work
    Run(RunArguments),
    /// Shows a session, what happened in it, and why nothing goes on
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
    #[arg(value_name = "COMMAND", required_unless_present_any = ["script", "message"])]
    commands: Vec<String>,
    /// File with a JSON list of calls, {"name", "input"}: one turn each, an inner list at once
    #[arg(long, value_name = "FILE", conflicts_with_all = ["commands", "message"])]
    script: Option<PathBuf>,
    /// A message, as it is
    #[arg(long, value_name = "TEXT", conflicts_with = "commands")]
    message: Option<String>,
    /// Another agent than the scripted one
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
    /// Goes on with a session that was kept
    #[arg(long, value_name = "ID", conflicts_with_all = ["agent", "environment"])]
    session: Option<String>,
    /// Leaves the session open, with its files, for --session
    #[arg(long)]
    keep: bool,
}

/// The exit code is 1 where a call failed.
pub(crate) async fn run(cloud: &Cloud, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Run(arguments) => start(cloud, arguments).await,
        Command::Show { session } => show(cloud, &session).await.map(|()| 0),
    }
}

async fn start(cloud: &Cloud, arguments: RunArguments) -> Result<u8, Failure> {
    let message = message(&arguments)?;
    let archive = arguments.session.is_none() && !arguments.keep;
    let session = session(cloud, &arguments).await?;
    let events = cloud.client.events(&session.id);
    let sent = events.send(&[EventBody::user_text(message)]).await?;
    let mut run = Run {
        cloud,
        session: &session,
        message: sent.into_iter().next(),
        begun: false,
        teller: Teller::new(!arguments.commands.is_empty()),
        seen: Vec::new(),
    };
    run.follow(events.follow(), Duration::from_secs(arguments.wait))
        .await?;
    let Run { teller, seen, .. } = run;
    if archive {
        cloud.client.sessions().archive(&session.id).await?;
    }
    let answer = Answer {
        session_id: &session.id,
        session: &cloud.client.sessions().retrieve(&session.id).await?,
        events: &seen,
    };
    cloud.answer(&answer, || {
        if !archive {
            let (called_as, id) = (&cloud.called_as, &session.id);
            say!("next: {called_as} session run --session {id} COMMAND");
        }
    })?;
    Ok(u8::from(teller.failed()))
}

/// The session that is run in: one that was kept, or a new one.
async fn session(cloud: &Cloud, arguments: &RunArguments) -> Result<Session, Failure> {
    if let Some(id) = &arguments.session {
        return Ok(cloud.client.sessions().retrieve(id).await?);
    }
    let environment = environment::find(cloud, arguments.environment.as_deref()).await?;
    let agent = match &arguments.agent {
        Some(id) => id.clone(),
        None => scripted(cloud).await?.id,
    };
    let mut new = CreateSession::new(agent, &environment.id);
    new.title = Some(AGENT.to_owned());
    Ok(cloud.client.sessions().create(&new).await?)
}

/// A session for programs.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    session_id: &'a str,
    session: &'a Session,
    events: &'a [Event],
}

/// One message on its way, and what was seen of it.
struct Run<'a> {
    cloud: &'a Cloud,
    session: &'a Session,
    message: Option<Event>,
    /// Whether the message has been seen in the history.
    begun: bool,
    teller: Teller,
    seen: Vec<Event>,
}

impl Run<'_> {
    /// Shows what happens until the agent is idle again.
    async fn follow(&mut self, mut follow: Follow, wait: Duration) -> Result<(), Failure> {
        let mut news_at = Instant::now();
        let mut ask_at = news_at + QUIET;
        let mut told = None;
        loop {
            tokio::select! {
                event = follow.next() => {
                    let Some(event) = event? else { return Ok(()) };
                    news_at = Instant::now();
                    ask_at = news_at + QUIET;
                    if self.take(event).await? {
                        return Ok(());
                    }
                }
                () = sleep_until(ask_at.min(news_at + wait)) => {
                    let why = why(self.cloud, &self.session.id).await?;
                    if news_at.elapsed() >= wait {
                        return Err(self.late(why));
                    }
                    if why.is_some() && why != told && !self.cloud.json {
                        say!("… {}", visible(why.as_deref().unwrap_or_default()));
                    }
                    told = why;
                    ask_at = Instant::now() + QUIET;
                }
            }
        }
    }

    /// Shows the event; whether it is the end.
    async fn take(&mut self, event: Event) -> Result<bool, Failure> {
        let sent = self.message.as_ref();
        self.begun |= sent.is_none_or(|sent| sent.id() == event.id());
        if !self.begun {
            return Ok(false);
        }
        let lines = self.teller.tell(&event);
        if !self.cloud.json {
            lines.iter().for_each(|line| say!("{line}"));
        }
        let end = match event.body() {
            Ok(EventBody::SessionStatusIdle(idle)) => {
                let at_rest = !matches!(idle.stop_reason, StopReason::RequiresAction(_));
                at_rest && self.is_answered_by(&event).await?
            }
            Ok(EventBody::SessionStatusTerminated(_) | EventBody::SessionDeleted(_)) => true,
            _ => false,
        };
        self.seen.push(event);
        Ok(end)
    }

    /// Whether the agent, idle now, has done what the message says: it may have been queued behind another turn.
    async fn is_answered_by(&self, idle: &Event) -> Result<bool, Failure> {
        let queued = |sent: &&Event| sent.processed_at().is_none();
        let Some(message) = self.message.as_ref().filter(queued) else {
            return Ok(true);
        };
        let history = history(self.cloud, &self.session.id).await?;
        let place = |id: &str| history.iter().position(|event| event.id() == id);
        Ok(place(message.id()) < place(idle.id()))
    }

    fn late(&self, why: Option<String>) -> Failure {
        let why = why.map_or_else(|| "no worker answered".to_owned(), |why| visible(&why));
        Failure::unreachable(
            anyhow::anyhow!(why),
            format!(
                "is one running (mcp-sandbox worker), with a key of {}? The session goes on: {} session show {}",
                self.session.environment_id, self.cloud.called_as, self.session.id
            ),
        )
    }
}

async fn show(cloud: &Cloud, id: &str) -> Result<(), Failure> {
    let session = cloud.client.sessions().retrieve(id).await?;
    let events = history(cloud, id).await?;
    let why = why(cloud, id).await?;
    let answer = Answer {
        session_id: id,
        session: &session,
        events: &events,
    };
    cloud.answer(&answer, || {
        say!("session      {}", session.id);
        say!("title        {}", visible(&or_dash(session.title.clone())));
        say!("agent        {}", visible(&session.agent.name));
        say!("environment  {}", session.environment_id);
        say!("status       {}", session.status);
        say!("created      {}", ago(Some(session.created_at)));
        if let Some(worker) = &session.worker {
            say!(
                "worker       {}",
                visible(&or_dash(worker.worker_id.clone()))
            );
            if let Some(reason) = &worker.last_reason {
                say!("it said      {}", visible(reason));
            }
        }
        say!();
        let mut teller = Teller::new(false);
        for line in events.iter().flat_map(|event| teller.tell(event)) {
            say!("{line}");
        }
        if let Some(why) = why {
            say!();
            say!("Nothing goes on: {}", visible(&why));
        }
    })
}

/// Why nothing goes on, as far as the server or the queue can tell.
async fn why(cloud: &Cloud, id: &str) -> Result<Option<String>, Failure> {
    let session = cloud.client.sessions().retrieve(id).await?;
    let Some(worker) = session.worker else {
        return Ok(None);
    };
    let Some(stuck) = worker.stuck else {
        return Ok(None);
    };
    if let Some(said) = worker.last_reason.filter(|said| said.contains(": ")) {
        return Ok(Some(format!("{stuck} The last one gave it back: {said}")));
    }
    let queue = cloud.client.work(&session.environment_id);
    Ok(Some(match queue.stats().await?.workers_polling {
        Some(0) => format!("{stuck} (no worker asked for work in the last 30 s)"),
        _ => stuck,
    }))
}

async fn history(cloud: &Cloud, id: &str) -> Result<Vec<Event>, Failure> {
    let mut filter = EventFilter {
        limit: Some(PAGE),
        ..EventFilter::default()
    };
    let mut events = Vec::new();
    loop {
        let page = cloud.client.events(id).page(&filter).await?;
        events.extend(page.data);
        filter.page = page.next_page;
        if filter.page.is_none() {
            return Ok(events);
        }
    }
}

/// The agent that needs no model, made once.
async fn scripted(cloud: &Cloud) -> Result<Agent, Failure> {
    let mut query = PageQuery {
        limit: Some(100),
        ..PageQuery::default()
    };
    loop {
        let page = cloud.client.agents().page(&query).await?;
        let ours = |agent: &Agent| agent.name == AGENT && agent.model.id == AgentModel::SCRIPTED;
        if let Some(agent) = page.data.into_iter().find(ours) {
            return Ok(agent);
        }
        query.page = page.next_page;
        if query.page.is_none() {
            break;
        }
    }
    let wanted = CreateAgent {
        tools: Some(vec![AgentToolset::default().into()]),
        ..CreateAgent::new(AGENT, AgentModel::named(AgentModel::SCRIPTED))
    };
    Ok(cloud.client.agents().create(&wanted).await?)
}

fn message(arguments: &RunArguments) -> Result<String, Failure> {
    if let Some(text) = &arguments.message {
        return Ok(text.clone());
    }
    let calls = match &arguments.script {
        Some(file) => read(file)?,
        None => {
            let commands = arguments.commands.iter();
            let calls: Vec<_> = commands
                .map(|command| json!({"name": "bash", "input": {"command": command}}))
                .collect();
            serde_json::to_string_pretty(&calls).map_err(Failure::internal)?
        }
    };
    Ok(format!("~~~json\n{}\n~~~", calls.trim()))
}

fn read(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|error| {
        let error = anyhow::Error::new(error).context(format!("reading {}", file.display()));
        Failure::usage(error, "a file with a JSON list of calls is expected")
    })
}
