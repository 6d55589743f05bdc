//! One timer that is moved lazily.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use tokio::time::{Sleep, sleep_until};

/// Fires at the earliest deadline asked for, or earlier.
///
/// A ping is due some seconds after the last one and a link is silent some seconds after the last byte: with every
/// batch of frames both move on. Moving the runtime's timer each time would cost more than the frames, so it is
/// moved only to an earlier time; where it fires early, the caller looks at the clock and asks again.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// Ready once it is time to look at the clock; `deadline` of `None` means never.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        let Some(deadline) = deadline.map(tokio::time::Instant::from_std) else {
            return Poll::Pending;
        };
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
        }
        if sleep.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        if tokio::time::Instant::now() < deadline {
            sleep.as_mut().reset(deadline);
            return sleep.as_mut().poll(cx);
        }
        self.sleep = None;
        Poll::Ready(())
    }
}

/// The runtime's clock, which tests may pause.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_moves_on_fires_at_its_last_place() {
        let start = now();
        let (mut timer, mut deadline) = (Timer::default(), start + Duration::from_secs(1));
        let mut polls = 0;
        poll_fn(|cx| {
            polls += 1;
            deadline = start + Duration::from_secs(if polls == 1 { 1 } else { 3 });
            timer.poll(cx, Some(deadline))
        })
        .await;
        assert_eq!(now() - start, Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_deadline_fires_early() {
        let start = now();
        let (mut timer, mut seconds) = (Timer::default(), [10, 2, 2].into_iter());
        poll_fn(|cx| {
            let deadline = start + Duration::from_secs(seconds.next().unwrap_or(2));
            let first = timer.poll(cx, Some(deadline));
            if first.is_pending() {
                return timer.poll(cx, Some(start + Duration::from_secs(2)));
            }
            first
        })
        .await;
        assert_eq!(now() - start, Duration::from_secs(2));
    }
}
