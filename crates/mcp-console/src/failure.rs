//! Errors of the store as answers.

use std::time::Duration;

use managed_agents_api::ErrorType;
use managed_agents_api::serve::ApiError;
use tracing::{error, warn};

pub(crate) use managed_agents_service::chain;

use crate::hooks::{Named, not_found};
use crate::store::{Refusal, StoreError};

/// The answer to a failure about a thing of kind `T`.
pub(crate) fn answer<T: Named>(failure: StoreError) -> ApiError {
    match failure {
        StoreError::NotFound => not_found::<T>(),
        StoreError::Refused(refusal) => refused(refusal),
        StoreError::Full(_) => {
            error!(error = chain(&failure), "the store takes no writes");
            ApiError::unavailable(
                "nothing was changed: the disk under the console's data takes no more writes; \
                 free some space there, then try again",
            )
            .with_code("storage_full")
            .with_retry_after(RETRY_AFTER)
        }
        StoreError::Busy(_) => {
            warn!(error = chain(&failure), "the store is busy");
            ApiError::new(
                ErrorType::Overloaded,
                "nothing was changed: busy; try again",
            )
            .with_retry_after(RETRY_AFTER)
        }
        _ => {
            error!(error = chain(&failure), "the store failed");
            ApiError::internal()
        }
    }
}

fn refused(refusal: Refusal) -> ApiError {
    match refusal {
        Refusal::TunnelArchived => {
            ApiError::conflict("the tunnel is archived, which nothing undoes; create another one")
        }
        Refusal::TooManyTunnels { .. } => {
            ApiError::conflict(format!("{refusal}; archive one first"))
        }
        Refusal::TooManyCertificates { .. } => {
            ApiError::conflict(format!("{refusal}; archive one first"))
        }
        Refusal::TooManyGateways { .. } => {
            ApiError::conflict(format!("{refusal}; refuse one that is not needed any more"))
        }
        Refusal::TooManyCallerKeys { .. } => {
            ApiError::conflict(format!("{refusal}; revoke one first"))
        }
        Refusal::OtherKey => ApiError::conflict(
            "the gateway has another key than gateway_key_fingerprint: nothing was approved; \
             compare with what the gateway prints at its start",
        )
        .with_code("fingerprint_mismatch"),
        Refusal::LabelTaken => {
            error!("every label that was drawn is taken");
            ApiError::internal()
        }
    }
}

const RETRY_AFTER: Duration = Duration::from_secs(5);
