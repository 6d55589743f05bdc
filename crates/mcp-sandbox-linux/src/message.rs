//! What service, launcher and init say to each other.

use std::path::PathBuf;

use mcp_sandbox_executor::{KillReason, Layer, Limits, Mount, Network, WorkspaceName};
use serde::{Deserialize, Serialize};

use crate::config::Config;

/// From the service to the launcher.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToLauncher {
    /// First message, exactly once: what is allowed for the life of the launcher.
    Configure(Box<Config>),
    /// Make a sandbox.
    Create(Box<CreateRequest>),
    /// Kill it and everything in it.
    Destroy { id: u64 },
    /// Move its end.
    KeepAlive { id: u64, ttl_ms: u64 },
    /// Stop or continue all of its processes.
    Freeze { id: u64, frozen: bool },
    /// Kill a command of a sandbox with every descendant.
    KillTree { id: u64, pid: i32 },
    /// Look after the setup.
    Setup { request: u64, step: SetupStep },
    /// Names of the workspaces that exist.
    ListWorkspaces { request: u64 },
    /// Delete a workspace that no live sandbox uses.
    DeleteWorkspace { request: u64, name: WorkspaceName },
}

/// What a sandbox should be; `id` is the service's, never reused.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CreateRequest {
    pub(crate) id: u64,
    pub(crate) workspace: Option<WorkspaceName>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) limits: Limits,
    pub(crate) network: Network,
    pub(crate) ttl_ms: Option<u64>,
    pub(crate) setup: SetupUse,
}

/// What becomes of `/setup`; which one it is, the launcher knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SetupUse {
    /// It is empty.
    #[default]
    None,
    /// The kept one, read-only.
    Kept,
    /// A new one, writable.
    Build,
}

/// A step of making a setup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SetupStep {
    /// Whether there is a kept one.
    Has,
    /// Keep the new one.
    Keep,
    /// Remove the new one.
    Drop,
}

/// From the launcher to the service.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromLauncher {
    /// A sandbox was built and destroyed at this tier.
    Configured(Box<Found>),
    /// No tier works here, or none that is allowed.
    NotPossible { reasons: Vec<String> },
    /// The sandbox is up. Descriptors: the connection to its init, the host's side for later use, and, where a control group
    /// limits memory, the file that counts what that cost.
    Created { id: u64, born: Born },
    /// It could not be made.
    Refused { id: u64, refusal: Refusal },
    /// It is gone, with all that it owned.
    Destroyed { id: u64, why: EndReason },
    /// Freezing and thawing were done, or not.
    Frozen { id: u64, done: bool },
    /// Answer to `Setup`.
    SetupIs { request: u64, done: bool },
    /// Answer to `ListWorkspaces`.
    Workspaces {
        request: u64,
        names: Vec<WorkspaceName>,
    },
    /// Answer to `DeleteWorkspace`.
    Deleted {
        request: u64,
        outcome: DeleteOutcome,
    },
}

/// What the launcher found out at start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) tier: crate::Tier,
    /// Why the better tiers do not work.
    pub(crate) fell: Vec<String>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) cgroup: bool,
    pub(crate) freezer: bool,
    /// Each sandbox has user ids, or a user namespace, of its own.
    pub(crate) own_users: bool,
    pub(crate) launcher_pid: i32,
}

/// A sandbox that is up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Born {
    pub(crate) layers: Vec<Layer>,
    pub(crate) working_dir: String,
    pub(crate) temp_dir: String,
    pub(crate) home_dir: String,
    /// Trees of commands are killed by the launcher: init cannot see them.
    pub(crate) launcher_kills: bool,
}

/// Why a sandbox could not be made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Refusal {
    /// The configuration does not allow it.
    Forbidden(String),
    /// This step is not possible.
    Step { step: String, error: String },
    /// All id ranges are in use.
    Full,
}

/// Why a sandbox ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum EndReason {
    /// The service asked.
    Asked,
    /// Its time to live was over.
    Expired,
    /// Its init ended: killed, or the service closed the connection.
    Died,
}

/// What became of a workspace to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum DeleteOutcome {
    Done,
    Missing,
    InUse,
    Failed,
}

/// From the service to an init.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToInit {
    /// Start a command. Descriptors: (input,) output, error; none with a terminal.
    Exec(Box<ExecRequest>),
    /// Signal its process group.
    Signal { id: u64, signal: i32 },
    /// Kill its process group and every descendant.
    KillTree { id: u64 },
}

/// One command.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExecRequest {
    pub(crate) id: u64,
    pub(crate) program: ProgramRequest,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) working_dir: PathBuf,
    pub(crate) input: bool,
    /// Its error stream is a socket, and it says first who it is.
    pub(crate) shielded: bool,
    pub(crate) terminal: Option<(u16, u16)>,
}

/// What to run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ProgramRequest {
    Argv(Vec<String>),
    FileHelper,
}

/// From an init to the service.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromInit {
    /// It runs. With a terminal the one descriptor is its controlling side.
    Started { id: u64, pid: i32 },
    /// It does not.
    Failed {
        id: u64,
        stage: ExecStage,
        errno: i32,
    },
    /// It has ended.
    Exited { id: u64, ended: ExecEnd },
}

/// How far a command came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ExecStage {
    /// Forking, descriptors, ids, terminal.
    Prepare,
    /// Entering the working directory.
    WorkingDir,
    /// Finding and executing the program.
    Program,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ExecEnd {
    Code(i32),
    Signal(i32),
    Killed(KillReason),
}
