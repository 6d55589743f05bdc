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
use mcp_tunnel_proto::{CloseCode, Refusal};
use tokio::{
    net::TcpStream,
    task::{Id, JoinSet},
    time::timeout,
};
use tokio_rustls::client::TlsStream;
use tracing::{Instrument as _, info_span};

use crate::{
    Answer, AnswerError, Backoff, CloseReason, Exporter, Link, LinkDriver, Offer, ReadAhead,
    Target, UplinkConfig,
    dial::{self, DialError},
    timer::{Timer, now},
};

mod event;

pub use event::{LostReason, UplinkEvent};

/// Links that may still finish their streams beside the current one; the oldest is closed beyond that.
const MAX_RETIRING: usize = 4;

type Socket = ReadAhead<TcpStream>;
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
    retiring: Vec<Retiring>,
    drivers: JoinSet<CloseReason>,
    timer: Timer,
}

struct Dialled {
    tls: TlsStream<Socket>,
    address: SocketAddr,
}

struct Current {
    link: Link,
    task: Id,
    since: Instant,
    /// The edge's GOAWAY, until it has come; `None` inside where the link ended without one.
    going_away: Option<Boxed<Option<CloseCode>>>,
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
    /// Links finish; no new attempt.
    Draining(Boxed<()>),
    /// Drivers end.
    Stopping,
    Stopped,
}

impl Uplink {
    /// An uplink to `target` that has not begun yet.
    pub fn new(target: Target, config: UplinkConfig) -> Self {
        Self {
            backoff: config.backoff().clone(),
            target,
            config,
            state: State::Due,
            queued: VecDeque::new(),
            current: None,
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
        if matches!(
            self.state,
            State::Draining(_) | State::Stopping | State::Stopped
        ) {
            return;
        }
        let links = self.links();
        let within = self.config.drain_timeout();
        self.state = State::Draining(Box::pin(drain(links, within)));
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
            State::Active => self.poll_active(cx),
            State::Waiting(until) => {
                ready!(self.timer.poll(cx, Some(*until)));
                Poll::Ready(self.dial())
            }
            State::Draining(draining) => {
                ready!(draining.as_mut().poll(cx));
                self.state = State::Stopping;
                self.poll_next(cx)
            }
            State::Stopping if self.drivers.is_empty() => {
                self.state = State::Stopped;
                Poll::Ready(UplinkEvent::Stopped)
            }
            State::Stopping => Poll::Pending,
            State::Stopped => Poll::Ready(UplinkEvent::Stopped),
        }
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
            if let Some(current) = ours
                && matches!(self.state, State::Active)
            {
                self.reward(&current);
                return Poll::Ready(self.lose(reason.into()));
            }
        }
        Poll::Pending
    }

    fn dial(&mut self) -> UplinkEvent {
        let (target, config) = (self.target.clone(), self.config.clone());
        self.state = State::Dialling(Box::pin(reach(target, config)));
        UplinkEvent::Dialling {
            attempt: self.backoff.attempts().saturating_add(1),
        }
    }

    fn on_dialled(&mut self, outcome: Result<(Dialled, Exporter), DialError>) -> UplinkEvent {
        match outcome {
            Ok((dialled, exporter)) => {
                let address = dialled.address;
                let deadline = now() + self.config.credential_timeout();
                self.state = State::Presenting(Box::new(dialled), deadline);
                UplinkEvent::Dialled { exporter, address }
            }
            Err(error) => self.lose(error.into()),
        }
    }

    fn offer(&mut self, dialled: Dialled, credential: Bytes) {
        match Offer::new(dialled.tls, credential, self.config.link()) {
            Ok(offer) => self.state = State::Offering(Box::pin(offer.answer()), dialled.address),
            Err(error) => {
                let lost = self.lose(error.into());
                self.queued.push_front(lost);
            }
        }
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
                self.state = State::Offering(Box::pin(offer.answer()), address);
                UplinkEvent::Pending { approval_code }
            }
            Ok(Answer::Active { link, driver }) => self.activate(link, driver, address),
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
        let watched = link.clone();
        self.current = Some(Current {
            link: link.clone(),
            task,
            since: now(),
            going_away: Some(Box::pin(async move { watched.going_away().await })),
        });
        self.state = State::Active;
        UplinkEvent::Active { link, address }
    }

    fn poll_active(&mut self, cx: &mut Context<'_>) -> Poll<UplinkEvent> {
        let Some(going_away) = self
            .current
            .as_mut()
            .and_then(|current| current.going_away.as_mut())
        else {
            return Poll::Pending; // its driver is about to be joined
        };
        let code = ready!(going_away.as_mut().poll(cx));
        match (code, self.current.take()) {
            (Some(code), Some(current)) => Poll::Ready(self.retire(current, code)),
            (_, ended) => {
                self.current = ended.map(|current| Current {
                    going_away: None,
                    ..current
                });
                Poll::Pending
            }
        }
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
            let delay = self.backoff.next(random());
            self.wait(delay);
        }
        let link = current.link;
        let watched = link.clone();
        let drained = Box::pin(async move { watched.drained().await });
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
        let asked = refusal.retry_after.unwrap_or_default();
        let at_least = asked.min(self.config.retry_after_cap());
        let delay = self.backoff.next_after(at_least, random());
        self.wait(delay);
        UplinkEvent::Refused {
            code: refusal.code,
            retry_after: refusal.retry_after,
            text: refusal.text,
        }
    }

    fn lose(&mut self, reason: LostReason) -> UplinkEvent {
        let delay = self.backoff.next(random());
        self.wait(delay);
        UplinkEvent::Lost { reason }
    }

    fn wait(&mut self, delay: Duration) {
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

async fn reach(target: Target, config: UplinkConfig) -> Result<(Dialled, Exporter), DialError> {
    let within = config.connect_timeout();
    let addresses = dial::resolve(target.address(), within).await?;
    let socket = dial::connect(&addresses, config.tcp(), within).await?;
    let address = socket.peer_addr().map_err(|source| DialError::Connect {
        address: SocketAddr::from(([0, 0, 0, 0], 0)),
        tried: addresses.len(),
        source,
    })?;
    let (tls, exporter) = dial::secure(socket, &target, config.tls(), within).await?;
    Ok((Dialled { tls, address }, exporter))
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

/// For jitter only. Without an entropy source every wait is the longest.
fn random() -> u64 {
    getrandom::u64().unwrap_or(u64::MAX)
}
