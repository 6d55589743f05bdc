//! What happens without a request: loops take their steps, leases run out.
//!
//! ```text
//!  a client writes ─► due ─► read history ─► next step ─► append, at that position ─┐
//!                      ▲            ▲                        │ moved: decide again  │
//!                      │            └────────────────────────┴──────────────────────┘
//!                      └── after a restart: what is due is in the store
//! ```

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use managed_agents_api::SessionErrorKind;
use managed_agents_loop::{
    self as agent_loop, AgentLoop, Ledger, Retry, Scripted, Step, Turn, TurnError, TurnRequest,
};
use mcp_tunnel_auth::{EventId, SessionId, WorkspaceId};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error, info, info_span, warn};

use crate::environment;
use crate::failure::chain;
use crate::history::{History, agent_of, status_of, written};
use crate::shared::Shared;
use crate::store::{Acting, Append, Authority, Refusal, SessionRecord, StoreError, Topic, Writer};

/// Drives every session that is due and ends leases that ran out, until `stop`. What a turn
/// was doing then is done again after the next start.
pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut driving = Driving::default();
    let mut wake = shared.store.changes().subscribe(Topic::Loop);
    let mut tick = interval(SWEEP_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let next = driving.start_due(&shared).await;
        tokio::select! {
            () = stop.cancelled() => break,
            _ = wake.changed() => {}
            _ = tick.tick() => expire(&shared).await,
            Some(ended) = driving.tasks.join_next_with_id() => driving.note(ended),
            () = sleep_until(next) => {}
        }
    }
    driving.tasks.shutdown().await;
    info!("sessions rest");
}

/// Sessions that are being driven by this process.
#[derive(Default)]
struct Driving {
    tasks: JoinSet<()>,
    by_task: HashMap<tokio::task::Id, SessionId>,
    sessions: HashSet<SessionId>,
}

impl Driving {
    /// Drives what is due; when to look again if nothing wakes us.
    async fn start_due(&mut self, shared: &Arc<Shared>) -> Instant {
        let now = environment::now();
        let due = match shared.store.due(now, DUE_AT_ONCE).await {
            Ok(due) => due,
            Err(error) => {
                error!(
                    error = chain(&error),
                    "sessions that are due were not found"
                );
                return Instant::now() + PAUSE;
            }
        };
        for (workspace, session) in due.sessions {
            if self.sessions.len() >= DRIVEN_MOST || !self.sessions.insert(session) {
                continue;
            }
            let span = info_span!("session", id = %session);
            let driven = drive(Arc::clone(shared), workspace, session).instrument(span);
            let task = self.tasks.spawn(driven);
            self.by_task.insert(task.id(), session);
        }
        let wait = due.next.map_or(PAUSE, |next| {
            let wait = next.duration_since(now).max(SignedDuration::ZERO);
            Duration::try_from(wait).unwrap_or(PAUSE).min(PAUSE)
        });
        Instant::now() + wait
    }

    fn note(&mut self, ended: Result<(tokio::task::Id, ()), tokio::task::JoinError>) {
        let task = match ended {
            Ok((task, ())) => task,
            Err(error) => {
                error!(%error, "driving a session panicked");
                error.id()
            }
        };
        if let Some(session) = self.by_task.remove(&task) {
            self.sessions.remove(&session);
        }
    }
}

/// Takes steps until the session waits for somebody.
async fn drive(shared: Arc<Shared>, workspace: WorkspaceId, session: SessionId) {
    for _ in 0..STEPS_AT_ONCE {
        match step(&shared, &workspace, session).await {
            Ok(Went::On) | Err(StoreError::Moved) => {}
            Ok(Went::ToRest) | Err(StoreError::NotFound | StoreError::Refused(_)) => return,
            Err(error) => {
                // It stays due: it is tried again after a pause, for as long as it takes.
                error!(error = chain(&error), "a step was not taken");
                return sleep(PAUSE).await;
            }
        }
    }
}

enum Went {
    On,
    ToRest,
}

async fn step(
    shared: &Shared,
    workspace: &WorkspaceId,
    session: SessionId,
) -> Result<Went, StoreError> {
    let acting = Acting {
        workspace: workspace.clone(),
        authority: Authority::Operator {
            actor: "loop".to_owned(),
        },
        now: environment::now(),
    };
    let record = shared.store.session(&acting, session).await?;
    let history = History::read(shared, &record).await?;
    let agent = agent_of(&record)?;
    let thinks = shared.config.loops.of(&agent.model.id);
    let thought = agent_loop::next_step(&*thinks, &agent, &history.events, &history.ledger);
    let step = tokio::select! {
        // Whoever needs no time to think is not asked whether somebody interrupts.
        biased;
        step = thought => step,
        () = interrupted(shared, session, history.position) => return Err(StoreError::Moved),
    };
    let position = history.position;
    if let Step::Append(append) = step {
        match appended(shared, &record, history, append).await {
            // What has no room now will have none later: it is due no more.
            Err(StoreError::Refused(refusal @ Refusal::TooManyEvents { .. })) => {
                warn!(%refusal, "the session goes no further");
            }
            went => return went,
        }
    } else {
        drop(history);
    }
    shared.store.rest(session, position, None).await?;
    Ok(Went::ToRest)
}

/// Writes a step down, in one transaction.
async fn appended(
    shared: &Shared,
    record: &SessionRecord,
    history: History,
    step: agent_loop::Append,
) -> Result<Went, StoreError> {
    let now = history.not_before(environment::now());
    let new = step
        .events
        .iter()
        .map(written)
        .collect::<Result<Vec<_>, _>>()?;
    let mut ledger = history.ledger.clone();
    let mut taken_up = Vec::new();
    for id in &step.taken_up {
        let (id, event) = queued(&history, id, now)?;
        taken_up.push(id);
        ledger.apply(&event);
    }
    apply(&mut ledger, &new, now)?;
    let pause = step
        .pause
        .and_then(|pause| SignedDuration::try_from(pause).ok());
    let due = pause.map_or(now, |pause| {
        now.saturating_add(pause).unwrap_or(Timestamp::MAX)
    });
    let append = Append {
        session: record.id,
        writer: Writer::Loop { now },
        position: history.position,
        taken_up,
        events: new,
        status: status_of(&ledger),
        needs_worker: ledger.needs_worker(),
        due: Some(due),
        work: environment::work_id(now),
    };
    // Whoever adds to it next need not copy it.
    drop(history);
    shared.store.append(append).await?;
    Ok(if pause.is_some() {
        Went::ToRest
    } else {
        Went::On
    })
}

fn queued(
    history: &History,
    id: &str,
    now: Timestamp,
) -> Result<(EventId, managed_agents_api::Event), StoreError> {
    let event = history
        .event(id)
        .and_then(|event| event.with_processed_at(now).ok());
    let id = EventId::parse(id).ok();
    id.zip(event).ok_or_else(|| {
        warn!("a loop took up what is not queued");
        StoreError::NotFound
    })
}

fn apply(
    ledger: &mut Ledger,
    events: &[crate::store::NewEvent],
    now: Timestamp,
) -> Result<(), StoreError> {
    for event in events {
        let row = crate::store::EventRecord::unstored(event, now);
        ledger.apply(&crate::history::event_of(&row)?);
    }
    Ok(())
}

/// Waits until somebody interrupts the session: what is thought meanwhile is not needed.
async fn interrupted(shared: &Shared, session: SessionId, position: u64) {
    let mut events = shared.store.changes().subscribe(Topic::Session(session));
    let mut position = position;
    loop {
        match shared.store.events_after(session, position, 0).await {
            Ok(page) => {
                if page.rows.iter().any(|row| row.kind == "user.interrupt") {
                    return;
                }
                position = page.rows.last().map_or(position, |row| row.seq);
                if page.more {
                    continue;
                }
            }
            Err(error) => warn!(error = chain(&error), "an interrupt may come late"),
        }
        if events.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn expire(shared: &Shared) {
    loop {
        let now = environment::now();
        match shared.store.expire(now, environment::work_id(now)).await {
            Ok(Some(item)) => {
                warn!(work = %item.id, session = %item.session, state = item.state.as_str(), "a lease ran out");
            }
            Ok(None) => return,
            Err(error) => return error!(error = chain(&error), "leases were not ended"),
        }
    }
}

/// Who thinks for which model.
pub(crate) struct Loops {
    by_model: HashMap<String, Arc<dyn AgentLoop>>,
    otherwise: Arc<dyn AgentLoop>,
}

impl Loops {
    pub(crate) fn set(&mut self, model: String, thinks: Arc<dyn AgentLoop>) {
        self.by_model.insert(model, thinks);
    }

    fn of(&self, model: &str) -> Arc<dyn AgentLoop> {
        Arc::clone(self.by_model.get(model).unwrap_or(&self.otherwise))
    }
}

impl Default for Loops {
    fn default() -> Self {
        let scripted: Arc<dyn AgentLoop> = Arc::new(Scripted);
        Self {
            by_model: HashMap::from([("scripted".to_owned(), scripted)]),
            otherwise: Arc::new(Nobody),
        }
    }
}

/// Thinks for the models that nobody thinks for.
struct Nobody;

#[async_trait]
impl AgentLoop for Nobody {
    async fn turn(&self, request: TurnRequest<'_>) -> Result<Turn, TurnError> {
        let message = format!(
            "no agent loop of this server thinks for the model {}; there is one for the model scripted",
            request.agent.model.id
        );
        let kind = SessionErrorKind::ModelRequestFailed;
        Err(TurnError::new(kind, message, Retry::Exhausted))
    }
}

impl std::fmt::Debug for Loops {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.by_model.keys()).finish()
    }
}

/// How often leases are looked at: a worker that died is followed that much later.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Longest time between two looks at what is due, and pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Sessions that think at once in one process; what more is due waits.
const DRIVEN_MOST: usize = 64;

/// Sessions that are looked for at once: more than can be driven, so that some are new.
const DUE_AT_ONCE: u32 = 256;

/// Steps after which a session lets others have their turn; it stays due.
const STEPS_AT_ONCE: usize = 64;
