//! Control plane of agent sessions: agents, environments, work queue, events.
//!
//! A [`Server`] serves the sessions part of the Managed Agents REST API: what an
//! application calls to run agents, and what workers call to run those agents' tools. It
//! binds no socket and starts no task: its router goes into whatever serves HTTP, and [`Server::run`]
//! into a task of the program.
//!
//! ```text
//!  application, SDK ── API key ──────────┐                     ┌────────────┐
//!                                        ▼                     │SessionStore│
//!  worker ── environment key ────► router() ── handlers ─────► │LibraryStore│
//!         ── item token ─────────►                             └────────────┘
//! ```
//!
//! # Example
//!
//! ```
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! use std::net::IpAddr;
//! use std::sync::Arc;
//! use managed_agents_api::serve::{ApiError, Authenticate, Permissions, Principal};
//! use managed_agents_server::{Config, Server, store::{SqliteConfig, SqliteStore}};
//! use mcp_tunnel_auth::MasterKey;
//!
//! struct Staff; // the users of your own program
//!
//! #[async_trait::async_trait]
//! impl Authenticate for Staff {
//!     async fn authenticate(
//!         &self,
//!         _head: &http::request::Parts,
//!         _peer: Option<IpAddr>,
//!     ) -> Result<Principal, ApiError> {
//!         // … ask the identity provider who that is …
//!         Ok(Principal::new("user:ada", "wrkspc_staff", Permissions::all()))
//!     }
//! }
//!
//! # let (folder, random) = (tempfile::tempdir()?, [1; 32]);
//! let file = SqliteConfig::new(folder.path().join("sessions.db"));
//! let store = Arc::new(SqliteStore::open(&file).await?);
//! let config = Config::new(MasterKey::from_bytes(random));
//! let server = Server::new(store.clone(), store, config, Arc::new(Staff));
//! let router = server.router(); // serve it: axum::serve, hyper, a test
//!
//! // Beside it, agents think and leases run out until the program stops.
//! let stop = tokio_util::sync::CancellationToken::new();
//! stop.cancel();
//! server.run(stop).await;
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
//! - It runs no tool: workers do, which fetch work from its queue.
//! - It has no users: a program with users of its own gives its
//!   [`Authenticate`].
//! - It has no TLS and no listener.
//! - It serves no memory stores, vaults, files, webhooks, deployments and model requests
//!   yet: those routes answer 404 with a body that says so.
#![forbid(unsafe_code)]

mod absent;
mod agents;
mod audit;
mod config;
mod driver;
mod environment;
mod environment_keys;
mod environments;
mod events;
mod failure;
mod history;
mod hooks;
mod keys;
mod limits;
mod metadata;
mod retention;
mod sessions;
mod shared;
mod skills;
pub mod store;
mod threads;
mod work;

use std::sync::Arc;

use axum::Router;
use http::Method;
use managed_agents_api::serve::{self, Authenticate};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::events::Streams;
use crate::history::Memory;
use crate::limits::Limits;
use crate::shared::Shared;
use crate::store::{LibraryStore, SessionStore};
use crate::work::Pollers;

pub use config::Config;
pub use hooks::Takes;
pub use limits::RateLimits;

/// The control plane of sessions. Clones are the same server.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

impl Server {
    /// A server of what is in `store` and `library`, which may be the same.
    pub fn new(
        store: Arc<dyn SessionStore>,
        library: Arc<dyn LibraryStore>,
        config: Config,
        authenticate: Arc<dyn Authenticate>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                limits: Limits::new(config.rate_limits),
                uploads: Semaphore::new(skills::UPLOADS_MOST),
                closing: CancellationToken::new(),
                config,
                store,
                library,
                authenticate,
                pollers: Pollers::default(),
                streams: Streams::default(),
                memory: Memory::new(),
                histories: Arc::default(),
                bodies: Memory::new(),
            }),
        }
    }

    /// Lets agents think, ends what workers let lapse and forgets what is over, until `stop`: without it
    /// sessions take messages, and nothing follows. Processes that share a store share that work, and each of them runs
    /// this: it is also what notices what the others wrote, within a fraction of a second for [`store::SqliteStore`].
    /// Then what waits and what streams ends, so that whoever serves the router can close its connections in good order.
    ///
    /// # Cancel safety
    /// It may be dropped and started again: what was under way is done again.
    pub async fn run(&self, stop: CancellationToken) {
        tokio::select! {
            () = driver::run(Arc::clone(&self.shared), stop) => {}
            () = retention::run(&self.shared) => {}
            () = self.shared.store.tend() => {}
        }
        self.shared.closing.cancel();
    }

    /// The REST API. The peer's address in the audit comes from
    /// `into_make_service_with_connect_info::<SocketAddr>()`.
    pub fn router(&self) -> Router {
        let router = absent::mount(hooks::mount(all_routes(), &self.shared));
        serve::enveloped(router.with_state(Arc::clone(&self.shared)), || {
            environment::id("req", environment::now())
        })
    }

    /// Every route, with the credentials that it takes.
    pub fn routes() -> impl Iterator<Item = (Method, &'static str, Takes)> {
        all_routes()
            .into_iter()
            .map(|route| (route.method, route.path, route.needs))
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

fn all_routes() -> Vec<hooks::Route> {
    let mut routes = agents::routes();
    routes.extend(environments::routes());
    routes.extend(environment_keys::routes());
    routes.extend(skills::routes());
    routes.extend(audit::routes());
    routes.extend(sessions::routes());
    routes.extend(events::routes());
    routes.extend(threads::routes());
    routes.extend(work::routes());
    routes
}
