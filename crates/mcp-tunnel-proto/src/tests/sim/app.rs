//! What the applications of both ends do: they move when an event says so, as tasks do, and never otherwise.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{is_legitimate, net::Rng};
use crate::{
    CloseCode, Connection, Event, OpenError, ReadError, ResetCode, Side, StreamId, WriteError,
    tests::{
        pair::{http, pattern},
        reference::Reference,
    },
};

/// A task that writes: so much, and then an end of some kind.
#[derive(Debug)]
struct Writing {
    left: usize,
    ends_with_reset: bool,
    waits: bool,
}

/// A task that reads: to the end, or until it wants no more.
#[derive(Debug)]
struct Reading {
    stops_after: usize,
    /// At most so much at once.
    most: usize,
    /// Sleeps so long between two reads.
    pace: Option<Duration>,
    asleep_until: Option<Instant>,
    waits: bool,
}

#[derive(Debug)]
pub(super) struct App {
    side: Side,
    to_open: usize,
    /// `open` found no slot, and was promised a word.
    starved: bool,
    opens_at: Instant,
    writing: BTreeMap<StreamId, Writing>,
    reading: BTreeMap<StreamId, Reading>,
    /// Streams of which [`Event::StreamClosed`] has not told.
    live: usize,
    goes_away_at: Option<Instant>,
    gone: bool,
    going: bool,
    pub(super) drained: bool,
    next: u8,
}

impl App {
    pub(super) fn new(side: Side, start: Instant, rng: &mut Rng) -> Self {
        let most = if side == Side::Edge { 8 } else { 3 };
        Self {
            side,
            to_open: rng.below(most),
            starved: false,
            opens_at: start,
            writing: BTreeMap::new(),
            reading: BTreeMap::new(),
            live: 0,
            goes_away_at: None,
            gone: false,
            going: false,
            drained: false,
            next: 0,
        }
    }

    pub(super) const fn goes_away_at(&mut self, at: Instant) {
        self.goes_away_at = Some(at);
    }

    /// Whether this end has said, or was told, that no more streams will come.
    pub(super) const fn is_going(&self) -> bool {
        self.gone
    }

    pub(super) fn is_done(&self) -> bool {
        let waits = self.goes_away_at.is_some();
        self.to_open == 0 && self.live == 0 && !waits
    }

    pub(super) fn next_time(&self) -> Option<Instant> {
        let asleep = self.reading.values().filter_map(|task| task.asleep_until);
        let opens = (self.to_open > 0 && !self.starved).then_some(self.opens_at);
        asleep.chain(opens).chain(self.goes_away_at).min()
    }

    /// Does all that can be done now.
    pub(super) fn act(
        &mut self,
        now: Instant,
        connection: &mut Connection,
        reference: &mut Reference,
        rng: &mut Rng,
    ) {
        if self.goes_away_at.is_some_and(|at| at <= now) {
            self.goes_away_at = None;
            self.gone = true;
            connection.go_away(CloseCode::SHUTDOWN, None, "");
        }
        // What one task does may wake another.
        loop {
            self.take_events(connection, reference, rng);
            if reference.ended {
                return;
            }
            let mut moved = self.open(now, connection, reference, rng);
            for id in self.writing.keys().copied().collect::<Vec<_>>() {
                moved |= self.write(id, connection, reference, rng);
            }
            for id in self.reading.keys().copied().collect::<Vec<_>>() {
                moved |= self.read(now, id, connection, reference);
            }
            if !moved {
                return;
            }
        }
    }

    fn take_events(
        &mut self,
        connection: &mut Connection,
        reference: &mut Reference,
        rng: &mut Rng,
    ) {
        while let Some(event) = connection.poll_event() {
            match event {
                Event::Opened { id, .. } => {
                    reference.accepted(self.side, id);
                    self.begin(id, rng);
                }
                Event::Readable { id } => {
                    if let Some(task) = self.reading.get_mut(&id) {
                        task.waits = false;
                    }
                }
                Event::Reset { id, .. } => {
                    if let Some(task) = self.reading.get_mut(&id) {
                        task.waits = false;
                    }
                }
                Event::Writable { id } | Event::Stopped { id, .. } => {
                    if let Some(task) = self.writing.get_mut(&id) {
                        task.waits = false;
                    }
                }
                Event::StreamsAvailable => self.starved = false,
                Event::StreamClosed { id } => {
                    self.live -= 1;
                    let tasks = self.writing.contains_key(&id) || self.reading.contains_key(&id);
                    assert!(!tasks, "{id} is closed under its tasks");
                }
                Event::GoAway { .. } => {
                    // Whoever waits for a slot is told too: it asks again, and is refused.
                    self.going = true;
                    self.starved = false;
                }
                Event::Drained => {
                    assert!(!self.drained, "drained twice");
                    self.drained = true;
                }
                Event::Closed(error) => {
                    assert!(is_legitimate(&error), "{:?}: {error}", self.side);
                    reference.ended = true;
                }
                Event::Rtt(_) | Event::Detached => {}
            }
        }
    }

    /// Both directions of a stream get their task.
    fn begin(&mut self, id: StreamId, rng: &mut Rng) {
        self.live += 1;
        let length = match rng.below(4) {
            0 => 0,
            1 | 2 => rng.below(3000),
            _ => rng.below(40_000),
        };
        let never = usize::MAX;
        let writing = Writing {
            left: length,
            ends_with_reset: rng.chance(12),
            waits: false,
        };
        let reading = Reading {
            stops_after: if rng.chance(10) {
                rng.below(8000)
            } else {
                never
            },
            most: if rng.chance(50) {
                never
            } else {
                200 + rng.below(5000)
            },
            pace: rng
                .chance(20)
                .then(|| Duration::from_millis(rng.between(1, 300))),
            asleep_until: None,
            waits: false,
        };
        self.writing.insert(id, writing);
        self.reading.insert(id, reading);
    }

    fn payload(&mut self, length: usize) -> Bytes {
        self.next = self.next.wrapping_add(1);
        pattern(self.next, length)
    }

    fn open(
        &mut self,
        now: Instant,
        connection: &mut Connection,
        reference: &mut Reference,
        rng: &mut Rng,
    ) -> bool {
        if self.to_open == 0 || self.starved || now < self.opens_at {
            return false;
        }
        let mut first = self.payload(rng.below(2000));
        let all = first.clone();
        match connection.open(http(), &mut first) {
            Ok(id) => {
                reference.opened(self.side, id, &all[..all.len() - first.len()]);
                self.begin(id, rng);
                self.to_open -= 1;
                self.opens_at = now + Duration::from_millis(rng.between(0, 4000));
            }
            Err(OpenError::NoSlot) => self.starved = true,
            Err(OpenError::GoingAway) => {
                assert!(self.gone || self.going);
                self.to_open = 0;
            }
            Err(error) => panic!("{error}"),
        }
        true
    }

    fn write(
        &mut self,
        id: StreamId,
        connection: &mut Connection,
        reference: &mut Reference,
        rng: &mut Rng,
    ) -> bool {
        let Some(task) = self.writing.get_mut(&id).filter(|task| !task.waits) else {
            return false;
        };
        let length = task.left.min(1 + rng.below(9000));
        if length == 0 {
            let send = connection.send_stream(id).expect("nobody has let go of it");
            if task.ends_with_reset {
                send.reset(ResetCode::CANCELLED);
                reference.reset(self.side, id);
            } else {
                reference.finished(self.side, id, send.finish());
            }
            self.writing.remove(&id);
            return true;
        }
        let payload = self.payload(length);
        let mut rest = payload.clone();
        let mut send = connection.send_stream(id).expect("nobody has let go of it");
        let outcome = send.write(&mut rest);
        if matches!(outcome, Err(WriteError::Stopped(_))) {
            send.reset(ResetCode::CANCELLED);
        }
        let task = self.writing.get_mut(&id).expect("its task");
        match outcome {
            Ok(taken) => {
                task.left -= taken;
                task.waits = taken < length;
            }
            Err(WriteError::Blocked) => task.waits = true,
            Err(_) => {
                self.writing.remove(&id);
            }
        }
        reference.wrote(self.side, id, &payload, outcome);
        true
    }

    fn read(
        &mut self,
        now: Instant,
        id: StreamId,
        connection: &mut Connection,
        reference: &mut Reference,
    ) -> bool {
        let Some(task) = self.reading.get_mut(&id).filter(|task| !task.waits) else {
            return false;
        };
        if task.asleep_until.is_some_and(|until| now < until) {
            return false;
        }
        task.asleep_until = task.pace.map(|pace| now + pace);
        let mut recv = connection.recv_stream(id).expect("nobody has let go of it");
        if task.stops_after == 0 {
            recv.stop(ResetCode::CANCELLED);
            reference.stopped(self.side, id);
            self.reading.remove(&id);
            return true;
        }
        let outcome = recv.read(task.most.min(task.stops_after));
        match &outcome {
            Ok(Some(piece)) => task.stops_after -= piece.len(),
            Err(ReadError::Blocked) => {
                task.waits = true;
                task.asleep_until = None;
            }
            _ => {
                self.reading.remove(&id);
            }
        }
        reference.read(self.side, id, outcome);
        true
    }

    /// The session has ended: what had arrived is still there to be read, and ends with an error unless it had ended.
    pub(super) fn read_what_is_left(&self, connection: &mut Connection, reference: &mut Reference) {
        for id in self.reading.keys() {
            while let Some(mut recv) = connection.recv_stream(*id) {
                let outcome = recv.read(usize::MAX);
                let over = !matches!(outcome, Ok(Some(_)));
                reference.read(self.side, *id, outcome);
                if over {
                    break;
                }
            }
        }
    }
}
