//! From a message to the start of its tool: `bash` that prints the time, which is that of the same clock here and there.
//!
//! ```text
//!  client ─ user.message ─► console ─ agent.tool_use ─► worker ─► bash: $EPOCHREALTIME
//!  t0 ────────────────────────────────────────────────────────────────► t1     console on loopback, a process each
//! ```

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use axum::serve::ListenerExt as _;
use managed_agents_api::{
    AgentModel, AgentToolset, CreateAgent, CreateEnvironment, CreateSession, EventBody, RawJson,
    StopReason,
};
use managed_agents_client::{Client, ClientConfig, Follow};
use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use crate::report::Report;
use crate::workers::{Kind, Place};

/// The longest wait for one message's answer.
const LATE: Duration = Duration::from_secs(30);

/// The call: bash itself tells the time, no program is started.
const MESSAGE: &str =
    "```json\n[{\"name\": \"bash\", \"input\": {\"command\": \"echo $EPOCHREALTIME\"}}]\n```";

/// Measures each worker that is there, one after the other.
pub(crate) async fn measure(report: &mut Report, folder: &Path, quick: bool) -> Result<()> {
    let (server, mut running) = crate::open(&folder.join("start.db")).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    // As mcp-cloud has it: events are small, and none waits for the acknowledgement of the one before.
    let listener = listener.tap_io(|socket| drop(socket.set_nodelay(true)));
    let router = server.router();
    running.tasks.spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            println!("the console ended: {error}");
        }
    });
    let client = Client::new(ClientConfig::new(url.clone(), "operator".into()))?;
    for kind in Kind::ALL {
        if quick && kind != Kind::Ours {
            continue;
        }
        let program = match kind.find() {
            Ok(program) => program,
            Err(error) => {
                report.left_out(kind.name(), &error.to_string());
                continue;
            }
        };
        let workdir = folder.join(format!("{kind:?}"));
        std::fs::create_dir(&workdir)?;
        let scene = Scene::new(&client).await?;
        let place = Place {
            url: &url,
            environment: &scene.environment,
            key: &scene.key,
            workdir: &workdir,
        };
        let worker = kind.start(&program, &place)?;
        scene.measure(report, kind, quick).await?;
        worker.end().await?;
    }
    running.end().await;
    Ok(())
}

/// An agent, and an environment that one worker serves.
struct Scene<'a> {
    client: &'a Client,
    agent: String,
    environment: String,
    key: String,
}

/// What one message took.
struct Took {
    /// Until the tool ran.
    start: Duration,
    /// Until its result was on the client's stream.
    result: Duration,
}

impl<'a> Scene<'a> {
    async fn new(client: &'a Client) -> Result<Self> {
        let environment = CreateEnvironment::self_hosted("bench");
        let environment = client.environments().create(&environment).await?.id;
        let key = client
            .environment_keys(&environment)
            .create("bench")
            .await?;
        let agent = CreateAgent {
            tools: Some(vec![AgentToolset::default().into()]),
            ..CreateAgent::new("bench", AgentModel::named(AgentModel::SCRIPTED))
        };
        Ok(Self {
            client,
            agent: client.agents().create(&agent).await?.id,
            key: key.key.expose_secret().to_owned(),
            environment,
        })
    }

    async fn measure(&self, report: &mut Report, kind: Kind, quick: bool) -> Result<()> {
        let (messages, sessions) = match (quick, kind) {
            (true, _) => (10, 3),
            (false, Kind::Ours) => (200, 20),
            // A round is seconds of its pauses.
            (false, _) => (200, 10),
        };
        let name = kind.name();
        let (starts, results) = times(self.held(messages).await?);
        report.times(
            &format!("{name}: message to tool start, session held"),
            starts,
        );
        report.times(&format!("{name}: message to result, session held"), results);
        let (starts, results) = times(self.claimed(sessions).await?);
        report.times(
            &format!("{name}: message to tool start, new session"),
            starts,
        );
        report.times(&format!("{name}: message to result, new session"), results);
        Ok(())
    }

    /// Messages of one session, which the worker holds.
    async fn held(&self, messages: usize) -> Result<Vec<Took>> {
        let session = CreateSession::new(self.agent.as_str(), &self.environment);
        let session = self.client.sessions().create(&session).await?.id;
        let mut follow = self.client.events(&session).follow();
        let mut all = Vec::new();
        // The first ones are claimed, and warm everything up.
        for number in 0..messages + 3 {
            let at = SystemTime::now();
            let message = EventBody::user_text(MESSAGE);
            self.client.events(&session).send(&[message]).await?;
            let took = answered(&mut follow, at).await?;
            if number >= 3 {
                all.push(took);
            }
        }
        self.client.sessions().archive(&session).await?;
        Ok(all)
    }

    /// Sessions that begin with the message: a worker that waits for work claims each.
    async fn claimed(&self, sessions: usize) -> Result<Vec<Took>> {
        let message = RawJson::of(&EventBody::user_text(MESSAGE))?;
        let mut all = Vec::new();
        for number in 0..sessions {
            // The worker has left the session before, and is somewhere between two polls.
            sleep(Duration::from_millis(1500 + (number as u64 * 370) % 1000)).await;
            let mut session = CreateSession::new(self.agent.as_str(), &self.environment);
            session.initial_events = Some(vec![message.clone()]);
            let at = SystemTime::now();
            let session = self.client.sessions().create(&session).await?.id;
            let mut follow = self.client.events(&session).follow();
            all.push(answered(&mut follow, at).await?);
            self.client.sessions().archive(&session).await?;
        }
        Ok(all)
    }
}

/// Follows a message until its turn is over.
async fn answered(follow: &mut Follow, at: SystemTime) -> Result<Took> {
    let mut took = None;
    let turn = async {
        while let Some(event) = follow.next().await? {
            match event.body()? {
                EventBody::UserToolResult(result) => {
                    let result_after = at.elapsed()?;
                    let mut texts = result.content.iter().filter_map(|block| block.as_text());
                    let text = texts.next_back().unwrap_or_default();
                    let start = time(text).with_context(|| format!("a time in {text:?}"))?;
                    took = Some(Took {
                        start: start.duration_since(at)?,
                        result: result_after,
                    });
                }
                EventBody::SessionStatusIdle(idle)
                    if took.is_some() && matches!(idle.stop_reason, StopReason::EndTurn(_)) =>
                {
                    return Ok(());
                }
                _ => {}
            }
        }
        anyhow::bail!("the session ended")
    };
    timeout(LATE, turn).await.context("no answer")??;
    took.context("no result")
}

/// What bash says: seconds and microseconds since 1970.
fn time(text: &str) -> Option<SystemTime> {
    let (seconds, micros) = text.trim().split_once(['.', ','])?;
    let since = Duration::from_secs(seconds.parse().ok()?);
    Some(UNIX_EPOCH + since + Duration::from_micros(micros.parse().ok()?))
}

fn times(all: Vec<Took>) -> (Vec<Duration>, Vec<Duration>) {
    all.into_iter()
        .map(|took| (took.start, took.result))
        .unzip()
}
