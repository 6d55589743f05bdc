//! Makes private MCP servers reachable through one outbound connection.

fn main() {}
