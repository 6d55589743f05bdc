//! What happened to each tool call of a session, on disk before it matters.
//!
//! ```text
//!  begun ──► finished(result) ──► settled          one line each, synced before the next step:
//!    │                                             begun before the tool starts, finished before
//!    └─────► withdrawn (it never started)          the result is posted
//! ```
//!
//! A call that is begun and not finished when the journal is opened was cut short by a crash: it may have run, and is never
//! run again. One that is finished and not settled has a result to post again. The last line may be torn by a crash and is
//! then dropped; a journal that is damaged elsewhere keeps what is readable before the damage.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Settled calls that are remembered by id: the server's history tells about older ones.
const SETTLED: usize = 4096;
/// Bytes after which the file is written anew with what still matters, beyond twice that.
const COMPACT_BYTES: u64 = 1024 * 1024;
/// Hexadecimal digits of a line's checksum.
const SUM_DIGITS: usize = 16;
/// Larger journals were not written by this program: 4 results of 32 MiB in JSON text have room.
const FILE_BYTES: u64 = 512 * 1024 * 1024;

/// One session's journal. Every change is on disk when the method returns.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    bytes: u64,
    calls: HashMap<String, Standing>,
    settled: VecDeque<String>,
}

/// How far a call has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It was about to start, and may have run.
    Begun {
        /// Name of the tool.
        tool: String,
    },
    /// Its result waits to be posted: the event as JSON text.
    Finished {
        /// The event that answers the call.
        event: String,
    },
    /// Answered, or no longer to be answered.
    Settled,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
enum Record {
    Begun { call: String, tool: String },
    Withdrawn { call: String },
    Finished { call: String, event: String },
    Settled { call: String },
}

impl Journal {
    /// Opens or makes the journal at `path`; a torn last line is dropped.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        let mut file = options.open(path)?;
        if file.metadata()?.len() > FILE_BYTES {
            return Err(io::Error::other("the journal is larger than any"));
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let mut journal = Self {
            path: path.to_owned(),
            file,
            bytes: 0,
            calls: HashMap::new(),
            settled: VecDeque::new(),
        };
        let mut rest = text.as_slice();
        while let Some((record, length)) = next_record(rest) {
            journal.apply(record);
            journal.bytes += length as u64;
            rest = rest.get(length..).unwrap_or_default();
        }
        if !rest.is_empty() {
            tracing::warn!(path = %path.display(), bytes = rest.len(), "the journal's end is torn and dropped");
            journal.file.set_len(journal.bytes)?;
        }
        if journal.bytes > COMPACT_BYTES {
            journal.compact()?;
        }
        Ok(journal)
    }

    /// Says that the call is about to start.
    ///
    /// # Errors
    /// It is not on disk: the tool must not start.
    pub(crate) fn begin(&mut self, call: &str, tool: &str) -> io::Result<()> {
        self.write(Record::Begun {
            call: call.to_owned(),
            tool: tool.to_owned(),
        })
    }

    /// Takes [`Journal::begin`] back: the tool did not start.
    ///
    /// # Errors
    /// It is not on disk; the call counts as begun.
    pub(crate) fn withdraw(&mut self, call: &str) -> io::Result<()> {
        self.write(Record::Withdrawn {
            call: call.to_owned(),
        })
    }

    /// Keeps the result until it is settled.
    ///
    /// # Errors
    /// It is not on disk; the call counts as begun.
    pub(crate) fn finish(&mut self, call: &str, event: &str) -> io::Result<()> {
        self.write(Record::Finished {
            call: call.to_owned(),
            event: event.to_owned(),
        })
    }

    /// Forgets the result: it was taken, or nobody waits for it.
    ///
    /// # Errors
    /// It is not on disk; it may be posted once more.
    pub(crate) fn settle(&mut self, call: &str) -> io::Result<()> {
        self.write(Record::Settled {
            call: call.to_owned(),
        })
    }

    /// How far a call has come; `None` for one that this journal knows nothing of.
    pub(crate) fn standing(&self, call: &str) -> Option<&Standing> {
        self.calls.get(call)
    }

    fn write(&mut self, record: Record) -> io::Result<()> {
        let line = line_of(&record)?;
        let written = self
            .file
            .write_all(&line)
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // What is there of the line would hide everything after it.
            let _ = self.file.set_len(self.bytes);
            return Err(error);
        }
        self.bytes += line.len() as u64;
        self.apply(record);
        if self.bytes > COMPACT_BYTES.max(2 * self.kept_bytes()) {
            self.compact()?;
        }
        Ok(())
    }

    fn apply(&mut self, record: Record) {
        match record {
            Record::Begun { call, tool } => {
                self.calls.insert(call, Standing::Begun { tool });
            }
            Record::Withdrawn { call } => {
                self.calls.remove(&call);
            }
            Record::Finished { call, event } => {
                self.calls.insert(call, Standing::Finished { event });
            }
            Record::Settled { call } => {
                let before = self.calls.insert(call.clone(), Standing::Settled);
                if before != Some(Standing::Settled) {
                    self.settled.push_back(call);
                }
                while self.settled.len() > SETTLED {
                    let oldest = self.settled.pop_front();
                    oldest.and_then(|call| self.calls.remove(&call));
                }
            }
        }
    }

    /// About what a compact journal would have.
    fn kept_bytes(&self) -> u64 {
        let results = self.calls.values().map(|standing| match standing {
            Standing::Finished { event } => event.len() as u64,
            Standing::Begun { .. } | Standing::Settled => 0,
        });
        results.sum::<u64>() + 128 * self.calls.len() as u64
    }

    /// Writes what matters to a new file that then takes this one's place.
    fn compact(&mut self) -> io::Result<()> {
        let mut lines = Vec::new();
        for call in &self.settled {
            lines.extend(line_of(&Record::Settled { call: call.clone() })?);
        }
        for (call, standing) in &self.calls {
            let call = call.clone();
            lines.extend(match standing {
                Standing::Begun { tool } => line_of(&Record::Begun {
                    call,
                    tool: tool.clone(),
                })?,
                Standing::Finished { event } => line_of(&Record::Finished {
                    call,
                    event: event.clone(),
                })?,
                Standing::Settled => continue,
            });
        }
        let fresh = self.path.with_extension("new");
        let _ = fs::remove_file(&fresh);
        let mut options = OpenOptions::new();
        options.append(true).create_new(true).mode(0o600);
        let mut file = options.open(&fresh)?;
        file.write_all(&lines)?;
        file.sync_all()?;
        fs::rename(&fresh, &self.path)?;
        sync_folder_of(&self.path)?;
        self.file = file;
        self.bytes = lines.len() as u64;
        Ok(())
    }
}

/// Makes a new name in a folder last.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn line_of(record: &Record) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(record)?;
    let mut line = sum_of(&json).into_bytes();
    line.push(b' ');
    line.extend(json);
    line.push(b'\n');
    Ok(line)
}

fn next_record(text: &[u8]) -> Option<(Record, usize)> {
    let end = text.iter().position(|byte| *byte == b'\n')?;
    let line = text.get(..end)?;
    let (sum, json) = line.split_at_checked(SUM_DIGITS)?;
    let json = json.strip_prefix(b" ")?;
    if sum_of(json).as_bytes() != sum {
        return None;
    }
    Some((serde_json::from_slice(json).ok()?, end + 1))
}

fn sum_of(json: &[u8]) -> String {
    let digest = Sha256::digest(json);
    let digits = digest.iter().take(SUM_DIGITS / 2);
    digits.map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(event: &str) -> Option<Standing> {
        Some(Standing::Finished {
            event: event.to_owned(),
        })
    }

    fn begun(tool: &str) -> Option<Standing> {
        Some(Standing::Begun {
            tool: tool.to_owned(),
        })
    }

    /// Four calls, one in each state.
    fn written(path: &Path) {
        let mut journal = Journal::open(path).unwrap();
        for call in ["a", "b", "c", "d"] {
            journal.begin(call, "bash").unwrap();
        }
        journal.finish("b", r#"{"x":"\n"}"#).unwrap();
        journal.finish("c", "{}").unwrap();
        journal.settle("c").unwrap();
        journal.withdraw("d").unwrap();
    }

    #[test]
    fn what_was_said_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        written(&path);
        let journal = Journal::open(&path).unwrap();
        assert_eq!(journal.standing("a").cloned(), begun("bash"));
        assert_eq!(journal.standing("b").cloned(), finished(r#"{"x":"\n"}"#));
        assert_eq!(journal.standing("c"), Some(&Standing::Settled));
        assert_eq!(journal.standing("d"), None);
    }

    #[test]
    fn a_tail_torn_at_any_byte_loses_only_the_last_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        written(&path);
        let whole = fs::read(&path).unwrap();
        let lines = |text: &[u8]| text.iter().filter(|byte| **byte == b'\n').count();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let mut journal = Journal::open(&path).unwrap();
            let kept = fs::read(&path).unwrap();
            assert_eq!(lines(&kept), lines(&whole[..cut]));
            // It goes on after the cut.
            journal.begin("e", "read").unwrap();
            let journal = Journal::open(&path).unwrap();
            assert_eq!(journal.standing("e").cloned(), begun("read"));
        }
    }

    #[test]
    fn damage_is_not_read_as_something_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        written(&path);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            let journal = Journal::open(&path).unwrap();
            // A result is the true one, or none.
            if let Some(Standing::Finished { event }) = journal.standing("b") {
                assert_eq!(event, r#"{"x":"\n"}"#);
            }
        }
    }

    #[test]
    fn it_stays_small_and_keeps_what_is_not_settled() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::open(&path).unwrap();
        let result = "x".repeat(100 * 1024);
        journal.begin("cut", "bash").unwrap();
        journal.finish("kept", &result).unwrap();
        for number in 0..60 {
            let call = format!("call{number}");
            journal.finish(&call, &result).unwrap();
            journal.settle(&call).unwrap();
            assert!(fs::metadata(&path).unwrap().len() < COMPACT_BYTES + 200 * 1024);
        }
        drop(journal);
        let journal = Journal::open(&path).unwrap();
        assert_eq!(journal.standing("cut").cloned(), begun("bash"));
        assert_eq!(journal.standing("kept").cloned(), finished(&result));
        assert_eq!(journal.standing("call0"), Some(&Standing::Settled));
    }

    #[test]
    fn old_settled_calls_are_forgotten() {
        let mut journal = Journal {
            path: PathBuf::new(),
            file: tempfile::tempfile().unwrap(),
            bytes: 0,
            calls: HashMap::new(),
            settled: VecDeque::new(),
        };
        for number in 0..=SETTLED {
            journal.apply(Record::Settled {
                call: number.to_string(),
            });
        }
        assert_eq!(journal.standing("0"), None);
        assert_eq!(journal.standing("1"), Some(&Standing::Settled));
        assert_eq!(journal.calls.len(), SETTLED);
    }
}
