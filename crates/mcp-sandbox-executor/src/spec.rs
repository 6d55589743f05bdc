use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What a sandbox should be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SandboxSpec {
    /// Free labels, to find it again.
    pub labels: BTreeMap<String, String>,
    /// Environment of every command. Nothing of the host's environment is added.
    pub env: BTreeMap<String, String>,
    /// What appears as the working directory.
    pub workspace: Workspace,
    /// Further directories of the host or volumes of the provider.
    pub mounts: Vec<Mount>,
    /// Limits on the sandbox as a whole.
    pub limits: Limits,
    /// Which network it gets.
    pub network: Network,
    /// It is destroyed after this time unless kept alive; none: never.
    pub time_to_live: Option<Duration>,
    /// Image, snapshot or root file system by the backend's own naming; none:
    /// what the executor is configured with.
    pub image: Option<String>,
}

impl SandboxSpec {
    /// An ephemeral workspace, no network, default limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a label.
    #[must_use]
    pub fn with_label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn with_env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Sets the workspace.
    #[must_use]
    pub fn with_workspace(mut self, workspace: Workspace) -> Self {
        self.workspace = workspace;
        self
    }

    /// Adds a mount.
    #[must_use]
    pub fn with_mount(mut self, mount: Mount) -> Self {
        self.mounts.push(mount);
        self
    }

    /// Sets the limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the network.
    #[must_use]
    pub fn with_network(mut self, network: Network) -> Self {
        self.network = network;
        self
    }

    /// Sets the time to live.
    #[must_use]
    pub fn with_time_to_live(mut self, ttl: Duration) -> Self {
        self.time_to_live = Some(ttl);
        self
    }
}

/// A label to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a label is a name and a value")]
pub struct Label {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

/// What appears as the working directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Workspace {
    /// Empty, and gone with the sandbox.
    #[default]
    Ephemeral,
    /// Kept under this name, shared by the sandboxes that name it.
    Named(WorkspaceName),
}

/// A host directory or provider volume made visible inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Mount {
    /// Host path or volume name.
    pub source: String,
    /// Absolute path inside.
    pub target: String,
    /// Whether it may be written.
    pub access: MountAccess,
}

impl Mount {
    /// A read-only mount.
    pub fn read_only(source: impl Into<String>, target: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            target: target.into(),
            access: MountAccess::ReadOnly,
        }
    }

    /// A writable mount.
    pub fn read_write(source: impl Into<String>, target: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            target: target.into(),
            access: MountAccess::ReadWrite,
        }
    }
}

/// Whether a mount may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "complete by definition")]
pub enum MountAccess {
    /// Reads only.
    ReadOnly,
    /// Reads and writes.
    ReadWrite,
}

/// Limits on a sandbox as a whole; none: the backend's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of memory, swap included.
    pub memory_bytes: Option<u64>,
    /// Thousandths of a processor.
    pub cpu_millis: Option<u32>,
    /// Processes and threads.
    pub processes: Option<u32>,
    /// Bytes on the sandbox's own file systems.
    pub disk_bytes: Option<u64>,
    /// Files on the sandbox's own file systems.
    pub inodes: Option<u64>,
    /// Open files of one process.
    pub open_files: Option<u32>,
    /// Bytes of one file.
    pub file_bytes: Option<u64>,
}

/// Which network a sandbox gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Network {
    /// Its own loopback and nothing else.
    #[default]
    None,
    /// The host's, unfiltered: the operator must have allowed it.
    Host,
}

/// Names one sandbox within a backend: 1 to 128 of `A-Z a-z 0-9 . _ -`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SandboxId(String);

/// The text is no sandbox id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a sandbox id")]
#[non_exhaustive]
pub struct SandboxIdError;

/// Names a workspace: 1 to 64 of `a-z 0-9 _ -`, the first a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkspaceName(String);

/// The text is no workspace name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a workspace name (1 to 64 of a-z 0-9 _ -)")]
#[non_exhaustive]
pub struct WorkspaceNameError;

impl SandboxId {
    /// An id that no other sandbox of this machine has: for providers without ids of
    /// their own.
    pub fn unique() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Its own process id may come back after a restart; the time does not.
        let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let nanoseconds = started.map_or(0, |time| time.as_nanos());
        Self(format!("{}-{nanoseconds}-{number}", std::process::id()))
    }

    /// Parses an id.
    ///
    /// # Errors
    /// Anything but 1 to 128 of `A-Z a-z 0-9 . _ -`.
    pub fn parse(text: &str) -> Result<Self, SandboxIdError> {
        let fits = (1..=128).contains(&text.len());
        let plain = text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if fits && plain {
            Ok(Self(text.to_owned()))
        } else {
            Err(SandboxIdError)
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl WorkspaceName {
    /// Parses a name.
    ///
    /// # Errors
    /// Anything that could be a path or a hidden file.
    pub fn parse(text: &str) -> Result<Self, WorkspaceNameError> {
        let fits = (1..=64).contains(&text.len());
        let plain = text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
        let first = text
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric());
        if fits && plain && first {
            Ok(Self(text.to_owned()))
        } else {
            Err(WorkspaceNameError)
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for WorkspaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for SandboxId {
    type Error = SandboxIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl TryFrom<String> for WorkspaceName {
    type Error = WorkspaceNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<SandboxId> for String {
    fn from(id: SandboxId) -> Self {
        id.0
    }
}

impl From<WorkspaceName> for String {
    fn from(name: WorkspaceName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_workspace(text: &str, good: bool) {
        assert_eq!(WorkspaceName::parse(text).is_ok(), good, "{text:?}");
    }

    #[test]
    fn workspace_names_are_never_paths() {
        check_workspace("sesn_01abc", true);
        check_workspace("0-a", true);
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "/",
            "-x",
            "_x",
            "A",
            "a\0b",
            "a b",
            &"a".repeat(65),
        ] {
            check_workspace(bad, false);
        }
    }

    #[test]
    fn ids_of_ones_own_are_ids_and_differ() {
        let (one, two) = (SandboxId::unique(), SandboxId::unique());
        assert_ne!(one, two);
        assert_eq!(SandboxId::parse(one.as_str()).as_ref(), Ok(&one));
    }

    #[test]
    fn sandbox_ids_are_checked_when_read() {
        assert!(serde_json::from_str::<SandboxId>("\"sbx_1\"").is_ok());
        assert!(serde_json::from_str::<SandboxId>("\"../x\"").is_err());
    }
}
