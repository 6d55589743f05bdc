//! Connecting again and again to an edge that may be away.
//!
//! A SYN that was lost is sent again after one second, three, seven: an attempt that met a dead network is of little use
//! when that is back. Hence another is begun beside it each time that the pace says, and as soon as that after one that
//! was refused; the first to be answered wins, and the others are dropped.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    task::{Context, Poll, ready},
    time::Instant,
};

use super::{Boxed, outside};
use crate::{
    UplinkConfig,
    backoff::Pace,
    timer::{Timer, now},
};

/// Attempts under way at most. Of more, the second oldest goes: the oldest may be on a path that takes seconds, which no
/// later one would outrun.
pub(super) const MAX_UNDER_WAY: usize = 4;

/// Attempts to connect to some addresses, in turn.
pub(super) struct Knocks {
    addresses: Vec<SocketAddr>,
    config: UplinkConfig,
    pace: Pace,
    /// The place of the next address.
    next: usize,
    due: Instant,
    /// When no more are begun.
    until: Instant,
    under_way: VecDeque<Attempt>,
    failure: Option<(SocketAddr, io::Error)>,
    timer: Timer,
}

pub(super) type Won = (SocketAddr, outside::Connection);

struct Attempt {
    address: SocketAddr,
    connecting: Boxed<io::Result<outside::Connection>>,
}

impl Knocks {
    /// The first attempt is due at once.
    pub(super) fn new(
        addresses: Vec<SocketAddr>,
        pace: Pace,
        until: Instant,
        config: UplinkConfig,
    ) -> Self {
        Self {
            addresses,
            until,
            config,
            pace,
            next: 0,
            due: now(),
            under_way: VecDeque::with_capacity(MAX_UNDER_WAY),
            failure: None,
            timer: Timer::default(),
        }
    }

    /// Ready with the first connection, and may be polled on for another one; or with `None` where another attempt is due
    /// and none is to be begun any more, so that whoever goes on at once keeps to the pace.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Won>> {
        loop {
            // An answer that is there counts before another attempt is begun, however late this is.
            if let Some(won) = self.poll_attempts(cx) {
                self.under_way.clear();
                return Poll::Ready(Some(won));
            }
            let now = now();
            if now < self.due {
                ready!(self.timer.poll(cx, Some(self.due)));
            } else if now < self.until {
                self.begin();
            } else {
                return Poll::Ready(None);
            }
        }
    }

    /// A connection that won came to nothing.
    pub(super) fn failed(&mut self, address: SocketAddr, source: io::Error) {
        self.failure = Some((address, source));
    }

    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// How the last attempt failed that did.
    pub(super) fn failure(&self) -> Option<&io::Error> {
        self.failure.as_ref().map(|(_, source)| source)
    }

    pub(super) fn take_failure(&mut self) -> Option<(SocketAddr, io::Error)> {
        self.failure.take()
    }

    fn begin(&mut self) {
        self.due = now() + self.pace.next(outside::random());
        let Some(address) = self.addresses.get(self.next).copied() else {
            return;
        };
        self.next = (self.next + 1) % self.addresses.len();
        if self.under_way.len() >= MAX_UNDER_WAY {
            self.under_way.remove(1);
        }
        let connecting = Box::pin(outside::knock(address, self.config.clone()));
        self.under_way.push_back(Attempt {
            address,
            connecting,
        });
    }

    fn poll_attempts(&mut self, cx: &mut Context<'_>) -> Option<Won> {
        let mut place = 0;
        while let Some(attempt) = self.under_way.get_mut(place) {
            match attempt.connecting.as_mut().poll(cx) {
                Poll::Pending => place += 1,
                Poll::Ready(Ok(connection)) => return Some((attempt.address, connection)),
                Poll::Ready(Err(source)) => {
                    self.failure = Some((attempt.address, source));
                    self.under_way.remove(place);
                }
            }
        }
        None
    }
}
