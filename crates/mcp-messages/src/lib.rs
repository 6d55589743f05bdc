//! MCP and JSON-RPC messages read without copying.
