//! What handlers and the driver share.

use std::sync::Arc;

use managed_agents_api::serve::Authenticate;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::events::Streams;
use crate::history::{Histories, Memory};
use crate::limits::Limits;
use crate::store::{LibraryStore, SessionStore};
use crate::work::Pollers;

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) store: Arc<dyn SessionStore>,
    pub(crate) library: Arc<dyn LibraryStore>,
    /// Who has an API key, or whatever the embedder's users have instead.
    pub(crate) authenticate: Arc<dyn Authenticate>,
    pub(crate) limits: Limits,
    pub(crate) pollers: Pollers,
    pub(crate) streams: Streams,
    /// What all histories that are being read take.
    pub(crate) memory: Memory,
    pub(crate) histories: Arc<Histories>,
    /// What all bodies with events that come in take.
    pub(crate) bodies: Memory,
    /// How many skills are uploaded at once.
    pub(crate) uploads: Semaphore,
    /// Whatever waits or streams ends with it, so that connections can.
    pub(crate) closing: CancellationToken,
}
