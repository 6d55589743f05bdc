//! Every type of event, as a structure each. `id` and `processed_at` are the event's own.

use serde::{Deserialize, Serialize};

use super::parts::{
    Confirmation, ContentDelta, EvaluatedPermission, Evaluation, ModelUsage, PreviewedEvent,
    SessionErrorDetail, StopReason,
};
use crate::agent::{MetadataPatch, SessionAgent};
use crate::session::SessionUsage;
use crate::vocabulary::{tagged, words};
use crate::{ContentBlock, RawJson};

/// A structure for each type, the names of all types, and the view over all of them.
macro_rules! events {
    ($($(#[$doc:meta])* $name:ident = $word:literal {
        $($(#[$about:meta])* $field:ident: $kind:ty,)*
    })+) => {
        words! {
            /// The type of an event.
            pub enum EventType {
                $($(#[$doc])* $name = $word,)+
            }
        }

        tagged! {
            /// The typed view of an event: everything but its id and its time.
            pub enum EventBody {
                $($(#[$doc])* $name($name) = $word,)+
            }
        }

        impl EventBody {
            /// Its type.
            #[must_use]
            pub fn event_type(&self) -> EventType {
                EventType::from(self.kind())
            }
        }

        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
            #[serde(tag = "type", rename = $word)]
            pub struct $name {
                $($(#[$about])* pub $field: $kind,)*
            }
        )+
    };
}

events! {
    /// A person, or a program in their place, says something.
    UserMessage = "user.message" {
        /// Text, images and documents.
        content: Vec<ContentBlock>,
    }
    /// A person ends the turn.
    UserInterrupt = "user.interrupt" {
        /// The thread to end; absent: all of them.
        #[serde(skip_serializing_if = "Option::is_none")]
        session_thread_id: Option<String>,
    }
    /// A person decides about a call that waits for it.
    UserToolConfirmation = "user.tool_confirmation" {
        /// The call.
        tool_use_id: String,
        /// The decision.
        result: Confirmation,
        /// Why not, for the model.
        #[serde(skip_serializing_if = "Option::is_none")]
        deny_message: Option<String>,
    }
    /// What a built-in tool returned, from the worker.
    UserToolResult = "user.tool_result" {
        /// The call.
        tool_use_id: String,
        /// What it returned.
        #[serde(default)]
        content: Vec<ContentBlock>,
        /// Whether it failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        is_error: Option<bool>,
    }
    /// What a custom tool returned, from the application.
    UserCustomToolResult = "user.custom_tool_result" {
        /// The call.
        custom_tool_use_id: String,
        /// What it returned.
        #[serde(default)]
        content: Vec<ContentBlock>,
        /// Whether it failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        is_error: Option<bool>,
    }
    /// A person says what is to come of the session.
    UserDefineOutcome = "user.define_outcome" {
        /// What.
        description: String,
        /// How it is judged.
        #[serde(skip_serializing_if = "Option::is_none")]
        rubric: Option<RawJson>,
        /// How often it is tried.
        #[serde(skip_serializing_if = "Option::is_none")]
        max_iterations: Option<u64>,
        /// What later events call it.
        #[serde(skip_serializing_if = "Option::is_none")]
        outcome_id: Option<String>,
    }
    /// The platform says something to the model.
    SystemMessage = "system.message" {
        /// Text.
        content: Vec<ContentBlock>,
    }
    /// The agent says something.
    AgentMessage = "agent.message" {
        /// Text.
        content: Vec<ContentBlock>,
    }
    /// The agent thinks; of what, is not told.
    AgentThinking = "agent.thinking" {}
    /// The agent calls a built-in tool.
    AgentToolUse = "agent.tool_use" {
        /// The tool.
        name: String,
        /// Its arguments, as the text that they are.
        input: RawJson,
        /// Whether it may run; absent: it may.
        #[serde(skip_serializing_if = "Option::is_none")]
        evaluated_permission: Option<EvaluatedPermission>,
        /// By which policy; absent: refused before any policy applied.
        #[serde(skip_serializing_if = "Option::is_none")]
        evaluation: Option<Evaluation>,
        /// The thread that calls; `None`: the primary one.
        session_thread_id: Option<String>,
    }
    /// What a built-in tool returned that runs on the server.
    AgentToolResult = "agent.tool_result" {
        /// The call.
        tool_use_id: String,
        /// What it returned.
        #[serde(default)]
        content: Vec<ContentBlock>,
        /// Whether it failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        is_error: Option<bool>,
    }
    /// The agent calls a tool of the application.
    AgentCustomToolUse = "agent.custom_tool_use" {
        /// The tool.
        name: String,
        /// Its arguments, as the text that they are.
        input: RawJson,
        /// The thread that calls; `None`: the primary one.
        session_thread_id: Option<String>,
    }
    /// The agent calls a tool of an MCP server.
    AgentMcpToolUse = "agent.mcp_tool_use" {
        /// The server.
        mcp_server_name: String,
        /// The tool.
        name: String,
        /// Its arguments, as the text that they are.
        input: RawJson,
        /// Whether it may run; absent: it may.
        #[serde(skip_serializing_if = "Option::is_none")]
        evaluated_permission: Option<EvaluatedPermission>,
        /// By which policy; absent: refused before any policy applied.
        #[serde(skip_serializing_if = "Option::is_none")]
        evaluation: Option<Evaluation>,
        /// The thread that calls; `None`: the primary one.
        session_thread_id: Option<String>,
    }
    /// What a tool of an MCP server returned.
    AgentMcpToolResult = "agent.mcp_tool_result" {
        /// The call.
        mcp_tool_use_id: String,
        /// What it returned.
        #[serde(default)]
        content: Vec<ContentBlock>,
        /// Whether it failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        is_error: Option<bool>,
    }
    /// Another thread said something to this one.
    AgentThreadMessageReceived = "agent.thread_message_received" {
        /// Who.
        from_session_thread_id: String,
        /// Who, for people.
        #[serde(skip_serializing_if = "Option::is_none")]
        from_agent_name: Option<String>,
        /// What.
        #[serde(default)]
        content: Vec<ContentBlock>,
    }
    /// This thread said something to another.
    AgentThreadMessageSent = "agent.thread_message_sent" {
        /// To whom.
        to_session_thread_id: String,
        /// To whom, for people.
        #[serde(skip_serializing_if = "Option::is_none")]
        to_agent_name: Option<String>,
        /// What.
        #[serde(default)]
        content: Vec<ContentBlock>,
    }
    /// The model's view of the history was made shorter.
    AgentThreadContextCompacted = "agent.thread_context_compacted" {}
    /// A turn is under way.
    SessionStatusRunning = "session.status_running" {}
    /// The session waits.
    SessionStatusIdle = "session.status_idle" {
        /// For what, or why.
        stop_reason: StopReason,
        /// More about a refusal.
        stop_details: Option<RawJson>,
    }
    /// The turn met a passing error and is tried again.
    SessionStatusRescheduled = "session.status_rescheduled" {}
    /// The session is over.
    SessionStatusTerminated = "session.status_terminated" {}
    /// The session is deleted.
    SessionDeleted = "session.deleted" {}
    /// The session was changed; what is absent stayed.
    SessionUpdated = "session.updated" {
        /// Its agent.
        #[serde(skip_serializing_if = "Option::is_none")]
        agent: Option<Box<SessionAgent>>,
        /// What it may cost.
        #[serde(skip_serializing_if = "Option::is_none")]
        budget: Option<RawJson>,
        /// Text by name.
        #[serde(skip_serializing_if = "Option::is_none")]
        metadata: Option<MetadataPatch>,
        /// Its title.
        #[serde(skip_serializing_if = "Option::is_none")]
        title: Option<String>,
    }
    /// What the session has used so far.
    SessionUsageUpdated = "session.usage" {
        /// Sums.
        usage: SessionUsage,
        /// What it may cost.
        #[serde(skip_serializing_if = "Option::is_none")]
        budget: Option<RawJson>,
    }
    /// Something went wrong.
    SessionError = "session.error" {
        /// What.
        error: SessionErrorDetail,
    }
    /// A thread was made.
    SessionThreadCreated = "session.thread_created" {
        /// The thread.
        session_thread_id: String,
        /// Who works in it.
        #[serde(default)]
        agent_name: String,
        /// The workflow that it belongs to.
        #[serde(skip_serializing_if = "Option::is_none")]
        workflow_run_id: Option<String>,
    }
    /// A turn is under way in a thread.
    SessionThreadStatusRunning = "session.thread_status_running" {
        /// The thread.
        session_thread_id: String,
        /// Who works in it.
        #[serde(default)]
        agent_name: String,
    }
    /// A thread waits.
    SessionThreadStatusIdle = "session.thread_status_idle" {
        /// The thread.
        session_thread_id: String,
        /// Who works in it.
        #[serde(default)]
        agent_name: String,
        /// For what, or why.
        #[serde(skip_serializing_if = "Option::is_none")]
        stop_reason: Option<StopReason>,
    }
    /// A thread's turn is tried again.
    SessionThreadStatusRescheduled = "session.thread_status_rescheduled" {
        /// The thread.
        session_thread_id: String,
        /// Who works in it.
        #[serde(default)]
        agent_name: String,
    }
    /// A thread is over; its calls with it.
    SessionThreadStatusTerminated = "session.thread_status_terminated" {
        /// The thread.
        session_thread_id: String,
        /// Who works in it.
        #[serde(default)]
        agent_name: String,
    }
    /// A request to a model begins.
    SpanModelRequestStart = "span.model_request_start" {}
    /// A request to a model ends.
    SpanModelRequestEnd = "span.model_request_end" {
        /// Its start.
        model_request_start_id: String,
        /// What it used.
        #[serde(default)]
        model_usage: ModelUsage,
        /// Whether it failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        is_error: Option<bool>,
    }
    /// An outcome is being judged.
    SpanOutcomeEvaluationStart = "span.outcome_evaluation_start" {
        /// The outcome.
        outcome_id: String,
        /// Which try.
        #[serde(default)]
        iteration: u64,
    }
    /// An outcome is still being judged.
    SpanOutcomeEvaluationOngoing = "span.outcome_evaluation_ongoing" {
        /// The outcome.
        outcome_id: String,
        /// Which try.
        #[serde(default)]
        iteration: u64,
    }
    /// An outcome was judged.
    SpanOutcomeEvaluationEnd = "span.outcome_evaluation_end" {
        /// The outcome.
        outcome_id: String,
        /// Which try.
        #[serde(default)]
        iteration: u64,
    }
    /// A workflow was made.
    WorkflowRunCreated = "workflow_run.created" {
        /// The workflow.
        #[serde(skip_serializing_if = "Option::is_none")]
        workflow_run_id: Option<String>,
    }
    /// A workflow runs.
    WorkflowRunStatusRunning = "workflow_run.status_running" {
        /// The workflow.
        #[serde(skip_serializing_if = "Option::is_none")]
        workflow_run_id: Option<String>,
    }
    /// A workflow waits.
    WorkflowRunStatusIdle = "workflow_run.status_idle" {
        /// The workflow.
        #[serde(skip_serializing_if = "Option::is_none")]
        workflow_run_id: Option<String>,
    }
    /// A workflow is over.
    WorkflowRunStatusEnded = "workflow_run.status_ended" {
        /// The workflow.
        #[serde(skip_serializing_if = "Option::is_none")]
        workflow_run_id: Option<String>,
    }
    /// A workflow met an error.
    WorkflowRunError = "workflow_run.error" {
        /// The workflow.
        #[serde(skip_serializing_if = "Option::is_none")]
        workflow_run_id: Option<String>,
    }
    /// A phase of a workflow begins.
    WorkflowRunPhaseStarted = "workflow_run.phase_started" {
        /// The workflow.
        #[serde(skip_serializing_if = "Option::is_none")]
        workflow_run_id: Option<String>,
    }
    /// A phase of a workflow ends.
    WorkflowRunPhaseEnded = "workflow_run.phase_ended" {
        /// The workflow.
        #[serde(skip_serializing_if = "Option::is_none")]
        workflow_run_id: Option<String>,
    }
    /// On streams only: an event is being written.
    EventStart = "event_start" {
        /// The event to come.
        event: PreviewedEvent,
    }
    /// On streams only: a piece of the event's text.
    EventDelta = "event_delta" {
        /// The event to come.
        event_id: String,
        /// The piece.
        delta: ContentDelta,
    }
}

impl EventBody {
    /// A message of a person.
    pub fn user_text(text: impl Into<String>) -> Self {
        Self::UserMessage(UserMessage {
            content: vec![ContentBlock::text(text)],
        })
    }

    /// A message of the agent.
    pub fn agent_text(text: impl Into<String>) -> Self {
        Self::AgentMessage(AgentMessage {
            content: vec![ContentBlock::text(text)],
        })
    }

    /// The session waits, for what or why.
    #[must_use]
    pub fn idle(stop_reason: StopReason) -> Self {
        Self::SessionStatusIdle(SessionStatusIdle {
            stop_reason,
            stop_details: None,
        })
    }

    /// A turn is under way.
    #[must_use]
    pub fn running() -> Self {
        Self::SessionStatusRunning(SessionStatusRunning {})
    }
}
