//! Header names and values of the API, in lower case.

/// API key, as older SDKs and the documentation's curl send it; newer SDKs send
/// `authorization: Bearer` instead.
pub const API_KEY: &str = "x-api-key";

/// Version of the API: a date.
pub const VERSION: &str = "anthropic-version";

/// Versions that servers and clients of this API are known to speak, oldest first.
pub const VERSIONS: [&str; 2] = ["2023-06-01", "2026-10-21"];

/// Comma list of betas; a server of ours takes requests with and without it.
pub const BETA: &str = "anthropic-beta";

/// Beta of `/v1/tunnels`.
pub const BETA_TUNNELS: &str = "mcp-tunnels-2026-06-22";

/// Beta of `/v1/organizations/tunnels`, the older place of the same routes.
pub const BETA_TUNNELS_LEGACY: &str = "mcp-tunnels-2026-05-19";

/// Selects a workspace for credentials that may act in several.
pub const WORKSPACE: &str = "anthropic-workspace-id";

/// Repeats the `request_id` of an error; on every answer.
pub const REQUEST_ID: &str = "request-id";

/// `true` or `false`: overrides what an SDK would do by status.
pub const SHOULD_RETRY: &str = "x-should-retry";

/// Beta of agents, environments, work, sessions, events and threads.
pub const BETA_MANAGED_AGENTS: &str = "managed-agents-2026-04-01";

/// Free text that tells workers apart; sent with polls only.
pub const WORKER_ID: &str = "anthropic-worker-id";

/// Names the part of a client that sends the request; for statistics.
pub const HELPER: &str = "x-stainless-helper";

/// W3C trace context: which trace a request belongs to.
pub const TRACE: &str = "traceparent";

/// Of a poll's answer, ours alone. [`POLL_IMMEDIATE`]: no pause is needed between two
/// polls, and the route `begun` exists.
pub const POLL: &str = "mcp-sandbox-poll";

/// Value of [`POLL`].
pub const POLL_IMMEDIATE: &str = "immediate";

/// Milliseconds to wait before a retry; goes before `retry-after`.
pub const RETRY_AFTER_MS: &str = "retry-after-ms";
