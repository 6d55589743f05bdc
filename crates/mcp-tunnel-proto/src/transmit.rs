//! Output on its way to the socket.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes, BytesMut};

use crate::{
    CloseCode, StreamId,
    frame::{Frame, put_head},
};

/// Heads are moved to the front of their arena once this much before them is spent, in bytes.
const COMPACT_AFTER: usize = 4096;

/// Encoded frames that wait for the socket: heads in one arena, payloads as slices of what the
/// application wrote.
///
/// It is a [`Buf`]: hand it to a vectored write, `advance` by what was written, and have
/// [`poll_transmit`](crate::Connection::poll_transmit) add to it. Its buffers are reused, so that a
/// frame costs no allocation once they have grown.
#[derive(Debug)]
pub struct Transmit {
    heads: BytesMut,
    /// How many bytes at the front of `heads` are spent.
    spent: usize,
    segments: VecDeque<Segment>,
    remaining: usize,
    limit: usize,
}

/// A place in a [`Transmit`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    heads: usize,
    segments: usize,
    remaining: usize,
}

#[derive(Debug)]
enum Segment {
    /// So many bytes of the arena.
    Heads(usize),
    Payload(Bytes),
}

impl Transmit {
    /// An empty output that takes no further frame once `limit` bytes wait in it.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            heads: BytesMut::new(),
            spent: 0,
            segments: VecDeque::new(),
            remaining: 0,
            limit: limit.max(1),
        }
    }

    /// From now on no further frame is taken once `limit` bytes wait.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit.max(1);
    }

    /// Whether it should be written before more frames are added.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.remaining >= self.limit
    }

    /// Whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.remaining == 0
    }

    /// Drops what waits: the link it was for is gone.
    pub fn clear(&mut self) {
        self.heads.clear();
        self.segments.clear();
        self.spent = 0;
        self.remaining = 0;
    }

    /// Appends CLOSE: the last word on a link that its session has left (RESUME-7).
    pub fn push_close(&mut self, code: CloseCode, text: &str) {
        let text = text.to_owned();
        self.push_frame(&Frame::Close { code, text });
    }

    /// Appends a whole frame, its payload copied; for control frames.
    pub(crate) fn push_frame(&mut self, frame: &Frame) {
        self.push_heads(|heads| {
            if let Err(error) = frame.encode(heads) {
                debug_assert!(false, "own frames are bounded: {error}");
            }
        });
    }

    /// Appends a header; the payload follows by [`push_payload`](Self::push_payload).
    pub(crate) fn push_head(&mut self, kind: u8, length: usize, id: StreamId) {
        self.push_heads(|heads| put_head(heads, kind, length, Some(id)));
    }

    /// Appends whatever `write` adds to the arena.
    pub(crate) fn push_heads(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let before = self.heads.len();
        write(&mut self.heads);
        let added = self.heads.len().saturating_sub(before);
        self.remaining = self.remaining.saturating_add(added);
        match self.segments.back_mut() {
            Some(Segment::Heads(length)) => *length = length.saturating_add(added),
            Some(Segment::Payload(_)) | None => self.segments.push_back(Segment::Heads(added)),
        }
    }

    /// Appends payload without copying it.
    pub(crate) fn push_payload(&mut self, payload: Bytes) {
        self.remaining = self.remaining.saturating_add(payload.len());
        self.segments.push_back(Segment::Payload(payload));
    }

    /// The place behind what was written so far; valid until the next `advance`.
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            heads: self.heads.len(),
            segments: self.segments.len(),
            remaining: self.remaining,
        }
    }

    /// How much was added since `mark`.
    pub(crate) const fn length_since(&self, mark: Mark) -> usize {
        self.remaining.saturating_sub(mark.remaining)
    }

    /// What was added to the arena since `mark`.
    pub(crate) fn heads_since(&self, mark: Mark) -> &[u8] {
        self.heads.get(mark.heads..).unwrap_or_default()
    }

    /// The payloads that were added since `mark`.
    pub(crate) fn payloads_since(&self, mark: Mark) -> impl Iterator<Item = &Bytes> {
        let since = self.segments.iter().skip(mark.segments);
        since.filter_map(|segment| match segment {
            Segment::Payload(payload) => Some(payload),
            Segment::Heads(_) => None,
        })
    }

    fn arena(&self, from: usize, length: usize) -> &[u8] {
        self.heads
            .get(from..from.saturating_add(length))
            .unwrap_or_default()
    }

    /// Gives the arena's spent front back without moving much.
    fn compact(&mut self) {
        if self.spent == self.heads.len() {
            self.heads.clear();
            self.spent = 0;
        } else if self.spent >= COMPACT_AFTER {
            let kept = self.heads.len().saturating_sub(self.spent);
            self.heads.copy_within(self.spent.., 0);
            self.heads.truncate(kept);
            self.spent = 0;
        }
    }
}

impl Buf for Transmit {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        match self.segments.front() {
            Some(Segment::Heads(length)) => self.arena(self.spent, *length),
            Some(Segment::Payload(payload)) => payload,
            None => &[],
        }
    }

    fn chunks_vectored<'a>(&'a self, slots: &mut [IoSlice<'a>]) -> usize {
        let mut at = self.spent;
        let mut filled = 0;
        for (slot, segment) in slots.iter_mut().zip(&self.segments) {
            *slot = IoSlice::new(match segment {
                Segment::Heads(length) => {
                    let from = at;
                    at = at.saturating_add(*length);
                    self.arena(from, *length)
                }
                Segment::Payload(payload) => payload,
            });
            filled += 1;
        }
        filled
    }

    /// # Panics
    /// If `count` exceeds what remains, as [`Buf`] asks.
    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining, "advance beyond what remains");
        self.remaining -= count;
        while count > 0 {
            let Some(front) = self.segments.front_mut() else {
                break;
            };
            let length = match front {
                Segment::Heads(length) => *length,
                Segment::Payload(payload) => payload.len(),
            };
            let step = count.min(length);
            count -= step;
            match front {
                Segment::Heads(left) => {
                    *left -= step;
                    self.spent += step;
                }
                Segment::Payload(payload) => payload.advance(step),
            }
            if step == length {
                self.segments.pop_front();
            }
        }
        self.compact();
    }
}
