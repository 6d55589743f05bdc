//! The time before a link is active: a sans-IO handshake and the connection under it.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use mcp_tunnel_proto::{
    ConnectionError, EdgeHandshake, GatewayEvent, GatewayHandshake, Hello, MAX_HELLO, Transmit,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_util::io::poll_read_buf;

use crate::{
    CloseReason,
    config::LinkConfig,
    ending,
    outbox::Outbox,
    timer::{self, Timer, now},
};

/// What both sides' handshakes have in common.
pub(crate) trait Handshake {
    type Event;

    fn handle_input(
        &mut self,
        now: Instant,
        input: &mut BytesMut,
    ) -> Result<Option<Self::Event>, ConnectionError>;
    fn handle_timeout(&mut self, now: Instant) -> Result<(), ConnectionError>;
    fn poll_transmit(&mut self, now: Instant, out: &mut Transmit) -> bool;
    fn poll_timeout(&self) -> Option<Instant>;
}

macro_rules! handshake {
    ($handshake:ty, $event:ty) => {
        impl Handshake for $handshake {
            type Event = $event;

            fn handle_input(
                &mut self,
                now: Instant,
                input: &mut BytesMut,
            ) -> Result<Option<$event>, ConnectionError> {
                self.handle_input(now, input)
            }
            fn handle_timeout(&mut self, now: Instant) -> Result<(), ConnectionError> {
                self.handle_timeout(now)
            }
            fn poll_transmit(&mut self, now: Instant, out: &mut Transmit) -> bool {
                self.poll_transmit(now, out)
            }
            fn poll_timeout(&self) -> Option<Instant> {
                self.poll_timeout()
            }
        }
    };
}

handshake!(EdgeHandshake, Hello);
handshake!(GatewayHandshake, GatewayEvent);

/// A handshake over its connection.
///
/// Holds at most one HELLO of input and one batch of output; everything that is under way lives here, so that its
/// futures may be dropped at any time.
#[derive(Debug)]
pub(crate) struct Greeting<IO, H> {
    pub(crate) io: IO,
    pub(crate) handshake: H,
    pub(crate) input: BytesMut,
    pub(crate) outbox: Outbox,
    timer: Timer,
    silence: Duration,
    ended: Option<CloseReason>,
}

impl<IO, H> Greeting<IO, H>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    H: Handshake,
{
    pub(crate) fn new(io: IO, handshake: H, config: &LinkConfig) -> Self {
        Self {
            io,
            handshake,
            input: BytesMut::new(),
            outbox: Outbox::new(),
            timer: Timer::default(),
            silence: config.protocol().silence(),
            ended: None,
        }
    }

    /// The next event, or how the link ended (again and again, once it has). Answers pings meanwhile.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<H::Event, CloseReason> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<H::Event, CloseReason>> {
        if let Some(reason) = &self.ended {
            return Poll::Ready(Err(reason.clone()));
        }
        let next = ready!(self.poll_event(cx));
        if let Err(reason) = &next {
            self.ended = Some(reason.clone());
        }
        Poll::Ready(next)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<H::Event, CloseReason>> {
        loop {
            let now = now();
            match self.handshake.handle_input(now, &mut self.input) {
                Ok(Some(event)) => return Poll::Ready(Ok(event)),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(self.fail(error, cx))),
            }
            // What the peer said last counts for more than that it takes no more bytes: read first.
            if self.poll_read(cx).map_err(CloseReason::from)?.is_ready() {
                continue;
            }
            self.handshake.poll_transmit(now, &mut self.outbox.transmit);
            if let Poll::Ready(Err(error)) = self.outbox.poll_drain(&mut self.io, cx, now) {
                return Poll::Ready(Err(error.into()));
            }
            let deadline = self.handshake.poll_timeout();
            if self.timer.poll(cx, deadline).is_pending() {
                return Poll::Pending;
            }
            if let Err(error) = self.handshake.handle_timeout(timer::now()) {
                return Poll::Ready(Err(self.fail(error, cx)));
            }
        }
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&self) -> Option<&CloseReason> {
        self.ended.as_ref()
    }

    /// At most one HELLO is taken in before the handshake has looked at it.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let room = MAX_HELLO.saturating_sub(self.input.len()).max(1);
        self.input.reserve(room);
        match ready!(poll_read_buf(Pin::new(&mut self.io), cx, &mut self.input))? {
            0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// The reason of an error, and a first attempt at telling the peer.
    fn fail(&mut self, error: ConnectionError, cx: &mut Context<'_>) -> CloseReason {
        let now = now();
        self.handshake.poll_transmit(now, &mut self.outbox.transmit);
        // The link is over either way; `end` goes on where the connection takes no more now.
        let _ = self.outbox.poll_drain(&mut self.io, cx, now);
        CloseReason::of(error, self.silence)
    }

    /// Writes what the handshake still has to say, then ends the connection; at most `within`.
    pub(crate) async fn end(mut self, within: Duration) {
        self.handshake
            .poll_transmit(now(), &mut self.outbox.transmit);
        let _ = timeout(within, ending::end(&mut self.io, &mut self.outbox)).await;
    }
}
