//! The system call filter: three programs, the strictest answer wins.
//!
//! - **list**: calls that were reviewed pass, every other one answers `ENOSYS`,
//!   as on an older kernel. A foreign architecture is killed, and numbers of the
//!   x32 kind are not on the list.
//! - **denials**: calls, or arguments of calls, that were reviewed and refused
//!   answer `EPERM`. Arguments are compared as the 32 bits that the kernel reads.
//! - **families**: other socket families than unix, IPv4, IPv6 and routing
//!   netlink answer `EAFNOSUPPORT`; without a network namespace also IPv4 and
//!   IPv6, unless the operator allows the host's network.

use std::collections::BTreeMap;

use libc::{c_int, c_long};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp,
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

#[cfg(target_arch = "x86_64")]
const ARCH: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCH: TargetArch = TargetArch::aarch64;

/// The compiled programs, in the order in which they are to be loaded.
#[derive(Debug)]
pub(crate) struct Filters(Vec<BpfProgram>);

/// Whether internet sockets may be made at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Internet {
    Allowed,
    Refused,
}

/// Whether System V and POSIX memory, queues and semaphores, and the places of unix
/// sockets, are the sandbox's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ipc {
    Own,
    /// They are the host's, so they are refused.
    Host,
}

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

impl Filters {
    /// Compiles them.
    pub(crate) fn new(internet: Internet, ipc: Ipc) -> Result<Self, BackendError> {
        let allow = SeccompAction::Allow;
        let errno = |code: c_int| SeccompAction::Errno(code.cast_unsigned());
        let programs = [
            (denials(ipc)?, allow.clone(), errno(libc::EPERM)),
            (
                families(internet, ipc)?,
                allow.clone(),
                errno(libc::EAFNOSUPPORT),
            ),
            (list(), errno(libc::ENOSYS), allow),
        ];
        programs
            .into_iter()
            .map(|(rules, other, matching)| {
                SeccompFilter::new(rules, other, matching, ARCH)?.try_into()
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Loads them on this thread and what it forks; there is no way back.
    pub(crate) fn load(&self) -> Result<(), seccompiler::Error> {
        self.0
            .iter()
            .try_for_each(|program| seccompiler::apply_filter(program))
    }
}

fn list() -> Rules {
    let shared = ALLOWED.iter().chain(ALLOWED_HERE);
    shared
        .chain(REFUSED)
        .chain(REFUSED_HERE)
        .map(|call| (*call, Vec::new()))
        .collect()
}

fn denials(ipc: Ipc) -> Result<Rules, BackendError> {
    let mut rules = Rules::new();
    if ipc == Ipc::Host {
        for call in [
            libc::SYS_shmget,
            libc::SYS_semget,
            libc::SYS_msgget,
            libc::SYS_mq_open,
        ] {
            rules.insert(call, Vec::new());
        }
    }
    for call in REFUSED.iter().chain(REFUSED_HERE) {
        rules.insert(*call, Vec::new());
    }
    let mut refuse = |call: c_long, conditions: Vec<SeccompCondition>| {
        rules
            .entry(call)
            .or_default()
            .push(SeccompRule::new(conditions)?);
        Ok::<(), BackendError>(())
    };
    for flag in NAMESPACE_FLAGS {
        refuse(libc::SYS_clone, vec![has(0, *flag)?])?;
        refuse(libc::SYS_unshare, vec![has(0, *flag)?])?;
    }
    refuse(libc::SYS_unshare, vec![has(0, CLONE_NEWTIME)?])?;
    // Writing into the input of a terminal, or into that of the console.
    for request in [TIOCSTI, TIOCLINUX, TIOCSETD] {
        refuse(libc::SYS_ioctl, vec![is(1, request)?])?;
    }
    // Any personality but the plain ones: no switching off of address randomisation.
    refuse(
        libc::SYS_personality,
        [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff]
            .into_iter()
            .map(|value| is_not(0, value))
            .collect::<Result<_, _>>()?,
    )?;
    for bit in [libc::S_ISUID, libc::S_ISGID] {
        refuse(libc::SYS_fchmod, vec![has(1, bit)?])?;
        refuse(libc::SYS_fchmodat, vec![has(2, bit)?])?;
        refuse(libc::SYS_mknodat, vec![has(2, bit)?])?;
        for making in [libc::O_CREAT, libc::O_TMPFILE & !libc::O_DIRECTORY] {
            let making = making.cast_unsigned();
            refuse(libc::SYS_openat, vec![has(3, bit)?, has(2, making)?])?;
            #[cfg(target_arch = "x86_64")]
            refuse(libc::SYS_open, vec![has(2, bit)?, has(1, making)?])?;
        }
        #[cfg(target_arch = "x86_64")]
        {
            refuse(libc::SYS_chmod, vec![has(1, bit)?])?;
            refuse(libc::SYS_creat, vec![has(1, bit)?])?;
            refuse(libc::SYS_mknod, vec![has(1, bit)?])?;
        }
    }
    for kind in [libc::S_IFCHR, libc::S_IFBLK] {
        refuse(libc::SYS_mknodat, vec![kind_is(2, kind)?])?;
        #[cfg(target_arch = "x86_64")]
        refuse(libc::SYS_mknod, vec![kind_is(1, kind)?])?;
    }
    Ok(rules)
}

fn families(internet: Internet, ipc: Ipc) -> Result<Rules, BackendError> {
    let mut known = vec![libc::AF_NETLINK];
    // Sockets with a path are not covered by Landlock: the host's could be reached.
    if ipc == Ipc::Own {
        known.push(libc::AF_UNIX);
    }
    if internet == Internet::Allowed {
        known.extend([libc::AF_INET, libc::AF_INET6]);
    }
    let other = known
        .into_iter()
        .map(|family| is_not(0, u64::from(family.cast_unsigned())))
        .collect::<Result<Vec<_>, _>>()?;
    let netlink = vec![
        is(0, u64::from(libc::AF_NETLINK.cast_unsigned()))?,
        is_not(2, 0)?,
    ];
    let socket = vec![SeccompRule::new(other)?, SeccompRule::new(netlink)?];
    let pair = vec![SeccompRule::new(vec![is_not(
        0,
        u64::from(libc::AF_UNIX.cast_unsigned()),
    )?])?];
    Ok([(libc::SYS_socket, socket), (libc::SYS_socketpair, pair)].into())
}

fn is(argument: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, Dword, SeccompCmpOp::Eq, value)
}

fn is_not(argument: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, Dword, SeccompCmpOp::Ne, value)
}

fn has(argument: u8, bit: u32) -> Result<SeccompCondition, BackendError> {
    let bit = u64::from(bit);
    SeccompCondition::new(argument, Dword, SeccompCmpOp::MaskedEq(bit), bit)
}

fn kind_is(argument: u8, kind: u32) -> Result<SeccompCondition, BackendError> {
    let mask = u64::from(libc::S_IFMT);
    SeccompCondition::new(
        argument,
        Dword,
        SeccompCmpOp::MaskedEq(mask),
        u64::from(kind),
    )
}

/// Numbers that the libc crate does not name everywhere.
const SYS_CACHESTAT: c_long = 451;
#[cfg(target_arch = "x86_64")]
const SYS_IO_PGETEVENTS: c_long = 333;
#[cfg(target_arch = "aarch64")]
const SYS_IO_PGETEVENTS: c_long = 292;
const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541C;
const TIOCSETD: u64 = 0x5423;
const CLONE_NEWTIME: u32 = 0x80;
const NAMESPACE_FLAGS: &[u32] = &[
    libc::CLONE_NEWNS.cast_unsigned(),
    libc::CLONE_NEWCGROUP.cast_unsigned(),
    libc::CLONE_NEWUTS.cast_unsigned(),
    libc::CLONE_NEWIPC.cast_unsigned(),
    libc::CLONE_NEWUSER.cast_unsigned(),
    libc::CLONE_NEWPID.cast_unsigned(),
    libc::CLONE_NEWNET.cast_unsigned(),
];

/// Reviewed and refused on every architecture.
const REFUSED: &[c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_nfsservctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[c_long] = &[
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_modify_ldt,
    libc::SYS__sysctl,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
];
#[cfg(target_arch = "aarch64")]
const REFUSED_HERE: &[c_long] = &[];

/// Reviewed and allowed on every architecture (some arguments are refused above).
const ALLOWED: &[c_long] = &[
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_brk,
    SYS_CACHESTAT,
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_chdir,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_clone,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_connect,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fchdir,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_fgetxattr,
    libc::SYS_flistxattr,
    libc::SYS_flock,
    libc::SYS_fremovexattr,
    libc::SYS_fsetxattr,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_futex,
    libc::SYS_futex_waitv,
    libc::SYS_get_mempolicy,
    libc::SYS_get_robust_list,
    libc::SYS_getcpu,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getgroups,
    libc::SYS_getitimer,
    libc::SYS_getpeername,
    libc::SYS_getpgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getpriority,
    libc::SYS_getrandom,
    libc::SYS_getresgid,
    libc::SYS_getresuid,
    libc::SYS_getrusage,
    libc::SYS_getsid,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_getxattr,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_rm_watch,
    libc::SYS_io_cancel,
    libc::SYS_io_destroy,
    libc::SYS_io_getevents,
    SYS_IO_PGETEVENTS,
    libc::SYS_io_setup,
    libc::SYS_io_submit,
    libc::SYS_ioctl,
    libc::SYS_ioprio_get,
    libc::SYS_ioprio_set,
    libc::SYS_kill,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_restrict_self,
    libc::SYS_lgetxattr,
    libc::SYS_linkat,
    libc::SYS_listen,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_lremovexattr,
    libc::SYS_lseek,
    libc::SYS_lsetxattr,
    libc::SYS_madvise,
    libc::SYS_mbind,
    libc::SYS_membarrier,
    libc::SYS_memfd_create,
    libc::SYS_mincore,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_mlockall,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mq_getsetattr,
    libc::SYS_mq_notify,
    libc::SYS_mq_open,
    libc::SYS_mq_timedreceive,
    libc::SYS_mq_timedsend,
    libc::SYS_mq_unlink,
    libc::SYS_mremap,
    libc::SYS_mseal,
    libc::SYS_msgctl,
    libc::SYS_msgget,
    libc::SYS_msgrcv,
    libc::SYS_msgsnd,
    libc::SYS_msync,
    libc::SYS_munlock,
    libc::SYS_munlockall,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_personality,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pipe2,
    libc::SYS_pkey_alloc,
    libc::SYS_pkey_free,
    libc::SYS_pkey_mprotect,
    libc::SYS_ppoll,
    libc::SYS_prctl,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_prlimit64,
    libc::SYS_process_mrelease,
    libc::SYS_pselect6,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_read,
    libc::SYS_readahead,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_remap_file_pages,
    libc::SYS_removexattr,
    libc::SYS_renameat2,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getattr,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_rr_get_interval,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_yield,
    libc::SYS_seccomp,
    libc::SYS_semctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_sendfile,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_set_mempolicy,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_setfsgid,
    libc::SYS_setfsuid,
    libc::SYS_setgid,
    libc::SYS_setgroups,
    libc::SYS_setitimer,
    libc::SYS_setpgid,
    libc::SYS_setpriority,
    libc::SYS_setregid,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    libc::SYS_setreuid,
    libc::SYS_setsid,
    libc::SYS_setsockopt,
    libc::SYS_setuid,
    libc::SYS_setxattr,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_shmdt,
    libc::SYS_shmget,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_signalfd4,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_splice,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_sync,
    libc::SYS_sync_file_range,
    libc::SYS_syncfs,
    libc::SYS_sysinfo,
    libc::SYS_tee,
    libc::SYS_tgkill,
    libc::SYS_timer_create,
    libc::SYS_timer_delete,
    libc::SYS_timer_getoverrun,
    libc::SYS_timer_gettime,
    libc::SYS_timer_settime,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime,
    libc::SYS_times,
    libc::SYS_tkill,
    libc::SYS_truncate,
    libc::SYS_umask,
    libc::SYS_uname,
    libc::SYS_unlinkat,
    libc::SYS_unshare,
    libc::SYS_utimensat,
    libc::SYS_vmsplice,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_write,
    libc::SYS_writev,
];

/// The older names of the same things.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_alarm,
    libc::SYS_arch_prctl,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_creat,
    libc::SYS_dup2,
    libc::SYS_epoll_create,
    libc::SYS_epoll_ctl_old,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_wait_old,
    libc::SYS_eventfd,
    libc::SYS_fork,
    libc::SYS_futimesat,
    libc::SYS_getdents,
    libc::SYS_getpgrp,
    libc::SYS_getrlimit,
    libc::SYS_get_thread_area,
    libc::SYS_inotify_init,
    libc::SYS_lchown,
    libc::SYS_link,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_mknod,
    libc::SYS_open,
    libc::SYS_pause,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_rmdir,
    libc::SYS_select,
    libc::SYS_setrlimit,
    libc::SYS_set_thread_area,
    libc::SYS_signalfd,
    libc::SYS_stat,
    libc::SYS_symlink,
    libc::SYS_time,
    libc::SYS_unlink,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_vfork,
];
#[cfg(target_arch = "aarch64")]
const ALLOWED_HERE: &[c_long] = &[libc::SYS_renameat];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_compiles_within_the_kernels_limit() {
        for internet in [Internet::Allowed, Internet::Refused] {
            for program in Filters::new(internet, Ipc::Host).unwrap().0 {
                assert!(program.len() < 4096, "{}", program.len());
            }
        }
    }

    #[test]
    fn nothing_refused_is_also_allowed_by_name() {
        for call in REFUSED.iter().chain(REFUSED_HERE) {
            assert!(
                !ALLOWED.contains(call) && !ALLOWED_HERE.contains(call),
                "{call}"
            );
        }
    }

    #[test]
    fn new_interfaces_that_hide_arguments_are_not_on_the_list() {
        let hidden = [
            libc::SYS_openat2,
            libc::SYS_clone3,
            libc::SYS_fchmodat2,
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_register,
            libc::SYS_memfd_secret,
        ];
        let list = list();
        assert!(hidden.iter().all(|call| !list.contains_key(call)));
    }
}
