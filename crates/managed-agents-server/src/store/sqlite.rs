//! The store on SQLite: one file, one writer at a time.
//!
//! WAL with `synchronous = FULL`: what was answered survives both a killed process and a
//! power cut. Writers begin `IMMEDIATE`, so that two of them wait for each other instead
//! of failing half-way. Queries are text at run time: building needs no database.
//!
//! One connection writes and the others read.

mod agents;
mod audit;
mod authority;
mod environments;
mod events;
mod library;
mod others;
mod retention;
mod row;
mod sessions;
mod work;

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use managed_agents_service::{SqliteConfig, SqliteFault};
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteQueryResult;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Changes, StoreError, Topic};

/// Every store of this crate in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    /// Connections that read.
    pool: SqlitePool,
    /// The one that writes: what it has not written itself, another process has.
    writer: SqlitePool,
    changes: Changes,
    /// One: whoever has it writes.
    writers: Arc<Semaphore>,
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
        let connections = config.pool_options();
        // It stays the same for as long as it can: only then can it tell its own commits from others.
        let writer = connections
            .clone()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(config.connect_options())
            .await
            .map_err(failed)?;
        MIGRATIONS
            .run(&writer)
            .await
            .map_err(|error| failed(sqlx::Error::from(error)))?;
        let pool = connections
            .max_connections(READERS_MOST)
            .connect_with(config.connect_options())
            .await
            .map_err(failed)?;
        Ok(Self {
            pool,
            writer,
            changes: Changes::default(),
            writers: Arc::new(Semaphore::new(1)),
        })
    }

    /// Waits for running transactions and closes the file.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the rest to the operating system: nothing is lost.
    pub async fn close(&self) {
        self.pool.close().await;
        // The last one to go empties the log.
        self.writer.close().await;
    }

    /// Writers of this process stand in a queue: SQLite would let them sleep and try again.
    async fn begin(&self) -> Result<Writing, StoreError> {
        let turn = self.turn().await?;
        let transaction = self.writer.begin_with("BEGIN IMMEDIATE").await;
        Ok(Writing {
            transaction: transaction.map_err(failed)?,
            _turn: turn,
        })
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        let turn = Arc::clone(&self.writers).acquire_owned().await;
        turn.map_err(|error| StoreError::Failed(error.into()))
    }

    /// Readers of several rows see them as of one moment.
    async fn read(&self) -> Result<Transaction, StoreError> {
        self.pool.begin().await.map_err(failed)
    }

    /// Commits, and wakes whoever waits for `topics`.
    async fn commit(&self, writing: Writing, topics: &[Topic]) -> Result<(), StoreError> {
        // On a dropped future too: then the row may or may not be there, and whoever
        // waits looks.
        let _announce = Announce(&self.changes, topics);
        writing.transaction.commit().await.map_err(failed)
    }
}

/// A transaction that may write. Dropped without a commit it changes nothing.
struct Writing {
    transaction: Transaction,
    _turn: OwnedSemaphorePermit,
}

impl Deref for Writing {
    type Target = Transaction;

    fn deref(&self) -> &Transaction {
        &self.transaction
    }
}

impl DerefMut for Writing {
    fn deref_mut(&mut self) -> &mut Transaction {
        &mut self.transaction
    }
}

type Transaction = sqlx::Transaction<'static, sqlx::Sqlite>;
type Query = sqlx::query::Query<'static, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

struct Announce<'a>(&'a Changes, &'a [Topic]);

impl Drop for Announce<'_> {
    fn drop(&mut self) {
        for topic in self.1 {
            self.0.announce(*topic);
        }
    }
}

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations/sqlite");

/// Connections that read: more would only wait.
const READERS_MOST: u32 = 3;

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

fn failed(error: sqlx::Error) -> StoreError {
    match SqliteFault::of(&error) {
        SqliteFault::Full => StoreError::Full(error.into()),
        SqliteFault::Busy => StoreError::Busy(error.into()),
        SqliteFault::Other => StoreError::Failed(error.into()),
    }
}

#[cfg(test)]
mod tests;
