//! A queue of payload that neither copies large pieces nor collects small ones.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use crate::{QUANTUM, slab::COPY_BELOW};

/// Payload in order (DATA-2). Pieces below a threshold are appended to an owned tail, so that neither a thousand
/// one-byte writes nor a slow reader of tiny frames costs more than its bytes.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    whole: VecDeque<Bytes>,
    /// Comes after all of `whole`.
    tail: BytesMut,
    length: usize,
}

impl Chunks {
    pub(crate) const fn len(&self) -> usize {
        self.length
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Appends `piece`; copies it if it is below `copy_below` bytes and something is there already.
    pub(crate) fn push(&mut self, piece: Bytes, copy_below: usize) {
        if piece.is_empty() {
            return;
        }
        if self.length > 0 && piece.len() < copy_below {
            self.push_copy(&piece);
            return;
        }
        self.length = self.length.saturating_add(piece.len());
        self.close_tail();
        self.whole.push_back(piece);
    }

    /// Appends a copy of `piece`.
    pub(crate) fn push_copy(&mut self, piece: &[u8]) {
        self.length = self.length.saturating_add(piece.len());
        self.tail.extend_from_slice(piece);
    }

    /// Takes the next piece, at most `most` bytes of it.
    pub(crate) fn pop(&mut self, most: usize) -> Option<Bytes> {
        if self.whole.is_empty() {
            self.close_tail();
        }
        let front = self.whole.front_mut()?;
        let piece = if front.len() <= most {
            self.whole.pop_front()?
        } else {
            front.split_to(most)
        };
        self.length = self.length.saturating_sub(piece.len());
        Some(piece)
    }

    /// Copies the next bytes into `out` and says how many.
    pub(crate) fn copy_to(&mut self, out: &mut [u8]) -> usize {
        let mut copied = 0;
        while let Some(room) = out.get_mut(copied..).filter(|room| !room.is_empty()) {
            let front: &mut dyn Buf = match self.whole.front_mut() {
                Some(front) => front,
                None if self.tail.is_empty() => break,
                None => &mut self.tail,
            };
            let step = room.len().min(front.remaining());
            if let Some(room) = room.get_mut(..step) {
                front.copy_to_slice(room);
            }
            copied += step;
            if self.whole.front().is_some_and(Bytes::is_empty) {
                self.whole.pop_front();
            }
        }
        self.length = self.length.saturating_sub(copied);
        copied
    }

    /// Drops everything and its memory, and says how many bytes it was.
    pub(crate) fn clear(&mut self) -> usize {
        let length = self.length;
        *self = Self::default();
        length
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.whole.push_back(self.tail.split().freeze());
        }
    }
}

/// Threshold for payload that comes while the reader has some left: it keeps up badly, so it pays a copy.
pub(crate) const COPY_BEHIND: usize = QUANTUM;

/// Threshold for payload to send.
pub(crate) const COPY_TO_SEND: usize = COPY_BELOW;
