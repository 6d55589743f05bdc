//! Work: what an environment's queue hands to its workers.

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use crate::agent::{Metadata, MetadataPatch};
use crate::vocabulary::{tagged, words};
use crate::{query, secret};

/// An item of an environment's queue.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename = "work")]
pub struct Work {
    /// `work_…`, opaque.
    pub id: String,
    /// The environment whose queue it is in.
    pub environment_id: String,
    /// What is to be done.
    pub data: WorkData,
    /// Text by name.
    #[serde(default)]
    pub metadata: Metadata,
    /// Where it stands.
    pub state: WorkState,
    /// When it was queued first.
    pub created_at: Timestamp,
    /// When a worker last took it.
    pub acknowledged_at: Option<Timestamp>,
    /// When its first heartbeat came.
    pub started_at: Option<Timestamp>,
    /// When its last heartbeat came; `None` again once it is back in the queue.
    pub latest_heartbeat_at: Option<Timestamp>,
    /// When it was asked to stop.
    pub stop_requested_at: Option<Timestamp>,
    /// When it stopped.
    pub stopped_at: Option<Timestamp>,
    /// Of the answer to a poll only: see [`WorkSecret`].
    #[serde(with = "secret::optional", default)]
    pub secret: Option<SecretString>,
}

tagged! {
    /// What is to be done.
    pub enum WorkData {
        /// Serve a session.
        Session(SessionWork) = "session",
    }
}

impl WorkData {
    /// Serving this session.
    pub fn session(id: impl Into<String>) -> Self {
        Self::Session(SessionWork { id: id.into() })
    }
}

/// Serve a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "session")]
pub struct SessionWork {
    /// `sesn_…`, opaque.
    pub id: String,
}

words! {
    /// Where an item stands.
    ///
    /// ```text
    ///            ┌────────── lease expires ───────────┐
    ///            ▼                                    │
    ///  ───► queued ── ack ──► starting ── heartbeat ──► active
    ///            ▲               │ lease expires         │ stop
    ///            └───────────────┘                       ▼
    ///                        stopped ◄── force stop ── stopping
    /// ```
    ///
    /// A forced stop leads from every state to `stopped`, which is final.
    pub enum WorkState {
        /// Waits for a worker, or was handed to one that has not said so yet.
        Queued = "queued",
        /// Taken by a worker that has not begun.
        Starting = "starting",
        /// Leased to a worker.
        Active = "active",
        /// Its worker is asked to stop.
        Stopping = "stopping",
        /// Over.
        Stopped = "stopped",
    }
}

/// What `Work::secret` holds: a credential for one item and its session alone.
///
/// ```
/// use managed_agents_api::WorkSecret;
/// use secrecy::ExposeSecret as _;
///
/// let secret = WorkSecret::new("mci_token", "http://127.0.0.1:8080").encode();
/// let read = WorkSecret::decode(&secret)?;
/// assert_eq!(read.sessions_token.expose_secret(), "mci_token");
/// # Ok::<(), managed_agents_api::WorkSecretError>(())
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkSecret {
    /// The bearer token for everything about the item after `ack`. Never empty.
    #[serde(with = "secret")]
    pub sessions_token: SecretString,
    /// Where the platform thinks that it is reached. A worker that goes where it is
    /// told can be sent astray: compare it, never follow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_base_url: Option<String>,
}

impl WorkSecret {
    /// A secret with both members.
    pub fn new(sessions_token: impl Into<String>, api_base_url: impl Into<String>) -> Self {
        Self {
            sessions_token: sessions_token.into().into(),
            api_base_url: Some(api_base_url.into()),
        }
    }

    /// Reads it: URL-safe base64, padded or not, of an object; other members are ignored.
    ///
    /// # Errors
    /// See [`WorkSecretError`].
    pub fn decode(secret: &SecretString) -> Result<Self, WorkSecretError> {
        let json = SECRET_BASE64
            .decode(secret.expose_secret())
            .map_err(|_| WorkSecretError::Base64)?;
        // The parser's own words could quote the token.
        let read: Self = serde_json::from_slice(&json).map_err(|_| WorkSecretError::Shape)?;
        if read.sessions_token.expose_secret().is_empty() {
            return Err(WorkSecretError::Shape);
        }
        Ok(read)
    }

    /// As it travels.
    #[must_use]
    pub fn encode(&self) -> SecretString {
        let json = serde_json::to_vec(self).unwrap_or_default();
        SECRET_BASE64.encode(json).into()
    }
}

/// Why a secret of work cannot be read. Nothing of it is repeated here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorkSecretError {
    /// It is not base64.
    #[error("the secret is not URL-safe base64")]
    Base64,
    /// It is not an object with a token.
    #[error("the secret is no object with a sessions_token")]
    Shape,
}

/// Query of `GET …/work/poll`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PollQuery {
    /// How long to wait for work: 1 to 999 ms; absent: not at all. 0 is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_ms: Option<u32>,
    /// Hands out again what was handed out so long ago without an `ack`; absent: 5,000 ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reclaim_older_than_ms: Option<u64>,
}

impl PollQuery {
    /// Longest time that a poll may wait, in milliseconds.
    pub const BLOCK_MS_MAX: u32 = 999;

    /// `reclaim_older_than_ms` where a query says nothing.
    pub const RECLAIM_MS_DEFAULT: u64 = 5_000;
}

/// Query of `POST …/work/{id}/heartbeat`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatQuery {
    /// A wish that the server may ignore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_ttl_seconds: Option<u64>,
    /// `last_heartbeat` of the answer before, byte for byte, or
    /// [`HeartbeatQuery::NO_HEARTBEAT`]; absent: no comparison.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_last_heartbeat: Option<String>,
}

impl HeartbeatQuery {
    /// Expects that no heartbeat was ever taken.
    pub const NO_HEARTBEAT: &'static str = "NO_HEARTBEAT";

    /// The first heartbeat of a worker.
    #[must_use]
    pub fn first() -> Self {
        Self::after(Self::NO_HEARTBEAT)
    }

    /// The heartbeat after the answer with this `last_heartbeat`.
    pub fn after(last_heartbeat: impl Into<String>) -> Self {
        Self {
            desired_ttl_seconds: None,
            expected_last_heartbeat: Some(last_heartbeat.into()),
        }
    }
}

/// Answer to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "work_heartbeat")]
pub struct WorkHeartbeat {
    /// Opaque: to be repeated byte for byte; empty where there is none.
    pub last_heartbeat: String,
    /// False where the item is to stop or has stopped.
    pub lease_extended: bool,
    /// Where the item stands.
    pub state: WorkState,
    /// How long the lease lasts.
    pub ttl_seconds: u64,
}

/// The item's present state, in the details of a refused heartbeat (412).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatState {
    /// Where the item stands.
    pub state: WorkState,
    /// The value that would have been expected.
    pub last_heartbeat: Option<String>,
    /// When the lease changed last.
    #[serde(default)]
    pub lease_updated_at: Option<String>,
    /// Always false.
    #[serde(default)]
    pub lease_extended: bool,
    /// How long a lease lasts.
    #[serde(default)]
    pub ttl_seconds: Option<u64>,
}

/// Body of `POST …/work/{id}/stop`; an empty body counts as `{}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopWork {
    /// Over at once, without the worker's consent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// Ours alone: what the session is to show about it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl StopWork {
    /// Over at once.
    #[must_use]
    pub fn forced() -> Self {
        Self {
            force: true,
            reason: None,
        }
    }
}

/// Body of `POST …/work/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateWork {
    /// Changes of metadata.
    #[serde(default)]
    pub metadata: MetadataPatch,
}

/// Answer of `GET …/work/stats`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "work_queue_stats")]
pub struct WorkQueueStats {
    /// Items that wait.
    pub depth: u64,
    /// Items handed out and not acknowledged yet.
    pub pending: u64,
    /// When the oldest of both was queued.
    pub oldest_queued_at: Option<Timestamp>,
    /// Workers, told apart by their id, that polled within 30 s.
    pub workers_polling: Option<u64>,
}

/// Body of `POST …/work/{id}/begun`, our own route: said before a tool starts.
///
/// Written down before the answer, so that a later holder of the session learns which
/// calls may have had an effect already, and does not run them again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// The calls about to start: ids of `agent.tool_use` events.
    pub tool_use_ids: Vec<String>,
}

/// Answer to [`Begun`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BegunBefore {
    /// Those of the calls that an earlier holder, or an earlier request, had begun.
    pub begun_before: Vec<String>,
}

query::flat!(PollQuery {
    block_ms,
    reclaim_older_than_ms,
});
query::flat!(HeartbeatQuery {
    desired_ttl_seconds,
    expected_last_heartbeat,
});

const SECRET_BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    const WORK: &str = r#"{"type":"work","id":"work_1","environment_id":"env_1","data":{"type":"session","id":"sesn_1"},"metadata":{},"state":"queued","created_at":"2026-11-24T07:00:00Z","acknowledged_at":null,"started_at":null,"latest_heartbeat_at":null,"stop_requested_at":null,"stopped_at":null,"secret":"c2VjcmV0"}"#;

    #[test]
    fn an_item_survives_and_hides_its_secret() {
        let work: Work = serde_json::from_str(WORK).unwrap();
        assert_eq!(work.data, WorkData::session("sesn_1"));
        assert_eq!(serde_json::to_string(&work).unwrap(), WORK);
        assert!(!format!("{work:?}").contains("c2VjcmV0"));
    }

    #[test]
    fn an_item_of_an_unknown_kind_is_an_item() {
        let text = WORK.replace(
            r#"{"type":"session","id":"sesn_1"}"#,
            r#"{"type":"healthcheck","n":1.0}"#,
        );
        let work: Work = serde_json::from_str(&text.replace(r#""queued""#, r#""later""#)).unwrap();
        assert_eq!(work.data.kind(), "healthcheck");
        assert_eq!(work.state, WorkState::Other("later".into()));
    }

    #[test]
    fn a_secret_is_read_as_official_clients_do() {
        let decode = |text: &str| WorkSecret::decode(&SecretString::from(text));
        // {"sessions_token":"t","session_ingress_token":"i"}, padded and not.
        let text = "eyJzZXNzaW9uc190b2tlbiI6InQiLCJzZXNzaW9uX2luZ3Jlc3NfdG9rZW4iOiJpIn0";
        for secret in [text.to_owned(), format!("{text}=")] {
            assert_eq!(decode(&secret).unwrap().sessions_token.expose_secret(), "t");
        }
        assert_eq!(decode("*").unwrap_err(), WorkSecretError::Base64);
        let empty = SECRET_BASE64.encode(r#"{"sessions_token":""}"#);
        assert_eq!(decode(&empty).unwrap_err(), WorkSecretError::Shape);
    }

    #[test]
    fn bodies_say_only_what_differs() {
        let text = |stop: StopWork| serde_json::to_string(&stop).unwrap();
        assert_eq!(text(StopWork::default()), "{}");
        assert_eq!(text(StopWork::forced()), r#"{"force":true}"#);
        let update = r#"{"metadata":{"a":"b","gone":null}}"#;
        let read: UpdateWork = serde_json::from_str(update).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), update);
    }
}
