//! The store on SQLite: one file, one writer at a time.
//!
//! WAL with `synchronous = FULL`: what was answered survives both a killed process and a
//! power cut. Writers begin `IMMEDIATE`, so that two of them wait for each other instead
//! of failing half-way. Queries are text at run time: building needs no database.

mod access;
mod certificates;
mod gateways;
mod keys;
mod row;
mod tunnels;

use managed_agents_service::{SqliteConfig, SqliteFault};
use mcp_tunnel_auth::TunnelId;
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteQueryResult;
use tokio::sync::watch;

use super::{Change, Refusal, StoreError};

/// A [`TunnelStore`](super::TunnelStore) in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    pool: SqlitePool,
    changes: watch::Sender<u64>,
}

impl SqliteStore {
    /// Opens the file, and brings its tables to this version.
    ///
    /// # Errors
    /// [`StoreError::Full`] on a full disk; [`StoreError::Failed`] where the file is no
    /// database, or was written by a newer version.
    pub async fn open(config: &SqliteConfig) -> Result<Self, StoreError> {
        config
            .make_private()
            .map_err(|error| failed(error.into()))?;
        let pool = config
            .pool_options()
            .max_connections(CONNECTIONS_MOST)
            .connect_with(config.connect_options())
            .await
            .map_err(failed)?;
        MIGRATIONS
            .run(&pool)
            .await
            .map_err(|error| failed(sqlx::Error::from(error)))?;
        Ok(Self {
            pool,
            changes: watch::Sender::new(0),
        })
    }

    /// Waits for running transactions and closes the file.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the rest to the operating system: nothing is lost.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    async fn begin(&self) -> Result<Transaction, StoreError> {
        self.pool
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(failed)
    }

    /// Readers of several rows see them as of one moment.
    async fn read(&self) -> Result<Transaction, StoreError> {
        self.pool.begin().await.map_err(failed)
    }

    async fn commit(&self, transaction: Transaction) -> Result<(), StoreError> {
        // On a dropped future too: then the row may or may not be there, and whoever
        // watches looks.
        let _announce = Announce(&self.changes);
        transaction.commit().await.map_err(failed)
    }
}

type Transaction = sqlx::Transaction<'static, sqlx::Sqlite>;
type Query = sqlx::query::Query<'static, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

struct Announce<'a>(&'a watch::Sender<u64>);

impl Drop for Announce<'_> {
    fn drop(&mut self) {
        self.0
            .send_modify(|number| *number = number.wrapping_add(1));
    }
}

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations/sqlite");

/// One writes, the others read: more would only wait.
const CONNECTIONS_MOST: u32 = 4;

/// Runs one statement.
async fn run(transaction: &mut Transaction, query: Query) -> Result<SqliteQueryResult, StoreError> {
    query.execute(&mut **transaction).await.map_err(failed)
}

/// The one row of a query that counts.
async fn count(transaction: &mut Transaction, query: Query) -> Result<u32, StoreError> {
    use sqlx::Row as _;
    let row = query.fetch_one(&mut **transaction).await.map_err(failed)?;
    row.try_get(0).map_err(failed)
}

/// The tunnel of the change's workspace, if it may still be changed.
async fn live_tunnel(
    transaction: &mut Transaction,
    change: &Change,
    tunnel: TunnelId,
) -> Result<super::TunnelRecord, StoreError> {
    let record = tunnels::find(transaction, &change.workspace, tunnel).await?;
    if record.archived_at.is_some() {
        return Err(Refusal::TunnelArchived.into());
    }
    Ok(record)
}

async fn write_audit(
    transaction: &mut Transaction,
    change: &Change,
    action: &'static str,
    object: impl ToString,
) -> Result<(), StoreError> {
    let query = sqlx::query(
        "INSERT INTO audit (id, workspace, at, actor, address, action, object, reason)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(change.audit_id.clone())
    .bind(change.workspace.to_string())
    .bind(change.at.as_millisecond())
    .bind(change.actor.clone())
    .bind(change.address.map(|address| address.to_string()))
    .bind(action)
    .bind(object.to_string())
    .bind(change.reason.clone());
    run(transaction, query).await?;
    Ok(())
}

fn failed(error: sqlx::Error) -> StoreError {
    match SqliteFault::of(&error) {
        SqliteFault::Full => StoreError::Full(error.into()),
        SqliteFault::Busy => StoreError::Busy(error.into()),
        SqliteFault::Other => StoreError::Failed(error.into()),
    }
}

#[cfg(test)]
mod tests;
