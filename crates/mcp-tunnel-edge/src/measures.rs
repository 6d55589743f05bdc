//! What the edge counts, for whoever installed a recorder before it made the edge; without one nothing is counted.
//!
//! Labels are fixed words, so that neither callers nor gateways can make new series.

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

use crate::gate::Role;

/// What every call touches; made once, since looking one up for each call costs an allocation.
#[derive(Debug)]
pub(crate) struct CallMeasures {
    live: Gauge,
    answered: Counter,
    head_seconds: Histogram,
    complete: Counter,
    caller_gone: Counter,
    broken_off: Counter,
    bytes: Counter,
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerEnd {
    Complete,
    CallerGone,
    BrokenOff,
}

impl CallMeasures {
    pub(crate) fn new() -> Self {
        describe();
        Self {
            live: gauge!(LIVE),
            answered: counter!(CALLS, "outcome" => "answered"),
            head_seconds: histogram!(HEAD_SECONDS),
            complete: counter!(ANSWERS, "end" => "complete"),
            caller_gone: counter!(ANSWERS, "end" => "caller_gone"),
            broken_off: counter!(ANSWERS, "end" => "broken_off"),
            bytes: counter!(BYTES),
        }
    }

    pub(crate) fn began(&self) {
        self.live.increment(1.0);
    }

    pub(crate) fn ended(&self) {
        self.live.decrement(1.0);
    }

    pub(crate) fn answered(&self, after: Duration) {
        self.answered.increment(1);
        self.head_seconds.record(after);
    }

    pub(crate) fn answer_ended(&self, end: AnswerEnd, bytes: u64) {
        match end {
            AnswerEnd::Complete => self.complete.increment(1),
            AnswerEnd::CallerGone => self.caller_gone.increment(1),
            AnswerEnd::BrokenOff => self.broken_off.increment(1),
        }
        self.bytes.increment(bytes);
    }
}

/// A call that the edge answered itself.
pub(crate) fn call_failed(outcome: &'static str) {
    counter!(CALLS, "outcome" => outcome).increment(1);
}

pub(crate) fn caller_refused(reason: &'static str) {
    counter!(REFUSALS, "reason" => reason).increment(1);
}

pub(crate) fn links_changed(state: &'static str, by: f64) {
    gauge!(LINKS, "state" => state).increment(by);
}

/// A gateway came back to its link, or could not; `outcome` is one of a few fixed words.
pub(crate) fn link_resumed(outcome: &'static str) {
    counter!(RESUMES, "outcome" => outcome).increment(1);
}

pub(crate) fn gate_refused(role: Role) {
    counter!(GATE_REFUSALS, "role" => role.as_str()).increment(1);
}

pub(crate) fn report_dropped() {
    counter!(REPORTS_DROPPED).increment(1);
}

fn describe() {
    describe_gauge!(LIVE, "calls under way");
    describe_counter!(CALLS, "calls, by `answered` or why not");
    describe_histogram!(
        HEAD_SECONDS,
        Unit::Seconds,
        "time until an answer of a server began"
    );
    describe_counter!(ANSWERS, "answers of servers, by how they ended");
    describe_counter!(BYTES, Unit::Bytes, "bodies of servers' answers");
    describe_counter!(REFUSALS, "requests that were not let in, by reason");
    describe_gauge!(
        LINKS,
        "links of gateways: `active`, of those `kept`, or `pending`"
    );
    describe_counter!(
        RESUMES,
        "gateways that came back to a kept link, by outcome"
    );
    describe_counter!(GATE_REFUSALS, "sockets closed at once, by role");
    describe_counter!(REPORTS_DROPPED, "reports that no console read");
}

const LIVE: &str = "mcp_tunnel_edge_calls_live";
const CALLS: &str = "mcp_tunnel_edge_calls_total";
const HEAD_SECONDS: &str = "mcp_tunnel_edge_call_head_seconds";
const ANSWERS: &str = "mcp_tunnel_edge_answers_total";
const BYTES: &str = "mcp_tunnel_edge_answer_bytes_total";
const REFUSALS: &str = "mcp_tunnel_edge_refusals_total";
const LINKS: &str = "mcp_tunnel_edge_links_live";
const RESUMES: &str = "mcp_tunnel_edge_link_resumes_total";
const GATE_REFUSALS: &str = "mcp_tunnel_edge_gate_refusals_total";
const REPORTS_DROPPED: &str = "mcp_tunnel_edge_reports_dropped_total";
