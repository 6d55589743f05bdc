//! How a server is set up.

use std::sync::Arc;

use jiff::SignedDuration;
use managed_agents_loop::AgentLoop;
use mcp_tunnel_auth::{ItemToken, MasterKey, WorkId};

use crate::driver::Loops;
use crate::limits::RateLimits;

/// How a server is set up: what item tokens are made with, and how much anybody may have.
#[derive(Debug)]
pub struct Config {
    master: MasterKey,
    older_masters: Vec<MasterKey>,
    pub(crate) rate_limits: RateLimits,
    pub(crate) agents_most: u32,
    pub(crate) environments_most: u32,
    pub(crate) environment_keys_most: u32,
    pub(crate) skills_most: u32,
    pub(crate) skill_versions_most: u32,
    pub(crate) audit_kept: SignedDuration,
    pub(crate) ended_kept: SignedDuration,
    pub(crate) lease: SignedDuration,
    pub(crate) loops: Loops,
}

impl Config {
    /// New item tokens are made with `master`.
    #[must_use]
    pub fn new(master: MasterKey) -> Self {
        Self {
            master,
            older_masters: Vec::new(),
            rate_limits: RateLimits {
                writes_per_minute: None,
                reads_per_minute: None,
            },
            agents_most: 10_000,
            environments_most: 1000,
            environment_keys_most: 64,
            skills_most: 1000,
            skill_versions_most: 100,
            audit_kept: SignedDuration::from_hours(400 * 24),
            ended_kept: SignedDuration::from_hours(7 * 24),
            lease: SignedDuration::from_secs(90),
            loops: Loops::default(),
        }
    }

    /// Also takes item tokens that were made with an older master key.
    #[must_use]
    pub fn with_older_master(mut self, master: MasterKey) -> Self {
        self.older_masters.push(master);
        self
    }

    /// How long the audit is kept. Default 400 days: a year, and time to look at it.
    #[must_use]
    pub const fn with_audit_kept(mut self, kept: SignedDuration) -> Self {
        self.audit_kept = kept;
        self
    }

    /// How long an item is kept that ended, once its session is over or has another one, and what is
    /// left of a deleted session: that it was there. Default 7 days. Sessions that are archived are kept, and
    /// what was said in a deleted one goes within seconds.
    #[must_use]
    pub const fn with_ended_kept(mut self, kept: SignedDuration) -> Self {
        self.ended_kept = kept;
        self
    }

    /// How many requests a workspace may make. Default: as many as it likes.
    #[must_use]
    pub const fn with_rate_limits(mut self, limits: RateLimits) -> Self {
        self.rate_limits = limits;
        self
    }

    /// Most agents of a workspace that are not archived. Default 10,000; a version of one
    /// takes up to 1 MiB on disk.
    #[must_use]
    pub const fn with_agents_most(mut self, most: u32) -> Self {
        self.agents_most = most;
        self
    }

    /// Most environments of a workspace that are neither archived nor deleted. Default 1000.
    #[must_use]
    pub const fn with_environments_most(mut self, most: u32) -> Self {
        self.environments_most = most;
        self
    }

    /// Most keys of an environment that are not revoked. Default 64: one for each host,
    /// and as many again while they are rotated.
    #[must_use]
    pub const fn with_environment_keys_most(mut self, most: u32) -> Self {
        self.environment_keys_most = most;
        self
    }

    /// Most skills of a workspace, and most versions of one. Default 1000 and 100; a
    /// version takes up to 8 MiB on disk.
    #[must_use]
    pub const fn with_skills_most(mut self, skills: u32, versions: u32) -> Self {
        self.skills_most = skills;
        self.skill_versions_most = versions;
        self
    }

    /// How long a worker holds an item after each heartbeat, clamped to 5 to 300 s. Default 90 s,
    /// which is what the vendor's workers assume. It is also how late the work of a worker that
    /// died goes to another one; a worker may wish for another time.
    #[must_use]
    pub fn with_lease(mut self, lease: SignedDuration) -> Self {
        self.lease = lease.clamp(LEASE_LEAST, LEASE_MOST);
        self
    }

    /// Agents of this model think with this loop. Default: the model `scripted` with the
    /// scripted loop, which is how an administrator tries an environment; a session of any
    /// other model ends each turn with a `session.error` that says so.
    #[must_use]
    pub fn with_loop(mut self, model: impl Into<String>, thinks: Arc<dyn AgentLoop>) -> Self {
        self.loops.set(model.into(), thinks);
        self
    }

    /// Whether a token was made with one of the master keys.
    pub(crate) fn made(&self, token: &ItemToken) -> bool {
        std::iter::once(&self.master)
            .chain(&self.older_masters)
            .any(|master| master.made(token))
    }

    /// The token of one claim of a work item.
    pub(crate) fn item_token(&self, work: WorkId, epoch: u64) -> ItemToken {
        self.master.item_token(work, epoch)
    }
}

/// Bounds of a lease: below, one late heartbeat would lose it; above, sessions of dead
/// workers would wait too long.
pub(crate) const LEASE_LEAST: SignedDuration = SignedDuration::from_secs(5);
pub(crate) const LEASE_MOST: SignedDuration = SignedDuration::from_secs(300);
