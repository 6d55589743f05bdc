//! Which tool calls of a session wait for this worker: a fold over its events.
//!
//! ```text
//!  agent.tool_use ─ allow ────────────────► ready ──┐ user.tool_result, agent.tool_result, our own post
//!        │ ask, anything unknown                    ├──────────────────────────────────────► answered
//!        ├──────► held ─ confirmation allow ► ready │ user.interrupt, thread ended, denied
//!        └ deny ───────────────────────────────────-┴──────────────────────────────────────► void
//! ```
//!
//! The same event may come twice (from the stream and from the history): the second time it changes nothing. Nothing here
//! does IO or knows the time.

use std::collections::{BTreeMap, HashMap, HashSet};

use managed_agents_client::NewestIds;
use serde_json::Value;

/// Calls that may wait at once. A server that sends more is not one.
const WAITING: usize = 10_000;

/// What an event says, as far as it matters here.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Observation {
    /// A call of the agent's toolset.
    Call(Call),
    /// A call has its result, from whomever.
    Answered {
        /// Id of the call.
        call: String,
    },
    /// Somebody decided about a call that asks.
    Confirmed {
        /// Id of the call.
        call: String,
        /// It may run.
        allowed: bool,
    },
    /// The user broke in: calls until here take no result.
    Interrupted {
        /// Only this thread; none: the whole session.
        thread: Option<String>,
    },
    /// The session works, or is about to.
    Active,
    /// The turn is over and nothing is to be done.
    TurnEnded,
    /// The session waits for these events to be answered.
    NeedsAction {
        /// Their ids.
        calls: Vec<String>,
    },
    /// A thread is over; what it called takes no result.
    ThreadEnded {
        /// Its id.
        thread: String,
    },
    /// The session is over.
    SessionEnded,
    /// Nothing for a worker.
    Other,
}

/// A tool call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    /// Id of the event, which is the id of the call.
    pub(crate) id: String,
    /// Name of the tool.
    pub(crate) tool: String,
    /// Its arguments.
    pub(crate) input: Value,
    /// Whether it may run.
    pub(crate) permission: Permission,
    /// Set on calls of a sub-agent.
    pub(crate) thread: Option<String>,
}

/// What the server has decided about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permission {
    /// It runs.
    Allow,
    /// It waits for a confirmation; also every value that is not known here.
    Ask,
    /// It never runs and takes no result.
    Deny,
}

/// The calls of one session.
#[derive(Debug)]
pub(crate) struct Calls {
    tools: &'static [&'static str],
    /// A session that has more events within one connection than this keeps could see an old one twice, which its
    /// history then corrects.
    seen: NewestIds,
    done: NewestIds,
    /// In the order in which they came.
    waiting: BTreeMap<u64, (Call, bool)>,
    number: HashMap<String, u64>,
    next: u64,
    /// Decisions about calls that have not been seen.
    decided: HashMap<String, bool>,
    ended_threads: HashSet<String>,
    turn_ended: bool,
    needed: Vec<String>,
    ended: bool,
    /// The last call of these tools that was answered, here or elsewhere.
    last_answered: Option<String>,
}

impl Calls {
    /// No events yet; `tools` are the names that this worker serves.
    pub(crate) fn new(tools: &'static [&'static str]) -> Self {
        Self {
            tools,
            seen: NewestIds::default(),
            done: NewestIds::default(),
            waiting: BTreeMap::new(),
            number: HashMap::new(),
            next: 0,
            decided: HashMap::new(),
            ended_threads: HashSet::new(),
            turn_ended: false,
            needed: Vec::new(),
            ended: false,
            last_answered: None,
        }
    }

    /// Takes the next event, in the order of the history and then of the stream.
    pub(crate) fn apply(&mut self, event_id: &str, observation: Observation) {
        if !self.seen.insert(event_id) {
            return;
        }
        match observation {
            Observation::Call(call) => {
                self.turn_ended = false;
                self.on_call(call);
            }
            Observation::Answered { call } => {
                self.turn_ended = false;
                self.answer(&call);
            }
            Observation::Confirmed { call, allowed } => self.on_decision(call, allowed),
            Observation::Interrupted { thread } => {
                self.turn_ended = false;
                self.void(|call| thread.is_none() || call.thread == thread);
            }
            Observation::ThreadEnded { thread } => {
                self.void(|call| call.thread.as_ref() == Some(&thread));
                if self.ended_threads.len() < WAITING {
                    self.ended_threads.insert(thread);
                }
            }
            Observation::Active => {
                self.turn_ended = false;
                self.needed.clear();
            }
            Observation::TurnEnded => {
                self.turn_ended = true;
                self.needed.clear();
            }
            Observation::NeedsAction { calls } => {
                self.turn_ended = false;
                self.needed = calls;
            }
            Observation::SessionEnded => {
                self.ended = true;
                self.void(|_| true);
            }
            Observation::Other => {}
        }
    }

    /// Notes that a call has its result.
    pub(crate) fn answer(&mut self, call: &str) {
        if self.number.contains_key(call) {
            self.last_answered = Some(call.to_owned());
        }
        self.finish(call);
    }

    /// Notes that a call is answered, or will never be.
    pub(crate) fn finish(&mut self, call: &str) {
        self.done.insert(call);
        self.decided.remove(call);
        if let Some(number) = self.number.remove(call) {
            self.waiting.remove(&number);
        }
    }

    /// The first call that may run.
    pub(crate) fn next_ready(&self) -> Option<&Call> {
        let mut waiting = self.waiting.values();
        waiting.find_map(|(call, ready)| ready.then_some(call))
    }

    /// Whether the result of this call is still awaited.
    pub(crate) fn awaits(&self, call: &str) -> bool {
        self.number.contains_key(call)
    }

    /// Nothing is to be done here until something new comes.
    pub(crate) fn is_idle(&self) -> bool {
        self.turn_ended && self.waiting.is_empty()
    }

    /// Only others can go on: each call that the session waits for is to be confirmed first, or answered by
    /// somebody else.
    pub(crate) fn waits_for_others(&self) -> bool {
        let open = |call: &String| !self.done.contains(call);
        !self.needed.is_empty() && self.needed.iter().all(open) && self.next_ready().is_none()
    }

    /// The session is over.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Whether the server waits for a call that is done as far as is known here.
    pub(crate) fn stuck_on(&self, call: &str) -> bool {
        self.needed.iter().any(|needed| needed == call) && self.done.contains(call)
    }

    /// The last call that ran for this session, here or elsewhere.
    pub(crate) fn last_answered(&self) -> Option<&str> {
        self.last_answered.as_deref()
    }

    /// How many calls wait, held ones included.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn on_call(&mut self, call: Call) {
        let mine = self.tools.contains(&call.tool.as_str());
        let over = call
            .thread
            .as_ref()
            .is_some_and(|thread| self.ended_threads.contains(thread));
        let full = self.waiting.len() >= WAITING;
        if !mine || over || full || self.done.contains(&call.id) {
            return;
        }
        let decided = self.decided.remove(&call.id);
        let ready = match (call.permission, decided) {
            (Permission::Deny, _) | (_, Some(false)) => return self.finish(&call.id),
            (Permission::Allow, _) | (_, Some(true)) => true,
            (Permission::Ask, None) => false,
        };
        self.number.insert(call.id.clone(), self.next);
        self.waiting.insert(self.next, (call, ready));
        self.next += 1;
    }

    fn on_decision(&mut self, call: String, allowed: bool) {
        match self.number.get(&call) {
            Some(_) if !allowed => self.finish(&call),
            Some(number) => {
                if let Some((_, ready)) = self.waiting.get_mut(number) {
                    *ready = true;
                }
            }
            None if self.decided.len() < WAITING => {
                self.decided.insert(call, allowed);
            }
            None => {}
        }
    }

    fn void(&mut self, which: impl Fn(&Call) -> bool) {
        let calls = self.waiting.values().filter(|(call, _)| which(call));
        let ids = calls.map(|(call, _)| call.id.clone()).collect::<Vec<_>>();
        for id in ids {
            self.finish(&id);
        }
    }
}

#[cfg(test)]
#[path = "calls_tests.rs"]
mod tests;
