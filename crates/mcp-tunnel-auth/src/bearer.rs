//! Keys that are presented as they are: 256 random bits behind a prefix, known to the other side by their hash.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretBox, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::base32;
use crate::key::GatewayKey;
use crate::kind::{CredentialKind, WrongCredential, is_key_digits};

/// Why a text is no key of the expected kind. The value is never part of the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BearerError {
    /// It is a credential of another kind.
    #[error(transparent)]
    WrongKind(#[from] WrongCredential),
    /// It does not start as such a key does.
    #[error("not {}; {}", .0.noun(), .0.source())]
    Unrecognised(CredentialKind),
    /// It starts well, but is not 52 digits of Crockford's base 32 after the prefix.
    #[error("{} is incomplete or altered: 52 characters follow the prefix", .0.noun())]
    Damaged(CredentialKind),
}

/// Reads the 256 bits of a key with this prefix.
fn parse(text: &str, prefix: &str, kind: CredentialKind) -> Result<[u8; 32], BearerError> {
    kind.expect(text)?;
    let digits = text
        .strip_prefix(prefix)
        .ok_or(BearerError::Unrecognised(kind))?;
    let damaged = BearerError::Damaged(kind);
    if !is_key_digits(digits) {
        return Err(damaged);
    }
    let (high, low) = digits
        .split_at_checked(base32::U128_DIGITS)
        .ok_or(damaged)?;
    let half = |digits: &str| {
        base32::parse(digits, base32::U128_DIGITS)
            .map(u128::to_be_bytes)
            .ok_or(damaged)
    };
    let mut bytes = [0; 32];
    for (byte, value) in bytes
        .iter_mut()
        .zip(half(high)?.into_iter().chain(half(low)?))
    {
        *byte = value;
    }
    Ok(bytes)
}

fn encode(prefix: &str, bytes: &[u8; 32]) -> SecretString {
    let mut text = String::with_capacity(prefix.len() + 2 * base32::U128_DIGITS);
    text.push_str(prefix);
    for half in bytes.as_chunks::<16>().0 {
        base32::push(&mut text, u128::from_be_bytes(*half), base32::U128_DIGITS);
    }
    text.into()
}

macro_rules! bearer {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $(#[$hash_doc:meta])* $hash:ident) => {
        $(#[$doc])*
        pub struct $name(SecretBox<[u8; 32]>);

        impl $name {
            /// Takes 256 random bits of the caller.
            #[must_use]
            pub fn from_entropy(bits: [u8; 32]) -> Self {
                Self(SecretBox::new(Box::new(bits)))
            }

            /// Reads the text form.
            ///
            /// # Errors
            /// [`BearerError`] names the kind of credential that it is instead, where that is recognisable.
            pub fn parse(text: &str) -> Result<Self, BearerError> {
                parse(text, $prefix, CredentialKind::$name).map(Self::from_entropy)
            }

            /// Reads a header's value: `Bearer`, blanks, the key.
            #[must_use]
            pub fn from_header(value: &[u8]) -> Option<Self> {
                let text = std::str::from_utf8(value).ok()?;
                let (scheme, key) = text.trim_ascii().split_once([' ', '\t'])?;
                scheme.eq_ignore_ascii_case("bearer").then(|| Self::parse(key.trim_ascii()).ok())?
            }

            /// The text form, prefix and 52 digits.
            #[must_use]
            pub fn encode(&self) -> SecretString {
                encode($prefix, self.0.expose_secret())
            }

            /// What the issuer keeps: the SHA-256 of the 256 bits, which need no salt as nobody can guess them.
            #[must_use]
            pub fn hash(&self) -> $hash {
                $hash(Sha256::digest(self.0.expose_secret()).into())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }

        $(#[$hash_doc])*
        ///
        /// 32 bytes; as text 43 characters of base64url. Equality takes constant time.
        #[derive(Clone, Copy, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $hash([u8; 32]);

        impl $hash {
            /// Takes the bytes of a hash.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            #[must_use]
            pub const fn to_bytes(self) -> [u8; 32] {
                self.0
            }
        }

        impl PartialEq for $hash {
            fn eq(&self, other: &Self) -> bool {
                self.0.ct_eq(&other.0).into()
            }
        }

        impl std::hash::Hash for $hash {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                self.0.hash(state);
            }
        }

        impl fmt::Display for $hash {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
            }
        }

        impl fmt::Debug for $hash {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl From<$hash> for String {
            fn from(hash: $hash) -> Self {
                hash.to_string()
            }
        }

        impl TryFrom<String> for $hash {
            type Error = HashError;

            fn try_from(text: String) -> Result<Self, HashError> {
                let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
                bytes.map(Self).ok_or(HashError)
            }
        }
    };
}

/// The text is not the 43 characters of a key's hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hash is 43 characters of base64url")]
#[non_exhaustive]
pub struct HashError;

bearer! {
    /// What an MCP client presents to the edge: `mck_` and 52 digits.
    CallerKey, "mck_",
    /// By what a snapshot knows a caller key.
    CallerKeyHash
}

bearer! {
    /// What a program presents to the console's REST API: `mca_` and 52 digits.
    ApiKey, "mca_",
    /// By what a console knows an API key.
    ApiKeyHash
}

bearer! {
    /// What a sandbox worker presents: `mce_` and 52 digits.
    EnvironmentKey, "mce_",
    /// By what a console knows an environment key.
    EnvironmentKeyHash
}

impl GatewayKey {
    /// The content of the key file: `mcg_` and 52 digits.
    #[must_use]
    pub fn encode(&self) -> SecretString {
        encode("mcg_", self.secret())
    }

    /// Reads the content of the key file; blanks around it are ignored.
    ///
    /// # Errors
    /// [`BearerError`]; the content is not echoed.
    pub fn parse(text: &str) -> Result<Self, BearerError> {
        parse(text.trim_ascii(), "mcg_", CredentialKind::GatewayKey).map(Self::from_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_text_and_hash() {
        let key = CallerKey::from_entropy(std::array::from_fn(|at| u8::try_from(at).unwrap()));
        assert_eq!(
            key.encode().expose_secret(),
            "mck_00041061050r3gg28a1c60t3gf0g2491650n2rbhg68t3ce1t7gz"
        );
        assert_eq!(
            key.hash().to_string(),
            "Yw3NKWbEM2aRElRIu7JbT_QSpJxzLbLIq8G4WBvXEN0"
        );
    }

    #[test]
    fn a_header_is_read_with_any_case_of_the_scheme() {
        let key = CallerKey::from_entropy([7; 32]);
        let text = key.encode();
        for header in [
            format!("Bearer {}", text.expose_secret()),
            format!(" bearer\t {} ", text.expose_secret()),
        ] {
            assert_eq!(
                CallerKey::from_header(header.as_bytes()).unwrap().hash(),
                key.hash()
            );
        }
        for header in [
            text.expose_secret().to_owned(),
            format!("Basic {}", text.expose_secret()),
            "Bearer x".into(),
            "Bearer".into(),
        ] {
            assert!(CallerKey::from_header(header.as_bytes()).is_none());
        }
    }

    #[test]
    fn other_texts_are_named_but_not_echoed() {
        let wrong = ApiKey::from_entropy([1; 32]).encode();
        let error = CallerKey::parse(wrong.expose_secret()).unwrap_err();
        assert!(matches!(
            error,
            BearerError::WrongKind(WrongCredential {
                found: CredentialKind::ApiKey,
                ..
            })
        ));
        assert!(!format!("{error} {error:?}").contains("40g2081040g"));
        assert_eq!(
            CallerKey::parse("hello").unwrap_err(),
            BearerError::Unrecognised(CredentialKind::CallerKey)
        );
        for damaged in [
            "mck_",
            "mck_1234",
            &format!("mck_{}", "u".repeat(52)),
            &format!("mck_{}", "z".repeat(52)),
        ] {
            assert_eq!(
                CallerKey::parse(damaged).unwrap_err(),
                BearerError::Damaged(CredentialKind::CallerKey)
            );
        }
    }

    proptest! {
        #[test]
        fn round_trip(bits: [u8; 32]) {
            let key = EnvironmentKey::from_entropy(bits);
            let again = EnvironmentKey::parse(key.encode().expose_secret()).unwrap();
            prop_assert_eq!(again.hash(), key.hash());
            prop_assert_eq!(EnvironmentKeyHash::try_from(key.hash().to_string()), Ok(key.hash()));
            let gateway = GatewayKey::from_bytes(bits);
            prop_assert_eq!(GatewayKey::parse(gateway.encode().expose_secret()).unwrap().public_key(), gateway.public_key());
        }

        #[test]
        fn any_text_is_judged_without_panic(text in ".{0,70}") {
            let _ = CallerKey::parse(&text);
            let _ = CallerKey::parse(&format!("mck_{text}"));
            let _ = CallerKey::from_header(text.as_bytes());
        }
    }
}
