//! Whether a credential is good for an effect, in the effect's own transaction.

use jiff::Timestamp;
use mcp_tunnel_auth::{EnvironmentId, EnvironmentKeyId, SessionId, WorkId};
use sqlx::Row as _;

use super::row::required;
use super::{Transaction, failed, run, work};
use crate::store::{Acting, Authority, Denial, LAST_LOOK, StoreError, WorkRecord, WorkState};

/// What is judged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing changes.
    Read,
    /// Something changes: the holder of an item token shuts out those with the key alone.
    Write,
}

/// Judges an effect on an environment as a whole.
pub(super) async fn of_environment(
    transaction: &mut Transaction,
    acting: &Acting,
    environment: EnvironmentId,
) -> Result<(), StoreError> {
    let found = sqlx::query("SELECT 1 FROM environments WHERE id = ? AND workspace = ?")
        .bind(environment.to_string())
        .bind(acting.workspace.to_string())
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed)?;
    found.ok_or(StoreError::NotFound)?;
    match &acting.authority {
        Authority::Operator { .. } => Ok(()),
        Authority::EnvironmentKey {
            key,
            environment: own,
        } => {
            own_environment(*own, environment)?;
            live_key(transaction, *key).await
        }
        Authority::Item { .. } => Err(StoreError::NotFound),
    }
}

/// Judges an effect on an item.
pub(super) async fn of_item(
    transaction: &mut Transaction,
    acting: &Acting,
    item: &WorkRecord,
    effect: Effect,
) -> Result<(), StoreError> {
    match &acting.authority {
        Authority::Operator { .. } => Ok(()),
        Authority::EnvironmentKey { key, environment } => {
            own_environment(*environment, item.environment)?;
            live_key(transaction, *key).await?;
            if effect == Effect::Write && item.token_used && is_held(item.state) {
                return Err(Denial::HeldByToken.into());
            }
            Ok(())
        }
        Authority::Item { work, epoch } => {
            if *work != item.id {
                return Err(StoreError::NotFound);
            }
            live_claim(transaction, item, *epoch).await?;
            if effect == Effect::Write && !item.token_used {
                mark_used(transaction, item.id).await?;
            }
            Ok(())
        }
    }
}

/// Judges an effect on a session, which must be there.
pub(super) async fn of_session(
    transaction: &mut Transaction,
    acting: &Acting,
    session: SessionId,
    effect: Effect,
) -> Result<(), StoreError> {
    let row = sqlx::query(
        "SELECT environment FROM sessions WHERE id = ? AND workspace = ? AND deleted_at IS NULL",
    )
    .bind(session.to_string())
    .bind(acting.workspace.to_string())
    .fetch_optional(&mut **transaction)
    .await
    .map_err(failed)?;
    let environment: EnvironmentId = required(&row.ok_or(StoreError::NotFound)?, "environment")?;
    match &acting.authority {
        Authority::Operator { .. } => Ok(()),
        Authority::EnvironmentKey {
            key,
            environment: own,
        } => {
            own_environment(*own, environment)?;
            live_key(transaction, *key).await?;
            match work::live_of(transaction, session).await? {
                Some(item) if effect == Effect::Write && item.token_used && is_held(item.state) => {
                    Err(Denial::HeldByToken.into())
                }
                _ => Ok(()),
            }
        }
        Authority::Item { work, epoch } => {
            let item = work::by_id(transaction, *work).await?;
            let item = item.filter(|item| item.session == session);
            let item = item.ok_or(StoreError::NotFound)?;
            live_claim(transaction, &item, *epoch).await?;
            if effect == Effect::Read && may_look(&item, acting.now) {
                return Ok(());
            }
            if !is_held(item.state) {
                return Err(Denial::ClaimOver.into());
            }
            if effect == Effect::Write && !item.token_used {
                mark_used(transaction, item.id).await?;
            }
            Ok(())
        }
    }
}

/// Whether the key is not revoked.
pub(super) async fn live_key(
    transaction: &mut Transaction,
    key: EnvironmentKeyId,
) -> Result<(), StoreError> {
    let row = sqlx::query("SELECT revoked_at FROM environment_keys WHERE id = ?")
        .bind(key.to_string())
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed)?;
    let revoked: Option<i64> = match row {
        Some(row) => row.try_get("revoked_at").map_err(failed)?,
        None => return Err(Denial::KeyRevoked.into()),
    };
    match revoked {
        None => Ok(()),
        Some(_) => Err(Denial::KeyRevoked.into()),
    }
}

/// Whether the claim is the newest one, and the key that it was made with is good.
async fn live_claim(
    transaction: &mut Transaction,
    item: &WorkRecord,
    epoch: u64,
) -> Result<(), StoreError> {
    if item.epoch != epoch {
        return Err(Denial::ClaimOver.into());
    }
    match item.claim_key {
        Some(key) => live_key(transaction, key).await,
        None => Err(Denial::ClaimOver.into()),
    }
}

/// Whoever held the item when its session ended may read that it did.
fn may_look(item: &WorkRecord, now: Timestamp) -> bool {
    let since = item.stopped_at.filter(|_| item.ended_with_session);
    since.is_some_and(|since| now.duration_since(since) < LAST_LOOK)
}

async fn mark_used(transaction: &mut Transaction, work: WorkId) -> Result<(), StoreError> {
    let update = sqlx::query("UPDATE works SET token_used = 1 WHERE id = ?").bind(work.to_string());
    run(transaction, update).await.map(drop)
}

/// What is foreign is answered as what is not there.
fn own_environment(own: EnvironmentId, other: EnvironmentId) -> Result<(), StoreError> {
    if own == other {
        return Ok(());
    }
    Err(StoreError::NotFound)
}

/// Whether some worker has taken the item over and not given it up.
pub(super) const fn is_held(state: WorkState) -> bool {
    matches!(
        state,
        WorkState::Starting | WorkState::Active | WorkState::Stopping
    )
}
