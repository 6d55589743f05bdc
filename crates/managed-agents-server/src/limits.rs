//! Rate limits: how many requests a workspace may make.
//!
//! A bucket of tokens for each workspace and class of request, full at first, refilled
//! evenly. Workers (environment keys, item tokens) are not counted: their number is the
//! deployer's own, and a beat that is refused would end a session.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use http::Method;
use managed_agents_api::ErrorType;
use managed_agents_api::serve::ApiError;
use mcp_tunnel_auth::WorkspaceId;
use tokio::time::Instant;

use crate::hooks::Caller;
use crate::store::Authority;

/// Requests that a workspace may make in a minute, in bursts of at most as many.
///
/// `RateLimits::default()` has no limits. The vendor documents 300 and 1200.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimits {
    /// Requests that change something.
    pub writes_per_minute: Option<u32>,
    /// Requests that only read.
    pub reads_per_minute: Option<u32>,
}

impl RateLimits {
    /// The limits that the vendor documents: 300 writes, 1200 reads.
    #[must_use]
    pub const fn vendor() -> Self {
        Self {
            writes_per_minute: Some(300),
            reads_per_minute: Some(1200),
        }
    }

    const fn of(self, class: Class) -> Option<u32> {
        match class {
            Class::Write => self.writes_per_minute,
            Class::Read => self.reads_per_minute,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Class {
    Write,
    Read,
}

/// The buckets. A workspace that rested for a minute has none.
#[derive(Debug)]
pub(crate) struct Limits {
    most: RateLimits,
    buckets: Mutex<HashMap<(WorkspaceId, Class), Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Limits {
    pub(crate) fn new(most: RateLimits) -> Self {
        Self {
            most,
            buckets: Mutex::default(),
        }
    }

    /// # Errors
    /// 429 with `retry-after`.
    pub(crate) fn admit(&self, caller: &Caller, method: &Method) -> Result<(), ApiError> {
        if !matches!(caller.authority, Authority::Operator { .. }) {
            return Ok(());
        }
        let class = match *method {
            Method::GET | Method::HEAD => Class::Read,
            _ => Class::Write,
        };
        let Some(most) = self.most.of(class) else {
            return Ok(());
        };
        self.take(&caller.workspace, class, most).map_err(|after| {
            ApiError::new(
                ErrorType::RateLimit,
                format!("a workspace may make {most} such requests a minute"),
            )
            .with_retry_after(after)
        })
    }

    /// Takes a token, or says when there will be one.
    fn take(&self, workspace: &WorkspaceId, class: Class, most: u32) -> Result<(), Duration> {
        let now = Instant::now();
        let full = f64::from(most.max(1));
        let per_second = full / MINUTE.as_secs_f64();
        let mut buckets = self
            .buckets
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if buckets.len() >= BUCKETS_MOST {
            buckets.retain(|_, bucket| now.duration_since(bucket.at) < MINUTE);
        }
        let bucket = buckets.entry((workspace.clone(), class)).or_insert(Bucket {
            tokens: full,
            at: now,
        });
        let rested = now.duration_since(bucket.at).as_secs_f64();
        bucket.tokens = (bucket.tokens + rested * per_second).min(full);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            let seconds = (1.0 - bucket.tokens) / per_second;
            // Whole seconds travel: too early would be refused again.
            return Err(Duration::from_secs_f64(seconds.ceil().max(1.0)));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// Buckets before those of resting workspaces go. Only authenticated callers have one.
const BUCKETS_MOST: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bucket_empties_and_fills_again() {
        let limits = Limits::new(RateLimits::vendor());
        let (a, b) = ("a".to_owned(), "b".to_owned());
        let [a, b] = [a, b].map(|id| WorkspaceId::try_from(id).unwrap());
        for _ in 0..60 {
            limits.take(&a, Class::Write, 60).unwrap();
        }
        assert_eq!(
            limits.take(&a, Class::Write, 60),
            Err(Duration::from_secs(1))
        );
        limits.take(&b, Class::Write, 60).unwrap();
        limits.take(&a, Class::Read, 60).unwrap();
        tokio::time::advance(Duration::from_millis(1001)).await;
        limits.take(&a, Class::Write, 60).unwrap();
        assert!(limits.take(&a, Class::Write, 60).is_err());
    }
}
