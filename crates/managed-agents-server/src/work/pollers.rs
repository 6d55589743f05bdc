//! Who polls: a bound on those who wait, and the workers that were seen lately.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use managed_agents_api::ErrorType;
use managed_agents_api::serve::ApiError;
use mcp_tunnel_auth::EnvironmentId;
use tokio::time::Instant;

/// Polls of all environments.
#[derive(Debug, Default)]
pub(crate) struct Pollers(Mutex<HashMap<EnvironmentId, Polls>>);

#[derive(Debug, Default)]
struct Polls {
    waiting: usize,
    /// When each worker last polled.
    workers: HashMap<String, Instant>,
}

/// One poll that is under way.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    pollers: &'a Pollers,
    environment: EnvironmentId,
}

impl Pollers {
    /// # Errors
    /// 429 where as many wait as may.
    pub(crate) fn enter(
        &self,
        environment: EnvironmentId,
        worker: Option<&str>,
    ) -> Result<Waiting<'_>, ApiError> {
        let mut all = self.lock();
        let now = Instant::now();
        if all.len() >= SWEEP_AT {
            all.retain(|_, polls| polls.waiting > 0 || polls.seen(now) > 0);
        }
        let polls = all.entry(environment).or_default();
        if polls.waiting >= WAITING_MOST {
            let error = ApiError::new(
                ErrorType::RateLimit,
                format!("{WAITING_MOST} polls of this environment wait already"),
            );
            return Err(error.with_retry_after(Duration::from_secs(1)));
        }
        polls.waiting += 1;
        polls.see(worker, now);
        Ok(Waiting {
            pollers: self,
            environment,
        })
    }

    /// Workers, told apart by their names, that polled lately.
    pub(crate) fn workers(&self, environment: EnvironmentId) -> u64 {
        let mut all = self.lock();
        let seen = all
            .get_mut(&environment)
            .map_or(0, |polls| polls.seen(Instant::now()));
        u64::try_from(seen).unwrap_or(u64::MAX)
    }

    /// Straight-line code only under this lock.
    fn lock(&self) -> MutexGuard<'_, HashMap<EnvironmentId, Polls>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Polls {
    fn see(&mut self, worker: Option<&str>, now: Instant) {
        let Some(worker) = worker else { return };
        if !self.workers.contains_key(worker) && self.workers.len() >= WORKERS_MOST {
            self.seen(now);
            if self.workers.len() >= WORKERS_MOST {
                return;
            }
        }
        self.workers.insert(worker.to_owned(), now);
    }

    fn seen(&mut self, now: Instant) -> usize {
        self.workers
            .retain(|_, at| now.duration_since(*at) <= LATELY);
        self.workers.len()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(polls) = self.pollers.lock().get_mut(&self.environment) {
            polls.waiting = polls.waiting.saturating_sub(1);
        }
    }
}

/// How long a worker counts as polling.
const LATELY: Duration = Duration::from_secs(30);

/// Polls of one environment that may wait at once: each holds a connection for less than a
/// second, and all of them look when something changes. More are told to come back.
const WAITING_MOST: usize = 1024;

/// Names of workers that are kept for one environment: 200 characters each. Further ones
/// are served, but not counted.
const WORKERS_MOST: usize = 4096;

/// Environments from which on those that nobody polls are forgotten.
const SWEEP_AT: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn workers_are_counted_for_a_while() {
        let pollers = Pollers::default();
        let environment = EnvironmentId::new(1, &[0; 10]);
        drop(pollers.enter(environment, Some("a")).unwrap());
        drop(pollers.enter(environment, Some("b")).unwrap());
        drop(pollers.enter(environment, Some("b")).unwrap());
        drop(pollers.enter(environment, None).unwrap());
        assert_eq!(pollers.workers(environment), 2);
        assert_eq!(pollers.workers(EnvironmentId::new(2, &[0; 10])), 0);
        tokio::time::advance(LATELY + Duration::from_secs(1)).await;
        assert_eq!(pollers.workers(environment), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_are_bounded() {
        let pollers = Pollers::default();
        let environment = EnvironmentId::new(1, &[0; 10]);
        let mut waiting: Vec<_> = (0..WAITING_MOST)
            .map(|_| pollers.enter(environment, None).unwrap())
            .collect();
        let full = pollers.enter(environment, None).unwrap_err();
        assert_eq!(full.status().as_u16(), 429);
        waiting.pop();
        pollers.enter(environment, None).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_polls_is_forgotten() {
        let pollers = Pollers::default();
        for number in 0..10_000 {
            let environment = EnvironmentId::new(number, &[0; 10]);
            drop(pollers.enter(environment, None).unwrap());
        }
        assert!(pollers.lock().len() <= SWEEP_AT);
    }
}
