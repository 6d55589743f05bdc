//! Wire types of the Managed Agents REST API.
#![forbid(unsafe_code)]
