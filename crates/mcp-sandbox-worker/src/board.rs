//! What this worker does at this moment, for people and for readiness.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// One session at a worker, as `ps` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SessionRow {
    /// The session's id.
    pub session: String,
    /// The item under which it is served; none while its sandbox only rests.
    pub work: Option<String>,
    /// What it does.
    pub state: SessionState,
    /// The tool that runs.
    pub tool: Option<String>,
    /// Since when it does that.
    pub since: Timestamp,
    /// Calls answered under this item.
    pub calls: u64,
    /// Where its files are.
    pub workspace: Option<String>,
}

/// What a session at a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SessionState {
    /// Its item was claimed; it gets its place and its history.
    Starting,
    /// It waits for events.
    Waiting,
    /// A tool runs.
    Running,
    /// It is being ended.
    Stopping,
    /// No item; its sandbox lives until it has been idle long enough.
    Resting,
}

impl SessionState {
    /// One word for tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Resting => "resting",
        }
    }
}

/// All sessions under an item.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board(Arc<Mutex<BTreeMap<String, Entry>>>);

#[derive(Debug)]
struct Entry {
    row: SessionRow,
    stop: CancellationToken,
}

/// A session's place on the board, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    board: Board,
    work: String,
}

impl Board {
    /// Adds a session; `stop` ends it.
    pub(crate) fn add(&self, session: &str, work: &str, stop: CancellationToken) -> Seat {
        let row = SessionRow {
            session: session.to_owned(),
            work: Some(work.to_owned()),
            state: SessionState::Starting,
            tool: None,
            since: Timestamp::now(),
            calls: 0,
            workspace: None,
        };
        self.lock().insert(work.to_owned(), Entry { row, stop });
        Seat {
            board: self.clone(),
            work: work.to_owned(),
        }
    }

    /// All rows.
    pub(crate) fn rows(&self) -> Vec<SessionRow> {
        self.lock()
            .values()
            .map(|entry| entry.row.clone())
            .collect()
    }

    /// Ends a session in good order; whether there is one.
    pub(crate) fn stop(&self, session: &str) -> bool {
        let board = self.lock();
        let mut found = false;
        for entry in board.values().filter(|entry| entry.row.session == session) {
            entry.stop.cancel();
            found = true;
        }
        found
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Shows what the session does now.
    pub(crate) fn show(&self, state: SessionState, tool: Option<&str>) {
        self.change(|row| {
            row.state = state;
            row.tool = tool.map(str::to_owned);
            row.since = Timestamp::now();
        });
    }

    /// Shows where its files are.
    pub(crate) fn show_workspace(&self, name: String) {
        self.change(|row| row.workspace = Some(name));
    }

    /// Counts an answered call.
    pub(crate) fn count(&self) {
        self.change(|row| row.calls += 1);
    }

    fn change(&self, change: impl FnOnce(&mut SessionRow)) {
        if let Some(entry) = self.board.lock().get_mut(&self.work) {
            change(&mut entry.row);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.board.lock().remove(&self.work);
    }
}
