//! User namespaces and their maps.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::{getegid, geteuid};

use crate::plan::IdMaps;
use crate::sys::{self, Forked};
use crate::wire;

/// Enters a user and a mount namespace of this process's own.
pub(crate) fn own_namespaces() -> io::Result<()> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    sys::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)?;
    let own = Path::new("/proc/self");
    fs::write(own.join("setgroups"), "deny")?;
    fs::write(own.join("uid_map"), format!("{uid} {uid} 1\n"))?;
    fs::write(own.join("gid_map"), format!("{gid} {gid} 1\n"))
}

/// Writes the maps of a process that was just cloned.
pub(crate) fn write_maps(pid: i32, maps: &IdMaps) -> io::Result<()> {
    let process = Path::new("/proc").join(pid.to_string());
    if !maps.separate_init {
        fs::write(process.join("setgroups"), "deny")?;
    }
    fs::write(process.join("uid_map"), &maps.uid_map)?;
    fs::write(process.join("gid_map"), &maps.gid_map)
}

/// A user namespace with these maps and no process.
pub(crate) fn user_namespace(maps: &IdMaps) -> io::Result<OwnedFd> {
    let (ours, theirs) = wire::pair()?;
    match sys::clone_process(libc::CLONE_NEWUSER)? {
        Forked::Child => {
            drop(ours);
            let _ = rustix::io::read(&theirs, &mut [0; 1]);
            sys::exit_now(0)
        }
        Forked::Parent(pid) => {
            drop(theirs);
            write_maps(pid, maps)?;
            let namespace = fs::File::open(format!("/proc/{pid}/ns/user"))?;
            drop(ours);
            Ok(namespace.into())
        }
    }
}
