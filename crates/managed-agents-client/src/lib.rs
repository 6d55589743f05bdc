//! REST client of the Managed Agents API.
#![forbid(unsafe_code)]
