//! From a request to numbers and strings: pure, so that it can be tested.

use mcp_sandbox_executor::{Limits, Mount, Network};

use crate::config::{Config, Tier};
use crate::message::{CreateRequest, SetupUse};
use crate::uids::UidRange;

/// User and group id of commands inside.
pub(crate) const AGENT: u32 = 1000;
/// The working directory inside.
pub(crate) const WORKSPACE: &str = "/workspace";
/// What the setup script has left, inside.
pub(crate) const SETUP: &str = "/setup";
/// The home directory inside.
pub(crate) const HOME: &str = "/home/agent";

const DEFAULT_MEMORY: u64 = 2 << 30;
const DEFAULT_PROCESSES: u32 = 1024;
const DEFAULT_DISK: u64 = 1 << 30;
const DEFAULT_INODES: u64 = 262_144;
const DEFAULT_OPEN_FILES: u32 = 4096;

/// Limits with every default filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EffectiveLimits {
    pub(crate) memory_bytes: u64,
    pub(crate) cpu_millis: Option<u32>,
    pub(crate) processes: u32,
    pub(crate) disk_bytes: u64,
    pub(crate) inodes: u64,
    pub(crate) open_files: u32,
    pub(crate) file_bytes: Option<u64>,
}

/// Who may do what inside: the content of the id maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdMaps {
    pub(crate) uid_map: String,
    pub(crate) gid_map: String,
    /// Init is root of its namespace and commands are somebody else.
    pub(crate) separate_init: bool,
}

/// The namespaces of a sandbox.
pub(crate) fn namespaces(network: Network) -> libc::c_int {
    let always = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    if network == Network::Host {
        always
    } else {
        always | libc::CLONE_NEWNET
    }
}

/// Maps for a private range (T1) or for the caller's own ids (T2).
pub(crate) fn id_maps(range: Option<UidRange>, uid: u32, gid: u32) -> IdMaps {
    match range {
        Some(range) => {
            let map = format!("0 {} {}\n", range.base(), UidRange::SIZE);
            IdMaps {
                uid_map: map.clone(),
                gid_map: map,
                separate_init: true,
            }
        }
        None => IdMaps {
            uid_map: format!("{AGENT} {uid} 1\n"),
            gid_map: format!("{AGENT} {gid} 1\n"),
            separate_init: false,
        },
    }
}

/// Fills in the operator's defaults, then ours.
///
/// The sandbox's own file systems live in memory, so that by default they take at
/// most half of it.
pub(crate) fn limits(asked: &Limits, config: &Config) -> EffectiveLimits {
    let ours = &config.limits;
    let memory_bytes = asked
        .memory_bytes
        .or(ours.memory_bytes)
        .unwrap_or(DEFAULT_MEMORY);
    EffectiveLimits {
        memory_bytes,
        cpu_millis: asked.cpu_millis.or(ours.cpu_millis),
        processes: asked
            .processes
            .or(ours.processes)
            .unwrap_or(DEFAULT_PROCESSES),
        disk_bytes: asked
            .disk_bytes
            .or(ours.disk_bytes)
            .unwrap_or_else(|| DEFAULT_DISK.min(memory_bytes / 2)),
        inodes: asked.inodes.or(ours.inodes).unwrap_or(DEFAULT_INODES),
        open_files: asked
            .open_files
            .or(ours.open_files)
            .unwrap_or(DEFAULT_OPEN_FILES),
        file_bytes: asked.file_bytes.or(ours.file_bytes),
    }
}

/// What the configuration forbids in this request, if anything.
pub(crate) fn forbidden(request: &CreateRequest, config: &Config, tier: Tier) -> Option<String> {
    if request.network == Network::Host && !config.allow_host_network {
        return Some("the host's network".to_owned());
    }
    if request.workspace.is_some() && config.state_dir.is_none() {
        return Some("a named workspace without a state directory".to_owned());
    }
    if request.setup != SetupUse::None && (config.setup.is_none() || config.state_dir.is_none()) {
        return Some("a setup script without a state directory".to_owned());
    }
    if request.setup != SetupUse::None && tier == Tier::T3 {
        return Some("a setup script at tier T3".to_owned());
    }
    let limits = limits(&request.limits, config);
    if limits.disk_bytes > limits.memory_bytes {
        return Some(
            "more disk than memory: a sandbox's own file systems live in memory".to_owned(),
        );
    }
    let elsewhere = |mount: &Mount| mount.source != mount.target;
    if tier == Tier::T3 && request.mounts.iter().any(elsewhere) {
        return Some("mounts at another path at tier T3".to_owned());
    }
    let unknown = |mount: &&Mount| !config.mounts.contains(mount);
    request
        .mounts
        .iter()
        .find(unknown)
        .map(|mount| format!("mounting {}", mount.source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(mounts: Vec<Mount>, network: Network) -> CreateRequest {
        CreateRequest {
            id: 1,
            workspace: None,
            mounts,
            limits: Limits::default(),
            network,
            ttl_ms: None,
            setup: SetupUse::None,
        }
    }

    #[test]
    fn only_mounts_that_the_operator_listed_are_allowed() {
        let listed = Mount::read_only("/data", "/data");
        let config = Config::new().with_mount(listed.clone()).unwrap();
        let allow =
            |mounts| forbidden(&request(mounts, Network::None), &config, Tier::T1).is_none();
        assert!(allow(vec![listed]));
        assert!(!allow(vec![Mount::read_write("/data", "/data")]));
        assert!(!allow(vec![Mount::read_only("/", "/data")]));
        assert!(!allow(vec![Mount::read_only("/data", "/other")]));
    }

    #[test]
    fn the_host_network_needs_the_operator() {
        let asked = request(Vec::new(), Network::Host);
        assert!(forbidden(&asked, &Config::new(), Tier::T1).is_some());
        assert!(forbidden(&asked, &Config::new().dangerous_host_network(), Tier::T1).is_none());
    }

    #[test]
    fn host_root_is_never_mapped() {
        let own = id_maps(None, 1234, 1235);
        assert_eq!(own.uid_map, "1000 1234 1\n");
        assert_eq!(own.gid_map, "1000 1235 1\n");
        let range = UidRange::nth(0);
        assert!(range.base() >= 65_536);
        assert_eq!(
            id_maps(Some(range), 0, 0).uid_map,
            format!("0 {} 65536\n", range.base())
        );
    }

    #[test]
    fn limits_fall_back_to_the_operator_and_then_to_ours() {
        let mut operator = Limits::default();
        operator.memory_bytes = Some(5);
        operator.processes = Some(6);
        let mut asked = Limits::default();
        asked.processes = Some(7);
        let got = limits(&asked, &Config::new().with_default_limits(operator));
        assert_eq!(
            (got.memory_bytes, got.processes, got.inodes),
            (5, 7, DEFAULT_INODES)
        );
    }
}
