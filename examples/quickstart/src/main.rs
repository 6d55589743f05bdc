//! A guided first run of MCP tunnels in one terminal.

fn main() {}
