//! The one task that moves a link's bytes.

use std::{
    fmt, io,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use mcp_tunnel_proto::{CloseCode, Connection};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use crate::{
    CloseReason, Link, LinkConfig,
    carrier::Carrier,
    ending::Ending,
    inbox::{Inbox, Taken},
    memory::Lease,
    outbox::Outbox,
    shared::{Shared, Wakes},
    sleep::Looks,
    timer::{Timer, now},
    tls::ResumeKey,
};

/// Drives one session: reads, feeds it, writes what it has to say, and changes its connection.
///
/// Nothing moves on the link unless [`run`](Self::run) is polled, usually in a task of whoever owns the link. Dropping
/// the driver ends the link: every stream fails with [`CloseReason::Abandoned`].
///
/// Each poll reads what is there, takes the lock once, wakes each task that has something to do once, and writes all
/// frames that are ready in one run of TLS records.
#[must_use = "a link moves only while its driver runs"]
pub struct LinkDriver<IO> {
    io: Carrier<IO>,
    shared: Arc<Shared>,
    inbox: Inbox,
    outbox: Outbox,
    /// The session has more to say than is in `outbox`.
    owed: bool,
    timer: Timer,
    write_stall: Duration,
    close_timeout: Duration,
    keep: Duration,
    sleep: Option<Looks>,
    wakes: Wakes,
    phase: Phase,
    farewell: Option<Box<Farewell<IO>>>,
}

#[derive(Debug)]
enum Phase {
    Running,
    /// The connection is gone, and the session waits for another.
    Detached,
    /// The session has ended; the last bytes are on their way, until the deadline.
    Ending(Ending, Instant),
    Ended,
}

/// How a visit to the session went.
enum Visit {
    /// Look again by then at the latest.
    Until(Instant),
    /// The session has let go of the connection.
    Detached,
    Ended,
}

/// What a phase leads to: the end of the session, or another connection for it.
type Outcome = Option<CloseReason>;

impl<IO: AsyncRead + AsyncWrite + Unpin> LinkDriver<IO> {
    /// A link over `io`; `input` was read already, and what is in `outbox` goes first. With a key the session may
    /// change to another connection, if both sides have agreed on that.
    pub(crate) fn start(
        io: IO,
        input: BytesMut,
        outbox: Outbox,
        connection: Connection,
        key: Option<ResumeKey>,
        config: &LinkConfig,
    ) -> (Link, Self) {
        let lease = Lease::new(config.memory().clone());
        let shared = Shared::new(connection, key, config.open_timeout(), lease);
        let driver = Self {
            io: Carrier::First(io),
            shared: Arc::clone(&shared),
            inbox: Inbox::new(input, now()),
            outbox,
            owed: false,
            timer: Timer::default(),
            write_stall: config.write_stall(),
            close_timeout: config.close_timeout(),
            keep: config.keep(),
            sleep: None,
            wakes: Wakes::default(),
            phase: Phase::Running,
            farewell: None,
        };
        (Link::new(shared), driver)
    }

    /// Looks each so often whether the machine has slept; zero: never.
    pub(crate) fn watch_sleep(mut self, interval: Duration) -> Self {
        self.sleep = Looks::each(interval);
        self
    }

    /// Runs until the session has ended, and says how.
    ///
    /// When the session ends it still sends CLOSE and shuts the connection down, within
    /// [`LinkConfig::set_close_timeout`]; streams have failed by then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the link, as dropping the driver does.
    pub async fn run(mut self) -> CloseReason {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        self.poll_farewell(cx);
        loop {
            let outcome = match self.phase {
                Phase::Running => ready!(self.poll_running(cx)),
                Phase::Detached => ready!(self.poll_detached(cx)),
                Phase::Ending(..) | Phase::Ended => break,
            };
            self.phase = match (outcome, &self.phase) {
                (None, Phase::Detached) => Phase::Running,
                (None, _) => {
                    self.let_go(cx);
                    Phase::Detached
                }
                (Some(reason), was) => {
                    debug!(reason = %Chain(&reason), "link ended");
                    self.inbox.release();
                    match (was, reason) {
                        (Phase::Detached, _) => Phase::Ended,
                        // A last word may help, but nobody is there to wait for.
                        (_, CloseReason::Silent { .. }) => Phase::Ending(Ending::Writing, now()),
                        (_, reason) if reason.is_said() => {
                            Phase::Ending(Ending::Writing, now() + self.close_timeout)
                        }
                        _ => Phase::Ended,
                    }
                }
            };
        }
        if let Phase::Ending(ending, deadline) = &mut self.phase {
            // Whatever goes wrong now, the link has ended for the reason it has.
            let ended = ending.poll(&mut self.io, &mut self.outbox, cx).is_ready();
            if !ended {
                ready!(self.timer.poll(cx, Some(*deadline)));
            }
            self.phase = Phase::Ended;
        }
        Poll::Ready(self.shared.end(CloseReason::Abandoned))
    }

    fn poll_running(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        loop {
            let now = now();
            let look = self.look_for_sleep(now);
            let taken = self.inbox.take(&mut self.io, cx, now);
            // What came before a failure counts: it may be the peer's farewell.
            let deadline = match self.exchange(cx, now) {
                Visit::Until(deadline) => deadline,
                Visit::Detached => return Poll::Ready(None),
                Visit::Ended => return Poll::Ready(Some(self.shared.end(CloseReason::Abandoned))),
            };
            let taken = match taken {
                Ok(taken) => taken,
                Err(error) => return Poll::Ready(self.lose(error.into())),
            };
            if let Err(error) = self.put_output(cx, now) {
                return Poll::Ready(self.lose(error.into()));
            }
            match taken {
                // Those who were woken read first: what they let go of is room for the next read.
                Taken::Some => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Taken::All => {}
                Taken::End => return Poll::Ready(self.lose(CloseReason::Eof)),
            }
            let stalled = self
                .outbox
                .blocked_since()
                .map(|since| since + self.write_stall);
            if stalled.is_some_and(|at| at <= now) {
                let after = self.write_stall;
                return Poll::Ready(self.lose(CloseReason::Stalled { after }));
            }
            // A ping that is due and found no room leaves as soon as the connection takes more, which wakes the driver;
            // until then only silence is looked for.
            let deadline = if deadline <= now {
                now + BLOCKED_LOOK
            } else {
                deadline
            };
            let deadline = [stalled, look]
                .into_iter()
                .flatten()
                .fold(deadline, Instant::min);
            ready!(self.timer.poll(cx, Some(deadline)));
        }
    }

    /// Tells the session of a sleep; says when to look again.
    fn look_for_sleep(&mut self, now: Instant) -> Option<Instant> {
        let looks = self.sleep.as_mut()?;
        if let Some(Some(slept)) = looks.look(now) {
            debug!(?slept, "the machine has slept");
            self.shared.lock().connection.on_sleep(slept);
        }
        Some(looks.next())
    }

    /// Waits for another connection, as long as the session is kept.
    fn poll_detached(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        loop {
            let now = now();
            let mut state = self.shared.lock();
            let replacement = state.attach(&mut self.wakes);
            state.connection.handle_timeout(now);
            state.take_events(&mut self.wakes);
            state.park_driver(cx);
            let given_up = state.given_up_at(self.keep);
            if replacement.is_none() && given_up.is_some_and(|at| at <= now) {
                let reason = state.expired();
                state.on_closed(reason, &mut self.wakes);
            }
            let closed = state.closed.clone();
            let deadline = [state.connection.poll_timeout(), given_up];
            drop(state);
            self.shared.wake(&mut self.wakes);
            if let Some(next) = replacement {
                self.io = Carrier::Next(next.io);
                self.inbox = Inbox::new(next.input, now);
                self.outbox = next.outbox;
                return Poll::Ready(None);
            }
            if closed.is_some() {
                return Poll::Ready(closed);
            }
            ready!(self.timer.poll(cx, deadline.into_iter().flatten().min()));
        }
    }

    /// The connection is gone: the session goes on without one, or ends.
    fn lose(&self, reason: CloseReason) -> Outcome {
        if self.shared.lose(reason.clone()) {
            return None;
        }
        Some(self.shared.end(reason))
    }

    /// Lets go of a connection that the session has left; one that still lives is told so (RESUME-7).
    fn let_go(&mut self, cx: &mut Context<'_>) {
        let io = self.io.take();
        let mut outbox = std::mem::replace(&mut self.outbox, Outbox::new());
        self.inbox.release();
        let state = self.shared.lock();
        let gap = state.gap.as_ref().map(|gap| gap.reason.clone());
        drop(state);
        if let Some(reason) = &gap {
            debug!(reason = %Chain(reason), "connection lost, session kept");
        }
        if matches!(gap, Some(CloseReason::Replaced)) {
            outbox.transmit.push_close(CloseCode::REPLACED, "");
            self.farewell = Some(Box::new(Farewell {
                io,
                outbox,
                ending: Ending::Writing,
                timer: Timer::default(),
                deadline: now() + self.close_timeout,
            }));
            self.poll_farewell(cx);
        }
    }

    fn poll_farewell(&mut self, cx: &mut Context<'_>) {
        if let Some(farewell) = &mut self.farewell
            && farewell.poll(cx).is_ready()
        {
            self.farewell = None;
        }
    }

    /// The one visit to the session: input in, events out, output gathered.
    fn exchange(&mut self, cx: &Context<'_>, now: Instant) -> Visit {
        let mut state = self.shared.lock();
        // Whatever a connection brings that the session has left will be sent again.
        if state.gap.is_none() {
            if !self.inbox.bytes.is_empty() {
                // An error comes as the event `Closed` too.
                let _ = state.connection.handle_input(now, &mut self.inbox.bytes);
            }
            state.connection.handle_timeout(now);
            state.take_events(&mut self.wakes);
            // What is behind the scheduler waits in line: nothing follows before the connection has taken it, but for
            // the last word.
            let speaks = self.outbox.is_clear() || state.closed.is_some();
            self.owed |= !speaks;
            if speaks {
                state.gather(now, &mut self.outbox.transmit);
            }
            if state.share_memory() && speaks {
                state.gather(now, &mut self.outbox.transmit);
            }
            state.take_events(&mut self.wakes);
        }
        state.park_driver(cx);
        let visit = match (&state.closed, &state.gap, state.connection.poll_timeout()) {
            (None, None, Some(deadline)) => Visit::Until(deadline),
            (None, Some(_), _) => Visit::Detached,
            _ => Visit::Ended,
        };
        drop(state);
        self.shared.wake(&mut self.wakes);
        visit
    }

    /// Writes until nothing is left or the connection takes no more.
    fn put_output(&mut self, cx: &mut Context<'_>, now: Instant) -> io::Result<()> {
        loop {
            // A batch that was not full was all there was: what came since has woken the driver.
            self.owed |= self.outbox.transmit.is_full();
            match self.outbox.poll_drain(&mut self.io, cx, now) {
                Poll::Ready(drained) => drained?,
                Poll::Pending => return Ok(()),
            }
            if !std::mem::take(&mut self.owed) || !self.refill(now) {
                return Ok(());
            }
        }
    }

    fn refill(&mut self, now: Instant) -> bool {
        let mut state = self.shared.lock();
        state.gather(now, &mut self.outbox.transmit);
        state.take_events(&mut self.wakes);
        drop(state);
        self.shared.wake(&mut self.wakes);
        !self.outbox.transmit.is_empty()
    }
}

/// Between two looks at a session whose connection takes nothing.
const BLOCKED_LOOK: Duration = Duration::from_secs(1);

/// The last word on a connection that the session has left while it lived.
struct Farewell<IO> {
    io: Carrier<IO>,
    outbox: Outbox,
    ending: Ending,
    timer: Timer,
    deadline: Instant,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Farewell<IO> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self
            .ending
            .poll(&mut self.io, &mut self.outbox, cx)
            .is_ready()
        {
            return Poll::Ready(());
        }
        self.timer.poll(cx, Some(self.deadline))
    }
}

impl<IO> Drop for LinkDriver<IO> {
    fn drop(&mut self) {
        self.shared.end(CloseReason::Abandoned);
    }
}

impl<IO> fmt::Debug for LinkDriver<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkDriver")
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

/// An error with all its sources, for the one place that logs it.
struct Chain<'a>(&'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
