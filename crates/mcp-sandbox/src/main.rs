//! Runs agent tool calls in real isolation on your own machines.

fn main() {}
