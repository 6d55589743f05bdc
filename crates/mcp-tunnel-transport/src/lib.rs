//! MCP tunnel sessions over tokio and TLS.
