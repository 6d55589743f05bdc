//! Building one sandbox: what the launcher prepares and does before and after
//! its fork.

use std::collections::HashMap;
use std::fs;
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
use crate::init::{self, Birth, Go, Ready};
use crate::message::{Born, CreateRequest, DeleteOutcome, Found, Refusal};
use crate::plan::{self, AGENT, EffectiveLimits, HOME, IdMaps, WORKSPACE};
use crate::root::{self, Additions, Template};
use crate::step::{Step as _, StepError};
use crate::sys::{self, Forked};
use crate::syscalls::{Filters, Internet};
use crate::tier::Attempt;
use crate::uids::{LockedRange, Ranges, UidRange};
use crate::wire;
use crate::workspace::Workspaces;

/// A new sandbox answers within this time or is given up.
const BIRTH: Duration = Duration::from_secs(10);
/// Namespaces kept to map the owners of mounts; one descriptor each.
const ID_MAPS: usize = 256;

/// What is made once and used by every sandbox.
#[derive(Debug)]
pub(crate) struct Foundation {
    config: Config,
    attempt: Attempt,
    template: Option<Template>,
    hierarchies: Option<Hierarchies>,
    ranges: Option<Ranges>,
    filters: Filters,
    sources: Vec<OwnedFd>,
    id_maps: HashMap<(u32, u32, UidRange), OwnedFd>,
    pub(crate) workspaces: Workspaces,
}

/// What one sandbox holds on the host's side.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) pid: i32,
    pub(crate) group: Option<Group>,
    pub(crate) workspace: Option<WorkspaceName>,
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
            Attempt::Rules => {
                return Err(io::ErrorKind::Unsupported).step("run without namespaces");
            }
        }
        let template = Template::build(&config)?;
        let with_groups = attempt == Attempt::RangesAndGroups;
        let hierarchies = with_groups
            .then(Hierarchies::open)
            .transpose()
            .step("make control groups")?;
        let ranges = (attempt != Attempt::OwnUser).then(Ranges::of_host);
        let sources = config
            .mounts
            .iter()
            .map(|mount| {
                open_source(&mount.source)
                    .step(&format!("open {} without following links", mount.source))
            })
            .collect::<Result<_, _>>()?;
        let workspaces =
            Workspaces::open(&config, ranges.is_some()).step("open the state directory")?;
        Ok(Self {
            filters: Filters::new(Internet::Allowed).step("compile the system call filter")?,
            template: Some(template),
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
        };
        let (built, control, born) = self.build(&request).map_err(|refusal| match refusal {
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
        drop(control);
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
    ) -> Result<(Built, OwnedFd, Born), Refusal> {
        if let Some(what) = plan::forbidden(request, &self.config, self.attempt.tier()) {
            return Err(Refusal::Forbidden(what));
        }
        let limits = plan::limits(&request.limits, &self.config);
        let range = self.lock_range(request)?;
        let maps = plan::id_maps(
            range.as_ref().map(|locked| locked.range),
            geteuid().as_raw(),
            getegid().as_raw(),
        );
        let mounts = self.detached_mounts(request, range.as_ref().map(|locked| locked.range))?;
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
            _range: range,
        };
        match self.give_birth(request, &maps, limits, mounts, &mut built) {
            Ok((control, mut layers)) => {
                layers.extend(self.own_layers(request, &limits));
                let born = Born {
                    layers,
                    working_dir: WORKSPACE.to_owned(),
                    temp_dir: "/tmp".to_owned(),
                };
                Ok((built, control, born))
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
    }

    /// Gives back everything; no sandbox may live.
    pub(crate) fn close(&self) {
        if let Some(hierarchies) = &self.hierarchies {
            hierarchies.remove();
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

    fn give_birth(
        &self,
        request: &CreateRequest,
        maps: &IdMaps,
        limits: EffectiveLimits,
        mounts: Vec<(OwnedFd, String)>,
        built: &mut Built,
    ) -> Result<(OwnedFd, Vec<Layer>), StepError> {
        let (ours, theirs) = wire::pair().step("make a socket")?;
        match sys::clone_process(plan::namespaces(request.network)).step("make the namespaces")? {
            Forked::Child => {
                drop(ours);
                let additions = Additions {
                    mounts,
                    workspace: request.workspace.is_some(),
                    limits,
                };
                let birth = Birth {
                    root: self.template.as_ref().map(|template| (template, additions)),
                    separate_init: maps.separate_init,
                    network: request.network,
                    limits,
                    hard_memory: built.group.is_some(),
                    rules: path_rules(request),
                    filters: &self.filters,
                };
                init::live(theirs, birth)
            }
            Forked::Parent(pid) => {
                built.pid = pid;
                drop(theirs);
                write_maps(pid, maps).step("map user ids")?;
                if let Some(group) = &built.group {
                    group.attach(pid).step("enter the control group")?;
                }
                wire::send(ours.as_fd(), &Go, &[]).step("start the sandbox")?;
                let layers = await_ready(&ours)?;
                Ok((ours, layers))
            }
        }
    }

    /// The layers that the launcher itself put in force.
    fn own_layers(&self, request: &CreateRequest, limits: &EffectiveLimits) -> Vec<Layer> {
        let mut layers = vec![Layer::in_force(
            "namespaces",
            match request.network {
                Network::None => "user, mount, pid, network, ipc, uts, cgroup",
                _ => "user, mount, pid, ipc, uts, cgroup; the host's network",
            },
        )];
        layers.push(if self.ranges.is_some() {
            Layer::in_force("users", "a private range of ids; commands and init differ")
        } else {
            Layer::lacking(
                "users",
                LayerState::Partial,
                "commands run with the caller's own user id on the host",
                "a kernel escape lands in the caller's account; sandboxes share it",
                "start as root",
            )
        });
        layers.push(match &self.hierarchies {
            Some(all) => Layer::in_force(
                "limits",
                format!(
                    "{}; memory {} MiB, {} processes",
                    all.describe(),
                    limits.memory_bytes >> 20,
                    limits.processes
                ),
            ),
            None => Layer::lacking(
                "limits",
                LayerState::Partial,
                "no control groups: memory per process only, no processor limit; processes and disk hold",
                "a command can use the host's memory by many processes, and its processors",
                "start as root on a host whose control groups can be written",
            ),
        });
        layers
    }
}

/// The rules for a sandbox with a private root.
fn path_rules(request: &CreateRequest) -> PathRules {
    let own = ["/tmp", "/dev/shm", "/run", HOME, WORKSPACE].map(str::to_owned);
    let writable = request
        .mounts
        .iter()
        .filter(|mount| mount.access == MountAccess::ReadWrite);
    PathRules {
        read: vec!["/".to_owned()],
        write: own
            .into_iter()
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

/// Enters a user and a mount namespace of this process's own.
fn own_namespaces() -> io::Result<()> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    sys::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)?;
    let own = Path::new("/proc/self");
    fs::write(own.join("setgroups"), "deny")?;
    fs::write(own.join("uid_map"), format!("{uid} {uid} 1\n"))?;
    fs::write(own.join("gid_map"), format!("{gid} {gid} 1\n"))
}

fn write_maps(pid: i32, maps: &IdMaps) -> io::Result<()> {
    let process = Path::new("/proc").join(pid.to_string());
    if !maps.separate_init {
        fs::write(process.join("setgroups"), "deny")?;
    }
    fs::write(process.join("uid_map"), &maps.uid_map)?;
    fs::write(process.join("gid_map"), &maps.gid_map)
}

/// A user namespace with these maps and no process.
pub(crate) fn user_namespace(maps: &IdMaps) -> io::Result<OwnedFd> {
    let (ours, theirs) = wire::pair()?;
    match sys::clone_process(libc::CLONE_NEWUSER)? {
        Forked::Child => {
            drop(ours);
            let _ = rustix::io::read(&theirs, &mut [0; 1]);
            sys::exit_now(0)
        }
        Forked::Parent(pid) => {
            drop(theirs);
            write_maps(pid, maps)?;
            let namespace = fs::File::open(format!("/proc/{pid}/ns/user"))?;
            drop(ours);
            Ok(namespace.into())
        }
    }
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
