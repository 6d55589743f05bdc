//! The executor and sandbox traits and their plain types.
#![forbid(unsafe_code)]
