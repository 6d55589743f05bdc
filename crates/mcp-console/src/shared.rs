//! What handlers, reports and the publisher share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use managed_agents_api::serve::Authenticate;

use crate::config::Config;
use crate::connections::Live;
use crate::snapshot::Publisher;
use crate::store::TunnelStore;

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) store: Arc<dyn TunnelStore>,
    pub(crate) authenticate: Arc<dyn Authenticate>,
    pub(crate) publisher: Publisher,
    pub(crate) live: Live,
    /// Whether edges were not told of a change, since the store could not be read.
    pub(crate) unpublished: AtomicBool,
}
