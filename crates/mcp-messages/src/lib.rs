//! MCP and JSON-RPC messages read without copying.
#![forbid(unsafe_code)]
