//! Fixture servers, hostile peers and end-to-end tests of MCP tunnels.
#![forbid(unsafe_code)]
