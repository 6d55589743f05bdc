//! What the gateway counts, for whoever installed a recorder; without one nothing is counted and nothing costs.
//!
//! Names carry the prefix `mcp_tunnel_gateway_`. Labels are routes of the configuration and fixed words, so that no
//! caller can make new series.

use std::time::Duration;

use mcp_tunnel_auth::RouteName;
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

/// Says what each name means.
pub(crate) fn describe() {
    describe_counter!(CALLS, "calls that an MCP server answered, by route");
    describe_histogram!(
        SECONDS,
        Unit::Seconds,
        "time until an MCP server began its answer, by route"
    );
    describe_counter!(
        FAILURES,
        "calls that the gateway itself answered with 502, 503 or 504, by kind"
    );
    describe_counter!(CUT, "calls without a complete answer, by who cut them off");
    describe_gauge!(RUNNING, "calls that run now");
    describe_counter!(RESUMED, "links that went on over another connection");
    describe_counter!(LINKS, "links to the edge that became active");
}

/// The counters of one route; made once, since looking one up for each call costs an allocation.
#[derive(Debug)]
pub(crate) struct RouteMeasures {
    calls: Counter,
    seconds: Histogram,
}

impl RouteMeasures {
    pub(crate) fn new(route: &RouteName) -> Self {
        let route = route.to_string();
        Self {
            calls: counter!(CALLS, "route" => route.clone()),
            seconds: histogram!(SECONDS, "route" => route),
        }
    }

    pub(crate) fn answered(&self, after: Duration) {
        self.calls.increment(1);
        self.seconds.record(after);
    }
}

/// The counters of a link and its calls.
#[derive(Debug, Clone)]
pub(crate) struct LinkMeasures {
    links: Counter,
    resumed: Counter,
    running: Gauge,
    given_up: Counter,
    broken_off: Counter,
}

impl LinkMeasures {
    pub(crate) fn new() -> Self {
        Self {
            links: counter!(LINKS),
            resumed: counter!(RESUMED),
            running: gauge!(RUNNING),
            given_up: counter!(CUT, "by" => "caller"),
            broken_off: counter!(CUT, "by" => "server"),
        }
    }

    pub(crate) fn activated(&self) {
        self.links.increment(1);
    }

    pub(crate) fn resumed(&self) {
        self.resumed.increment(1);
    }

    /// Counts a running call until the answer is dropped.
    pub(crate) fn running(&self) -> Running {
        self.running.increment(1);
        Running(self.running.clone())
    }

    pub(crate) fn given_up(&self) {
        self.given_up.increment(1);
    }

    pub(crate) fn broken_off(&self) {
        self.broken_off.increment(1);
    }
}

/// One call, as long as it lives.
#[derive(Debug)]
pub(crate) struct Running(Gauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

/// Counts a failure of the gateway's own; `kind` is one of a dozen fixed words.
pub(crate) fn failed(kind: &'static str) {
    counter!(FAILURES, "kind" => kind).increment(1);
}

const CALLS: &str = "mcp_tunnel_gateway_calls_total";
const SECONDS: &str = "mcp_tunnel_gateway_answer_seconds";
const FAILURES: &str = "mcp_tunnel_gateway_failures_total";
const CUT: &str = "mcp_tunnel_gateway_calls_cut_total";
const RUNNING: &str = "mcp_tunnel_gateway_calls_running";
const LINKS: &str = "mcp_tunnel_gateway_links_total";
const RESUMED: &str = "mcp_tunnel_gateway_links_resumed_total";
