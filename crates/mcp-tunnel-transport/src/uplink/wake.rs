//! What cuts a wait short: the machine has slept, or its way to the edge is another one.

use std::{
    net::{IpAddr, SocketAddr},
    task::{Context, Poll, ready},
    time::Duration,
};

use super::outside;
use crate::{
    sleep::Looks,
    timer::{Timer, now},
};

/// Looks each second or so, while an uplink waits. Between two looks nothing is noticed, so that a way that comes and
/// goes makes no more attempts than looks.
pub(super) struct WakeWatch {
    interval: Duration,
    looks: Option<Looks>,
    /// This machine's address on the way to the edge, as far as there is one.
    way: Option<IpAddr>,
    timer: Timer,
}

/// What has been noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    Slept(Duration),
    /// There is a way to the edge, and there was none or another.
    Moved,
}

/// Where a way to nowhere in particular leads (RFC 5737): no packet goes there.
const ANYWHERE: ([u8; 4], u16) = ([192, 0, 2, 1], 443);

impl WakeWatch {
    /// Looks each `interval`; zero: never.
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            looks: None,
            way: None,
            timer: Timer::default(),
        }
    }

    /// Stops looking; the next poll begins anew.
    pub(super) fn rest(&mut self) {
        self.looks = None;
    }

    /// Begins to look, or looks on, at the way to `edge` if that is known.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, edge: Option<SocketAddr>) -> Poll<Wake> {
        let edge = edge.unwrap_or_else(|| ANYWHERE.into());
        if self.looks.is_none() {
            self.looks = Looks::each(self.interval);
            self.way = outside::way(edge);
        }
        loop {
            let Some(looks) = &mut self.looks else {
                return Poll::Pending;
            };
            if let Some(slept) = looks.look(now()) {
                let way = outside::way(edge);
                let moved = way.is_some() && way != self.way;
                self.way = way;
                if let Some(slept) = slept {
                    return Poll::Ready(Wake::Slept(slept));
                }
                if moved {
                    return Poll::Ready(Wake::Moved);
                }
            }
            let next = looks.next();
            ready!(self.timer.poll(cx, Some(next)));
        }
    }
}
