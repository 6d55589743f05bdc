//! The work queue.

/// Where an item stands.
///
/// ```text
///         poll: reserved          ack              heartbeat
/// queued ───────────────► queued ─────► starting ─────────────► active ─┐ heartbeat
///   ▲                       │              │                      │  ▲──┘
///   └───────────────────────┴──────────────┴──────────────────────┤
///        reservation or lease ran out: the claim is over          │ stop
///                                                                 ▼
///            stop by force, from any state: stopped ◄──────── stopping
///                                              confirmed, or the lease ran out
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WorkState {
    /// Waits for a worker, or for the acknowledgement of one that was given it.
    Queued,
    /// Acknowledged, not heard of yet.
    Starting,
    /// Held by a worker that is heard of.
    Active,
    /// To be given up by its worker.
    Stopping,
    /// Over, for ever.
    Stopped,
}

impl WorkState {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::Queued,
        Self::Starting,
        Self::Active,
        Self::Stopping,
        Self::Stopped,
    ];

    /// Its name in rows and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Active => "active",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }
}
