//! Identifiers: a prefix that names the kind, then 26 digits that sort by time.
//!
//! ```text
//! tnl_01jd3x9z7m4k8q2v5w6y0b1c3d
//! ├──┘└────────┘└──────────────┘
//! kind  48 bits   80 random bits
//!       of milliseconds since 1970
//! ```
//!
//! Ids are public: they appear in URLs, logs and audit rows, and prove nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base32;

/// Writes `prefix`, an underscore and the 26 digits of a time and 80 random bits.
///
/// For the ids of rows that have no type here. Milliseconds beyond 48 bits (the year 10889) are cut.
///
/// ```
/// let id = mcp_tunnel_auth::encode_id("tcrt", 1_764_000_000_000, &[7; 10]);
/// assert_eq!(id, "tcrt_01kav9ft000w3ge1r70w3ge1r7");
/// ```
#[must_use]
pub fn encode(prefix: &str, unix_ms: u64, entropy: &[u8; 10]) -> String {
    text_of(prefix, number(unix_ms, entropy))
}

/// Why a text is no id of the expected kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// It starts with another prefix, or with none.
    #[error("an id of this kind starts with {expected}_")]
    Prefix {
        /// What comes before the underscore.
        expected: &'static str,
    },
    /// The part after the prefix is not 26 digits of Crockford's base 32 in lower case.
    #[error("26 digits or lower-case letters follow {prefix}_")]
    Digits {
        /// What comes before the underscore.
        prefix: &'static str,
    },
    /// A workspace id is empty, longer than 64 characters, or has others than letters, digits, `_` and `-`.
    #[error("a workspace id has 1 to 64 letters, digits, underscores and hyphens")]
    Workspace,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident $prefix:literal)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; 16]);

        impl $name {
            /// What its text starts with, without the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// Makes an id from the time and 80 random bits of the caller.
            #[must_use]
            pub fn new(unix_ms: u64, entropy: &[u8; 10]) -> Self {
                Self(number(unix_ms, entropy).to_be_bytes())
            }

            /// Takes the 16 bytes that [`Self::to_bytes`] gave.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// Reads the text form.
            ///
            /// # Errors
            /// [`IdError`] when the prefix or the digits are not those of this kind.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                let digits = text
                    .strip_prefix(concat!($prefix, "_"))
                    .ok_or(IdError::Prefix { expected: $prefix })?;
                base32::parse(digits, base32::U128_DIGITS)
                    .map(|number| Self(number.to_be_bytes()))
                    .ok_or(IdError::Digits { prefix: $prefix })
            }

            /// The 16 bytes behind the text.
            #[must_use]
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0
            }

            /// Milliseconds since 1970 at which it was made.
            #[must_use]
            pub fn unix_ms(self) -> u64 {
                u64::try_from(u128::from_be_bytes(self.0) >> 80).unwrap_or(0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&text_of($prefix, u128::from_be_bytes(self.0)))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                Self::parse(&text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }
    )*};
}

ids! {
    /// A tunnel.
    TunnelId "tnl"
    /// One value of a tunnel's token; a rotation draws a new one.
    TokenId "ttok"
    /// A caller key's row.
    CallerKeyId "ckey"
    /// A gateway key as one tunnel knows it.
    ConnectionId "tcon"
    /// A CA certificate of a tunnel.
    CertificateId "tcrt"
    /// An API key's row.
    ApiKeyId "akey"
    /// One link of a gateway to an edge, for as long as it lives.
    LinkId "tlnk"
    /// An environment: a queue of work.
    EnvironmentId "env"
    /// An environment key's row.
    EnvironmentKeyId "ekey"
    /// An agent.
    AgentId "agent"
    /// A session of an agent.
    SessionId "sesn"
    /// A thread of a session.
    ThreadId "sthr"
    /// A work item.
    WorkId "work"
    /// An event of a session.
    EventId "sevt"
    /// A skill.
    SkillId "skill"
    /// A version of a skill.
    SkillVersionId "skver"
}

/// The workspace that owns an object: whatever id the embedder's own accounts use.
///
/// 1 to 64 letters, digits, underscores and hyphens.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkspaceId(Box<str>);

impl WorkspaceId {
    /// Checks length and characters.
    ///
    /// # Errors
    /// [`IdError::Workspace`].
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(IdError::Workspace)
        }
    }

    /// The id as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkspaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for WorkspaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<WorkspaceId> for String {
    fn from(id: WorkspaceId) -> Self {
        id.0.into()
    }
}

impl TryFrom<String> for WorkspaceId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        Self::parse(&text)
    }
}

fn number(unix_ms: u64, entropy: &[u8; 10]) -> u128 {
    let random = entropy
        .iter()
        .fold(0_u128, |number, byte| (number << 8) | u128::from(*byte));
    (u128::from(unix_ms & 0xffff_ffff_ffff) << 80) | random
}

fn text_of(prefix: &str, number: u128) -> String {
    let mut text = String::with_capacity(prefix.len() + 1 + base32::U128_DIGITS);
    text.push_str(prefix);
    text.push('_');
    base32::push(&mut text, number, base32::U128_DIGITS);
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_sort_by_time() {
        let early = TunnelId::new(1_764_000_000_000, &[0xff; 10]);
        let late = TunnelId::new(1_764_000_000_001, &[0; 10]);
        assert!(early < late);
        assert!(early.to_string() < late.to_string());
        assert_eq!(late.unix_ms(), 1_764_000_000_001);
    }

    #[test]
    fn another_kind_is_refused_by_its_prefix() {
        let token = TokenId::new(1, &[1; 10]).to_string();
        assert_eq!(
            TunnelId::parse(&token),
            Err(IdError::Prefix { expected: "tnl" })
        );
        assert_eq!(
            TokenId::parse("ttok_short"),
            Err(IdError::Digits { prefix: "ttok" })
        );
    }

    #[test]
    fn a_workspace_id_is_the_embedders_own() {
        for good in ["default", "wrkspc_01ABC", "7f3e-11"] {
            assert_eq!(WorkspaceId::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "a b", "ü", &"x".repeat(65)] {
            assert_eq!(WorkspaceId::parse(bad), Err(IdError::Workspace));
        }
    }

    proptest! {
        #[test]
        fn text_round_trip(bytes: [u8; 16]) {
            let id = ConnectionId::from_bytes(bytes);
            prop_assert_eq!(ConnectionId::parse(&id.to_string()), Ok(id));
        }

        #[test]
        fn any_text_is_judged_without_panic(text in ".{0,40}") {
            let _ = TunnelId::parse(&text);
            let _ = TunnelId::parse(&format!("tnl_{text}"));
            let _ = WorkspaceId::parse(&text);
        }
    }
}
