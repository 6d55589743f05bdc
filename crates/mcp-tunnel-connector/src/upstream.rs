//! One MCP server as the gateway sees it: dialling, pooled connections, one request after another on each.
//!
//! ```text
//!   send ── idle connection? ──yes──> request ──> head ──> body ──end──> pool, at most 4 s
//!              │ no                      │          │        └─drop or failure──> socket closed
//!              └──> dial ────────────────┘          └─ ownership of the connection moves to the body
//! ```

mod body;
mod connection;
pub(crate) mod dial;
mod pool;
mod quick_ack;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use http::{Request, Response};
use tokio::time::Instant;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

pub(crate) use self::body::UpstreamBody;
use self::connection::Connection;
use self::dial::{DialError, Dialler};
use self::pool::Pool;
use crate::exchange::RequestBody;
use crate::measures::RouteMeasures;
use crate::server::McpServer;

/// An MCP server and the idle connections to it.
#[derive(Debug)]
pub(crate) struct Upstream {
    server: McpServer,
    dialler: Dialler,
    pool: Mutex<Idle>,
    tasks: TaskTracker,
    measures: RouteMeasures,
}

#[derive(Debug, Default)]
struct Idle {
    pool: Pool,
    reaper: Option<AbortOnDropHandle<()>>,
}

impl Upstream {
    pub(crate) fn new(
        server: McpServer,
        dialler: Dialler,
        tasks: TaskTracker,
        measures: RouteMeasures,
    ) -> Arc<Self> {
        Arc::new(Self {
            server,
            dialler,
            pool: Mutex::default(),
            tasks,
            measures,
        })
    }

    /// Sends one request, on an idle connection if there is one.
    ///
    /// A request goes out a second time only if no byte of it was written: hyper gives it back in that case alone.
    pub(crate) async fn send(
        self: &Arc<Self>,
        mut request: Request<RequestBody>,
    ) -> Result<Answer, Unanswered> {
        loop {
            let (mut connection, connect) = match self.connection().await {
                Ok(ready) => ready,
                Err(error) => {
                    return Err(Unanswered {
                        error,
                        request: Some(request),
                    });
                }
            };
            let sent = Instant::now();
            let mut refused = match connection.send(request).await {
                Ok(response) => {
                    let server = sent.elapsed();
                    let response =
                        response.map(|body| UpstreamBody::new(body, Arc::clone(self), connection));
                    return Ok(Answer {
                        response,
                        connect,
                        server,
                    });
                }
                Err(refused) => refused,
            };
            match refused.take_message() {
                Some(unsent) if connect.is_none() => request = unsent,
                request => {
                    let error = SendError::NoAnswer {
                        source: refused.into_error(),
                    };
                    return Err(Unanswered { error, request });
                }
            }
        }
    }

    pub(crate) fn server(&self) -> &McpServer {
        &self.server
    }

    pub(crate) fn measures(&self) -> &RouteMeasures {
        &self.measures
    }

    /// Closes the idle connections.
    pub(crate) fn close_idle(&self) {
        *self.idle() = Idle::default();
    }

    /// An idle connection, or a new one and how long it took.
    async fn connection(&self) -> Result<(Connection, Option<Duration>), SendError> {
        if let Some(idle) = self.idle().pool.check_out(Instant::now()) {
            return Ok((idle, None));
        }
        let began = Instant::now();
        let new = self.connect().await?;
        Ok((new, Some(began.elapsed())))
    }

    async fn connect(&self) -> Result<Connection, SendError> {
        let io = self
            .dialler
            .dial(self.server.target())
            .await
            .map_err(SendError::Dial)?;
        Connection::new(io)
            .await
            .map_err(|source| SendError::NoAnswer { source })
    }

    fn check_in(self: &Arc<Self>, connection: Connection) {
        let mut idle = self.idle();
        idle.pool.check_in(Instant::now(), connection);
        if idle.reaper.as_ref().is_none() {
            let reaper = self.tasks.spawn(reap(Arc::downgrade(self)));
            idle.reaper = Some(AbortOnDropHandle::new(reaper));
        }
    }

    fn expire(&self) -> Option<Instant> {
        let mut idle = self.idle();
        let next = idle.pool.expire(Instant::now());
        if next.is_none() {
            // Under the lock, so that the next connection that comes back starts a new one.
            idle.reaper = None;
        }
        next
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes idle connections when their time is over; ends when none is left.
async fn reap(upstream: Weak<Upstream>) {
    while let Some(next) = upstream.upgrade().and_then(|upstream| upstream.expire()) {
        tokio::time::sleep_until(next).await;
    }
}

/// What an MCP server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response<UpstreamBody>,
    /// How long a new connection took; `None` if an idle one served.
    pub(crate) connect: Option<Duration>,
    /// From the request until the head of the answer.
    pub(crate) server: Duration,
}

/// A request without an answer.
#[derive(Debug)]
pub(crate) struct Unanswered {
    pub(crate) error: SendError,
    /// The request, if nothing of it was written.
    pub(crate) request: Option<Request<RequestBody>>,
}

/// Why an MCP server did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SendError {
    #[error(transparent)]
    Dial(DialError),
    #[error("the MCP server ended the connection without an answer")]
    NoAnswer {
        #[source]
        source: hyper::Error,
    },
}
