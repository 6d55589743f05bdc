//! Frames and session state of the MCP tunnel protocol, without IO.
#![forbid(unsafe_code)]
