//! The short code by which an administrator tells which waiting gateway is meant.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base32;

/// 40 bits that an edge draws for a pending link, written `XXXX-XXXX`.
///
/// Drawn, not derived from the gateway's key: a derived code could be ground until it equals that of another gateway.
/// The alphabet has no I, L, O and U; reading takes either case, with or without the hyphen, and takes O for 0 and I or
/// L for 1.
///
/// ```
/// use mcp_tunnel_auth::ApprovalCode;
/// let code = ApprovalCode::from_entropy([0x12, 0x34, 0x56, 0x78, 0x9a]);
/// assert_eq!(code.to_string(), "28T5-CY4T");
/// assert_eq!(ApprovalCode::parse("28t5cy4t"), Ok(code));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ApprovalCode([u8; 5]);

/// The text is not eight letters and digits of an approval code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an approval code looks like 28T5-CY4T: eight letters and digits, as the gateway prints them"
)]
#[non_exhaustive]
pub struct ApprovalCodeError;

const DIGITS: usize = 8;

impl ApprovalCode {
    /// Takes 40 random bits of the caller.
    #[must_use]
    pub const fn from_entropy(bits: [u8; 5]) -> Self {
        Self(bits)
    }

    /// Reads what a person typed.
    ///
    /// # Errors
    /// [`ApprovalCodeError`] when it is not eight characters of the alphabet.
    pub fn parse(text: &str) -> Result<Self, ApprovalCodeError> {
        let digits: String = text
            .trim()
            .chars()
            .filter(|character| *character != '-')
            .take(DIGITS + 1)
            .map(|character| match character.to_ascii_lowercase() {
                'o' => '0',
                'i' | 'l' => '1',
                other => other,
            })
            .collect();
        let number = base32::parse(&digits, DIGITS).ok_or(ApprovalCodeError)?;
        let [.., a, b, c, d, e] = number.to_be_bytes();
        Ok(Self([a, b, c, d, e]))
    }
}

impl fmt::Display for ApprovalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self
            .0
            .iter()
            .fold(0_u128, |number, byte| (number << 8) | u128::from(*byte));
        let mut text = String::with_capacity(DIGITS + 1);
        base32::push(&mut text, number >> 20, DIGITS / 2);
        text.push('-');
        base32::push(&mut text, number, DIGITS / 2);
        text.make_ascii_uppercase();
        f.write_str(&text)
    }
}

impl fmt::Debug for ApprovalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<ApprovalCode> for String {
    fn from(code: ApprovalCode) -> Self {
        code.to_string()
    }
}

impl TryFrom<String> for ApprovalCode {
    type Error = ApprovalCodeError;

    fn try_from(text: String) -> Result<Self, ApprovalCodeError> {
        Self::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn letters_that_look_like_digits_are_read_as_digits() {
        let code = ApprovalCode::parse("1000-0111").unwrap();
        assert_eq!(ApprovalCode::parse(" iOo0-oLIl "), Ok(code));
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in [
            "",
            "-",
            "1234567",
            "123456789",
            "1234-567U",
            "1234 5678",
            "äöüß-äöüß",
        ] {
            assert_eq!(ApprovalCode::parse(bad), Err(ApprovalCodeError), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(bits: [u8; 5]) {
            let code = ApprovalCode::from_entropy(bits);
            let text = code.to_string();
            prop_assert_eq!(text.len(), 9);
            prop_assert!(!text.contains(['I', 'L', 'O', 'U']));
            prop_assert_eq!(ApprovalCode::parse(&text), Ok(code));
        }
    }
}
