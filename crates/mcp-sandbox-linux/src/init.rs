//! The first process of a sandbox: builds it from within, then serves commands.
//!
//! It is a fork of the launcher. It reads no file of the sandbox, gives commands
//! no descriptor but their three streams, cannot be traced or read by them, and
//! holds no capability but those that it needs to become their user.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use mcp_sandbox_executor::{Layer, Network};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::{
    DumpableBehavior, Gid, Pid, Signal, Uid, kill_process, kill_process_group,
    set_dumpable_behavior, set_parent_process_death_signal, setsid,
};
use rustix::termios::{Winsize, tcsetwinsize};
use rustix::thread::{
    CapabilitySet, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use serde::{Deserialize, Serialize};

use crate::confine::{self, PathRules};
use crate::message::{ExecEnd, ExecRequest, ExecStage, FromInit, ProgramRequest, ToInit};
use crate::plan::{AGENT, EffectiveLimits};
use crate::root::{Additions, Template};
use crate::step::{Step as _, StepError};
use crate::sys::{self, Ended, Forked};
use crate::syscalls::Filters;
use crate::{inside, wire};

/// What the launcher knows about the sandbox to be.
#[derive(Debug)]
pub(crate) struct Birth<'a> {
    /// None at T3.
    pub(crate) root: Option<(&'a Template, Additions)>,
    /// Init is root of its user namespace, commands are [`AGENT`].
    pub(crate) separate_init: bool,
    pub(crate) network: Network,
    pub(crate) limits: EffectiveLimits,
    /// A control group limits memory.
    pub(crate) hard_memory: bool,
    pub(crate) rules: PathRules,
    pub(crate) filters: &'a Filters,
}

/// The launcher's only message to an init: the id maps are written.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Go;

/// An init's first message.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Ready {
    Up(Vec<Layer>),
    Failed { step: String, error: String },
}

/// A command that has not been reaped.
#[derive(Debug)]
struct Running {
    id: u64,
    pid: i32,
}

/// Lives as init. `control` is its only tie to the outside.
pub(crate) fn live(control: OwnedFd, birth: Birth<'_>) -> ! {
    let separate = birth.separate_init;
    let layers = match build(&control, birth) {
        Ok(layers) => layers,
        Err(StepError { step, error }) => {
            let _ = wire::send(control.as_fd(), &Ready::Failed { step, error }, &[]);
            sys::exit_now(1);
        }
    };
    let code = match keep_only(control).and_then(|control| {
        wire::send(control.as_fd(), &Ready::Up(layers), &[]).map_err(io::Error::other)?;
        serve(&control, separate)
    }) {
        Ok(()) => 0,
        Err(_) => 1,
    };
    sys::exit_now(code)
}

fn build(control: &OwnedFd, birth: Birth<'_>) -> Result<Vec<Layer>, StepError> {
    set_parent_process_death_signal(Some(Signal::KILL)).step("tie to the launcher")?;
    wire::receive::<Go>(control.as_fd())
        .map_err(io::Error::other)
        .and_then(|go| go.ok_or_else(|| io::ErrorKind::UnexpectedEof.into()))
        .step("wait for the launcher")?;
    if birth.separate_init {
        set_thread_groups(&[]).step("drop groups")?;
        become_ids(0).step("become root of the namespace")?;
    }
    let mut layers = Vec::new();
    if let Some((template, additions)) = birth.root {
        rustix::system::sethostname(b"sandbox").step("set the host name")?;
        if birth.network == Network::None {
            loopback().step("bring loopback up")?;
        }
        layers.extend(template.enter(additions)?);
    }
    // Changing ids has cleared it.
    set_parent_process_death_signal(Some(Signal::KILL)).step("tie to the launcher")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("forbid tracing init")?;
    confine::resource_limits(&birth.limits, birth.hard_memory).step("set resource limits")?;
    let keep = if birth.separate_init {
        CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::KILL
    } else {
        CapabilitySet::empty()
    };
    confine::drop_capabilities(keep).step("drop capabilities")?;
    set_no_new_privs(true).step("forbid new privileges")?;
    layers.push(Layer::in_force(
        "capabilities",
        "none for commands, no new privileges",
    ));
    layers.push(confine::landlock(&birth.rules).step("restrict by Landlock")?);
    birth.filters.load().step("load the system call filter")?;
    layers.push(Layer::in_force(
        "seccomp",
        "allow-list of reviewed system calls",
    ));
    Ok(layers)
}

/// Closes everything but the standard streams, on `/dev/null`, and `control`, at 3.
fn keep_only(control: OwnedFd) -> io::Result<OwnedFd> {
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    let control = sys::move_to(control, 3)?;
    sys::close_from(4)?;
    std::mem::forget(null);
    Ok(control)
}

fn serve(control: &OwnedFd, separate: bool) -> io::Result<()> {
    let children = sys::child_signals()?;
    let mut running = Vec::<Running>::new();
    loop {
        let mut fds = [
            PollFd::new(control, PollFlags::IN),
            PollFd::new(&children, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let (asked, died) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if died {
            let _ = rustix::io::read(&children, &mut [0; 128]);
            reap(control, &mut running)?;
        }
        if asked {
            let Some(got) = wire::receive::<ToInit>(control.as_fd()).map_err(io::Error::other)?
            else {
                return Ok(());
            };
            handle(control, &mut running, got.message, &got.fds, separate)?;
        }
    }
}

fn handle(
    control: &OwnedFd,
    running: &mut Vec<Running>,
    message: ToInit,
    fds: &[OwnedFd],
    separate: bool,
) -> io::Result<()> {
    let pid_of = |running: &[Running], id| running.iter().find(|r| r.id == id).map(|r| r.pid);
    match message {
        ToInit::Exec(request) => {
            let id = request.id;
            let answer = match start(&request, fds, separate) {
                Ok((pid, terminal)) => {
                    running.push(Running { id, pid });
                    let terminal = terminal.as_ref().map(|fd| fd.as_fd());
                    wire::send(
                        control.as_fd(),
                        &FromInit::Started { id },
                        terminal.as_slice(),
                    )
                }
                Err((stage, error)) => {
                    let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
                    wire::send(control.as_fd(), &FromInit::Failed { id, stage, errno }, &[])
                }
            };
            answer.map_err(io::Error::other)
        }
        ToInit::Signal { id, signal } => {
            if let (Some(pid), Some(signal)) = (
                pid_of(running, id).and_then(Pid::from_raw),
                Signal::from_named_raw(signal),
            ) {
                let _ = kill_process_group(pid, signal);
            }
            Ok(())
        }
        ToInit::KillTree { id } => {
            if let Some(pid) = pid_of(running, id) {
                kill_tree(pid);
            }
            Ok(())
        }
    }
}

fn reap(control: &OwnedFd, running: &mut Vec<Running>) -> io::Result<()> {
    while let Some((pid, ended)) = sys::reap() {
        let Some(at) = running.iter().position(|r| r.pid == pid) else {
            continue;
        };
        let ended = match ended {
            Ended::Code(code) => ExecEnd::Code(code),
            Ended::Signal(signal) => ExecEnd::Signal(signal),
        };
        let exited = FromInit::Exited {
            id: running.swap_remove(at).id,
            ended,
        };
        wire::send(control.as_fd(), &exited, &[]).map_err(io::Error::other)?;
    }
    Ok(())
}

type StartError = (ExecStage, io::Error);

/// Forks a command and waits until it is executing.
fn start(
    request: &ExecRequest,
    fds: &[OwnedFd],
    separate: bool,
) -> Result<(i32, Option<OwnedFd>), StartError> {
    let prepare = |error: io::Error| (ExecStage::Prepare, error);
    let expected = if request.terminal.is_some() {
        0
    } else {
        2 + usize::from(request.input)
    };
    if fds.len() != expected {
        return Err(prepare(io::ErrorKind::InvalidInput.into()));
    }
    let terminal = request
        .terminal
        .map(open_terminal)
        .transpose()
        .map_err(prepare)?;
    let command = ArgvAndEnv::of(request).map_err(prepare)?;
    let (report, reporter) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| prepare(e.into()))?;
    match sys::fork().map_err(prepare)? {
        Forked::Child => {
            let slave = terminal.as_ref().map(|(_, slave)| slave.as_fd());
            let (stage, error) = run(request, &command, fds, slave, separate, reporter.as_fd());
            let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
            let mut bytes = [0; 5];
            bytes[0] = stage as u8;
            bytes[1..].copy_from_slice(&errno.to_ne_bytes());
            let _ = rustix::io::write(&reporter, &bytes);
            sys::exit_now(127);
        }
        Forked::Parent(pid) => {
            drop(reporter);
            let mut bytes = [0; 5];
            match rustix::io::retry_on_intr(|| rustix::io::read(&report, &mut bytes)) {
                Ok(5) => {
                    let stage = [
                        ExecStage::Prepare,
                        ExecStage::WorkingDir,
                        ExecStage::Program,
                    ][usize::from(bytes[0].min(2))];
                    let [_, errno @ ..] = bytes;
                    Err((
                        stage,
                        io::Error::from_raw_os_error(i32::from_ne_bytes(errno)),
                    ))
                }
                _ => Ok((pid, terminal.map(|(master, _)| master))),
            }
        }
    }
}

/// In the child: becomes the command. Returns only on failure.
fn run(
    request: &ExecRequest,
    command: &ArgvAndEnv,
    fds: &[OwnedFd],
    slave: Option<BorrowedFd<'_>>,
    separate: bool,
    reporter: BorrowedFd<'_>,
) -> StartError {
    let prepared = streams(fds, request.input, slave).and_then(|()| {
        sys::reset_signals();
        rustix::process::umask(Mode::from_raw_mode(0o022));
        if separate {
            set_thread_groups(&[])?;
            become_ids(AGENT)?;
        }
        confine::drop_capabilities(CapabilitySet::empty())?;
        sys::close_on_exec_from(3)
    });
    if let Err(error) = prepared {
        return (ExecStage::Prepare, error);
    }
    if let Err(error) = rustix::process::chdir(&request.working_dir) {
        return (ExecStage::WorkingDir, error.into());
    }
    match &request.program {
        ProgramRequest::FileHelper => {
            // Tells the parent that it runs, as a successful exec would by closing.
            let _ = sys::move_to(
                reporter
                    .try_clone_to_owned()
                    .unwrap_or_else(|_| sys::exit_now(70)),
                3,
            );
            let _ = sys::close_from(3);
            sys::exit_now(inside::run());
        }
        ProgramRequest::Argv(_) => (ExecStage::Program, command.exec()),
    }
}

/// Connects the standard streams and becomes a session of its own.
fn streams(fds: &[OwnedFd], input: bool, slave: Option<BorrowedFd<'_>>) -> io::Result<()> {
    setsid()?;
    if let Some(slave) = slave {
        rustix::process::ioctl_tiocsctty(slave)?;
        rustix::stdio::dup2_stdin(slave)?;
        rustix::stdio::dup2_stdout(slave)?;
        rustix::stdio::dup2_stderr(slave)?;
        return Ok(());
    }
    let (output, error) = match fds {
        [given, output, error] if input => {
            rustix::stdio::dup2_stdin(given)?;
            (output, error)
        }
        [output, error] => (output, error),
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    rustix::stdio::dup2_stdout(output)?;
    rustix::stdio::dup2_stderr(error)?;
    Ok(())
}

fn open_terminal((rows, columns): (u16, u16)) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = open("/dev/ptmx", flags, Mode::empty())?;
    rustix::pty::unlockpt(&master)?;
    let name = rustix::pty::ptsname(&master, Vec::new())?;
    let slave = open(name, flags, Mode::empty())?;
    tcsetwinsize(
        &master,
        Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        },
    )?;
    Ok((master, slave))
}

/// Kills a command's group, session and descendants, again until none is left.
fn kill_tree(leader: i32) {
    for _ in 0..8 {
        if let Some(pid) = Pid::from_raw(leader) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let family = family(leader);
        let mut killed = false;
        for pid in family.into_iter().filter_map(Pid::from_raw) {
            killed |= kill_process(pid, Signal::KILL).is_ok();
        }
        if !killed {
            break;
        }
    }
}

/// Live descendants of a process, and members of its session.
fn family(leader: i32) -> Vec<i32> {
    let mut parents = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let mut fields = stat
            .rsplit_once(')')
            .map_or("", |(_, rest)| rest)
            .split_whitespace();
        let state = fields.next();
        let mut number = || {
            fields
                .next()
                .and_then(|n| n.parse::<i32>().ok())
                .unwrap_or(0)
        };
        let (parent, _group, session) = (number(), number(), number());
        if state != Some("Z") {
            parents.insert(pid, if session == leader { leader } else { parent });
        }
    }
    let descends = |mut pid: i32| {
        for _ in 0..parents.len() {
            match parents.get(&pid) {
                Some(parent) if *parent == leader => return true,
                Some(parent) => pid = *parent,
                None => return false,
            }
        }
        false
    };
    parents
        .keys()
        .copied()
        .filter(|pid| *pid != leader && descends(*pid))
        .collect()
}

fn become_ids(id: u32) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    set_thread_res_gid(gid, gid, gid)?;
    Ok(set_thread_res_uid(uid, uid, uid)?)
}

fn loopback() -> io::Result<()> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    sys::loopback_up(socket.as_fd())
}

/// A command line and environment as the kernel wants them, made before the fork.
#[derive(Debug)]
struct ArgvAndEnv {
    candidates: Vec<CString>,
    argv: Vec<CString>,
    env: Vec<CString>,
}

impl ArgvAndEnv {
    fn of(request: &ExecRequest) -> io::Result<Self> {
        let argv = match &request.program {
            ProgramRequest::Argv(argv) if !argv.is_empty() => argv.as_slice(),
            ProgramRequest::FileHelper => &[],
            ProgramRequest::Argv(_) => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let env = request
            .env
            .iter()
            .map(|(name, value)| CString::new(format!("{name}={value}")));
        let path = request
            .env
            .iter()
            .find(|(name, _)| name == "PATH")
            .map_or("", |(_, path)| path);
        Ok(Self {
            candidates: candidates(argv.first().map_or("", |name| name), path)?,
            argv: argv
                .iter()
                .map(|s| CString::new(s.as_str()))
                .collect::<Result<_, _>>()?,
            env: env.collect::<Result<_, _>>()?,
        })
    }

    /// Tries each candidate as `execvp` does.
    fn exec(&self) -> io::Error {
        let mut found = io::Error::from_raw_os_error(libc::ENOENT);
        for path in &self.candidates {
            let error = sys::execve(path, &self.argv, &self.env);
            match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => {}
                Some(libc::EACCES) => found = error,
                Some(libc::ENOEXEC) => {
                    let mut argv = vec![c"sh".to_owned(), path.clone()];
                    argv.extend(self.argv.iter().skip(1).cloned());
                    return sys::execve(c"/bin/sh", &argv, &self.env);
                }
                _ => return error,
            }
        }
        found
    }
}

fn candidates(name: &str, path: &str) -> io::Result<Vec<CString>> {
    if name.contains('/') {
        return Ok(vec![CString::new(name)?]);
    }
    path.split(':')
        .filter(|dir| dir.starts_with('/'))
        .map(|dir| {
            Ok(CString::new(
                Path::new(dir).join(name).as_os_str().as_bytes(),
            )?)
        })
        .collect()
}
