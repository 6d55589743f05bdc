//! The trace that a call belongs to: what OPEN says of it, so that gateway and edge log the same id.

use http::{HeaderMap, HeaderName};
use mcp_tunnel_proto::TraceContext;

use crate::clock::entropy;

/// The caller's trace. Where a call has none, a new one is made if the edge's log has calls in it, which is at the
/// level `debug`: otherwise nobody could find it again. The caller's own header passes to the server in any case.
pub(crate) fn of(headers: &HeaderMap) -> Option<TraceContext> {
    let context = told_or_begun(headers, tracing::enabled!(tracing::Level::DEBUG))?;
    tracing::debug!(trace = %context, "call begins");
    Some(context)
}

fn told_or_begun(headers: &HeaderMap, begin: bool) -> Option<TraceContext> {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    match (parents.next(), parents.next()) {
        (Some(parent), None) => TraceContext::from_traceparent(parent.to_str().ok()?),
        (None, _) if begin => fresh(),
        // Two of them say nothing.
        (_, _) => None,
    }
}

/// Not sampled: that is for those to say who collect traces.
fn fresh() -> Option<TraceContext> {
    Some(TraceContext::new(entropy()?, entropy()?, 0))
}

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_that_logs_calls_begins_a_trace_for_those_without() {
        let mut headers = HeaderMap::new();
        let begun = [(); 2].map(|()| told_or_begun(&headers, true).unwrap());
        assert_ne!(begun[0].trace_id, begun[1].trace_id);
        assert_ne!(begun[0].span_id, [0; 8]);
        assert_eq!(
            begun[0].flags, 0,
            "whether to collect it is for others to say"
        );
        assert_eq!(told_or_begun(&headers, false), None);
        // Something that is no trace is left to the server, and not replaced.
        headers.insert(TRACEPARENT, "what".parse().unwrap());
        assert_eq!(told_or_begun(&headers, true), None);
    }
}
