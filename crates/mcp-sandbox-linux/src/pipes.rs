//! The streams of a command: our ends of them, and those that its init gets.
//!
//! A descriptor can be opened again through `/proc/PID/fd`, and a pipe that is opened again can be read. So output is a pipe that
//! its commands may open for writing only (`/dev/stdout` must work): where they have a user of their own, by the mode of the
//! pipe, which is ours; where they share ours, it is a named pipe in a place that they cannot read, whose mode they cannot
//! change ([`Outlets`]). What is to be shielded altogether is a socket, which nobody can open again, and on which the kernel
//! says who has written.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};

use bytes::Bytes;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, chmodat, fchmod, mknodat, openat, unlinkat};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
    recvmsg, socketpair, sockopt,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use tokio::io::unix::AsyncFd;

use crate::message::ExecRequest;

/// Others may write: for output. They may read: for input.
const OUTPUT: Mode = Mode::from_raw_mode(0o622);
const INPUT: Mode = Mode::from_raw_mode(0o644);

/// The streams of one command.
#[derive(Debug)]
pub(crate) struct Pipes {
    /// In the order in which init wants them.
    pub(crate) theirs: Vec<OwnedFd>,
    /// Input, output, error.
    pub(crate) ours: [Option<OwnedFd>; 3],
}

/// A directory for named pipes that may be written and not be read inside.
#[derive(Debug)]
pub(crate) struct Outlets {
    /// To make them.
    pub(crate) make: OwnedFd,
    /// The same through a read-only mount, where there is one: whoever has a file from here cannot change its mode.
    pub(crate) give: OwnedFd,
}

impl Pipes {
    pub(crate) fn open(request: &ExecRequest, outlets: Option<&Outlets>) -> io::Result<Self> {
        let mut pipes = Self {
            theirs: Vec::new(),
            ours: [None, None, None],
        };
        if request.terminal.is_some() {
            return Ok(pipes);
        }
        if request.input {
            let (read, write) = if request.shielded {
                sockets()?
            } else {
                pipe(INPUT)?
            };
            pipes.theirs.push(read);
            pipes.ours[0] = Some(write);
        }
        let (read, write) = match outlets.filter(|_| request.shielded) {
            Some(outlets) => outlets.open()?,
            None => pipe(OUTPUT)?,
        };
        pipes.theirs.push(write);
        pipes.ours[1] = Some(read);
        let (read, write) = if request.shielded {
            let (here, there) = sockets()?;
            sockopt::set_socket_passcred(&here, true)?;
            (here, there)
        } else {
            pipe(OUTPUT)?
        };
        pipes.theirs.push(write);
        pipes.ours[2] = Some(read);
        Ok(pipes)
    }
}

impl Outlets {
    /// A pipe that only its two descriptors refer to.
    fn open(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        let name = format!("{:016x}", RandomState::new().build_hasher().finish());
        mknodat(&self.make, &name, FileType::Fifo, Mode::RUSR, 0)?;
        let opened = self.open_named(&name);
        unlinkat(&self.make, &name, AtFlags::empty())?;
        opened
    }

    fn open_named(&self, name: &str) -> io::Result<(OwnedFd, OwnedFd)> {
        let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let read = openat(
            &self.make,
            name,
            flags | OFlags::RDONLY | OFlags::NONBLOCK,
            Mode::empty(),
        )?;
        let write_only = Mode::WUSR | Mode::WGRP | Mode::WOTH;
        chmodat(&self.make, name, write_only, AtFlags::empty())?;
        let write = openat(&self.give, name, flags | OFlags::WRONLY, Mode::empty())?;
        Ok((read, write))
    }
}

fn pipe(mode: Mode) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    fchmod(&write, mode)?;
    Ok((read, write))
}

fn sockets() -> io::Result<(OwnedFd, OwnedFd)> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
    Ok(socketpair(family, kind, SocketFlags::CLOEXEC, None)?)
}

/// Reads what one process has written, and who it is; empty at the end. Cancel safe.
pub(crate) async fn read_attested(
    socket: &AsyncFd<OwnedFd>,
    most: usize,
) -> io::Result<(Bytes, Option<Pid>)> {
    loop {
        let mut guard = socket.readable().await?;
        let mut chunk = vec![0; most];
        match guard.try_io(|socket| receive(socket, &mut chunk)) {
            Ok(Ok((count, writer))) => {
                chunk.truncate(count);
                return Ok((chunk.into(), writer));
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(error)) => return Err(error),
            Err(_would_block) => {}
        }
    }
}

/// The kernel does not put the bytes of two processes into one answer.
fn receive(socket: &AsyncFd<OwnedFd>, chunk: &mut [u8]) -> io::Result<(usize, Option<Pid>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [IoSliceMut::new(chunk)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = recvmsg(socket.get_ref().as_fd(), parts, &mut control, flags)?;
    let writer = control.drain().find_map(|part| match part {
        RecvAncillaryMessage::ScmCredentials(who) => Some(who.pid),
        _ => None,
    });
    Ok((got.bytes, writer))
}
