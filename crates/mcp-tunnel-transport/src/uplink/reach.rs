//! From an edge's name to TLS: once, or again and again for a session that waits.
//!
//! ```text
//!   first():  resolve ── connect, one address after another ── TLS          one failure ends it
//!
//!   again():  knock … knock … knock ─┬─ connected ── TLS ── Dialled         until the deadline
//!             knock … knock …  ──────┘       │
//!               ▲                            │ closed before a word
//!               └────────────────────────────┘
//! ```

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio_rustls::client::TlsStream;

use super::{
    Boxed, Socket,
    knock::{Knocks, Won},
    outside,
};
use crate::{
    Exporter, Target, UplinkConfig,
    backoff::Pace,
    dial::{self, DialError},
    timer::{Timer, now},
};

/// The address at which a session was is tried alone for so long, unless it refuses: another one of the name may be another
/// edge, which does not know the session. It may also be the same one on the network that is left.
const ELSEWHERE_AFTER: Duration = Duration::from_secs(2);

/// A connection to the edge, with TLS.
pub(super) struct Dialled {
    pub(super) tls: TlsStream<Socket>,
    pub(super) address: SocketAddr,
}

/// How a session that waits is brought back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    /// Where its edge was.
    pub(super) last: SocketAddr,
    pub(super) pace: Pace,
    /// What TLS may take.
    pub(super) patience: Duration,
}

/// One attempt at all addresses.
pub(super) async fn first(
    target: Target,
    config: UplinkConfig,
) -> Result<(Dialled, Exporter), DialError> {
    let addresses = outside::resolve(&target, &config).await?;
    let (socket, address) = outside::connect(&addresses, &config).await?;
    let within = config.connect_timeout();
    let (tls, exporter) = dial::secure(socket, &target, config.tls(), within).await?;
    Ok((Dialled { tls, address }, exporter))
}

/// As many attempts as the pace allows, until one is answered or the time to connect has passed. The next one is due then.
pub(super) async fn again(
    target: Target,
    config: UplinkConfig,
    way: Way,
) -> Result<(Dialled, Exporter), DialError> {
    let mut search = Search::new(target.clone(), config.clone(), &way);
    while let Some((address, socket)) = poll_fn(|cx| search.poll(cx)).await {
        match dial::secure(socket, &target, config.tls(), way.patience).await {
            Ok((tls, exporter)) => return Ok((Dialled { tls, address }, exporter)),
            Err(DialError::Tls { source, .. }) if is_cut_off(&source) => {
                search.home.failed(address, source);
            }
            Err(error) => return Err(error),
        }
    }
    Err(search.failure())
}

/// Closed before TLS had a word to say about it: by a relay whose edge is away, or a full edge. As good as refused.
fn is_cut_off(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    )
}

/// Where it is knocked: at the address where the session was and, if that is of no use, at the others of the edge's name.
struct Search {
    target: Target,
    config: UplinkConfig,
    pace: Pace,
    until: Instant,
    home: Knocks,
    elsewhere: Elsewhere,
    timer: Timer,
}

enum Elsewhere {
    NotYet(Instant),
    Resolving(Boxed<Result<Vec<SocketAddr>, DialError>>),
    Knocking(Box<Knocks>),
    Nowhere,
}

impl Search {
    fn new(target: Target, config: UplinkConfig, way: &Way) -> Self {
        let until = now() + config.connect_timeout();
        Self {
            home: Knocks::new(vec![way.last], way.pace, until, config.clone()),
            until,
            elsewhere: Elsewhere::NotYet(now() + ELSEWHERE_AFTER),
            pace: way.pace,
            target,
            config,
            timer: Timer::default(),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Won>> {
        if let Poll::Ready(answered) = self.home.poll(cx) {
            return Poll::Ready(answered);
        }
        loop {
            self.elsewhere = match &mut self.elsewhere {
                Elsewhere::NotYet(at) => {
                    if self.home.failure().is_none() {
                        ready!(self.timer.poll(cx, Some(*at)));
                    }
                    let (target, config) = (self.target.clone(), self.config.clone());
                    Elsewhere::Resolving(Box::pin(async move {
                        outside::resolve(&target, &config).await
                    }))
                }
                Elsewhere::Resolving(resolving) => {
                    let mut found = ready!(resolving.as_mut().poll(cx)).unwrap_or_default();
                    found.retain(|address| !self.home.addresses().contains(address));
                    if found.is_empty() {
                        Elsewhere::Nowhere
                    } else {
                        let config = self.config.clone();
                        let knocks = Knocks::new(found, self.pace, self.until, config);
                        Elsewhere::Knocking(Box::new(knocks))
                    }
                }
                Elsewhere::Knocking(knocks) => match ready!(knocks.poll(cx)) {
                    Some(won) => return Poll::Ready(Some(won)),
                    None => return Poll::Pending,
                },
                Elsewhere::Nowhere => return Poll::Pending,
            };
        }
    }

    /// What to tell when nobody has answered in time.
    fn failure(mut self) -> DialError {
        let mut tried = self.home.addresses().len();
        let mut failure = self.home.take_failure();
        if let Elsewhere::Knocking(knocks) = &mut self.elsewhere {
            tried += knocks.addresses().len();
            failure = failure.or_else(|| knocks.take_failure());
        }
        let (address, source) = failure.unwrap_or_else(|| {
            let home = self.home.addresses().first().copied();
            let address = home.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
            (address, io::ErrorKind::TimedOut.into())
        });
        DialError::Connect {
            address,
            tried,
            source,
        }
    }
}
