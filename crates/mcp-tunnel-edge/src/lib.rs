//! Relay engine of MCP tunnels.
