//! Tokens, keys, proofs and access snapshots of MCP tunnels.
#![forbid(unsafe_code)]
