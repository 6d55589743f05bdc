//! Session frames that the peer may not have received: kept until acknowledged, sent again on a new link.
#![warn(clippy::arithmetic_side_effects)]

use std::collections::VecDeque;

use bytes::Bytes;

use super::flow;
use crate::{StreamId, Transmit, Violation, config::ACK_EVERY, slab::COPY_BELOW, transmit::Mark};

/// Both directions of a session that survives its link.
///
/// ```text
///   sending     0 ...... acknowledged ........... sent        frames between the two are kept
///   receiving   0 ...... told ................... received    the peer keeps what lies between
/// ```
///
/// What is kept never exceeds the session credit that the peer gave, plus heads and ends: the peer says ACK
/// before the credit that lets this side go on (ACK-1). Nor does it exceed this side's own bound, since a peer may give
/// any credit and acknowledge nothing. Payload is kept as the slices that were sent, so that keeping
/// costs no copy; where a frame has little, a copy costs less, and lets the application's memory go.
#[derive(Debug)]
pub(crate) struct Replay {
    /// What of the kept frames was copied, one after another: heads, and payload where there is little.
    copied: VecDeque<u8>,
    /// The other payloads of the kept frames.
    pieces: VecDeque<Bytes>,
    frames: VecDeque<Kept>,
    acknowledged: u64,
    sent: u64,
    /// Where sending again has come; `None` when it is done.
    again: Option<Cursor>,
    received: u64,
    told: u64,
    /// What may be kept before payload has to wait.
    pub(crate) bound: u64,
    /// Payload waits for an acknowledgement.
    pub(crate) waiting: bool,
    /// The most that was kept lately.
    peak: u64,
    /// Streams of the peer that wait for their last frame to be acknowledged, in order of sending.
    ending: VecDeque<(u64, StreamId)>,
}

/// A kept frame: how much of each queue is its. It lies beside every frame, so it is small.
#[derive(Debug, Clone, Copy)]
struct Kept {
    length: u32,
    copied: u32,
    pieces: u32,
}

impl Kept {
    fn parts(self) -> (usize, usize) {
        (self.copied as usize, self.pieces as usize)
    }
}

/// The next frame to be sent again, and where its parts begin.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    frame: usize,
    copied: usize,
    pieces: usize,
}

impl Replay {
    pub(crate) fn new(bound: u64) -> Self {
        Self {
            copied: VecDeque::new(),
            pieces: VecDeque::new(),
            frames: VecDeque::new(),
            acknowledged: 0,
            sent: 0,
            again: None,
            received: 0,
            told: 0,
            bound,
            waiting: false,
            peak: 0,
            ending: VecDeque::new(),
        }
    }

    /// Keeps the one frame that was written to `out` since `mark`, and says where it ends.
    pub(crate) fn keep(&mut self, out: &Transmit, mark: Mark) -> u64 {
        let length = out.length_since(mark);
        let heads = out.heads_since(mark);
        self.copied.extend(heads);
        let (mut copied, mut pieces) = (heads.len(), 0_u32);
        if length.saturating_sub(copied) < COPY_BELOW {
            for payload in out.payloads_since(mark) {
                self.copied.extend(payload.as_ref());
            }
            copied = length;
        } else {
            for payload in out.payloads_since(mark) {
                self.pieces.push_back(payload.clone());
                pieces = pieces.saturating_add(1);
            }
        }
        self.frames.push_back(Kept {
            length: small(length),
            copied: small(copied),
            pieces,
        });
        self.sent = self.sent.saturating_add(flow::amount(length));
        self.peak = self.peak.max(self.kept());
        self.sent
    }

    /// The peer has everything before `position`. Says by how much that is more than before.
    ///
    /// ACK-2, RESUME-4: a position lies on the border of a frame that was sent.
    pub(crate) fn release(&mut self, position: u64) -> Result<u64, Violation> {
        let rise = position.saturating_sub(self.acknowledged);
        let (mut copied, mut pieces) = (0_usize, 0_usize);
        while self.acknowledged < position {
            let Some(frame) = self.frames.pop_front() else {
                return Err(Violation::Position);
            };
            self.acknowledged = self.acknowledged.saturating_add(frame.length.into());
            let parts = frame.parts();
            copied = copied.saturating_add(parts.0);
            pieces = pieces.saturating_add(parts.1);
            if let Some(again) = &mut self.again {
                again.step_back(parts);
            }
        }
        self.copied.drain(..copied.min(self.copied.len()));
        self.pieces.drain(..pieces.min(self.pieces.len()));
        if position < self.acknowledged && rise > 0 {
            return Err(Violation::Position);
        }
        Ok(rise)
    }

    /// A stream of the peer's keeps its slot until `position` is acknowledged.
    pub(crate) fn push_ending(&mut self, position: u64, id: StreamId) {
        self.ending.push_back((position, id));
    }

    /// The next stream whose last frame is acknowledged.
    pub(crate) fn pop_ended(&mut self) -> Option<StreamId> {
        let (position, id) = self.ending.front().copied()?;
        if position > self.acknowledged {
            return None;
        }
        self.ending.pop_front();
        Some(id)
    }

    pub(crate) const fn is_acknowledged(&self, position: u64) -> bool {
        position <= self.acknowledged
    }

    /// Counts a whole session frame of the peer.
    pub(crate) fn on_received(&mut self, length: usize) {
        self.received = self.received.saturating_add(flow::amount(length));
    }

    /// What RESUME and ACK say.
    pub(crate) const fn received(&self) -> u64 {
        self.received
    }

    /// What ACK is to say now: `in_passing`, if anything else is about to be sent.
    pub(crate) fn poll_ack(&mut self, in_passing: bool) -> Option<u64> {
        if !self.is_ack_due() && (!in_passing || self.received == self.told) {
            return None;
        }
        self.told = self.received;
        Some(self.received)
    }

    /// ACK-3: what is not acknowledged is worth a frame of its own.
    pub(crate) fn is_ack_due(&self) -> bool {
        self.received.saturating_sub(self.told) >= ACK_EVERY
    }

    #[cfg(test)]
    pub(crate) fn is_no_stream_ending(&self) -> bool {
        self.ending.is_empty()
    }

    /// Whether what is kept is what the frames' lengths say.
    #[cfg(test)]
    pub(crate) fn adds_up(&self) -> bool {
        let payload: usize = self.pieces.iter().map(Bytes::len).sum();
        let frames: u64 = self
            .frames
            .iter()
            .map(|frame| u64::from(frame.length))
            .sum();
        frames == self.kept() && frames == flow::amount(self.copied.len().saturating_add(payload))
    }

    /// Bytes kept.
    pub(crate) fn kept(&self) -> u64 {
        self.sent.saturating_sub(self.acknowledged)
    }

    /// Bytes that may be kept in addition.
    pub(crate) fn room(&self) -> u64 {
        self.bound.saturating_sub(self.kept())
    }

    /// The most that was kept since the last call. Memory that nothing lies in is given back.
    pub(crate) fn reset_peak(&mut self) -> u64 {
        if self.frames.is_empty() {
            self.copied = VecDeque::new();
            self.pieces = VecDeque::new();
            self.frames = VecDeque::new();
        }
        let kept = self.kept();
        std::mem::replace(&mut self.peak, kept)
    }

    /// A new link, and the peer has everything before `position`: what is kept after that is sent again.
    pub(crate) fn rewind(&mut self, position: u64) -> Result<(), Violation> {
        // RESUME-4: never below what was acknowledged.
        if position < self.acknowledged {
            return Err(Violation::Position);
        }
        self.again = None;
        self.release(position)?;
        self.again = (!self.frames.is_empty()).then(Cursor::default);
        // RESUME has said the position.
        self.told = self.received;
        Ok(())
    }

    pub(crate) const fn is_replaying(&self) -> bool {
        self.again.is_some()
    }

    /// RESUME-5: sends again what is kept, unchanged, until `out` is full or all is said.
    pub(crate) fn transmit(&mut self, out: &mut Transmit) {
        while let Some(at) = self.again {
            let Some(frame) = self.frames.get(at.frame) else {
                self.again = None;
                return;
            };
            if out.is_full() {
                return;
            }
            let (copied, pieces) = frame.parts();
            let bytes = self.copied.iter().skip(at.copied).take(copied);
            out.push_heads(|arena| arena.extend(bytes));
            for piece in self.pieces.iter().skip(at.pieces).take(pieces) {
                out.push_payload(piece.clone());
            }
            self.again = Some(Cursor {
                frame: at.frame.saturating_add(1),
                copied: at.copied.saturating_add(copied),
                pieces: at.pieces.saturating_add(pieces),
            });
        }
    }
}

impl Cursor {
    /// The first kept frame, of these parts, is gone.
    fn step_back(&mut self, (copied, pieces): (usize, usize)) {
        if self.frame > 0 {
            self.frame = self.frame.saturating_sub(1);
            self.copied = self.copied.saturating_sub(copied);
            self.pieces = self.pieces.saturating_sub(pieces);
        }
    }
}

/// A part of one frame, which is at most 64 KiB and its header.
fn small(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
