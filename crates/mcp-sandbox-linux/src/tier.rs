//! In which ways a sandbox can be tried to be built, strongest first.

use std::fmt;
use std::fs;

use rustix::process::{getegid, geteuid};

use crate::config::{Config, Tier};

/// One way to build sandboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// Root of the host: private ranges of ids, and control groups.
    RangesAndGroups,
    /// Root of the host without usable control groups.
    Ranges,
    /// The caller's own ids in a user namespace.
    OwnUser,
    /// No namespaces.
    Rules,
}

impl Attempt {
    pub(crate) fn tier(self) -> Tier {
        match self {
            Self::RangesAndGroups => Tier::T1,
            Self::Ranges | Self::OwnUser => Tier::T2,
            Self::Rules => Tier::T3,
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RangesAndGroups => "T1 (private ids, control groups)",
            Self::Ranges => "T2 (private ids, no control groups)",
            Self::OwnUser => "T2 (own user namespace)",
            Self::Rules => "T3 (Landlock and seccomp only)",
        })
    }
}

/// What to try here.
pub(crate) fn attempts(config: &Config) -> Vec<Attempt> {
    let root = geteuid().is_root() && getegid().is_root();
    let all: &[Attempt] = if root && owns_all_ids() {
        // Never the caller's own ids: that would map the host's root.
        &[Attempt::RangesAndGroups, Attempt::Ranges, Attempt::Rules]
    } else {
        &[Attempt::OwnUser, Attempt::Rules]
    };
    let strongest = config.strongest_tier.unwrap_or(Tier::T1);
    all.iter()
        .copied()
        .filter(|attempt| attempt.tier() >= strongest)
        .collect()
}

/// Why stronger attempts are not even made.
pub(crate) fn ruled_out(config: &Config) -> Vec<String> {
    match config.strongest_tier {
        Some(tier) if tier > Tier::T1 => vec![format!("nothing above {tier} is wanted")],
        _ if !geteuid().is_root() => {
            vec!["T1: not started as root (cure: start as root)".to_owned()]
        }
        _ if !owns_all_ids() => {
            vec!["T1: root of a user namespace only (cure: start as root of the host)".to_owned()]
        }
        _ => Vec::new(),
    }
}

/// What an operator can do about a step that failed, where that is known.
pub(crate) fn cure(step: &str) -> &'static str {
    match step {
        "make a user namespace" | "make the namespaces" => {
            "allow unprivileged user namespaces (sysctl kernel.apparmor_restrict_unprivileged_userns=0, \
             or user.max_user_namespaces above 0); in a container: --security-opt seccomp=unconfined"
        }
        "make a mount namespace" => {
            "run as root of the host, or in a container with --cap-add SYS_ADMIN"
        }
        "make control groups" | "make the control group" | "enter the control group" => {
            "delegate a control group with memory and pids (systemd: Delegate=yes), or mount cgroupfs writable"
        }
        "map user ids" => "start as root of the host, or as an ordinary user",
        "mount /proc" => "run the container with an unmasked /proc",
        step if step.ends_with("without following links") => {
            "give the real path, which holds no link"
        }
        _ => "see SECURITY.md, tiers of isolation",
    }
}

/// Whether this process is in a user namespace that maps every id to itself.
fn owns_all_ids() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}
