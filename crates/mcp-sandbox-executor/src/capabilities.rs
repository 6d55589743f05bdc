use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{CreateError, Limits, Network, SandboxSpec, Workspace};

/// What a backend can do: read before choosing it, shown to operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Capabilities {
    /// Short name of the backend, such as `linux` or `docker`.
    pub backend: String,
    /// What stands between a command and its host.
    pub isolation: Isolation,
    /// How the agent's file tools get inside.
    pub file_helper: FileHelper,
    /// Which of the limits of [`Limits`](crate::Limits) bind, and how hard.
    pub limits: LimitSupport,
    /// The kinds of network a sandbox may be given.
    pub network: Vec<NetworkKind>,
    /// What survives of a sandbox, and how.
    pub persistence: Persistence,
    /// Directories of the host or volumes of the provider may be mounted.
    pub mounts: bool,
    /// Sandboxes may end by themselves after a time to live.
    pub time_to_live: bool,
    /// A command's events come while it runs. Without it `exec` answers when the
    /// command has ended (see [`Completed`](crate::Completed)).
    pub streaming: bool,
    /// A running command can be given input.
    pub stdin: bool,
    /// A command can have a terminal.
    pub terminal: bool,
    /// A running command can be signalled. Without it only `kill` works.
    pub signals: bool,
    /// Standard error arrives apart from standard output.
    pub separate_stderr: bool,
    /// A command can have streams that other processes inside cannot tamper with
    /// (see [`Process::shielded`](crate::Process::shielded)).
    pub shielded_streams: bool,
    /// Sandboxes can be found again by label or id after a restart.
    pub listing: bool,
    /// The backend ends a sandbox after this time whatever its use; none: no end.
    pub max_lifetime: Option<Duration>,
    /// An idle sandbox is taken away after this time unless kept alive.
    pub idle_timeout: Option<Duration>,
}

impl Capabilities {
    /// A record that promises nothing but `exec` and `put`.
    pub fn minimal(backend: impl Into<String>, isolation: Isolation) -> Self {
        Self {
            backend: backend.into(),
            isolation,
            file_helper: FileHelper::Upload,
            limits: LimitSupport::default(),
            network: Vec::new(),
            persistence: Persistence::default(),
            mounts: false,
            time_to_live: false,
            streaming: false,
            stdin: false,
            terminal: false,
            signals: false,
            separate_stderr: true,
            shielded_streams: false,
            listing: false,
            max_lifetime: None,
            idle_timeout: None,
        }
    }
}

impl Capabilities {
    /// Refuses a specification that asks for what this record does not promise: the
    /// first thing that a simple `create` does.
    ///
    /// # Errors
    /// [`CreateError::Unsupported`], with the first thing that is not there.
    pub fn admits(&self, spec: &SandboxSpec) -> Result<(), CreateError> {
        let given = |limit: Enforcement| limit != Enforcement::None;
        let Limits {
            memory_bytes,
            cpu_millis,
            processes,
            disk_bytes,
            inodes,
            open_files,
            file_bytes,
        } = spec.limits;
        let files = inodes.is_some() || open_files.is_some() || file_bytes.is_some();
        let disk = disk_bytes.is_some() || files;
        let persistent = matches!(spec.workspace, Workspace::Named(_));
        let open = self.network.contains(&NetworkKind::Open);
        let asked = [
            (
                memory_bytes.is_some() && !given(self.limits.memory),
                "a limit on memory",
            ),
            (
                cpu_millis.is_some() && !given(self.limits.cpu),
                "a limit on processors",
            ),
            (
                processes.is_some() && !given(self.limits.processes),
                "a limit on processes",
            ),
            (disk && !given(self.limits.disk), "a limit on files"),
            (
                persistent && !self.persistence.workspaces,
                "a named workspace",
            ),
            (spec.network == Network::Host && !open, "an open network"),
            (!spec.mounts.is_empty() && !self.mounts, "mounts"),
            (
                spec.time_to_live.is_some() && !self.time_to_live,
                "a time to live",
            ),
            (spec.image.is_some(), "images by name"),
        ];
        match asked.into_iter().find(|(lacking, _)| *lacking) {
            Some((_, what)) => Err(CreateError::Unsupported { what }),
            None => Ok(()),
        }
    }
}

/// What stands between a command and its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Isolation {
    /// Nothing at all: for tests of callers only.
    Nothing,
    /// Access rules on the host's own kernel and file system.
    Rules,
    /// Namespaces or a container on a shared kernel.
    Namespaces,
    /// A kernel in user space.
    UserKernel,
    /// A virtual machine.
    VirtualMachine,
}

/// How hard a limit binds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Enforcement {
    /// The limit is ignored.
    #[default]
    None,
    /// Watched and answered after the fact, or evaded by a hostile command.
    Advisory,
    /// Enforced by the kernel, the hypervisor or the provider.
    Hard,
}

/// How hard each limit binds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LimitSupport {
    /// Memory.
    pub memory: Enforcement,
    /// Processor time per wall time.
    pub cpu: Enforcement,
    /// Number of processes and threads.
    pub processes: Enforcement,
    /// Bytes on the sandbox's own file systems (`/tmp`, an ephemeral workspace).
    pub disk: Enforcement,
    /// Bytes in a workspace that outlives the sandbox.
    pub workspace_disk: Enforcement,
}

/// A kind of network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NetworkKind {
    /// Nothing but the sandbox's own loopback.
    None,
    /// The network of the host or of the provider, unfiltered.
    Open,
    /// Address ranges may be allowed.
    Addresses,
    /// Host names may be allowed.
    Names,
}

/// What survives of a sandbox, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Persistence {
    /// Named workspaces outlive the sandbox.
    pub workspaces: bool,
    /// Processes can be stopped and continued.
    pub suspend: bool,
    /// The state can be copied and started from again.
    pub snapshot: bool,
}

/// How file tools get inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FileHelper {
    /// [`Program::FileHelper`](crate::Program::FileHelper) is understood.
    BuiltIn,
    /// Upload the static helper with `put`, then run it with `exec`.
    Upload,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Mount, WorkspaceName};

    #[track_caller]
    fn check(all: &Capabilities, spec: SandboxSpec, lacking: Option<&str>) {
        let got = match all.admits(&spec) {
            Ok(()) => None,
            Err(CreateError::Unsupported { what }) => Some(what),
            Err(error) => panic!("{error:?}"),
        };
        assert_eq!(got, lacking, "{spec:?}");
    }

    #[test]
    fn only_what_was_promised_is_admitted() {
        let mut all = Capabilities::minimal("x", Isolation::Nothing);
        let limits = Limits {
            memory_bytes: Some(1),
            ..Limits::default()
        };
        let plain = SandboxSpec::new().with_env("A", "1").with_label("b", "2");
        check(&all, plain.clone(), None);
        let named = Workspace::Named(WorkspaceName::parse("w").unwrap());
        let mount = Mount::read_only("/a", "/a");
        for (spec, what) in [
            (plain.clone().with_limits(limits), "a limit on memory"),
            (plain.clone().with_workspace(named), "a named workspace"),
            (plain.clone().with_mount(mount), "mounts"),
            (plain.clone().with_network(Network::Host), "an open network"),
            (
                plain.clone().with_time_to_live(Duration::ZERO),
                "a time to live",
            ),
        ] {
            check(&all, spec, Some(what));
        }
        all.limits.memory = Enforcement::Advisory;
        check(&all, plain.with_limits(limits), None);
    }
}
