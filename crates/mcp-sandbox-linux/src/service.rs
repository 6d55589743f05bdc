//! The executor: the service's side of the launcher.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use mcp_sandbox_executor::{
    Capabilities, CreateError, Enforcement, Executor, FileHelper, Isolation, Label, Layer,
    NetworkKind, Sandbox, SandboxId, SandboxInfo, SandboxSpec, Workspace, WorkspaceName,
};
use thiserror::Error;
use tokio::sync::{OnceCell, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::config::{Config, RootSource, Tier};
use crate::helper;
use crate::image::ImageError;
use crate::link::Link;
use crate::message::{
    Born, CreateRequest, DeleteOutcome, Found, FromLauncher, Refusal, SetupUse, ToLauncher,
};
use crate::pipes::Outlets;
use crate::sandbox::{LinuxSandbox, Live};
use crate::setup;
use crate::unpacked;
use crate::wire::{self, WireError};

/// The launcher tries every tier within this time.
const START: Duration = Duration::from_secs(30);

/// Why the executor could not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The launcher could not be executed.
    #[error("starting the launcher")]
    Spawn(#[source] io::Error),
    /// The program does not call [`enter_helper`](crate::enter_helper) first, or
    /// the launcher ended early.
    #[error("the launcher does not answer; does main call enter_helper first?")]
    Launcher(#[source] WireError),
    /// The image of the root file system cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// No acceptable tier works on this host; the reasons are per tier.
    #[error("no acceptable isolation on this host: {}", reasons.join("; "))]
    NotPossible {
        /// Why each tier fell.
        reasons: Vec<String>,
    },
}

/// What isolation is in force, and why not more.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The tier in which a sandbox was really built.
    pub tier: Tier,
    /// Why each stronger tier does not work.
    pub fell: Vec<String>,
    /// Every layer of that sandbox.
    pub layers: Vec<Layer>,
}

/// Executor on this host. Clones share the launcher, which ends with the last
/// clone, handle and command.
#[derive(Clone, Debug)]
pub struct LinuxExecutor(Arc<Shared>);

/// What all handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) launcher: Arc<Link>,
    pub(crate) tables: Arc<Mutex<Tables>>,
    /// Where commands share this process's user: where their pipes are made.
    pub(crate) outlets: Option<Outlets>,
    config: Config,
    found: Found,
    next_id: AtomicU64,
    tasks: Mutex<JoinSet<()>>,
    /// The setup script has run.
    set_up: OnceCell<()>,
    // Last: its end is awaited by the runtime after the socket is closed.
    _child: tokio::process::Child,
}

/// What waits for the launcher, and what lives.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    creating: HashMap<u64, oneshot::Sender<Result<Newborn, Refusal>>>,
    live: HashMap<u64, Arc<Live>>,
    asking: HashMap<u64, oneshot::Sender<FromLauncher>>,
}

#[derive(Debug)]
struct Newborn {
    born: Born,
    socket: OwnedFd,
    host: OwnedFd,
    out_of_memory: Option<OwnedFd>,
}

impl LinuxExecutor {
    /// Starts the launcher, which finds the strongest tier that works here.
    ///
    /// # Errors
    /// [`StartError::NotPossible`] when no acceptable tier works.
    ///
    /// # Cancel safety
    /// A dropped call leaves no process behind.
    pub async fn start(mut config: Config) -> Result<Self, StartError> {
        if let RootSource::Layout(layout) = &config.root {
            config.root = RootSource::Folder(unpacked::ensure(&config, layout).await?);
        }
        Self::launch(config).await
    }

    /// Starts the launcher with the root that it gets for good.
    pub(crate) async fn launch(config: Config) -> Result<Self, StartError> {
        let (ours, theirs) = wire::pair().map_err(StartError::Spawn)?;
        let (command, copy) = helper::command(&config, theirs).map_err(StartError::Spawn)?;
        let child = tokio::process::Command::from(command)
            .spawn()
            .map_err(StartError::Spawn)?;
        drop(copy);
        let launcher = Arc::new(Link::new(ours).map_err(StartError::Spawn)?);
        let configure = ToLauncher::Configure(Box::new(config.clone()));
        launcher
            .send(&configure, &[])
            .await
            .map_err(StartError::Launcher)?;
        let answer = timeout(START, launcher.receive())
            .await
            .map_err(|_| StartError::Launcher(io::Error::from(io::ErrorKind::TimedOut).into()))?
            .map_err(StartError::Launcher)?
            .ok_or_else(|| {
                StartError::Launcher(io::Error::from(io::ErrorKind::UnexpectedEof).into())
            })?;
        let found = match answer.message {
            FromLauncher::Configured(found) => *found,
            FromLauncher::NotPossible { reasons } => {
                return Err(StartError::NotPossible { reasons });
            }
            _ => return Err(StartError::Launcher(WireError::Malformed)),
        };
        let mut fds = answer.fds.into_iter();
        let outlets = match (fds.next(), fds.next()) {
            (Some(make), Some(give)) => Some(Outlets { make, give }),
            _ => None,
        };
        debug!(tier = %found.tier, "launcher is up");
        let tables = Arc::new(Mutex::new(Tables::default()));
        let mut tasks = JoinSet::new();
        tasks.spawn(dispatch(Arc::clone(&launcher), Arc::clone(&tables)));
        Ok(Self(Arc::new(Shared {
            launcher,
            tables,
            outlets,
            config,
            found,
            next_id: AtomicU64::new(1),
            tasks: Mutex::new(tasks),
            set_up: OnceCell::new(),
            _child: child,
        })))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    /// What isolation is in force, and why not more.
    pub fn report(&self) -> Report {
        let Found {
            tier, fell, layers, ..
        } = self.0.found.clone();
        Report { tier, fell, layers }
    }

    /// Process id of the launcher, for supervision and tests.
    pub fn launcher_pid(&self) -> i32 {
        self.0.found.launcher_pid
    }
}

#[async_trait]
impl Executor for LinuxExecutor {
    fn capabilities(&self) -> Capabilities {
        let Found {
            tier,
            cgroup,
            freezer,
            own_users,
            ..
        } = &self.0.found;
        let isolation = if *tier == Tier::T3 {
            Isolation::Rules
        } else {
            Isolation::Namespaces
        };
        let mut all = Capabilities::minimal("linux", isolation);
        all.file_helper = FileHelper::BuiltIn;
        let by_group = |weaker| if *cgroup { Enforcement::Hard } else { weaker };
        let private_root = |otherwise| {
            if *tier == Tier::T3 {
                otherwise
            } else {
                Enforcement::Hard
            }
        };
        all.limits.memory = by_group(Enforcement::Advisory);
        all.limits.cpu = by_group(Enforcement::None);
        all.limits.processes = if *own_users {
            Enforcement::Hard
        } else {
            Enforcement::None
        };
        all.limits.disk = private_root(Enforcement::None);
        all.limits.workspace_disk = Enforcement::None;
        all.network = vec![NetworkKind::None];
        if self.0.config.allow_host_network {
            all.network.push(NetworkKind::Open);
        }
        all.persistence.workspaces = self.0.config.state_dir.is_some();
        all.persistence.suspend = *freezer;
        all.mounts = *tier != Tier::T3;
        all.time_to_live = true;
        all.streaming = true;
        all.stdin = true;
        all.terminal = true;
        all.signals = true;
        all.shielded_streams = true;
        all.listing = true;
        all
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Box<dyn Sandbox>, CreateError> {
        if spec.image.is_some() {
            return Err(CreateError::Unsupported {
                what: "images by name",
            });
        }
        let setup = match &self.0.config.setup {
            Some(script) => {
                self.0
                    .set_up
                    .get_or_try_init(|| setup::ensure(&self.0, script))
                    .await?;
                SetupUse::Kept
            }
            None => SetupUse::None,
        };
        Ok(Box::new(self.0.create(spec, setup).await?))
    }

    async fn attach(&self, id: &SandboxId) -> Result<Box<dyn Sandbox>, CreateError> {
        let found = lock(&self.0.tables)
            .live
            .values()
            .find(|live| live.info().id == *id)
            .cloned();
        let live = found.ok_or(CreateError::NotFound)?;
        Ok(Box::new(LinuxSandbox::new(live, Arc::clone(&self.0))))
    }

    async fn list(&self, labels: &[Label]) -> Result<Vec<SandboxInfo>, CreateError> {
        let carries = |info: &SandboxInfo| {
            labels
                .iter()
                .all(|label| info.labels.get(&label.name) == Some(&label.value))
        };
        let tables = lock(&self.0.tables);
        let infos = tables.live.values().map(|live| live.info());
        Ok(infos.filter(|info| carries(info)).cloned().collect())
    }

    async fn workspaces(&self) -> Result<Vec<WorkspaceName>, CreateError> {
        match self
            .0
            .ask(|request| ToLauncher::ListWorkspaces { request })
            .await?
        {
            FromLauncher::Workspaces { names, .. } => Ok(names),
            _ => Err(launcher_gone()),
        }
    }

    async fn delete_workspace(&self, name: &WorkspaceName) -> Result<(), CreateError> {
        let name = name.clone();
        let ask = |request| ToLauncher::DeleteWorkspace { request, name };
        match self.0.ask(ask).await? {
            FromLauncher::Deleted {
                outcome: DeleteOutcome::Done,
                ..
            } => Ok(()),
            FromLauncher::Deleted {
                outcome: DeleteOutcome::Missing,
                ..
            } => Err(CreateError::NotFound),
            FromLauncher::Deleted {
                outcome: DeleteOutcome::InUse,
                ..
            } => Err(CreateError::Forbidden {
                what: "deleting a workspace in use".to_owned(),
            }),
            _ => Err(CreateError::Backend(
                "the workspace could not be removed".into(),
            )),
        }
    }
}

impl Shared {
    /// Makes a sandbox.
    pub(crate) async fn create(
        self: &Arc<Self>,
        spec: SandboxSpec,
        setup: SetupUse,
    ) -> Result<LinuxSandbox, CreateError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let request = CreateRequest {
            id,
            workspace: match &spec.workspace {
                Workspace::Named(name) => Some(name.clone()),
                _ => None,
            },
            mounts: spec.mounts.clone(),
            limits: spec.limits,
            network: spec.network,
            ttl_ms: spec.time_to_live.map(millis),
            setup,
        };
        let (sender, receiver) = oneshot::channel();
        lock(&self.tables).creating.insert(id, sender);
        let create = ToLauncher::Create(Box::new(request));
        let asked = self.launcher.send(&create, &[]).await;
        asked.map_err(|error| CreateError::Backend(error.into()))?;
        let newborn = receiver
            .await
            .map_err(|_| launcher_gone())?
            .map_err(refused)?;
        let live = self.adopt(id, newborn, spec);
        let live = live.map_err(|error| CreateError::Backend(error.into()))?;
        Ok(LinuxSandbox::new(live, Arc::clone(self)))
    }

    pub(crate) fn allows_host_network(&self) -> bool {
        self.config.allow_host_network
    }

    /// Asks the launcher something that it answers by number.
    pub(crate) async fn ask(
        &self,
        message: impl FnOnce(u64) -> ToLauncher,
    ) -> Result<FromLauncher, CreateError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.ask_about(id, message(id)).await
    }

    /// Asks the launcher something that it answers with `id`.
    pub(crate) async fn ask_about(
        &self,
        id: u64,
        message: ToLauncher,
    ) -> Result<FromLauncher, CreateError> {
        let (sender, receiver) = oneshot::channel();
        lock(&self.tables).asking.insert(id, sender);
        let asked = self.launcher.send(&message, &[]).await;
        asked.map_err(|error| CreateError::Backend(error.into()))?;
        receiver.await.map_err(|_| launcher_gone())
    }

    fn adopt(&self, id: u64, newborn: Newborn, spec: SandboxSpec) -> io::Result<Arc<Live>> {
        let name = format!("lx-{}-{id}", self.found.launcher_pid);
        let sandbox_id = SandboxId::parse(&name).map_err(io::Error::other)?;
        let Newborn {
            born,
            socket,
            host,
            out_of_memory,
        } = newborn;
        let link = Link::new(socket)?;
        let live = Live::new(id, spec, sandbox_id, born, link, host, out_of_memory);
        let live = live.with_setup(self.config.setup.is_some());
        let live = Arc::new(live);
        lock(&self.tables).live.insert(id, Arc::clone(&live));
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(crate::sandbox::dispatch(Arc::clone(&live)));
        Ok(live)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Ends the tasks, which hold the sockets; the launcher then ends by itself.
        self.tasks
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .abort_all();
    }
}

/// Hands the launcher's messages to whoever waits for them.
async fn dispatch(launcher: Arc<Link>, tables: Arc<Mutex<Tables>>) {
    loop {
        let received = match launcher.receive::<FromLauncher>().await {
            Ok(Some(received)) => received,
            Ok(None) => break,
            Err(error) => {
                warn!(%error, "launcher");
                break;
            }
        };
        let mut fds = received.fds.into_iter();
        let mut tables = lock(&tables);
        match received.message {
            FromLauncher::Created { id, born } => {
                let waiting = tables.creating.remove(&id);
                let (Some(socket), Some(host)) = (fds.next(), fds.next()) else {
                    break;
                };
                let newborn = Newborn {
                    born,
                    socket,
                    host,
                    out_of_memory: fds.next(),
                };
                // When nobody waits any more the socket closes here, which ends the sandbox.
                waiting.map(|waiting| waiting.send(Ok(newborn)));
            }
            FromLauncher::Refused { id, refusal } => {
                tables
                    .creating
                    .remove(&id)
                    .map(|waiting| waiting.send(Err(refusal)));
            }
            FromLauncher::Destroyed { id, why } => {
                if let Some(live) = tables.live.remove(&id) {
                    live.end(why);
                }
            }
            FromLauncher::Frozen { id: request, .. }
            | FromLauncher::SetupIs { request, .. }
            | FromLauncher::Workspaces { request, .. }
            | FromLauncher::Deleted { request, .. } => {
                let waiting = tables.asking.remove(&request);
                waiting.map(|waiting| waiting.send(received.message));
            }
            FromLauncher::Configured(_) | FromLauncher::NotPossible { .. } => break,
        }
    }
    let mut tables = lock(&tables);
    tables.creating.clear();
    tables.asking.clear();
    for (_, live) in tables.live.drain() {
        live.end(crate::message::EndReason::Died);
    }
}

/// The lock is held for straight-line code only, which does not panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn launcher_gone() -> CreateError {
    CreateError::Backend("the launcher is gone".into())
}

fn refused(refusal: Refusal) -> CreateError {
    match refusal {
        Refusal::Forbidden(what) => CreateError::Forbidden { what },
        Refusal::Step { step, error } => CreateError::Isolation {
            step,
            source: error.into(),
        },
        Refusal::Full => CreateError::Full,
    }
}
