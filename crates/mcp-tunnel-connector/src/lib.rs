//! Gateway engine of MCP tunnels.
