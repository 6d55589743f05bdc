//! The one place where this crate reads the clock and draws randomness.

use jiff::Timestamp;
use mcp_tunnel_auth::encode_id;

/// Now, in whole milliseconds: what rows and answers hold.
#[must_use]
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}

/// Milliseconds since 1970, as ids begin with them; 0 for what was before.
#[must_use]
pub fn unix_ms(at: Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or(0)
}

/// Random bytes.
///
/// # Panics
/// Where the operating system gives none.
#[must_use]
pub fn entropy<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}

/// A new id of a kind that has no type of its own: `prefix_…`.
#[must_use]
pub fn id(prefix: &str, at: Timestamp) -> String {
    encode_id(prefix, unix_ms(at), &entropy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_times_have_no_fraction_of_a_millisecond() {
        assert_ne!(id("req", now()), id("req", now()));
        assert_eq!(now().subsec_nanosecond() % 1_000_000, 0);
    }
}
