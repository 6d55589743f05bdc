//! Tunnels, tokens and the audit.

use async_trait::async_trait;
use jiff::Timestamp;
use mcp_tunnel_auth::{Approval, CallerAuth, MasterKeyId, TunnelId, WorkspaceId};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use tokio::sync::watch;

use super::row::{optional_time, parsed, required, time};
use super::{SqliteStore, Transaction, count, failed, live_tunnel, run, write_audit};
use crate::store::{
    AccessRows, AuditRecord, Change, Listed, Listing, NewToken, NewTunnel, Refusal, SettingsChange,
    StoreError, TokenRecord, TunnelRecord, TunnelStore,
};

#[async_trait]
impl TunnelStore for SqliteStore {
    async fn create_tunnel(
        &self,
        change: &Change,
        new: NewTunnel,
        most: u32,
    ) -> Result<TunnelRecord, StoreError> {
        let mut transaction = self.begin().await?;
        let live =
            sqlx::query("SELECT COUNT(*) FROM tunnels WHERE workspace = ? AND archived_at IS NULL")
                .bind(change.workspace.to_string());
        if count(&mut transaction, live).await? >= most {
            return Err(Refusal::TooManyTunnels { most }.into());
        }
        let taken =
            sqlx::query("SELECT COUNT(*) FROM tunnels WHERE label = ?").bind(new.label.to_string());
        if count(&mut transaction, taken).await? > 0 {
            return Err(Refusal::LabelTaken.into());
        }
        let insert = sqlx::query(
            "INSERT INTO tunnels
                 (id, workspace, label, display_name, approval, caller_auth, created_at)
             VALUES (?, ?, ?, ?, ?, 'key', ?)",
        )
        .bind(new.id.to_string())
        .bind(change.workspace.to_string())
        .bind(new.label.to_string())
        .bind(new.display_name)
        .bind(approval_text(new.approval))
        .bind(change.at.as_millisecond());
        run(&mut transaction, insert).await?;
        insert_token(&mut transaction, change, new.id, &new.token).await?;
        write_audit(&mut transaction, change, "tunnel.create", new.id).await?;
        let record = find(&mut transaction, &change.workspace, new.id).await?;
        self.commit(transaction).await?;
        Ok(record)
    }

    async fn tunnel(
        &self,
        workspace: &WorkspaceId,
        tunnel: TunnelId,
    ) -> Result<TunnelRecord, StoreError> {
        find(&mut self.read().await?, workspace, tunnel).await
    }

    async fn tunnels(
        &self,
        workspace: &WorkspaceId,
        listing: &Listing,
    ) -> Result<Listed<TunnelRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM tunnels WHERE workspace = ?1
                 AND (?2 IS NULL OR id < ?2) AND (?3 OR archived_at IS NULL)
             ORDER BY id DESC LIMIT ?4",
        )
        .bind(workspace.to_string())
        .bind(listing.before.clone())
        .bind(listing.include_archived)
        .bind(listing.limit.saturating_add(1))
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        let rows = rows.iter().map(tunnel_of).collect::<Result<_, _>>()?;
        Ok(Listed::cut(rows, listing.limit))
    }

    async fn archive_tunnel(
        &self,
        change: &Change,
        tunnel: TunnelId,
    ) -> Result<TunnelRecord, StoreError> {
        let mut transaction = self.begin().await?;
        let record = find(&mut transaction, &change.workspace, tunnel).await?;
        if record.archived_at.is_some() {
            return Ok(record);
        }
        for query in [
            sqlx::query("UPDATE tunnels SET archived_at = ? WHERE id = ?"),
            sqlx::query(
                "UPDATE certificates SET archived_at = ? WHERE tunnel = ? AND archived_at IS NULL",
            ),
            sqlx::query("UPDATE tokens SET retired_at = ? WHERE tunnel = ? AND retired_at IS NULL"),
        ] {
            let query = query
                .bind(change.at.as_millisecond())
                .bind(tunnel.to_string());
            run(&mut transaction, query).await?;
        }
        write_audit(&mut transaction, change, "tunnel.archive", tunnel).await?;
        let record = find(&mut transaction, &change.workspace, tunnel).await?;
        self.commit(transaction).await?;
        Ok(record)
    }

    async fn update_settings(
        &self,
        change: &Change,
        tunnel: TunnelId,
        settings: SettingsChange,
    ) -> Result<TunnelRecord, StoreError> {
        let mut transaction = self.begin().await?;
        let record = live_tunnel(&mut transaction, change, tunnel).await?;
        let approval = settings.approval.unwrap_or(record.approval);
        let caller_auth = settings.caller_auth.unwrap_or(record.caller_auth);
        if (approval, caller_auth) == (record.approval, record.caller_auth) {
            return Ok(record);
        }
        let update = sqlx::query("UPDATE tunnels SET approval = ?, caller_auth = ? WHERE id = ?")
            .bind(approval_text(approval))
            .bind(caller_auth_text(caller_auth))
            .bind(tunnel.to_string());
        run(&mut transaction, update).await?;
        let action = settings_action(approval, caller_auth);
        write_audit(&mut transaction, change, action, tunnel).await?;
        let record = find(&mut transaction, &change.workspace, tunnel).await?;
        self.commit(transaction).await?;
        Ok(record)
    }

    async fn reveal_token(
        &self,
        change: &Change,
        tunnel: TunnelId,
    ) -> Result<(TunnelRecord, TokenRecord), StoreError> {
        let mut transaction = self.begin().await?;
        let record = live_tunnel(&mut transaction, change, tunnel).await?;
        let token = current_token(&mut transaction, tunnel).await?;
        write_audit(
            &mut transaction,
            change,
            "tunnel_token.reveal",
            token.token.id,
        )
        .await?;
        self.commit(transaction).await?;
        Ok((record, token))
    }

    async fn rotate_token(
        &self,
        change: &Change,
        tunnel: TunnelId,
        new: NewToken,
    ) -> Result<(TunnelRecord, TokenRecord), StoreError> {
        let mut transaction = self.begin().await?;
        let record = live_tunnel(&mut transaction, change, tunnel).await?;
        let retire =
            sqlx::query("UPDATE tokens SET retired_at = ? WHERE tunnel = ? AND retired_at IS NULL")
                .bind(change.at.as_millisecond())
                .bind(tunnel.to_string());
        run(&mut transaction, retire).await?;
        insert_token(&mut transaction, change, tunnel, &new).await?;
        write_audit(&mut transaction, change, "tunnel_token.rotate", new.id).await?;
        let token = current_token(&mut transaction, tunnel).await?;
        self.commit(transaction).await?;
        Ok((record, token))
    }

    async fn master_keys_in_use(&self) -> Result<Vec<MasterKeyId>, StoreError> {
        let rows = sqlx::query(
            "SELECT DISTINCT master_key FROM tokens WHERE retired_at IS NULL ORDER BY 1",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        rows.iter().map(|row| required(row, "master_key")).collect()
    }

    async fn audit(
        &self,
        workspace: &WorkspaceId,
        listing: &Listing,
    ) -> Result<Listed<AuditRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM audit WHERE workspace = ?1 AND (?2 IS NULL OR id < ?2)
             ORDER BY id DESC LIMIT ?3",
        )
        .bind(workspace.to_string())
        .bind(listing.before.clone())
        .bind(listing.limit.saturating_add(1))
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        let rows = rows.iter().map(audit_of).collect::<Result<_, _>>()?;
        Ok(Listed::cut(rows, listing.limit))
    }

    async fn note_snapshot(&self, number: u64) -> Result<(), StoreError> {
        super::access::note_snapshot(self, number).await
    }

    async fn forget_audit(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut transaction = self.begin().await?;
        let delete = sqlx::query("DELETE FROM audit WHERE at < ?").bind(before.as_millisecond());
        let forgotten = run(&mut transaction, delete).await?.rows_affected();
        // Nobody waits for news of it.
        transaction.commit().await.map_err(failed)?;
        Ok(forgotten)
    }

    async fn access(&self) -> Result<AccessRows, StoreError> {
        super::access::rows(self).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// The tunnel, if it is of this workspace.
pub(super) async fn find(
    transaction: &mut Transaction,
    workspace: &WorkspaceId,
    tunnel: TunnelId,
) -> Result<TunnelRecord, StoreError> {
    let row = sqlx::query("SELECT * FROM tunnels WHERE id = ? AND workspace = ?")
        .bind(tunnel.to_string())
        .bind(workspace.to_string())
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed)?;
    tunnel_of(&row.ok_or(StoreError::NotFound)?)
}

pub(super) fn tunnel_of(row: &SqliteRow) -> Result<TunnelRecord, StoreError> {
    let text = |column| row.try_get::<String, _>(column).map_err(failed);
    Ok(TunnelRecord {
        id: required(row, "id")?,
        workspace: required(row, "workspace")?,
        label: required(row, "label")?,
        display_name: row.try_get("display_name").map_err(failed)?,
        approval: match text("approval")?.as_str() {
            "auto" => Approval::Auto,
            _ => Approval::Manual,
        },
        caller_auth: match text("caller_auth")?.as_str() {
            "upstream" => CallerAuth::Upstream,
            _ => CallerAuth::Key,
        },
        created_at: time(row, "created_at")?,
        archived_at: optional_time(row, "archived_at")?,
    })
}

pub(super) fn token_of(row: &SqliteRow) -> Result<TokenRecord, StoreError> {
    Ok(TokenRecord {
        token: NewToken {
            id: required(row, "id")?,
            master_key: required(row, "master_key")?,
            public_key: required(row, "public_key")?,
        },
        tunnel: required(row, "tunnel")?,
        created_at: time(row, "created_at")?,
        retired_at: optional_time(row, "retired_at")?,
    })
}

fn audit_of(row: &SqliteRow) -> Result<AuditRecord, StoreError> {
    let text = |column| row.try_get::<String, _>(column).map_err(failed);
    let mut change = Change::new(
        text("id")?,
        required(row, "workspace")?,
        text("actor")?,
        time(row, "at")?,
    );
    change.address = parsed(row, "address")?;
    change.reason = row.try_get("reason").map_err(failed)?;
    Ok(AuditRecord::new(change, text("action")?, text("object")?))
}

async fn current_token(
    transaction: &mut Transaction,
    tunnel: TunnelId,
) -> Result<TokenRecord, StoreError> {
    let row = sqlx::query("SELECT * FROM tokens WHERE tunnel = ? AND retired_at IS NULL")
        .bind(tunnel.to_string())
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed)?;
    token_of(&row.ok_or(StoreError::NotFound)?)
}

async fn insert_token(
    transaction: &mut Transaction,
    change: &Change,
    tunnel: TunnelId,
    token: &NewToken,
) -> Result<(), StoreError> {
    let insert = sqlx::query(
        "INSERT INTO tokens (id, tunnel, master_key, public_key, created_at)
         VALUES (?, ?, ?, ?, ?)",
    )
    .bind(token.id.to_string())
    .bind(tunnel.to_string())
    .bind(token.master_key.to_string())
    .bind(token.public_key.to_string())
    .bind(change.at.as_millisecond());
    run(transaction, insert).await?;
    Ok(())
}

/// A setting that this version does not know is written as the safer one.
fn approval_text(approval: Approval) -> &'static str {
    match approval {
        Approval::Auto => "auto",
        _ => "manual",
    }
}

fn caller_auth_text(caller_auth: CallerAuth) -> &'static str {
    match caller_auth {
        CallerAuth::Upstream => "upstream",
        _ => "key",
    }
}

/// The audit says what holds after the change.
fn settings_action(approval: Approval, caller_auth: CallerAuth) -> &'static str {
    match (approval, caller_auth) {
        (Approval::Auto, CallerAuth::Upstream) => {
            "tunnel.settings approval=auto caller_auth=upstream"
        }
        (Approval::Auto, _) => "tunnel.settings approval=auto caller_auth=key",
        (_, CallerAuth::Upstream) => "tunnel.settings approval=manual caller_auth=upstream",
        _ => "tunnel.settings approval=manual caller_auth=key",
    }
}
