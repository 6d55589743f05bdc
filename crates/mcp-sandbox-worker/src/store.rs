//! What is kept of sessions between items and between workers: one folder each, used by one process at a time.
//!
//! ```text
//!  sessions/SESSION/lock        held while a worker has the session
//!                   record      which workspace, since when, last used, how large
//!                   journal     what happened to each call
//!                   calls.log   a line per call, for people
//!                   wanted      another worker of this host waits for the lock
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use mcp_sandbox_executor::WorkspaceName;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::journal::{Journal, sync_folder_of};

/// The log of a session is kept to twice this.
const LOG_BYTES: u64 = 512 * 1024;

/// The folder of all sessions.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    root: PathBuf,
}

/// A session's folder, ours until this is dropped.
#[derive(Debug)]
pub(crate) struct Kept {
    folder: PathBuf,
    record: Record,
    _lock: File,
}

/// What is known of a session's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The session's id.
    pub(crate) session: String,
    /// Where its files are.
    pub(crate) workspace: WorkspaceName,
    /// When the workspace was made.
    pub(crate) made_at: Timestamp,
    /// When a worker last had it.
    pub(crate) used_at: Timestamp,
    /// Bytes of disk, as last counted.
    pub(crate) bytes: u64,
    /// A result was posted since the workspace was made: the agent knows this one.
    #[serde(default)]
    pub(crate) known: bool,
    /// Whose session it is: workers of several queues may share the folder.
    #[serde(default)]
    pub(crate) queue: String,
}

impl Store {
    /// Opens the folder, which is made if absent.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn open(root: PathBuf) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&root)?;
        Ok(Self { root })
    }

    /// Locks a session's folder, made if absent; `None` while another has it.
    ///
    /// # Errors
    /// The disk refused, or the record is damaged.
    pub(crate) fn try_lock(&self, session: &str) -> io::Result<Option<Kept>> {
        let folder = self.folder_of(session);
        loop {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)?;
            let Some(lock) = lock(&folder.join("lock"))? else {
                return Ok(None);
            };
            // It may have been removed between the opening and the locking.
            match (lock.metadata(), fs::metadata(folder.join("lock"))) {
                (Ok(ours), Ok(there)) if ours.ino() == there.ino() => {
                    return Kept::read(folder, session, lock).map(Some);
                }
                _ => {}
            }
        }
    }

    /// Asks whoever has the session's folder to leave it soon.
    pub(crate) fn want(&self, session: &str) {
        let _ = File::create(self.folder_of(session).join("wanted"));
    }

    /// Sessions that have a folder.
    pub(crate) fn records(&self) -> Vec<Record> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let records = entries.filter_map(|entry| read_record(&entry.path()).ok()?);
        records.collect()
    }

    /// The lines of a session's log, the newest last.
    pub(crate) fn log(&self, session: &str) -> Option<String> {
        let folder = self.folder_of(session);
        let newest = fs::read_to_string(folder.join("calls.log")).ok()?;
        let older = fs::read_to_string(folder.join("calls.log.1")).unwrap_or_default();
        Some(older + &newest)
    }

    fn folder_of(&self, session: &str) -> PathBuf {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if (1..=128).contains(&session.len()) && session.bytes().all(plain) {
            return self.root.join(session);
        }
        // A server that names its sessions otherwise must not name a path.
        let digest = Sha256::digest(session.as_bytes());
        let digits = digest.iter().map(|byte| format!("{byte:02x}"));
        self.root.join(format!("x-{}", digits.collect::<String>()))
    }
}

impl Kept {
    fn read(folder: PathBuf, session: &str, lock: File) -> io::Result<Self> {
        let _ = fs::remove_file(folder.join("wanted"));
        let record = match read_record(&folder)? {
            Some(record) => record,
            // Written once it is known whose it is.
            None => Record::new(session)?,
        };
        Ok(Self {
            folder,
            record,
            _lock: lock,
        })
    }

    /// What is known of the session's files.
    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// No call has used this workspace yet.
    pub(crate) fn is_fresh(&self) -> bool {
        !self.record.known
    }

    /// Notes whose session it is: before anything else of a new one is made, since the name of its workspace is written
    /// down with it.
    ///
    /// # Errors
    /// The disk refused.
    pub(crate) fn belongs_to(&mut self, queue: &str) -> io::Result<()> {
        if self.record.queue == queue {
            return Ok(());
        }
        queue.clone_into(&mut self.record.queue);
        self.write()
    }

    /// Notes that the agent knows what this workspace holds.
    ///
    /// # Errors
    /// The disk refused.
    pub(crate) fn settle_in(&mut self) -> io::Result<()> {
        self.record.known = true;
        self.write()
    }

    /// Another process waits for it.
    pub(crate) fn is_wanted(&self) -> bool {
        self.folder.join("wanted").exists()
    }

    /// Opens the session's journal.
    ///
    /// # Errors
    /// The disk refused.
    pub(crate) fn journal(&self) -> io::Result<Journal> {
        Journal::open(&self.folder.join("journal"))
    }

    /// Notes when it was used, and how large its files are if that was counted.
    ///
    /// # Errors
    /// The disk refused.
    pub(crate) fn used(&mut self, now: Timestamp, bytes: Option<u64>) -> io::Result<()> {
        self.record.used_at = now;
        self.record.bytes = bytes.unwrap_or(self.record.bytes);
        self.write()
    }

    /// Gives it a new workspace, after the old one was found to be gone.
    ///
    /// # Errors
    /// The disk refused.
    pub(crate) fn renew(&mut self) -> io::Result<()> {
        let queue = std::mem::take(&mut self.record.queue);
        self.record = Record {
            queue,
            ..Record::new(&self.record.session)?
        };
        self.write()
    }

    /// Adds a line to the session's log.
    pub(crate) fn log(&self, line: &str) {
        let path = self.folder.join("calls.log");
        if fs::metadata(&path).is_ok_and(|found| found.len() > LOG_BYTES) {
            let _ = fs::rename(&path, self.folder.join("calls.log.1"));
        }
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600);
        let written = options
            .open(&path)
            .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
        if let Err(error) = written {
            tracing::warn!(%error, path = %path.display(), "the session's log cannot be written");
        }
    }

    /// Removes the folder. The workspace must be gone already.
    ///
    /// # Errors
    /// The disk refused.
    pub(crate) fn remove(self) -> io::Result<()> {
        fs::remove_dir_all(&self.folder)?;
        sync_folder_of(&self.folder)
    }

    fn write(&self) -> io::Result<()> {
        let path = self.folder.join("record");
        let fresh = self.folder.join("record.new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&fresh)?;
        file.write_all(&serde_json::to_vec(&self.record)?)?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        sync_folder_of(&path)
    }
}

impl Record {
    fn new(session: &str) -> io::Result<Self> {
        let now = Timestamp::now();
        let mut entropy = [0; 10];
        getrandom::fill(&mut entropy).map_err(io::Error::other)?;
        let millis = u64::try_from(now.as_millisecond()).unwrap_or_default();
        let name = mcp_tunnel_auth::encode_id("wsp", millis, &entropy);
        Ok(Self {
            session: session.to_owned(),
            workspace: WorkspaceName::parse(&name).map_err(io::Error::other)?,
            made_at: now,
            used_at: now,
            bytes: 0,
            known: false,
            queue: String::new(),
        })
    }
}

/// Sessions whose files go: those unused for longer than `keep`, then the longest unused until all that stay have at most
/// `cap` bytes.
pub(crate) fn outdated(
    mut records: Vec<Record>,
    now: Timestamp,
    keep: Duration,
    cap: u64,
) -> Vec<String> {
    records.sort_by_key(|record| record.used_at);
    let mut total = records
        .iter()
        .fold(0_u64, |sum, record| sum.saturating_add(record.bytes));
    let mut out = Vec::new();
    for record in records {
        let unused = now.duration_since(record.used_at);
        let old = Duration::try_from(unused).is_ok_and(|unused| unused > keep);
        if old || (total > cap && record.bytes > 0) {
            total -= record.bytes.min(total);
            out.push(record.session);
        }
    }
    out
}

fn lock(path: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn read_record(folder: &Path) -> io::Result<Option<Record>> {
    let mut text = Vec::new();
    match File::open(folder.join("record")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?.take(64 * 1024).read_to_end(&mut text)?,
    };
    Ok(Some(serde_json::from_slice(&text)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("sessions")).unwrap();
        (folder, store)
    }

    #[test]
    fn a_session_is_one_worker_s_at_a_time_and_keeps_its_workspace() {
        let (_folder, store) = store();
        let kept = store.try_lock("sesn_1").unwrap().unwrap();
        let workspace = kept.record().workspace.clone();
        assert!(kept.is_fresh() && !kept.is_wanted());
        let mut kept = kept;
        kept.settle_in().unwrap();
        assert!(store.try_lock("sesn_1").unwrap().is_none());
        assert!(store.try_lock("sesn_2").unwrap().is_some());
        store.want("sesn_1");
        assert!(kept.is_wanted());
        drop(kept);
        let kept = store.try_lock("sesn_1").unwrap().unwrap();
        assert!(!kept.is_fresh() && !kept.is_wanted());
        assert_eq!(kept.record().workspace, workspace);
    }

    #[test]
    fn a_removed_session_starts_anew() {
        let (_folder, store) = store();
        let kept = store.try_lock("sesn_1").unwrap().unwrap();
        let workspace = kept.record().workspace.clone();
        kept.remove().unwrap();
        assert!(store.records().is_empty());
        let kept = store.try_lock("sesn_1").unwrap().unwrap();
        assert!(kept.is_fresh());
        assert_ne!(kept.record().workspace, workspace);
    }

    #[test]
    fn ids_of_sessions_never_become_paths() {
        let (folder, store) = store();
        for id in ["../../x", "/etc", "", ".", "a/b", "a\0b", &"x".repeat(500)] {
            let kept = store.try_lock(id).unwrap().unwrap();
            assert_eq!(kept.record().session, id);
            assert_eq!(kept.folder.parent(), Some(store.root.as_path()), "{id:?}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_log_is_bounded() {
        let (_folder, store) = store();
        let kept = store.try_lock("sesn_1").unwrap().unwrap();
        let line = "x".repeat(1000);
        for _ in 0..2000 {
            kept.log(&line);
        }
        kept.log("last");
        let log = store.log("sesn_1").unwrap();
        assert!(log.len() < 1_200_000 && log.ends_with("last\n"));
        assert_eq!(store.log("sesn_2"), None);
    }

    #[test]
    fn old_and_large_files_go_the_longest_unused_first() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let record = |session: &str, age: i64, bytes| Record {
            used_at: Timestamp::from_second(1_000_000 - age).unwrap(),
            bytes,
            ..Record::new(session).unwrap()
        };
        let records = vec![
            record("new", 10, 60),
            record("older", 50, 60),
            record("empty", 70, 0),
            record("old", 500, 1),
        ];
        let hundred = Duration::from_secs(100);
        assert_eq!(outdated(records.clone(), now, hundred, 1000), ["old"]);
        assert_eq!(
            outdated(records.clone(), now, hundred, 100),
            ["old", "older"]
        );
        assert_eq!(outdated(records, now, hundred, 0), ["old", "older", "new"]);
    }
}
