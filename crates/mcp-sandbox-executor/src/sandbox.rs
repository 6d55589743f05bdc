use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::by_exec;
use crate::{
    Capabilities, Command, CreateError, Label, Process, SandboxError, SandboxId, SandboxSpec,
    WorkspaceName,
};

/// Makes and finds sandboxes.
#[async_trait]
pub trait Executor: Send + Sync {
    /// What this backend can do, as configured and as found at start.
    fn capabilities(&self) -> Capabilities;

    /// Makes a sandbox; when it returns, commands can run.
    ///
    /// # Errors
    /// Anything that the specification asks for and that cannot be given is an
    /// error, never a silent difference.
    ///
    /// # Cancel safety
    /// A dropped call leaves no sandbox behind.
    async fn create(&self, spec: SandboxSpec) -> Result<Box<dyn Sandbox>, CreateError>;

    /// Another handle to a live sandbox.
    ///
    /// # Errors
    /// [`CreateError::NotFound`] when it is gone, `Unsupported` without
    /// [`Capabilities::listing`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    async fn attach(&self, id: &SandboxId) -> Result<Box<dyn Sandbox>, CreateError> {
        let _ = id;
        Err(CreateError::Unsupported {
            what: "attaching to a sandbox",
        })
    }

    /// Live sandboxes that carry all of `labels`; what a reaper walks.
    ///
    /// # Errors
    /// `Unsupported` without [`Capabilities::listing`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    async fn list(&self, labels: &[Label]) -> Result<Vec<SandboxInfo>, CreateError> {
        let _ = labels;
        Err(CreateError::Unsupported {
            what: "listing sandboxes",
        })
    }

    /// Names of the workspaces that exist.
    ///
    /// # Errors
    /// `Unsupported` without [`Persistence::workspaces`](crate::Persistence).
    ///
    /// # Cancel safety
    /// Cancel safe.
    async fn workspaces(&self) -> Result<Vec<WorkspaceName>, CreateError> {
        Err(CreateError::Unsupported {
            what: "listing workspaces",
        })
    }

    /// Deletes a workspace that no live sandbox uses, with everything in it.
    ///
    /// # Errors
    /// [`CreateError::NotFound`] when there is none, `Forbidden` while it is in use, `Unsupported` without
    /// [`Persistence::workspaces`](crate::Persistence).
    ///
    /// # Cancel safety
    /// The deletion may go on when the future is dropped.
    async fn delete_workspace(&self, name: &WorkspaceName) -> Result<(), CreateError> {
        let _ = name;
        Err(CreateError::Unsupported {
            what: "deleting workspaces",
        })
    }
}

/// One live sandbox. Handles are cheap; dropping one destroys nothing.
#[async_trait]
pub trait Sandbox: Send + Sync {
    /// What it is.
    fn info(&self) -> &SandboxInfo;

    /// Starts a command.
    ///
    /// # Errors
    /// The command did not start: [`SandboxError::ProgramNotFound`] and its like.
    ///
    /// # Cancel safety
    /// A dropped call leaves no command running.
    async fn exec(&self, command: Command) -> Result<Box<dyn Process>, SandboxError>;

    /// Writes a file inside, parent directories included, with mode 0644 (0755
    /// when `executable`). Relative paths are relative to the working directory.
    /// By default with commands, for which a `sh` and a `base64` must be inside.
    ///
    /// # Errors
    /// [`SandboxError::File`] when the sandbox itself refuses.
    ///
    /// # Cancel safety
    /// Not cancel safe: a part may have been written.
    async fn put(&self, path: &str, content: Bytes, executable: bool) -> Result<(), SandboxError> {
        by_exec::put(self, path, &content, executable).await
    }

    /// Reads a regular file of at most `limit` bytes inside; by default with `cat`.
    ///
    /// # Errors
    /// [`SandboxError::FileNotFound`]; [`SandboxError::Limit`] when it is larger.
    ///
    /// # Cancel safety
    /// Cancel safe.
    async fn get(&self, path: &str, limit: u64) -> Result<Bytes, SandboxError> {
        by_exec::get(self, path, limit).await
    }

    /// Unpacks an uncompressed tar archive into a directory inside.
    ///
    /// # Errors
    /// As [`Sandbox::put`]; an entry that leads out of `path` is refused.
    ///
    /// # Cancel safety
    /// Not cancel safe: a part may have been unpacked.
    async fn put_archive(&self, path: &str, tar: Bytes) -> Result<(), SandboxError> {
        let _ = (path, tar);
        Err(SandboxError::Unsupported {
            what: "unpack archives",
        })
    }

    /// Packs a file or directory inside as tar of at most `limit` bytes.
    ///
    /// # Errors
    /// As [`Sandbox::get`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    async fn get_archive(&self, path: &str, limit: u64) -> Result<Bytes, SandboxError> {
        let _ = (path, limit);
        Err(SandboxError::Unsupported {
            what: "pack archives",
        })
    }

    /// Moves the end of the sandbox to `ttl` from now. Where it has no end of its
    /// own, this only tells whether it is still there.
    ///
    /// # Errors
    /// [`SandboxError::Gone`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    async fn keep_alive(&self, ttl: Duration) -> Result<(), SandboxError> {
        let _ = ttl;
        self.exec(Command::new(["true"])).await.map(drop)
    }

    /// Stops every process until [`Sandbox::resume`].
    ///
    /// # Errors
    /// `Unsupported` without [`Persistence::suspend`](crate::Persistence).
    ///
    /// # Cancel safety
    /// Cancel safe.
    async fn suspend(&self) -> Result<(), SandboxError> {
        Err(SandboxError::Unsupported { what: "suspend" })
    }

    /// Continues after [`Sandbox::suspend`].
    ///
    /// # Errors
    /// `Unsupported` without [`Persistence::suspend`](crate::Persistence).
    ///
    /// # Cancel safety
    /// Cancel safe.
    async fn resume(&self) -> Result<(), SandboxError> {
        Err(SandboxError::Unsupported { what: "resume" })
    }

    /// Copies the state under a name that a later specification can start from.
    ///
    /// # Errors
    /// `Unsupported` without [`Persistence::snapshot`](crate::Persistence).
    ///
    /// # Cancel safety
    /// Backend-specific.
    async fn snapshot(&self) -> Result<String, SandboxError> {
        Err(SandboxError::Unsupported { what: "snapshot" })
    }

    /// Kills everything inside and removes what the sandbox owned. A named
    /// workspace stays. Destroying a sandbox that is gone succeeds.
    ///
    /// # Errors
    /// The backend could not be reached.
    ///
    /// # Cancel safety
    /// The destruction goes on when the future is dropped.
    async fn destroy(&self) -> Result<(), SandboxError>;
}

/// What a sandbox is: fixed at its creation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SandboxInfo {
    /// Its id, unique within the backend.
    pub id: SandboxId,
    /// The labels it was made with.
    pub labels: BTreeMap<String, String>,
    /// Absolute path of the working directory inside.
    pub working_dir: String,
    /// Absolute path of a directory for temporary files inside.
    pub temp_dir: String,
    /// The layers of isolation, in force or not.
    pub layers: Vec<Layer>,
}

impl SandboxInfo {
    /// A sandbox with no labels that works in `working_dir`.
    pub fn new(id: SandboxId, working_dir: impl Into<String>) -> Self {
        Self {
            id,
            labels: BTreeMap::new(),
            working_dir: working_dir.into(),
            temp_dir: "/tmp".to_owned(),
            layers: Vec::new(),
        }
    }
}

/// One layer of isolation and whether it is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Layer {
    /// Stable name, such as `landlock`.
    pub name: String,
    /// Whether it is in force.
    pub state: LayerState,
    /// What exactly is in force, or why it is not.
    pub detail: String,
    /// What its absence exposes; empty when it is in force.
    pub exposes: String,
    /// What an operator can do about it; empty when it is in force.
    pub cure: String,
}

impl Layer {
    /// A layer that is in force.
    pub fn in_force(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            state: LayerState::InForce,
            detail: detail.into(),
            exposes: String::new(),
            cure: String::new(),
        }
    }

    /// A layer that is weaker than it should be, or absent.
    pub fn lacking(
        name: impl Into<String>,
        state: LayerState,
        detail: impl Into<String>,
        exposes: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            state,
            detail: detail.into(),
            exposes: exposes.into(),
            cure: cure.into(),
        }
    }
}

/// Whether a layer is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LayerState {
    /// Fully.
    InForce,
    /// In part, or only advisory.
    Partial,
    /// Not at all.
    Absent,
}
