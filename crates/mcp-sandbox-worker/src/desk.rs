//! A session's place to work: its files, its journal, and the sandbox while there is one.
//!
//! ```text
//!  item ── take ──► Desk: lock, journal, workspace ── tools() ──► sandbox, made at need
//!    │ end                                                            │
//!    └─ leave ──► rests, sandbox alive ── sandbox_idle ──► sandbox gone, lock free, files kept
//!                                                          └─ session_keep, or the session's end ──► files gone
//! ```

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use mcp_sandbox_executor::{CreateError, Executor, Sandbox, SandboxSpec, Workspace, WorkspaceName};
use mcp_sandbox_tools::Toolset;
use thiserror::Error;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::journal::Journal;
use crate::store::{self, Kept, Store};

/// How long a worker waits for another one of this host to leave a session.
const LOCK_WAIT: Duration = Duration::from_secs(60);
/// How often it looks.
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// Counting the files of a large workspace is given up after this.
const COUNT_TIME: Duration = Duration::from_secs(20);

/// Why a session's place could not be had.
#[derive(Debug, Error)]
pub(crate) enum DeskError {
    /// Its folder cannot be read or written.
    #[error("the session's folder cannot be used")]
    Disk(#[from] io::Error),
    /// Another worker of this host holds the session.
    #[error("another worker of this host holds the session")]
    Taken,
}

/// All places of this worker.
pub(crate) struct Desks {
    store: Store,
    executor: Arc<dyn Executor>,
    spec: SandboxSpec,
    limits: KeepLimits,
    /// Which queue this worker serves.
    queue: String,
    resting: Mutex<HashMap<String, (Desk, Instant)>>,
}

/// How long and how much is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeepLimits {
    /// A sandbox lives this long after its last item.
    pub(crate) sandbox_idle: Duration,
    /// Files live this long after their last use.
    pub(crate) session_keep: Duration,
    /// Bytes of all files that are kept without a sandbox.
    pub(crate) keep_bytes: u64,
}

/// A session's place.
pub(crate) struct Desk {
    session: String,
    disk: Arc<Mutex<Disk>>,
    live: Option<Live>,
    /// No call has used this workspace yet.
    fresh: bool,
    /// Calls did use another one.
    replaces: bool,
}

/// What is on disk. Its methods block.
pub(crate) struct Disk {
    kept: Kept,
    journal: Journal,
}

struct Live {
    sandbox: Arc<dyn Sandbox>,
    tools: Arc<Toolset>,
    /// Skills that are there, by what identifies them.
    skills: Vec<String>,
}

impl Desks {
    pub(crate) fn new(
        store: Store,
        executor: Arc<dyn Executor>,
        spec: SandboxSpec,
        limits: KeepLimits,
        queue: String,
    ) -> Self {
        Self {
            store,
            executor,
            spec,
            limits,
            queue,
            resting: Mutex::default(),
        }
    }

    /// Takes a session's place: the one that rests here, or from disk.
    ///
    /// # Errors
    /// See [`DeskError`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn take(&self, session: &str) -> Result<Desk, DeskError> {
        let until = Instant::now() + LOCK_WAIT;
        loop {
            if let Some((desk, _)) = lock(&self.resting).remove(session) {
                return Ok(desk);
            }
            let (store, id) = (self.store.clone(), session.to_owned());
            let queue = self.queue.clone();
            let taken = blocking(move || -> io::Result<_> {
                let Some(mut kept) = store.try_lock(&id)? else {
                    store.want(&id);
                    return Ok(None);
                };
                kept.belongs_to(&queue)?;
                let journal = kept.journal()?;
                Ok(Some(Disk { kept, journal }))
            });
            if let Some(disk) = taken.await? {
                let fresh = disk.kept.is_fresh();
                return Ok(Desk {
                    session: session.to_owned(),
                    disk: Arc::new(Mutex::new(disk)),
                    live: None,
                    fresh,
                    replaces: false,
                });
            }
            if Instant::now() >= until {
                return Err(DeskError::Taken);
            }
            sleep(LOCK_PAUSE).await;
        }
    }

    /// Gives a place back; its sandbox lives on for a while.
    pub(crate) async fn leave(&self, desk: Desk) {
        if desk.live.is_none() || self.limits.sandbox_idle.is_zero() {
            return self.close(desk).await;
        }
        desk.disk(|disk| disk.used(None)).await;
        let session = desk.session.clone();
        lock(&self.resting).insert(session, (desk, Instant::now()));
    }

    /// Ends a place: nobody needs the session's files any more.
    pub(crate) async fn discard(&self, mut desk: Desk) {
        desk.end_sandbox().await;
        let name = desk.disk(|disk| disk.kept.record().workspace.clone()).await;
        if self.delete_workspace(&name).await {
            desk.remove().await;
        }
    }

    /// Makes the sandbox if there is none, and gives its tools.
    ///
    /// # Errors
    /// The executor refused.
    ///
    /// # Cancel safety
    /// A dropped call leaves no sandbox behind.
    pub(crate) async fn tools(&self, desk: &mut Desk) -> Result<Arc<Toolset>, CreateError> {
        if let Some(live) = &desk.live {
            return Ok(Arc::clone(&live.tools));
        }
        let capabilities = self.executor.capabilities();
        let mut spec = self.spec.clone().with_label("session", &desk.session);
        if capabilities.persistence.workspaces {
            let name = desk.disk(|disk| disk.kept.record().workspace.clone()).await;
            if !desk.fresh && !self.has_workspace(&name).await {
                warn!(session = %desk.session, workspace = name.as_str(), "the workspace is gone: the session gets a new one");
                desk.start_anew();
                desk.disk(Disk::renew).await;
            }
            let name = desk.disk(|disk| disk.kept.record().workspace.clone()).await;
            spec = spec.with_workspace(Workspace::Named(name));
        } else {
            // Its files end with each sandbox.
            desk.start_anew();
        }
        let sandbox: Arc<dyn Sandbox> = self.executor.create(spec).await?.into();
        let tools = Arc::new(Toolset::new(Arc::clone(&sandbox), capabilities.file_helper));
        info!(session = %desk.session, sandbox = sandbox.info().id.as_str(), "sandbox made");
        desk.live = Some(Live {
            sandbox,
            tools: Arc::clone(&tools),
            skills: Vec::new(),
        });
        Ok(tools)
    }

    /// Ends what has rested too long or is wanted by another worker. Cheap where there is nothing to do.
    pub(crate) async fn end_idle(&self) {
        for desk in self.overdue() {
            self.close(desk).await;
        }
    }

    /// Deletes files that are kept no longer.
    pub(crate) async fn sweep(&self) {
        let (store, limits) = (self.store.clone(), self.limits);
        let outdated = blocking(move || {
            let (now, keep) = (Timestamp::now(), limits.session_keep);
            store::outdated(store.records(), now, keep, limits.keep_bytes)
        });
        for session in outdated.await {
            self.delete(&session, "kept long enough").await;
        }
    }

    /// Sessions of this queue that have files and no item here, the longest unused first.
    pub(crate) async fn unused(&self) -> Vec<String> {
        let (store, queue) = (self.store.clone(), self.queue.clone());
        let mut records = blocking(move || store.records()).await;
        records.retain(|record| record.queue == queue);
        records.sort_by_key(|record| record.used_at);
        records.into_iter().map(|record| record.session).collect()
    }

    /// Deletes the files of a session that nobody uses.
    pub(crate) async fn delete(&self, session: &str, why: &'static str) {
        self.end_resting(session).await;
        let (store, id) = (self.store.clone(), session.to_owned());
        // One that is in use says so by its lock.
        let Ok(Some(kept)) = blocking(move || store.try_lock(&id)).await else {
            return;
        };
        let name = kept.record().workspace.clone();
        if self.delete_workspace(&name).await {
            info!(%session, workspace = name.as_str(), why, "files of a session deleted");
            if let Err(error) = blocking(move || kept.remove()).await {
                warn!(%session, %error, "the session's folder cannot be removed");
            }
        }
    }

    /// Ends every sandbox; files stay.
    pub(crate) async fn close_all(&self) {
        let all = std::mem::take(&mut *lock(&self.resting));
        for (desk, _) in all.into_values() {
            self.close(desk).await;
        }
    }

    /// Whether the session rests here with a live sandbox, and since when.
    pub(crate) fn resting(&self) -> Vec<(String, Duration)> {
        let resting = lock(&self.resting);
        let rows = resting
            .iter()
            .map(|(id, (_, since))| (id.clone(), since.elapsed()));
        rows.collect()
    }

    /// Ends the sandbox of a resting session; whether there was one.
    pub(crate) async fn end_resting(&self, session: &str) -> bool {
        let desk = lock(&self.resting).remove(session);
        match desk {
            Some((desk, _)) => {
                self.close(desk).await;
                true
            }
            None => false,
        }
    }

    /// Lines of a session's log.
    pub(crate) async fn log(&self, session: &str) -> Option<String> {
        let (store, session) = (self.store.clone(), session.to_owned());
        blocking(move || store.log(&session)).await
    }

    async fn close(&self, mut desk: Desk) {
        let bytes = match &desk.live {
            Some(live) => tokio::time::timeout(COUNT_TIME, live.tools.usage()).await,
            None => Ok(Ok(0)),
        };
        let bytes = bytes.ok().and_then(Result::ok).filter(|bytes| *bytes > 0);
        desk.end_sandbox().await;
        desk.disk(move |disk| disk.used(bytes)).await;
    }

    fn overdue(&self) -> Vec<Desk> {
        let mut resting = lock(&self.resting);
        let idle = self.limits.sandbox_idle;
        let over = resting
            .iter()
            .filter(|(_, (desk, since))| since.elapsed() >= idle || desk.locked().kept.is_wanted());
        let ids = over.map(|(id, _)| id.clone()).collect::<Vec<_>>();
        let desks = ids.iter().filter_map(|id| resting.remove(id));
        desks.map(|(desk, _)| desk).collect()
    }

    async fn has_workspace(&self, name: &WorkspaceName) -> bool {
        match self.executor.workspaces().await {
            Ok(names) => names.contains(name),
            // It cannot say: it would make a new one, which the agent sees for itself.
            Err(_) => true,
        }
    }

    async fn delete_workspace(&self, name: &WorkspaceName) -> bool {
        match self.executor.delete_workspace(name).await {
            Ok(()) | Err(CreateError::NotFound | CreateError::Unsupported { .. }) => true,
            Err(error) => {
                warn!(workspace = name.as_str(), %error, "a workspace cannot be deleted now");
                false
            }
        }
    }
}

impl Desk {
    /// No call has used this workspace yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// A call of this session was found to have run elsewhere, and the agent was not told so yet.
    pub(crate) fn has_past_elsewhere(&self) -> bool {
        self.replaces
    }

    /// Whether files that an agent with this past may count on are not here, and it was not told so yet.
    pub(crate) fn lacks_files(&self, has_past: bool) -> bool {
        self.fresh && (has_past || self.replaces)
    }

    /// Notes that a call of this session ran elsewhere.
    pub(crate) fn note_past(&mut self) {
        self.replaces = true;
    }

    fn start_anew(&mut self) {
        self.replaces |= !self.fresh;
        self.fresh = true;
    }

    /// Notes that the agent knows what this workspace holds.
    pub(crate) async fn settle_in(&mut self) {
        self.replaces = false;
        if std::mem::take(&mut self.fresh)
            && let Err(error) = self.disk(|disk| disk.kept.settle_in()).await
        {
            warn!(session = %self.session, %error, "the session's record cannot be written");
        }
    }

    /// Name of the workspace, for people.
    pub(crate) fn workspace(&self) -> String {
        self.locked().kept.record().workspace.as_str().to_owned()
    }

    /// Whether these skills are in the sandbox that lives now.
    pub(crate) fn has_skill(&self, skill: &str) -> bool {
        let live = self.live.as_ref();
        live.is_some_and(|live| live.skills.iter().any(|there| there == skill))
    }

    /// Notes that a skill is there.
    pub(crate) fn add_skill(&mut self, skill: String) {
        if let Some(live) = &mut self.live {
            live.skills.push(skill);
        }
    }

    /// Works on what is on disk, off the runtime's threads.
    ///
    /// # Cancel safety
    /// The work goes on when the future is dropped.
    pub(crate) async fn disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Disk) -> T + Send + 'static,
    ) -> T {
        let disk = Arc::clone(&self.disk);
        blocking(move || work(&mut disk.lock().unwrap_or_else(PoisonError::into_inner))).await
    }

    /// Forgets a sandbox that is lost; the next call gets another.
    pub(crate) async fn end_sandbox(&mut self) {
        if let Some(live) = self.live.take()
            && let Err(error) = live.sandbox.destroy().await
        {
            warn!(session = %self.session, %error, "the sandbox cannot be ended now");
        }
    }

    async fn remove(self) {
        let Some(disk) = Arc::into_inner(self.disk) else {
            return;
        };
        let disk = disk.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = blocking(move || disk.kept.remove()).await {
            warn!(session = %self.session, %error, "the session's folder cannot be removed");
        }
    }

    fn locked(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    /// What happened to each call.
    pub(crate) fn journal(&mut self) -> &mut Journal {
        &mut self.journal
    }

    /// Adds a line to the session's log.
    pub(crate) fn log(&self, line: &str) {
        self.kept.log(line);
    }

    fn used(&mut self, bytes: Option<u64>) {
        if let Err(error) = self.kept.used(Timestamp::now(), bytes) {
            warn!(%error, "the session's record cannot be written");
        }
    }

    fn renew(&mut self) {
        if let Err(error) = self.kept.renew() {
            warn!(%error, "the session's record cannot be written");
        }
    }
}

impl std::fmt::Debug for Desks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desks").finish_non_exhaustive()
    }
}

/// Runs what waits for the disk where it holds nobody up.
///
/// # Panics
/// When `work` does.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
