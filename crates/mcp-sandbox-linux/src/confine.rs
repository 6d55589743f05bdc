//! What init puts on itself, and so on every command: Landlock, capabilities, limits.

use std::io;
use std::os::fd::BorrowedFd;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, LandlockStatus,
    PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use mcp_sandbox_executor::{Layer, LayerState};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::plan::EffectiveLimits;

/// The version whose rules are asked for; older kernels give what they have.
const LANDLOCK: ABI = ABI::V7;

/// The paths that Landlock opens.
#[derive(Debug)]
pub(crate) struct PathRules {
    /// May be read and executed.
    pub(crate) read: Vec<String>,
    /// May also be written, with everything below.
    pub(crate) write: Vec<String>,
    /// Existing files may be written (devices), nothing may be made.
    pub(crate) devices: Vec<String>,
    /// TCP is denied too: only where there is no network namespace.
    pub(crate) deny_tcp: bool,
}

/// Restricts this process and its future children; reports what came of it.
pub(crate) fn landlock(
    rules: &PathRules,
    outlets: Option<BorrowedFd<'_>>,
) -> Result<Layer, landlock::RulesetError> {
    let everything = AccessFs::from_all(LANDLOCK);
    let read = AccessFs::from_read(LANDLOCK);
    let files = read | AccessFs::WriteFile | AccessFs::IoctlDev | AccessFs::Truncate;
    let write = everything & !(AccessFs::MakeChar | AccessFs::MakeBlock);
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(everything)?
        .scope(Scope::from_all(LANDLOCK))?;
    if rules.deny_tcp {
        ruleset = ruleset.handle_access(AccessNet::from_all(LANDLOCK))?;
    }
    let mut created = ruleset.create()?;
    let lists: [(&[String], BitFlags<AccessFs>); 3] = [
        (&rules.read, read),
        (&rules.write, write),
        (&rules.devices, files),
    ];
    for (paths, access) in lists {
        for path in paths {
            // A path that does not exist needs no rule.
            let Ok(fd) = PathFd::new(path) else { continue };
            let folder = std::fs::metadata(path).is_ok_and(|meta| meta.is_dir());
            let access = if folder {
                access
            } else {
                access & AccessFs::from_file(LANDLOCK)
            };
            created = created.add_rule(PathBeneath::new(fd, access))?;
        }
    }
    if let Some(outlets) = outlets {
        created = created.add_rule(PathBeneath::new(outlets, AccessFs::WriteFile))?;
    }
    let status = created.restrict_self()?;
    let abi = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => format!("{effective_abi:?}"),
        _ => String::new(),
    };
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Layer::in_force("landlock", format!("ABI {abi}")),
        RulesetStatus::PartiallyEnforced => lacking_landlock(
            LayerState::Partial,
            format!("kernel offers ABI {abi} of {LANDLOCK:?}"),
        ),
        RulesetStatus::NotEnforced => {
            lacking_landlock(LayerState::Absent, "kernel without Landlock".to_owned())
        }
    })
}

fn lacking_landlock(state: LayerState, detail: String) -> Layer {
    Layer::lacking(
        "landlock",
        state,
        detail,
        "the second lock on files, signals and abstract sockets; namespaces still hold",
        "Linux 6.12 or newer with landlock in the kernel's lsm= list",
    )
}

/// Gives up every capability for good, except `keep`, which init needs to
/// become the commands' user and which no command inherits.
pub(crate) fn drop_capabilities(keep: CapabilitySet) -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set().or_else(|error| match error {
        rustix::io::Errno::INVAL => Ok(()),
        error => Err(error),
    })?;
    for bit in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The first number beyond the last capability of this kernel.
            Err(rustix::io::Errno::INVAL) => break,
            // Without CAP_SETPCAP (T3 as an ordinary user) there is nothing to drop either:
            // no-new-privileges keeps the bounding set from mattering.
            Err(rustix::io::Errno::PERM) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let sets = CapabilitySets {
        effective: keep,
        permitted: keep,
        inheritable: CapabilitySet::empty(),
    };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// Lowers the resource limits of this process and its children.
pub(crate) fn resource_limits(
    limits: &EffectiveLimits,
    hard_memory: bool,
    own_user: bool,
) -> io::Result<()> {
    lower(Resource::Core, 0)?;
    lower(Resource::Nofile, u64::from(limits.open_files))?;
    if own_user {
        // Counted per user: with the caller's own, its other processes would count too.
        lower(Resource::Nproc, u64::from(limits.processes))?;
    }
    lower(Resource::Memlock, 8 << 20)?;
    lower(Resource::Msgqueue, 819_200)?;
    if let Some(bytes) = limits.file_bytes {
        lower(Resource::Fsize, bytes)?;
    }
    if !hard_memory {
        // Per process only; `check` calls it advisory.
        lower(Resource::Data, limits.memory_bytes)?;
    }
    Ok(())
}

/// Never raises: root of a container may lack the capability to.
fn lower(resource: Resource, value: u64) -> io::Result<()> {
    let now = getrlimit(resource);
    let value = now.maximum.map_or(value, |maximum| value.min(maximum));
    Ok(setrlimit(
        resource,
        Rlimit {
            current: Some(value),
            maximum: Some(value),
        },
    )?)
}
