//! Relay engine of MCP tunnels: gateways dial in, callers come in, and their bytes meet.
//!
//! ```text
//!                         ┌──────────────────────── Edge ────────────────────────┐
//!  MCP client ── HTTP ──► │ ingress() ──► host/path -> tunnel, route             │
//!                         │                   │  caller key judged by snapshot   │
//!                         │                   ▼                                  │      ┌─ private network ─┐
//!                         │              one stream a call ──► accept_link(tls) ─┼──────┼─► gateway ─► MCP  │
//!                         │                                                      │ TLS  │           server  │
//!  console ── snapshots ─►│ apply()                              next_report() ──┼──► console               │
//!                         └──────────────────────────────────────────────────────┘      └───────────────────┘
//! ```
//!
//! The edge binds nothing and dials nothing. It takes finished TLS connections of gateways, and HTTP requests from
//! whichever server reads them; [`serve`] has a ready-made one for a connection just accepted, with limits on what a
//! socket may cost before it has proved anything. It judges by [`AccessSnapshot`]s that a console pushes, and never
//! asks: with the console away, it serves for as long as [`EdgeConfig::set_snapshot_max_age`] says.
//!
//! # Example
//!
//! ```
//! use std::sync::Arc;
//! use mcp_tunnel_auth::{AccessSnapshot, DomainName};
//! use mcp_tunnel_edge::{Edge, EdgeConfig};
//! use tower_service::Service;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let edge = Edge::new(EdgeConfig::new(DomainName::parse("tunnel.example")?));
//! // A console pushes what the edge judges by; here: nobody.
//! edge.apply(Arc::new(AccessSnapshot::empty(1)))?;
//!
//! // Any HTTP server may hand requests over.
//! let request = http::Request::get("https://mcp--demo.tunnel.example/mcp").body(String::new())?;
//! let answer = edge.ingress().call(request).await?;
//! assert_eq!(answer.status(), 403); // one answer for a wrong key and for a tunnel that does not exist
//! # Ok(())
//! # }
//! ```
//!
//! # What it does not do
//!
//! - It stores nothing. Tunnels, keys and approvals are the console's; the edge forgets all of them when it ends.
//! - It reads no MCP message but the id of a request that failed. Bodies and event streams pass unchanged.
//! - It repeats no call, unless the gateway says that it did not begin with it and nothing of its body was taken.
//! - It ends no TLS of its own accord: certificates are the listener's.
//!
//! # Metrics
//!
//! Through the [`metrics`] facade; the program installs its recorder before it makes the edge.
//!
//! | name | kind | labels |
//! |---|---|---|
//! | `mcp_tunnel_edge_calls_live` | gauge | |
//! | `mcp_tunnel_edge_calls_total` | counter | `outcome`: `answered`, `withdrawn`, `caller_gone`, or the failure |
//! | `mcp_tunnel_edge_call_head_seconds` | histogram | |
//! | `mcp_tunnel_edge_answers_total` | counter | `end`: `complete`, `caller_gone`, `broken_off` |
//! | `mcp_tunnel_edge_answer_bytes_total` | counter | |
//! | `mcp_tunnel_edge_refusals_total` | counter | `reason` |
//! | `mcp_tunnel_edge_links_live` | gauge | `state`: `active`, of those `kept` without a connection, `pending` |
//! | `mcp_tunnel_edge_link_resumes_total` | counter | `outcome`: `resumed`, `unknown`, `refused` |
//! | `mcp_tunnel_edge_gate_refusals_total` | counter | `role`: `gateway`, `caller` |
//! | `mcp_tunnel_edge_reports_dropped_total` | counter | |
//!
//! It has no cargo features.

#![forbid(unsafe_code)]

mod access;
mod calls;
mod clock;
mod config;
mod exchange;
mod failure;
mod gate;
mod ingress;
mod links;
mod measures;
mod report;
pub mod serve;

use std::fmt;
use std::sync::Arc;

use mcp_tunnel_auth::{AccessSnapshot, LinkReport};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep_until, timeout};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use self::access::Access;
use self::calls::Calls;
use self::clock::unix_ms;
use self::links::Links;
use self::report::Reports;

pub use self::access::StaleSnapshot;
pub use self::config::EdgeConfig;
pub use self::exchange::answer::{AnswerError, IngressBody};
pub use self::gate::{Gate, GateConfig, GateFull, Role, Ticket};
pub use self::ingress::{DevIngress, DevTarget, DevTargetError, Ingress, IngressFuture, PeerInfo};
pub use self::links::life::LinkError;

/// The relay engine. Clones share everything.
#[derive(Clone)]
pub struct Edge {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    config: EdgeConfig,
    access: Access,
    links: Arc<Links>,
    calls: Arc<Calls>,
    reports: Reports,
    stopping: CancellationToken,
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge")
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

impl Edge {
    /// An edge without links, callers or news from a console.
    pub fn new(config: EdgeConfig) -> Self {
        let shared = Shared {
            access: Access::new(config.snapshot_max_age),
            links: Links::new(&config),
            calls: Calls::new(config.max_calls),
            reports: Reports::default(),
            stopping: CancellationToken::new(),
            config,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Runs the link of a gateway to its end: HELLO, admission or approval, traffic, farewell. It runs in the task
    /// that awaits it; spawn one a connection.
    ///
    /// # Errors
    /// [`LinkError`] when the connection never came to carry traffic. How a live link ended is in the reports.
    ///
    /// # Cancel safety
    /// Dropping it cuts the link, and every call on it.
    pub async fn accept_link<IO>(&self, tls: TlsStream<IO>, peer: PeerInfo) -> Result<(), LinkError>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Box::pin(links::life::run(&self.shared, tls, peer)).await
    }

    /// Puts a snapshot in force: pending links that it approves become active, links and calls that it no longer
    /// covers are cut.
    ///
    /// # Errors
    /// [`StaleSnapshot`] when it is not newer than the one in force, which stays.
    pub fn apply(&self, snapshot: Arc<AccessSnapshot>) -> Result<(), StaleSnapshot> {
        self.shared.access.apply(Arc::clone(&snapshot))?;
        let cut = self.shared.judge_calls(&snapshot, unix_ms());
        tracing::debug!(number = snapshot.number(), cut, "snapshot in force");
        Ok(())
    }

    /// The number of the snapshot in force, however old it is; 0 before the first.
    pub fn snapshot_number(&self) -> u64 {
        self.shared.access.number()
    }

    /// The next report about a link, for the console. Reports of one link coalesce to the newest; a console that does
    /// not read loses the oldest beyond 16,384 links.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next_report(&self) -> LinkReport {
        self.shared.reports.next().await
    }

    /// The service for callers.
    pub fn ingress(&self) -> Ingress {
        Ingress::new(Arc::clone(&self.shared))
    }

    /// A service for development that asks for no caller key. Serve it on loopback only.
    pub fn dev_ingress(&self, target: DevTarget) -> DevIngress {
        DevIngress::new(Arc::clone(&self.shared), target)
    }

    /// Calls under way.
    pub fn live_calls(&self) -> usize {
        self.shared.calls.live()
    }

    /// Watches the age of the snapshot and the expiry of caller keys, and cuts the calls that outlive them; on `stop` drains: new calls are answered
    /// 503, gateways are told to go elsewhere, running calls may finish until the drain deadline. Returns when no link
    /// is left, or some seconds after that deadline.
    ///
    /// # Cancel safety
    /// Dropping it stops the watch; links and calls go on.
    pub async fn run(&self, stop: CancellationToken) {
        let shared = &self.shared;
        let mut news = shared.access.news();
        let mut judged_as_of = unix_ms();
        loop {
            let expiry = shared.access.expiry();
            let lapse = shared.next_lapse(judged_as_of);
            tokio::select! {
                () = stop.cancelled() => break,
                _ = news.next() => {}
                lapse = lapsed(lapse) => {
                    judged_as_of = lapse.as_of_ms;
                    let cut = shared.judge_calls(&lapse.snapshot, lapse.as_of_ms);
                    tracing::debug!(cut, "a caller key has expired");
                }
                () = async { sleep_until(expiry.unwrap_or_else(tokio::time::Instant::now)).await }, if expiry.is_some() => {
                    if shared.access.fresh().is_none() {
                        let cut = shared.calls.retain(|_| false);
                        tracing::warn!(cut, "no news from the console: calls are refused until it is back");
                        tokio::select! {
                            () = stop.cancelled() => break,
                            _ = news.next() => {}
                        }
                    }
                }
            }
        }
        shared.stopping.cancel();
        let drained = async {
            shared.calls.empty().await;
            shared.links.empty().await;
        };
        if timeout(shared.config.drain, drained).await.is_err() {
            shared.calls.retain(|_| false);
            let _ = timeout(GRACE, shared.links.empty()).await;
        }
    }
}

/// The end of a caller key's time, and what the calls of then are judged by.
struct Lapse {
    at: tokio::time::Instant,
    as_of_ms: u64,
    snapshot: Arc<AccessSnapshot>,
}

async fn lapsed(lapse: Option<Lapse>) -> Lapse {
    let Some(lapse) = lapse else {
        return std::future::pending().await;
    };
    sleep_until(lapse.at).await;
    lapse
}

impl Shared {
    /// Cuts the calls that would not be admitted at `now_ms`; returns how many.
    fn judge_calls(&self, snapshot: &AccessSnapshot, now_ms: u64) -> usize {
        self.calls.retain(|grant| grant.holds(snapshot, now_ms))
    }

    /// The next end of a caller key's time, as the wall clock sees it now: each snapshot looks again.
    fn next_lapse(&self, after_ms: u64) -> Option<Lapse> {
        let snapshot = self.access.fresh()?;
        let as_of_ms = snapshot.next_expiry(after_ms)?;
        let left = std::time::Duration::from_millis(as_of_ms.saturating_sub(unix_ms()));
        (left < LOOK_AHEAD).then(|| Lapse {
            at: tokio::time::Instant::now() + left,
            as_of_ms,
            snapshot,
        })
    }
}

/// Longest wait for the expiry of a key: a snapshot comes, or is too old, long before.
const LOOK_AHEAD: std::time::Duration = std::time::Duration::from_secs(30 * 86_400);
/// For the farewell of links whose drain deadline has passed.
const GRACE: std::time::Duration = std::time::Duration::from_secs(2);

#[cfg(test)]
mod tests;
