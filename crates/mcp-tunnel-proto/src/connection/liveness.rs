//! Pings, round-trip time, and when a silent link counts as dead.

use std::time::{Duration, Instant};

use super::flow;
use crate::Config;

/// While something is heard, pings only measure: one in so many intervals.
const MEASURE: u32 = 6;

/// Bytes a second that the slowest link worth waiting for carries.
const SLOWEST: u64 = 128 * 1024;

/// How long a least round trip counts before it is measured anew.
const LEAST_FOR: Duration = Duration::from_secs(60);

/// One ping at a time, after silence; any byte that comes is life.
///
/// ```text
///   heard ──── interval ────► ping ──── patience ────► dead        a pong or any other byte begins anew
///     └────────────────────── silence ───────────────► dead        at the latest
/// ```
///
/// The patience follows the round trips, if the session survives a wrong verdict: then the one on a link that is dead
/// comes early, and the one on a link that is only slow costs a few round trips.
#[derive(Debug)]
pub(crate) struct Liveness {
    interval: Duration,
    silence: Duration,
    least_silence: Duration,
    adaptive: bool,
    heard: Instant,
    /// What the clock has missed since.
    slept: Duration,
    pinged: Option<Instant>,
    /// A ping is to be sent as soon as none is outstanding.
    wanted: bool,
    outstanding: Option<Outstanding>,
    sent: u64,
    /// PING-2: only the latest ping is answered.
    pong: Option<u64>,
    smoothed: Option<Duration>,
    variation: Duration,
    least: Least,
    /// Bytes given to the link.
    given: u64,
    /// Of these, what has surely arrived.
    proven: u64,
}

#[derive(Debug, Clone, Copy)]
struct Outstanding {
    number: u64,
    at: Instant,
    /// Bytes given to the link before it.
    behind: u64,
}

/// The least round trip of late: that of the link, without the queues of its buffers.
#[derive(Debug, Clone, Copy, Default)]
struct Least {
    now: Option<(Instant, Duration)>,
    before: Option<Duration>,
}

impl Least {
    fn add(&mut self, now: Instant, rtt: Duration) {
        match &mut self.now {
            Some((since, least)) if now < *since + LEAST_FOR => *least = rtt.min(*least),
            current => {
                self.before = current.map(|(_, least)| least);
                *current = Some((now, rtt));
            }
        }
    }

    fn get(self) -> Option<Duration> {
        let now = self.now.map(|(_, least)| least);
        now.into_iter().chain(self.before).min()
    }
}

impl Liveness {
    pub(crate) fn new(now: Instant, config: &Config) -> Self {
        Self {
            interval: config.ping_interval(),
            silence: config.silence(),
            least_silence: config.least_silence(),
            adaptive: false,
            heard: now,
            slept: Duration::ZERO,
            pinged: None,
            wanted: false,
            outstanding: None,
            sent: 0,
            pong: None,
            smoothed: None,
            variation: Duration::ZERO,
            least: Least::default(),
            given: 0,
            proven: 0,
        }
    }

    /// RESUME-5: the same on a new link, with numbers that no ping had before, not even one of the link's handshake: what
    /// still comes as an answer to those answers nothing here.
    pub(crate) fn renew(&mut self, now: Instant, config: &Config) {
        let sent = (self.sent | u64::from(u32::MAX)).saturating_add(1);
        *self = Self {
            sent,
            adaptive: self.adaptive,
            ..Self::new(now, config)
        };
    }

    /// Whether the session survives the loss of this link.
    pub(crate) fn adapting(mut self, survives: bool) -> Self {
        self.adaptive = survives;
        self
    }

    pub(crate) fn on_heard(&mut self, now: Instant) {
        self.heard = self.heard.max(now);
        self.slept = Duration::ZERO;
    }

    pub(crate) fn on_sent(&mut self, bytes: usize) {
        self.given = self.given.saturating_add(flow::amount(bytes));
    }

    /// All that was given to the link has arrived, but for `left` bytes.
    pub(crate) fn on_proven(&mut self, left: u64) {
        self.proven = self.proven.max(self.given.saturating_sub(left));
    }

    pub(crate) fn on_ping(&mut self, number: u64) {
        self.pong = Some(number);
    }

    /// PING-4: a pong that answers no ping of ours says nothing.
    pub(crate) fn on_pong(&mut self, now: Instant, number: u64) -> Option<Duration> {
        let ping = self.outstanding.filter(|ping| ping.number == number)?;
        self.outstanding = None;
        self.proven = self.proven.max(ping.behind);
        let rtt = now.saturating_duration_since(ping.at);
        self.least.add(now, rtt);
        // As TCP measures it (RFC 6298).
        (self.smoothed, self.variation) = match self.smoothed {
            Some(old) => (
                Some((old * 7 + rtt) / 8),
                (self.variation * 3 + old.abs_diff(rtt)) / 4,
            ),
            None => (Some(rtt), rtt / 2),
        };
        Some(rtt)
    }

    /// Asks for a ping as soon as possible; the pong's number will be above the returned one.
    pub(crate) fn ping_soon(&mut self) -> u64 {
        self.wanted = true;
        self.sent
    }

    /// Time that the clock does not show went by without a byte. It may be a clock that was set: where that would cost
    /// the session, only a ping is sent.
    pub(crate) fn on_sleep(&mut self, slept: Duration) {
        if self.adaptive {
            self.slept = self.slept.saturating_add(slept);
        }
        self.wanted = true;
    }

    pub(crate) fn poll_pong(&mut self) -> Option<u64> {
        self.pong.take()
    }

    /// The ping to send now, if one is due.
    pub(crate) fn poll_ping(&mut self, now: Instant) -> Option<u64> {
        if !self.is_ping_due(now) {
            return None;
        }
        self.wanted = false;
        self.sent += 1;
        self.outstanding = Some(Outstanding {
            number: self.sent,
            at: now,
            behind: self.given,
        });
        self.pinged = Some(now);
        Some(self.sent)
    }

    /// Whether a pong or a ping is to be sent now.
    pub(crate) fn wants_transmit(&self, now: Instant) -> bool {
        self.pong.is_some() || self.is_ping_due(now)
    }

    fn is_ping_due(&self, now: Instant) -> bool {
        // A peer that sends but never answers pings must not stop them for ever.
        let free = self
            .outstanding
            .is_none_or(|ping| now >= ping.at + self.silence);
        free && (self.wanted || now >= self.next_ping())
    }

    /// After silence, or to measure; a new link begins with one.
    fn next_ping(&self) -> Instant {
        match self.pinged {
            Some(last) => {
                (self.heard.max(last) + self.interval).min(last + self.interval * MEASURE)
            }
            None => self.heard,
        }
    }

    pub(crate) fn is_silent(&self, now: Instant) -> bool {
        now >= self.silent_at()
    }

    /// PING-3: when the link counts as dead unless something comes.
    pub(crate) fn silent_at(&self) -> Instant {
        let latest = self.heard + self.silence.saturating_sub(self.slept);
        match self.outstanding {
            Some(ping) => latest.min(self.heard.max(ping.at) + self.patience()),
            None => latest,
        }
    }

    /// The time from the last byte to that.
    pub(crate) fn silence(&self) -> Duration {
        let shown = self.silent_at().saturating_duration_since(self.heard);
        shown.saturating_add(self.slept)
    }

    /// How long the answer to a ping may take: a few of the usual times, and what lies before it on the way.
    fn patience(&self) -> Duration {
        let Some(smoothed) = self.smoothed.filter(|_| self.adaptive) else {
            return self.silence;
        };
        let before = self.given.saturating_sub(self.proven);
        let before = Duration::from_millis(before.saturating_mul(1000) / SLOWEST);
        let usual = (smoothed + self.variation * 4) * 4;
        usual
            .max(self.least_silence)
            .saturating_add(before)
            .min(self.silence)
    }

    /// When something is to be done: a ping, or the end.
    pub(crate) fn deadline(&self) -> Instant {
        let dead = self.silent_at();
        match self.outstanding {
            Some(ping) => dead.min((ping.at + self.silence).max(self.next_ping())),
            None => dead.min(self.next_ping()),
        }
    }

    /// Smoothed round-trip time.
    pub(crate) const fn rtt(&self) -> Option<Duration> {
        self.smoothed
    }

    /// The least round trip of the last minutes.
    pub(crate) fn least_rtt(&self) -> Option<Duration> {
        self.least.get()
    }
}
