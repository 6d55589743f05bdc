//! Whose turn it is: round robin by bytes within an urgency, rounds between urgencies.

use std::collections::VecDeque;

use crate::{QUANTUM, StreamId, Urgency};

/// SCHED-3: what is less urgent waits for so many quanta of what is more urgent, if fewer streams than that wait there.
const PATIENCE: usize = 8;

/// What the smallest frame counts for, so that a thousand one-byte frames do not pass for one small one.
const LEAST: usize = 256;

/// So little of a turn is not worth a frame of its own.
const RUNT: usize = 1024;

/// Streams with payload to send, by urgency.
///
/// ```text
///   interactive   a  b  c      the stream at the front has the turn until it has sent a quantum, or all
///   bulk          d            it has; then it goes to the back. A turn that was cut short, by session
///   background    e  f         credit or by small frames, goes on where it was (deficit round robin).
/// ```
///
/// A level goes before the ones below it until its [`Patience`] is spent; then they have one turn. A stream thus never
/// waits for more than one quantum of each rival of its own urgency and for one of the less urgent ones together.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    levels: [Level; Urgency::COUNT],
    /// Has had its turn and has more. It goes to the back only when the next turn is given, so that whoever came while its
    /// frame was on the way goes before it.
    resting: Option<(Urgency, StreamId)>,
    /// How many wait in all.
    waiting: usize,
}

#[derive(Debug, Default)]
struct Level {
    queue: VecDeque<StreamId>,
    /// What the front may still send, in bytes; 0: its turn has not begun.
    left: usize,
    patience: Patience,
}

/// How long a queue may go before others that wait.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    /// Bytes that went before them since their last turn.
    ahead: usize,
    /// A quantum for each who waited in the queue then: a round of it lets the others have one turn, not two.
    round: usize,
}

impl Patience {
    /// `quanta`: how many there are at least.
    pub(crate) const fn is_spent(&self, quanta: usize) -> bool {
        let least = quanta.saturating_mul(QUANTUM);
        self.ahead
            >= if self.round > least {
                self.round
            } else {
                least
            }
    }

    /// The queue has sent a frame, and others wait.
    pub(crate) fn count(&mut self, bytes: usize) {
        let bytes = bytes.clamp(LEAST, QUANTUM);
        self.ahead = self.ahead.saturating_add(bytes);
    }

    /// Nobody else waits.
    pub(crate) const fn restore(&mut self) {
        self.ahead = 0;
    }

    /// The others had their turn; `waiting` are left in the queue.
    pub(crate) const fn renew(&mut self, waiting: usize) {
        self.ahead = 0;
        self.round = waiting.saturating_mul(QUANTUM);
    }
}

/// The stream that may send next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    pub(crate) id: StreamId,
    /// Payload bytes that it may send, at least one.
    pub(crate) left: usize,
    level: usize,
}

impl Turns {
    pub(crate) fn push(&mut self, urgency: Urgency, id: StreamId) {
        if let Some(level) = self.levels.get_mut(urgency.level()) {
            level.queue.push_back(id);
            self.waiting = self.waiting.saturating_add(1);
        }
    }

    /// Puts in the stream whose turn has just ended.
    pub(crate) const fn rest(&mut self, urgency: Urgency, id: StreamId) {
        self.resting = Some((urgency, id));
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.waiting == 0 && self.resting.is_none()
    }

    /// Whether a stream waits that goes before those of this urgency.
    pub(crate) fn is_outranked(&self, urgency: Urgency) -> bool {
        let mut above = self.levels.iter().take(urgency.level());
        above.any(|level| !level.queue.is_empty())
            || matches!(self.resting, Some((resting, _)) if resting < urgency)
    }

    /// Whose turn it is, until [`end`](Self::end).
    pub(crate) fn current(&mut self) -> Option<Turn> {
        if let Some((urgency, id)) = self.resting.take() {
            self.push(urgency, id);
        }
        let at = self.choose()?;
        let level = self.levels.get_mut(at)?;
        if level.left == 0 {
            level.left = QUANTUM;
        }
        Some(Turn {
            id: *level.queue.front()?,
            left: level.left,
            level: at,
        })
    }

    /// The turn's stream has sent a frame of so many payload bytes. Says whether that was all it may.
    pub(crate) fn spend(&mut self, turn: Turn, bytes: usize) -> bool {
        let waiting = self.waiting;
        let mut below = self.levels.iter().skip(turn.level.saturating_add(1));
        let passed = waiting > 1 && below.any(|level| !level.queue.is_empty());
        let Some(level) = self.levels.get_mut(turn.level) else {
            return true;
        };
        let bytes = bytes.max(LEAST).min(level.left);
        level.left = level.left.saturating_sub(bytes);
        if passed {
            level.patience.count(bytes);
        } else {
            level.patience.restore();
        }
        level.left < RUNT
    }

    /// Takes out a stream that has nothing to send any more.
    pub(crate) fn skip(&mut self, turn: Turn) {
        if let Some(level) = self.levels.get_mut(turn.level) {
            level.queue.pop_front();
            level.left = 0;
            self.waiting = self.waiting.saturating_sub(1);
        }
    }

    /// The turn is over: takes its stream out. If it has more, it is to [`rest`](Self::rest).
    pub(crate) fn end(&mut self, turn: Turn) {
        self.skip(turn);
        for above in self.levels.iter_mut().take(turn.level) {
            above.patience.renew(above.queue.len());
        }
    }

    /// SCHED-3: the most urgent level that waits, unless its patience is spent and a lower one waits. A turn that has begun
    /// is not cut by lower ones.
    fn choose(&self) -> Option<usize> {
        let mut chosen = None;
        for (at, level) in self.levels.iter().enumerate() {
            if level.queue.is_empty() {
                continue;
            }
            chosen = Some(at);
            if level.left > 0 || !level.patience.is_spent(PATIENCE) {
                break;
            }
        }
        chosen
    }
}
