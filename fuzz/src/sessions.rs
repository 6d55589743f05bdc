//! Event streams, events and scripts of sessions.

use managed_agents_api::sse::{Frame, Reader};
use managed_agents_api::{Event, RawJson, SessionAgent, sse};
use managed_agents_loop::{Ledger, Script, Scripted, Step, next_step};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// An event stream, whose first byte says how it is cut: every cutting reads the same, and what it says can be written
/// and read again.
pub(crate) fn stream(bytes: &[u8]) {
    let Some((size, stream)) = bytes.split_first() else {
        return;
    };
    let whole = frames(256, stream, stream.len().max(1));
    let cut = frames(256, stream, usize::from(*size).max(1));
    // How many frames a reader gives out before one too long depends on the cut; which ones does not.
    assert!(cut.0.starts_with(&whole.0), "{whole:?} {cut:?}");
    assert_eq!(whole.1, cut.1);
    for frame in cut.0 {
        if let Ok(sse::Message::Event(event)) = frame.message() {
            // Each line may be written longer than it came.
            let (again, _) = frames(1 << 16, sse::frame(&event).as_bytes(), 7);
            let message = again.first().cloned().map(Frame::message);
            let Some(Ok(sse::Message::Event(again))) = message else {
                panic!("{event:?} is lost");
            };
            assert_eq!(again.id(), event.id());
        }
    }
}

/// One event, as a client may send it: what is stored has the given id, and once stored does not change.
pub(crate) fn event(bytes: &[u8]) {
    let Ok(raw) = serde_json::from_slice::<RawJson>(bytes) else {
        return;
    };
    let _ = Event::parse(raw.clone());
    if let Ok(stored) = Event::stamp(&raw, "sevt_1", None) {
        assert_eq!(stored.id(), "sevt_1");
        let again = Event::stamp(stored.raw(), "sevt_1", None).expect("stored before");
        assert_eq!(again, stored);
        let _ = stored.body();
    }
}

/// A message with a script, or a history of one event a line: it has one continuation.
pub(crate) fn history(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(script) = Script::find(text) {
        assert!(script.turns.iter().all(|turn| !turn.is_empty()));
    }
    let history: Vec<Event> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let ledger = Ledger::of(&history);
    let agent: SessionAgent = serde_json::from_str(AGENT).expect("a constant");
    let ask = || {
        let step = pin!(next_step(&Scripted, &agent, &history, &ledger));
        // This loop waits for nothing.
        match step.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(step) => step,
            Poll::Pending => panic!("a script is at hand"),
        }
    };
    let step = ask();
    assert_eq!(step, ask());
    if let Step::Append(append) = step {
        assert!(!append.events.is_empty());
    }
}

const AGENT: &str = r#"{"id":"agent_1","version":1,"name":"a","model":"scripted","tools":[
    {"type":"agent_toolset_20260401","configs":[{"name":"read","permission_policy":{"type":"always_ask"}}]}]}"#;

/// The frames of a stream cut into pieces of this size, and whether one was longer than `most` bytes.
fn frames(most: usize, stream: &[u8], size: usize) -> (Vec<Frame>, bool) {
    let mut reader = Reader::new(most);
    let mut frames = Vec::new();
    for chunk in stream.chunks(size) {
        let fed = reader.feed(chunk);
        frames.extend(std::iter::from_fn(|| reader.next_frame()));
        if fed.is_err() {
            return (frames, true);
        }
    }
    (frames, false)
}
