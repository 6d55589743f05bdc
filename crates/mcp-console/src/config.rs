//! How a console is set up.

use std::time::Duration;

use jiff::SignedDuration;
use mcp_tunnel_auth::{Approval, DomainName, HostName, MasterKey, MasterKeyId, TunnelToken};

use crate::store::{TokenRecord, TunnelRecord};

/// How a console is set up: where its edge is, and what tokens are derived from.
#[derive(Debug)]
pub struct Config {
    master: MasterKey,
    older_masters: Vec<MasterKey>,
    domain: DomainName,
    edge: (HostName, u16),
    edge_name: Option<HostName>,
    ca_pin: Option<[u8; 32]>,
    pub(crate) approval: Approval,
    pub(crate) tunnels_most: u32,
    pub(crate) caller_keys_most: u32,
    pub(crate) republish: Duration,
    pub(crate) audit_kept: SignedDuration,
}

impl Config {
    /// New tokens are derived from `master`, name `edge` to be dialled, and open tunnels
    /// below `domain`.
    #[must_use]
    pub fn new(master: MasterKey, domain: DomainName, edge: (HostName, u16)) -> Self {
        Self {
            master,
            older_masters: Vec::new(),
            domain,
            edge,
            edge_name: None,
            ca_pin: None,
            approval: Approval::Manual,
            tunnels_most: 1000,
            caller_keys_most: 10_000,
            republish: Duration::from_secs(60),
            audit_kept: SignedDuration::from_hours(400 * 24),
        }
    }

    /// Also reveals tokens that were derived from an older master key.
    #[must_use]
    pub fn with_older_master(mut self, master: MasterKey) -> Self {
        self.older_masters.push(master);
        self
    }

    /// The edge shows a certificate of a private CA: tokens pin the SHA-256 of that CA's
    /// public key.
    #[must_use]
    pub fn with_ca_pin(mut self, pin: [u8; 32]) -> Self {
        self.ca_pin = Some(pin);
        self
    }

    /// The edge's certificate is for `name` rather than for `edge.DOMAIN`.
    #[must_use]
    pub fn with_edge_name(mut self, name: HostName) -> Self {
        self.edge_name = Some(name);
        self
    }

    /// Who lets gateways of new tunnels in. Default: a person.
    ///
    /// `Auto` means that whoever holds the token of a tunnel can attach to it.
    #[must_use]
    pub const fn with_approval(mut self, approval: Approval) -> Self {
        self.approval = approval;
        self
    }

    /// Most tunnels of a workspace that are not archived. Default 1000; each costs an edge
    /// about 1 KiB of its snapshot.
    #[must_use]
    pub const fn with_tunnels_most(mut self, most: u32) -> Self {
        self.tunnels_most = most;
        self
    }

    /// Most caller keys of a workspace that are neither revoked nor expired. Default
    /// 10,000; each costs an edge about 200 bytes of its snapshot.
    #[must_use]
    pub const fn with_caller_keys_most(mut self, most: u32) -> Self {
        self.caller_keys_most = most;
        self
    }

    /// How often a snapshot is published even if nothing changed. Default 1 min; an edge
    /// stops to serve when it has heard nothing for its own, much longer, limit.
    #[must_use]
    pub const fn with_republish(mut self, every: Duration) -> Self {
        self.republish = every;
        self
    }

    /// How long the audit is kept. Default 400 days: a year, and time to look at it.
    #[must_use]
    pub const fn with_audit_kept(mut self, kept: Duration) -> Self {
        // More seconds than these are for ever.
        let seconds = if kept.as_secs() > FOR_EVER_SECONDS {
            FOR_EVER_SECONDS
        } else {
            kept.as_secs()
        };
        self.audit_kept = SignedDuration::from_secs(seconds.cast_signed());
        self
    }

    /// The domain below which tunnels are.
    #[must_use]
    pub const fn domain(&self) -> &DomainName {
        &self.domain
    }

    pub(crate) const fn master(&self) -> &MasterKey {
        &self.master
    }

    pub(crate) fn master_by_id(&self, id: MasterKeyId) -> Option<&MasterKey> {
        std::iter::once(&self.master)
            .chain(&self.older_masters)
            .find(|master| master.id() == id)
    }

    /// The token itself, where its master key is at hand.
    pub(crate) fn tunnel_token(
        &self,
        tunnel: &TunnelRecord,
        token: &TokenRecord,
    ) -> Option<TunnelToken> {
        let master = self.master_by_id(token.token.master_key)?;
        let mut text = TunnelToken::new(
            tunnel.id,
            tunnel.label.clone(),
            self.domain.clone(),
            token.token.id,
            master.token_seed(&token.token.id),
            self.edge.clone(),
        );
        if let Some(pin) = self.ca_pin {
            text = text.with_ca_pin(pin);
        }
        if let Some(name) = &self.edge_name {
            text = text.with_edge_name(name.clone());
        }
        Some(text)
    }
}

/// A thousand years: no audit is older.
const FOR_EVER_SECONDS: u64 = 1000 * 366 * 86_400;
