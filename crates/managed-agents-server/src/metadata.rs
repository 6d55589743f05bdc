//! Metadata of agents, environments and sessions: words of the client's own.

use managed_agents_api::serve::ApiError;
use managed_agents_api::{Metadata, MetadataPatch};

/// # Errors
/// 400 with the code `invalid_metadata`.
pub(crate) fn checked(metadata: Metadata) -> Result<Metadata, ApiError> {
    if metadata.len() > PAIRS_MOST {
        return Err(invalid(format!("metadata: at most {PAIRS_MOST} pairs")));
    }
    for (key, value) in &metadata {
        if !(1..=KEY_MOST).contains(&key.chars().count()) {
            return Err(invalid(format!(
                "metadata: keys of 1 to {KEY_MOST} characters"
            )));
        }
        if value.chars().count() > VALUE_MOST {
            return Err(invalid(format!(
                "metadata: values of at most {VALUE_MOST} characters"
            )));
        }
    }
    Ok(metadata)
}

/// `metadata` with the changes of `patch`.
///
/// # Errors
/// 400 with the code `invalid_metadata`.
pub(crate) fn patched(mut metadata: Metadata, patch: MetadataPatch) -> Result<Metadata, ApiError> {
    for (key, value) in patch {
        match value {
            Some(value) => metadata.insert(key, value),
            None => metadata.remove(&key),
        };
    }
    checked(metadata)
}

/// # Errors
/// 400 with the code `invalid_metadata` where one of the values could not be kept.
pub(crate) fn checked_patch(patch: &MetadataPatch) -> Result<(), ApiError> {
    let values = patch
        .iter()
        .filter_map(|(key, value)| Some((key.clone(), value.clone()?)));
    checked(values.collect()).map(drop)
}

fn invalid(message: String) -> ApiError {
    ApiError::invalid(message).with_code("invalid_metadata")
}

/// The vendor's limits, in pairs and characters.
const PAIRS_MOST: usize = 16;
const KEY_MOST: usize = 64;
const VALUE_MOST: usize = 512;
