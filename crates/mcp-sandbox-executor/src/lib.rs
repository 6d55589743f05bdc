//! The executor and sandbox traits and their plain types.
