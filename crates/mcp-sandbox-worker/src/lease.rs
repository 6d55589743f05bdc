//! The right to work on one item, kept by heartbeats.
//!
//! ```text
//!            200, extended                    200, stopping
//!   ┌──► Held ─────────────► wait, beat  ───────────────────► Stopping   end the call, answer it, stop
//!   │      │ network, 429, 5xx: beat again after a quarter of it
//!   └──────┤ … for one time to live                    ─────► Lost       another may hold it: kill, say nothing
//!          │ 412, 200 in any other state               ─────► Lost
//!          └ 400, 401, 403, 404                        ─────► Rejected   this credential may not: kill, say nothing
//! ```

use std::time::Duration;

use tokio::time::Instant;

/// Time to live until the first answer names one.
const FIRST_TTL: Duration = Duration::from_secs(90);
/// Bounds of the pause between two beats.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// A server that names less would have us beat all the time; one that names more would keep us from noticing.
const TTL: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(3600));

/// What a heartbeat was answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    /// The lease is extended; the value to expect next time, and the new time to live.
    Extended { last: String, ttl: Duration },
    /// Somebody asked for an orderly end.
    Stopping,
    /// The item is stopped, queued again, or anything else that is not ours.
    NotOurs,
    /// 412: another holder has beaten.
    Mismatch,
    /// The credential may not do this: any other final refusal.
    Refused,
    /// No answer, or one that may be different next time.
    NoAnswer,
}

/// How the lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The item is ours.
    Held,
    /// It is ours, and is to be ended.
    Stopping,
    /// It is not ours any more.
    Lost,
    /// We may not have it.
    Rejected,
}

/// The lease of one item. Pure: time comes as an argument.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    /// What the next beat must expect; `None`: that there was none.
    expected: Option<String>,
    ttl: Duration,
    /// When the last beat that was answered well was sent.
    proven: Instant,
}

impl Lease {
    /// A lease that begins `now`, with the first beat due at once.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            expected: None,
            ttl: FIRST_TTL,
            proven: now,
        }
    }

    /// From one beat to the next, and how long one may take.
    pub(crate) fn pause(&self) -> Duration {
        (self.ttl / 2).clamp(PAUSE.0, PAUSE.1)
    }

    /// How long a result may be tried to post.
    pub(crate) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// When it ends unless a beat sent before then is answered well.
    pub(crate) fn ends(&self) -> Instant {
        self.proven + self.ttl
    }

    /// Judges the answer to a beat that was sent at `sent`.
    pub(crate) fn on_answer(&mut self, sent: Instant, now: Instant, answer: Beat) -> Standing {
        match answer {
            Beat::Extended { last, ttl } => {
                self.expected = Some(last);
                self.ttl = ttl.clamp(TTL.0, TTL.1);
                self.proven = sent;
                Standing::Held
            }
            Beat::Stopping => Standing::Stopping,
            Beat::NotOurs | Beat::Mismatch => Standing::Lost,
            Beat::Refused => Standing::Rejected,
            Beat::NoAnswer if now < self.ends() => Standing::Held,
            Beat::NoAnswer => Standing::Lost,
        }
    }
}

/// Beats until the lease stands otherwise than [`Standing::Held`], which is returned. Each time to live that the server names
/// is told to `on_ttl`.
///
/// # Cancel safety
/// A dropped call loses at most the answer of one beat: the lease must then be given up.
pub(crate) async fn keep<F: Future<Output = Beat>>(
    mut beat: impl FnMut(Option<String>, Duration) -> F,
    mut on_ttl: impl FnMut(Duration),
) -> Standing {
    let mut lease = Lease::new(Instant::now());
    loop {
        let sent = Instant::now();
        let limit = lease
            .pause()
            .min(lease.ends().saturating_duration_since(sent));
        let answer = tokio::time::timeout(limit, beat(lease.expected.clone(), limit));
        let answer = answer.await.unwrap_or(Beat::NoAnswer);
        // A missed beat is made up for soon, so that one alone does not cost the lease.
        let share = if answer == Beat::NoAnswer { 4 } else { 1 };
        match lease.on_answer(sent, Instant::now(), answer) {
            Standing::Held => on_ttl(lease.ttl()),
            other => return other,
        }
        let next = (sent + lease.pause() / share).min(lease.ends());
        tokio::time::sleep_until(next).await;
        if Instant::now() >= lease.ends() {
            return Standing::Lost;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn extended(last: &str, seconds: u64) -> Beat {
        Beat::Extended {
            last: last.to_owned(),
            ttl: Duration::from_secs(seconds),
        }
    }

    /// Answers in their order, the last one for ever; what was expected, when (in seconds), and how it ended.
    async fn run(answers: &[Beat]) -> (Vec<(Option<String>, u64)>, Standing, u64) {
        let start = Instant::now();
        let seen = RefCell::new(Vec::new());
        let beat = |expected, _| {
            let mut seen = seen.borrow_mut();
            seen.push((expected, start.elapsed().as_secs()));
            std::future::ready(answers[(seen.len() - 1).min(answers.len() - 1)].clone())
        };
        let ended = keep(beat, |_| ()).await;
        (seen.into_inner(), ended, start.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_beat_is_at_once_and_each_echoes_the_one_before() {
        let (seen, ended, _) = run(&[extended("t1", 20), extended("t2", 8), Beat::Stopping]).await;
        let expect = [
            (None, 0),
            (Some("t1".to_owned()), 10),
            (Some("t2".to_owned()), 14),
        ];
        assert_eq!(seen, expect);
        assert_eq!(ended, Standing::Stopping);
    }

    #[tokio::test(start_paused = true)]
    async fn the_pause_has_bounds() {
        let (seen, ..) = run(&[extended("a", 3600), extended("b", 1), Beat::Mismatch]).await;
        let times = seen.iter().map(|(_, at)| *at).collect::<Vec<_>>();
        assert_eq!(times, [0, 30, 31]);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_borne_for_one_time_to_live() {
        let (seen, ended, at) = run(&[extended("a", 20), Beat::NoAnswer]).await;
        assert_eq!((ended, at), (Standing::Lost, 20));
        assert!(seen.len() >= 2);
        let (_, ended, at) = run(&[Beat::NoAnswer]).await;
        assert_eq!((ended, at), (Standing::Lost, FIRST_TTL.as_secs()));
    }

    #[tokio::test(start_paused = true)]
    async fn one_good_answer_after_silence_is_enough() {
        let answers = [
            extended("a", 20),
            Beat::NoAnswer,
            extended("b", 20),
            Beat::Refused,
        ];
        let (seen, ended, _) = run(&answers).await;
        assert_eq!(seen[2].0.as_deref(), Some("a"));
        assert_eq!(seen[3].0.as_deref(), Some("b"));
        assert_eq!(ended, Standing::Rejected);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_come_ends_with_the_lease() {
        let start = Instant::now();
        let mut first = true;
        let beat = |_, _| {
            let good = std::mem::take(&mut first);
            async move {
                if good {
                    return extended("a", 10);
                }
                std::future::pending().await
            }
        };
        assert_eq!(keep(beat, |_| ()).await, Standing::Lost);
        assert_eq!(start.elapsed().as_secs(), 10);
    }

    #[test]
    fn a_late_good_answer_counts_from_when_it_was_asked() {
        let start = Instant::now();
        let mut lease = Lease::new(start);
        let now = start + Duration::from_secs(9);
        lease.on_answer(start, now, extended("a", 10));
        assert_eq!(lease.ends(), start + Duration::from_secs(10));
    }

    #[test]
    fn what_is_not_ours_is_lost() {
        let now = Instant::now();
        let mut lease = Lease::new(now);
        assert_eq!(lease.on_answer(now, now, Beat::NotOurs), Standing::Lost);
        assert_eq!(lease.on_answer(now, now, Beat::Mismatch), Standing::Lost);
        assert_eq!(lease.on_answer(now, now, Beat::Refused), Standing::Rejected);
    }
}
