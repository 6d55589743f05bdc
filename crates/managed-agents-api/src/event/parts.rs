//! What events are made of, beside content.

use serde::{Deserialize, Serialize};

use crate::agent::PolicyKind;
use crate::vocabulary::{tagged, words};

words! {
    /// What became of a call's permission.
    pub enum EvaluatedPermission {
        /// The call runs; what a call without this member means.
        Allow = "allow",
        /// The call waits for a `user.tool_confirmation`.
        Ask = "ask",
        /// The call never runs, and takes no result.
        Deny = "deny",
    }
}

/// Which policy decided about a call; absent where none applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The policy.
    #[serde(rename = "type")]
    pub kind: PolicyKind,
    /// What the policy `auto` decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluated_permission: Option<AutoPermission>,
}

impl Evaluation {
    /// By this policy, which is not `auto`.
    #[must_use]
    pub fn by(kind: PolicyKind) -> Self {
        Self {
            kind,
            evaluated_permission: None,
        }
    }
}

/// What the policy `auto` decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutoPermission {
    /// The decision.
    #[serde(rename = "type")]
    pub kind: EvaluatedPermission,
    /// Why it is not `allow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_code: Option<String>,
}

words! {
    /// What a person said about a call.
    pub enum Confirmation {
        /// It may run.
        Allow = "allow",
        /// It may not.
        Deny = "deny",
    }
}

tagged! {
    /// Why a session is idle.
    pub enum StopReason {
        /// The agent has said what it had to say, or was interrupted.
        EndTurn(EndTurn) = "end_turn",
        /// Calls wait for results or confirmations.
        RequiresAction(RequiresAction) = "requires_action",
        /// An error did not pass.
        RetriesExhausted(RetriesExhausted) = "retries_exhausted",
        /// The budget is spent.
        BudgetReached(BudgetReached) = "budget_reached",
        /// The model refused.
        Refusal(Refusal) = "refusal",
    }
}

impl StopReason {
    /// Calls wait: these are the ids of their events.
    pub fn requires_action(event_ids: Vec<String>) -> Self {
        Self::RequiresAction(RequiresAction { event_ids })
    }

    /// The agent has said what it had to say.
    #[must_use]
    pub fn end_turn() -> Self {
        Self::EndTurn(EndTurn {})
    }
}

/// The agent has said what it had to say, or was interrupted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "end_turn")]
pub struct EndTurn {}

/// Calls wait for results or confirmations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "requires_action")]
pub struct RequiresAction {
    /// Every event that blocks the session.
    pub event_ids: Vec<String>,
}

/// An error did not pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "retries_exhausted")]
pub struct RetriesExhausted {}

/// The budget is spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "budget_reached")]
pub struct BudgetReached {}

/// The model refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "refusal")]
pub struct Refusal {}

/// What a `session.error` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionErrorDetail {
    /// Its class.
    #[serde(rename = "type")]
    pub kind: SessionErrorKind,
    /// For people.
    pub message: String,
    /// Whether it is tried again.
    pub retry_status: RetryStatus,
    /// The MCP server that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp_server_name: Option<String>,
}

words! {
    /// Classes of `session.error`.
    pub enum SessionErrorKind {
        /// None of the others.
        Unknown = "unknown_error",
        /// The model is overloaded.
        ModelOverloaded = "model_overloaded_error",
        /// Too many requests to the model.
        ModelRateLimited = "model_rate_limited_error",
        /// The model did not answer.
        ModelRequestFailed = "model_request_failed_error",
        /// An MCP server is out of reach.
        McpConnectionFailed = "mcp_connection_failed_error",
        /// An MCP server refused the credential.
        McpAuthenticationFailed = "mcp_authentication_failed_error",
        /// The account cannot pay.
        Billing = "billing_error",
        /// The host that a credential is for is out of reach.
        CredentialHostUnreachable = "credential_host_unreachable_error",
        /// Too many calls in one turn.
        ToolUseLimitReached = "tool_use_limit_reached_error",
        /// The history cannot be made shorter.
        CompactionLimitReached = "compaction_limit_reached_error",
        /// A repository refused the credential.
        RepositoryAuthentication = "repository_authentication_error",
        /// A repository may not be read.
        RepositoryForbidden = "repository_forbidden_error",
        /// There is no such repository.
        RepositoryNotFound = "repository_not_found_error",
        /// A repository has no such branch or commit.
        RepositoryCheckout = "repository_checkout_error",
        /// A repository could not be cloned.
        RepositoryClone = "repository_clone_error",
    }
}

/// Whether an error is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryStatus {
    /// Which of the three.
    #[serde(rename = "type")]
    pub kind: RetryKind,
}

impl From<RetryKind> for RetryStatus {
    fn from(kind: RetryKind) -> Self {
        Self { kind }
    }
}

words! {
    /// Whether an error is tried again.
    pub enum RetryKind {
        /// It is, by itself.
        Retrying = "retrying",
        /// It was, often enough; the session waits for a message.
        Exhausted = "exhausted",
        /// It cannot be; the session is over.
        Terminal = "terminal",
    }
}

/// What one request to a model used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelUsage {
    /// Read.
    #[serde(default)]
    pub input_tokens: u64,
    /// Written.
    #[serde(default)]
    pub output_tokens: u64,
    /// Written to the cache.
    #[serde(default)]
    pub cache_creation_input_tokens: u64,
    /// Read from the cache.
    #[serde(default)]
    pub cache_read_input_tokens: u64,
    /// How fast.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<String>,
}

/// The event that a preview on a stream belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviewedEvent {
    /// Its id.
    pub id: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: super::EventType,
}

/// A piece of an event's text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContentDelta {
    /// `content_delta`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The piece.
    pub content: crate::ContentBlock,
    /// The block that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
}
