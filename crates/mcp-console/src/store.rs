//! Where tunnels, keys and decisions are kept.
//!
//! A method of these traits is a whole transition: one transaction that changes rows and
//! writes the audit row of the change, or changes nothing. Time and ids are arguments, so
//! that a store has neither clock nor randomness. Every method takes the workspace: what
//! belongs to another one does not exist.
//!
//! [`conformance`] is the suite that every implementation passes.

use async_trait::async_trait;
use jiff::Timestamp;
use mcp_tunnel_auth::{
    ApiKeyHash, ApiKeyId, CallerKeyId, CertificateId, ConnectionId, Fingerprint, LinkReport,
    MasterKeyId, TunnelId, WorkspaceId,
};
use tokio::sync::watch;

pub mod conformance;
mod error;
mod records;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use error::{Refusal, StoreError};
#[cfg(feature = "sqlite")]
pub use managed_agents_service::SqliteConfig;
pub use managed_agents_service::{AuditRecord, Change, Listed, Listing};
pub use records::{
    AccessRows, ApiKeyRecord, CallerKeyRecord, CertificateRecord, Decision, GatewayRecord,
    NewApiKey, NewCallerKey, NewCertificate, NewToken, NewTunnel, Observed, SettingsChange,
    TokenRecord, TunnelRecord,
};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;

/// Pending gateways that a tunnel keeps rows of. An edge holds as many links pending; more
/// rows would only let the holder of a token fill the disk.
pub const PENDING_MOST: u32 = 8;

/// Gateways that a tunnel keeps rows of, for the same reason.
pub const GATEWAYS_MOST: u32 = 256;

/// Tunnels and their tokens; with its supertraits, all that a console keeps.
#[async_trait]
pub trait TunnelStore: CertificateStore + GatewayStore + KeyStore {
    /// Creates a tunnel and its first token, unless the workspace already has `most`
    /// tunnels that are not archived.
    ///
    /// # Errors
    /// [`Refusal::TooManyTunnels`]; [`Refusal::LabelTaken`] where the label was ever used.
    async fn create_tunnel(
        &self,
        change: &Change,
        new: NewTunnel,
        most: u32,
    ) -> Result<TunnelRecord, StoreError>;

    /// One tunnel, archived or not.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn tunnel(
        &self,
        workspace: &WorkspaceId,
        tunnel: TunnelId,
    ) -> Result<TunnelRecord, StoreError>;

    /// A page of tunnels, newest first.
    ///
    /// # Errors
    /// Only the store's own.
    async fn tunnels(
        &self,
        workspace: &WorkspaceId,
        listing: &Listing,
    ) -> Result<Listed<TunnelRecord>, StoreError>;

    /// Archives a tunnel with its certificates and retires its token; an archived one stays
    /// as it is, and no audit row is written.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn archive_tunnel(
        &self,
        change: &Change,
        tunnel: TunnelId,
    ) -> Result<TunnelRecord, StoreError>;

    /// Changes what is given.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`Refusal::TunnelArchived`].
    async fn update_settings(
        &self,
        change: &Change,
        tunnel: TunnelId,
        settings: SettingsChange,
    ) -> Result<TunnelRecord, StoreError>;

    /// The current token's row, and the tunnel's: written down as revealed.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`Refusal::TunnelArchived`].
    async fn reveal_token(
        &self,
        change: &Change,
        tunnel: TunnelId,
    ) -> Result<(TunnelRecord, TokenRecord), StoreError>;

    /// Retires the current token for `new`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`Refusal::TunnelArchived`].
    async fn rotate_token(
        &self,
        change: &Change,
        tunnel: TunnelId,
        new: NewToken,
    ) -> Result<(TunnelRecord, TokenRecord), StoreError>;

    /// Master keys that current tokens were derived from; any other may go.
    ///
    /// # Errors
    /// Only the store's own.
    async fn master_keys_in_use(&self) -> Result<Vec<MasterKeyId>, StoreError>;

    /// A page of the audit of a workspace, newest first.
    ///
    /// # Errors
    /// Only the store's own.
    async fn audit(
        &self,
        workspace: &WorkspaceId,
        listing: &Listing,
    ) -> Result<Listed<AuditRecord>, StoreError>;

    /// All that an edge judges by, of every workspace, as of one moment.
    ///
    /// # Errors
    /// Only the store's own.
    async fn access(&self) -> Result<AccessRows, StoreError>;

    /// Keeps the number of a snapshot before edges get it, so that none is given twice
    /// after a start with a clock that went back. A number below the kept one changes
    /// nothing, and no change is announced.
    ///
    /// # Errors
    /// Only the store's own.
    async fn note_snapshot(&self, number: u64) -> Result<(), StoreError>;

    /// Forgets what the audit has from before `before`, of every workspace.
    ///
    /// # Errors
    /// Only the store's own.
    async fn forget_audit(&self, before: Timestamp) -> Result<u64, StoreError>;

    /// Changes whenever rows have changed, by this process or by another one.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// CA certificates of tunnels.
#[async_trait]
pub trait CertificateStore: Send + Sync + 'static {
    /// Registers a certificate, unless `most` are active.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`Refusal::TunnelArchived`], [`Refusal::TooManyCertificates`].
    async fn add_certificate(
        &self,
        change: &Change,
        tunnel: TunnelId,
        new: NewCertificate,
        most: u32,
    ) -> Result<CertificateRecord, StoreError>;

    /// One certificate of a tunnel.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn certificate(
        &self,
        workspace: &WorkspaceId,
        tunnel: TunnelId,
        certificate: CertificateId,
    ) -> Result<CertificateRecord, StoreError>;

    /// A page of certificates of a tunnel, newest first.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn certificates(
        &self,
        workspace: &WorkspaceId,
        tunnel: TunnelId,
        listing: &Listing,
    ) -> Result<Listed<CertificateRecord>, StoreError>;

    /// Archives a certificate; an archived one stays as it is.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn archive_certificate(
        &self,
        change: &Change,
        tunnel: TunnelId,
        certificate: CertificateId,
    ) -> Result<CertificateRecord, StoreError>;
}

/// Gateways that dialled in, and what was decided about them.
#[async_trait]
pub trait GatewayStore: Send + Sync + 'static {
    /// A page of gateways of a tunnel, newest first.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn gateways(
        &self,
        workspace: &WorkspaceId,
        tunnel: TunnelId,
        listing: &Listing,
    ) -> Result<Listed<GatewayRecord>, StoreError>;

    /// One gateway of a tunnel.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn gateway(
        &self,
        workspace: &WorkspaceId,
        tunnel: TunnelId,
        gateway: ConnectionId,
    ) -> Result<GatewayRecord, StoreError>;

    /// Approves a key, seen before or not; a new row gets the id `fresh`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`Refusal::TunnelArchived`], [`Refusal::TooManyGateways`].
    async fn approve_key(
        &self,
        change: &Change,
        tunnel: TunnelId,
        fingerprint: Fingerprint,
        fresh: ConnectionId,
    ) -> Result<GatewayRecord, StoreError>;

    /// Approves a gateway; where `expected` is given, only if that is its key.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`Refusal::TunnelArchived`], [`Refusal::OtherKey`].
    async fn approve(
        &self,
        change: &Change,
        tunnel: TunnelId,
        gateway: ConnectionId,
        expected: Option<Fingerprint>,
    ) -> Result<GatewayRecord, StoreError>;

    /// Refuses a gateway, or withdraws its approval.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`Refusal::TunnelArchived`].
    async fn refuse(
        &self,
        change: &Change,
        tunnel: TunnelId,
        gateway: ConnectionId,
    ) -> Result<GatewayRecord, StoreError>;

    /// Closes what was admitted under snapshots before the one numbered `links_from`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`Refusal::TunnelArchived`].
    async fn disconnect(
        &self,
        change: &Change,
        tunnel: TunnelId,
        gateway: ConnectionId,
        links_from: u64,
    ) -> Result<GatewayRecord, StoreError>;

    /// Writes down what an edge reports; a gateway not seen before gets the id `fresh`.
    /// A gateway that comes up where the tunnel approves automatically is approved, and
    /// the audit says by whom until the gateway makes room for another one. A link that
    /// goes, or that announces no route, as that of a check does, changes nothing that
    /// another link said of the gateway. The approval code goes with the link that it was reported
    /// for. Of [`PENDING_MOST`] pending gateways one makes room for a new one: first those
    /// without a code, then the one heard of least lately; of [`GATEWAYS_MOST`] one that
    /// was approved automatically, or is refused by a tunnel where it would wait again.
    ///
    /// # Errors
    /// Only the store's own.
    async fn observe(
        &self,
        report: &LinkReport,
        fresh: ConnectionId,
    ) -> Result<Observed, StoreError>;

    /// Forgets gateways that are pending and were not heard of since `before`.
    ///
    /// # Errors
    /// Only the store's own.
    async fn forget_pending(&self, before: Timestamp) -> Result<u64, StoreError>;
}

/// Keys of callers and of the API, by their hashes.
#[async_trait]
pub trait KeyStore: Send + Sync + 'static {
    /// Writes a caller key down, unless the workspace has `most` that are not revoked.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where the key names a tunnel that is not there,
    /// [`Refusal::TooManyCallerKeys`].
    async fn create_caller_key(
        &self,
        change: &Change,
        new: NewCallerKey,
        most: u32,
    ) -> Result<CallerKeyRecord, StoreError>;

    /// A page of caller keys, newest first; revoked ones count as archived.
    ///
    /// # Errors
    /// Only the store's own.
    async fn caller_keys(
        &self,
        workspace: &WorkspaceId,
        listing: &Listing,
    ) -> Result<Listed<CallerKeyRecord>, StoreError>;

    /// Revokes a caller key; a revoked one stays as it is.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn revoke_caller_key(
        &self,
        change: &Change,
        key: CallerKeyId,
    ) -> Result<CallerKeyRecord, StoreError>;

    /// Writes an API key down.
    ///
    /// # Errors
    /// Only the store's own.
    async fn create_api_key(
        &self,
        change: &Change,
        new: NewApiKey,
    ) -> Result<ApiKeyRecord, StoreError>;

    /// Revokes an API key; a revoked one stays as it is.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn revoke_api_key(
        &self,
        change: &Change,
        key: ApiKeyId,
    ) -> Result<ApiKeyRecord, StoreError>;

    /// The API key with this hash, revoked or not, of whatever workspace: the one look-up
    /// that comes before a workspace is known.
    ///
    /// # Errors
    /// Only the store's own.
    async fn api_key(&self, hash: ApiKeyHash) -> Result<Option<ApiKeyRecord>, StoreError>;
}
