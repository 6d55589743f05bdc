//! The only unsafe code: system calls that no safe wrapper offers.
//!
//! Everything here is called from single-threaded helper processes, except
//! [`become_user`], whose C library call covers all threads.
#![expect(
    unsafe_code,
    reason = "system calls without a safe wrapper; each block is argued"
)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;

use tokio::io::unix::AsyncFd;

/// The side of a fork that one is on.
pub(crate) enum Forked {
    /// The new process.
    Child,
    /// The old one, with the child's process id.
    Parent(i32),
}

/// How a child ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ended {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// Takes ownership of a descriptor that this program inherited at `execve`.
///
/// Returns `None` when it is not open.
pub(crate) fn inherited_fd(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: F_GETFD reads a flag of a number; it touches no memory.
    // JUSTIFICATION: a safe wrapper needs a descriptor, and whether this is one is the question.
    let open = unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0;
    // SAFETY: the descriptor is open and was left to this process by its parent for this purpose;
    // the launcher calls this once per number, before it opens anything.
    // JUSTIFICATION: an inherited descriptor is a bare number; std has no safe way to own it.
    open.then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Forks with new namespaces: `clone(2)` without a new stack.
pub(crate) fn clone_process(namespaces: libc::c_int) -> io::Result<Forked> {
    let flags = libc::c_ulong::from((namespaces | libc::SIGCHLD).cast_unsigned());
    let null = ptr::null_mut::<libc::c_void>();
    // SAFETY: without CLONE_VM and with a null stack this is fork: the child gets a copy of the
    // memory and runs on the same stack. The caller is single-threaded, so no lock is held by a
    // thread that the child lacks. The three pointers are unused with these flags, so their order,
    // which differs between architectures, does not matter.
    // JUSTIFICATION: the C library's clone wants a stack and a function, its fork takes no flags.
    match unsafe { libc::syscall(libc::SYS_clone, flags, null, null, null, null) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(
            i32::try_from(pid).map_err(io::Error::other)?,
        )),
    }
}

/// Moves this process into new namespaces.
pub(crate) fn unshare(namespaces: libc::c_int) -> io::Result<()> {
    // SAFETY: the caller is single-threaded and passes CLONE_NEW* flags only; none of them
    // unshares the descriptor table, on which std relies.
    // JUSTIFICATION: rustix deprecates its safe wrapper for the reason above.
    if unsafe { libc::unshare(namespaces) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Forks.
pub(crate) fn fork() -> io::Result<Forked> {
    // SAFETY: the caller is single-threaded (launcher or init), so that the child may do anything.
    // JUSTIFICATION: std only forks to execute; file tools run in a fork without an exec.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid)),
    }
}

/// Ends this process at once, without running destructors or exit handlers.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes a number and does not return.
    // JUSTIFICATION: std::process::exit would run the parent's exit handlers in a fork.
    unsafe { libc::_exit(code) }
}

/// Executes a program; returns only on failure.
pub(crate) fn execve(path: &CStr, argv: &[CString], envp: &[CString]) -> io::Error {
    let terminated = |list: &[CString]| {
        list.iter()
            .map(|s| s.as_ptr())
            .chain([ptr::null()])
            .collect::<Vec<_>>()
    };
    let (argv, envp) = (terminated(argv), terminated(envp));
    // SAFETY: both arrays are null-terminated, hold pointers to strings that live for the call,
    // and the kernel only reads them.
    // JUSTIFICATION: std's exec searches the host's PATH with the host's environment.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// Reaps one child that has ended, if any.
pub(crate) fn reap() -> Option<(i32, Ended)> {
    let mut status = 0;
    // SAFETY: the kernel writes one int to a live variable.
    // JUSTIFICATION: rustix's wait gives no pid for stopped children in one call on all versions,
    // and init must reap children that it does not know.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    if pid <= 0 {
        return None;
    }
    let ended = if libc::WIFSIGNALED(status) {
        Ended::Signal(libc::WTERMSIG(status))
    } else {
        Ended::Code(libc::WEXITSTATUS(status))
    };
    Some((pid, ended))
}

/// Blocks SIGCHLD and returns a descriptor that becomes readable with it.
pub(crate) fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before use, lives for the calls, and the new
    // descriptor is owned by nobody else.
    // JUSTIFICATION: rustix and std have neither signal masks nor signalfd.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(OwnedFd::from_raw_fd(fd))
        }
    }
}

/// Unblocks every signal and gives each its default action, for a new command.
pub(crate) fn reset_signals() {
    // SAFETY: the set is initialised by sigemptyset; SIG_DFL is a valid action for every signal
    // that can be set, and the others fail harmlessly.
    // JUSTIFICATION: std does this only inside its own spawn.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut());
        for signal in 1..32 {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}

/// Attributes of a mount to set, and an optional id mapping.
pub(crate) fn set_mount_attributes(
    mount: BorrowedFd<'_>,
    set: u64,
    recursive: bool,
    id_map: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    const ID_MAP: u64 = 0x0010_0000;
    let attributes = Attributes {
        set: set | if id_map.is_some() { ID_MAP } else { 0 },
        clear: 0,
        propagation: 0,
        user_namespace: id_map.map_or(0, |fd| u64::from(fd.as_raw_fd().cast_unsigned())),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the struct has the kernel's layout (four u64), its size is passed, the kernel only
    // reads it; path is an empty string, so the descriptor itself is meant.
    // JUSTIFICATION: no crate of ours wraps mount_setattr.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// SIOCSIFFLAGS, whose type differs between C libraries.
const SET_INTERFACE_FLAGS: libc::Ioctl = 0x8914;

/// Brings the loopback interface of this network namespace up.
pub(crate) fn loopback_up(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: an all-zero ifreq is valid; the name is shorter than the field and stays terminated;
    // the kernel reads and writes that struct only.
    // JUSTIFICATION: rustix has no interface ioctls; netlink would be fifty lines for one flag.
    unsafe {
        let mut request = std::mem::zeroed::<libc::ifreq>();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = libc::c_char::from_ne_bytes([*from]);
        }
        request.ifr_ifru.ifru_flags =
            libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(libc::c_short::MAX);
        if libc::ioctl(socket.as_raw_fd(), SET_INTERFACE_FLAGS, &raw const request) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The version of Landlock that the kernel offers; 0: none.
pub(crate) fn landlock_version() -> i64 {
    // SAFETY: with a null pointer, size 0 and the flag VERSION (1) the call only returns a number.
    // JUSTIFICATION: the landlock crate applies what there is and does not say it beforehand.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ptr::null::<libc::c_void>(),
            0,
            1,
        )
    };
    version.max(0)
}

/// Marks every descriptor from `first` on to be closed at exec.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: three numbers; no descriptor is closed, only its flag changes.
    // JUSTIFICATION: no safe wrapper for close_range.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Locks one byte of a file for this open file description; false: somebody else has it.
///
/// The lock ends when the last copy of the descriptor is closed, in whatever process.
pub(crate) fn lock_byte(file: BorrowedFd<'_>, byte: i64) -> io::Result<bool> {
    // SAFETY: an all-zero flock is valid; the kernel reads that struct only (F_OFD_SETLK).
    // JUSTIFICATION: rustix and std lock whole files only, and one file per range would be left
    // behind by a kill.
    let result = unsafe {
        let mut lock = std::mem::zeroed::<libc::flock>();
        lock.l_type = libc::c_short::try_from(libc::F_WRLCK).unwrap_or(1);
        lock.l_whence = libc::c_short::try_from(libc::SEEK_SET).unwrap_or(0);
        lock.l_start = byte;
        lock.l_len = 1;
        libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock)
    };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

/// Makes the whole process another user, for good: all three ids, no further groups.
pub(crate) fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: numbers only, and a null pointer with length zero. The C library applies the change
    // to every thread of the process.
    // JUSTIFICATION: rustix changes the calling thread only, which would leave the others root.
    let results = unsafe {
        [
            libc::setgroups(0, ptr::null()),
            libc::setresgid(gid, gid, gid),
            libc::setresuid(uid, uid, uid),
        ]
    };
    if results.iter().all(|r| *r == 0) {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Closes every descriptor from `first` on.
///
/// Only for a process that never returns to whoever owns them.
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: the caller is a forked child that has taken what it needs below `first` and leaves
    // by _exit or execve, so that no owner of a closed descriptor ever runs again.
    // JUSTIFICATION: dropping every owner one by one is impossible: they live in the parent's
    // stack frames.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Puts a descriptor at a number that nobody in this process owns any more.
pub(crate) fn move_to(fd: OwnedFd, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the caller is a forked child as in `close_from`; whatever had this number is never
    // used again. dup3 fails when both numbers are equal, in which case nothing is to be done.
    // JUSTIFICATION: rustix's dup2 wants an owner of the target, and there is none left.
    unsafe {
        if fd.as_raw_fd() == number {
            return Ok(fd);
        }
        if libc::dup3(fd.as_raw_fd(), number, libc::O_CLOEXEC) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(number))
    }
}

/// Hands a descriptor to the runtime's poller.
pub(crate) fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is the sole owner of its number, always answers with that number, and is
    // moved into the result, which closes it only after taking it out of the poller.
    // JUSTIFICATION: the safe constructor is deprecated for types whose number may change; there
    // is no safe one for OwnedFd yet.
    Ok(unsafe { AsyncFd::register(fd) }?)
}
