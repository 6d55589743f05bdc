//! Errors in the log.

use std::error::Error;
use std::fmt::Write as _;

/// An error with everything that it came from.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}
