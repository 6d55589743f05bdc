//! The engine: slots, polls, and what is done beside them.

use std::sync::Arc;
use std::time::Duration;

use managed_agents_api::{Work, WorkData};
use mcp_diagnostics::admin::Readiness;
use mcp_sandbox_executor::Executor;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::access::{Access, AccessError, Queue, Refusal};
use crate::board::Board;
use crate::config::WorkerConfig;
use crate::control::{Control, ControlError};
use crate::desk::Desks;
use crate::pacing::{Pacing, Polled};
use crate::session::{self, Ending, Service};
use crate::store::Store;

/// Idle sandboxes and other workers' wishes are looked for this often.
const TICK: Duration = Duration::from_millis(500);
/// Outdated files are looked for this often, and once at the start.
const SWEEP: Duration = Duration::from_secs(300);
/// Without progress for so long the worker says that it is not ready.
const STALE: Duration = Duration::from_secs(90);
/// Sessions have this long to end after a stop.
const DRAIN: Duration = Duration::from_secs(28);

/// Claims sessions of an environment and runs their tool calls in sandboxes of an executor.
pub struct Worker {
    config: WorkerConfig,
    queue: Arc<Queue>,
    desks: Arc<Desks>,
    board: Board,
    progress: watch::Sender<Instant>,
    readiness: watch::Sender<Readiness>,
}

/// Why a worker could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// The queue cannot be called this way.
    #[error("the queue's address or credential cannot be used")]
    Queue(#[from] managed_agents_client::BuildError),
    /// The worker's folder cannot be used.
    #[error("the worker's folder {path:?} cannot be used")]
    Folder {
        /// The folder.
        path: std::path::PathBuf,
        /// What the system answered.
        #[source]
        source: std::io::Error,
    },
    /// No environment key was given.
    #[error("an environment key is needed to claim work")]
    NoKey,
}

/// Why a worker ended by itself.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// The queue does not take the credential, or there is no such environment.
    #[error("the queue refuses this worker: {0}")]
    Refused(String),
    /// The socket for `ps`, `logs` and `stop` cannot be made.
    #[error("the worker's own socket")]
    Control(#[from] ControlError),
    /// The one item could not be served to an end.
    #[error("the session was not served to its end: {0}")]
    Item(&'static str),
}

impl Worker {
    /// A worker; polls nothing yet.
    ///
    /// # Errors
    /// See [`WorkerError`].
    pub fn new(config: WorkerConfig, executor: Arc<dyn Executor>) -> Result<Self, WorkerError> {
        let sessions = config.folder.join("sessions");
        let store = Store::open(sessions.clone()).map_err(|source| WorkerError::Folder {
            path: sessions,
            source,
        })?;
        let queue = Arc::new(Queue::new(&config)?);
        let name = format!("{} {}", config.base_url, config.environment);
        let desks = Desks::new(store, executor, config.spec.clone(), config.limits, name);
        Ok(Self {
            queue,
            desks: Arc::new(desks),
            board: Board::default(),
            progress: watch::Sender::new(Instant::now()),
            readiness: watch::Sender::new(Readiness::NotReady("the queue has not answered yet")),
            config,
        })
    }

    /// Whether it makes progress, for an admin listener.
    #[must_use]
    pub fn readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.subscribe()
    }

    /// Polls and serves until `stop`; then calls that run are cancelled and answered, and items given back.
    ///
    /// # Errors
    /// See [`RunError`]; transient failures are none.
    ///
    /// # Cancel safety
    /// Dropping the future kills what runs and posts nothing.
    pub async fn run(self, stop: CancellationToken) -> Result<(), RunError> {
        let control = Control::bind(&WorkerConfig::sockets(&self.config.folder))?;
        let (mut beside, beside_stop) = (JoinSet::new(), CancellationToken::new());
        beside.spawn(control.run(
            self.board.clone(),
            Arc::clone(&self.desks),
            beside_stop.clone(),
        ));
        beside.spawn(tidy(
            Arc::clone(&self.desks),
            Arc::clone(&self.queue),
            beside_stop.clone(),
        ));
        beside.spawn(watch_progress(
            self.progress.subscribe(),
            self.readiness.clone(),
            beside_stop.clone(),
        ));
        let mut sessions = JoinSet::new();
        let ended = self.poll(&mut sessions, &stop).await;
        // Ends what is left, on a refusal too.
        stop.cancel();
        if timeout(DRAIN, async {
            while sessions.join_next().await.is_some() {}
        })
        .await
        .is_err()
        {
            warn!(left = sessions.len(), "sessions did not end in time");
            sessions.shutdown().await;
        }
        beside_stop.cancel();
        let _ = timeout(DRAIN, async { while beside.join_next().await.is_some() {} }).await;
        self.desks.close_all().await;
        ended
    }

    /// Serves one item that was claimed and acknowledged elsewhere.
    ///
    /// # Errors
    /// The item's secret cannot be used, or the item was not served to an end.
    ///
    /// # Cancel safety
    /// As [`Worker::run`].
    pub async fn run_item(
        self,
        item: ClaimedItem,
        stop: CancellationToken,
    ) -> Result<(), RunError> {
        let control = Control::bind(&WorkerConfig::sockets(&self.config.folder))?;
        let (mut beside, beside_stop) = (JoinSet::new(), CancellationToken::new());
        beside.spawn(control.run(
            self.board.clone(),
            Arc::clone(&self.desks),
            beside_stop.clone(),
        ));
        let access = self
            .queue
            .access(item.work, item.session, item.secret.as_ref(), false)
            .map_err(|error| RunError::Refused(chain(&error)))?;
        let ending = session::serve(self.service(access, stop)).await;
        beside_stop.cancel();
        while beside.join_next().await.is_some() {}
        self.desks.close_all().await;
        match ending {
            Ending::Idle | Ending::SessionEnded | Ending::Stopped => Ok(()),
            other => Err(RunError::Item(other.as_str())),
        }
    }

    async fn poll(
        &self,
        sessions: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) -> Result<(), RunError> {
        if !self.queue.can_poll() {
            return Err(RunError::Refused(
                "an environment key is needed to claim work".to_owned(),
            ));
        }
        info!(
            environment = self.config.environment,
            url = self.config.base_url,
            worker = self.config.worker_id,
            sessions = self.config.max_sessions,
            "polling"
        );
        let slots = Arc::new(Semaphore::new(self.config.max_sessions));
        let mut pacing = Pacing::default();
        let mut reached = false;
        loop {
            let slot = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(ended) = sessions.join_next() => {
                    if let Err(error) = ended {
                        warn!(%error, "a session ended abnormally");
                    }
                    continue;
                }
                slot = Arc::clone(&slots).acquire_owned() => slot,
            };
            let Ok(slot) = slot else {
                return Ok(());
            };
            let claimed = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                claimed = self.queue.poll() => claimed,
            };
            let mut failure = None;
            let (polled, asked) = match claimed {
                Ok((Some(work), immediate)) => {
                    reached = true;
                    self.on_progress("item");
                    (
                        self.claim(work, immediate, slot, sessions, stop).await,
                        None,
                    )
                }
                Ok((None, immediate)) => {
                    reached = true;
                    self.on_progress("empty");
                    (Polled::Empty { immediate }, None)
                }
                Err(Refusal::Later { after, why }) => {
                    failure = Some(why);
                    (Polled::Failed, after)
                }
                // An address that has answered before is right: something between here and there says this.
                Err(Refusal::Final { status: 200, text }) if reached => {
                    failure = Some(text);
                    (Polled::Failed, None)
                }
                Err(refusal) => return Err(RunError::Refused(refusal.to_string())),
            };
            if polled == Polled::Failed {
                metrics::counter!("mcp_worker_polls_total", "outcome" => "failed").increment(1);
            }
            let pause = pacing.after(polled, asked, draw());
            if polled == Polled::Failed {
                warn!(
                    failures = pacing.failures(),
                    seconds = pause.as_secs(),
                    error = failure,
                    "the queue is out of reach"
                );
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = sleep(pause) => {}
            }
        }
    }

    fn on_progress(&self, outcome: &'static str) {
        self.progress.send_replace(Instant::now());
        metrics::counter!("mcp_worker_polls_total", "outcome" => outcome).increment(1);
    }

    /// Takes an item that a poll has handed out, and serves it in a task of its own.
    async fn claim(
        &self,
        work: Work,
        immediate: bool,
        slot: OwnedSemaphorePermit,
        sessions: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) -> Polled {
        let WorkData::Session(session) = &work.data else {
            info!(
                work = work.id,
                kind = work.data.kind(),
                "an item of another kind is given back"
            );
            if self.queue.acknowledge(&work.id).await.is_ok() {
                let _ = self
                    .queue
                    .stop(&work.id, immediate, "of another kind")
                    .await;
            }
            return Polled::Item;
        };
        let access = match self.queue.access(
            work.id.clone(),
            session.id.clone(),
            work.secret.as_ref(),
            immediate,
        ) {
            Ok(access) => access,
            Err(error) => {
                warn!(work = work.id, session = session.id, error = %chain(&error), "an item cannot be served");
                let _ = self.queue.stop(&work.id, immediate, &chain(&error)).await;
                return Polled::Item;
            }
        };
        match self.queue.acknowledge(&work.id).await {
            Ok(()) => {}
            // Redelivered once reclaimable.
            Err(Refusal::Later { .. }) => return Polled::Failed,
            Err(refusal) => {
                warn!(work = work.id, %refusal, "an item cannot be acknowledged");
                let _ = self
                    .queue
                    .stop(&work.id, immediate, "not acknowledged")
                    .await;
                return Polled::Item;
            }
        }
        let service = self.service(access, stop.child_token());
        let gauge = metrics::gauge!("mcp_worker_sessions");
        sessions.spawn(async move {
            gauge.increment(1.0);
            session::serve(service).await;
            gauge.decrement(1.0);
            drop(slot);
        });
        Polled::Item
    }

    fn service(&self, access: Access, stop: CancellationToken) -> Service {
        let seat = self
            .board
            .add(access.session(), access.work(), stop.clone());
        Service {
            access: Arc::new(access),
            desks: Arc::clone(&self.desks),
            seat,
            max_idle: self.config.max_idle,
            stop,
            progress: self.progress.clone(),
        }
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// An item that was claimed elsewhere, for [`Worker::run_item`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClaimedItem {
    /// The item's id.
    pub work: String,
    /// The session's id.
    pub session: String,
    /// The item's secret, as the poll answered it.
    pub secret: Option<secrecy::SecretString>,
}

impl ClaimedItem {
    /// An item for a session, without a secret.
    pub fn new(work: impl Into<String>, session: impl Into<String>) -> Self {
        Self {
            work: work.into(),
            session: session.into(),
            secret: None,
        }
    }

    /// Sets the secret that came with the item.
    #[must_use]
    pub fn with_secret(mut self, secret: secrecy::SecretString) -> Self {
        self.secret = Some(secret);
        self
    }
}

/// Ends idle sandboxes, and deletes files that are outdated or whose session is over.
async fn tidy(desks: Arc<Desks>, queue: Arc<Queue>, stop: CancellationToken) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut swept = None::<Instant>;
    let mut asking = Vec::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        desks.end_idle().await;
        if swept.is_none_or(|at| at.elapsed() >= SWEEP) {
            desks.sweep().await;
            asking = desks.unused().await;
            asking.reverse();
            swept = Some(Instant::now());
        }
        // One a tick: the queue's server has better things to do.
        if let Some(session) = asking.pop()
            && matches!(queue.is_over(&session).await, Ok(true))
        {
            desks.delete(&session, "the session is over").await;
        }
    }
}

async fn watch_progress(
    mut progress: watch::Receiver<Instant>,
    readiness: watch::Sender<Readiness>,
    stop: CancellationToken,
) {
    progress.mark_unchanged();
    loop {
        let news = tokio::select! {
            () = stop.cancelled() => return,
            news = timeout(STALE, progress.changed()) => news,
        };
        readiness.send_replace(match news {
            Ok(Ok(())) => Readiness::Ready,
            Ok(Err(_)) => return,
            Err(_) => Readiness::NotReady("no poll, heartbeat or result has succeeded for 90 s"),
        });
    }
}

/// Evenly between 0 and 1.
fn draw() -> f64 {
    f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX)
}

fn chain(error: &AccessError) -> String {
    mcp_diagnostics::telemetry::chain(error).to_string()
}
