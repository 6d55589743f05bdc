//! The one place where this crate reads the clock and draws randomness.

use jiff::Timestamp;
use mcp_tunnel_auth::{DomainLabel, encode_id};

/// Now, in whole milliseconds: what rows and answers hold.
pub(crate) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}

pub(crate) fn unix_ms(at: Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or(0)
}

pub(crate) fn entropy<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}

/// An id of a kind that has no type of its own.
pub(crate) fn id(prefix: &str, at: Timestamp) -> String {
    encode_id(prefix, unix_ms(at), &entropy())
}

/// 40 random bits: eight digits and lower-case letters, without hyphens.
pub(crate) fn label() -> DomainLabel {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let text: String = entropy::<8>()
        .iter()
        .map(|byte| char::from(DIGITS[usize::from(byte & 31)]))
        .collect();
    DomainLabel::parse(&text).expect("eight digits and letters are a label")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_differ_and_times_have_no_fraction_of_a_millisecond() {
        assert_ne!(label(), label());
        assert_eq!(label().as_str().len(), 8);
        assert_eq!(now().subsec_nanosecond() % 1_000_000, 0);
    }
}
