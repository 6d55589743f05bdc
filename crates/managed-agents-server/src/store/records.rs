//! Who acts.

use mcp_tunnel_auth::{EnvironmentId, EnvironmentKeyId, WorkId};

/// Who has something done, as far as an effect's own transaction judges it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Authority {
    /// Somebody with a permission, such as the holder of an API key.
    Operator {
        /// Name in the audit.
        actor: String,
    },
    /// A worker with an environment key; good until the key is revoked.
    EnvironmentKey {
        /// The key's row.
        key: EnvironmentKeyId,
        /// The only environment that it reaches.
        environment: EnvironmentId,
    },
    /// A worker with the token of one claim; good until the claim is over.
    Item {
        /// The item.
        work: WorkId,
        /// The claim.
        epoch: u64,
    },
}
