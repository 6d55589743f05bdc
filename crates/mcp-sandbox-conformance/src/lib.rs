//! The suite that every sandbox executor must pass.
