//! The trace that a call belongs to: what OPEN says of it, so that gateway and edge log the same id.

use http::{HeaderMap, HeaderName};
use mcp_tunnel_proto::TraceContext;

use crate::clock::entropy;

/// The caller's trace. Where a call has none, a new one is made if the edge's log has calls in it, which is at the
/// level `debug`: otherwise nobody could find it again. The caller's own header passes to the server in any case.
pub(crate) fn of(headers: &HeaderMap) -> Option<TraceContext> {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let context = match (parents.next(), parents.next()) {
        (Some(parent), None) => TraceContext::from_traceparent(parent.to_str().ok()?)?,
        (None, _) if tracing::enabled!(tracing::Level::DEBUG) => fresh()?,
        // Two of them say nothing.
        (_, _) => return None,
    };
    tracing::debug!(trace = %context, "call begins");
    Some(context)
}

/// Not sampled: that is for those to say who collect traces.
fn fresh() -> Option<TraceContext> {
    Some(TraceContext::new(entropy()?, entropy()?, 0))
}

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
