//! Events: the history of a session, one at a time.

mod kinds;
mod parts;

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::RawJson;
use crate::raw::Members;

pub use kinds::*;
pub use parts::*;

/// An event as the exact text that came, with its id and type beside.
///
/// Nothing is lost in it, whatever its type: the typed view, [`EventBody`], is made on
/// demand. Equal when the texts are.
///
/// ```
/// use managed_agents_api::{Event, EventBody, EventType};
///
/// let text = r#"{"type":"agent.tool_use","id":"sevt_1","processed_at":"2026-11-24T07:00:00Z",
///     "name":"bash","input":{"n":12345678901234567890.10},"evaluated_permission":"allow"}"#;
/// let event: Event = serde_json::from_str(text)?;
/// assert_eq!((event.id(), event.kind()), ("sevt_1", &EventType::AgentToolUse));
/// assert_eq!(serde_json::to_string(&event)?, text);
/// let EventBody::AgentToolUse(call) = event.body()? else { unreachable!() };
/// assert_eq!(call.input.as_str(), r#"{"n":12345678901234567890.10}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone)]
pub struct Event {
    id: String,
    kind: EventType,
    processed_at: Option<Timestamp>,
    raw: RawJson,
}

impl Event {
    /// Reads an event. Of the few that have no id (previews on a stream) the id is empty.
    ///
    /// # Errors
    /// The text is no object, says a member twice, or `id`, `type` or `processed_at`
    /// are not of their kind.
    pub fn parse(raw: RawJson) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Head {
            id: Option<String>,
            #[serde(rename = "type")]
            kind: Option<String>,
            processed_at: Option<Timestamp>,
        }
        let head: Head = raw.parse()?;
        Ok(Self {
            id: head.id.unwrap_or_default(),
            kind: EventType::from(head.kind.unwrap_or_default().as_str()),
            processed_at: head.processed_at,
            raw,
        })
    }

    /// An event that this side makes.
    ///
    /// # Errors
    /// The body is an [`EventBody::Other`] that is no object.
    pub fn new(
        id: &str,
        processed_at: Option<Timestamp>,
        body: &EventBody,
    ) -> Result<Self, serde_json::Error> {
        Self::stamp(&RawJson::of(body)?, id, processed_at)
    }

    /// An event as a client sent it, with the id and the time that the server gives.
    ///
    /// Members of those names in `sent` are replaced; the text of every other value is
    /// kept, their order too.
    ///
    /// # Errors
    /// `sent` is no object, has no `type`, or says a member twice.
    pub fn stamp(
        sent: &RawJson,
        id: &str,
        processed_at: Option<Timestamp>,
    ) -> Result<Self, serde_json::Error> {
        let mut rest: Members = sent.parse()?;
        let mut kind = None;
        rest.0.retain(|(name, value)| {
            if name == "type" {
                kind = Some(value.clone());
            }
            !matches!(name.as_str(), "type" | "id" | "processed_at")
        });
        let kind = kind.ok_or_else(|| serde::de::Error::missing_field("type"))?;
        let mut members = vec![
            ("type".to_owned(), kind),
            ("id".to_owned(), RawJson::of(id)?),
            ("processed_at".to_owned(), RawJson::of(&processed_at)?),
        ];
        members.append(&mut rest.0);
        Self::parse(Members(members).into_json()?)
    }

    /// The same event, processed now: what becomes of a message that was queued.
    ///
    /// # Errors
    /// As [`Event::stamp`]: an event without a type.
    pub fn with_processed_at(&self, processed_at: Timestamp) -> Result<Self, serde_json::Error> {
        Self::stamp(&self.raw, &self.id, Some(processed_at))
    }

    /// `sevt_…`, opaque; unique in its session, and the same wherever the event appears.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its type.
    #[must_use]
    pub fn kind(&self) -> &EventType {
        &self.kind
    }

    /// When it was processed; `None` while it is queued behind a turn.
    #[must_use]
    pub fn processed_at(&self) -> Option<Timestamp> {
        self.processed_at
    }

    /// All of it.
    #[must_use]
    pub fn raw(&self) -> &RawJson {
        &self.raw
    }

    /// All of it as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.raw.as_str()
    }

    /// Its typed view, made anew by each call.
    ///
    /// # Errors
    /// The type is known, and its members are not of the kind that it asks for.
    pub fn body(&self) -> Result<EventBody, serde_json::Error> {
        self.raw.parse()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("processed_at", &self.processed_at)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}

impl Eq for Event {}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(RawJson::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Body of `POST /v1/sessions/{id}/events`: each event as the text that it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendEvents {
    /// The events, without id.
    pub events: Vec<RawJson>,
}

impl SendEvents {
    /// A request that sends these.
    ///
    /// # Errors
    /// None in practice: bodies can be written as JSON.
    pub fn of(events: &[EventBody]) -> Result<Self, serde_json::Error> {
        let events = events.iter().map(RawJson::of).collect::<Result<_, _>>()?;
        Ok(Self { events })
    }
}

/// Answer to [`SendEvents`]: the events as they were stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentEvents {
    /// In the order of the request.
    pub data: Vec<Event>,
}

#[cfg(test)]
mod tests;
