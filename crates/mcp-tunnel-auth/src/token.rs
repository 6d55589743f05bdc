//! The tunnel token: all that a gateway needs to find and trust its edge and to prove itself there.
//!
//! ```text
//! mct_ base64url( version 1 ‖ tunnel id ‖ token id ‖ seed ‖ flags ‖ [CA pin] ‖ port ‖ host ‖ label ‖ domain ‖ [edge name] ‖ check )
//!                  1 byte     16          16         32     1       32         2      texts: length byte, bytes             4
//! ```
//!
//! Flag 1: a CA pin is there; flag 2: the edge has another name than `edge.DOMAIN`. The check is the first four bytes of
//! the SHA-256 of all before it: it tells a token cut in copying from a refused one, and is no security measure.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};

use crate::id::{TokenId, TunnelId};
use crate::key::TokenSeed;
use crate::kind::{CredentialKind, WrongCredential};
use crate::name::{DomainLabel, DomainName, HostName};
use crate::wire::{Reader, push_text};

/// A tunnel token, read.
#[derive(Debug)]
#[non_exhaustive]
pub struct TunnelToken {
    /// The tunnel that it connects.
    pub tunnel_id: TunnelId,
    /// Which value of the tunnel's token it is.
    pub token_id: TokenId,
    /// The secret.
    pub seed: TokenSeed,
    /// Where the edge is dialled, unless the operator says otherwise.
    pub edge_host: HostName,
    /// The port of the edge.
    pub edge_port: u16,
    /// The name that the edge proves by its certificate, whatever address is dialled.
    pub edge_name: HostName,
    /// SHA-256 of the public key (SubjectPublicKeyInfo) of the only CA to trust; without it the system's CAs.
    pub ca_pin: Option<[u8; 32]>,
    /// The tunnel's part of its host names.
    pub label: DomainLabel,
    /// The domain below which callers reach the tunnel.
    pub domain: DomainName,
}

/// Why a text is no usable tunnel token. The value is never part of the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Nothing but blanks.
    #[error("the tunnel token is empty; {}", CredentialKind::TunnelToken.source())]
    Empty,
    /// A credential of another kind.
    #[error(transparent)]
    WrongKind(#[from] WrongCredential),
    /// Nothing that is known here.
    #[error("not a tunnel token, which starts with mct_; {}", CredentialKind::TunnelToken.source())]
    Unrecognised,
    /// A tunnel token with characters missing or changed.
    #[error("the tunnel token is incomplete or altered; copy it again, whole and on one line")]
    Damaged,
    /// A tunnel token of a later format.
    #[error(
        "the tunnel token has format {0}, which this version does not read; upgrade the gateway"
    )]
    Version(u8),
}

/// Longest text that is looked at, in characters: ours have about 300, and at most 1200 with the longest names.
pub const MAX_TOKEN_CHARS: usize = 2048;

const PREFIX: &str = "mct_";
const VERSION: u8 = 1;
const HAS_PIN: u8 = 1;
const HAS_EDGE_NAME: u8 = 2;
const CHECK_BYTES: usize = 4;

impl TunnelToken {
    /// Makes a token for an edge that is called `edge.DOMAIN` and has a publicly trusted certificate.
    #[must_use]
    pub fn new(
        tunnel_id: TunnelId,
        label: DomainLabel,
        domain: DomainName,
        token_id: TokenId,
        seed: TokenSeed,
        edge: (HostName, u16),
    ) -> Self {
        let edge_name = domain.edge();
        Self {
            tunnel_id,
            token_id,
            seed,
            edge_host: edge.0,
            edge_port: edge.1,
            edge_name,
            ca_pin: None,
            label,
            domain,
        }
    }

    /// Names the only CA to trust, by the SHA-256 of its public key.
    #[must_use]
    pub const fn with_ca_pin(mut self, pin: [u8; 32]) -> Self {
        self.ca_pin = Some(pin);
        self
    }

    /// Names the edge as the operator's own certificate does.
    #[must_use]
    pub fn with_edge_name(mut self, name: HostName) -> Self {
        self.edge_name = name;
        self
    }

    /// Reads the text form; blanks around it are ignored.
    ///
    /// # Errors
    /// [`TokenError`] tells a damaged token from another kind of credential.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        CredentialKind::TunnelToken.expect(text)?;
        let body = text.strip_prefix(PREFIX).ok_or(TokenError::Unrecognised)?;
        if text.len() > MAX_TOKEN_CHARS {
            return Err(TokenError::Damaged);
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(body)
            .map_err(|_| TokenError::Damaged)?;
        let (content, check) = bytes
            .split_last_chunk::<CHECK_BYTES>()
            .ok_or(TokenError::Damaged)?;
        if check_of(content) != *check {
            return Err(TokenError::Damaged);
        }
        let mut reader = Reader(content);
        match reader.u8() {
            Some(VERSION) => Self::read(&mut reader).ok_or(TokenError::Damaged),
            Some(version) => Err(TokenError::Version(version)),
            None => Err(TokenError::Damaged),
        }
    }

    /// The text form.
    #[must_use]
    pub fn encode(&self) -> SecretString {
        let own_name = self.edge_name != self.domain.edge();
        let mut bytes = vec![VERSION];
        bytes.extend(self.tunnel_id.to_bytes());
        bytes.extend(self.token_id.to_bytes());
        bytes.extend(self.seed.secret());
        bytes.push(
            if self.ca_pin.is_some() { HAS_PIN } else { 0 }
                | if own_name { HAS_EDGE_NAME } else { 0 },
        );
        bytes.extend(self.ca_pin.iter().flatten());
        bytes.extend(self.edge_port.to_be_bytes());
        push_text(&mut bytes, self.edge_host.as_str());
        push_text(&mut bytes, self.label.as_str());
        push_text(&mut bytes, self.domain.as_str());
        if own_name {
            push_text(&mut bytes, self.edge_name.as_str());
        }
        bytes.extend(check_of(&bytes));
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)).into()
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let tunnel_id = TunnelId::from_bytes(reader.array()?);
        let token_id = TokenId::from_bytes(reader.array()?);
        let seed = TokenSeed::from_bytes(reader.array()?);
        let flags = reader.u8()?;
        if flags & !(HAS_PIN | HAS_EDGE_NAME) != 0 {
            return None;
        }
        let ca_pin = if flags & HAS_PIN == 0 {
            None
        } else {
            Some(reader.array()?)
        };
        let edge_port = reader.u16()?;
        let edge_host = HostName::parse_canonical(reader.text()?)?;
        let label = DomainLabel::parse_canonical(reader.text()?)?;
        let domain = DomainName::parse_canonical(reader.text()?)?;
        let edge_name = if flags & HAS_EDGE_NAME == 0 {
            domain.edge()
        } else {
            HostName::parse_canonical(reader.text()?)?
        };
        reader.0.is_empty().then_some(Self {
            tunnel_id,
            token_id,
            seed,
            edge_host,
            edge_port,
            edge_name,
            ca_pin,
            label,
            domain,
        })
    }
}

impl fmt::Display for TunnelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token {} of tunnel {}", self.token_id, self.tunnel_id)
    }
}

fn check_of(content: &[u8]) -> [u8; CHECK_BYTES] {
    let digest: [u8; 32] = Sha256::digest(content).into();
    let [a, b, c, d, ..] = digest;
    [a, b, c, d]
}

#[cfg(test)]
mod tests;
