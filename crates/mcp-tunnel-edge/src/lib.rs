//! Relay engine of MCP tunnels.
#![forbid(unsafe_code)]
