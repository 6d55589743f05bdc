//! What a gateway says of itself when it opens a link, and the proof of it.
//!
//! ```text
//!             tunnel ‖ token id ‖ gateway key ‖ edge name ‖ TLS exporter ‖ SHA-256(announcement)
//!                   │                                                     │
//!   token seed ──sign(label "token")                     gateway key ──sign(label "gateway")
//! ```
//!
//! The exporter is a secret of one TLS connection that both ends compute. A credential that is replayed on another
//! connection, or passed on by a TLS proxy in between, carries good signatures over another exporter: the edge then
//! answers that the link is intercepted. The seed never crosses the wire.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::id::{TokenId, TunnelId};
use crate::key::{Fingerprint, GatewayKey, GatewayPublicKey, TokenPublicKey};
use crate::name::{HostName, RouteName};
use crate::token::TunnelToken;
use crate::wire::{Reader, push_text};

/// Longest encoded credential, in bytes.
///
/// It fits a hello's 4 KiB with room for the rest, and holds the longest announcement. An edge spends a few times as much
/// memory on it before it is proven; raised, strangers could make it spend more.
pub const MAX_CREDENTIAL_BYTES: usize = 3584;

/// Most routes that one gateway announces.
///
/// More would not fit the credential with names of usual length; what each costs an edge for the life of a link is its
/// name and a pointer.
pub const MAX_ROUTES: usize = 64;

const VERSION: u8 = 1;
const LABEL: &[u8] = b"mcp-tunnel link proof v1 ";

/// What a gateway tells about itself; shown to administrators, and signed with the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "AnnouncementParts", into = "AnnouncementParts")]
pub struct Announcement {
    version: String,
    host: String,
    routes: Vec<RouteName>,
}

/// Why an announcement is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnnouncementError {
    /// Version or host has others than printable ASCII characters, or more than 100 of them.
    #[error("version and host name are at most 100 printable ASCII characters")]
    Text,
    /// There are more than [`MAX_ROUTES`] routes, or their names do not fit together.
    #[error("a gateway announces at most {MAX_ROUTES} routes, in {MAX_ROUTE_BYTES} bytes together")]
    Routes,
    /// A route is named twice.
    #[error("a route is named twice")]
    Duplicate,
}

const MAX_TEXT: usize = 100;
const MAX_ROUTE_BYTES: usize = 2816;

#[derive(Serialize, Deserialize)]
struct AnnouncementParts {
    version: String,
    host: String,
    routes: Vec<RouteName>,
}

impl Announcement {
    /// Checks and holds the gateway's version, its machine's name, and its routes.
    ///
    /// # Errors
    /// [`AnnouncementError`] says what a reader would refuse.
    pub fn new(
        version: &str,
        host: &str,
        routes: Vec<RouteName>,
    ) -> Result<Self, AnnouncementError> {
        let printable = |text: &str| {
            text.len() <= MAX_TEXT && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        };
        if !printable(version) || !printable(host) {
            return Err(AnnouncementError::Text);
        }
        let bytes: usize = routes.iter().map(|route| route.as_str().len() + 1).sum();
        if routes.len() > MAX_ROUTES || bytes > MAX_ROUTE_BYTES {
            return Err(AnnouncementError::Routes);
        }
        let mut sorted: Vec<_> = routes.iter().collect();
        sorted.sort_unstable();
        if sorted
            .windows(2)
            .any(|pair| matches!(pair, [one, other] if one == other))
        {
            return Err(AnnouncementError::Duplicate);
        }
        Ok(Self {
            version: version.into(),
            host: host.into(),
            routes,
        })
    }

    /// The gateway program's version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The name of the machine that the gateway runs on, as that machine says.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The routes that it serves, in the order it gave them.
    #[must_use]
    pub fn routes(&self) -> &[RouteName] {
        &self.routes
    }

    fn write(&self, out: &mut Vec<u8>) {
        push_text(out, &self.version);
        push_text(out, &self.host);
        out.push(u8::try_from(self.routes.len()).unwrap_or(u8::MAX));
        for route in &self.routes {
            push_text(out, route.as_str());
        }
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let version = reader.text()?;
        let host = reader.text()?;
        let count = reader.u8()?;
        let routes = (0..count)
            .map(|_| RouteName::parse_canonical(reader.text()?))
            .collect::<Option<Vec<_>>>()?;
        Self::new(version, host, routes).ok()
    }
}

impl TryFrom<AnnouncementParts> for Announcement {
    type Error = AnnouncementError;

    fn try_from(parts: AnnouncementParts) -> Result<Self, AnnouncementError> {
        Self::new(&parts.version, &parts.host, parts.routes)
    }
}

impl From<Announcement> for AnnouncementParts {
    fn from(
        Announcement {
            version,
            host,
            routes,
        }: Announcement,
    ) -> Self {
        Self {
            version,
            host,
            routes,
        }
    }
}

/// Which gateway a link belongs to, once proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LinkIdentity {
    /// The tunnel.
    pub tunnel: TunnelId,
    /// Which value of its token was used.
    pub token: TokenId,
    /// The gateway's key.
    pub gateway: GatewayPublicKey,
}

impl LinkIdentity {
    /// Names a tunnel, a token and a gateway key.
    #[must_use]
    pub const fn new(tunnel: TunnelId, token: TokenId, gateway: GatewayPublicKey) -> Self {
        Self {
            tunnel,
            token,
            gateway,
        }
    }

    /// The fingerprint of the gateway's key.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.gateway.fingerprint()
    }
}

/// The credential of a link: identity, announcement, and two signatures that bind them to one TLS connection.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkCredential {
    identity: LinkIdentity,
    edge_name: HostName,
    exporter: [u8; 32],
    announcement: Announcement,
    token_signature: [u8; 64],
    gateway_signature: [u8; 64],
}

impl fmt::Debug for LinkCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkCredential")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// The bytes are not a credential that this version reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// Longer than [`MAX_CREDENTIAL_BYTES`].
    #[error("the credential is longer than {MAX_CREDENTIAL_BYTES} bytes")]
    TooLong,
    /// Of another format.
    #[error("the credential has format {0}, which this edge does not read")]
    Version(u8),
    /// Cut, followed by something, or with a field that breaks its rules.
    #[error("the credential is malformed")]
    Malformed,
}

/// Why a credential does not prove what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The signature by the token's secret is not good.
    #[error("the token's signature is not good")]
    TokenSignature,
    /// The signature by the gateway's key is not good.
    #[error("the gateway key's signature is not good")]
    GatewaySignature,
    /// Good signatures, made for an edge of another name.
    #[error("the credential was made for another edge")]
    OtherEdge,
    /// Good signatures, made for another TLS connection: something ends TLS in between, or replays.
    #[error("the credential was made for another TLS connection")]
    Intercepted,
}

impl LinkCredential {
    /// Signs for the TLS connection that `exporter` belongs to, and for the edge that the token names.
    #[must_use]
    pub fn sign(
        token: &TunnelToken,
        key: &GatewayKey,
        exporter: &[u8; 32],
        announcement: Announcement,
    ) -> Self {
        let mut credential = Self {
            identity: LinkIdentity::new(token.tunnel_id, token.token_id, key.public_key()),
            edge_name: token.edge_name.clone(),
            exporter: *exporter,
            announcement,
            token_signature: [0; 64],
            gateway_signature: [0; 64],
        };
        credential.token_signature = token.seed.sign(&credential.message(b"token"));
        credential.gateway_signature = key.sign(&credential.message(b"gateway"));
        credential
    }

    /// Reads what a hello carried.
    ///
    /// # Errors
    /// [`CredentialError`]; nothing is proven yet when it succeeds.
    pub fn decode(bytes: &[u8]) -> Result<Self, CredentialError> {
        if bytes.len() > MAX_CREDENTIAL_BYTES {
            return Err(CredentialError::TooLong);
        }
        let mut reader = Reader(bytes);
        match reader.u8() {
            Some(VERSION) => Self::read(&mut reader).ok_or(CredentialError::Malformed),
            Some(version) => Err(CredentialError::Version(version)),
            None => Err(CredentialError::Malformed),
        }
    }

    /// The bytes for a hello, at most [`MAX_CREDENTIAL_BYTES`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.identity.tunnel.to_bytes());
        bytes.extend(self.identity.token.to_bytes());
        bytes.extend(self.identity.gateway.to_bytes());
        bytes.extend(self.exporter);
        push_text(&mut bytes, self.edge_name.as_str());
        self.announcement.write(&mut bytes);
        bytes.extend(self.token_signature);
        bytes.extend(self.gateway_signature);
        bytes
    }

    /// Who it claims to be.
    #[must_use]
    pub const fn identity(&self) -> &LinkIdentity {
        &self.identity
    }

    /// What it tells about itself.
    #[must_use]
    pub const fn announcement(&self) -> &Announcement {
        &self.announcement
    }

    /// Checks both signatures, then that they were made for this edge and for this TLS connection.
    ///
    /// # Errors
    /// [`ProofError`]; the token's signature is judged first, so that only who holds the token learns more.
    pub fn verify(
        &self,
        token_key: &TokenPublicKey,
        edge_name: &HostName,
        exporter: &[u8; 32],
    ) -> Result<(), ProofError> {
        if !token_key.verifies(&self.message(b"token"), &self.token_signature) {
            return Err(ProofError::TokenSignature);
        }
        if !self
            .identity
            .gateway
            .verifies(&self.message(b"gateway"), &self.gateway_signature)
        {
            return Err(ProofError::GatewaySignature);
        }
        if self.edge_name != *edge_name {
            return Err(ProofError::OtherEdge);
        }
        if !bool::from(self.exporter.ct_eq(exporter)) {
            return Err(ProofError::Intercepted);
        }
        Ok(())
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let tunnel = TunnelId::from_bytes(reader.array()?);
        let token = TokenId::from_bytes(reader.array()?);
        let gateway = GatewayPublicKey::from_bytes(reader.array()?).ok()?;
        let exporter = reader.array()?;
        let edge_name = HostName::parse_canonical(reader.text()?)?;
        let announcement = Announcement::read(reader)?;
        let token_signature = reader.array()?;
        let gateway_signature = reader.array()?;
        reader.0.is_empty().then_some(Self {
            identity: LinkIdentity::new(tunnel, token, gateway),
            edge_name,
            exporter,
            announcement,
            token_signature,
            gateway_signature,
        })
    }

    /// What a signature covers; the role keeps one party's signature from standing for the other's.
    fn message(&self, role: &[u8]) -> Vec<u8> {
        let mut announcement = Vec::new();
        self.announcement.write(&mut announcement);
        let mut message = LABEL.to_vec();
        message.extend(role);
        message.push(0);
        message.extend(self.identity.tunnel.to_bytes());
        message.extend(self.identity.token.to_bytes());
        message.extend(self.identity.gateway.to_bytes());
        push_text(&mut message, self.edge_name.as_str());
        message.extend(self.exporter);
        message.extend(Sha256::digest(&announcement));
        message
    }
}

#[cfg(test)]
mod tests;
