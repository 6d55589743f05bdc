//! Which certificate a connection gets.
//!
//! One wildcard covers every name of the form `ROUTE--TUNNEL.DOMAIN`. It does not cover
//! `ROUTE.TUNNEL.DOMAIN`, so that the local CA makes one for `*.TUNNEL.DOMAIN` when it is
//! asked for. An unknown name gets the wildcard and no alert.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::SystemTime;

use mcp_tunnel_auth::{AccessSnapshot, DomainLabel};
use mcp_tunnel_transport::local_ca::LocalCa;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tracing::warn;

/// The certificates at hand.
pub(super) struct Shown {
    kept: RwLock<Kept>,
    /// `None` with the operator's own certificate, which is for what it is for.
    authority: Option<Arc<LocalCa>>,
    snapshots: OnceLock<watch::Receiver<Arc<AccessSnapshot>>>,
}

struct Kept {
    wildcard: Arc<CertifiedKey>,
    /// By tunnel; at most one for each that the snapshot has or had since the last renewal.
    tunnels: HashMap<DomainLabel, Arc<CertifiedKey>>,
}

impl Shown {
    pub(super) fn new(wildcard: Arc<CertifiedKey>) -> Self {
        Self {
            kept: RwLock::new(Kept {
                wildcard,
                tunnels: HashMap::new(),
            }),
            authority: None,
            snapshots: OnceLock::new(),
        }
    }

    pub(super) fn with_authority(mut self, authority: Arc<LocalCa>) -> Self {
        self.authority = Some(authority);
        self
    }

    /// Only tunnels of these get a certificate of their own: nobody makes the CA work by
    /// inventing names.
    pub(super) fn follow(&self, snapshots: watch::Receiver<Arc<AccessSnapshot>>) {
        drop(self.snapshots.set(snapshots));
    }

    pub(super) fn wildcard(&self) -> Arc<CertifiedKey> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&kept.wildcard)
    }

    /// Shows another wildcard from now on, and makes the others again when they are asked for.
    pub(super) fn renew(&self, wildcard: Arc<CertifiedKey>) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        *kept = Kept {
            wildcard,
            tunnels: HashMap::new(),
        };
    }

    /// The certificate of the tunnel that `name` has in its second place.
    fn of_tunnel(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let authority = self.authority.as_ref()?;
        let below = name.strip_suffix(authority.domain())?.strip_suffix('.')?;
        let (_route, label) = below.split_once('.')?;
        let label = DomainLabel::parse(label).ok()?;
        let known = self
            .snapshots
            .get()?
            .borrow()
            .tunnel_by_label(&label)
            .is_some();
        if !known {
            return None;
        }
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = kept.tunnels.get(&label) {
            return Some(Arc::clone(key));
        }
        drop(kept);
        let name = format!("*.{label}.{}", authority.domain());
        let made = authority
            .issue_for(&name, SystemTime::now())
            .map_err(anyhow::Error::from)
            .and_then(|leaf| Ok(leaf.certified_key()?))
            .inspect_err(|error| warn!(%error, name, "no certificate was made"))
            .ok()?;
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(kept.tunnels.entry(label).or_insert(made)))
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls gives the name in lower case.
        let own = hello.server_name().and_then(|name| self.of_tunnel(name));
        Some(own.unwrap_or_else(|| self.wildcard()))
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").finish_non_exhaustive()
    }
}
