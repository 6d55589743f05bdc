//! The two halves of a stream, as the application holds them.

use bytes::Bytes;

use super::{
    Connection,
    chunks::COPY_TO_SEND,
    flow,
    streams::{RecvState, SendState},
};
use crate::{ResetCode, StreamId};

/// Why nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// No room now; [`Event::Writable`](crate::Event::Writable) says when.
    #[error("no room now")]
    Blocked,
    /// The peer wants no more, or refused the stream.
    #[error("stopped by peer: {0}")]
    Stopped(ResetCode),
    /// Finished or reset by this side, or the session has ended.
    #[error("closed")]
    Closed,
}

/// Why nothing was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Nothing there now; [`Event::Readable`](crate::Event::Readable) says when.
    #[error("nothing there now")]
    Blocked,
    /// The peer aborted this direction, or refused the stream. Said once.
    #[error("reset by peer: {0}")]
    Reset(ResetCode),
    /// Stopped by this side, or the session has ended before the stream did.
    #[error("closed")]
    Closed,
}

/// The direction from here to the peer. Made by [`Connection::send_stream`].
#[derive(Debug)]
pub struct SendStream<'a> {
    pub(super) connection: &'a mut Connection,
    pub(super) id: StreamId,
}

impl SendStream<'_> {
    /// Takes as much of the front of `payload` as there is room for, and says how much.
    ///
    /// Pieces of 1 KiB and more are kept as they are; smaller ones are collected.
    ///
    /// # Errors
    /// [`WriteError::Blocked`] if there is no room at all.
    pub fn write(&mut self, payload: &mut Bytes) -> Result<usize, WriteError> {
        let room = self.room(payload.len())?;
        let accepted = payload.split_to(room);
        if let Some(stream) = self.connection.streams.get_mut(self.id) {
            stream.send.buffer.push(accepted, COPY_TO_SEND);
        }
        self.accepted(room);
        Ok(room)
    }

    /// Copies as much of the front of `payload` as there is room for, and says how much.
    ///
    /// # Errors
    /// [`WriteError::Blocked`] if there is no room at all.
    pub fn write_slice(&mut self, payload: &[u8]) -> Result<usize, WriteError> {
        let room = self.room(payload.len())?;
        if let (Some(stream), Some(accepted)) = (
            self.connection.streams.get_mut(self.id),
            payload.get(..room),
        ) {
            stream.send.buffer.push_copy(accepted);
        }
        self.accepted(room);
        Ok(room)
    }

    /// How many bytes a write would take now.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.connection.capacity(self.id)
    }

    /// Ends this direction after what was written. SCHED-4: the end travels on the last frame of payload if it is
    /// said before that leaves.
    ///
    /// # Errors
    /// [`WriteError::Stopped`] if the peer has stopped the stream, which is then let go all the same.
    pub fn finish(self) -> Result<(), WriteError> {
        let Some(stream) = self.connection.streams.get_mut(self.id) else {
            return Err(WriteError::Closed);
        };
        stream.send.released = true;
        let stopped = stream.send.stopped;
        if stream.send.state == SendState::Open {
            stream.send.state = SendState::Finishing;
            if stream.send.buffer.is_empty() && stream.unsent.is_none() {
                self.connection.schedule.push_control(self.id, stream);
            }
        }
        self.connection.settle(self.id);
        stopped.map_or(Ok(()), |code| Err(WriteError::Stopped(code)))
    }

    /// Aborts this direction; what has not left is dropped.
    pub fn reset(self, code: ResetCode) {
        self.connection.reset(self.id, code);
    }

    /// Checks the state and says how much of `wanted` there is room for.
    fn room(&mut self, wanted: usize) -> Result<usize, WriteError> {
        let closed = self.connection.closed.is_some();
        let room = self.capacity().min(wanted);
        let Some(stream) = self.connection.streams.get_mut(self.id) else {
            return Err(WriteError::Closed);
        };
        if let Some(code) = stream.send.stopped {
            return Err(WriteError::Stopped(code));
        }
        if closed || stream.send.state != SendState::Open {
            return Err(WriteError::Closed);
        }
        stream.send.blocked = room < wanted;
        if room == 0 && wanted > 0 {
            return Err(WriteError::Blocked);
        }
        Ok(room)
    }

    fn accepted(&mut self, length: usize) {
        let Some(stream) = self.connection.streams.get_mut(self.id) else {
            return;
        };
        if length > 0 {
            stream.send.credit.spend(flow::amount(length));
            self.connection.schedule.push_ready(self.id, stream);
            self.connection.buffered = self.connection.buffered.saturating_add(length);
        }
    }
}

/// The direction from the peer to here. Made by [`Connection::recv_stream`].
#[derive(Debug)]
pub struct RecvStream<'a> {
    pub(super) connection: &'a mut Connection,
    pub(super) id: StreamId,
}

impl RecvStream<'_> {
    /// The next piece of payload, at most `most` bytes of it, or `None` at the end. Nothing is copied.
    ///
    /// # Errors
    /// [`ReadError::Blocked`] if nothing is there yet.
    pub fn read(&mut self, most: usize) -> Result<Option<Bytes>, ReadError> {
        let Some(stream) = self.connection.streams.get_mut(self.id) else {
            return Err(ReadError::Closed);
        };
        match stream.recv.buffer.pop(most) {
            Some(piece) => {
                self.connection.consumed(self.id, piece.len());
                Ok(Some(piece))
            }
            None => self.at_end().map(|()| None),
        }
    }

    /// Copies the next payload into `out` and says how many bytes; 0 is the end, if `out` has room.
    ///
    /// # Errors
    /// [`ReadError::Blocked`] if nothing is there yet.
    pub fn read_into(&mut self, out: &mut [u8]) -> Result<usize, ReadError> {
        let Some(stream) = self.connection.streams.get_mut(self.id) else {
            return Err(ReadError::Closed);
        };
        if out.is_empty() {
            return Ok(0);
        }
        match stream.recv.buffer.copy_to(out) {
            0 => self.at_end().map(|()| 0),
            copied => {
                self.connection.consumed(self.id, copied);
                Ok(copied)
            }
        }
    }

    /// Unread bytes.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.connection
            .streams
            .get(self.id)
            .map_or(0, |stream| stream.recv.buffer.len())
    }

    /// Wants no more of this direction: unread payload is dropped, the peer is asked to abort.
    pub fn stop(self, code: ResetCode) {
        self.connection.stop(self.id, code);
    }

    /// What it means that nothing is buffered. STREAM-6: a closed session is no clean end.
    fn at_end(&mut self) -> Result<(), ReadError> {
        let closed = self.connection.closed.is_some();
        let Some(stream) = self.connection.streams.get_mut(self.id) else {
            return Err(ReadError::Closed);
        };
        let outcome = match stream.recv.state {
            RecvState::Open if closed => return Err(ReadError::Closed),
            RecvState::Open => return Err(ReadError::Blocked),
            RecvState::Stopped | RecvState::Discarded => return Err(ReadError::Closed),
            RecvState::Finished => Ok(()),
            RecvState::Reset(code) => Err(ReadError::Reset(code)),
        };
        stream.recv.released = true;
        self.connection.settle(self.id);
        outcome
    }
}
