//! Errors of the store as answers.

use std::time::Duration;

use managed_agents_api::ErrorType;
use managed_agents_api::serve::ApiError;
use tracing::{error, warn};

pub(crate) use managed_agents_service::chain;

use crate::hooks::{Named, not_found};
use crate::store::{Denial, Refusal, StoreError};

/// The answer to a failure about a thing of kind `T`.
pub(crate) fn answer<T: Named>(failure: StoreError) -> ApiError {
    match failure {
        StoreError::NotFound => not_found::<T>(),
        StoreError::Denied(denial) => denied(denial),
        StoreError::Refused(refusal) => refused(&refusal),
        StoreError::Moved => {
            warn!("a session was changed again and again by others");
            ApiError::new(
                ErrorType::Overloaded,
                "nothing was changed: the session is changed by others; try again",
            )
            .with_retry_after(RETRY_AFTER)
        }
        StoreError::Full(_) => {
            error!(error = chain(&failure), "the store takes no writes");
            ApiError::unavailable(
                "nothing was changed: the disk under the server's data takes no more writes; \
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

fn denied(denial: Denial) -> ApiError {
    match denial {
        Denial::KeyRevoked => {
            ApiError::unauthenticated("the environment key is not known here, or was revoked")
        }
        Denial::ClaimOver => ApiError::unauthenticated(
            "the claim of this item token is over: the item was stopped, or went to another worker",
        ),
        Denial::HeldByToken => ApiError::forbidden(
            "the item is held by a worker that uses its item token: \
             an environment key alone may not write to it",
        ),
    }
}

fn refused(refusal: &Refusal) -> ApiError {
    match refusal {
        Refusal::EnvironmentArchived => ApiError::invalid(
            "the environment is archived, which nothing undoes; create another one",
        )
        .with_code("environment_archived"),
        Refusal::EnvironmentCloud => ApiError::invalid(
            "sessions run on self-hosted environments here: this one is a cloud environment, \
             and there is no cloud to run it; create one with config {\"type\": \"self_hosted\"}",
        ),
        Refusal::EnvironmentInUse => ApiError::conflict(format!(
            "{refusal}: archive or delete them first, or archive the environment"
        )),
        Refusal::AgentArchived => {
            ApiError::invalid("the agent is archived, which nothing undoes; create another one")
        }
        Refusal::OtherVersion { newest } => ApiError::conflict(format!(
            "version: the agent is at version {newest} by now; read it, and change that one"
        )),
        Refusal::OtherSkill => ApiError::invalid(
            "files: SKILL.md names another skill; a version keeps its skill's name",
        ),
        Refusal::LastVersion => ApiError::conflict(format!("{refusal}: delete the skill instead")),
        Refusal::OtherResult | Refusal::NoSuchCall => ApiError::invalid(refusal.to_string()),
        Refusal::TooManyKeys { .. } => ApiError::conflict(format!("{refusal}; revoke one first")),
        Refusal::TooMany { .. } => {
            ApiError::conflict(format!("{refusal}; archive or delete one first"))
        }
        Refusal::Item { .. }
        | Refusal::SessionEnded
        | Refusal::SessionRunning
        | Refusal::TooManyEvents { .. } => ApiError::conflict(refusal.to_string()),
    }
}

const RETRY_AFTER: Duration = Duration::from_secs(5);
