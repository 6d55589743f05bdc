//! All cases, by concern.

mod commands;
mod escape_files;
mod escape_kernel;
mod escape_network;
mod exhaustion;
mod files;
mod leaks;
mod lifecycle;

use crate::case::Case;

/// Every case in its order.
pub(crate) fn all() -> impl Iterator<Item = Case> {
    [
        commands::CASES,
        files::CASES,
        lifecycle::CASES,
        escape_files::CASES,
        escape_kernel::CASES,
        escape_network::CASES,
        exhaustion::CASES,
        leaks::CASES,
    ]
    .into_iter()
    .flatten()
    .copied()
}
