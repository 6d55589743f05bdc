//! Crockford's base 32: digits and lower-case letters without i, l, o and u.
//!
//! Numbers are written most significant digit first and padded with zeros, so that texts of equal length sort as
//! their numbers do.

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Digits of a 128-bit number.
pub(crate) const U128_DIGITS: usize = 26;

/// Writes the low `digits * 5` bits of `value`.
pub(crate) fn push(out: &mut String, value: u128, digits: usize) {
    for place in (0..digits).rev() {
        let digit = shift_right(value, place) & 0x1f;
        out.push(char::from(
            usize::try_from(digit)
                .ok()
                .and_then(|at| ALPHABET.get(at))
                .copied()
                .unwrap_or(b'0'),
        ));
    }
}

/// Reads exactly `digits` digits of a number of at most 128 bits; `None` for any other character or length.
pub(crate) fn parse(text: &str, digits: usize) -> Option<u128> {
    if text.len() != digits {
        return None;
    }
    text.bytes().try_fold(0_u128, |value, byte| {
        let digit = ALPHABET.iter().position(|known| *known == byte)?;
        value
            .checked_mul(32)?
            .checked_add(u128::try_from(digit).ok()?)
    })
}

/// Whether the text consists of such digits only.
pub(crate) fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| ALPHABET.contains(&byte))
}

fn shift_right(value: u128, place: usize) -> u128 {
    u32::try_from(place)
        .ok()
        .and_then(|place| place.checked_mul(5))
        .and_then(|bits| value.checked_shr(bits))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rejects_what_does_not_fit_128_bits() {
        assert_eq!(
            parse("7zzzzzzzzzzzzzzzzzzzzzzzzz", U128_DIGITS),
            Some(u128::MAX)
        );
        assert_eq!(parse("80000000000000000000000000", U128_DIGITS), None);
    }

    proptest! {
        #[test]
        fn round_trip(value: u128) {
            let mut text = String::new();
            push(&mut text, value, U128_DIGITS);
            prop_assert_eq!(parse(&text, U128_DIGITS), Some(value));
            prop_assert!(is_digits(&text));
        }
    }
}
