//! What it came to.

use super::{SessionsSoak, effects::Tally, fleet::Fleet};
use serde::Serialize;
use std::{fmt, time::Duration};

/// What a soak of sessions came to; without an error, nothing went wrong.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct SessionsReport {
    /// What chance was made of.
    pub seed: u64,
    /// Sessions, each of which ended.
    pub sessions: usize,
    /// Of these and beyond them, sessions whose making was not answered, since the cloud was killed.
    pub unheard: u64,
    /// Calls, each with one result.
    pub calls: u64,
    /// Calls that a kill cut short: answered as such, and not run again.
    pub interrupted: u64,
    /// Of those, whose effect had come about.
    pub interrupted_with_effect: u64,
    /// Results that told a session that it is on another host.
    pub moved: u64,
    /// Kills of workers.
    pub worker_kills: u64,
    /// Kills of the cloud.
    pub cloud_kills: u64,
    /// All of it, seconds.
    pub seconds: f64,
    /// A session from its making to its end: half of them took less, and 95 of 100, seconds.
    pub session_seconds: [f64; 2],
    /// Resident bytes of the cloud.
    pub cloud: Memory,
    /// Resident bytes of the largest worker.
    pub worker: Memory,
    /// Bytes of the databases at the end.
    pub database_bytes: u64,
}

/// Resident bytes of a program over all its processes.
#[derive(Clone, Copy, Debug, Serialize)]
#[non_exhaustive]
pub struct Memory {
    /// The most that was seen.
    pub most: u64,
    /// At the end.
    pub last: u64,
}

pub(super) fn of(
    soak: &SessionsSoak,
    fleet: &Fleet,
    tally: Tally,
    times: &[Duration],
    took: Duration,
) -> SessionsReport {
    let mut times: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
    times.sort_by(f64::total_cmp);
    let share = |hundredths: usize| {
        times
            .get(times.len() * hundredths / 100)
            .copied()
            .unwrap_or_default()
    };
    let worker = |of: fn(&super::fleet::Seen) -> u64| {
        fleet
            .workers
            .iter()
            .map(|worker| of(&worker.memory))
            .max()
            .unwrap_or(0)
    };
    SessionsReport {
        seed: soak.seed,
        sessions: soak.sessions,
        unheard: tally.strays,
        calls: tally.calls,
        interrupted: tally.interrupted,
        interrupted_with_effect: tally.had_effect,
        moved: tally.moved,
        worker_kills: worker_kills(fleet),
        cloud_kills: fleet.cloud_kills,
        seconds: took.as_secs_f64(),
        session_seconds: [share(50), share(95)],
        cloud: Memory {
            most: fleet.cloud_memory.most,
            last: fleet.cloud_memory.last,
        },
        worker: Memory {
            most: worker(|seen| seen.most),
            last: worker(|seen| seen.last),
        },
        database_bytes: fleet.database_bytes(),
    }
}

/// One line on the standard error stream.
#[expect(
    clippy::print_stderr,
    reason = "a long run that says nothing looks like one that hangs"
)]
pub(super) fn progress(
    soak: &SessionsSoak,
    fleet: &Fleet,
    ended: usize,
    tally: &Tally,
    took: Duration,
) {
    let workers: u64 = fleet.workers.iter().map(|worker| worker.memory.last).sum();
    eprintln!(
        "{:4} s  {ended:5} of {} sessions  {:6} calls, {} interrupted  kills: {} of workers, {} of the cloud  \
         memory: cloud {} MiB, workers {} MiB",
        took.as_secs(),
        soak.sessions,
        tally.calls,
        tally.interrupted,
        worker_kills(fleet),
        fleet.cloud_kills,
        fleet.cloud_memory.last >> 20,
        workers >> 20,
    );
}

fn worker_kills(fleet: &Fleet) -> u64 {
    fleet.workers.iter().map(|worker| worker.kills).sum()
}

impl fmt::Display for SessionsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes >> 20;
        let [half, most] = self.session_seconds;
        let rows = [
            ("seed", self.seed.to_string()),
            ("sessions, all ended", self.sessions.to_string()),
            ("made without an answer", self.unheard.to_string()),
            ("calls, one result each", self.calls.to_string()),
            (
                "interrupted by a kill",
                format!(
                    "{}, {} with their effect",
                    self.interrupted, self.interrupted_with_effect
                ),
            ),
            ("effects that came twice", "0".to_owned()),
            ("results from a new host", self.moved.to_string()),
            (
                "kill -9",
                format!(
                    "{} of workers, {} of the cloud",
                    self.worker_kills, self.cloud_kills
                ),
            ),
            (
                "time",
                format!(
                    "{:.0} s; a session {half:.1} s at p50, {most:.1} s at p95",
                    self.seconds
                ),
            ),
            (
                "memory of the cloud",
                format!(
                    "{} MiB at most, {} MiB at the end",
                    mib(self.cloud.most),
                    mib(self.cloud.last)
                ),
            ),
            (
                "of the largest worker",
                format!(
                    "{} MiB at most, {} MiB at the end",
                    mib(self.worker.most),
                    mib(self.worker.last)
                ),
            ),
            ("databases", format!("{} MiB", mib(self.database_bytes))),
        ];
        for (what, value) in rows {
            writeln!(f, "{what:24} {value}")?;
        }
        Ok(())
    }
}
