//! The database file of a service: how it is opened, and what its errors mean.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

/// How a database file is opened.
///
/// WAL with `synchronous = FULL`: what was answered survives both a killed process and a power cut.
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

    /// How long a writer waits for another one before it says that the store is busy. Default 5 s.
    #[must_use]
    pub const fn with_busy_timeout(mut self, busy: Duration) -> Self {
        self.busy = busy;
        self
    }

    /// Most bytes that the file may grow to; a write above says that it is full. Default: as many as the disk has.
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

    /// Makes the file, unless it is there: its owner's alone. SQLite gives its companions the same mode.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn make_private(&self) -> io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&self.path).map(drop)
    }

    /// How a connection to it is made.
    #[must_use]
    pub fn connect_options(&self) -> SqliteConnectOptions {
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

    /// How connections to it are shared.
    #[must_use]
    pub fn pool_options(&self) -> SqlitePoolOptions {
        SqlitePoolOptions::new()
            .acquire_timeout(self.busy)
            // Where a disk is full SQLite ends a transaction by itself, which sqlx does not see: to it that connection
            // is in a transaction for ever.
            .before_acquire(|connection, _| {
                let fresh = !connection.is_in_transaction();
                Box::pin(async move { Ok(fresh) })
            })
    }
}

/// What an error of the database means to whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by definition")]
pub enum SqliteFault {
    /// The disk is full, or broken.
    Full,
    /// Another writer held the file for too long.
    Busy,
    /// Anything else.
    Other,
}

impl SqliteFault {
    /// What `error` means.
    #[must_use]
    pub fn of(error: &sqlx::Error) -> Self {
        let code = error
            .as_database_error()
            .and_then(|error| error.code()?.parse::<i32>().ok());
        match (code.map(|code| code & 0xff), error) {
            (_, sqlx::Error::Io(_)) => Self::Full,
            (Some(SQLITE_FULL | SQLITE_IOERR | SQLITE_READONLY | SQLITE_CANTOPEN), _) => Self::Full,
            (Some(SQLITE_BUSY | SQLITE_LOCKED), _) | (_, sqlx::Error::PoolTimedOut) => Self::Busy,
            _ => Self::Other,
        }
    }
}

/// Rows that the thread of a connection may read before somebody takes them: a page of a listing, a good part of a snapshot.
/// With fewer, two threads take turns for each handful.
const ROWS_AHEAD: usize = 1024;

const PAGE_BYTES: u64 = 4096;

// Primary result codes: https://www.sqlite.org/rescode.html
const SQLITE_BUSY: i32 = 5;
const SQLITE_LOCKED: i32 = 6;
const SQLITE_READONLY: i32 = 8;
const SQLITE_IOERR: i32 = 10;
const SQLITE_FULL: i32 = 13;
const SQLITE_CANTOPEN: i32 = 14;
