//! What goes out next: control first, then payload in turns.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Buf;

use super::{
    Connection, Departure, flow,
    replay::Replay,
    streams::{SendState, Stream},
    turns::{Patience, Turn, Turns},
};
use crate::{
    Frame, GoAway, LastStream, QUANTUM, StreamId, Transmit,
    frame::{HEADER, kind},
    transmit::Mark,
};

/// How long what was paced waits.
const PACE: Duration = Duration::from_millis(10);

/// Queues of streams with something to send. Every stream is at most once in each, so that none outgrows
/// the table (ABUSE-2).
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    /// OPENs, in order of ids.
    opens: VecDeque<StreamId>,
    /// How long OPENs go before payload that waits.
    patience: Patience,
    control: VecDeque<StreamId>,
    /// Streams whose cancelling waits, and until when.
    paced: VecDeque<StreamId>,
    paced_until: Option<Instant>,
    turns: Turns,
}

impl Schedule {
    pub(crate) fn push_open(&mut self, id: StreamId) {
        self.opens.push_back(id);
    }

    pub(crate) fn cancel_open(&mut self, id: StreamId) {
        self.opens.retain(|other| *other != id);
    }

    pub(crate) fn push_control(&mut self, id: StreamId, stream: &mut Stream) {
        if !stream.in_control {
            stream.in_control = true;
            self.control.push_back(id);
        }
    }

    pub(crate) fn push_ready(&mut self, id: StreamId, stream: &mut Stream) {
        if stream.in_ready || stream.unsent.is_some() {
            return;
        }
        stream.in_ready = true;
        self.turns.push(stream.urgency, id);
    }

    /// The stream's RESET or STOP waits a moment, and with it the stream's slot.
    fn pace(&mut self, now: Instant, id: StreamId, stream: &mut Stream) {
        stream.in_control = true;
        self.paced.push_back(id);
        self.paced_until.get_or_insert(now + PACE);
    }

    #[cfg(test)]
    pub(super) fn is_nothing_paced(&self) -> bool {
        self.paced.is_empty()
    }

    /// When what was paced may go on.
    pub(crate) const fn paced_until(&self) -> Option<Instant> {
        self.paced_until
    }

    /// Lets what was paced go on if it is time.
    pub(crate) fn unpace(&mut self, now: Instant) {
        if self.paced_until.is_some_and(|until| now >= until) {
            self.paced_until = None;
            self.control.append(&mut self.paced);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.opens.is_empty() && self.control.is_empty() && self.turns.is_empty()
    }

    /// An OPEN has left, so many bytes long with its payload.
    fn opened(&mut self, bytes: usize) {
        if self.turns.is_empty() {
            self.patience.restore();
        } else {
            self.patience.count(bytes);
        }
    }

    /// SCHED-1: whether OPENs have passed payload for a turn's length, or a round of those that waited.
    fn is_payload_due(&self) -> bool {
        !self.turns.is_empty() && self.patience.is_spent(1)
    }

    /// The current turn is over.
    fn end_turn(&mut self, turn: Turn, stream: &mut Stream, has_more: bool) {
        self.turns.end(turn);
        self.patience.renew(self.opens.len());
        stream.in_ready = has_more;
        if has_more {
            self.turns.rest(stream.urgency, turn.id);
        }
    }
}

impl Connection {
    /// Adds frames to `out` until it is full or nothing is left; says whether any was added.
    pub(super) fn transmit(&mut self, now: Instant, out: &mut Transmit) -> bool {
        let before = out.remaining();
        if let Some(frame) = self.close_frame.take() {
            out.push_frame(&frame);
        }
        if self.closed.is_none() {
            self.transmit_session(now, out);
        }
        let added = out.remaining().saturating_sub(before);
        self.liveness.on_sent(added);
        added > 0
    }

    fn transmit_session(&mut self, now: Instant, out: &mut Transmit) {
        if let Some(replay) = &mut self.replay {
            if self.detached.is_some() {
                return;
            }
            replay.transmit(out);
            if replay.is_replaying() {
                return;
            }
        }
        self.transmit_ack(now, out);
        self.transmit_link(now, out);
        while !out.is_full() {
            self.transmit_opens(out);
            self.transmit_pong(out);
            self.transmit_control(now, out);
            if self.transmit_payload(out) {
                continue;
            }
            if self.schedule.opens.is_empty() {
                return;
            }
            // The payload that is due lacks credit: OPENs do not wait for it.
            self.schedule.patience.restore();
        }
    }

    /// ACK-1: ahead of every credit. ACK-3: with whatever else is sent, and when it is worth a frame.
    fn transmit_ack(&mut self, now: Instant, out: &mut Transmit) {
        let in_passing = self.replay.is_some()
            && (self.transmit_wanted()
                || self.window.is_due(4)
                || self.liveness.wants_transmit(now)
                || self.streams.is_short()
                // The end must not wait for a ping.
                || self.is_going_away());
        if let Some(replay) = &mut self.replay
            && let Some(position) = replay.poll_ack(in_passing)
        {
            out.push_frame(&Frame::Ack(position));
        }
    }

    /// SCHED-1: link frames and GOAWAY wait for no credit and no payload.
    fn transmit_link(&mut self, now: Instant, out: &mut Transmit) {
        self.transmit_pong(out);
        let again = std::mem::take(&mut self.credits_due);
        if let Some(limit) = self.renew_session(now, again) {
            out.push_frame(&Frame::SessionCredit(limit));
        }
        if self.streams.window.is_count_due(8) || again {
            out.push_frame(&Frame::StreamsCredit(self.streams.window.grant()));
        }
        if let Some(last) = self.departure_due() {
            let goaway = GoAway {
                last,
                ..self.goaway.clone()
            };
            let mark = out.mark();
            out.push_frame(&Frame::GoAway(Box::new(goaway)));
            if let Some(replay) = &mut self.replay {
                replay.keep(out, mark);
            }
            if last == LastStream::Any {
                let after = self.liveness.ping_soon();
                self.departure = Departure::Warned { after };
            } else {
                self.departure = Departure::Final;
                self.streams.accepted = last;
                self.check_drained();
            }
        }
        if let Some(number) = self.liveness.poll_ping(now) {
            out.push_frame(&Frame::Ping(number));
            self.want_less();
        }
    }

    /// GOAWAY-2: a peer that has warned takes the pong as a sign that every stream opened before has arrived, so it does
    /// not overtake those that wait to leave.
    fn transmit_pong(&mut self, out: &mut Transmit) {
        if self.peer_goaway.is_some() && !self.schedule.opens.is_empty() {
            return;
        }
        if let Some(number) = self.liveness.poll_pong() {
            out.push_frame(&Frame::Pong(number));
        }
    }

    pub(super) fn transmit_wanted(&self) -> bool {
        if self.closed.is_some() {
            return self.close_frame.is_some();
        }
        if self.detached.is_some() {
            return false;
        }
        !self.schedule.is_empty()
            || self.credits_due
            || self.streams.window.is_count_due(8)
            || self.departure_due().is_some()
            || self
                .replay
                .as_ref()
                .is_some_and(|replay| replay.is_replaying() || replay.is_ack_due())
    }

    fn departure_due(&self) -> Option<LastStream> {
        match self.departure {
            Departure::WarningDue => Some(LastStream::Any),
            Departure::FinalDue => Some(
                self.streams
                    .highest_remote()
                    .map_or(LastStream::Nothing, LastStream::UpTo),
            ),
            Departure::Staying | Departure::Warned { .. } | Departure::Final => None,
        }
    }

    /// OPEN-2: in order of ids. OPEN-3: with as much first payload as credit and frame allow; that is the stream's first
    /// turn, so it waits if a more urgent one does.
    fn transmit_opens(&mut self, out: &mut Transmit) {
        while !self.schedule.opens.is_empty() && !out.is_full() && !self.schedule.is_payload_due() {
            let Some(id) = self.schedule.opens.pop_front() else {
                return;
            };
            let sendable = self.sendable();
            let Some(stream) = self.streams.get_mut(id) else {
                continue;
            };
            let Some(header) = stream.unsent.take() else {
                continue;
            };
            let head = header.encoded_len();
            let most = if self.schedule.turns.is_outranked(stream.urgency) {
                0
            } else {
                usize::from(self.agreed.peer.max_frame).saturating_sub(head)
            };
            let length = stream
                .send
                .buffer
                .len()
                .min(most)
                .min(QUANTUM)
                .min(flow::length(sendable));
            let fin =
                stream.send.state == SendState::Finishing && length == stream.send.buffer.len();
            let frame = if fin { kind::OPEN_FIN } else { kind::OPEN };
            let mark = out.mark();
            out.push_head(frame, head.saturating_add(length), id);
            out.push_heads(|heads| header.encode(heads));
            self.credit.spend(flow::amount(length));
            self.schedule.opened(head.saturating_add(length));
            // What was asked for meanwhile had to wait for this.
            if matches!(stream.send.state, SendState::Resetting(_))
                || stream.recv.stop_due.is_some()
            {
                self.schedule.push_control(id, stream);
            }
            self.after_payload(id, length, fin, mark, out);
        }
    }

    /// CREDIT-1: nothing here needs credit.
    fn transmit_control(&mut self, now: Instant, out: &mut Transmit) {
        while !out.is_full() {
            let Some(id) = self.schedule.control.pop_front() else {
                return;
            };
            let Some(stream) = self.streams.get_mut(id) else {
                continue;
            };
            stream.in_control = false;
            if stream.unsent.is_some() {
                // Its OPEN goes first, and brings it back here.
                continue;
            }
            if stream.recv.credit_due
                && let Some(limit) = self.renew_window(now, id)
            {
                out.push_frame(&Frame::StreamCredit { id, limit });
            }
            let Some(stream) = self.streams.get_mut(id) else {
                continue;
            };
            let resets = matches!(stream.send.state, SendState::Resetting(_));
            let cancels = u32::from(resets) + u32::from(stream.recv.stop_due.is_some());
            // ABUSE-1: not faster than the peer puts up with.
            if cancels > 0
                && id.opener() == self.agreed.side
                && !self.budget.may_cancel(now, cancels)
            {
                self.schedule.pace(now, id, stream);
                continue;
            }
            if let Some(code) = stream.recv.stop_due.take() {
                let mark = out.mark();
                out.push_frame(&Frame::Stop { id, code });
                keep(&mut self.replay, stream, mark, out);
            }
            let mark = out.mark();
            match stream.send.state {
                SendState::Resetting(code) => {
                    out.push_frame(&Frame::Reset { id, code });
                    keep(&mut self.replay, stream, mark, out);
                    stream.send.state = SendState::Ended;
                }
                SendState::Finishing if stream.send.buffer.is_empty() => {
                    out.push_head(kind::DATA_FIN, 0, id);
                    keep(&mut self.replay, stream, mark, out);
                    stream.send.state = SendState::Ended;
                }
                SendState::Open | SendState::Finishing | SendState::Ended => {}
            }
            self.settle(id);
        }
    }

    /// SCHED-2: one frame of the turn that it is. Says whether there was any.
    fn transmit_payload(&mut self, out: &mut Transmit) -> bool {
        let header = flow::amount(HEADER);
        if self.schedule.turns.is_empty() || out.is_full() {
            return false;
        }
        let available = self.sendable().saturating_sub(header);
        if available == 0 {
            return false;
        }
        while let Some(turn) = self.schedule.turns.current() {
            let Some(stream) = self.streams.get_mut(turn.id) else {
                self.schedule.turns.skip(turn);
                continue;
            };
            let waiting = stream.send.buffer.len();
            if waiting == 0 {
                stream.in_ready = false;
                self.schedule.turns.skip(turn);
                continue;
            }
            let length = waiting
                .min(usize::from(self.agreed.peer.max_frame))
                .min(turn.left)
                .min(flow::length(available));
            let all = length == waiting;
            let fin = stream.send.state == SendState::Finishing && all;
            let frame = if fin { kind::DATA_FIN } else { kind::DATA };
            let mark = out.mark();
            out.push_head(frame, length, turn.id);
            self.credit
                .spend(flow::amount(length).saturating_add(header));
            let over = self.schedule.turns.spend(turn, length);
            if over || all {
                self.schedule.end_turn(turn, stream, !all);
            }
            self.after_payload(turn.id, length, fin, mark, out);
            return true;
        }
        false
    }

    /// Moves `length` payload bytes of a stream behind the header that was just written.
    fn after_payload(
        &mut self,
        id: StreamId,
        length: usize,
        fin: bool,
        mark: Mark,
        out: &mut Transmit,
    ) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        let mut left = length;
        while left > 0 {
            let Some(piece) = stream.send.buffer.pop(left) else {
                break;
            };
            left = left.saturating_sub(piece.len());
            out.push_payload(piece);
        }
        keep(&mut self.replay, stream, mark, out);
        self.buffered = self.buffered.saturating_sub(length);
        if fin {
            stream.send.state = SendState::Ended;
        } else if !stream.send.buffer.is_empty() {
            self.schedule.push_ready(id, stream);
        } else if stream.send.state == SendState::Finishing {
            self.schedule.push_control(id, stream);
        }
        self.wake_writer(id);
        self.settle(id);
    }
}

/// Keeps the one frame of `stream` that was written since `mark`, if the session survives its link.
fn keep(replay: &mut Option<Box<Replay>>, stream: &mut Stream, mark: Mark, out: &Transmit) {
    if let Some(replay) = replay {
        stream.kept_until = replay.keep(out, mark);
    }
}
