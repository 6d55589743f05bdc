//! Sandbox executor on Linux namespaces, Landlock, seccomp and cgroups.
