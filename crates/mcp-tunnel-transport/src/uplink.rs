//! A gateway's link, kept up: dialled, presented, watched, replaced, drained.
//!
//! ```text
//!            ┌──────────────────────────── Waiting ◄───────────┐
//!            ▼                                                 │ Lost, Refused
//!  start ─► Dialling ─► Dialled ─► present() ─► Pending ─► Active
//!            ▲                        │                      │ │
//!            │                        └──────────────────────┘ │ Draining: the edge said GOAWAY; a replacement is
//!            └─────────────────────────────────────────────────┘ dialled at once, the old link finishes
//!
//!  Active ─► Resuming: the connection is lost, the session kept ─► Dialling … ─► Resumed, back in Active
//!
//!  Waiting, Dialling: the machine has slept, or has another way to the edge ─► Dialling anew
//!
//!  drain(), stop() ─► Stopped
//! ```

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use mcp_tunnel_proto::{CloseCode, Refusal, RefusalCode};
use tokio::{
    task::{Id, JoinSet},
    time::timeout,
};
use tokio_rustls::client::TlsStream;
use tracing::{Instrument as _, debug, info_span};

use crate::{
    Answer, AnswerError, Backoff, CloseReason, Exporter, Link, LinkConfig, LinkDriver, Offer,
    ReadAhead, Target, UplinkConfig,
    dial::DialError,
    timer::{Timer, now},
};

mod event;
mod knock;
#[cfg(not(all(test, feature = "local-ca")))]
mod outside;
mod reach;
#[cfg(all(test, feature = "local-ca"))]
mod sim;
mod wake;

#[cfg(all(test, feature = "local-ca"))]
use self::sim::outside;
use self::{
    reach::{Dialled, Way},
    wake::{Wake, WakeWatch},
};
pub use event::{LostReason, UplinkEvent};

/// Links that may still finish their streams beside the current one; the oldest is closed beyond that.
const MAX_RETIRING: usize = 4;

/// The longest wait before a connection is replaced that the edge took up and that did not last: calls wait with it, and
/// a path that breaks every second must not starve them.
const YOUNG_WAIT: Duration = Duration::from_secs(1);

/// The longest wait between attempts while a session without a connection is kept, where the edge was reached and an
/// attempt cost it something. One that did not get there is repeated at the [pace](UplinkConfig::set_kept_pace).
const GAP_WAIT: Duration = Duration::from_secs(5);

/// What TLS, and the answer to the credential, may take at first while a session is kept: the path was there a moment
/// before, and if it is gone again, waiting does not bring it back. Doubled by each failure in a row, so that an edge whose
/// gateways come back all at once has its time.
const GAP_PATIENCE: Duration = Duration::from_secs(2);

type Socket = ReadAhead<outside::Connection>;
type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A supervised link to one edge.
///
/// Nothing happens unless [`next`](Self::next) is polled, but for the driver of an active link, which runs in a task
/// that the uplink owns: dropping the uplink ends its links at once.
pub struct Uplink {
    target: Target,
    config: UplinkConfig,
    backoff: Backoff,
    state: State,
    /// What to answer first; one step yields two events at most.
    queued: VecDeque<UplinkEvent>,
    current: Option<Current>,
    /// Since when the current link has no connection, and another is made for it.
    gap: Option<Instant>,
    /// Where an edge was reached last.
    address: Option<SocketAddr>,
    wake: WakeWatch,
    /// The edge has asked to be left alone until then.
    not_before: Instant,
    /// Links finish; no new attempt but for a session that is kept.
    draining: Option<Boxed<()>>,
    retiring: Vec<Retiring>,
    drivers: JoinSet<CloseReason>,
    timer: Timer,
}

struct Current {
    link: Link,
    task: Id,
    since: Instant,
    /// What it meets next; `None` once its driver is about to be joined.
    change: Option<Boxed<Change>>,
}

/// A link that the edge has sent away, until its last stream has ended.
struct Retiring {
    link: Link,
    drained: Boxed<()>,
}

enum State {
    /// The next poll begins an attempt.
    Due,
    Dialling(Boxed<Result<(Dialled, Exporter), DialError>>),
    /// TLS is up; the credential is awaited until the deadline.
    Presenting(Box<Dialled>, Instant),
    /// HELLO is on its way, or the edge has said that a person must approve.
    Offering(Boxed<Result<Answer<Socket>, AnswerError>>, SocketAddr),
    Active,
    Waiting(Instant),
    /// No attempt is to be made: links finish.
    Idle,
    /// Drivers end.
    Stopping,
    Stopped,
}

impl Uplink {
    /// An uplink to `target` that has not begun yet.
    pub fn new(target: Target, config: UplinkConfig) -> Self {
        Self {
            backoff: config.backoff().clone(),
            wake: WakeWatch::new(config.link().sleep_watch()),
            address: None,
            not_before: now(),
            target,
            config,
            state: State::Due,
            queued: VecDeque::new(),
            current: None,
            gap: None,
            draining: None,
            retiring: Vec::new(),
            drivers: JoinSet::new(),
            timer: Timer::default(),
        }
    }

    /// Goes on, and answers with the next thing that happened.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what is under way stays under way in the uplink, but stands still until the next call.
    pub async fn next(&mut self) -> UplinkEvent {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Answers [`UplinkEvent::Dialled`]; without effect at any other time.
    pub fn present(&mut self, credential: Bytes) {
        match std::mem::replace(&mut self.state, State::Due) {
            State::Presenting(dialled, _) => self.offer(*dialled, credential),
            other => self.state = other,
        }
    }

    /// Ends gracefully: GOAWAY, no further attempts; running streams may finish within
    /// [`UplinkConfig::set_drain_timeout`], and [`UplinkEvent::Stopped`] comes as soon as they have.
    pub fn drain(&mut self) {
        if self.draining.is_some() || matches!(self.state, State::Stopping | State::Stopped) {
            return;
        }
        let links = self.links();
        let within = self.config.drain_timeout();
        self.draining = Some(Box::pin(drain(links, within)));
        // Streams that wait for a connection can only finish over one.
        if self.gap.is_none() {
            self.state = State::Idle;
        }
        self.queued.clear();
    }

    /// Ends at once: links are closed, their streams fail, and [`UplinkEvent::Stopped`] follows.
    pub fn stop(&mut self) {
        if matches!(self.state, State::Stopped) {
            return;
        }
        for link in self.links() {
            link.close(CloseCode::SHUTDOWN, "");
        }
        self.draining = None;
        self.state = State::Stopping;
        self.queued.clear();
    }

    /// Begins the next attempt now instead of at the end of the wait, for instance when the network has come back.
    pub fn dial_now(&mut self) {
        if matches!(self.state, State::Waiting(_)) {
            self.state = State::Due;
            self.queued
                .retain(|event| !matches!(event, UplinkEvent::Waiting { .. }));
        }
    }

    fn links(&self) -> Vec<Link> {
        let current = self.current.as_ref().map(|current| current.link.clone());
        let retiring = self.retiring.iter().map(|retiring| retiring.link.clone());
        retiring.chain(current).collect()
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<UplinkEvent> {
        if let Some(event) = self.queued.pop_front() {
            return Poll::Ready(event);
        }
        self.poll_retiring(cx);
        if let Poll::Ready(event) = self.poll_drivers(cx) {
            return Poll::Ready(event);
        }
        if let Poll::Ready(event) = self.poll_current(cx) {
            return Poll::Ready(event);
        }
        if let Some(draining) = &mut self.draining
            && draining.as_mut().poll(cx).is_ready()
        {
            self.draining = None;
            self.state = State::Stopping;
        }
        self.poll_wake(cx);
        match &mut self.state {
            State::Due => Poll::Ready(self.dial()),
            State::Dialling(attempt) => {
                let outcome = ready!(attempt.as_mut().poll(cx));
                Poll::Ready(self.on_dialled(outcome))
            }
            State::Presenting(_, deadline) => {
                ready!(self.timer.poll(cx, Some(*deadline)));
                let after = self.config.credential_timeout();
                Poll::Ready(self.lose(LostReason::NotPresented { after }))
            }
            State::Offering(answer, address) => {
                let address = *address;
                let answer = ready!(answer.as_mut().poll(cx));
                Poll::Ready(self.on_answer(answer, address))
            }
            State::Active | State::Idle => Poll::Pending,
            State::Waiting(until) => {
                ready!(self.timer.poll(cx, Some(*until)));
                Poll::Ready(self.dial())
            }
            State::Stopping if self.drivers.is_empty() => {
                self.state = State::Stopped;
                Poll::Ready(UplinkEvent::Stopped)
            }
            State::Stopping => Poll::Pending,
            State::Stopped => Poll::Ready(UplinkEvent::Stopped),
        }
    }

    /// What an attempt or a wait was begun for is different now: begins another at once.
    fn poll_wake(&mut self, cx: &mut Context<'_>) {
        if !matches!(self.state, State::Waiting(_) | State::Dialling(_)) {
            self.wake.rest();
            return;
        }
        let Poll::Ready(wake) = self.wake.poll(cx, self.address) else {
            return;
        };
        debug!(?wake, "dialling at once");
        if let Wake::Slept(slept) = wake {
            self.not_before = self.not_before.checked_sub(slept).unwrap_or_else(now);
        }
        self.backoff.reset();
        self.queued
            .retain(|event| !matches!(event, UplinkEvent::Waiting { .. }));
        self.state = State::Waiting(self.not_before);
    }

    /// Closes links on which nothing more can happen.
    fn poll_retiring(&mut self, cx: &mut Context<'_>) {
        self.retiring.retain_mut(|retiring| {
            let drained = retiring.drained.as_mut().poll(cx).is_ready();
            if drained {
                retiring.link.close(CloseCode::NO_ERROR, "");
            }
            !drained
        });
    }

    /// Takes note of drivers that have ended; the current one's end is an event.
    fn poll_drivers(&mut self, cx: &mut Context<'_>) -> Poll<UplinkEvent> {
        while let Poll::Ready(Some(ended)) = self.drivers.poll_join_next_with_id(cx) {
            let (task, reason) = match ended {
                Ok(ended) => ended,
                Err(error) => (error.id(), CloseReason::Abandoned),
            };
            let ours = self.current.take_if(|current| current.task == task);
            let Some(current) = ours else { continue };
            let gap = self.gap.take();
            if matches!(self.state, State::Stopping | State::Stopped) {
                // It was to end, and none is to take its place.
                continue;
            }
            if gap.is_some() || matches!(self.state, State::Active) {
                if gap.is_none() {
                    self.reward(&current);
                }
                return Poll::Ready(self.lose(reason.into()));
            }
        }
        Poll::Pending
    }

    fn dial(&mut self) -> UplinkEvent {
        let (target, config) = (self.target.clone(), self.config.clone());
        self.state = State::Dialling(match self.way_back() {
            Some(way) => Box::pin(reach::again(target, config, way)),
            None => Box::pin(reach::first(target, config)),
        });
        UplinkEvent::Dialling {
            attempt: self.backoff.attempts().saturating_add(1),
        }
    }

    /// How the session that waits is brought back, if one does.
    fn way_back(&self) -> Option<Way> {
        let current = self.current.as_ref().filter(|_| self.gap.is_some())?;
        let round_trip = current.link.rtt().unwrap_or_default();
        Some(Way {
            last: self.address?,
            pace: self.config.kept_pace().over(round_trip),
            patience: self.patience(round_trip).min(self.config.connect_timeout()),
        })
    }

    /// What the edge may take while a session waits for it, once it is reached.
    fn patience(&self, round_trip: Duration) -> Duration {
        let doubled = 1_u32.checked_shl(self.backoff.attempts());
        GAP_PATIENCE
            .max(round_trip.saturating_mul(8))
            .saturating_mul(doubled.unwrap_or(u32::MAX))
    }

    fn on_dialled(&mut self, outcome: Result<(Dialled, Exporter), DialError>) -> UplinkEvent {
        match outcome {
            Ok((dialled, exporter)) => {
                let address = dialled.address;
                self.address = Some(address);
                let deadline = now() + self.config.credential_timeout();
                self.state = State::Presenting(Box::new(dialled), deadline);
                UplinkEvent::Dialled { exporter, address }
            }
            // What has just been sought for long is sought on, without a pause beyond the pace's.
            Err(error @ DialError::Connect { .. }) if self.way_back().is_some() => {
                self.state = State::Due;
                let reason = error.into();
                UplinkEvent::Lost { reason }
            }
            Err(error) => self.lose(error.into()),
        }
    }

    fn offer(&mut self, dialled: Dialled, credential: Bytes) {
        let config = self.config.link();
        let offer = match &self.current {
            Some(current) if self.gap.is_some() => {
                let config = self.impatient(&current.link);
                Offer::resuming(dialled.tls, credential, &config, &current.link)
            }
            _ => Offer::new(dialled.tls, credential, config),
        };
        match offer {
            Ok(offer) => self.state = State::Offering(Box::pin(offer.answer()), dialled.address),
            Err(error) => {
                let lost = self.lose(error.into());
                self.queued.push_front(lost);
            }
        }
    }

    /// How the answer to a claim is awaited.
    fn impatient(&self, link: &Link) -> LinkConfig {
        let config = self.config.link();
        let patience = self.patience(link.rtt().unwrap_or_default());
        config
            .clone()
            .set_answer_timeout(patience.min(config.answer_timeout()))
    }

    fn on_answer(
        &mut self,
        answer: Result<Answer<Socket>, AnswerError>,
        address: SocketAddr,
    ) -> UplinkEvent {
        match answer {
            Ok(Answer::Pending {
                approval_code,
                offer,
            }) => {
                self.give_up();
                self.state = State::Offering(Box::pin(offer.answer()), address);
                UplinkEvent::Pending { approval_code }
            }
            Ok(Answer::Active { link, driver }) => {
                self.give_up();
                self.activate(link, driver, address)
            }
            Ok(Answer::Resumed) => self.on_resumed(address),
            Ok(Answer::Refused(refusal)) => self.on_refused(refusal),
            Err(error) => self.lose(error.into()),
        }
    }

    fn activate(
        &mut self,
        link: Link,
        driver: LinkDriver<TlsStream<Socket>>,
        address: SocketAddr,
    ) -> UplinkEvent {
        let span = info_span!("link", edge = %address);
        let task = self.drivers.spawn(driver.run().instrument(span)).id();
        self.current = Some(Current {
            link: link.clone(),
            task,
            since: now(),
            change: Some(Box::pin(next_change(link.clone()))),
        });
        self.state = State::Active;
        if self.draining.is_some() {
            // It came in place of a session that was to finish.
            link.close(CloseCode::SHUTDOWN, "");
            self.state = State::Idle;
        }
        UplinkEvent::Active { link, address }
    }

    fn on_resumed(&mut self, address: SocketAddr) -> UplinkEvent {
        self.state = State::Active;
        let now = now();
        let since = self.gap.take().unwrap_or(now);
        if let Some(current) = &mut self.current {
            current.since = now;
            current.change = Some(Box::pin(next_change(current.link.clone())));
        }
        UplinkEvent::Resumed {
            after: now.saturating_duration_since(since),
            address,
        }
    }

    /// The edge does not go on with the session: its streams fail.
    fn give_up(&mut self) {
        if self.gap.take().is_some()
            && let Some(current) = self.current.take()
        {
            current.link.give_up();
        }
    }

    /// What the current link meets: the edge's GOAWAY, or the loss of its connection.
    fn poll_current(&mut self, cx: &mut Context<'_>) -> Poll<UplinkEvent> {
        if matches!(self.state, State::Stopping | State::Stopped) {
            return Poll::Pending;
        }
        let Some(current) = &mut self.current else {
            return Poll::Pending;
        };
        let Some(change) = &mut current.change else {
            return Poll::Pending;
        };
        let change = ready!(change.as_mut().poll(cx));
        current.change = None;
        if matches!(change, Change::GoingAway(_)) && self.draining.is_some() {
            // It finishes anyway, and only its connection matters.
            let link = current.link.clone();
            current.change = Some(Box::pin(next_loss(link)));
            return self.poll_current(cx);
        }
        match (change, self.current.take()) {
            (Change::GoingAway(code), Some(current)) => Poll::Ready(self.retire(current, code)),
            (Change::Detached(reason), Some(current)) => {
                Poll::Ready(self.on_detached(current, reason))
            }
            (_, ended) => {
                self.current = ended;
                Poll::Pending
            }
        }
    }

    /// A connection that had lasted is replaced at once; one that had not, after a wait, so that an edge that takes
    /// connections and drops them is not hammered.
    fn on_detached(&mut self, current: Current, reason: CloseReason) -> UplinkEvent {
        let now = now();
        let lasted = now.saturating_duration_since(current.since);
        self.current = Some(current);
        self.gap = Some(now);
        if lasted >= self.config.resumed_at_once_after() {
            self.backoff.reset();
            self.state = State::Due;
        } else {
            let delay = self.backoff.next(outside::random()).min(YOUNG_WAIT);
            self.wait(delay);
        }
        UplinkEvent::Resuming { reason }
    }

    /// Lets a link finish and sees to its replacement: at once if it was healthy, with back-off if the edge says
    /// GOAWAY to every link as soon as it is up.
    fn retire(&mut self, current: Current, code: CloseCode) -> UplinkEvent {
        if self.retiring.len() >= MAX_RETIRING {
            let oldest = self.retiring.remove(0);
            oldest.link.close(CloseCode::REPLACED, "");
        }
        if self.reward(&current) {
            self.state = State::Due;
        } else {
            let delay = self.backoff.next(outside::random());
            self.wait(delay);
        }
        let link = current.link;
        let drained = Box::pin(finished(link.clone()));
        self.retiring.push(Retiring { link, drained });
        UplinkEvent::Draining { code }
    }

    /// A link that was healthy for long enough starts the back-off over.
    fn reward(&mut self, current: &Current) -> bool {
        let healthy = now().saturating_duration_since(current.since) >= self.config.healthy_after();
        if healthy {
            self.backoff.reset();
        }
        healthy
    }

    fn on_refused(&mut self, refusal: Refusal) -> UplinkEvent {
        if refusal.code.is_final() || refusal.code == RefusalCode::SESSION {
            self.give_up();
        }
        let asked = refusal.retry_after.unwrap_or_default();
        let at_least = asked.min(self.config.retry_after_cap());
        self.not_before = now() + at_least;
        let delay = self.backoff.next_after(at_least, outside::random());
        self.wait(delay);
        UplinkEvent::Refused {
            code: refusal.code,
            retry_after: refusal.retry_after,
            text: refusal.text,
        }
    }

    fn lose(&mut self, reason: LostReason) -> UplinkEvent {
        let delay = self.backoff.next(outside::random());
        match self.gap {
            None => self.wait(delay),
            Some(_) => self.wait(delay.min(GAP_WAIT)),
        }
        UplinkEvent::Lost { reason }
    }

    fn wait(&mut self, delay: Duration) {
        if self.draining.is_some() && self.gap.is_none() {
            self.state = State::Idle;
            return;
        }
        self.state = State::Waiting(now() + delay);
        self.queued.push_back(UplinkEvent::Waiting { delay });
    }
}

impl fmt::Debug for Uplink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uplink")
            .field("target", &self.target)
            .field("attempts", &self.backoff.attempts())
            .field("links", &self.drivers.len())
            .finish_non_exhaustive()
    }
}

/// What a link meets in its life.
#[derive(Debug)]
enum Change {
    /// The edge sends no new streams on it.
    GoingAway(CloseCode),
    /// Its connection is gone, and its session kept.
    Detached(CloseReason),
    Ended,
}

async fn next_loss(link: Link) -> Change {
    link.detached()
        .await
        .map_or(Change::Ended, Change::Detached)
}

async fn next_change(link: Link) -> Change {
    tokio::select! {
        biased;
        change = next_loss(link.clone()) => change,
        code = link.going_away() => code.map_or(Change::Ended, Change::GoingAway),
    }
}

/// Waits until a link that was sent away has finished. One that loses its connection fails its streams: its edge is
/// going away, or does not take this gateway's credential any more.
async fn finished(link: Link) {
    tokio::select! {
        () = link.drained() => {}
        _lost = link.detached() => link.give_up(),
    }
}

/// Announces the end on all links, waits for their streams, then closes them.
async fn drain(links: Vec<Link>, within: Duration) {
    for link in &links {
        link.go_away(CloseCode::SHUTDOWN, Some(within));
    }
    let drained = async {
        for link in &links {
            link.drained().await;
        }
    };
    let _ = timeout(within, drained).await;
    for link in &links {
        link.close(CloseCode::SHUTDOWN, "");
    }
}
