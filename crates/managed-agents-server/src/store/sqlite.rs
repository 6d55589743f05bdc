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
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteQueryResult,
    SqliteSynchronous,
};
use sqlx::{Connection as _, SqlitePool};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Changes, StoreError, Topic};

/// How a database file is opened.
#[derive(Debug, Clone)]
pub struct SqliteConfig {
    path: PathBuf,
    busy: Duration,
    most_bytes: Option<u64>,
}

impl SqliteConfig {
    /// The file at `path`, made if it is not there.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            busy: Duration::from_secs(5),
            most_bytes: None,
        }
    }

    /// How long a writer waits for another one before it answers
    /// [`StoreError::Busy`]. Default 5 s.
    #[must_use]
    pub const fn with_busy_timeout(mut self, busy: Duration) -> Self {
        self.busy = busy;
        self
    }

    /// Most bytes that the file may grow to; a write above answers [`StoreError::Full`].
    /// Default: as many as the disk has.
    #[must_use]
    pub const fn with_most_bytes(mut self, bytes: u64) -> Self {
        self.most_bytes = Some(bytes);
        self
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn options(&self) -> SqliteConnectOptions {
        let options = SqliteConnectOptions::new()
            .filename(&self.path)
            .create_if_missing(true)
            .foreign_keys(true)
            .busy_timeout(self.busy)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .row_buffer_size(ROWS_AHEAD);
        match self.most_bytes {
            Some(bytes) => {
                options.pragma("max_page_count", (bytes / PAGE_BYTES).max(1).to_string())
            }
            None => options,
        }
    }
}

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
        make_private(&config.path).map_err(|error| failed(error.into()))?;
        let connections = SqlitePoolOptions::new()
            .acquire_timeout(config.busy)
            // Where a disk is full SQLite ends a transaction by itself, which sqlx does not see: to it that connection
            // is in a transaction for ever.
            .before_acquire(|connection, _| {
                let fresh = !connection.is_in_transaction();
                Box::pin(async move { Ok(fresh) })
            });
        // It stays the same for as long as it can: only then can it tell its own commits from others.
        let writer = connections
            .clone()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(config.options())
            .await
            .map_err(failed)?;
        MIGRATIONS
            .run(&writer)
            .await
            .map_err(|error| failed(sqlx::Error::from(error)))?;
        let pool = connections
            .max_connections(READERS_MOST)
            .connect_with(config.options())
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

/// A new file is its owner's alone; SQLite gives its companions the same mode.
fn make_private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
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

/// Rows that the thread of a connection may read before somebody takes them: a page of a listing. With fewer, two threads
/// take turns for each handful.
const ROWS_AHEAD: usize = 1024;

const PAGE_BYTES: u64 = 4096;

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
    let code = error
        .as_database_error()
        .and_then(|error| error.code()?.parse::<i32>().ok());
    match (code.map(|code| code & 0xff), &error) {
        (_, sqlx::Error::Io(_)) => StoreError::Full(error.into()),
        (Some(SQLITE_FULL | SQLITE_IOERR | SQLITE_READONLY | SQLITE_CANTOPEN), _) => {
            StoreError::Full(error.into())
        }
        (Some(SQLITE_BUSY | SQLITE_LOCKED), _) | (_, sqlx::Error::PoolTimedOut) => {
            StoreError::Busy(error.into())
        }
        _ => StoreError::Failed(error.into()),
    }
}

// Primary result codes: https://www.sqlite.org/rescode.html
const SQLITE_BUSY: i32 = 5;
const SQLITE_LOCKED: i32 = 6;
const SQLITE_READONLY: i32 = 8;
const SQLITE_IOERR: i32 = 10;
const SQLITE_FULL: i32 = 13;
const SQLITE_CANTOPEN: i32 = 14;

#[cfg(test)]
mod tests;
