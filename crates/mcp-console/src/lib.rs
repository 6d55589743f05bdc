//! Control plane of MCP tunnels: REST API, keys, approvals and audit.
#![forbid(unsafe_code)]
