//! Gateways: decisions of people, and what edges report.

use std::net::SocketAddr;

use async_trait::async_trait;
use jiff::Timestamp;
use mcp_tunnel_auth::{
    Approval, ConnectionId, Fingerprint, LinkReport, LinkReportKind, TunnelId, WorkspaceId,
};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::row::{corrupt, join, number, optional, optional_time, parsed, required, time, words};
use super::{SqliteStore, Transaction, count, failed, live_tunnel, run, tunnels, write_audit};
use crate::store::{
    Change, Decision, GATEWAYS_MOST, GatewayRecord, GatewayStore, Listed, Listing, Observed,
    PENDING_MOST, Refusal, StoreError, TunnelRecord,
};

#[async_trait]
impl GatewayStore for SqliteStore {
    async fn gateways(
        &self,
        workspace: &WorkspaceId,
        tunnel: TunnelId,
        listing: &Listing,
    ) -> Result<Listed<GatewayRecord>, StoreError> {
        let mut transaction = self.read().await?;
        tunnels::find(&mut transaction, workspace, tunnel).await?;
        let rows = sqlx::query(
            "SELECT * FROM gateways WHERE tunnel = ?1 AND (?2 IS NULL OR id < ?2)
             ORDER BY id DESC LIMIT ?3",
        )
        .bind(tunnel.to_string())
        .bind(listing.before.clone())
        .bind(listing.limit.saturating_add(1))
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
        let rows = rows.iter().map(gateway_of).collect::<Result<_, _>>()?;
        Ok(Listed::cut(rows, listing.limit))
    }

    async fn gateway(
        &self,
        workspace: &WorkspaceId,
        tunnel: TunnelId,
        gateway: ConnectionId,
    ) -> Result<GatewayRecord, StoreError> {
        let mut transaction = self.read().await?;
        tunnels::find(&mut transaction, workspace, tunnel).await?;
        find(&mut transaction, tunnel, gateway).await
    }

    async fn approve_key(
        &self,
        change: &Change,
        tunnel: TunnelId,
        fingerprint: Fingerprint,
        fresh: ConnectionId,
    ) -> Result<GatewayRecord, StoreError> {
        let mut transaction = self.begin().await?;
        live_tunnel(&mut transaction, change, tunnel).await?;
        let id = match by_key(&mut transaction, tunnel, fingerprint).await? {
            Some(gateway) => gateway.id,
            None if make_room(&mut transaction, tunnel).await? => {
                insert(&mut transaction, tunnel, fingerprint, fresh, change.at).await?;
                fresh
            }
            None => {
                return Err(Refusal::TooManyGateways {
                    most: GATEWAYS_MOST,
                }
                .into());
            }
        };
        let record = decide(&mut transaction, change, tunnel, id, Decision::Approved).await?;
        self.commit(transaction).await?;
        Ok(record)
    }

    async fn approve(
        &self,
        change: &Change,
        tunnel: TunnelId,
        gateway: ConnectionId,
        expected: Option<Fingerprint>,
    ) -> Result<GatewayRecord, StoreError> {
        let mut transaction = self.begin().await?;
        live_tunnel(&mut transaction, change, tunnel).await?;
        let record = find(&mut transaction, tunnel, gateway).await?;
        if expected.is_some_and(|expected| expected != record.fingerprint) {
            return Err(Refusal::OtherKey.into());
        }
        let record = decide(
            &mut transaction,
            change,
            tunnel,
            gateway,
            Decision::Approved,
        )
        .await?;
        self.commit(transaction).await?;
        Ok(record)
    }

    async fn refuse(
        &self,
        change: &Change,
        tunnel: TunnelId,
        gateway: ConnectionId,
    ) -> Result<GatewayRecord, StoreError> {
        let mut transaction = self.begin().await?;
        live_tunnel(&mut transaction, change, tunnel).await?;
        find(&mut transaction, tunnel, gateway).await?;
        let record = decide(&mut transaction, change, tunnel, gateway, Decision::Refused).await?;
        self.commit(transaction).await?;
        Ok(record)
    }

    async fn disconnect(
        &self,
        change: &Change,
        tunnel: TunnelId,
        gateway: ConnectionId,
        links_from: u64,
    ) -> Result<GatewayRecord, StoreError> {
        let links_from = i64::try_from(links_from).map_err(|error| corrupt("links_from", error))?;
        let mut transaction = self.begin().await?;
        live_tunnel(&mut transaction, change, tunnel).await?;
        find(&mut transaction, tunnel, gateway).await?;
        let update = sqlx::query("UPDATE gateways SET links_from = ? WHERE id = ?")
            .bind(links_from)
            .bind(gateway.to_string());
        run(&mut transaction, update).await?;
        write_audit(&mut transaction, change, "connection.disconnect", gateway).await?;
        let record = find(&mut transaction, tunnel, gateway).await?;
        self.commit(transaction).await?;
        Ok(record)
    }

    async fn observe(
        &self,
        report: &LinkReport,
        fresh: ConnectionId,
    ) -> Result<Observed, StoreError> {
        let mut transaction = self.begin().await?;
        let Some(tunnel) = live(&mut transaction, report.identity.tunnel).await? else {
            return Ok(Observed::Ignored);
        };
        let fingerprint = report.identity.fingerprint();
        let at = reported_at(report);
        let gateway = match by_key(&mut transaction, tunnel.id, fingerprint).await? {
            Some(gateway) => gateway,
            None if has_place(&mut transaction, tunnel.id, report).await? => {
                insert(&mut transaction, tunnel.id, fingerprint, fresh, at).await?;
                find(&mut transaction, tunnel.id, fresh).await?
            }
            None => return Ok(Observed::Ignored),
        };
        let let_in_unseen = gateway.decision == Decision::Pending
            && report.kind == LinkReportKind::Up
            && tunnel.approval == Approval::Auto;
        if let_in_unseen {
            approve_automatically(&mut transaction, &tunnel, &gateway, fresh, at).await?;
        }
        write_sighting(&mut transaction, gateway.id, report, at).await?;
        self.commit(transaction).await?;
        Ok(Observed::Written)
    }

    async fn forget_pending(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut transaction = self.begin().await?;
        let delete = sqlx::query(
            "DELETE FROM gateways
             WHERE decision = 'pending' AND COALESCE(last_seen_at, created_at) < ?",
        )
        .bind(before.as_millisecond());
        let forgotten = run(&mut transaction, delete).await?.rows_affected();
        if forgotten > 0 {
            self.commit(transaction).await?;
        }
        Ok(forgotten)
    }
}

/// The tunnel of whatever workspace, unless it is archived.
async fn live(
    transaction: &mut Transaction,
    tunnel: TunnelId,
) -> Result<Option<TunnelRecord>, StoreError> {
    let row = sqlx::query("SELECT * FROM tunnels WHERE id = ? AND archived_at IS NULL")
        .bind(tunnel.to_string())
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed)?;
    row.as_ref().map(tunnels::tunnel_of).transpose()
}

async fn by_key(
    transaction: &mut Transaction,
    tunnel: TunnelId,
    fingerprint: Fingerprint,
) -> Result<Option<GatewayRecord>, StoreError> {
    let row = sqlx::query("SELECT * FROM gateways WHERE tunnel = ? AND fingerprint = ?")
        .bind(tunnel.to_string())
        .bind(fingerprint.to_string())
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed)?;
    row.as_ref().map(gateway_of).transpose()
}

async fn find(
    transaction: &mut Transaction,
    tunnel: TunnelId,
    gateway: ConnectionId,
) -> Result<GatewayRecord, StoreError> {
    let row = sqlx::query("SELECT * FROM gateways WHERE id = ? AND tunnel = ?")
        .bind(gateway.to_string())
        .bind(tunnel.to_string())
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed)?;
    gateway_of(&row.ok_or(StoreError::NotFound)?)
}

/// Whether a gateway that was never seen gets a row: not one that is only reported as
/// gone or turned away.
async fn has_place(
    transaction: &mut Transaction,
    tunnel: TunnelId,
    report: &LinkReport,
) -> Result<bool, StoreError> {
    match report.kind {
        LinkReportKind::Pending { .. } => Ok(make_room(transaction, tunnel).await?
            && make_room_among_pending(transaction, tunnel).await?),
        LinkReportKind::Up => make_room(transaction, tunnel).await,
        _ => Ok(false),
    }
}

/// Room for one more gateway. The one that goes for it, if need be, was let in by the
/// tunnel's setting, or is refused where it would only wait again; and was not seen for
/// longest. Nobody's approval is forgotten.
async fn make_room(transaction: &mut Transaction, tunnel: TunnelId) -> Result<bool, StoreError> {
    let known = sqlx::query("SELECT COUNT(*) FROM gateways WHERE tunnel = ?");
    if count(transaction, known.bind(tunnel.to_string())).await? < GATEWAYS_MOST {
        return Ok(true);
    }
    let delete = sqlx::query(
        "DELETE FROM gateways WHERE id = (
             SELECT gateways.id FROM gateways JOIN tunnels ON tunnels.id = gateways.tunnel
             WHERE tunnel = ?
                 AND (automatic OR (decision = 'refused' AND approval = 'manual'))
             ORDER BY COALESCE(last_seen_at, gateways.created_at), gateways.id LIMIT 1)
         RETURNING id",
    )
    .bind(tunnel.to_string());
    let gone = delete
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed)?;
    let Some(gone) = gone else {
        return Ok(false);
    };
    // What the edge wrote of it goes too: whoever holds a token must not fill the audit
    // with new keys. What people decided stays.
    let id: String = gone.try_get("id").map_err(failed)?;
    let forget = sqlx::query("DELETE FROM audit WHERE object = ? AND actor = ?")
        .bind(id)
        .bind(EDGE);
    run(transaction, forget).await?;
    Ok(true)
}

/// Room for one more pending gateway: one whose link is gone, and so has no code any more,
/// goes before one that waits. An edge holds no more links pending than there are rows, so
/// that whoever comes and goes with new keys pushes out nobody who stays.
async fn make_room_among_pending(
    transaction: &mut Transaction,
    tunnel: TunnelId,
) -> Result<bool, StoreError> {
    let pending =
        sqlx::query("SELECT COUNT(*) FROM gateways WHERE tunnel = ? AND decision = 'pending'")
            .bind(tunnel.to_string());
    if count(transaction, pending).await? < PENDING_MOST {
        return Ok(true);
    }
    let delete = sqlx::query(
        "DELETE FROM gateways WHERE id = (
             SELECT id FROM gateways WHERE tunnel = ? AND decision = 'pending'
             ORDER BY approval_code IS NOT NULL, COALESCE(last_seen_at, created_at), id
             LIMIT 1)",
    )
    .bind(tunnel.to_string());
    Ok(run(transaction, delete).await?.rows_affected() > 0)
}

async fn insert(
    transaction: &mut Transaction,
    tunnel: TunnelId,
    fingerprint: Fingerprint,
    id: ConnectionId,
    at: Timestamp,
) -> Result<(), StoreError> {
    let insert = sqlx::query(
        "INSERT INTO gateways (id, tunnel, fingerprint, decision, created_at)
         VALUES (?, ?, ?, 'pending', ?)",
    )
    .bind(id.to_string())
    .bind(tunnel.to_string())
    .bind(fingerprint.to_string())
    .bind(at.as_millisecond());
    run(transaction, insert).await?;
    Ok(())
}

async fn decide(
    transaction: &mut Transaction,
    change: &Change,
    tunnel: TunnelId,
    gateway: ConnectionId,
    decision: Decision,
) -> Result<GatewayRecord, StoreError> {
    let (text, action) = match decision {
        Decision::Approved => ("approved", "connection.approve"),
        Decision::Pending | Decision::Refused => ("refused", "connection.refuse"),
    };
    let update = sqlx::query(
        "UPDATE gateways SET decision = ?, automatic = 0, approval_code = NULL WHERE id = ?",
    )
    .bind(text)
    .bind(gateway.to_string());
    run(transaction, update).await?;
    write_audit(transaction, change, action, gateway).await?;
    find(transaction, tunnel, gateway).await
}

async fn approve_automatically(
    transaction: &mut Transaction,
    tunnel: &TunnelRecord,
    gateway: &GatewayRecord,
    fresh: ConnectionId,
    at: Timestamp,
) -> Result<(), StoreError> {
    let update = sqlx::query(
        "UPDATE gateways SET decision = 'approved', automatic = 1, approval_code = NULL
         WHERE id = ?",
    )
    .bind(gateway.id.to_string());
    run(transaction, update).await?;
    let audit_id = fresh.to_string().replacen(ConnectionId::PREFIX, "audit", 1);
    let mut change = Change::new(audit_id, tunnel.workspace.clone(), EDGE, at);
    change.reason = Some("the tunnel approves automatically".to_owned());
    write_audit(transaction, &change, "connection.approve", gateway.id).await
}

/// Who approves where nobody is asked.
const EDGE: &str = "edge";

/// What a gateway says of itself, and where it was seen: a link that goes, or that carries
/// nothing, as that of a check, does not speak for one that lives. The code of a pending
/// link goes with that link, and not with an older one whose end is noticed later.
async fn write_sighting(
    transaction: &mut Transaction,
    gateway: ConnectionId,
    report: &LinkReport,
    at: Timestamp,
) -> Result<(), StoreError> {
    let code = match report.kind {
        LinkReportKind::Pending { approval_code } => Some(approval_code.to_string()),
        _ => None,
    };
    let gone = matches!(report.kind, LinkReportKind::Down { .. });
    let lives = code.is_some() || report.kind == LinkReportKind::Up;
    let speaks = lives && !report.announcement.routes().is_empty();
    let connected = (report.kind == LinkReportKind::Up && speaks).then(|| at.as_millisecond());
    let update = sqlx::query(
        "UPDATE gateways SET
             approval_code = CASE
                 WHEN decision <> 'pending' OR (?9 AND link = ?10) THEN NULL
                 ELSE COALESCE(?2, approval_code) END,
             link = CASE WHEN ?11 THEN ?10 ELSE link END,
             token = IIF(?12 OR version IS NULL, ?3, token),
             remote_address = IIF(?12 OR version IS NULL, ?5, remote_address),
             routes = IIF(?12 OR version IS NULL, ?6, routes),
             version = IIF(?12 OR version IS NULL, ?4, version),
             connected_at = COALESCE(?7, connected_at), last_seen_at = ?8
         WHERE id = ?1",
    )
    .bind(gateway.to_string())
    .bind(code)
    .bind(report.identity.token.to_string())
    .bind(report.announcement.version().to_owned())
    .bind(report.remote_address.to_string())
    .bind(join(report.announcement.routes()))
    .bind(connected)
    .bind(at.as_millisecond())
    .bind(gone)
    .bind(report.link.to_string())
    .bind(lives)
    .bind(speaks);
    run(transaction, update).await?;
    Ok(())
}

pub(super) fn gateway_of(row: &SqliteRow) -> Result<GatewayRecord, StoreError> {
    let decision: String = row.try_get("decision").map_err(failed)?;
    Ok(GatewayRecord {
        id: required(row, "id")?,
        tunnel: required(row, "tunnel")?,
        fingerprint: required(row, "fingerprint")?,
        decision: match decision.as_str() {
            "pending" => Decision::Pending,
            "approved" => Decision::Approved,
            _ => Decision::Refused,
        },
        links_from: number(row, "links_from")?,
        approval_code: optional(row, "approval_code")?,
        token: optional(row, "token")?,
        version: row.try_get("version").map_err(failed)?,
        remote_address: parsed::<SocketAddr>(row, "remote_address")?,
        routes: words(row, "routes")?.unwrap_or_default(),
        created_at: time(row, "created_at")?,
        connected_at: optional_time(row, "connected_at")?,
        last_seen_at: optional_time(row, "last_seen_at")?,
    })
}

/// A time out of range is none to refuse a report for.
fn reported_at(report: &LinkReport) -> Timestamp {
    i64::try_from(report.at_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .unwrap_or(Timestamp::MAX)
}
