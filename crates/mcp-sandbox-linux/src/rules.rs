//! The tier without namespaces: directories on the host, and who may use them.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::path::{Path, PathBuf};

use mcp_sandbox_executor::{Mount, MountAccess};
use rustix::process::geteuid;

use crate::cgroup::{instance_name, is_left_over};
use crate::config::{Config, RootSource};
use crate::confine::PathRules;
use crate::pipes::Outlets;
use crate::root::{DEVICES, ETC, PROGRAMS};
use crate::step::{Step as _, StepError};
use crate::sys;

/// Where this launcher's sandboxes have their files.
#[derive(Debug)]
pub(crate) struct Scratch {
    base: PathBuf,
}

/// The directories of one sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dirs {
    pub(crate) working: PathBuf,
    pub(crate) temp: PathBuf,
    pub(crate) home: PathBuf,
}

/// Names and settings that programs look up in `/etc` and `/proc`.
const MORE: &[&str] = &[
    "/etc/passwd",
    "/etc/group",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/bash.bashrc",
    "/etc/profile",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/version",
    "/proc/filesystems",
];

impl Scratch {
    /// Makes this launcher's directory, after removing those of dead ones.
    pub(crate) fn open() -> io::Result<Self> {
        let parent = Path::new("/tmp");
        for entry in fs::read_dir(parent)?.flatten() {
            if entry.file_name().to_str().is_some_and(is_left_over) {
                // Removed by descriptor; a link is removed and not followed.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let base = parent.join(instance_name(std::process::id())?);
        // Not recursive: an existing directory, made by somebody else, is an error.
        fs::DirBuilder::new().mode(0o711).create(&base)?;
        Ok(Self { base })
    }

    /// Makes the directories of a sandbox, owned by its commands' user.
    pub(crate) fn make(&self, id: u64, owner: Option<u32>) -> io::Result<Dirs> {
        let own = self.base.join(id.to_string());
        fs::DirBuilder::new().mode(0o711).create(&own)?;
        let make = |name| {
            let dir = own.join(name);
            fs::DirBuilder::new().mode(0o700).create(&dir)?;
            if let Some(id) = owner {
                chown(&dir, Some(id), Some(id))?;
            }
            Ok::<_, io::Error>(dir)
        };
        Ok(Dirs {
            working: make("workspace")?,
            temp: make("tmp")?,
            home: make("home")?,
        })
    }

    /// A directory of named pipes; Landlock keeps it from being read.
    pub(crate) fn outlets(&self) -> io::Result<Outlets> {
        let dir = self.base.join("outlets");
        fs::DirBuilder::new().mode(0o700).create(&dir)?;
        let open = || Ok::<_, io::Error>(OwnedFd::from(fs::File::open(&dir)?));
        Ok(Outlets {
            make: open()?,
            give: open()?,
        })
    }

    /// Removes what a dead sandbox leaves.
    pub(crate) fn remove(&self, id: u64) {
        let _ = fs::remove_dir_all(self.base.join(id.to_string()));
    }

    /// Removes everything.
    pub(crate) fn close(&self) {
        let _ = fs::remove_dir_all(&self.base);
    }
}

impl Dirs {
    /// What Landlock opens for it: also `mounts`, which are where they are outside, for whom their files' modes let in.
    pub(crate) fn path_rules(&self, host_network: bool, mounts: &[Mount]) -> PathRules {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let programs = PROGRAMS.iter().map(|name| format!("/{name}"));
        let settings = ETC.iter().map(|name| format!("/etc/{name}"));
        let mut read = programs.chain(settings).collect::<Vec<_>>();
        read.extend(MORE.iter().map(|path| (*path).to_owned()));
        if host_network {
            read.push("/etc/resolv.conf".to_owned());
        }
        let of = |access| {
            let mounts = mounts.iter().filter(move |mount| mount.access == access);
            mounts.map(|mount| mount.target.clone())
        };
        read.extend(of(MountAccess::ReadOnly));
        let devices = DEVICES.iter().copied().chain(["ptmx", "pts"]);
        PathRules {
            read,
            write: [&self.working, &self.temp, &self.home]
                .map(|dir| text(dir))
                .into_iter()
                .chain(of(MountAccess::ReadWrite))
                .collect(),
            devices: devices.map(|name| format!("/dev/{name}")).collect(),
            deny_tcp: !host_network,
        }
    }
}

/// What must hold where there are only rules.
pub(crate) fn rules_only(config: &Config) -> Result<(), StepError> {
    let elsewhere = |mount: &Mount| mount.source != mount.target;
    if config.root != RootSource::Host || config.mounts.iter().any(elsewhere) {
        return Err(io::Error::other(
            "a root file system, and mounts at another path than they have outside, need namespaces",
        ))
        .step("run without namespaces");
    }
    let version = sys::landlock_version();
    if !rules_suffice(version, geteuid().is_root()) {
        return Err(io::Error::other(format!(
            "Landlock ABI {SCOPES}, or root for a user of its own for each sandbox, is needed; the kernel has ABI {version}"
        )))
        .step("restrict by Landlock");
    }
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).step("adopt orphans")
}

/// Whether this version of Landlock keeps sandboxes apart where nothing else does.
fn rules_suffice(version: i64, own_users: bool) -> bool {
    version >= SCOPES || version >= 1 && own_users
}

/// The version of Landlock that keeps signals and abstract sockets apart.
const SCOPES: i64 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_namespaces_landlock_must_scope_or_users_must_differ() {
        assert!(rules_suffice(SCOPES, false) && rules_suffice(SCOPES, true));
        assert!(!rules_suffice(SCOPES - 1, false) && rules_suffice(SCOPES - 1, true));
        // A kernel without it answers a negative number.
        assert!(!rules_suffice(0, true) && !rules_suffice(-38, true));
    }
}
