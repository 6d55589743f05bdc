//! A session in memory: what a server does with the answers of `next_step`.

use crate::{AgentLoop, Append, Ledger, Refused, Scripted, Step, Waiting, next_step};
use jiff::Timestamp;
use managed_agents_api::{
    Confirmation, ContentBlock, Event, EventBody, EventType, SessionAgent, UserInterrupt,
    UserToolConfirmation, UserToolResult,
};
use std::time::Duration;

pub(crate) struct Scene {
    pub(crate) agent: SessionAgent,
    /// Processed events in order.
    processed: Vec<Event>,
    queued: Vec<Event>,
    pub(crate) ledger: Ledger,
    ids: u32,
}

pub(crate) const TOOLSET: &str = r#"{"type":"agent_toolset_20260401"}"#;

pub(crate) fn script(calls: &str) -> EventBody {
    EventBody::user_text(format!("Do:\n```json\n{calls}\n```"))
}

pub(crate) fn result(id: &str, text: &str) -> EventBody {
    EventBody::UserToolResult(UserToolResult {
        tool_use_id: id.into(),
        content: vec![ContentBlock::text(text)],
        is_error: None,
    })
}

pub(crate) fn confirmation(id: &str, result: Confirmation) -> EventBody {
    EventBody::UserToolConfirmation(UserToolConfirmation {
        tool_use_id: id.into(),
        result,
        deny_message: None,
    })
}

pub(crate) fn interrupt() -> EventBody {
    EventBody::UserInterrupt(UserInterrupt {
        session_thread_id: None,
    })
}

impl Scene {
    pub(crate) fn new(tools: &str) -> Self {
        let agent = format!(
            r#"{{"id":"agent_1","version":1,"name":"a","model":"scripted","tools":[{tools}]}}"#
        );
        Self {
            agent: serde_json::from_str(&agent).unwrap(),
            processed: Vec::new(),
            queued: Vec::new(),
            ledger: Ledger::default(),
            ids: 0,
        }
    }

    /// The listing.
    pub(crate) fn history(&self) -> Vec<Event> {
        self.processed.iter().chain(&self.queued).cloned().collect()
    }

    /// What a client sends; the id that it gets.
    pub(crate) fn send(&mut self, body: &EventBody) -> Result<String, Refused> {
        self.ledger.judge(body)?;
        let queues = *body.kind() == *EventType::UserMessage.as_str();
        if queues && !self.ledger.takes_messages_now() {
            let event = Event::new(&self.id(), None, body).unwrap();
            self.ledger.apply(&event);
            self.queued.push(event.clone());
            return Ok(event.id().to_owned());
        }
        Ok(self.process(body))
    }

    pub(crate) fn append(&mut self, append: &Append) {
        for id in &append.taken_up {
            let place = self.queued.iter().position(|event| event.id() == id);
            let event = self.queued.remove(place.unwrap());
            let event = event.with_processed_at(Timestamp::UNIX_EPOCH).unwrap();
            self.ledger.apply(&event);
            self.processed.push(event);
        }
        for body in &append.events {
            self.process(body);
        }
    }

    /// What follows: asked of the ledger at hand, of one made anew, and twice.
    pub(crate) fn next(&self, agent_loop: &dyn AgentLoop) -> Step {
        let history = self.history();
        let anew = Ledger::of(&history);
        assert_eq!(anew, self.ledger, "a fold is a fold");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let ask = |ledger| runtime.block_on(next_step(agent_loop, &self.agent, &history, ledger));
        let step = ask(&self.ledger);
        assert_eq!(ask(&anew), step, "a history has one continuation");
        step
    }

    /// Appends what follows until nothing does; the pauses that were asked for.
    pub(crate) fn settle_with(&mut self, agent_loop: &dyn AgentLoop) -> (Waiting, Vec<Duration>) {
        let mut pauses = Vec::new();
        for _ in 0..1000 {
            match self.next(agent_loop) {
                Step::Append(append) => {
                    assert!(!append.events.is_empty());
                    pauses.extend(append.pause);
                    self.append(&append);
                }
                Step::Wait(waiting) => return (waiting, pauses),
            }
        }
        panic!("never at rest");
    }

    pub(crate) fn settle(&mut self) -> Waiting {
        self.settle_with(&Scripted).0
    }

    /// Ids of the calls that the session waits for.
    pub(crate) fn calls(&mut self) -> Vec<String> {
        match self.settle() {
            Waiting::Calls(calls) => calls,
            other => panic!("{other:?}"),
        }
    }

    /// Types of all events, in short.
    pub(crate) fn kinds(&self) -> Vec<String> {
        let short = |event: &Event| match event.body().unwrap() {
            EventBody::SessionStatusIdle(idle) => idle.stop_reason.kind().to_owned(),
            _ => event.kind().as_str().rsplit('.').next().unwrap().to_owned(),
        };
        self.history().iter().map(short).collect()
    }

    /// The agent's last words.
    pub(crate) fn last_words(&self) -> String {
        let words = self.processed.iter().rev().find_map(|event| {
            let EventBody::AgentMessage(message) = event.body().ok()? else {
                return None;
            };
            message.content.first()?.as_text().map(str::to_owned)
        });
        words.expect("a message")
    }

    fn process(&mut self, body: &EventBody) -> String {
        let event = Event::new(&self.id(), Some(Timestamp::UNIX_EPOCH), body).unwrap();
        self.ledger.apply(&event);
        self.processed.push(event.clone());
        event.id().to_owned()
    }

    fn id(&mut self) -> String {
        self.ids += 1;
        format!("sevt_{}", self.ids)
    }
}
