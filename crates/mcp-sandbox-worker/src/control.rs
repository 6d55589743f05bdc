//! The worker's own socket: `ps`, `logs` and `stop` for whoever it belongs to.
//!
//! One request of one line, one answer of one line, then the end. The socket lies in a folder that only its user may enter,
//! and the peer's user id is asked for as well.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::board::{Board, SessionRow, SessionState};
use crate::desk::Desks;

/// Requests served at once; the next one waits to be accepted.
const CONNECTIONS: usize = 8;
/// One request takes at most this long.
const TIME: Duration = Duration::from_secs(10);
const REQUEST_BYTES: u64 = 4 * 1024;
const ANSWER_BYTES: u64 = 16 * 1024 * 1024;

/// What a worker can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ControlRequest {
    /// Which sessions are there.
    Ps,
    /// The log of a session.
    Logs {
        /// Its id.
        session: String,
    },
    /// Ends a session's item in good order, and its sandbox; its files stay.
    Stop {
        /// Its id.
        session: String,
    },
}

/// What a worker answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ControlAnswer {
    /// To [`ControlRequest::Ps`].
    Sessions {
        /// One each.
        rows: Vec<SessionRow>,
    },
    /// To [`ControlRequest::Logs`]: lines of JSON.
    Log {
        /// The newest last.
        lines: String,
    },
    /// To [`ControlRequest::Stop`]: it is being ended.
    Stopping,
    /// This worker knows nothing of the session.
    Unknown,
    /// The request makes no sense.
    Refused,
}

/// Why a worker could not be asked, or could not listen.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The folder of sockets cannot be used.
    #[error("the folder {path:?} cannot be used")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// The socket cannot be made; its path may be longer than 107 bytes.
    #[error("listening on {path:?}")]
    Bind {
        /// The socket.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
}

/// A bound socket; its file goes with it.
#[derive(Debug)]
pub(crate) struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Listens in `folder`, which is made if absent; sockets of workers that are gone are removed.
    pub(crate) fn bind(folder: &Path) -> Result<Self, ControlError> {
        let wrap = |source| ControlError::Folder {
            path: folder.to_owned(),
            source,
        };
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(folder).map_err(wrap)?;
        for path in sockets(folder).map_err(wrap)? {
            if std::os::unix::net::UnixStream::connect(&path).is_err() {
                let _ = fs::remove_file(&path);
            }
        }
        let path = folder.join(format!("{}.sock", std::process::id()));
        let listener = UnixListener::bind(&path).map_err(|source| ControlError::Bind {
            path: path.clone(),
            source,
        })?;
        Ok(Self { listener, path })
    }

    /// Serves until `stop`.
    pub(crate) async fn run(self, board: Board, desks: Arc<Desks>, stop: CancellationToken) {
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(_) = open.join_next() => {}
                accepted = self.listener.accept(), if open.len() < CONNECTIONS => {
                    let Ok((socket, _)) = accepted else {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    };
                    let (board, desks) = (board.clone(), Arc::clone(&desks));
                    open.spawn(async move {
                        let _ = timeout(TIME, serve(socket, &board, &desks)).await;
                    });
                }
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Asks every worker whose socket is in `folder`; those that are gone do not answer.
///
/// # Errors
/// The folder cannot be read: it is another user's, or no worker ever ran.
///
/// # Cancel safety
/// A request may have been carried out.
pub async fn ask_workers(
    folder: &Path,
    request: &ControlRequest,
) -> Result<Vec<(u32, ControlAnswer)>, ControlError> {
    let paths = sockets(folder).map_err(|source| ControlError::Folder {
        path: folder.to_owned(),
        source,
    })?;
    let mut answers = Vec::new();
    for path in paths {
        let process = path
            .file_stem()
            .and_then(|stem| stem.to_str()?.parse().ok());
        if let Ok(Ok(answer)) = timeout(TIME, ask(&path, request)).await {
            answers.push((process.unwrap_or(0), answer));
        }
    }
    Ok(answers)
}

async fn ask(path: &Path, request: &ControlRequest) -> io::Result<ControlAnswer> {
    let mut socket = UnixStream::connect(path).await?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    socket.write_all(&line).await?;
    let mut answer = Vec::new();
    socket.take(ANSWER_BYTES).read_to_end(&mut answer).await?;
    Ok(serde_json::from_slice(&answer)?)
}

async fn serve(socket: UnixStream, board: &Board, desks: &Desks) -> io::Result<()> {
    let user = socket.peer_cred()?.uid();
    if user != 0 && user != rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let mut socket = BufReader::new(socket);
    let mut line = String::new();
    (&mut socket)
        .take(REQUEST_BYTES)
        .read_line(&mut line)
        .await?;
    let answer = match serde_json::from_str(&line) {
        Ok(request) => answer(request, board, desks).await,
        Err(_) => ControlAnswer::Refused,
    };
    socket.write_all(&serde_json::to_vec(&answer)?).await?;
    socket.shutdown().await
}

async fn answer(request: ControlRequest, board: &Board, desks: &Desks) -> ControlAnswer {
    match request {
        ControlRequest::Ps => {
            let mut rows = board.rows();
            rows.extend(desks.resting().into_iter().map(|(session, since)| {
                let now = jiff::Timestamp::now();
                SessionRow {
                    session,
                    work: None,
                    state: SessionState::Resting,
                    tool: None,
                    since: now.checked_sub(since).unwrap_or(now),
                    calls: 0,
                    workspace: None,
                }
            }));
            ControlAnswer::Sessions { rows }
        }
        ControlRequest::Logs { session } => match desks.log(&session).await {
            Some(lines) => ControlAnswer::Log { lines },
            None => ControlAnswer::Unknown,
        },
        ControlRequest::Stop { session } => {
            if board.stop(&session) || desks.end_resting(&session).await {
                ControlAnswer::Stopping
            } else {
                ControlAnswer::Unknown
            }
        }
    }
}

fn sockets(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let paths = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    let sockets = paths.filter(|path| path.extension().is_some_and(|end| end == "sock"));
    Ok(sockets.collect())
}
