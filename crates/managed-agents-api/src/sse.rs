//! Frames of an event stream: writing them, and reading them again.

mod reader;

pub use reader::{Frame, FrameError, FrameTooLong, Message, Reader};

use crate::{ErrorEnvelope, Event, RawJson};

/// A frame that says nothing: every client skips it. To be sent every 15 s or so.
pub const PING: &str = "event: ping\ndata: {\"type\":\"ping\"}\n\n";

/// Media type of an event stream.
pub const MEDIA_TYPE: &str = "text/event-stream";

/// `event` as one frame. It has the `event:` line without which SDKs drop it.
///
/// ```
/// use managed_agents_api::{Event, EventBody, sse};
///
/// let event = Event::new("sevt_1", None, &EventBody::running())?;
/// assert_eq!(
///     sse::frame(&event),
///     "event: session.status_running\n\
///      data: {\"type\":\"session.status_running\",\"id\":\"sevt_1\",\"processed_at\":null}\n\n",
/// );
/// # Ok::<(), serde_json::Error>(())
/// ```
#[must_use]
pub fn frame(event: &Event) -> String {
    write(event.kind().as_str(), event.raw())
}

/// The frame that tells a client why its stream ends.
#[must_use]
pub fn error(envelope: &ErrorEnvelope) -> String {
    let mut text = String::from("event: error\n");
    push_data(
        &mut text,
        &serde_json::to_string(envelope).unwrap_or_default(),
    );
    text
}

fn write(kind: &str, raw: &RawJson) -> String {
    // `ping` and `error` mean something else to clients, and a line end would forge a frame.
    let plain = kind
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    let name = if plain && !matches!(kind, "" | "ping" | "error") {
        kind
    } else {
        "message"
    };
    let mut text = String::with_capacity(raw.as_str().len() + name.len() + 24);
    text.push_str("event: ");
    text.push_str(name);
    text.push('\n');
    push_data(&mut text, raw.as_str());
    text
}

/// Line ends in JSON are white space; each starts another `data:` line, of which clients make one text again.
fn push_data(text: &mut String, json: &str) {
    for line in json.split(['\n', '\r']) {
        text.push_str("data: ");
        text.push_str(line);
        text.push('\n');
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, expected: &str) {
        let event: Event = serde_json::from_str(json).unwrap();
        assert_eq!(frame(&event), expected);
    }

    #[test]
    fn no_event_can_forge_a_frame() {
        check(r#"{"type":"a"}"#, "event: a\ndata: {\"type\":\"a\"}\n\n");
        check(
            "{\"type\":\"a\",\r\n\n\"b\":1}",
            "event: a\ndata: {\"type\":\"a\",\ndata: \ndata: \ndata: \"b\":1}\n\n",
        );
        for kind in ["x\\ny", "ping", "error", ""] {
            let json = format!(r#"{{"type":"{kind}"}}"#);
            check(&json, &format!("event: message\ndata: {json}\n\n"));
        }
    }
}
