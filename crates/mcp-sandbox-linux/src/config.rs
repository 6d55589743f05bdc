//! What an operator allows, fixed for the life of a launcher.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fmt, io};

use mcp_sandbox_executor::{Limits, Mount};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How strong the isolation is; smaller is stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the tiers are the product's published contract"
)]
pub enum Tier {
    /// Root launcher: all namespaces, a private range of user ids for each
    /// sandbox, hard limits by control groups.
    T1,
    /// Ordinary user: all namespaces, one user id shared with the caller,
    /// limits as far as the kernel enforces them without control groups.
    T2,
    /// No namespaces to be had (a default container): Landlock and seccomp only.
    T3,
}

/// The text names no tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a tier (T1, T2 or T3)")]
#[non_exhaustive]
pub struct TierError;

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::T1 => "T1",
            Self::T2 => "T2",
            Self::T3 => "T3",
        })
    }
}

impl FromStr for Tier {
    type Err = TierError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "1" | "T1" | "t1" => Ok(Self::T1),
            "2" | "T2" | "t2" => Ok(Self::T2),
            "3" | "T3" | "t3" => Ok(Self::T3),
            _ => Err(TierError),
        }
    }
}

/// Configuration of the executor. Nothing in it can be changed, or exceeded,
/// by the service once the launcher has it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Config {
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) root: RootSource,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) allow_host_network: bool,
    pub(crate) require_tier: Option<Tier>,
    pub(crate) strongest_tier: Option<Tier>,
    pub(crate) owner: Option<Owner>,
    pub(crate) limits: Limits,
    pub(crate) helper: Option<PathBuf>,
    /// A shell script that prepares `/setup`.
    pub(crate) setup: Option<String>,
}

/// Where the programs inside come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RootSource {
    /// `/usr`, `/bin`, `/lib*`, `/opt` and a harmless part of `/etc` of the host.
    #[default]
    Host,
    /// A folder with a root file system.
    Folder(PathBuf),
    /// An image in OCI layout, which becomes such a folder at start.
    Layout(PathBuf),
}

/// The unprivileged identity of the service, which also owns workspaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Why a configuration is not acceptable.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Paths must be absolute and free of `.`, `..` and control characters.
    #[error("{path:?} is not a plain absolute path")]
    Path {
        /// The path.
        path: String,
    },
    /// A mount would hide what every sandbox needs.
    #[error("{target} is taken inside a sandbox")]
    Target {
        /// The target.
        target: String,
    },
    /// Root may not own workspaces.
    #[error("user id 0 may not own workspaces")]
    RootOwner,
    /// The root file system cannot be used.
    #[error("root file system {path:?}")]
    Root {
        /// The path.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
}

impl Config {
    /// Programs of the host, no mounts, no network, no named workspaces.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps named workspaces (and later caches) below `path`, made if absent.
    ///
    /// # Errors
    /// The path is not plain and absolute.
    pub fn with_state_dir(mut self, path: impl Into<PathBuf>) -> Result<Self, ConfigError> {
        let path = path.into();
        plain(&path.to_string_lossy())?;
        self.state_dir = Some(path);
        Ok(self)
    }

    /// Takes the programs from a folder with a root file system, or with an image in
    /// OCI layout (`oci-layout`, `index.json`, `blobs`; layers as tar or gzip).
    ///
    /// An image is unpacked at the first start, inside a sandbox, and kept in the
    /// state directory by its digest; its files belong to nobody in particular, can
    /// be read by everybody, and none is setuid.
    ///
    /// # Errors
    /// It is not a readable folder.
    pub fn with_root_folder(mut self, path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let root = path
            .canonicalize()
            .and_then(|root| std::fs::read_dir(&root).map(|_| root))
            .map_err(|source| ConfigError::Root {
                path: path.to_owned(),
                source,
            })?;
        self.root = if crate::image::is_layout(&root) {
            RootSource::Layout(root)
        } else {
            RootSource::Folder(root)
        };
        Ok(self)
    }

    /// Allows sandboxes to ask for this mount, exactly as given.
    ///
    /// The source is opened when the launcher starts, without following links.
    ///
    /// # Errors
    /// The paths are not plain and absolute, or the target is taken.
    pub fn with_mount(mut self, mount: Mount) -> Result<Self, ConfigError> {
        plain(&mount.source)?;
        plain(&mount.target)?;
        let top = mount.target.split('/').nth(1).unwrap_or_default();
        let own = matches!(top, "" | "proc" | "sys" | "dev" | "tmp" | "run" | "setup");
        let system = matches!(top, "usr" | "bin" | "sbin" | "etc") || top.starts_with("lib");
        if own || system {
            return Err(ConfigError::Target {
                target: mount.target,
            });
        }
        self.mounts.push(mount);
        Ok(self)
    }

    /// Allows sandboxes to ask for the host's network, unfiltered.
    #[must_use]
    pub fn dangerous_host_network(mut self) -> Self {
        self.allow_host_network = true;
        self
    }

    /// Refuses to start with weaker isolation than this.
    #[must_use]
    pub fn require_tier(mut self, tier: Tier) -> Self {
        self.require_tier = Some(tier);
        self
    }

    /// Does not try stronger tiers than this: for tests of the weaker ones.
    #[must_use]
    pub fn dangerous_strongest_tier(mut self, tier: Tier) -> Self {
        self.strongest_tier = Some(tier);
        self
    }

    /// The unprivileged user that the service becomes at T1 and that owns
    /// workspaces. Default: the host's user `mcp-sandbox`, else 64200.
    ///
    /// # Errors
    /// It is user id 0 or group id 0.
    pub fn with_owner(mut self, uid: u32, gid: u32) -> Result<Self, ConfigError> {
        if uid == 0 || gid == 0 {
            return Err(ConfigError::RootOwner);
        }
        self.owner = Some(Owner { uid, gid });
        Ok(self)
    }

    /// Limits of sandboxes that ask for none; an unset one keeps its default:
    /// 2 GiB memory, 1,024 processes, 1 GiB and 262,144 files of disk, 4,096
    /// open files.
    #[must_use]
    pub fn with_default_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Runs a shell script once, before the first sandbox, and shows what it leaves
    /// below `/setup` to every sandbox, read-only and with `/setup/bin` first on the
    /// path. The result is kept in the state directory by the script's content.
    #[must_use]
    pub fn with_setup(mut self, script: impl Into<String>) -> Self {
        self.setup = Some(script.into());
        self
    }

    /// The program to run as launcher; default: this program itself, which then
    /// must call [`enter_helper`](crate::enter_helper) first.
    #[must_use]
    pub fn with_helper(mut self, program: impl Into<PathBuf>) -> Self {
        self.helper = Some(program.into());
        self
    }
}

/// Accepts absolute paths without `.`, `..`, doubled slashes or control characters.
fn plain(path: &str) -> Result<(), ConfigError> {
    let good = path.len() > 1
        && path.len() < 4096
        && path.starts_with('/')
        && path
            .split('/')
            .skip(1)
            .all(|part| !matches!(part, "" | "." | ".."))
        && !path.chars().any(char::is_control);
    if good {
        Ok(())
    } else {
        Err(ConfigError::Path {
            path: path.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_mount(source: &str, target: &str, good: bool) {
        let added = Config::new().with_mount(Mount::read_only(source, target));
        assert_eq!(added.is_ok(), good, "{source} {target}");
    }

    #[test]
    fn mounts_are_plain_and_leave_the_system_alone() {
        check_mount("/data", "/data", true);
        check_mount("/data", "/workspace", true);
        check_mount("/data", "/home/agent/x", true);
        check_mount("data", "/data", false);
        check_mount("/data/../etc", "/data", false);
        check_mount("/data//x", "/data", false);
        check_mount("/", "/data", false);
        for taken in [
            "/", "/etc", "/etc/x", "/usr/x", "/lib64", "/proc/x", "/dev", "/tmp/x", "/run",
        ] {
            check_mount("/data", taken, false);
        }
    }

    #[test]
    fn root_owns_no_workspace() {
        assert!(Config::new().with_owner(0, 5).is_err());
        assert!(Config::new().with_owner(5, 0).is_err());
    }
}
