//! The memory that sessions share.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// What a session asks for at a time, in bytes: seldom enough that nobody contends for the count.
const LUMP: u64 = 256 * 1024;

/// A bound for the memory of all sessions of a process, beyond what each stream and session always has.
///
/// Wide windows and much that is retained for another connection are taken from it, and go back when a link is idle or a
/// stream ends; see the protocol's [`Config`](mcp_tunnel_proto::Config) for the formula. A session gets no more than
/// it leaves to all others, so that a newcomer always finds some. Without any, a stream still has its first window.
///
/// Clones are the same budget. Each [`LinkConfig`](crate::LinkConfig) has one of 256 MiB of its own; a process with
/// several gives them all the same by [`set_memory`](crate::LinkConfig::set_memory).
#[derive(Debug, Clone)]
pub struct MemoryBudget {
    shared: Arc<Count>,
}

#[derive(Debug)]
struct Count {
    total: u64,
    taken: AtomicU64,
}

impl MemoryBudget {
    /// A budget of this many bytes. Times four, as the protocol's formula says, is what it may cost.
    pub fn new(bytes: u64) -> Self {
        Self {
            shared: Arc::new(Count {
                total: bytes,
                taken: AtomicU64::new(0),
            }),
        }
    }

    /// All of it, in bytes.
    pub fn total(&self) -> u64 {
        self.shared.total
    }

    /// What sessions have taken of it, in bytes.
    pub fn taken(&self) -> u64 {
        self.shared.taken.load(Ordering::Relaxed)
    }

    /// Raises what a session has towards `wanted`; says what it has then.
    fn raise(&self, had: u64, wanted: u64) -> u64 {
        let mut has = had;
        let count = &self.shared;
        let changed = count
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                let free = count.total.saturating_sub(taken);
                let most = had.saturating_add(free) / 2;
                has = wanted.min(most).max(had);
                (has > had).then(|| taken.saturating_add(has - had))
            });
        if changed.is_ok() { has } else { had }
    }

    fn give_back(&self, bytes: u64) {
        self.shared.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What one session has of a budget.
#[derive(Debug)]
pub(crate) struct Lease {
    budget: MemoryBudget,
    bytes: u64,
}

impl Lease {
    /// Nothing yet.
    pub(crate) fn new(budget: MemoryBudget) -> Self {
        Self { budget, bytes: 0 }
    }

    /// Follows what the session wants; says what it has, if that has changed.
    ///
    /// A comparison, in nearly all cases; what is shared is touched for a lump only, or while the session wants in vain.
    pub(crate) fn follow(&mut self, wanted: u64) -> Option<u64> {
        let wanted = wanted.div_ceil(LUMP).saturating_mul(LUMP);
        let had = self.bytes;
        if wanted > had {
            self.bytes = self.budget.raise(had, wanted);
        } else if wanted < had {
            self.bytes = wanted;
            self.budget.give_back(had - wanted);
        }
        (self.bytes != had).then_some(self.bytes)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn nobody_gets_more_than_it_leaves() {
        let budget = MemoryBudget::new(8 * MIB);
        let mut leases: Vec<Lease> = (0..8).map(|_| Lease::new(budget.clone())).collect();
        let mut left = budget.total();
        for lease in &mut leases {
            let has = lease.follow(100 * MIB).unwrap();
            left -= has;
            assert_eq!(has, left, "of what is left");
        }
        assert!(left > 0);
        assert_eq!(budget.taken(), budget.total() - left);
        assert_eq!(
            leases[0].follow(100 * MIB),
            None,
            "and nothing is taken away"
        );
        assert_eq!(leases[0].follow(1), Some(LUMP));
        assert!(leases[7].follow(100 * MIB).unwrap() > MIB);
        drop(leases);
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn small_changes_cost_nothing() {
        let budget = MemoryBudget::new(8 * MIB);
        let mut lease = Lease::new(budget.clone());
        assert_eq!(lease.follow(0), None);
        assert_eq!(lease.follow(1), Some(LUMP));
        assert_eq!(lease.follow(LUMP), None);
        assert_eq!(lease.follow(LUMP + 1), Some(2 * LUMP));
        assert_eq!(lease.follow(0), Some(0));
        assert_eq!(budget.taken(), 0);
    }
}
