//! Starting the launcher, and being it.

use std::env;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{
    CWD, MemfdFlags, Mode, OFlags, SealFlags, fchmod, fchown, fcntl_add_seals, memfd_create, openat,
};
use rustix::process::{Gid, Uid};

use crate::config::Config;
use crate::launcher;
use crate::sys;
use crate::workspace::default_owner;

/// The first line of `main`: when this process is a helper, lives as one and
/// does not return.
///
/// It must run before any thread is started and before a runtime is built.
pub fn enter_helper() {
    if env::args_os()
        .next()
        .is_some_and(|name| name == launcher::NAME)
    {
        sys::exit_now(i32::from(launcher::run().is_err()));
    }
}

/// Gives up root for good, in all threads: becomes the owner of workspaces.
///
/// For programs that have started the executor as root: only the launcher then
/// keeps root. Does nothing when this process is not root. Returns whether it
/// did anything.
///
/// # Errors
/// The system refused; the process must not go on.
pub fn drop_privileges(config: &Config) -> io::Result<bool> {
    if !rustix::process::geteuid().is_root() {
        return Ok(false);
    }
    let owner = config.owner.unwrap_or_else(default_owner);
    sys::become_user(owner.uid, owner.gid)?;
    Ok(true)
}

/// Makes a folder for the program's own files below one that root holds, which [`drop_privileges`] leaves behind.
///
/// As root the folder is given to the user that the program then becomes; without root it is just made. Nobody else may
/// enter it.
///
/// # Errors
/// The system refused, or something else than a folder stands there.
pub fn prepare_folder(config: &Config, path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let folder = openat(CWD, path, flags, Mode::empty())?;
    if rustix::process::geteuid().is_root() {
        let owner = config.owner.unwrap_or_else(default_owner);
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        fchown(&folder, Some(uid), Some(gid))?;
    }
    Ok(fchmod(&folder, Mode::RWXU)?)
}

/// A command that executes the launcher with `control` as its input.
///
/// The program is a sealed copy of this one, so that nothing that runs later can
/// change what the launcher executes. The file is returned to live until then.
pub(crate) fn command(config: &Config, control: OwnedFd) -> io::Result<(Command, Option<OwnedFd>)> {
    let (program, copy) = match &config.helper {
        Some(path) => (path.clone(), None),
        None => {
            let copy = sealed_copy()?;
            (
                PathBuf::from(format!("/proc/self/fd/{}", copy.as_raw_fd())),
                Some(copy),
            )
        }
    };
    let mut command = Command::new(program);
    command
        .arg0(launcher::NAME)
        .env_clear()
        .stdin(Stdio::from(control))
        .stdout(Stdio::null())
        .stderr(Stdio::inherit());
    Ok((command, copy))
}

fn sealed_copy() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // MFD_EXEC says that the copy may be executed; kernels before 6.3 do not know it.
    let executable = MemfdFlags::from_bits_retain(0x10);
    let copy = memfd_create(launcher::NAME, flags | executable)
        .or_else(|_| memfd_create(launcher::NAME, flags))?;
    let mut copy = File::from(copy);
    io::copy(&mut File::open("/proc/self/exe")?, &mut copy)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&copy, seals)?;
    Ok(copy.into())
}
