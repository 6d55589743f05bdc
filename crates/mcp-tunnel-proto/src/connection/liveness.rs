//! Pings, round-trip time, and when a silent link counts as dead.

use std::time::{Duration, Instant};

use crate::Config;

/// One ping at a time, sent at an interval; any byte that comes is life.
#[derive(Debug)]
pub(crate) struct Liveness {
    interval: Duration,
    silence: Duration,
    heard: Instant,
    next_ping: Instant,
    /// A ping is to be sent as soon as none is outstanding.
    wanted: bool,
    outstanding: Option<(u64, Instant)>,
    sent: u64,
    /// PING-2: only the latest ping is answered.
    pong: Option<u64>,
    smoothed: Option<Duration>,
}

impl Liveness {
    pub(crate) fn new(now: Instant, config: &Config) -> Self {
        Self {
            interval: config.ping_interval(),
            silence: config.silence(),
            heard: now,
            next_ping: now,
            wanted: false,
            outstanding: None,
            sent: 0,
            pong: None,
            smoothed: None,
        }
    }

    /// RESUME-5: the same on a new link, with numbers that no ping had before, not even one of the link's handshake: what
    /// still comes as an answer to those answers nothing here.
    pub(crate) fn renew(&mut self, now: Instant, config: &Config) {
        let sent = (self.sent | u64::from(u32::MAX)).saturating_add(1);
        *self = Self {
            sent,
            ..Self::new(now, config)
        };
    }

    pub(crate) fn on_heard(&mut self, now: Instant) {
        self.heard = self.heard.max(now);
    }

    pub(crate) fn on_ping(&mut self, number: u64) {
        self.pong = Some(number);
    }

    /// PING-4: a pong that answers no ping of ours says nothing.
    pub(crate) fn on_pong(&mut self, now: Instant, number: u64) -> Option<Duration> {
        let (expected, sent_at) = self.outstanding?;
        if number != expected {
            return None;
        }
        self.outstanding = None;
        let rtt = now.saturating_duration_since(sent_at);
        self.smoothed = Some(self.smoothed.map_or(rtt, |old| (old * 7 + rtt) / 8));
        Some(rtt)
    }

    /// Asks for a ping as soon as possible; the pong's number will be above the returned one.
    pub(crate) fn ping_soon(&mut self) -> u64 {
        self.wanted = true;
        self.sent
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
        self.outstanding = Some((self.sent, now));
        self.next_ping = now + self.interval;
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
            .is_none_or(|(_, sent_at)| now >= sent_at + self.silence);
        free && (self.wanted || now >= self.next_ping)
    }

    pub(crate) fn is_silent(&self, now: Instant) -> bool {
        now >= self.silent_at()
    }

    /// When the link counts as dead unless something comes.
    pub(crate) fn silent_at(&self) -> Instant {
        self.heard + self.silence
    }

    /// When something is to be done: a ping, or the end.
    pub(crate) fn deadline(&self) -> Instant {
        let dead = self.silent_at();
        match self.outstanding {
            Some((_, sent_at)) => dead.min((sent_at + self.silence).max(self.next_ping)),
            None => dead.min(self.next_ping),
        }
    }

    /// Smoothed round-trip time.
    pub(crate) const fn rtt(&self) -> Option<Duration> {
        self.smoothed
    }
}
