//! What OPEN says about a stream: kind, route, urgency, deadline, trace and metadata.

use std::{fmt, str::FromStr, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};

use crate::{Violation, wire};

/// Longest encoded head of OPEN, its own length field included, in bytes.
pub const MAX_OPEN_HEAD: usize = 2048;

const PARAM_DEADLINE: u8 = 0x01;
const PARAM_TRACE: u8 = 0x02;
const PARAM_METADATA: u8 = 0x03;

/// What a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StreamKind {
    /// One HTTP/1.1 exchange.
    Http,
    /// A caller's own TLS connection.
    Tls,
    /// OPEN-7: a kind this version does not know; the application answers [`crate::ResetCode::UNSUPPORTED`].
    Unknown(u8),
}

impl StreamKind {
    const fn from_u8(raw: u8) -> Self {
        match raw {
            0x01 => Self::Http,
            0x02 => Self::Tls,
            other => Self::Unknown(other),
        }
    }

    const fn as_u8(self) -> u8 {
        match self {
            Self::Http => 0x01,
            Self::Tls => 0x02,
            Self::Unknown(raw) => raw,
        }
    }
}

/// Which streams go first. Both ends schedule by it; nothing starves (see SPEC.md, SCHED).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum Urgency {
    /// Small calls that somebody waits for.
    #[default]
    Interactive,
    /// Large bodies.
    Bulk,
    /// Whatever may wait.
    Background,
}

impl Urgency {
    pub(crate) const COUNT: usize = 3;

    pub(crate) const fn level(self) -> usize {
        match self {
            Self::Interactive => 0,
            Self::Bulk => 1,
            Self::Background => 2,
        }
    }

    /// OPEN-8: a level this version does not know counts as the least urgent.
    const fn from_u8(raw: u8) -> Self {
        match raw {
            0 => Self::Interactive,
            1 => Self::Bulk,
            _ => Self::Background,
        }
    }

    const fn as_u8(self) -> u8 {
        match self {
            Self::Interactive => 0,
            Self::Bulk => 1,
            Self::Background => 2,
        }
    }
}

/// The name of a route: one DNS label in lower case, or empty for the default route.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RouteName(Bytes);

/// Text that is no [`RouteName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a route name is at most 63 of a-z, 0-9 and inner hyphens")]
#[non_exhaustive]
pub struct RouteNameError;

impl RouteName {
    /// The default route, whose name is empty.
    #[must_use]
    pub const fn default_route() -> Self {
        Self(Bytes::new())
    }

    /// Parses a label of at most 63 bytes of `a-z`, `0-9` and inner hyphens; empty is the default route.
    ///
    /// # Errors
    /// [`RouteNameError`] if it is anything else.
    pub fn parse(name: &str) -> Result<Self, RouteNameError> {
        if !is_label(name.as_bytes()) {
            return Err(RouteNameError);
        }
        Ok(Self(Bytes::copy_from_slice(name.as_bytes())))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only ASCII is let in, so the fallback is never taken.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Whether this is the default route.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.0.is_empty()
    }
}

fn is_label(name: &[u8]) -> bool {
    let hyphen_at_edge = name.first() == Some(&b'-') || name.last() == Some(&b'-');
    name.len() <= 63
        && !hyphen_at_edge
        && name
            .iter()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

impl FromStr for RouteName {
    type Err = RouteNameError;

    fn from_str(name: &str) -> Result<Self, RouteNameError> {
        Self::parse(name)
    }
}

impl fmt::Debug for RouteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RouteName({:?})", self.as_str())
    }
}

impl fmt::Display for RouteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// W3C trace context in binary: what `traceparent` says, without its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TraceContext {
    /// Id of the whole trace.
    pub trace_id: [u8; 16],
    /// Id of the span that opened the stream.
    pub span_id: [u8; 8],
    /// Trace flags; bit 0 is "sampled".
    pub flags: u8,
}

impl TraceContext {
    /// A trace context of these parts.
    #[must_use]
    pub const fn new(trace_id: [u8; 16], span_id: [u8; 8], flags: u8) -> Self {
        Self {
            trace_id,
            span_id,
            flags,
        }
    }

    /// Reads a `traceparent` header field (W3C Trace Context, section 3.2); `None` for what is none, and for ids of
    /// zeros only. Of a later version it takes what the first one had.
    #[must_use]
    pub fn from_traceparent(text: &str) -> Option<Self> {
        let mut fields = text.split('-');
        let [version] = hex(fields.next()?)?;
        let context = Self {
            trace_id: hex(fields.next()?)?,
            span_id: hex(fields.next()?)?,
            flags: hex::<1>(fields.next()?)?[0],
        };
        let is_known = match version {
            0 => fields.next().is_none(),
            later => later != 0xff,
        };
        let has_ids = context.trace_id != [0; 16] && context.span_id != [0; 8];
        (is_known && has_ids).then_some(context)
    }

    fn decode(mut value: &[u8]) -> Result<Self, Violation> {
        let context = Self {
            trace_id: wire::array(&mut value)?,
            span_id: wire::array(&mut value)?,
            flags: wire::u8(&mut value)?,
        };
        wire::end(value)?;
        Ok(context)
    }

    fn encode(&self) -> [u8; 25] {
        let mut value = [0; 25];
        let (trace, rest) = value.split_at_mut(16);
        trace.copy_from_slice(&self.trace_id);
        let (span, flags) = rest.split_at_mut(8);
        span.copy_from_slice(&self.span_id);
        flags.copy_from_slice(&[self.flags]);
        value
    }
}

/// As a `traceparent` header field.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace_id
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        self.span_id
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "-{:02x}", self.flags)
    }
}

/// Bytes in lower-case hexadecimal, exactly as many as asked for.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let [high, low] = *pair else { return None };
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(bytes)
}

/// What OPEN says about its stream, before any payload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenHeader {
    /// What the stream carries.
    pub kind: StreamKind,
    /// Which of the gateway's servers it is for.
    pub route: RouteName,
    /// How both ends schedule it.
    pub urgency: Urgency,
    /// How long the opener still waits for an answer to begin, counted from OPEN's arrival; whole milliseconds, at most
    /// 49 days.
    pub deadline: Option<Duration>,
    /// The trace it belongs to.
    pub trace: Option<TraceContext>,
    /// Opaque to this crate; the head with it is at most [`MAX_OPEN_HEAD`] bytes.
    pub metadata: Bytes,
}

impl OpenHeader {
    /// A head with defaults: interactive, no deadline, no trace, no metadata.
    #[must_use]
    pub const fn new(kind: StreamKind, route: RouteName) -> Self {
        Self {
            kind,
            route,
            urgency: Urgency::Interactive,
            deadline: None,
            trace: None,
            metadata: Bytes::new(),
        }
    }

    /// Bytes that the head takes in a payload, its length field included.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let fixed = 2 + 1 + 1 + 1 + self.route.0.len();
        let deadline = if self.deadline.is_some() { 3 + 4 } else { 0 };
        let trace = if self.trace.is_some() { 3 + 25 } else { 0 };
        let metadata = if self.metadata.is_empty() {
            0
        } else {
            3 + self.metadata.len()
        };
        fixed + deadline + trace + metadata
    }

    /// Writes the head. The caller has checked [`MAX_OPEN_HEAD`].
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        let body = u16::try_from(self.encoded_len() - 2).unwrap_or(u16::MAX);
        out.put_u16(body);
        out.put_u8(self.kind.as_u8());
        out.put_u8(self.urgency.as_u8());
        out.put_u8(u8::try_from(self.route.0.len()).unwrap_or(u8::MAX));
        out.put_slice(&self.route.0);
        if let Some(deadline) = self.deadline {
            let millis = u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX);
            wire::put_param(out, PARAM_DEADLINE, &millis.to_be_bytes());
        }
        if let Some(trace) = &self.trace {
            wire::put_param(out, PARAM_TRACE, &trace.encode());
        }
        if !self.metadata.is_empty() {
            wire::put_param(out, PARAM_METADATA, &self.metadata);
        }
    }

    /// Reads a head off the front of OPEN's payload and says how long it was.
    pub(crate) fn decode(payload: &[u8]) -> Result<(Self, usize), Violation> {
        let mut rest = payload;
        let length = usize::from(wire::u16(&mut rest)?);
        // OPEN-5: the head is bounded apart from the frame.
        if length + 2 > MAX_OPEN_HEAD {
            return Err(Violation::FrameFormat);
        }
        let mut head = wire::take(&mut rest, length)?;
        let kind = StreamKind::from_u8(wire::u8(&mut head)?);
        let urgency = Urgency::from_u8(wire::u8(&mut head)?);
        let route_length = usize::from(wire::u8(&mut head)?);
        let route = wire::take(&mut head, route_length)?;
        // OPEN-6: the route is a label or empty.
        if !is_label(route) {
            return Err(Violation::FrameFormat);
        }
        let mut header = Self::new(kind, RouteName(Bytes::copy_from_slice(route)));
        header.urgency = urgency;
        let mut params = wire::Params::new(head);
        while let Some((key, mut value)) = params.next()? {
            match key {
                PARAM_DEADLINE => {
                    let millis = wire::u32(&mut value)?;
                    wire::end(value)?;
                    header.deadline = Some(Duration::from_millis(millis.into()));
                }
                PARAM_TRACE => header.trace = Some(TraceContext::decode(value)?),
                PARAM_METADATA => header.metadata = Bytes::copy_from_slice(value),
                unknown => wire::unknown_param(unknown)?,
            }
        }
        Ok((header, length + 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(traceparent: &str, expect: Option<TraceContext>) {
        assert_eq!(
            TraceContext::from_traceparent(traceparent),
            expect,
            "{traceparent}"
        );
    }

    #[test]
    fn a_traceparent_reads_back_and_nothing_else_is_taken_for_one() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = TraceContext::from_traceparent(text).unwrap();
        assert_eq!(
            (context.trace_id[0], context.span_id[7], context.flags),
            (0x0a, 0x31, 1)
        );
        assert_eq!(context.to_string(), text);
        let later = text.replacen("00", "cc", 1);
        check(&later, Some(context));
        check(&format!("{later}-what-comes-then"), Some(context));
        for wrong in [
            "",
            "00",
            &format!("{text}-more"),
            &text.replacen("00", "ff", 1),
            &text.replacen("00", "0", 1),
            &text.to_uppercase(),
            &text.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &text.replace("b7ad6b7169203331", &"0".repeat(16)),
            &text.replace("b7ad", "b7a"),
            &text.replace("b7ad", "b7ax"),
            &text.replace('-', "_"),
            "00-é-é-é",
        ] {
            check(wrong, None);
        }
    }
}
