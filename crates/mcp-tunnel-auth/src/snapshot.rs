//! What an edge knows about tunnels and callers: a numbered, immutable value that the console makes and pushes.
//!
//! ```text
//!  console                               edge
//!  rows ──► AccessSnapshot n   ──────►   judge_link      a gateway dials in
//!           AccessSnapshot n+1 ──────►   rejudge         every live link, after each snapshot
//!           …                            authorise_caller   every call
//! ```
//!
//! It holds public keys and hashes only: nothing in it authenticates anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bearer::{CallerKey, CallerKeyHash};
use crate::credential::{LinkCredential, LinkIdentity, ProofError};
use crate::id::{CallerKeyId, ConnectionId, TokenId, TunnelId, WorkspaceId};
use crate::key::{Fingerprint, TokenPublicKey};
use crate::name::{DomainLabel, HostName, RouteName};

/// Whether a gateway needs an administrator's word before it carries traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Approval {
    /// Each gateway key waits until it is approved.
    #[default]
    Manual,
    /// Whoever holds the token is let in, unless that gateway key is refused.
    Auto,
}

/// Who judges the callers of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CallerAuth {
    /// The edge, by caller keys.
    #[default]
    Key,
    /// The private server: the edge lets any caller through.
    Upstream,
}

/// Whether a value of a tunnel's token is good for new links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TokenState {
    /// It is the tunnel's token.
    Current,
    /// It was rotated out: refused for new links, and links that used it drain.
    Retired,
}

/// What an administrator decided about a gateway key. A key without an entry was not decided upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GatewayState {
    /// It may carry traffic.
    Approved,
    /// It may not connect.
    Refused,
}

/// One value of a tunnel's token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TokenAccess {
    /// Which value.
    pub id: TokenId,
    /// What its signatures are checked with.
    pub public_key: TokenPublicKey,
    /// Whether it is still good.
    pub state: TokenState,
}

/// One gateway key that was decided upon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GatewayAccess {
    /// The key, by fingerprint: it may be approved before it was ever seen.
    pub fingerprint: Fingerprint,
    /// The console's row for this key on this tunnel.
    pub connection: ConnectionId,
    /// The decision.
    pub state: GatewayState,
    /// Links that were admitted under a snapshot with a lower number are closed; 0 closes none. A number rather than a
    /// time, so that the clocks of console and edge need not agree.
    #[serde(default)]
    pub links_from: u64,
}

/// One tunnel. Archived tunnels are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TunnelAccess {
    /// The tunnel.
    pub id: TunnelId,
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// Its part of host names.
    pub label: DomainLabel,
    /// Whether new gateway keys wait.
    pub approval: Approval,
    /// Who judges callers.
    pub caller_auth: CallerAuth,
    /// The current token, and retired ones whose links may still live.
    pub tokens: Vec<TokenAccess>,
    /// The gateway keys that were decided upon.
    pub gateways: Vec<GatewayAccess>,
}

/// One caller key. Revoked keys are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CallerKeyAccess {
    /// The row.
    pub id: CallerKeyId,
    /// The key, by its hash.
    pub hash: CallerKeyHash,
    /// Whose it is: it reaches no tunnel of another workspace.
    pub workspace: WorkspaceId,
    /// The tunnels that it reaches; `None` for all of its workspace.
    pub tunnels: Option<BTreeSet<TunnelId>>,
    /// The routes that it reaches there; `None` for all.
    pub routes: Option<BTreeSet<RouteName>>,
    /// Milliseconds since 1970 from which on it is refused.
    pub expires_at_ms: Option<u64>,
}

impl TokenAccess {
    /// A token that is good.
    #[must_use]
    pub const fn new(id: TokenId, public_key: TokenPublicKey) -> Self {
        Self {
            id,
            public_key,
            state: TokenState::Current,
        }
    }
}

impl GatewayAccess {
    /// A decision about a key.
    #[must_use]
    pub const fn new(
        fingerprint: Fingerprint,
        connection: ConnectionId,
        state: GatewayState,
    ) -> Self {
        Self {
            fingerprint,
            connection,
            state,
            links_from: 0,
        }
    }
}

impl TunnelAccess {
    /// A tunnel without tokens and gateways, with manual approval and caller keys.
    #[must_use]
    pub fn new(id: TunnelId, workspace: WorkspaceId, label: DomainLabel) -> Self {
        Self {
            id,
            workspace,
            label,
            approval: Approval::default(),
            caller_auth: CallerAuth::default(),
            tokens: Vec::new(),
            gateways: Vec::new(),
        }
    }
}

impl CallerKeyAccess {
    /// A key for all tunnels of a workspace, for ever.
    #[must_use]
    pub const fn new(id: CallerKeyId, hash: CallerKeyHash, workspace: WorkspaceId) -> Self {
        Self {
            id,
            hash,
            workspace,
            tunnels: None,
            routes: None,
            expires_at_ms: None,
        }
    }

    fn reaches(&self, tunnel: &TunnelAccess, route: &RouteName) -> bool {
        self.workspace == tunnel.workspace
            && self
                .tunnels
                .as_ref()
                .is_none_or(|tunnels| tunnels.contains(&tunnel.id))
            && self
                .routes
                .as_ref()
                .is_none_or(|routes| routes.contains(route))
    }
}

/// All that an edge judges by, at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "SnapshotParts", into = "SnapshotParts")]
pub struct AccessSnapshot {
    number: u64,
    issued_at_ms: u64,
    tunnels: BTreeMap<TunnelId, TunnelAccess>,
    labels: BTreeMap<DomainLabel, TunnelId>,
    caller_keys: BTreeMap<CallerKeyHash, CallerKeyAccess>,
}

/// Why tunnels and keys make no snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Two tunnels have one id or one label.
    #[error("two tunnels have the same id or label")]
    DuplicateTunnel,
    /// Two caller keys have one hash.
    #[error("two caller keys have the same hash")]
    DuplicateCallerKey,
}

#[derive(Serialize, Deserialize)]
struct SnapshotParts {
    number: u64,
    issued_at_ms: u64,
    tunnels: Vec<TunnelAccess>,
    caller_keys: Vec<CallerKeyAccess>,
}

/// What becomes of a link whose credential is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkDecision {
    /// It carries traffic.
    Active {
        /// The console's row for this gateway key; `None` for a key that an automatic tunnel let in unseen.
        connection: Option<ConnectionId>,
    },
    /// It waits for an administrator.
    Pending,
}

/// Why a link is refused, or closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LinkRefusal {
    /// No such tunnel or token, or the token's signature is not good: not told apart.
    #[error("the tunnel token is not known here")]
    Unrecognised,
    /// The token is genuine, the gateway key's signature is not good.
    #[error("the gateway does not hold the key that it names")]
    GatewayProof,
    /// The credential was made for an edge of another name.
    #[error("the token belongs to another edge")]
    OtherEdge,
    /// The credential was made for another TLS connection.
    #[error("the connection to the edge is intercepted")]
    Intercepted,
    /// The token was rotated. A live link drains; a new one is refused.
    #[error("the tunnel token was rotated")]
    TokenRotated,
    /// An administrator refused this gateway key.
    #[error("an administrator refused this gateway")]
    GatewayRefused,
    /// An administrator closed the links that were up; the gateway may come back. Never for a new link.
    #[error("an administrator disconnected this gateway")]
    Disconnected,
}

impl LinkRefusal {
    /// What the gateway's operator does about it.
    #[must_use]
    pub const fn cure(self) -> &'static str {
        match self {
            Self::Unrecognised => {
                "take the token that the console shows for this tunnel; an archived tunnel has none"
            }
            Self::GatewayProof => {
                "remove the key file from the state folder and start again: a new key is made"
            }
            Self::OtherEdge => {
                "dial the edge that the token names, or take the token from this edge's console"
            }
            Self::Intercepted => {
                "exempt the edge's host name from TLS inspection on the way out of the network"
            }
            Self::TokenRotated => "start the gateway with the new token from the console",
            Self::GatewayRefused => {
                "ask the tunnel's administrator to approve this gateway's fingerprint"
            }
            Self::Disconnected => "nothing: the gateway connects again by itself",
        }
    }
}

impl From<ProofError> for LinkRefusal {
    fn from(error: ProofError) -> Self {
        match error {
            ProofError::TokenSignature => Self::Unrecognised,
            ProofError::GatewaySignature => Self::GatewayProof,
            ProofError::OtherEdge => Self::OtherEdge,
            ProofError::Intercepted => Self::Intercepted,
        }
    }
}

/// On what ground a caller is let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallerGrant {
    /// It presented this key.
    Key(CallerKeyId),
    /// The private server judges it.
    Upstream,
}

/// Why a caller is refused. For logs and counters: the caller gets the same answer for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum CallerRefusal {
    /// There is no such tunnel.
    #[error("no such tunnel")]
    UnknownTunnel,
    /// No caller key was presented.
    #[error("no caller key was presented")]
    Missing,
    /// A key was presented that is unknown or revoked.
    #[error("the caller key is not known")]
    Unknown,
    /// The key has expired.
    #[error("the caller key has expired")]
    Expired,
    /// The key does not reach this tunnel and route.
    #[error("the caller key does not reach this tunnel and route")]
    OutOfScope,
}

impl AccessSnapshot {
    /// Makes a snapshot; `number` comes from [`Self::next_number`].
    ///
    /// # Errors
    /// [`SnapshotError`] when an id, a label or a hash stands for two things.
    pub fn new(
        number: u64,
        issued_at_ms: u64,
        tunnels: Vec<TunnelAccess>,
        caller_keys: Vec<CallerKeyAccess>,
    ) -> Result<Self, SnapshotError> {
        let mut snapshot = Self {
            issued_at_ms,
            ..Self::empty(number)
        };
        for tunnel in tunnels {
            let label = snapshot.labels.insert(tunnel.label.clone(), tunnel.id);
            if label.is_some() || snapshot.tunnels.insert(tunnel.id, tunnel).is_some() {
                return Err(SnapshotError::DuplicateTunnel);
            }
        }
        for key in caller_keys {
            if snapshot.caller_keys.insert(key.hash, key).is_some() {
                return Err(SnapshotError::DuplicateCallerKey);
            }
        }
        Ok(snapshot)
    }

    /// A snapshot that knows nobody, issued in 1970: what an edge starts with.
    #[must_use]
    pub const fn empty(number: u64) -> Self {
        Self {
            number,
            issued_at_ms: 0,
            tunnels: BTreeMap::new(),
            labels: BTreeMap::new(),
            caller_keys: BTreeMap::new(),
        }
    }

    /// The number after `last`: the time in milliseconds, or one more than the last if the clock went back.
    ///
    /// A console that lost its counter to a restored backup thus still goes forward.
    #[must_use]
    pub fn next_number(last: u64, now_ms: u64) -> u64 {
        last.saturating_add(1).max(now_ms)
    }

    /// Whether both let in the same gateways and callers, whatever their numbers and times are.
    #[must_use]
    pub fn judges_as(&self, other: &Self) -> bool {
        self.tunnels == other.tunnels && self.caller_keys == other.caller_keys
    }

    /// Its place in the sequence.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// When the console made it, in milliseconds since 1970.
    #[must_use]
    pub const fn issued_at_ms(&self) -> u64 {
        self.issued_at_ms
    }

    /// Whether it replaces `current`; an edge ignores one that does not.
    #[must_use]
    pub const fn supersedes(&self, current: &Self) -> bool {
        self.number > current.number
    }

    /// How old it is; zero for one from the future.
    #[must_use]
    pub const fn age(&self, now_ms: u64) -> Duration {
        Duration::from_millis(now_ms.saturating_sub(self.issued_at_ms))
    }

    /// The tunnel with this id.
    #[must_use]
    pub fn tunnel_by_id(&self, id: &TunnelId) -> Option<&TunnelAccess> {
        self.tunnels.get(id)
    }

    /// The tunnel with this label.
    #[must_use]
    pub fn tunnel_by_label(&self, label: &DomainLabel) -> Option<&TunnelAccess> {
        self.tunnel_by_id(self.labels.get(label)?)
    }

    /// All tunnels, by id.
    pub fn tunnels(&self) -> impl ExactSizeIterator<Item = &TunnelAccess> {
        self.tunnels.values()
    }

    /// When the next caller key expires, of those that were good at `now_ms`; in milliseconds since 1970.
    #[must_use]
    pub fn next_expiry(&self, now_ms: u64) -> Option<u64> {
        let expiries = self
            .caller_keys
            .values()
            .filter_map(|key| key.expires_at_ms);
        expiries.filter(|expiry| *expiry > now_ms).min()
    }

    /// Judges a new link: the proof first, then what the console decided.
    ///
    /// Takes the same work for an unknown token as for a false signature.
    ///
    /// # Errors
    /// [`LinkRefusal`]; one who does not hold the token gets [`LinkRefusal::Unrecognised`] and learns nothing else.
    pub fn judge_link(
        &self,
        credential: &LinkCredential,
        edge_name: &HostName,
        exporter: &[u8; 32],
    ) -> Result<LinkDecision, LinkRefusal> {
        let identity = credential.identity();
        let known = self.token(identity).map(|(_, token)| token.public_key);
        // With no token, check against some other key: it costs the same, and `rejudge` refuses it.
        let somebody = TokenPublicKey::from_bytes(identity.gateway.to_bytes());
        let key = known
            .or_else(|| somebody.ok())
            .ok_or(LinkRefusal::Unrecognised)?;
        credential.verify(&key, edge_name, exporter)?;
        self.rejudge(identity, u64::MAX)
    }

    /// Judges a link, live or pending, whose proof was accepted under the snapshot numbered `admitted_under`.
    ///
    /// [`LinkDecision::Pending`] for a link that carries traffic means that its approval is gone: it closes.
    ///
    /// # Errors
    /// [`LinkRefusal`]; [`LinkRefusal::TokenRotated`] drains a live link, any other closes it.
    pub fn rejudge(
        &self,
        identity: &LinkIdentity,
        admitted_under: u64,
    ) -> Result<LinkDecision, LinkRefusal> {
        let (tunnel, token) = self.token(identity).ok_or(LinkRefusal::Unrecognised)?;
        let fingerprint = identity.fingerprint();
        let decided = tunnel
            .gateways
            .iter()
            .find(|gateway| gateway.fingerprint == fingerprint);
        if decided.is_some_and(|gateway| gateway.state == GatewayState::Refused) {
            return Err(LinkRefusal::GatewayRefused);
        }
        if token.state == TokenState::Retired {
            return Err(LinkRefusal::TokenRotated);
        }
        match (decided, tunnel.approval) {
            (Some(gateway), _) if admitted_under < gateway.links_from => {
                Err(LinkRefusal::Disconnected)
            }
            (Some(gateway), _) => Ok(LinkDecision::Active {
                connection: Some(gateway.connection),
            }),
            (None, Approval::Auto) => Ok(LinkDecision::Active { connection: None }),
            (None, Approval::Manual) => Ok(LinkDecision::Pending),
        }
    }

    /// Judges one call: `tunnel` as the edge found it by host or path, `presented` as the request carried it.
    ///
    /// Does one hash, one search and one comparison in constant time, whatever is missing or wrong. The search is by
    /// the hash of what was presented: to choose that hash is to know the key.
    ///
    /// # Errors
    /// [`CallerRefusal`] for the edge's own records; callers get one answer for all.
    pub fn authorise_caller(
        &self,
        presented: Option<&CallerKey>,
        tunnel: Option<&TunnelAccess>,
        route: &RouteName,
        now_ms: u64,
    ) -> Result<CallerGrant, CallerRefusal> {
        let hash =
            presented.map_or_else(|| CallerKey::from_entropy([0; 32]).hash(), CallerKey::hash);
        let nearest = self
            .caller_keys
            .range(..=hash)
            .next_back()
            .map(|(_, key)| key);
        let key = nearest.filter(|key| key.hash == hash && presented.is_some());
        let tunnel = tunnel.ok_or(CallerRefusal::UnknownTunnel)?;
        if tunnel.caller_auth == CallerAuth::Upstream {
            return Ok(CallerGrant::Upstream);
        }
        let Some(key) = key else {
            let missing = presented.is_none();
            return Err(if missing {
                CallerRefusal::Missing
            } else {
                CallerRefusal::Unknown
            });
        };
        if key.expires_at_ms.is_some_and(|expiry| now_ms >= expiry) {
            return Err(CallerRefusal::Expired);
        }
        if !key.reaches(tunnel, route) {
            return Err(CallerRefusal::OutOfScope);
        }
        Ok(CallerGrant::Key(key.id))
    }

    fn token(&self, identity: &LinkIdentity) -> Option<(&TunnelAccess, &TokenAccess)> {
        let tunnel = self.tunnel_by_id(&identity.tunnel)?;
        let token = tunnel
            .tokens
            .iter()
            .find(|token| token.id == identity.token)?;
        Some((tunnel, token))
    }
}

impl TryFrom<SnapshotParts> for AccessSnapshot {
    type Error = SnapshotError;

    fn try_from(parts: SnapshotParts) -> Result<Self, SnapshotError> {
        Self::new(
            parts.number,
            parts.issued_at_ms,
            parts.tunnels,
            parts.caller_keys,
        )
    }
}

impl From<AccessSnapshot> for SnapshotParts {
    fn from(snapshot: AccessSnapshot) -> Self {
        Self {
            number: snapshot.number,
            issued_at_ms: snapshot.issued_at_ms,
            tunnels: snapshot.tunnels.into_values().collect(),
            caller_keys: snapshot.caller_keys.into_values().collect(),
        }
    }
}

#[cfg(test)]
mod tests;
