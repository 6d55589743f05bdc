//! The master key, from which the secret of every tunnel token is derived.

use std::fmt;

use hkdf::Hkdf;
use secrecy::{ExposeSecret, SecretBox};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::id::TokenId;
use crate::key::{TokenPublicKey, TokenSeed};

/// 32 secret bytes of the console; the database never holds them.
///
/// A token's seed is HKDF-SHA256 of this key over the token's id, so that a console can show a token again without
/// storing it, and a stolen database together with the snapshot pushed to edges proves nothing.
pub struct MasterKey(SecretBox<[u8; 32]>);

/// Which master key made a token: 8 bytes derived from the key, as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MasterKeyId([u8; 8]);

/// Why a text is no master key, or no id of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MasterKeyError {
    /// A master key is 64 hexadecimal digits.
    #[error("a master key is 64 hexadecimal digits on one line")]
    Key,
    /// The id of a master key is 16 hexadecimal digits.
    #[error("the id of a master key is 16 hexadecimal digits")]
    Id,
}

const SEED_LABEL: &[u8] = b"mcp-tunnel token seed v1";
const ID_LABEL: &[u8] = b"mcp-tunnel master key id v1";

impl MasterKey {
    /// Takes 256 random bits of the caller.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(SecretBox::new(Box::new(bytes)))
    }

    /// Reads the content of a key file: 64 hexadecimal digits, surrounding whitespace ignored.
    ///
    /// # Errors
    /// [`MasterKeyError::Key`]; the content is not echoed.
    pub fn parse(text: &str) -> Result<Self, MasterKeyError> {
        hex(text.trim())
            .map(Self::from_bytes)
            .ok_or(MasterKeyError::Key)
    }

    /// Names this key without revealing it.
    #[must_use]
    pub fn id(&self) -> MasterKeyId {
        MasterKeyId(self.derive(&[ID_LABEL]))
    }

    /// Derives the secret of a token.
    #[must_use]
    pub fn token_seed(&self, token: &TokenId) -> TokenSeed {
        TokenSeed::from_bytes(self.derive(&[SEED_LABEL, &token.to_bytes()]))
    }

    /// Derives the public half of a token's secret: what rows and snapshots hold.
    #[must_use]
    pub fn token_public_key(&self, token: &TokenId) -> TokenPublicKey {
        self.token_seed(token).public_key()
    }

    pub(crate) fn derive<const N: usize>(&self, context: &[&[u8]]) -> [u8; N] {
        let mut derived = [0; N];
        Hkdf::<Sha256>::new(None, self.0.expose_secret())
            .expand_multi_info(context, &mut derived)
            .expect("HKDF-SHA256 gives up to 8160 bytes");
        derived
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.id())
    }
}

impl MasterKeyId {
    /// Reads 16 hexadecimal digits.
    ///
    /// # Errors
    /// [`MasterKeyError::Id`].
    pub fn parse(text: &str) -> Result<Self, MasterKeyError> {
        hex(text).map(Self).ok_or(MasterKeyError::Id)
    }
}

impl fmt::Display for MasterKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for MasterKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<MasterKeyId> for String {
    fn from(id: MasterKeyId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for MasterKeyId {
    type Error = MasterKeyError;

    fn try_from(text: String) -> Result<Self, MasterKeyError> {
        Self::parse(&text)
    }
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    if pairs.len() != N {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        let digit = |digit: u8| {
            char::from(digit)
                .to_digit(16)
                .and_then(|value| u8::try_from(value).ok())
        };
        *byte = (digit(*high)? << 4) | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    #[test]
    fn the_same_master_and_id_give_the_same_token_and_others_another() {
        let master = MasterKey::parse(&format!("  {TEXT}\n")).unwrap();
        let token = TokenId::new(1, &[1; 10]);
        let same = MasterKey::parse(TEXT).unwrap().token_public_key(&token);
        assert_eq!(master.token_public_key(&token), same);
        assert_ne!(master.token_public_key(&TokenId::new(1, &[2; 10])), same);
        assert_ne!(
            MasterKey::from_bytes([9; 32]).token_public_key(&token),
            same
        );
    }

    #[test]
    fn key_and_id_have_one_text_form_each() {
        let master = MasterKey::parse(TEXT).unwrap();
        let id = master.id();
        assert_eq!(
            id.to_string(),
            "619dc1f1d662a8b9",
            "computed by Python's hmac"
        );
        assert_eq!(MasterKeyId::parse(&id.to_string()), Ok(id));
        assert_eq!(format!("{master:?}"), format!("MasterKey({id})"));
        for bad in [
            "",
            "00",
            TEXT.split_at(1).1,
            &format!("{TEXT}00"),
            &TEXT.replace('f', "g"),
        ] {
            assert_eq!(MasterKey::parse(bad).map(|_| ()), Err(MasterKeyError::Key));
            assert_eq!(MasterKeyId::parse(bad), Err(MasterKeyError::Id));
        }
    }
}
