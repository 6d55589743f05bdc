//! Worker engine: claims sessions from the queue and runs their tool calls in sandboxes.
#![forbid(unsafe_code)]
