//! Messages and descriptors over a sequenced-packet socket pair.
//!
//! A packet is one byte of kind and JSON: kind 0 carries the JSON itself (at
//! most 64 KiB), kind 1 means that the first descriptor is a memory file with it
//! (at most 16 MiB: long command lines). Further descriptors belong to the
//! message. Both ends treat what they read as hostile: no length is trusted, a
//! message that does not parse ends the connection.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{pread, write};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Largest JSON inside a packet: well below the default socket buffer.
const INLINE_BYTES: usize = 64 * 1024;
/// Largest JSON in a memory file: the kernel takes 2 MiB of arguments, JSON escapes may multiply.
const FILE_BYTES: usize = 16 * 1024 * 1024;
/// Descriptors of one message: a memory file, three streams, one spare.
const MAX_FDS: usize = 5;

/// What went wrong with a message.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WireError {
    /// The socket.
    #[error("socket to the helper process")]
    Io(#[from] io::Error),
    /// Longer than the limits above.
    #[error("message too long")]
    TooLong,
    /// Not what the peer should send.
    #[error("malformed message")]
    Malformed,
}

/// A message with the descriptors that came along.
#[derive(Debug)]
pub(crate) struct Received<T> {
    pub(crate) message: T,
    pub(crate) fds: Vec<OwnedFd>,
}

/// A connected pair of close-on-exec sequenced-packet sockets.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Sends one message.
pub(crate) fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> Result<(), WireError> {
    let mut packet = vec![0];
    serde_json::to_writer(&mut packet, message).map_err(|_| WireError::Malformed)?;
    if packet.len() <= INLINE_BYTES {
        return send_packet(socket, &packet, fds);
    }
    if packet.len() > FILE_BYTES {
        return Err(WireError::TooLong);
    }
    let file = memfd_create("message", MemfdFlags::CLOEXEC).map_err(io::Error::from)?;
    let mut rest = &packet[1..];
    while !rest.is_empty() {
        let written = write(&file, rest).map_err(io::Error::from)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    let mut all = vec![file.as_fd()];
    all.extend_from_slice(fds);
    send_packet(socket, &[1], &all)
}

/// Receives one message; `None`: the peer has closed its end.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
) -> Result<Option<Received<T>>, WireError> {
    let mut packet = vec![0; INLINE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut packet)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .map_err(io::Error::from)?;
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(list) = part {
            fds.extend(list);
        }
    }
    if got.bytes == 0 {
        return Ok(None);
    }
    if got
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(WireError::TooLong);
    }
    packet.truncate(got.bytes);
    decode(&packet, fds).map(Some)
}

/// Parses one packet and the descriptors that came with it.
pub(crate) fn decode<T: DeserializeOwned>(
    packet: &[u8],
    mut fds: Vec<OwnedFd>,
) -> Result<Received<T>, WireError> {
    let message = match packet.split_first() {
        Some((0, json)) => serde_json::from_slice(json),
        Some((1, [])) if !fds.is_empty() => {
            let json = read_file(fds.remove(0).as_fd())?;
            serde_json::from_slice(&json)
        }
        _ => return Err(WireError::Malformed),
    };
    message
        .map(|message| Received { message, fds })
        .map_err(|_| WireError::Malformed)
}

fn send_packet(
    socket: BorrowedFd<'_>,
    packet: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<(), WireError> {
    if fds.len() > MAX_FDS {
        return Err(WireError::TooLong);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    sendmsg(
        socket,
        &[IoSlice::new(packet)],
        &mut control,
        SendFlags::NOSIGNAL,
    )
    .map_err(io::Error::from)?;
    Ok(())
}

fn read_file(file: BorrowedFd<'_>) -> Result<Vec<u8>, WireError> {
    let mut json = Vec::new();
    let mut chunk = vec![0; INLINE_BYTES];
    loop {
        let read = pread(file, &mut chunk, json.len() as u64).map_err(io::Error::from)?;
        if read == 0 {
            return Ok(json);
        }
        if json.len() + read > FILE_BYTES {
            return Err(WireError::TooLong);
        }
        json.extend_from_slice(&chunk[..read]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;

    #[test]
    fn short_and_long_messages_arrive_with_their_descriptors() {
        let (here, there) = pair().unwrap();
        for length in [0, 10, INLINE_BYTES, 1_000_000] {
            let text = "x".repeat(length);
            send(here.as_fd(), &text, &[here.as_fd()]).unwrap();
            let got = receive::<String>(there.as_fd()).unwrap().unwrap();
            assert_eq!(got.message, text);
            assert_eq!(got.fds.len(), 1);
            assert_ne!(got.fds[0].as_raw_fd(), here.as_raw_fd());
        }
        drop(here);
        assert!(receive::<String>(there.as_fd()).unwrap().is_none());
    }

    #[test]
    fn too_long_messages_are_refused_by_the_sender() {
        let (here, _there) = pair().unwrap();
        let text = "x".repeat(FILE_BYTES);
        assert!(matches!(
            send(here.as_fd(), &text, &[]),
            Err(WireError::TooLong)
        ));
    }

    #[track_caller]
    fn check_malformed(packet: &[u8]) {
        assert!(matches!(
            decode::<String>(packet, Vec::new()),
            Err(WireError::Malformed)
        ));
    }

    #[test]
    fn malformed_packets_are_refused() {
        for packet in [
            &b""[..],
            b"\x00",
            b"\x01",
            b"\x01x",
            b"\x02\"a\"",
            b"\x00\"a",
            b"\x00{}",
        ] {
            check_malformed(packet);
        }
    }
}
