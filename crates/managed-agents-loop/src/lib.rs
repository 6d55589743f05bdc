//! What decides a session's next step: the [`AgentLoop`] trait and the [`Scripted`] loop.
//!
//! A session is its history. Whoever stores it asks [`next_step`] what follows, appends that, and asks again; what clients
//! send in between is judged by the [`Ledger`], a fold over the history, and appended too. Nothing else is kept, so a
//! process that dies at any instant asks the same question again and gets the same answer.
//!
//! ```text
//!   clients, workers ── events ──► Ledger::judge ──► history ◄── append ──┐
//!                                                       │                 │
//!                                                       └─► next_step ────┤  status, waiting, permissions,
//!                                                              │          │  interrupts, retries: the same for every loop
//!                                                              ▼          │
//!                                                    AgentLoop::turn ─────┘  one turn of thinking: a script, later a model
//! ```
//!
//! # Example
//!
//! ```
//! use jiff::Timestamp;
//! use managed_agents_api::{AgentModel, Event, EventBody, EventType, SessionAgent};
//! use managed_agents_loop::{Ledger, Scripted, Step, Waiting, next_step};
//!
//! # async fn example(agent: SessionAgent) -> Result<(), serde_json::Error> {
//! // The agent that needs no model: it does what a message spells out.
//! let message = "```json\n[{\"name\": \"bash\", \"input\": {\"command\": \"ls\"}}]\n```";
//! let mut history = Vec::new();
//! let mut ledger = Ledger::default();
//! let mut append = |body: &EventBody, ledger: &mut Ledger, history: &mut Vec<Event>| {
//!     let id = format!("sevt_{}", history.len());
//!     let event = Event::new(&id, Some(Timestamp::UNIX_EPOCH), body)?;
//!     ledger.apply(&event);
//!     history.push(event);
//!     Ok::<(), serde_json::Error>(())
//! };
//! append(&EventBody::user_text(message), &mut ledger, &mut history)?;
//! let waiting = loop {
//!     match next_step(&Scripted, &agent, &history, &ledger).await {
//!         Step::Append(step) => {
//!             for body in &step.events {
//!                 append(body, &mut ledger, &mut history)?;
//!             }
//!         }
//!         Step::Wait(waiting) => break waiting,
//!     }
//! };
//! assert_eq!(waiting, Waiting::Calls(vec!["sevt_2".into()]));
//! assert_eq!(history[2].kind(), &EventType::AgentToolUse);
//! assert!(ledger.needs_worker());
//! # Ok(())
//! # }
//! # let agent = serde_json::from_str(r#"{"id":"agent_1","version":1,"name":"a","model":"scripted",
//! #     "tools":[{"type":"agent_toolset_20260401"}]}"#).unwrap();
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(example(agent)).unwrap();
//! ```
//!
//! # The order of a history
//!
//! Events stand in the order in which they were processed. A `user.message` that comes while a turn is under way
//! ([`Ledger::takes_messages_now`] is false) is queued: it has no `processed_at` and stands after all others. When
//! [`Append::taken_up`] names it, it gets its time and its place, before the events of that append.
//!
//! # What it does not do
//!
//! It draws no ids, reads no clock, stores nothing and spawns nothing; it calls no model yet. A loop that does finds its
//! place in [`AgentLoop`]: turns, calls of server tools, passing errors that are tried again, usage.
#![forbid(unsafe_code)]

mod ledger;
mod policy;
#[cfg(test)]
mod scene;
mod scripted;
mod step;
mod turn;
mod usage;

pub use ledger::{Call, CallKind, CallState, Ledger, Refused, Run};
pub use scripted::{Script, ScriptError, Scripted};
pub use step::{Append, Step, Waiting, next_step};
pub use turn::{AgentLoop, Retry, Said, ToolCall, Turn, TurnError, TurnRequest};
