//! Idle connections to one MCP server.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::connection::Connection;

/// Connections that wait for their next request, the longest idle first.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: VecDeque<(Instant, Connection)>,
}

impl Pool {
    /// The connection used last, if one is still open; closed and expired ones go.
    pub(crate) fn check_out(&mut self, now: Instant) -> Option<Connection> {
        self.expire(now);
        while let Some((_, mut connection)) = self.idle.pop_back() {
            if connection.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for the next request; the longest idle one makes room.
    ///
    /// One that still sends a request whose answer came early is closed: nobody waits for the rest of it.
    pub(crate) fn check_in(&mut self, now: Instant, mut connection: Connection) {
        if !connection.is_ready() {
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
}

/// Node and uvicorn close idle connections after 5 s; a request must never meet that.
const IDLE: Duration = Duration::from_secs(4);

/// Idle connections kept to one server, each a descriptor and about 10 KiB.
const MAX_IDLE: usize = 128;
