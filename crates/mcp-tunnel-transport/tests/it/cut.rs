//! Futures that are dropped at each of their await points in turn. Tests of other crates include this file too.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

/// When a future is dropped: after so many polls, either at once or when it was woken for the next and not polled, so
/// that whatever woke it must go to somebody else.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    polls: usize,
    woken: bool,
}

/// Far more await points than anything here has.
const MANY: usize = 300;

impl Cut {
    /// Plays `round` with a cut at each await point, until one says that its future came to its end before the cut.
    pub(crate) async fn everywhere(mut round: impl AsyncFnMut(Self) -> bool) {
        for woken in [false, true] {
            let mut polls = 1;
            while !Box::pin(round(Self { polls, woken })).await {
                polls += 1;
                assert!(polls < MANY, "it never comes to its end");
            }
        }
    }

    /// What `future` came to, or `None` if it was dropped before.
    pub(crate) fn apply<T>(
        self,
        future: impl Future<Output = T>,
    ) -> impl Future<Output = Option<T>> {
        let mut future = Some(Box::pin(future));
        let (mut left, mut wakes) = (self.polls, Arc::new(Wakes::new(Waker::noop())));
        poll_fn(move |cx| {
            if !wakes.woken.load(Ordering::Acquire) {
                return Poll::Pending;
            }
            let Some(polled) = future.as_mut().filter(|_| left > 0) else {
                future = None;
                return Poll::Ready(None);
            };
            left -= 1;
            wakes = Arc::new(Wakes::new(cx.waker()));
            wakes.woken.store(false, Ordering::Release);
            let waker = Waker::from(Arc::clone(&wakes));
            let outcome = polled.as_mut().poll(&mut Context::from_waker(&waker));
            if outcome.is_pending() && (left > 0 || self.woken) {
                return Poll::Pending;
            }
            // Dropped here, not with what `apply` was awaited in.
            future = None;
            Poll::Ready(match outcome {
                Poll::Ready(output) => Some(output),
                Poll::Pending => None,
            })
        })
    }
}

/// Whether a future was woken since it was polled; true at first.
struct Wakes {
    woken: AtomicBool,
    task: Waker,
}

impl Wakes {
    fn new(task: &Waker) -> Self {
        Self {
            woken: AtomicBool::new(true),
            task: task.clone(),
        }
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}
