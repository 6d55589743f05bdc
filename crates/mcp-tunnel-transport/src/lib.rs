//! MCP tunnel sessions over tokio and TLS.
#![forbid(unsafe_code)]
