//! What a stream promises, and nothing of how: the reference that random runs are judged against.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::{ReadError, ResetCode, Side, StreamId, WriteError};

/// All directions of all streams, by stream and writer, and who knows which stream.
#[derive(Default)]
pub(super) struct Reference {
    directions: BTreeMap<(StreamId, Side), Direction>,
    /// Streams that an end's application has opened or accepted.
    known: BTreeSet<(Side, StreamId)>,
    /// A final GOAWAY was forced: the peer's latest streams may be refused.
    pub(super) may_refuse: bool,
    /// The session has ended before its streams did.
    pub(super) ended: bool,
}

/// One direction of a stream: what was accepted from its writer, and how either end let go of it.
#[derive(Debug, Default)]
struct Direction {
    written: Vec<u8>,
    read: usize,
    finished: bool,
    reset: bool,
    stopped: bool,
    seen_end: bool,
}

impl Reference {
    fn direction(&mut self, id: StreamId, writer: Side) -> &mut Direction {
        self.directions.entry((id, writer)).or_default()
    }

    /// `side` has opened the stream, and `taken` was accepted with it.
    pub(super) fn opened(&mut self, side: Side, id: StreamId, taken: &[u8]) {
        assert!(self.known.insert((side, id)), "{id} is opened twice");
        self.direction(id, side).written.extend_from_slice(taken);
    }

    /// `side` was told of a stream of its peer.
    pub(super) fn accepted(&mut self, side: Side, id: StreamId) {
        let known = self.known.contains(&(side.peer(), id));
        assert!(known, "{id} was never opened");
        assert!(self.known.insert((side, id)), "{id} is accepted twice");
    }

    /// The streams that an end knows, oldest first.
    pub(super) fn streams(&self, side: Side) -> Vec<StreamId> {
        let known = self.known.iter().filter(|(s, _)| *s == side);
        known.map(|(_, id)| *id).collect()
    }

    pub(super) fn wrote(
        &mut self,
        side: Side,
        id: StreamId,
        payload: &[u8],
        outcome: Result<usize, WriteError>,
    ) {
        let (ended, may_refuse) = (self.ended, self.may_refuse);
        let stopped = self.direction(id, side).stopped;
        let direction = self.direction(id, side);
        match outcome {
            Ok(taken) => {
                let open = !direction.finished && !direction.reset && !ended;
                assert!(taken > 0 && open, "{id} takes bytes after its end");
                direction.written.extend_from_slice(&payload[..taken]);
            }
            Err(WriteError::Blocked) => {}
            Err(WriteError::Stopped(code)) => {
                let refused = code == ResetCode::REFUSED && may_refuse;
                assert!(stopped || refused, "{id} is stopped by nobody: {code}");
                direction.reset = true;
            }
            Err(WriteError::Closed) => assert!(direction.finished || direction.reset || ended),
        }
    }

    pub(super) fn finished(&mut self, side: Side, id: StreamId, outcome: Result<(), WriteError>) {
        let direction = self.direction(id, side);
        match outcome {
            Ok(()) => direction.finished = true,
            Err(_) => direction.reset = true,
        }
    }

    pub(super) fn reset(&mut self, side: Side, id: StreamId) {
        self.direction(id, side).reset = true;
    }

    pub(super) fn stopped(&mut self, side: Side, id: StreamId) {
        self.direction(id, side.peer()).stopped = true;
    }

    pub(super) fn read(
        &mut self,
        side: Side,
        id: StreamId,
        outcome: Result<Option<Bytes>, ReadError>,
    ) {
        let (ended, may_refuse) = (self.ended, self.may_refuse);
        let direction = self.direction(id, side.peer());
        match outcome {
            Ok(Some(piece)) => {
                assert!(!direction.seen_end, "bytes behind the end of {id}");
                let upto = direction.read + piece.len();
                let expected = direction.written.get(direction.read..upto);
                assert_eq!(expected, Some(&piece[..]), "wrong bytes on {id}");
                direction.read = upto;
            }
            Ok(None) => {
                assert!(direction.finished, "an end that nobody wrote on {id}");
                let all = direction.written.len();
                assert_eq!(direction.read, all, "payload lost on {id}");
                direction.seen_end = true;
            }
            Err(ReadError::Blocked) => {}
            Err(ReadError::Reset(code)) => {
                let refused = code == ResetCode::REFUSED && may_refuse;
                assert!(direction.reset || refused, "nobody reset {id}: {code}");
                direction.seen_end = true;
            }
            Err(ReadError::Closed) => assert!(ended, "{id} is closed, and the session is not"),
        }
    }

    /// How many bytes were accepted in a direction.
    pub(super) fn written(&self, id: StreamId, writer: Side) -> usize {
        let direction = self.directions.get(&(id, writer));
        direction.map_or(0, |direction| direction.written.len())
    }

    /// At rest, with everything carried and read, every stream, byte and end has arrived.
    pub(super) fn all_has_arrived(&self) {
        for ((id, writer), direction) in &self.directions {
            if direction.reset || direction.stopped {
                continue;
            }
            let known = |side| self.known.contains(&(side, *id));
            if !known(*writer) || !known(writer.peer()) {
                assert!(self.may_refuse, "{id} never arrived");
                continue;
            }
            assert_eq!(direction.read, direction.written.len(), "{id} is stuck");
            assert_eq!(direction.seen_end, direction.finished, "no end of {id}");
        }
    }
}
