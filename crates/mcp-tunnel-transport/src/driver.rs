//! The one task that moves a link's bytes.

use std::{
    fmt, io,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use mcp_tunnel_proto::Connection;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use crate::{
    CloseReason, Link, LinkConfig,
    ending::Ending,
    inbox::{Inbox, Taken},
    outbox::Outbox,
    shared::{Shared, Wakes},
    timer::{Timer, now},
};

/// Drives one link: reads, feeds the session, writes what it has to say.
///
/// Nothing moves on the link unless [`run`](Self::run) is polled, usually in a task of whoever owns the link. Dropping
/// the driver ends the link: every stream fails with [`CloseReason::Abandoned`].
///
/// Each poll reads what is there, takes the lock once, wakes each task that has something to do once, and writes all
/// frames that are ready in one run of TLS records.
#[must_use = "a link moves only while its driver runs"]
pub struct LinkDriver<IO> {
    io: IO,
    shared: Arc<Shared>,
    inbox: Inbox,
    outbox: Outbox,
    timer: Timer,
    write_stall: Duration,
    close_timeout: Duration,
    wakes: Wakes,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Running,
    /// The session has ended; the last bytes are on their way, until the deadline.
    Ending(Ending, Instant),
    Ended,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> LinkDriver<IO> {
    /// A link over `io`; `input` was read already, and what is in `outbox` goes first.
    pub(crate) fn start(
        io: IO,
        input: BytesMut,
        outbox: Outbox,
        connection: Connection,
        config: &LinkConfig,
    ) -> (Link, Self) {
        let silence = config.protocol().silence();
        let shared = Shared::new(connection, config.open_timeout(), silence);
        let driver = Self {
            io,
            shared: Arc::clone(&shared),
            inbox: Inbox::new(input, now()),
            outbox,
            timer: Timer::default(),
            write_stall: config.write_stall(),
            close_timeout: config.close_timeout(),
            wakes: Wakes::default(),
            phase: Phase::Running,
        };
        (Link::new(shared), driver)
    }

    /// Runs until the link has ended, and says how.
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
        if matches!(self.phase, Phase::Running) {
            let reason = ready!(self.poll_running(cx));
            debug!(reason = %Chain(&reason), "link ended");
            self.inbox.release();
            self.phase = match reason {
                // A last word may help, but nobody is there to wait for.
                CloseReason::Silent { .. } => Phase::Ending(Ending::Writing, now()),
                _ if reason.is_said() => Phase::Ending(Ending::Writing, now() + self.close_timeout),
                _ => Phase::Ended,
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

    fn poll_running(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        loop {
            let now = now();
            let taken = match self.inbox.take(&mut self.io, cx, now) {
                Ok(taken) => taken,
                Err(error) => return Poll::Ready(self.shared.end(error.into())),
            };
            let Some(deadline) = self.exchange(cx, now) else {
                return Poll::Ready(self.shared.end(CloseReason::Abandoned));
            };
            if let Err(error) = self.put_output(cx, now) {
                return Poll::Ready(self.shared.end(error.into()));
            }
            match taken {
                // Those who were woken read first: what they let go of is room for the next read.
                Taken::Some => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Taken::All => {}
                Taken::End => return Poll::Ready(self.shared.end(CloseReason::Eof)),
            }
            let stalled = self
                .outbox
                .blocked_since()
                .map(|since| since + self.write_stall);
            if stalled.is_some_and(|at| at <= now) {
                let after = self.write_stall;
                return Poll::Ready(self.shared.end(CloseReason::Stalled { after }));
            }
            let deadline = stalled.map_or(deadline, |at| at.min(deadline));
            ready!(self.timer.poll(cx, Some(deadline)));
        }
    }

    /// The one visit to the session: input in, events out, output gathered. `None` once the session has ended.
    fn exchange(&mut self, cx: &Context<'_>, now: Instant) -> Option<Instant> {
        let mut state = self.shared.lock();
        if !self.inbox.bytes.is_empty() {
            // An error comes as the event `Closed` too.
            let _ = state.connection.handle_input(now, &mut self.inbox.bytes);
        }
        state.connection.handle_timeout(now);
        state.take_events(&mut self.wakes);
        state.gather(now, &mut self.outbox.transmit);
        state.take_events(&mut self.wakes);
        state.park_driver(cx);
        let deadline = match state.closed {
            Some(_) => None,
            None => state.connection.poll_timeout(),
        };
        drop(state);
        self.shared.wake(&mut self.wakes);
        deadline
    }

    /// Writes until nothing is left or the connection takes no more.
    fn put_output(&mut self, cx: &mut Context<'_>, now: Instant) -> io::Result<()> {
        loop {
            // A batch that was not full was all there was: what came since has woken the driver.
            let more = self.outbox.transmit.is_full();
            match self.outbox.poll_write(&mut self.io, cx, now) {
                Poll::Ready(written) => written?,
                Poll::Pending => return Ok(()),
            }
            if !more || !self.refill(now) {
                break;
            }
        }
        match self.outbox.poll_flush(&mut self.io, cx, now) {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Ok(()),
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
