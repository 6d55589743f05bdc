//! Calls to the queue and to one session, each with the right credential and each answer judged once.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use managed_agents_api::{
    Begun, ErrorType, Event, EventFilter, HeartbeatQuery, Page, PollQuery, RawJson, SendEvents,
    Session, SessionResource, SessionStatus, StopWork, StreamFilter, TimeRange, Work,
    WorkHeartbeat, WorkQueueStats, WorkSecret, WorkState,
};
use managed_agents_client::{BuildError, Client, ClientConfig, ClientError, EventStream};
use secrecy::SecretString;
use thiserror::Error;

use crate::config::WorkerConfig;
use crate::lease::Beat;
use crate::{observe, skills};

/// Events of one page of a history: results may have 100 KiB each.
const PAGE: u32 = 200;
/// Largest archive of a skill.
const SKILL_BYTES: usize = 32 * 1024 * 1024;
/// One call, its retries included.
const TIME: Duration = Duration::from_secs(30);
/// Posting a large result over a slow line may take longer.
const SEND_TIME: Duration = Duration::from_secs(120);

/// The one span of an item's trace that this worker names.
const SPAN: u64 = 1;

/// Why a call did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Refusal {
    /// It may succeed later.
    #[error("no answer, or not now: {why}")]
    Later {
        /// The pause that the server asks for.
        after: Option<Duration>,
        /// What happened.
        why: String,
    },
    /// No credential of ours is good for this, or not any more.
    #[error("the credential is not taken: {0}")]
    Unauthorised(String),
    /// It will never succeed.
    #[error("status {status}: {text}")]
    Final {
        /// HTTP status; 200 for an answer that makes no sense.
        status: u16,
        /// The server's words.
        text: String,
    },
}

/// Why an item cannot be served at all.
#[derive(Debug, Error)]
pub(crate) enum AccessError {
    /// Its secret names another address than the one that this worker was started with.
    #[error(
        "the item's secret names {named}, but this worker was started with {ours}: start it with that --base-url if both are the same server"
    )]
    ForeignUrl { named: String, ours: String },
    /// There is neither a secret nor an environment key.
    #[error("there is neither a secret of the item nor an environment key")]
    NoCredential,
    /// The secret's token is no header's value.
    #[error("the item's token cannot be used")]
    Token(#[from] BuildError),
}

/// The queue of an environment.
pub(crate) struct Queue {
    client: Client,
    has_key: bool,
    base_url: String,
    environment: String,
    worker: String,
}

/// One item and its session.
pub(crate) struct Access {
    item: Client,
    /// The environment key, for when the item's token is not taken any more.
    fallback: Option<Client>,
    fallen_back: AtomicBool,
    environment: String,
    work: String,
    session: String,
    worker: String,
    /// Joins this worker's log and the server's.
    trace: String,
    immediate: bool,
}

/// What a worker needs of a session.
#[derive(Debug)]
pub(crate) struct SessionView {
    /// It is terminated or archived.
    pub(crate) ended: bool,
    pub(crate) has_memory_stores: bool,
    pub(crate) skills: Vec<skills::Wanted>,
}

impl Queue {
    /// The queue that a worker is configured for.
    pub(crate) fn new(config: &WorkerConfig) -> Result<Self, BuildError> {
        let key = config.key.clone();
        let has_key = key.is_some();
        // Without a key no call is made with this credential.
        let key = key.unwrap_or_else(|| SecretString::from("none"));
        let client = ClientConfig::bearer(&config.base_url, key)
            .roots(config.roots.iter().cloned())
            .timeout(TIME);
        Ok(Self {
            client: Client::new(client)?,
            has_key,
            base_url: config.base_url.clone(),
            environment: config.environment.clone(),
            worker: config.worker_id.clone(),
        })
    }

    /// Whether there is a key to poll with.
    pub(crate) fn can_poll(&self) -> bool {
        self.has_key
    }

    /// The next item, and whether the server needs no pause between polls.
    pub(crate) async fn poll(&self) -> Result<(Option<Work>, bool), Refusal> {
        let query = PollQuery {
            block_ms: Some(PollQuery::BLOCK_MS_MAX),
            ..PollQuery::default()
        };
        let queue = self.client.work(&self.environment);
        let poll = queue.poll(&query, Some(&self.worker)).await;
        let poll = poll.map_err(refusal)?;
        Ok((poll.work, poll.immediate))
    }

    /// Takes an item that a poll has handed out.
    pub(crate) async fn acknowledge(&self, work: &str) -> Result<(), Refusal> {
        let done = self.client.work(&self.environment).ack(work).await;
        written(done)
    }

    /// Ends an item that is not served.
    pub(crate) async fn stop(&self, work: &str, immediate: bool, why: &str) -> Result<(), Refusal> {
        let stop = forced(immediate, why);
        written(self.client.work(&self.environment).stop(work, &stop).await)
    }

    /// How full the queue is.
    pub(crate) async fn stats(&self) -> Result<WorkQueueStats, Refusal> {
        let stats = self.client.work(&self.environment).stats().await;
        stats.map_err(refusal)
    }

    /// Whether a session of this environment is over, or gone.
    pub(crate) async fn is_over(&self, session: &str) -> Result<bool, Refusal> {
        match self.client.sessions().retrieve(session).await {
            Ok(session) => Ok(view(&session).ended),
            // A proxy's 404 is not the server's word.
            Err(ClientError::Api(api)) if api.status == 404 && api.kind == ErrorType::NotFound => {
                Ok(true)
            }
            Err(error) => Err(refusal(error)),
        }
    }

    /// Access to an item's session: by its secret, else by the environment key.
    pub(crate) fn access(
        &self,
        work: String,
        session: String,
        secret: Option<&SecretString>,
        immediate: bool,
    ) -> Result<Access, AccessError> {
        let key = self.has_key.then(|| self.client.clone());
        let decoded = secret.map(WorkSecret::decode);
        let (item, fallback) = match decoded {
            Some(Ok(secret)) => {
                if let Some(named) = secret.api_base_url
                    && !same_server(&named, &self.base_url)
                {
                    let ours = self.base_url.clone();
                    return Err(AccessError::ForeignUrl { named, ours });
                }
                (self.client.with_bearer(&secret.sessions_token)?, key)
            }
            unusable => {
                if let Some(Err(error)) = unusable {
                    tracing::warn!(%work, %error, "the item's secret is not used");
                }
                (key.ok_or(AccessError::NoCredential)?, None)
            }
        };
        // Without randomness there is no trace: it only helps to read logs.
        let trace = getrandom::u64().and_then(|high| Ok((high, getrandom::u64()?)));
        let trace = trace.map_or(0, |(high, low)| u128::from(high) << 64 | u128::from(low));
        let traced = |client: Client| match trace {
            0 => client,
            trace => client.with_trace(trace, SPAN),
        };
        Ok(Access {
            item: traced(item),
            fallback: fallback.map(traced),
            trace: format!("{trace:032x}"),
            fallen_back: AtomicBool::new(false),
            environment: self.environment.clone(),
            work,
            session,
            worker: self.worker.clone(),
            immediate,
        })
    }
}

impl Access {
    /// The session's id.
    pub(crate) fn session(&self) -> &str {
        &self.session
    }

    /// The item's id.
    pub(crate) fn work(&self) -> &str {
        &self.work
    }

    /// This worker's id.
    pub(crate) fn worker(&self) -> &str {
        &self.worker
    }

    /// The trace that its calls belong to, in hexadecimal digits.
    pub(crate) fn trace(&self) -> &str {
        &self.trace
    }

    /// Whether the server is known to queue another item when a session that waited for others goes on.
    pub(crate) fn is_queued_again(&self) -> bool {
        self.immediate
    }

    /// Whether the server writes down which calls begin.
    pub(crate) fn keeps_begun(&self) -> bool {
        self.immediate
    }

    /// One heartbeat.
    pub(crate) async fn heartbeat(&self, expected: Option<String>, limit: Duration) -> Beat {
        let query = expected.map_or_else(HeartbeatQuery::first, HeartbeatQuery::after);
        let answer = self.call(|client| {
            let query = query.clone();
            async move {
                let client = client.with_timeout(limit);
                client
                    .work(&self.environment)
                    .heartbeat(&self.work, &query)
                    .await
            }
        });
        beat(answer.await)
    }

    /// Ends the item.
    pub(crate) async fn stop(&self, why: &str) -> Result<(), Refusal> {
        let stop = forced(self.immediate, why);
        let done = self.call(|client| {
            let stop = stop.clone();
            async move { client.work(&self.environment).stop(&self.work, &stop).await }
        });
        written_as(done.await)
    }

    /// The session, as far as it matters.
    pub(crate) async fn view(&self) -> Result<SessionView, Refusal> {
        let found =
            self.call(|client| async move { client.sessions().retrieve(&self.session).await });
        found.await.map(|session| view(&session))
    }

    /// The stream of what happens from now on.
    pub(crate) async fn stream(&self) -> Result<EventStream, Refusal> {
        self.call(|client| async move {
            client
                .events(&self.session)
                .stream(&StreamFilter::default())
                .await
        })
        .await
    }

    /// A page of what happened, oldest first.
    pub(crate) async fn history(
        &self,
        since: Option<Timestamp>,
        page: Option<String>,
    ) -> Result<Page<Event>, Refusal> {
        let filter = EventFilter {
            limit: Some(PAGE),
            page,
            types: observe::types(),
            created_at: TimeRange {
                gte: since,
                ..TimeRange::default()
            },
            ..EventFilter::default()
        };
        self.call(|client| {
            let filter = filter.clone();
            async move { client.events(&self.session).page(&filter).await }
        })
        .await
    }

    /// Posts one event.
    pub(crate) async fn send(&self, event: &str) -> Result<(), Refusal> {
        let event = RawJson::from_text(event.to_owned()).map_err(|error| Refusal::Final {
            status: 0,
            text: error.to_string(),
        })?;
        let events = SendEvents {
            events: vec![event],
        };
        let done = self.call(|client| {
            let events = events.clone();
            async move {
                let client = client.with_timeout(SEND_TIME);
                client.events(&self.session).send_raw(&events).await
            }
        });
        written_as(done.await)
    }

    /// Says that a call is about to start; whether an earlier holder had begun it.
    pub(crate) async fn begin(&self, call: &str) -> Result<bool, Refusal> {
        let begun = Begun {
            tool_use_ids: vec![call.to_owned()],
        };
        let before = self.call(|client| {
            let begun = begun.clone();
            async move {
                client
                    .work(&self.environment)
                    .begun(&self.work, &begun)
                    .await
            }
        });
        match before.await {
            Ok(before) => Ok(before.begun_before.iter().any(|id| id == call)),
            // An answer that makes no sense is none.
            Err(Refusal::Final { status: 200, text }) => Err(Refusal::Later {
                after: None,
                why: text,
            }),
            Err(refusal) => Err(refusal),
        }
    }

    /// A skill's name and its archive.
    pub(crate) async fn skill(
        &self,
        skill: &str,
        version: &str,
    ) -> Result<(String, Bytes), Refusal> {
        let found =
            self.call(|client| async move { client.skills().version(skill, version).await });
        let found = found.await?;
        let id = &found.id;
        let archive = self.call(|client| async move {
            client
                .skills()
                .content(skill, id)
                .await?
                .bytes(SKILL_BYTES)
                .await
        });
        Ok((found.name, archive.await?.into()))
    }

    /// Calls with the item's token, or with the environment key once that token is not taken any more.
    async fn call<T, F>(&self, mut call: impl FnMut(Client) -> F) -> Result<T, Refusal>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        if !self.fallen_back.load(Ordering::Relaxed) {
            match (call(self.item.clone()).await, &self.fallback) {
                (Err(error), Some(key)) if error.status() == Some(401) => {
                    let done = call(key.clone()).await;
                    // A claim that is over has ended its token, and the key has no right to the item either.
                    if done.is_ok() {
                        tracing::warn!(
                            session = self.session,
                            "the item's token is not taken any more: going on with the environment key"
                        );
                        self.fallen_back.store(true, Ordering::Relaxed);
                    }
                    return done.map_err(refusal);
                }
                (done, _) => return done.map_err(refusal),
            }
        }
        match &self.fallback {
            Some(client) => call(client.clone()).await.map_err(refusal),
            None => Err(Refusal::Unauthorised(
                "the item's token has ended".to_owned(),
            )),
        }
    }
}

fn forced(immediate: bool, why: &str) -> StopWork {
    StopWork {
        // A member of ours; the platform might refuse what it does not know.
        reason: immediate.then(|| why.to_owned()),
        ..StopWork::forced()
    }
}

/// A write that was taken, whatever the answer's body says.
fn written<T>(done: Result<T, ClientError>) -> Result<(), Refusal> {
    written_as(done.map_err(refusal))
}

fn written_as<T>(done: Result<T, Refusal>) -> Result<(), Refusal> {
    match done {
        Ok(_) | Err(Refusal::Final { status: 200, .. }) => Ok(()),
        Err(refusal) => Err(refusal),
    }
}

fn refusal(error: ClientError) -> Refusal {
    match &error {
        ClientError::Api(api) if matches!(api.status, 401 | 403) => {
            Refusal::Unauthorised(api.to_string())
        }
        ClientError::Api(api) if api.is_passing() => Refusal::Later {
            after: api.retry_after,
            why: api.to_string(),
        },
        ClientError::Api(api) => Refusal::Final {
            status: api.status,
            text: api.message.clone(),
        },
        ClientError::Answer { .. } => Refusal::Final {
            status: 200,
            text: mcp_diagnostics::telemetry::chain(&error).to_string(),
        },
        _ if error.is_passing() => {
            let why = mcp_diagnostics::telemetry::chain(&error).to_string();
            tracing::debug!(error = why, "no answer");
            Refusal::Later { after: None, why }
        }
        _ => Refusal::Final {
            status: 0,
            text: error.to_string(),
        },
    }
}

fn beat(answer: Result<WorkHeartbeat, Refusal>) -> Beat {
    match answer {
        Ok(beat) if beat.lease_extended => Beat::Extended {
            last: beat.last_heartbeat,
            ttl: Duration::from_secs(beat.ttl_seconds),
        },
        Ok(beat) if beat.state == WorkState::Stopping => Beat::Stopping,
        Ok(_) => Beat::NotOurs,
        Err(Refusal::Final { status: 412, .. }) => Beat::Mismatch,
        Err(Refusal::Later { .. } | Refusal::Final { status: 200, .. }) => Beat::NoAnswer,
        Err(Refusal::Unauthorised(_) | Refusal::Final { .. }) => Beat::Refused,
    }
}

fn view(session: &Session) -> SessionView {
    let mut seen = HashSet::new();
    let skills = session.agent.skills.iter().map(|skill| skills::Wanted {
        skill: skill.skill_id.clone(),
        version: skill.version.clone().unwrap_or_else(|| "latest".to_owned()),
    });
    SessionView {
        ended: session.status == SessionStatus::Terminated || session.archived_at.is_some(),
        has_memory_stores: session
            .resources
            .iter()
            .any(|resource| matches!(resource, SessionResource::MemoryStore(_))),
        skills: skills
            .filter(|skill| seen.insert(skill.skill.clone()))
            .take(skills::MOST)
            .collect(),
    }
}

/// Whether two base URLs lead to the same place: scheme, host and port; all names of this host's loopback are one.
fn same_server(one: &str, other: &str) -> bool {
    match (origin(one), origin(other)) {
        (Some(one), Some(other)) => one == other,
        _ => false,
    }
}

fn origin(url: &str) -> Option<(String, String, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let authority = rest.split(['/', '?', '#']).next()?;
    if authority.contains('@') {
        return None;
    }
    let usual = match scheme.as_str() {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (authority, usual),
    };
    let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
    let loopback = host == "localhost"
        || host
            .parse()
            .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    let host = if loopback {
        "loopback".to_owned()
    } else {
        host
    };
    (!host.is_empty()).then_some((scheme, host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(key: Option<&str>) -> Queue {
        let config = WorkerConfig::new("https://api.example.com", "env_1", "/x").unwrap();
        let config = match key {
            Some(key) => config.with_key(key.into()).unwrap(),
            None => config,
        };
        Queue::new(&config).unwrap()
    }

    fn access(key: Option<&str>, secret: Option<&SecretString>) -> Result<Access, AccessError> {
        queue(key).access("work_1".to_owned(), "sesn_1".to_owned(), secret, false)
    }

    #[test]
    fn an_item_is_served_with_its_secret_else_with_the_key_else_not() {
        let secret = WorkSecret::new("token", "https://API.example.com:443/").encode();
        let nonsense = SecretString::from("nonsense");
        assert!(
            access(Some("mce_x"), Some(&secret))
                .unwrap()
                .fallback
                .is_some()
        );
        assert!(access(None, Some(&secret)).unwrap().fallback.is_none());
        assert!(
            access(Some("mce_x"), Some(&nonsense))
                .unwrap()
                .fallback
                .is_none()
        );
        assert!(access(Some("mce_x"), None).is_ok());
        assert!(matches!(access(None, None), Err(AccessError::NoCredential)));
        assert!(matches!(
            access(None, Some(&nonsense)),
            Err(AccessError::NoCredential)
        ));
    }

    #[test]
    fn a_secret_that_names_another_server_is_refused() {
        let foreign = WorkSecret::new("token", "https://api.example.com.evil.example").encode();
        let error = access(Some("mce_x"), Some(&foreign)).err().unwrap();
        assert!(matches!(error, AccessError::ForeignUrl { .. }), "{error}");
        assert!(!error.to_string().contains("token"));
    }

    #[test]
    fn the_same_server_may_be_written_differently() {
        let same = |one, other| assert!(same_server(one, other), "{one} {other}");
        let not = |one, other| assert!(!same_server(one, other), "{one} {other}");
        same("https://a.example", "https://A.example:443/v1/");
        same("http://127.0.0.1:8080", "http://localhost:8080/");
        same("http://[::1]:80", "http://127.0.0.1");
        not("https://a.example", "http://a.example");
        not("https://a.example", "https://a.example:8443");
        not("https://a.example", "https://b.example");
        not("https://a.example", "https://a.example@b.example");
        not("ftp://a", "ftp://a");
        not("", "");
    }
}
