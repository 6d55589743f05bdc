//! The closing message: what each call came to.

use crate::ledger::{Call, CallState};
use crate::turn::TurnRequest;
use managed_agents_api::{ContentBlock, Event, EventBody};
use std::collections::HashMap;
use std::fmt::Write as _;

/// Most of one result that is quoted, in bytes.
const QUOTE: usize = 4 << 10;

/// Most of all results together that is quoted, in bytes: the message stays small whatever tools return.
const QUOTES: usize = 64 << 10;

/// What each call of this run came to.
pub(super) fn of(request: &TurnRequest<'_>) -> String {
    let run = request.ledger.run().into_iter();
    let calls: Vec<&Call> = run
        .flat_map(|run| &run.calls)
        .filter_map(|id| request.ledger.call(id))
        .collect();
    if calls.is_empty() {
        return "The list is empty: nothing was run.".to_owned();
    }
    let results = results(request.history, &calls);
    let mut room = QUOTES;
    let mut text = format!("Done: {} calls.", calls.len());
    if calls.len() == 1 {
        text = "Done: 1 call.".to_owned();
    }
    for (place, call) in calls.iter().enumerate() {
        let (came_to, quoted) = outcome(call, &results);
        let _ = write!(text, "\n\n{}. {}: {came_to}", place + 1, call.name);
        let cut = cut(&quoted, QUOTE.min(room));
        room -= cut.len();
        quote(&mut text, cut, quoted.len());
    }
    text
}

/// Results by id, of those calls alone: histories are long.
fn results<'a>(history: &'a [Event], calls: &[&Call]) -> HashMap<&'a str, &'a Event> {
    let wanted: Vec<&str> = calls
        .iter()
        .filter_map(|call| call.result_id.as_deref())
        .collect();
    let mut found = HashMap::new();
    for event in history.iter().rev() {
        if found.len() == wanted.len() {
            break;
        }
        if wanted.contains(&event.id()) {
            found.insert(event.id(), event);
        }
    }
    found
}

/// A word for what became of a call, and what it returned.
fn outcome(call: &Call, results: &HashMap<&str, &Event>) -> (&'static str, String) {
    let result = call.result_id.as_deref().and_then(|id| results.get(id));
    match (call.state, result.map(|event| event.body())) {
        (CallState::Answered, Some(Ok(body))) => {
            let (content, is_error) = content(body);
            let word = if is_error { "error" } else { "ok" };
            (
                word,
                content.iter().map(as_text).collect::<Vec<_>>().join("\n"),
            )
        }
        (CallState::Denied, _) => {
            let why = call.deny_message.clone();
            ("denied", why.unwrap_or_default())
        }
        (CallState::Interrupted, _) => ("interrupted", String::new()),
        (CallState::Answered | CallState::Held | CallState::Ready, _) => {
            ("no result", String::new())
        }
    }
}

fn content(body: EventBody) -> (Vec<ContentBlock>, bool) {
    let (content, is_error) = match body {
        EventBody::UserToolResult(result) => (result.content, result.is_error),
        EventBody::UserCustomToolResult(result) => (result.content, result.is_error),
        EventBody::AgentToolResult(result) => (result.content, result.is_error),
        EventBody::AgentMcpToolResult(result) => (result.content, result.is_error),
        _ => (Vec::new(), None),
    };
    (content, is_error.unwrap_or_default())
}

fn as_text(block: &ContentBlock) -> String {
    let text = block.as_text().map(str::to_owned);
    text.unwrap_or_else(|| format!("({})", block.kind()))
}

/// The start of `text`, of at most `most` bytes.
fn cut(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// Adds `cut` as a block that nothing in it can end.
fn quote(text: &mut String, cut: &str, whole: usize) {
    if whole == 0 {
        return;
    }
    let longest = cut.split(|letter| letter != '`').map(str::len).max();
    let fence = "`".repeat(longest.unwrap_or_default().max(2) + 1);
    let _ = write!(
        text,
        "\n{fence}text\n{}\n{fence}",
        cut.trim_end_matches('\n')
    );
    if cut.len() < whole {
        let _ = write!(text, "\n({} of {whole} bytes)", cut.len());
    }
}
