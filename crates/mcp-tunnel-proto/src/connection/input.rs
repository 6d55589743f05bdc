//! Reactions to frames of the peer.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::{
    Connection, ConnectionError, Departure, Event,
    chunks::COPY_BEHIND,
    flow,
    streams::{Absent, RecvState, SendState, Stream},
};
use crate::{
    Frame, GoAway, LastStream, OpenHeader, ResetCode, StreamId, Violation,
    frame::{self, HEADER, kind},
};

impl Connection {
    pub(super) fn read(
        &mut self,
        now: Instant,
        input: &mut BytesMut,
    ) -> Result<(), ConnectionError> {
        let most = self.agreed.local.max_frame;
        loop {
            let before = input.len();
            let slab = &mut self.slab;
            let take = |input: &mut BytesMut, length| slab.take(input, length);
            let Some(frame) = frame::decode_with(input, most, take)? else {
                return Ok(());
            };
            if let Some(replay) = &mut self.replay
                && frame.kind() & kind::SESSION != 0
            {
                replay.on_received(before.saturating_sub(input.len()));
            }
            self.on_frame(now, frame)?;
        }
    }

    fn on_frame(&mut self, now: Instant, frame: Frame) -> Result<(), ConnectionError> {
        match frame {
            Frame::Data { id, payload, fin } => self.on_data(now, id, payload, fin)?,
            Frame::Open {
                id,
                header,
                first,
                fin,
            } => self.on_open(now, id, *header, first, fin)?,
            Frame::Reset { id, code } => self.on_reset(now, id, code)?,
            Frame::Stop { id, code } => self.on_stop(now, id, code)?,
            Frame::GoAway(goaway) => self.on_goaway(*goaway)?,
            Frame::StreamCredit { id, limit } => self.on_stream_credit(now, id, limit)?,
            Frame::SessionCredit(limit) => {
                let rise = self.credit.raise(limit)?;
                self.budget.on_credit(now, rise)?;
            }
            Frame::StreamsCredit(limit) => self.on_streams_credit(now, limit)?,
            Frame::Ack(position) => self.on_ack(now, position)?,
            Frame::Ping(number) => {
                self.budget.on_ping(now)?;
                self.liveness.on_ping(number);
            }
            Frame::Pong(number) => {
                self.budget.on_ping(now)?;
                self.on_pong(now, number);
            }
            // CLOSE-1
            Frame::Close { code, text } => {
                return Err(ConnectionError::ClosedByPeer { code, text });
            }
            Frame::Ignored { .. } => self.budget.on_unknown(now)?,
            // FRAME-6: these come before, or with a feature that is not agreed.
            Frame::Hello(_) | Frame::Admission(_) | Frame::Resume(_) => {
                return Err(Violation::UnexpectedFrame.into());
            }
        }
        Ok(())
    }

    fn on_open(
        &mut self,
        now: Instant,
        id: StreamId,
        header: OpenHeader,
        first: Bytes,
        fin: bool,
    ) -> Result<(), Violation> {
        self.budget.on_open(now)?;
        self.charge(flow::amount(first.len()))?;
        if !self.streams.admit_remote(id)? {
            return Ok(());
        }
        let mut stream = Stream::new(header.urgency, &self.agreed);
        // CREDIT-2
        if !stream.recv.window.receive(flow::amount(first.len())) {
            return Err(Violation::StreamCredit);
        }
        stream.recv.buffer.push(first, 0);
        if fin {
            stream.recv.state = RecvState::Finished;
        }
        self.streams.insert_remote(id, stream);
        self.events.push_back(Event::Opened { id, header });
        Ok(())
    }

    fn on_data(
        &mut self,
        now: Instant,
        id: StreamId,
        payload: Bytes,
        fin: bool,
    ) -> Result<(), Violation> {
        if !payload.is_empty() {
            self.charge(flow::amount(payload.len()).saturating_add(flow::amount(HEADER)))?;
        }
        if !fin {
            self.budget.on_data(now, payload.len())?;
        }
        let Some(stream) = self.streams.get_mut(id).filter(|s| s.unsent.is_none()) else {
            return self.on_absent(now, id);
        };
        let recv = &mut stream.recv;
        if recv.state.is_ended() {
            return Err(Violation::StreamEnded);
        }
        // CREDIT-2
        recv.window.begin(now);
        let amount = flow::amount(payload.len());
        if !recv.window.receive(amount) {
            return Err(Violation::StreamCredit);
        }
        if recv.state == RecvState::Stopped {
            // STOP-2: counted above, and dropped.
            recv.window.consume(amount);
            if fin {
                recv.state = RecvState::Discarded;
                recv.stop_due = None;
                self.settle(id);
            }
            return Ok(());
        }
        recv.buffer.push(payload, COPY_BEHIND);
        if fin {
            recv.state = RecvState::Finished;
            recv.credit_due = false;
            self.settle_window(id);
        }
        self.wake_reader(id);
        Ok(())
    }

    /// RESET-2: nothing is sent in answer.
    fn on_reset(&mut self, now: Instant, id: StreamId, code: ResetCode) -> Result<(), Violation> {
        let Some(stream) = self.streams.get_mut(id).filter(|s| s.unsent.is_none()) else {
            return self.on_absent(now, id);
        };
        if id.opener() != self.agreed.side {
            self.budget.on_reset(now)?;
        }
        match stream.recv.state {
            RecvState::Open => {
                stream.recv.state = RecvState::Reset(code);
                stream.recv.discard();
                self.events.push_back(Event::Reset { id, code });
                self.settle_window(id);
            }
            RecvState::Stopped => {
                stream.recv.state = RecvState::Discarded;
                stream.recv.stop_due = None;
                self.settle(id);
            }
            RecvState::Finished | RecvState::Reset(_) | RecvState::Discarded => {
                return Err(Violation::StreamEnded);
            }
        }
        Ok(())
    }

    /// STOP-1: answered with RESET of the same code, unless that direction has ended.
    fn on_stop(&mut self, now: Instant, id: StreamId, code: ResetCode) -> Result<(), Violation> {
        let Some(stream) = self.streams.get_mut(id).filter(|s| s.unsent.is_none()) else {
            return self.on_crossing(now, id);
        };
        let first = stream.send.stopped.is_none();
        stream.send.stopped.get_or_insert(code);
        if !first || id.opener() != self.agreed.side {
            self.budget.on_reset(now)?;
        }
        match stream.send.state {
            SendState::Open | SendState::Finishing => {
                self.buffered = self.buffered.saturating_sub(stream.send.buffer.clear());
                stream.send.state = SendState::Resetting(code);
                self.schedule.push_control(id, stream);
                self.events.push_back(Event::Stopped { id, code });
            }
            SendState::Resetting(_) | SendState::Ended => {}
        }
        Ok(())
    }

    fn on_stream_credit(
        &mut self,
        now: Instant,
        id: StreamId,
        limit: u64,
    ) -> Result<(), Violation> {
        let Some(stream) = self.streams.get_mut(id).filter(|s| s.unsent.is_none()) else {
            return self.on_crossing(now, id);
        };
        let rise = stream.send.credit.raise(limit)?;
        self.budget.on_credit(now, rise)?;
        self.wake_writer(id);
        Ok(())
    }

    fn on_streams_credit(&mut self, now: Instant, limit: u64) -> Result<(), Violation> {
        let rise = self.streams.credit.raise(limit)?;
        // A slot is worth more than any number of bytes; only news without one is cheap.
        self.budget.on_credit(now, rise.saturating_mul(1 << 20))?;
        self.wake_opener();
        Ok(())
    }

    fn on_pong(&mut self, now: Instant, number: u64) {
        if let Some(rtt) = self.liveness.on_pong(now, number) {
            self.events.push_back(Event::Rtt(rtt));
        }
        // GOAWAY-2: whatever the peer opened before it saw the warning has arrived by now.
        if matches!(self.departure, Departure::Warned { after } if number > after) {
            self.departure = Departure::FinalDue;
        }
    }

    fn on_goaway(&mut self, goaway: GoAway) -> Result<(), Violation> {
        // GOAWAY-3: one warning, then one final word.
        let repeated = match self.peer_goaway {
            None => false,
            Some(LastStream::Any) => goaway.last == LastStream::Any,
            Some(LastStream::Nothing | LastStream::UpTo(_)) => true,
        };
        if repeated {
            return Err(Violation::GoAwayRepeated);
        }
        self.peer_goaway = Some(goaway.last);
        for id in self.streams.refused_by(goaway.last) {
            self.refuse_local(id);
        }
        self.events.push_back(Event::GoAway {
            last: goaway.last,
            code: goaway.code,
            drain: (goaway.drain_millis > 0)
                .then(|| Duration::from_millis(goaway.drain_millis.into())),
            text: goaway.text,
        });
        self.check_drained();
        Ok(())
    }

    /// GOAWAY-4: a stream above the last id was not processed and may be replayed elsewhere.
    fn refuse_local(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        self.buffered = self.buffered.saturating_sub(stream.send.buffer.clear());
        stream.unsent = None;
        stream.send.state = SendState::Ended;
        stream.send.stopped = Some(ResetCode::REFUSED);
        if stream.recv.state == RecvState::Stopped {
            stream.recv.state = RecvState::Discarded;
        } else if !stream.recv.state.is_ended() {
            stream.recv.state = RecvState::Reset(ResetCode::REFUSED);
            stream.recv.discard();
        }
        stream.recv.stop_due = None;
        self.schedule.cancel_open(id);
        let code = ResetCode::REFUSED;
        self.events.push_back(Event::Reset { id, code });
        self.settle(id);
    }

    /// CREDIT-3, CREDIT-6: session credit is used on arrival, whatever becomes of the payload. It is free again at
    /// once, since the streams' windows bound what is kept.
    fn charge(&mut self, amount: u64) -> Result<(), Violation> {
        if !self.window.receive(amount) {
            return Err(Violation::SessionCredit);
        }
        self.window.consume(amount);
        Ok(())
    }

    /// STREAM-4: DATA or RESET for a stream that is gone.
    fn on_absent(&mut self, now: Instant, id: StreamId) -> Result<(), Violation> {
        match self.streams.why_absent(id) {
            Absent::Unopened => Err(Violation::StreamUnopened),
            Absent::Closed { recently: true } => self.budget.on_closed(now),
            Absent::Closed { recently: false } => Err(Violation::StreamForgotten),
        }
    }

    /// STREAM-5: STOP and STREAM_CREDIT may cross the end of their stream, however long that is ago.
    fn on_crossing(&mut self, now: Instant, id: StreamId) -> Result<(), Violation> {
        match self.streams.why_absent(id) {
            Absent::Unopened => Err(Violation::StreamUnopened),
            Absent::Closed { .. } => self.budget.on_closed(now),
        }
    }
}
