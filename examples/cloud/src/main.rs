//! The reference cloud of MCP tunnels and agent sessions in one process.

fn main() {}
