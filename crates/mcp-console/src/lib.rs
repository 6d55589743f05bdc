//! Control plane of MCP tunnels: REST API, keys, approvals and audit.
//!
//! A [`Console`] serves the tunnels part of the Managed Agents REST API and decides what
//! an edge lets through. It binds no socket and starts no task: its router goes into
//! whatever serves HTTP, its snapshots to whatever edge there is, and that edge's reports
//! come back as values.
//!
//! ```text
//!  SDK, CLI ── HTTP ──► router()                     snapshots() ──► edge.apply(…)
//!                          │        ┌────────────┐        ▲
//!  Authenticate ◄──────────┤ ─────► │ TunnelStore│ ───────┤ run(stop)
//!                          │        └────────────┘        │
//!                          └────────────▲─────────────────┘
//!                                       └── record(report) ◄── edge.next_report()
//! ```
//!
//! # Example
//!
//! ```
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use mcp_console::{ApiKeys, Config, Console, store::{SqliteConfig, SqliteStore}};
//! use managed_agents_api::serve::Permissions;
//! use mcp_tunnel_auth::{ApiKey, DomainName, HostName, MasterKey, WorkspaceId};
//!
//! # let folder = tempfile::tempdir()?;
//! # let (random, other_random) = ([1; 32], [2; 32]);
//! let store = Arc::new(SqliteStore::open(&SqliteConfig::new(folder.path().join("console.db"))).await?);
//! let config = Config::new(
//!     MasterKey::from_bytes(random),
//!     DomainName::parse("tunnels.example.com")?,
//!     (HostName::parse("tunnels.example.com")?, 443),
//! );
//! let keys = ApiKeys::new(store.clone());
//! let admin = ApiKey::from_entropy(other_random);
//! keys.adopt(&admin, &WorkspaceId::parse("default")?, "admin", Permissions::all()).await?;
//!
//! let console = Console::new(store, config).await?;
//! let router = console.router(); // serve it: axum::serve, hyper, a test
//! let snapshots = console.snapshots(); // push each to the edges
//! assert_eq!(snapshots.borrow().tunnels().len(), 0);
//! # drop(router);
//! # Ok(())
//! # }
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(start()).unwrap();
//! ```
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `sqlite` (default) | [`store::SqliteStore`] |
//!
//! # What it does not do
//!
//! - It carries no traffic: that is `mcp-tunnel-edge`, which works on while a console is down.
//! - It has no users: a program with users of its own gives its
//!   [`Authenticate`].
//! - It has no TLS and no listener.
//! - It keeps no secret: tokens are derived from the master key on demand, keys are hashes.
#![forbid(unsafe_code)]

mod audit;
mod caller_keys;
mod certificates;
mod config;
mod connections;
mod environment;
mod failure;
mod hooks;
mod keys;
mod shared;
mod snapshot;
pub mod store;
mod tunnels;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use http::Method;
use jiff::Timestamp;
use managed_agents_api::serve::{Authenticate, Permission};
use mcp_tunnel_auth::{AccessSnapshot, ConnectionId, LinkReport, LinkReportKind};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::connections::Live;
use crate::environment::{entropy, now, unix_ms};
use crate::failure::chain;
use crate::shared::Shared;
use crate::snapshot::Publisher;
use crate::store::TunnelStore;

pub use config::Config;
pub use keys::ApiKeys;
pub use snapshot::PublishError;

/// The control plane of tunnels. Clones are the same console.
#[derive(Clone)]
pub struct Console {
    shared: Arc<Shared>,
}

impl Console {
    /// A console that authenticates by API keys of its own, [`ApiKeys`].
    ///
    /// # Errors
    /// [`PublishError`] where the store cannot be read.
    ///
    /// # Cancel safety
    /// It only reads.
    pub async fn new(store: Arc<dyn TunnelStore>, config: Config) -> Result<Self, PublishError> {
        let keys = ApiKeys::new(Arc::clone(&store));
        Self::with_authenticate(store, config, Arc::new(keys)).await
    }

    /// A console for the users of another program.
    ///
    /// # Errors
    /// [`PublishError`] where the store cannot be read.
    ///
    /// # Cancel safety
    /// It only reads.
    pub async fn with_authenticate(
        store: Arc<dyn TunnelStore>,
        config: Config,
        authenticate: Arc<dyn Authenticate>,
    ) -> Result<Self, PublishError> {
        for id in store.master_keys_in_use().await? {
            if config.master_by_id(id).is_none() {
                warn!(master_key = %id, "tokens derived from this master key cannot be revealed");
            }
        }
        let publisher = Publisher::new();
        publisher.publish(&*store, unix_ms(now())).await?;
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                store,
                authenticate,
                publisher,
                live: Live::default(),
                unpublished: AtomicBool::new(false),
            }),
        })
    }

    /// The REST API. The peer's address in the audit comes from
    /// `into_make_service_with_connect_info::<SocketAddr>()`.
    pub fn router(&self) -> Router {
        hooks::mount(all_routes(), &self.shared)
    }

    /// Every route, with the permission that it needs.
    pub fn routes() -> impl Iterator<Item = (Method, &'static str, Permission)> {
        all_routes()
            .into_iter()
            .map(|route| (route.method, route.path, route.needs))
    }

    /// What edges judge by: the newest value is all that one needs.
    #[must_use]
    pub fn snapshots(&self) -> watch::Receiver<Arc<AccessSnapshot>> {
        self.shared.publisher.subscribe()
    }

    /// Takes what an edge reports of a link. Nothing is lost when the store does not take
    /// it: the last report of each gateway is tried again by [`run`](Self::run).
    ///
    /// # Cancel safety
    /// A dropped future may leave the report unwritten; the next one of that gateway
    /// says all that matters.
    pub async fn record(&self, report: LinkReport) {
        self.shared.live.note(&report);
        if !matches!(report.kind, LinkReportKind::RoundTrip { .. }) {
            self.shared.write(report).await;
        }
    }

    /// Publishes snapshots on changes and at least every minute, forgets gateways that
    /// waited in vain and what of the audit is too old, and tries failed writes again; until `stop`.
    ///
    /// # Cancel safety
    /// It may be dropped and started again.
    pub async fn run(&self, stop: CancellationToken) {
        let every = self.shared.config.republish;
        let mut tick = interval_at(Instant::now() + every, every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changes = self.shared.store.changes();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                changed = changes.changed() => match changed {
                    // Many links coming up at once are one snapshot, not many.
                    Ok(()) => {
                        sleep(SETTLE).await;
                        changes.mark_unchanged();
                        self.shared.publish().await;
                    }
                    Err(_) => break,
                },
                _ = tick.tick() => self.shared.tidy().await,
                () = sleep(RETRY), if self.shared.owes() => self.shared.catch_up().await,
            }
        }
        info!("console stopped");
    }
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console").finish_non_exhaustive()
    }
}

impl Shared {
    /// Lets edges know. A failure is not the caller's: what was asked for is done, edges
    /// judge by the snapshot before, and `run` tries again.
    pub(crate) async fn publish(&self) {
        let published = self.publisher.publish(&*self.store, unix_ms(now())).await;
        self.noted(published);
    }

    async fn tidy(&self) {
        let published = self.publisher.republish(&*self.store, unix_ms(now())).await;
        self.noted(published);
        let before = now() - PENDING_LIFE;
        if let Err(error) = self.store.forget_pending(before).await {
            warn!(error = chain(&error), "pending gateways were not forgotten");
        }
        let before = now().saturating_sub(self.config.audit_kept);
        if let Err(error) = self
            .store
            .forget_audit(before.unwrap_or(Timestamp::MIN))
            .await
        {
            warn!(error = chain(&error), "old audit rows were not forgotten");
        }
    }

    fn noted(&self, published: Result<(), PublishError>) {
        self.unpublished
            .store(published.is_err(), Ordering::Relaxed);
        if let Err(error) = published {
            tracing::error!(error = chain(&error), "no snapshot was published");
        }
    }

    async fn write(&self, report: LinkReport) {
        let fresh = ConnectionId::new(report.at_ms, &entropy());
        if let Err(error) = self.store.observe(&report, fresh).await {
            warn!(error = chain(&error), link = %report.link, "a report waits for the store");
            self.live.keep(report);
        }
    }

    fn owes(&self) -> bool {
        self.unpublished.load(Ordering::Relaxed) || self.live.has_unwritten()
    }

    async fn catch_up(&self) {
        if self.unpublished.load(Ordering::Relaxed) {
            self.publish().await;
        }
        for report in self.live.take_unwritten() {
            self.write(report).await;
        }
    }
}

fn all_routes() -> Vec<hooks::Route> {
    let mut routes = tunnels::routes();
    routes.extend(certificates::routes());
    routes.extend(connections::routes());
    routes.extend(caller_keys::routes());
    routes.extend(audit::routes());
    routes
}

/// How long a gateway that was not heard of again stays pending.
const PENDING_LIFE: Duration = Duration::from_secs(3600);

/// Changes within this time are published together; a handler does not wait for it.
const SETTLE: Duration = Duration::from_millis(50);

/// Pause between tries to publish, and to write a report.
const RETRY: Duration = Duration::from_secs(1);
