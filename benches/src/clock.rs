//! What a measurement costs: time on the wall, or processor time of the threads at work.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Which time counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// What a user waits.
    Wall,
    /// Processor time of both ends together, which means something on a busy machine too.
    Cpu,
}

impl Clock {
    /// `MUX_CLOCK=cpu` asks for processor time.
    pub fn of_environment() -> Self {
        match std::env::var("MUX_CLOCK") {
            Ok(clock) if clock == "cpu" => Self::Cpu,
            _ => Self::Wall,
        }
    }

    /// Begins a measurement of `threads`.
    pub fn start(self, threads: &[PathBuf]) -> Running<'_> {
        Running {
            clock: self,
            threads,
            wall: Instant::now(),
            cpu: match self {
                Self::Wall => Duration::ZERO,
                Self::Cpu => cpu_time(threads),
            },
        }
    }
}

/// A measurement that has begun.
pub struct Running<'a> {
    clock: Clock,
    threads: &'a [PathBuf],
    wall: Instant,
    cpu: Duration,
}

impl Running<'_> {
    /// The time since it began.
    pub fn elapsed(&self) -> Duration {
        match self.clock {
            Clock::Wall => self.wall.elapsed(),
            Clock::Cpu => cpu_time(self.threads).saturating_sub(self.cpu),
        }
    }
}

/// Where the kernel counts the processor time of the calling thread.
pub fn counter() -> PathBuf {
    let thread = std::fs::read_link("/proc/thread-self").expect("Linux");
    Path::new("/proc").join(thread).join("schedstat")
}

fn cpu_time(threads: &[PathBuf]) -> Duration {
    let nanos = threads.iter().map(|counter| {
        let text = std::fs::read_to_string(counter).expect("a running thread");
        let first = text
            .split(' ')
            .next()
            .and_then(|number| number.parse().ok());
        first.unwrap_or(0_u64)
    });
    Duration::from_nanos(nanos.sum())
}
