//! What a worker holds for one claim of one work item.

use std::fmt;

use secrecy::{ExposeSecret, SecretBox, SecretString};
use subtle::ConstantTimeEq as _;

use crate::base32;
use crate::id::WorkId;
use crate::kind::{CredentialKind, WrongCredential};
use crate::master::MasterKey;

/// What a worker holds for one claim of one work item: `mci_` and 91 digits.
///
/// ```text
/// mci_ ┬ work item ┬ claim epoch ┬ MAC by the master key
///      │ 26 digits │ 13 digits   │ 52 digits
/// ```
///
/// Nothing of it is stored: [`MasterKey::item_token`] makes it again, [`MasterKey::made`] tells it from any other text.
/// Whether the claim still stands is a question to the item's row.
pub struct ItemToken {
    work: WorkId,
    epoch: u64,
    mac: SecretBox<[u8; 32]>,
}

/// Why a text is no item token. The value is never part of the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ItemTokenError {
    /// It is a credential of another kind.
    #[error(transparent)]
    WrongKind(#[from] WrongCredential),
    /// It does not start with `mci_` and 91 digits.
    #[error("an item token is mci_ and 91 digits; this one is incomplete or altered")]
    Damaged,
}

const PREFIX: &str = "mci_";
const EPOCH_DIGITS: usize = 13;

impl ItemToken {
    pub(crate) fn new(work: WorkId, epoch: u64, mac: [u8; 32]) -> Self {
        let mac = SecretBox::new(Box::new(mac));
        Self { work, epoch, mac }
    }

    /// Reads the text form. Only [`MasterKey::made`] says that it is genuine.
    ///
    /// # Errors
    /// [`ItemTokenError`].
    pub fn parse(text: &str) -> Result<Self, ItemTokenError> {
        CredentialKind::ItemToken.expect(text)?;
        let read = || {
            let digits = text.strip_prefix(PREFIX)?;
            let (work, rest) = digits.split_at_checked(base32::U128_DIGITS)?;
            let (epoch, mac) = rest.split_at_checked(EPOCH_DIGITS)?;
            let (high, low) = mac.split_at_checked(base32::U128_DIGITS)?;
            let number = |digits| base32::parse(digits, base32::U128_DIGITS);
            let epoch = u64::try_from(base32::parse(epoch, EPOCH_DIGITS)?).ok()?;
            let mut bytes = [0; 32];
            for (half, number) in bytes
                .as_chunks_mut::<16>()
                .0
                .iter_mut()
                .zip([number(high)?, number(low)?])
            {
                *half = number.to_be_bytes();
            }
            Some(Self::new(
                WorkId::from_bytes(number(work)?.to_be_bytes()),
                epoch,
                bytes,
            ))
        };
        read().ok_or(ItemTokenError::Damaged)
    }

    /// The text form.
    #[must_use]
    pub fn encode(&self) -> SecretString {
        let digits = 3 * base32::U128_DIGITS + EPOCH_DIGITS;
        let mut text = String::with_capacity(PREFIX.len() + digits);
        text.push_str(PREFIX);
        base32::push(
            &mut text,
            u128::from_be_bytes(self.work.to_bytes()),
            base32::U128_DIGITS,
        );
        base32::push(&mut text, u128::from(self.epoch), EPOCH_DIGITS);
        for half in self.mac.expose_secret().as_chunks::<16>().0 {
            base32::push(&mut text, u128::from_be_bytes(*half), base32::U128_DIGITS);
        }
        text.into()
    }

    /// The item that it was given for.
    #[must_use]
    pub const fn work(&self) -> WorkId {
        self.work
    }

    /// The claim that it was given for.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl MasterKey {
    /// The token of one claim of one item.
    #[must_use]
    pub fn item_token(&self, work: WorkId, epoch: u64) -> ItemToken {
        let context = [ITEM_LABEL, &work.to_bytes(), &epoch.to_be_bytes()];
        ItemToken::new(work, epoch, self.derive(&context))
    }

    /// Whether this key made the token; takes the same time for every answer.
    #[must_use]
    pub fn made(&self, token: &ItemToken) -> bool {
        let own = self.item_token(token.work, token.epoch);
        own.mac
            .expose_secret()
            .ct_eq(token.mac.expose_secret())
            .into()
    }
}

const ITEM_LABEL: &[u8] = b"mcp-tunnel item token v1";

impl fmt::Debug for ItemToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ItemToken")
            .field("work", &self.work)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_its_master_item_and_epoch_make_a_token() {
        let master = MasterKey::from_bytes([7; 32]);
        let work = WorkId::new(1, &[1; 10]);
        let token = master.item_token(work, 3);
        assert!(master.made(&token));
        assert!(!MasterKey::from_bytes([8; 32]).made(&token));
        let text = token.encode().expose_secret().to_owned();
        let other = master
            .item_token(work, 4)
            .encode()
            .expose_secret()
            .to_owned();
        assert_ne!(text, other);
        // The MAC of one epoch under the number of another.
        let forged = format!(
            "{}{}",
            other.split_at(PREFIX.len() + 39).0,
            text.split_at(PREFIX.len() + 39).1
        );
        let forged = ItemToken::parse(&forged).unwrap();
        assert_eq!(forged.epoch(), 4);
        assert!(!master.made(&forged));
        assert!(!format!("{token:?}").contains(text.split_at(60).1));
    }

    #[test]
    fn other_texts_are_no_item_tokens() {
        let key = crate::ApiKey::from_entropy([1; 32]).encode();
        assert!(matches!(
            ItemToken::parse(key.expose_secret()),
            Err(ItemTokenError::WrongKind(_))
        ));
        for damaged in [
            "mci_",
            "mci_00",
            "hello",
            &format!("mci_{}", "z".repeat(91)),
            &format!("mci_{}", "0".repeat(92)),
        ] {
            assert_eq!(
                ItemToken::parse(damaged).map(|_| ()),
                Err(ItemTokenError::Damaged)
            );
        }
    }

    proptest! {
        #[test]
        fn round_trip(work: [u8; 16], epoch: u64) {
            let master = MasterKey::from_bytes([1; 32]);
            let token = master.item_token(WorkId::from_bytes(work), epoch);
            let again = ItemToken::parse(token.encode().expose_secret()).unwrap();
            prop_assert_eq!((again.work(), again.epoch()), (token.work(), epoch));
            prop_assert!(master.made(&again));
        }

        #[test]
        fn any_text_is_judged_without_panic(text in ".{0,100}") {
            let _ = ItemToken::parse(&text);
            let _ = ItemToken::parse(&format!("mci_{text}"));
        }
    }
}
