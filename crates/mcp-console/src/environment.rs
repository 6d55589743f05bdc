//! Time and randomness, which nothing else in this crate reads or draws.

use mcp_tunnel_auth::DomainLabel;

pub(crate) use managed_agents_service::{entropy, id, now, unix_ms};

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
    fn labels_differ() {
        assert_ne!(label(), label());
        assert_eq!(label().as_str().len(), 8);
    }
}
