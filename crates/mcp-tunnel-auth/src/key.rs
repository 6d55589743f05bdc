//! Ed25519 keys: of a token, and of a gateway.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use secrecy::{ExposeSecret, SecretBox};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The secret half of a tunnel token.
pub struct TokenSeed(SecretBox<[u8; 32]>);

/// The secret key by which one gateway installation is known, kept in its state folder.
pub struct GatewayKey(SecretBox<[u8; 32]>);

/// Why a text is no public key or fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A public key is 43 characters of base64url that name a point on the curve.
    #[error("not a public key")]
    PublicKey,
    /// A fingerprint is `SHA256:` and 43 characters of base64.
    #[error("a fingerprint is SHA256: and 43 characters, as the gateway prints it")]
    Fingerprint,
}

macro_rules! secret_half {
    ($name:ident, $public:ident) => {
        impl $name {
            /// Takes 32 secret bytes.
            #[must_use]
            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(SecretBox::new(Box::new(bytes)))
            }

            /// The public half.
            #[must_use]
            pub fn public_key(&self) -> $public {
                $public(
                    SigningKey::from_bytes(self.0.expose_secret())
                        .verifying_key()
                        .to_bytes(),
                )
            }

            pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
                SigningKey::from_bytes(self.0.expose_secret())
                    .sign(message)
                    .to_bytes()
            }

            pub(crate) fn secret(&self) -> &[u8; 32] {
                self.0.expose_secret()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

secret_half!(TokenSeed, TokenPublicKey);
secret_half!(GatewayKey, GatewayPublicKey);

macro_rules! public_half {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// 32 bytes; as text 43 characters of base64url.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; 32]);

        impl $name {
            /// Takes the bytes of a public key.
            ///
            /// # Errors
            /// [`KeyError::PublicKey`] when they name no point of the curve, or one of the few weak ones.
            pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, KeyError> {
                match VerifyingKey::from_bytes(&bytes) {
                    Ok(key) if !key.is_weak() => Ok(Self(bytes)),
                    _ => Err(KeyError::PublicKey),
                }
            }

            /// Reads the text form.
            ///
            /// # Errors
            /// [`KeyError::PublicKey`].
            pub fn parse(text: &str) -> Result<Self, KeyError> {
                let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
                Self::from_bytes(bytes.ok_or(KeyError::PublicKey)?)
            }

            /// The 32 bytes.
            #[must_use]
            pub const fn to_bytes(self) -> [u8; 32] {
                self.0
            }

            pub(crate) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
                VerifyingKey::from_bytes(&self.0)
                    .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl From<$name> for String {
            fn from(key: $name) -> Self {
                key.to_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = KeyError;

            fn try_from(text: String) -> Result<Self, KeyError> {
                Self::parse(&text)
            }
        }
    };
}

public_half! {
    /// The public half of a token's secret.
    TokenPublicKey
}

public_half! {
    /// The public key of a gateway installation.
    GatewayPublicKey
}

impl GatewayPublicKey {
    /// What people compare: the SHA-256 of the 32 bytes.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(Sha256::digest(self.0).into())
    }
}

/// The fingerprint of a gateway key, everywhere written as ssh writes its own: `SHA256:` and 43 characters of base64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Reads the text form.
    ///
    /// # Errors
    /// [`KeyError::Fingerprint`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        text.strip_prefix("SHA256:")
            .and_then(|digest| STANDARD_NO_PAD.decode(digest).ok())
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or(KeyError::Fingerprint)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SHA256:{}", STANDARD_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        Self::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_text_forms_round_trip() {
        let public = GatewayKey::from_bytes([5; 32]).public_key();
        assert_eq!(GatewayPublicKey::parse(&public.to_string()), Ok(public));
        let fingerprint = public.fingerprint();
        assert_eq!(
            Fingerprint::parse(&fingerprint.to_string()),
            Ok(fingerprint)
        );
        assert_eq!(fingerprint.to_string().len(), 50);
    }

    #[test]
    fn weak_and_impossible_keys_are_refused() {
        let mut identity = [0; 32];
        identity[0] = 1;
        assert_eq!(
            TokenPublicKey::from_bytes(identity),
            Err(KeyError::PublicKey)
        );
        assert_eq!(
            TokenPublicKey::from_bytes([0; 32]),
            Err(KeyError::PublicKey)
        );
        assert_eq!(TokenPublicKey::parse("AAAA"), Err(KeyError::PublicKey));
        assert_eq!(
            Fingerprint::parse("SHA256:short"),
            Err(KeyError::Fingerprint)
        );
    }

    #[test]
    fn secrets_do_not_show() {
        assert_eq!(
            format!("{:?}", GatewayKey::from_bytes([5; 32])),
            "GatewayKey(..)"
        );
        assert_eq!(
            format!("{:?}", TokenSeed::from_bytes([5; 32])),
            "TokenSeed(..)"
        );
    }
}
