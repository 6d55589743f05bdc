//! The suite that every sandbox executor must pass.
#![forbid(unsafe_code)]
