//! What a history says about its usage by itself: requests of tools that run on the server.

use crate::ledger::{CallKind, Ledger};
use crate::turn::{Said, Turn};
use managed_agents_api::{Event, EventBody, EventType, RawJson};
use std::collections::BTreeMap;

/// Tools whose requests are counted, and the names of the counts.
const COUNTED: [(&str, &str); 2] = [
    ("web_fetch", "web_fetch_requests"),
    ("web_search", "web_search_requests"),
];

/// Adds what the loop has left unsaid. A call whose result is an error counts for nothing, as on a bill.
pub(crate) fn complete(turn: &mut Turn, history: &[Event], ledger: &Ledger) {
    let Some(usage) = &mut turn.usage else { return };
    if usage.server_tool_use.is_some() {
        return;
    }
    let mut counts = BTreeMap::from(COUNTED.map(|(_, count)| (count, 0_u64)));
    let results = history
        .iter()
        .filter(|event| *event.kind() == EventType::AgentToolResult);
    let before = results.filter_map(|event| event.body().ok());
    let now = turn.said.iter().filter_map(|said| match said {
        Said::Event(event) => Some((**event).clone()),
        _ => None,
    });
    for body in before.chain(now) {
        let EventBody::AgentToolResult(result) = body else {
            continue;
        };
        let call = ledger.call(&result.tool_use_id);
        let call = call.filter(|call| call.kind == CallKind::Server);
        let counted = COUNTED
            .iter()
            .find(|(tool, _)| call.is_some_and(|call| call.name == *tool));
        if let Some((_, count)) = counted.filter(|_| result.is_error != Some(true)) {
            *counts.entry(count).or_default() += 1;
        }
    }
    usage.server_tool_use = RawJson::of(&counts).ok();
}
