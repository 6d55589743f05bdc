//! Building one sandbox: what the launcher prepares and does before and after
//! its fork.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use mcp_sandbox_executor::{Layer, LayerState, Limits, MountAccess, Network, WorkspaceName};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::process::{Pid, PidfdFlags, Signal, getegid, geteuid, pidfd_open, pidfd_send_signal};

use crate::cgroup::{Group, Hierarchies};
use crate::config::Config;
use crate::confine::PathRules;
use crate::ids::{own_namespaces, user_namespace, write_maps};
use crate::init::{self, Birth, Go, Ready, Ties};
use crate::layers;
use crate::message::{Born, CreateRequest, DeleteOutcome, Found, Refusal, SetupStep, SetupUse};
use crate::pipes::Outlets;
use crate::plan::{self, AGENT, EffectiveLimits, HOME, IdMaps, SETUP, WORKSPACE};
use crate::root::{self, Additions, Template};
use crate::rules::{Dirs, Scratch, rules_only};
use crate::setups::Setups;
use crate::step::{Step as _, StepError};
use crate::sys::{self, Forked};
use crate::syscalls::{Filters, Internet, Ipc};
use crate::tier::Attempt;
use crate::uids::{LockedRange, Ranges, UidRange};
use crate::wire;
use crate::workspace::Workspaces;

/// A new sandbox answers within this time or is given up.
const BIRTH: Duration = Duration::from_secs(10);
/// Namespaces kept to map the owners of mounts; one descriptor each.
const ID_MAPS: usize = 256;

/// The service's ends of a sandbox's two connections.
#[derive(Debug)]
pub(crate) struct Ends {
    /// To its exec server.
    pub(crate) control: OwnedFd,
    /// To the host's side: silent until a sandbox has a network of its own that the host filters.
    pub(crate) host: OwnedFd,
}

/// What is made once and used by every sandbox.
#[derive(Debug)]
pub(crate) struct Foundation {
    config: Config,
    attempt: Attempt,
    template: Option<Template>,
    hierarchies: Option<Hierarchies>,
    ranges: Option<Ranges>,
    filters: Filters,
    /// For sandboxes that share the host's network namespace and may not use it.
    closed_filters: Filters,
    scratch: Option<Scratch>,
    outlets: Option<Outlets>,
    sources: Vec<OwnedFd>,
    id_maps: HashMap<(u32, u32, UidRange), OwnedFd>,
    pub(crate) workspaces: Workspaces,
    setups: Option<Setups>,
}

/// What one sandbox holds on the host's side.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) pid: i32,
    pub(crate) group: Option<Group>,
    pub(crate) workspace: Option<WorkspaceName>,
    /// Its init adopts orphans, for want of a pid namespace.
    pub(crate) adopts: bool,
    id: u64,
    _range: Option<LockedRange>,
}

impl Foundation {
    /// Makes it; every step may fail and says which it was.
    pub(crate) fn lay(config: Config, attempt: Attempt) -> Result<Self, StepError> {
        match attempt {
            Attempt::RangesAndGroups | Attempt::Ranges => {
                sys::unshare(libc::CLONE_NEWNS).step("make a mount namespace")?;
            }
            Attempt::OwnUser => own_namespaces().step("make a user namespace")?,
            Attempt::Rules => rules_only(&config)?,
        }
        let without_namespaces = attempt == Attempt::Rules;
        let template = if without_namespaces {
            None
        } else {
            Some(Template::build(&config)?)
        };
        let scratch = without_namespaces.then(Scratch::open);
        let scratch = scratch.transpose().step("make a directory below /tmp")?;
        let hierarchies = match attempt {
            Attempt::RangesAndGroups => Some(Hierarchies::open().step("make control groups")?),
            // An ordinary user may have been given groups.
            Attempt::OwnUser => Hierarchies::open().ok(),
            Attempt::Ranges | Attempt::Rules => None,
        };
        let ranges = (attempt != Attempt::OwnUser && geteuid().is_root()).then(Ranges::of_host);
        let sources = config
            .mounts
            .iter()
            .map(|mount| {
                open_source(&mount.source)
                    .step(&format!("open {} without following links", mount.source))
            })
            .collect::<Result<_, _>>()?;
        let workspaces =
            Workspaces::open(&config, "workspaces", ranges.is_some(), !without_namespaces)
                .step("open the state directory")?;
        // With a user of its own no command can open our pipes but as their mode says.
        let outlets = match (&template, &scratch) {
            _ if ranges.is_some() => None,
            (Some(template), _) => Some(template.outlets()),
            (None, Some(scratch)) => Some(scratch.outlets()),
            (None, None) => None,
        };
        let outlets = outlets
            .transpose()
            .step("make a directory for named pipes")?;
        let setups = config
            .setup
            .as_ref()
            .map(|script| Setups::open(&config, script, ranges.is_some()));
        let setups = setups.transpose().step("open the state directory")?;
        Ok(Self {
            setups,
            filters: filters(Internet::Allowed, without_namespaces)?,
            closed_filters: filters(Internet::Refused, without_namespaces)?,
            template,
            scratch,
            outlets,
            hierarchies,
            ranges,
            sources,
            id_maps: HashMap::new(),
            workspaces,
            attempt,
            config,
        })
    }

    /// Builds a sandbox and destroys it.
    pub(crate) fn prove(&mut self) -> Result<Vec<Layer>, StepError> {
        let request = CreateRequest {
            id: 0,
            workspace: None,
            mounts: Vec::new(),
            limits: Limits::default(),
            network: Network::None,
            ttl_ms: None,
            setup: SetupUse::None,
        };
        let (built, ends, born) = self.build(&request).map_err(|refusal| match refusal {
            Refusal::Step { step, error } => StepError { step, error },
            Refusal::Forbidden(what) => StepError {
                step: what,
                error: "forbidden".to_owned(),
            },
            Refusal::Full => StepError {
                step: "lock a range of user ids".to_owned(),
                error: "all are in use".to_owned(),
            },
        })?;
        drop(ends);
        end(built.pid).step("destroy the first sandbox")?;
        self.clear(built);
        Ok(born.layers)
    }

    /// What the service is told after the proof.
    pub(crate) fn found(&self, fell: Vec<String>, mut layers: Vec<Layer>) -> Found {
        layers.push(self.workspaces.layer());
        layers.push(Layer::lacking(
            "workspace space",
            LayerState::Partial,
            "space in a named workspace or a mount is that of the host's file system: no limit binds",
            "a session can fill the file system that holds the state directory",
            "put the state directory on a file system of its own, of the size that sessions may use",
        ));
        Found {
            tier: self.attempt.tier(),
            fell,
            layers,
            own_users: self.scratch.is_none() || self.ranges.is_some(),
            cgroup: self.hierarchies.is_some(),
            freezer: self
                .hierarchies
                .as_ref()
                .is_some_and(Hierarchies::can_freeze),
            launcher_pid: std::process::id().cast_signed(),
        }
    }

    /// Builds a sandbox; the descriptor is the other end of its init's socket.
    pub(crate) fn build(
        &mut self,
        request: &CreateRequest,
    ) -> Result<(Built, Ends, Born), Refusal> {
        if let Some(what) = plan::forbidden(request, &self.config, self.attempt.tier()) {
            return Err(Refusal::Forbidden(what));
        }
        let limits = plan::limits(&request.limits, &self.config);
        let range = self.lock_range(request)?;
        let ids = range.as_ref().map(|locked| locked.range);
        let (maps, mounts, dirs) = match &self.scratch {
            None => {
                let maps = plan::id_maps(ids, geteuid().as_raw(), getegid().as_raw());
                (Some(maps), self.detached_mounts(request, ids)?, None)
            }
            Some(_) => (None, Vec::new(), Some(self.host_dirs(request, ids)?)),
        };
        let group = match &self.hierarchies {
            Some(all) => Some(
                all.create(request.id, &limits)
                    .step("make the control group")?,
            ),
            None => None,
        };
        let mut built = Built {
            pid: 0,
            group,
            workspace: request.workspace.clone(),
            adopts: dirs.is_some(),
            id: request.id,
            _range: range,
        };
        let inside = Inside {
            maps,
            mounts,
            dirs,
            limits,
            commands: self.command_ids(ids),
        };
        let dirs = inside.dirs.clone();
        match self.give_birth(request, inside, &mut built) {
            Ok((ends, mut layers)) => {
                layers.extend(match &self.scratch {
                    Some(_) => layers::without_namespaces(request.network, self.ranges.is_some()),
                    None => layers::with_namespaces(
                        request.network,
                        &limits,
                        self.ranges.is_some(),
                        self.hierarchies.as_ref(),
                    ),
                });
                Ok((built, ends, born(layers, dirs.as_ref())))
            }
            Err(error) => {
                if built.pid != 0 {
                    let _ = end(built.pid);
                }
                self.clear(built);
                Err(error.into())
            }
        }
    }

    /// Gives back what a dead sandbox held.
    pub(crate) fn clear(&self, built: Built) {
        if let Some(group) = &built.group {
            group.kill();
            group.remove();
        }
        if let Some(scratch) = &self.scratch {
            scratch.remove(built.id);
        }
    }

    /// Where the service makes the pipes that commands cannot read.
    pub(crate) fn outlets(&self) -> Option<&Outlets> {
        self.outlets.as_ref()
    }

    /// Whether this process adopts orphans, for want of pid namespaces.
    pub(crate) fn adopts(&self) -> bool {
        self.scratch.is_some()
    }

    /// Gives back everything; no sandbox may live.
    pub(crate) fn close(&self) {
        if let Some(hierarchies) = &self.hierarchies {
            hierarchies.remove();
        }
        if let Some(scratch) = &self.scratch {
            scratch.close();
        }
    }

    /// Deletes a workspace that is not in use.
    pub(crate) fn delete_workspace(&self, name: &WorkspaceName, used: bool) -> DeleteOutcome {
        if used {
            DeleteOutcome::InUse
        } else {
            self.workspaces.delete(name)
        }
    }

    fn lock_range(&mut self, request: &CreateRequest) -> Result<Option<LockedRange>, Refusal> {
        let Some(ranges) = &mut self.ranges else {
            return Ok(None);
        };
        let wanted = match &request.workspace {
            Some(name) => self.workspaces.recorded_range(name),
            None => None,
        };
        let locked = match wanted {
            Some(range) => ranges.lock(range),
            None => ranges.lock_any(),
        };
        locked
            .step("lock a range of user ids")?
            .ok_or(Refusal::Full)
            .map(Some)
    }

    /// Copies of the workspace and the mounts, attached to nothing yet.
    fn detached_mounts(
        &mut self,
        request: &CreateRequest,
        range: Option<UidRange>,
    ) -> Result<Vec<(OwnedFd, String)>, StepError> {
        let mut mounts = Vec::new();
        if let Some(name) = &request.workspace {
            let folder = self
                .workspaces
                .folder(name, range)
                .step("open the workspace")?;
            let owner = if self.workspaces.id_mapped() {
                range
            } else {
                None
            };
            let mount = self
                .detached(&folder, MountAccess::ReadWrite, owner)
                .step("map the workspace")?;
            mounts.push((mount, WORKSPACE.to_owned()));
        }
        if let Some(name) = self
            .setups
            .as_ref()
            .and_then(|setups| setups.name(request.setup))
        {
            let name = name.clone();
            mounts.push((
                self.setup_mount(&name, request.setup, range)?,
                SETUP.to_owned(),
            ));
        }
        for asked in &request.mounts {
            let Some(at) = self.config.mounts.iter().position(|mount| mount == asked) else {
                continue;
            };
            let source =
                rustix::io::fcntl_dupfd_cloexec(&self.sources[at], 3).step("copy a mount")?;
            let mount = self
                .detached(&source, asked.access, range)
                .step(&format!("map the owner of {}", asked.source))?;
            mounts.push((mount, asked.target.clone()));
        }
        Ok(mounts)
    }

    fn setup_mount(
        &mut self,
        name: &WorkspaceName,
        used: SetupUse,
        range: Option<UidRange>,
    ) -> Result<OwnedFd, StepError> {
        let setups = self
            .setups
            .as_ref()
            .ok_or(io::ErrorKind::NotFound)
            .step("find the setup")?;
        let folder = setups.folder.folder(name, range).step("open the setup")?;
        let owner = if setups.folder.id_mapped() {
            range
        } else {
            None
        };
        let access = if used == SetupUse::Build {
            MountAccess::ReadWrite
        } else {
            MountAccess::ReadOnly
        };
        self.detached(&folder, access, owner).step("map the setup")
    }

    /// Looks after the setup; whether it was there, or done.
    pub(crate) fn setup_step(&self, step: SetupStep) -> bool {
        self.setups.as_ref().is_some_and(|setups| setups.step(step))
    }

    /// A detached copy with safe attributes. With a range of ids, the owner of
    /// the source is the commands' user inside, whoever it is outside.
    fn detached(
        &mut self,
        source: &OwnedFd,
        access: MountAccess,
        range: Option<UidRange>,
    ) -> io::Result<OwnedFd> {
        use rustix::mount::OpenTreeFlags;
        let writable = access == MountAccess::ReadWrite;
        let stat = rustix::fs::fstat(source)?;
        let Some(range) = range else {
            let mount = root::tree_of(source.as_fd(), OpenTreeFlags::AT_RECURSIVE)?;
            root::restrict(mount.as_fd(), writable, None, true)?;
            return Ok(mount);
        };
        if stat.st_uid == 0 || stat.st_gid == 0 {
            if writable {
                return Err(io::Error::other(
                    "it belongs to root, which no sandbox may write as: chown it, or mount it read-only",
                ));
            }
            let mount = root::tree_of(source.as_fd(), OpenTreeFlags::AT_RECURSIVE)?;
            root::restrict(mount.as_fd(), false, None, true)?;
            return Ok(mount);
        }
        let mount = root::tree_of(source.as_fd(), OpenTreeFlags::empty())?;
        let map = self.id_map((stat.st_uid, stat.st_gid, range))?;
        root::restrict(mount.as_fd(), writable, Some(map.as_fd()), false)?;
        Ok(mount)
    }

    /// A user namespace that says how a mount's owner appears inside.
    fn id_map(&mut self, key: (u32, u32, UidRange)) -> io::Result<&OwnedFd> {
        use std::collections::hash_map::Entry;
        if self.id_maps.len() >= ID_MAPS && !self.id_maps.contains_key(&key) {
            self.id_maps.clear();
        }
        match self.id_maps.entry(key) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let (uid, gid, range) = key;
                let inside = range.base() + AGENT;
                let maps = IdMaps {
                    uid_map: format!("{uid} {inside} 1\n"),
                    gid_map: format!("{gid} {inside} 1\n"),
                    separate_init: true,
                };
                Ok(entry.insert(user_namespace(&maps)?))
            }
        }
    }

    /// The directories of a sandbox without namespaces.
    fn host_dirs(&self, request: &CreateRequest, ids: Option<UidRange>) -> Result<Dirs, StepError> {
        let scratch = self
            .scratch
            .as_ref()
            .ok_or(io::ErrorKind::NotFound)
            .step("find the scratch space")?;
        let owner = ids.map(|range| range.base() + AGENT);
        let mut dirs = scratch
            .make(request.id, owner)
            .step("make the sandbox's directories")?;
        if let (Some(name), Some(state)) = (&request.workspace, &self.config.state_dir) {
            self.workspaces
                .folder(name, ids)
                .step("open the workspace")?;
            dirs.working = state.join("workspaces").join(name.as_str());
        }
        Ok(dirs)
    }

    /// Whom commands become, where that is not who init is.
    fn command_ids(&self, ids: Option<UidRange>) -> Option<u32> {
        match (&self.scratch, ids) {
            (None, Some(_)) => Some(AGENT),
            (Some(_), Some(range)) => Some(range.base() + AGENT),
            (_, None) => None,
        }
    }

    fn give_birth(
        &self,
        request: &CreateRequest,
        inside: Inside,
        built: &mut Built,
    ) -> Result<(Ends, Vec<Layer>), StepError> {
        let (ours, theirs) = wire::pair().step("make a socket")?;
        let (host, inside_host) = wire::pair().step("make a socket")?;
        let namespaces = if inside.maps.is_some() {
            plan::namespaces(request.network)
        } else {
            0
        };
        match sys::clone_process(namespaces).step("make the namespaces")? {
            Forked::Child => {
                drop((ours, host));
                let ties = Ties {
                    control: theirs,
                    host: inside_host,
                };
                init::live(ties, self.birth(request, inside, built.group.is_some()))
            }
            Forked::Parent(pid) => {
                built.pid = pid;
                drop((theirs, inside_host));
                if let Some(maps) = &inside.maps {
                    write_maps(pid, maps).step("map user ids")?;
                }
                if let Some(group) = &built.group {
                    group.attach(pid).step("enter the control group")?;
                }
                wire::send(ours.as_fd(), &Go, &[]).step("start the sandbox")?;
                let layers = await_ready(&ours)?;
                let ends = Ends {
                    control: ours,
                    host,
                };
                Ok((ends, layers))
            }
        }
    }

    /// What the new init is told; in the child.
    fn birth(&self, request: &CreateRequest, inside: Inside, hard_memory: bool) -> Birth<'_> {
        let Inside {
            maps,
            mounts,
            dirs,
            limits,
            commands,
        } = inside;
        let host_network = request.network == Network::Host;
        let additions = Additions {
            mounts,
            workspace: request.workspace.is_some(),
            limits,
        };
        Birth {
            root: self.template.as_ref().map(|template| (template, additions)),
            root_of_namespace: maps.is_some_and(|maps| maps.separate_init),
            commands,
            network: request.network,
            limits,
            own_user: commands.is_some() || dirs.is_none(),
            hard_memory,
            rules: match &dirs {
                Some(dirs) => dirs.path_rules(host_network, &request.mounts),
                None => path_rules(request),
            },
            outlets: self.outlets.as_ref().map(|outlets| outlets.make.as_fd()),
            filters: if dirs.is_some() && !host_network {
                &self.closed_filters
            } else {
                &self.filters
            },
        }
    }
}

/// What a sandbox is made of, from the launcher's side.
#[derive(Debug)]
struct Inside {
    /// None without namespaces.
    maps: Option<IdMaps>,
    mounts: Vec<(OwnedFd, String)>,
    /// Only without namespaces.
    dirs: Option<Dirs>,
    limits: EffectiveLimits,
    commands: Option<u32>,
}

fn filters(internet: Internet, without_namespaces: bool) -> Result<Filters, StepError> {
    let ipc = if without_namespaces {
        Ipc::Host
    } else {
        Ipc::Own
    };
    Filters::new(internet, ipc).step("compile the system call filter")
}

fn born(layers: Vec<Layer>, dirs: Option<&Dirs>) -> Born {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    match dirs {
        Some(dirs) => Born {
            layers,
            working_dir: text(&dirs.working),
            temp_dir: text(&dirs.temp),
            home_dir: text(&dirs.home),
            launcher_kills: true,
        },
        None => Born {
            layers,
            working_dir: WORKSPACE.to_owned(),
            temp_dir: "/tmp".to_owned(),
            home_dir: HOME.to_owned(),
            launcher_kills: false,
        },
    }
}

/// The rules for a sandbox with a private root.
fn path_rules(request: &CreateRequest) -> PathRules {
    let own = ["/tmp", "/dev/shm", "/run", HOME, WORKSPACE].map(str::to_owned);
    let writable = request
        .mounts
        .iter()
        .filter(|mount| mount.access == MountAccess::ReadWrite);
    let building = (request.setup == SetupUse::Build).then(|| SETUP.to_owned());
    PathRules {
        read: vec!["/".to_owned()],
        write: own
            .into_iter()
            .chain(building)
            .chain(writable.map(|mount| mount.target.clone()))
            .collect(),
        devices: vec!["/dev".to_owned()],
        deny_tcp: false,
    }
}

fn await_ready(control: &OwnedFd) -> Result<Vec<Layer>, StepError> {
    let mut fds = [PollFd::new(control, PollFlags::IN)];
    let wait = Timespec::try_from(BIRTH).step("wait for the sandbox")?;
    rustix::io::retry_on_intr(|| poll(&mut fds, Some(&wait))).step("wait for the sandbox")?;
    if fds[0].revents().is_empty() {
        return Err(io::ErrorKind::TimedOut).step("wait for the sandbox");
    }
    match wire::receive::<Ready>(control.as_fd()).step("hear from the sandbox")? {
        Some(ready) => match ready.message {
            Ready::Up(layers) => Ok(layers),
            Ready::Failed { step, error } => Err(StepError { step, error }),
        },
        None => Err(io::ErrorKind::UnexpectedEof).step("hear from the sandbox"),
    }
}

/// Kills a child and waits for its end (it stays to be reaped).
fn end(pid: i32) -> io::Result<()> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    pidfd_send_signal(&pidfd, Signal::KILL)?;
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
    Ok(())
}

/// Opens a mount's source without following any link.
fn open_source(path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(
        rustix::fs::CWD,
        path,
        flags,
        Mode::empty(),
        resolve,
    )?)
}
