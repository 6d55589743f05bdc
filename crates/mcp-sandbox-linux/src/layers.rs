//! The layers that the launcher puts in force, or not, in words.

use mcp_sandbox_executor::{Layer, LayerState, Network};

use crate::cgroup::Hierarchies;
use crate::plan::EffectiveLimits;

/// The layers that the launcher itself put in force.
pub(crate) fn with_namespaces(
    network: Network,
    limits: &EffectiveLimits,
    own_users: bool,
    groups: Option<&Hierarchies>,
) -> Vec<Layer> {
    let mut layers = vec![Layer::in_force(
        "namespaces",
        match network {
            Network::None => "user, mount, pid, network, ipc, uts, cgroup",
            _ => "user, mount, pid, ipc, uts, cgroup; the host's network",
        },
    )];
    layers.push(if own_users {
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
    layers.push(match groups {
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
            "start as root on a host whose control groups can be written, or in a group that is given to this user \
             (systemd-run --user --scope -p Delegate=yes)",
        ),
    });
    layers
}

/// The layers where there are only rules.
pub(crate) fn without_namespaces(network: Network, own_users: bool) -> Vec<Layer> {
    let cure = "allow user namespaces (in a container: --security-opt seccomp=unconfined), or start as root of the host";
    let absent = |name: &str, detail: &str, exposes: &str| {
        Layer::lacking(name, LayerState::Absent, detail, exposes, cure)
    };
    let mut layers = vec![
        absent(
            "namespaces",
            "no namespaces can be made here",
            "the host's processes are not hidden from the kernel's own checks; a killed launcher may leave processes of a sandbox",
        ),
        absent(
            "private root",
            "commands see the host's programs and their own directories below /tmp, opened by Landlock",
            "names and sizes of files elsewhere, never their content",
        ),
        absent(
            "limits",
            "no control groups and no own file system",
            "memory, processors and disk of the host",
        ),
    ];
    layers.push(if own_users {
        Layer::in_force("users", "a user id of its own for each sandbox")
    } else {
        Layer::lacking(
            "users",
            LayerState::Partial,
            "commands run with the caller's own user id",
            "a hole in Landlock lands in the caller's account",
            "start as root of the container",
        )
    });
    layers.push(if network == Network::Host {
        absent(
            "network",
            "the host's, because the operator said so",
            "whatever this host can reach",
        )
    } else {
        Layer::in_force("network", "no internet sockets at all, by seccomp")
    });
    layers
}

#[cfg(test)]
mod tests {
    use mcp_sandbox_executor::Limits;

    use super::*;
    use crate::config::Config;

    #[track_caller]
    fn check_users(layers: &[Layer], state: LayerState, says: &str) {
        let layer = layers.iter().find(|layer| layer.name == "users").unwrap();
        assert_eq!(layer.state, state);
        assert!(layer.detail.contains(says), "{layer:?}");
        assert_eq!(layer.cure.is_empty(), state == LayerState::InForce);
    }

    #[test]
    fn a_user_shared_with_the_caller_is_said() {
        let limits = crate::plan::limits(&Limits::default(), &Config::new());
        let none = Network::None;
        let private = with_namespaces(none, &limits, true, None);
        check_users(&private, LayerState::InForce, "private range");
        let shared = with_namespaces(none, &limits, false, None);
        check_users(&shared, LayerState::Partial, "caller's own user id");
        check_users(
            &without_namespaces(none, true),
            LayerState::InForce,
            "its own",
        );
        check_users(
            &without_namespaces(none, false),
            LayerState::Partial,
            "caller's own user id",
        );
    }
}
