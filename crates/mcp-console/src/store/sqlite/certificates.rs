//! CA certificates.

use async_trait::async_trait;
use mcp_tunnel_auth::{CertificateId, TunnelId, WorkspaceId};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::row::{optional_time, required, time};
use super::{SqliteStore, Transaction, count, failed, live_tunnel, run, tunnels, write_audit};
use crate::store::{
    CertificateRecord, CertificateStore, Change, Listed, Listing, NewCertificate, Refusal,
    StoreError,
};

#[async_trait]
impl CertificateStore for SqliteStore {
    async fn add_certificate(
        &self,
        change: &Change,
        tunnel: TunnelId,
        new: NewCertificate,
        most: u32,
    ) -> Result<CertificateRecord, StoreError> {
        let mut transaction = self.begin().await?;
        live_tunnel(&mut transaction, change, tunnel).await?;
        let active = sqlx::query(
            "SELECT COUNT(*) FROM certificates WHERE tunnel = ? AND archived_at IS NULL",
        )
        .bind(tunnel.to_string());
        if count(&mut transaction, active).await? >= most {
            return Err(Refusal::TooManyCertificates { most }.into());
        }
        let insert = sqlx::query(
            "INSERT INTO certificates (id, tunnel, pem, fingerprint, created_at, expires_at)
             VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(new.id.to_string())
        .bind(tunnel.to_string())
        .bind(new.pem)
        .bind(new.fingerprint)
        .bind(change.at.as_millisecond())
        .bind(new.expires_at.map(jiff::Timestamp::as_millisecond));
        run(&mut transaction, insert).await?;
        write_audit(
            &mut transaction,
            change,
            "tunnel_certificate.create",
            new.id,
        )
        .await?;
        let record = find(&mut transaction, &change.workspace, tunnel, new.id).await?;
        self.commit(transaction).await?;
        Ok(record)
    }

    async fn certificate(
        &self,
        workspace: &WorkspaceId,
        tunnel: TunnelId,
        certificate: CertificateId,
    ) -> Result<CertificateRecord, StoreError> {
        find(&mut self.read().await?, workspace, tunnel, certificate).await
    }

    async fn certificates(
        &self,
        workspace: &WorkspaceId,
        tunnel: TunnelId,
        listing: &Listing,
    ) -> Result<Listed<CertificateRecord>, StoreError> {
        let mut transaction = self.read().await?;
        tunnels::find(&mut transaction, workspace, tunnel).await?;
        let rows = sqlx::query(
            "SELECT * FROM certificates WHERE tunnel = ?1
                 AND (?2 IS NULL OR id < ?2) AND (?3 OR archived_at IS NULL)
             ORDER BY id DESC LIMIT ?4",
        )
        .bind(tunnel.to_string())
        .bind(listing.before.clone())
        .bind(listing.include_archived)
        .bind(listing.limit.saturating_add(1))
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
        let rows = rows.iter().map(certificate_of).collect::<Result<_, _>>()?;
        Ok(Listed::cut(rows, listing.limit))
    }

    async fn archive_certificate(
        &self,
        change: &Change,
        tunnel: TunnelId,
        certificate: CertificateId,
    ) -> Result<CertificateRecord, StoreError> {
        let mut transaction = self.begin().await?;
        let record = find(&mut transaction, &change.workspace, tunnel, certificate).await?;
        if record.archived_at.is_some() {
            return Ok(record);
        }
        let update = sqlx::query("UPDATE certificates SET archived_at = ? WHERE id = ?")
            .bind(change.at.as_millisecond())
            .bind(certificate.to_string());
        run(&mut transaction, update).await?;
        write_audit(
            &mut transaction,
            change,
            "tunnel_certificate.archive",
            certificate,
        )
        .await?;
        let record = find(&mut transaction, &change.workspace, tunnel, certificate).await?;
        self.commit(transaction).await?;
        Ok(record)
    }
}

async fn find(
    transaction: &mut Transaction,
    workspace: &WorkspaceId,
    tunnel: TunnelId,
    certificate: CertificateId,
) -> Result<CertificateRecord, StoreError> {
    tunnels::find(transaction, workspace, tunnel).await?;
    let row = sqlx::query("SELECT * FROM certificates WHERE id = ? AND tunnel = ?")
        .bind(certificate.to_string())
        .bind(tunnel.to_string())
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed)?;
    certificate_of(&row.ok_or(StoreError::NotFound)?)
}

fn certificate_of(row: &SqliteRow) -> Result<CertificateRecord, StoreError> {
    Ok(CertificateRecord {
        id: required(row, "id")?,
        tunnel: required(row, "tunnel")?,
        pem: row.try_get("pem").map_err(failed)?,
        fingerprint: row.try_get("fingerprint").map_err(failed)?,
        created_at: time(row, "created_at")?,
        expires_at: optional_time(row, "expires_at")?,
        archived_at: optional_time(row, "archived_at")?,
    })
}
