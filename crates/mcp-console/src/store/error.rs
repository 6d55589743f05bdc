//! Why a store did not do what it was asked.

use std::error::Error;

/// Why a store did not do what it was asked. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is none such in the workspace.
    #[error("no such row in this workspace")]
    NotFound,
    /// The present state does not allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The disk is full, or broken.
    #[error("the disk takes no more writes")]
    Full(#[source] Box<dyn Error + Send + Sync>),
    /// Another writer held the store for too long.
    #[error("the store is busy")]
    Busy(#[source] Box<dyn Error + Send + Sync>),
    /// A row does not hold what this version writes.
    #[error("column {column} holds what no version wrote")]
    Corrupt {
        /// Where.
        column: &'static str,
        /// What is wrong with it.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The store failed otherwise.
    #[error("the store failed")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

/// What the present state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The tunnel is archived, for ever.
    #[error("the tunnel is archived")]
    TunnelArchived,
    /// The label belongs to a tunnel, or did once.
    #[error("the label is taken")]
    LabelTaken,
    /// The workspace has as many tunnels as it may.
    #[error("the workspace has {most} tunnels that are not archived, the most it may have")]
    TooManyTunnels {
        /// How many.
        most: u32,
    },
    /// The tunnel has as many certificates as it may.
    #[error("the tunnel has {most} active certificates, the most it may have")]
    TooManyCertificates {
        /// How many.
        most: u32,
    },
    /// The tunnel knows as many gateways as it may.
    #[error("the tunnel knows {most} gateways, the most it may")]
    TooManyGateways {
        /// How many.
        most: u32,
    },
    /// The workspace has as many caller keys as it may.
    #[error("the workspace has {most} caller keys that are not revoked, the most it may have")]
    TooManyCallerKeys {
        /// How many.
        most: u32,
    },
    /// The gateway's key is not the one that was named.
    #[error("the gateway has another key than the one that was named")]
    OtherKey,
}
