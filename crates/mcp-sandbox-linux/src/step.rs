//! Names for the steps of building a sandbox, so that an error says which one.

use std::fmt::Display;

use crate::message::Refusal;

/// A step that did not succeed.
#[derive(Debug)]
pub(crate) struct StepError {
    pub(crate) step: String,
    pub(crate) error: String,
}

/// Adds the step's name to an error.
pub(crate) trait Step<T> {
    fn step(self, name: &str) -> Result<T, StepError>;
}

impl<T, E: Display> Step<T> for Result<T, E> {
    fn step(self, name: &str) -> Result<T, StepError> {
        self.map_err(|error| StepError {
            step: name.to_owned(),
            error: error.to_string(),
        })
    }
}

impl From<StepError> for Refusal {
    fn from(error: StepError) -> Self {
        Self::Step {
            step: error.step,
            error: error.error,
        }
    }
}
