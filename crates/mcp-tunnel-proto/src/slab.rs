//! Small payloads, copied side by side.

use bytes::{Buf as _, Bytes, BytesMut};

/// Payloads below this are copied out of the read buffer, which a slice would keep alive whole.
pub(crate) const COPY_BELOW: usize = 1024;

/// The first slab after a rest, in bytes: a few calls.
const LEAST: usize = 2 * COPY_BELOW;

/// A slab of a busy session, in bytes. A small payload keeps no more than this alive: four times the least window of
/// a stream, as [`Config`](crate::Config) states it.
const MOST: usize = 16 * 1024;

/// Where the small payloads of a session lie: a few dozen in one piece of memory, which is used again once all of them
/// are gone. A payload that is read before the slab is full thus costs no allocation.
#[derive(Debug)]
pub(crate) struct Slab {
    /// What is left of the current slab.
    free: BytesMut,
    size: usize,
}

impl Slab {
    pub(crate) fn new() -> Self {
        Self {
            free: BytesMut::new(),
            size: 0,
        }
    }

    /// Takes `length` payload bytes off the input: a slice of it, or a copy where that is cheaper to keep.
    pub(crate) fn take(&mut self, input: &mut BytesMut, length: usize) -> Bytes {
        if length == 0 || length >= COPY_BELOW {
            return input.split_to(length).freeze();
        }
        let copy = self.copy(input.get(..length).unwrap_or_default());
        input.advance(length);
        copy
    }

    /// A copy of `payload`, which is small.
    pub(crate) fn copy(&mut self, payload: &[u8]) -> Bytes {
        let room = self.free.capacity().saturating_sub(self.free.len());
        if room < payload.len() && !(self.size > 0 && self.free.try_reclaim(self.size)) {
            // Payloads are not let go of as fast as they come: a larger slab.
            self.size = self.size.saturating_mul(2).clamp(LEAST, MOST);
            self.free = BytesMut::with_capacity(self.size);
        }
        self.free.extend_from_slice(payload);
        self.free.split().freeze()
    }

    /// Gives back what is held, as nothing much comes.
    pub(crate) fn rest(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_payloads_do_not_keep_the_read_buffer() {
        for (length, shares) in [(1, false), (1023, false), (1024, true), (16_000, true)] {
            let mut input = BytesMut::from(&vec![1; length + 1][..]);
            let whole = input.as_ptr_range();
            let payload = Slab::new().take(&mut input, length);
            assert_eq!(payload, vec![1; length]);
            assert_eq!(whole.contains(&payload.as_ptr()), shares, "{length} bytes");
            assert_eq!(input.len(), 1);
        }
    }

    #[test]
    fn payloads_that_are_let_go_of_leave_their_memory_to_the_next() {
        let mut slab = Slab::new();
        let first = slab.copy(&[1; 100]).as_ptr_range();
        for round in 0..1000 {
            let payload = slab.copy(&[2; 100]);
            let place = payload.as_ptr() as usize;
            assert!(place.abs_diff(first.start as usize) < LEAST, "{round}");
        }
        slab.rest();
        assert_eq!(slab.free.capacity(), 0);
    }

    #[test]
    fn a_payload_that_is_kept_is_not_written_over_and_keeps_one_slab() {
        let mut slab = Slab::new();
        let kept: Vec<Bytes> = (0..200).map(|at| slab.copy(&[at; 1000])).collect();
        for (at, payload) in (0..).zip(&kept) {
            assert_eq!(payload, &[at; 1000][..]);
        }
        assert_eq!(slab.size, MOST);
        let last = slab.copy(&[7; 1000]);
        drop(kept);
        for _ in 0..100 {
            let _next = slab.copy(&[8; 1000]);
        }
        assert_eq!(last, [7; 1000][..]);
        assert!(slab.free.capacity() <= MOST);
    }
}
