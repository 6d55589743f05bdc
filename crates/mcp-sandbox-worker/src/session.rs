//! One claimed item: a session served from its claim to its release.
//!
//! ```text
//!   lease ──────────── beats, beside everything else ─────────────┐
//!   session GET ─► desk, sandbox, skills ─► events ─► call ─► …   ├─► stop the item, or leave it alone
//!                                   idle, stop, SIGTERM ──────────┘
//! ```

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::access::{Access, Refusal, SessionView};
use crate::board::{Seat, SessionState};
use crate::call::{self, CallContext, CallEnd, Wish};
use crate::calls::Calls;
use crate::desk::{Desk, DeskError, Desks};
use crate::feed::{self, Fed, feed};
use crate::lease::{self, Standing};
use crate::skills;

/// The tools that this worker serves.
const TOOLS: &[&str] = &["bash", "read", "write", "edit", "glob", "grep"];
/// A cancelled call has this long to be answered.
const CANCEL_TIME: Duration = Duration::from_secs(20);
/// The stop of an item has this long.
const STOP_TIME: Duration = Duration::from_secs(10);
/// Pauses between two tries to read the session.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

const MEMORY: &str = "this worker does not serve memory stores yet, and refuses the calls of a session that has one: \
    take the memory store off the session, or serve its environment with another worker";

/// How a served item ended, for the log and the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Nothing was left to do.
    Idle,
    /// The session is over.
    SessionEnded,
    /// Somebody asked for it, at the server or here.
    Stopped,
    /// The server waits for a result that it has refused.
    Stuck,
    /// The session cannot be served.
    Failed,
    /// Another worker may hold it.
    LeaseLost,
    /// The credential is not taken any more.
    Rejected,
}

impl Ending {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::SessionEnded => "session ended",
            Self::Stopped => "stopped",
            Self::Stuck => "stuck",
            Self::Failed => "failed",
            Self::LeaseLost => "lease lost",
            Self::Rejected => "rejected",
        }
    }

    /// Whether the item is ours to stop.
    fn stops_item(self) -> bool {
        !matches!(self, Self::LeaseLost | Self::Rejected)
    }
}

/// What a session is served with.
pub(crate) struct Service {
    pub(crate) access: Arc<Access>,
    pub(crate) desks: Arc<Desks>,
    pub(crate) seat: Seat,
    /// The item ends after so long without anything to do; none: never.
    pub(crate) max_idle: Option<Duration>,
    /// Ends it in good order.
    pub(crate) stop: CancellationToken,
    /// Told at each sign of progress.
    pub(crate) progress: watch::Sender<Instant>,
}

/// Serves an item until its end.
pub(crate) async fn serve(service: Service) -> Ending {
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    let (standing, lease) = watch::channel(Standing::Held);
    let (access, progress) = (Arc::clone(&service.access), service.progress.clone());
    tasks.spawn(async move {
        let beat = |expected, limit| {
            let access = Arc::clone(&access);
            async move { access.heartbeat(expected, limit).await }
        };
        let ended = lease::keep(beat, |_| {
            progress.send_replace(Instant::now());
        });
        standing.send_replace(ended.await);
    });
    let mut run = Run {
        service,
        lease,
        calls: Calls::new(TOOLS),
        answered: 0,
        failure: None,
    };
    let ending = run.run(&mut tasks).await;
    let access = &run.service.access;
    run.service.seat.show(SessionState::Stopping, None);
    if ending.stops_item() {
        let failure = run.failure.as_deref();
        let reason = failure.map_or_else(
            || ending.as_str().to_owned(),
            |failure| format!("{}: {failure}", ending.as_str()),
        );
        match timeout(STOP_TIME, access.stop(&reason)).await {
            Ok(Ok(())) => {}
            Ok(Err(refusal)) => {
                warn!(work = access.work(), %refusal, "the item cannot be stopped");
            }
            Err(_) => warn!(work = access.work(), "the item cannot be stopped in time"),
        }
    }
    tasks.shutdown().await;
    info!(
        session = access.session(),
        work = access.work(),
        worker = access.worker(),
        trace = access.trace(),
        ending = ending.as_str(),
        calls = run.answered,
        ms = call::millis(started),
        "session"
    );
    metrics::counter!("mcp_worker_items_total", "ending" => ending.as_str()).increment(1);
    ending
}

struct Run {
    service: Service,
    lease: watch::Receiver<Standing>,
    calls: Calls,
    answered: u64,
    /// Why it could not be served, for whoever looks at the session.
    failure: Option<String>,
}

/// A call or the first preparation, under way.
struct Job {
    /// None while the place is prepared.
    call: Option<String>,
    wish: watch::Sender<Wish>,
    future: Pin<Box<dyn Future<Output = CallEnd> + Send>>,
}

/// What the loop waits for.
enum Turn {
    Lease(Standing),
    Stop,
    Fed(Fed),
    Done(CallEnd),
    IdleLongEnough,
    CancelledTooLong,
}

impl Run {
    async fn run(&mut self, tasks: &mut JoinSet<()>) -> Ending {
        let (out, fed) = mpsc::channel(feed::WAITING);
        let again = Arc::new(Notify::new());
        let access = Arc::clone(&self.service.access);
        tasks.spawn(feed(Arc::clone(&access), out, Arc::clone(&again)));
        let desks = Arc::clone(&self.service.desks);
        // The events, the session and its place need nothing of each other, and an agent waits.
        let all = async {
            tokio::join!(
                Self::view(Arc::clone(&access)),
                desks.take(access.session())
            )
        };
        let (session, desk) = match self.until_ended(all).await {
            Ok((Ok(session), Ok(desk))) => (session, desk),
            Ok((Err(refusal), desk)) => {
                if let Ok(desk) = desk {
                    desks.leave(desk).await;
                }
                return self.refused(&refusal, "the session cannot be read");
            }
            Ok((Ok(_), Err(error))) => return self.no_desk(&error),
            Err(ending) => return ending,
        };
        self.service.seat.show_workspace(desk.workspace());
        let desk = Arc::new(Mutex::new(desk));
        let ending = if session.ended {
            Ending::SessionEnded
        } else {
            self.work(&session, fed, &again, &desk).await
        };
        self.put_away(desk, ending).await;
        ending
    }

    async fn put_away(&self, desk: Arc<Mutex<Desk>>, ending: Ending) {
        // Every job is over: nobody else has it.
        let Some(desk) = Arc::into_inner(desk) else {
            return;
        };
        let mut desk = desk.into_inner();
        match ending {
            Ending::SessionEnded => self.service.desks.discard(desk).await,
            // What ran in it may still do: nothing of that must meet the next holder's calls.
            Ending::LeaseLost | Ending::Rejected => {
                desk.end_sandbox().await;
                self.service.desks.leave(desk).await;
            }
            Ending::Stopped => {
                desk.end_sandbox().await;
                self.service.desks.leave(desk).await;
            }
            Ending::Idle | Ending::Stuck | Ending::Failed => self.service.desks.leave(desk).await,
        }
    }

    /// The loop: events in, one call at a time, until something ends it.
    async fn work(
        &mut self,
        session: &SessionView,
        mut fed: mpsc::Receiver<Fed>,
        again: &Notify,
        desk: &Arc<Mutex<Desk>>,
    ) -> Ending {
        let skills = Arc::new(session.skills.clone());
        let refuse = session.has_memory_stores.then_some(MEMORY);
        if refuse.is_some() {
            warn!(
                session = self.service.access.session(),
                "a session with memory stores is refused: they are not served yet"
            );
        }
        let mut job = refuse.is_none().then(|| self.preparation(desk, &skills));
        let (mut caught_up, mut stopping, mut idle_since) = (false, None, None);
        let mut doubtful: Option<String> = None;
        loop {
            if let Some(stuck) = doubtful.take_if(|_| caught_up)
                && self.calls.stuck_on(&stuck)
            {
                return Ending::Stuck;
            }
            if job.is_none() && caught_up && stopping.is_none() {
                job = self.next_job(desk, &skills, refuse);
            }
            if job.is_none() && stopping.is_some() {
                return Ending::Stopped;
            }
            let idle = job.is_none() && caught_up && self.has_nothing_to_do();
            idle_since = if idle {
                idle_since.or_else(|| Some(Instant::now()))
            } else {
                None
            };
            let idle_until = idle_since
                .zip(self.service.max_idle)
                .map(|(since, max)| since + max);
            match self
                .turn(&mut fed, job.as_mut(), stopping, idle_until)
                .await
            {
                Turn::Lease(Standing::Lost) => return Ending::LeaseLost,
                Turn::Lease(Standing::Rejected) => return Ending::Rejected,
                Turn::Lease(Standing::Held) => {}
                Turn::Lease(Standing::Stopping) | Turn::Stop => {
                    stopping = Some(Instant::now() + CANCEL_TIME);
                    self.service.seat.show(SessionState::Stopping, None);
                    if let Some(job) = &job {
                        job.wish.send_replace(Wish::Cancel);
                    }
                }
                Turn::IdleLongEnough => return Ending::Idle,
                Turn::CancelledTooLong => return Ending::Stopped,
                Turn::Fed(Fed::CaughtUp) => caught_up = true,
                Turn::Fed(Fed::Ended(refusal)) => {
                    return self.refused(&refusal, "the session's events cannot be read");
                }
                Turn::Fed(Fed::Event(id, observation)) => {
                    self.calls.apply(&id, observation);
                    self.void_if_over(job.as_ref());
                    if self.calls.ended() {
                        return self.end_of_session(job).await;
                    }
                }
                Turn::Done(end) => {
                    let call = job.take().and_then(|job| job.call);
                    self.service.progress.send_replace(Instant::now());
                    match self.on_done(call, end) {
                        After::GoOn => {}
                        After::Doubt(call) => {
                            (doubtful, caught_up) = (Some(call), false);
                            again.notify_one();
                        }
                        After::End(ending) => return ending,
                    }
                }
            }
        }
    }

    /// Nothing can be done here until something new comes, and the item may end. One whose session waits for a
    /// confirmation ends only where the server is known to queue another when that comes: official workers hold on.
    fn has_nothing_to_do(&self) -> bool {
        let queued_again = self.service.access.is_queued_again();
        self.calls.is_idle() || (queued_again && self.calls.waits_for_others())
    }

    /// # Cancel safety
    /// Not needed: each arm is cancel safe, and the job's future lives in its owner.
    async fn turn(
        &mut self,
        fed: &mut mpsc::Receiver<Fed>,
        job: Option<&mut Job>,
        stopping: Option<Instant>,
        idle_until: Option<Instant>,
    ) -> Turn {
        let running = async {
            match job {
                Some(job) => job.future.as_mut().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            standing = ended(&mut self.lease), if stopping.is_none() => Turn::Lease(standing),
            () = self.service.stop.cancelled(), if stopping.is_none() => Turn::Stop,
            Some(fed) = fed.recv() => Turn::Fed(fed),
            end = running => Turn::Done(end),
            () = at(stopping) => Turn::CancelledTooLong,
            () = at(idle_until) => Turn::IdleLongEnough,
        }
    }

    /// A call that was broken off or answered elsewhere ends without a result.
    fn void_if_over(&self, job: Option<&Job>) {
        if let Some(job) = job
            && let Some(call) = &job.call
            && !self.calls.awaits(call)
        {
            job.wish.send_replace(Wish::Void);
        }
    }

    /// Lets the call that runs write down that nobody waits for it.
    async fn end_of_session(&self, job: Option<Job>) -> Ending {
        if let Some(job) = job {
            job.wish.send_replace(Wish::Void);
            let _ = timeout(CANCEL_TIME, job.future).await;
        }
        Ending::SessionEnded
    }

    fn on_done(&mut self, call: Option<String>, end: CallEnd) -> After {
        self.service.seat.show(SessionState::Waiting, None);
        let Some(call) = call else {
            return After::GoOn;
        };
        match end {
            CallEnd::Answered => {
                self.answered += 1;
                self.service.seat.count();
                self.calls.answer(&call);
                After::GoOn
            }
            CallEnd::Voided => {
                self.calls.finish(&call);
                After::GoOn
            }
            CallEnd::Refused => {
                self.calls.finish(&call);
                After::Doubt(call)
            }
            CallEnd::NotStarted => After::GoOn,
            CallEnd::NoRight => After::End(Ending::Rejected),
        }
    }

    /// Makes the sandbox before the first call needs it.
    fn preparation(&self, desk: &Arc<Mutex<Desk>>, skills: &Arc<Vec<skills::Wanted>>) -> Job {
        let (wish, context) = self.context(desk, skills, None);
        let future = async move {
            let mut desk = context.desk.clone().lock_owned().await;
            let mut wished = context.wish.clone();
            tokio::select! {
                // Why it cannot be made is said to the first call.
                _ = call::prepare(&context, &mut desk) => {}
                _ = wished.wait_for(|wish| *wish != Wish::GoOn) => {}
            }
            CallEnd::NotStarted
        };
        Job {
            call: None,
            wish,
            future: Box::pin(future),
        }
    }

    fn next_job(
        &self,
        desk: &Arc<Mutex<Desk>>,
        skills: &Arc<Vec<skills::Wanted>>,
        refuse: Option<&'static str>,
    ) -> Option<Job> {
        let call = self.calls.next_ready()?.clone();
        self.service
            .seat
            .show(SessionState::Running, Some(&call.tool));
        let (wish, context) = self.context(desk, skills, refuse);
        Some(Job {
            call: Some(call.id.clone()),
            wish,
            future: Box::pin(call::answer(call, context)),
        })
    }

    fn context(
        &self,
        desk: &Arc<Mutex<Desk>>,
        skills: &Arc<Vec<skills::Wanted>>,
        refuse: Option<&'static str>,
    ) -> (watch::Sender<Wish>, CallContext) {
        let (sender, wish) = watch::channel(Wish::GoOn);
        let context = CallContext {
            access: Arc::clone(&self.service.access),
            desks: Arc::clone(&self.service.desks),
            desk: Arc::clone(desk),
            wish,
            skills: Arc::clone(skills),
            refuse,
            last_answered: self.calls.last_answered().map(str::to_owned),
        };
        (sender, context)
    }

    async fn view(access: Arc<Access>) -> Result<SessionView, Refusal> {
        let mut pause = PAUSE.0;
        loop {
            match access.view().await {
                Err(Refusal::Later { after, .. }) => {
                    pause = pause.max(after.unwrap_or_default()).min(PAUSE.1);
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                done => return done,
            }
        }
    }

    /// Runs something unless the lease ends or somebody stops the item first.
    async fn until_ended<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Ending> {
        tokio::select! {
            biased;
            standing = ended(&mut self.lease) => Err(match standing {
                Standing::Lost => Ending::LeaseLost,
                Standing::Rejected => Ending::Rejected,
                Standing::Stopping | Standing::Held => Ending::Stopped,
            }),
            () = self.service.stop.cancelled() => Err(Ending::Stopped),
            done = work => Ok(done),
        }
    }

    fn refused(&mut self, refusal: &Refusal, what: &str) -> Ending {
        self.failure = Some(format!("{what}: {refusal}"));
        warn!(session = self.service.access.session(), work = self.service.access.work(), %refusal, "{what}");
        match refusal {
            Refusal::Unauthorised(_) => Ending::Rejected,
            Refusal::Final { status: 404, .. } => Ending::SessionEnded,
            Refusal::Final { .. } | Refusal::Later { .. } => Ending::Failed,
        }
    }

    fn no_desk(&mut self, error: &DeskError) -> Ending {
        let session = self.service.access.session();
        let error = mcp_diagnostics::telemetry::chain(error).to_string();
        warn!(%session, error, "the session has no place here");
        self.failure = Some(format!("its worker has no place for it: {error}"));
        Ending::Failed
    }
}

/// How the loop goes on after a call.
enum After {
    GoOn,
    /// The server refused the result: it may wait for another one.
    Doubt(String),
    End(Ending),
}

/// Waits until the lease is not simply held.
async fn ended(lease: &mut watch::Receiver<Standing>) -> Standing {
    match lease.wait_for(|standing| *standing != Standing::Held).await {
        Ok(standing) => *standing,
        // The task is gone without a word.
        Err(_) => Standing::Lost,
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
