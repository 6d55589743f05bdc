//! The service's end of a socket to a helper process, for an async runtime.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::unix::AsyncFd;

use crate::sys;
use crate::wire::{self, Received, WireError};

/// A sequenced-packet socket.
#[derive(Debug)]
pub(crate) struct Link(AsyncFd<OwnedFd>);

impl Link {
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self(sys::register(socket)?))
    }

    /// Sends a message when there is room. Cancel safe: it was sent or not.
    pub(crate) async fn send<T: Serialize + Sync>(
        &self,
        message: &T,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), WireError> {
        loop {
            let mut guard = self.0.writable().await?;
            match guard.try_io(|socket| unblock(wire::send(socket.as_fd(), message, fds))) {
                Ok(outcome) => return outcome?,
                Err(_would_block) => {}
            }
        }
    }

    /// Sends a message if there is room now.
    pub(crate) fn send_now<T: Serialize>(&self, message: &T) -> Result<(), WireError> {
        wire::send(self.0.get_ref().as_fd(), message, &[])
    }

    /// The next message; `None` at the end. Cancel safe.
    pub(crate) async fn receive<T: DeserializeOwned>(
        &self,
    ) -> Result<Option<Received<T>>, WireError> {
        loop {
            let mut guard = self.0.readable().await?;
            match guard.try_io(|socket| unblock(wire::receive(socket.as_fd()))) {
                Ok(outcome) => return outcome?,
                Err(_would_block) => {}
            }
        }
    }
}

/// Lets the runtime see that an operation would block.
fn unblock<T>(outcome: Result<T, WireError>) -> io::Result<Result<T, WireError>> {
    match outcome {
        Err(WireError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
        outcome => Ok(outcome),
    }
}
