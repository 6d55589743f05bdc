//! Idle connections to one MCP server.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::client::conn::http1::SendRequest;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::exchange::RequestBody;

/// A connection and the task that drives it; dropping it closes the socket at once.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<RequestBody>,
    _driver: AbortOnDropHandle<()>,
}

impl Connection {
    pub(crate) fn new(sender: SendRequest<RequestBody>, driver: AbortOnDropHandle<()>) -> Self {
        Self {
            sender,
            _driver: driver,
        }
    }

    fn state(&mut self) -> State {
        match self
            .sender
            .poll_ready(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(Ok(())) => State::Ready,
            Poll::Pending => State::Busy,
            Poll::Ready(Err(_)) => State::Closed,
        }
    }
}

enum State {
    Ready,
    Busy,
    Closed,
}

/// Connections that wait for their next request, the longest idle first.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: VecDeque<(Instant, Connection)>,
}

impl Pool {
    /// The connection used last, if one is ready; closed and expired ones go.
    pub(crate) fn check_out(&mut self, now: Instant) -> Option<Connection> {
        self.expire(now);
        // One that still sends the rest of a request whose answer came early stays until it is done or expires.
        for at in (0..self.idle.len()).rev() {
            match self.idle[at].1.state() {
                State::Ready => return self.idle.remove(at).map(|(_, connection)| connection),
                State::Busy => {}
                State::Closed => drop(self.idle.remove(at)),
            }
        }
        None
    }

    /// Keeps a connection for the next request; the longest idle one makes room.
    pub(crate) fn check_in(&mut self, now: Instant, connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        if self.idle.len() == MAX_IDLE {
            self.idle.pop_front();
        }
        self.idle.push_back((now, connection));
    }

    /// Closes what was idle for [`IDLE`], and says when the next one will have been.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<Instant> {
        while self
            .idle
            .front()
            .is_some_and(|(since, _)| now.duration_since(*since) >= IDLE)
        {
            self.idle.pop_front();
        }
        self.idle.front().map(|(since, _)| *since + IDLE)
    }

    pub(crate) fn clear(&mut self) {
        self.idle.clear();
    }
}

/// Node and uvicorn close idle connections after 5 s; a request must never meet that.
const IDLE: Duration = Duration::from_secs(4);

/// Idle connections kept to one server, each a descriptor and about 10 KiB.
const MAX_IDLE: usize = 128;
