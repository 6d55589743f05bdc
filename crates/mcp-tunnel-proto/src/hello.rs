//! HELLO, ADMISSION and RESUME: what is said before a link carries streams.

use std::{fmt, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};

use crate::{Config, RefusalCode, Side, Violation, wire};

/// The one version that this crate speaks.
pub const VERSION: u8 = 1;

/// Longest HELLO frame, header included, in bytes.
pub const MAX_HELLO: usize = 4096;

/// Longest credential in HELLO, in bytes.
pub const MAX_CREDENTIAL: usize = 3584;

/// Longest text in HELLO, ADMISSION, GOAWAY and CLOSE, in bytes of UTF-8.
pub const MAX_TEXT: usize = 256;

/// Longest approval code, in bytes of ASCII.
pub const MAX_APPROVAL_CODE: usize = 64;

/// Smallest `max_frame` that a side may announce, in payload bytes.
pub const MIN_MAX_FRAME: u16 = 4096;

const MAGIC: [u8; 4] = *b"MCPT";

const PARAM_FEATURES: u8 = 0x01;
const PARAM_MAX_FRAME: u8 = 0x02;
const PARAM_STREAM_WINDOW: u8 = 0x03;
const PARAM_SESSION_WINDOW: u8 = 0x04;
const PARAM_MAX_STREAMS: u8 = 0x05;
const PARAM_CREDENTIAL: u8 = 0x06;
const PARAM_RESUME: u8 = 0x07;
const PARAM_AGENT: u8 = 0x81;

const PARAM_SESSION: u8 = 0x08;
const PARAM_APPROVAL: u8 = 0x09;
const PARAM_REFUSAL: u8 = 0x0a;
const PARAM_RETRY_AFTER: u8 = 0x0b;
const PARAM_TEXT: u8 = 0x82;

const STATUS_PENDING: u8 = 0;
const STATUS_ACTIVE: u8 = 1;
const STATUS_REFUSED: u8 = 2;

/// Optional parts of the protocol; what both sides offer is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Features(u64);

impl Features {
    /// Nothing optional.
    pub const NONE: Self = Self(0);
    /// The session survives its link: ACK and RESUME.
    pub const RESUME: Self = Self(1);

    /// The set with these bits; unknown bits are kept and mean nothing here.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether every feature of `other` is in this set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What both sets have.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// What one side is ready to receive. The other side must keep to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Payload bytes of one frame, [`MIN_MAX_FRAME`] to 65,535.
    pub max_frame: u16,
    /// Payload bytes that may be sent on a new stream before any credit.
    pub stream_window: u64,
    /// Encoded bytes of DATA and of OPEN's first data before any session credit.
    pub session_window: u64,
    /// Streams that may be opened before any streams credit.
    pub max_streams: u64,
}

impl Limits {
    /// Limits of these numbers.
    #[must_use]
    pub const fn new(
        max_frame: u16,
        stream_window: u64,
        session_window: u64,
        max_streams: u64,
    ) -> Self {
        Self {
            max_frame,
            stream_window,
            session_window,
            max_streams,
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        wire::put_param(out, PARAM_MAX_FRAME, &self.max_frame.to_be_bytes());
        wire::put_param(out, PARAM_STREAM_WINDOW, &self.stream_window.to_be_bytes());
        wire::put_param(
            out,
            PARAM_SESSION_WINDOW,
            &self.session_window.to_be_bytes(),
        );
        wire::put_param(out, PARAM_MAX_STREAMS, &self.max_streams.to_be_bytes());
    }
}

/// The four limits while they are read; HELLO-3: all of them must be there.
#[derive(Default)]
struct PartialLimits {
    max_frame: Option<u16>,
    stream_window: Option<u64>,
    session_window: Option<u64>,
    max_streams: Option<u64>,
}

impl PartialLimits {
    /// Reads the parameter if it is a limit; says whether it was.
    fn read(&mut self, key: u8, mut value: &[u8]) -> Result<bool, Violation> {
        match key {
            PARAM_MAX_FRAME => self.max_frame = Some(wire::u16(&mut value)?),
            PARAM_STREAM_WINDOW => self.stream_window = Some(wire::offset(&mut value)?),
            PARAM_SESSION_WINDOW => self.session_window = Some(wire::offset(&mut value)?),
            PARAM_MAX_STREAMS => self.max_streams = Some(wire::offset(&mut value)?),
            _ => return Ok(false),
        }
        wire::end(value)?;
        Ok(true)
    }

    fn complete(self) -> Result<Limits, Violation> {
        let limits = Limits {
            max_frame: self.max_frame.ok_or(Violation::FrameFormat)?,
            stream_window: self.stream_window.ok_or(Violation::FrameFormat)?,
            session_window: self.session_window.ok_or(Violation::FrameFormat)?,
            max_streams: self.max_streams.ok_or(Violation::FrameFormat)?,
        };
        if limits.max_frame < MIN_MAX_FRAME {
            return Err(Violation::Range);
        }
        Ok(limits)
    }
}

/// The name of a session that may outlive its link. Not a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// The id with these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// Which session a new link wants to go on with, and how many attempts there were before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResumeClaim {
    /// The session, as ADMISSION named it.
    pub session: SessionId,
    /// Greater with each attempt; fences off duplicates and stale attempts.
    pub epoch: u32,
}

impl ResumeClaim {
    /// A claim to `session` with this epoch.
    #[must_use]
    pub const fn new(session: SessionId, epoch: u32) -> Self {
        Self { session, epoch }
    }
}

/// RESUME: how far a side has received, and the proof that it knows the first link.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resume {
    /// The epoch of the claim that this belongs to.
    pub epoch: u32,
    /// Session bytes received, complete frames only.
    pub position: u64,
    /// Made and checked by the transport; opaque here.
    pub proof: [u8; 32],
}

impl Resume {
    /// A RESUME of these parts.
    #[must_use]
    pub const fn new(epoch: u32, position: u64, proof: [u8; 32]) -> Self {
        Self {
            epoch,
            position,
            proof,
        }
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u32(self.epoch);
        out.put_u64(self.position);
        out.put_slice(&self.proof);
    }

    pub(crate) fn decode(mut payload: &[u8]) -> Result<Self, Violation> {
        let resume = Self {
            epoch: wire::u32(&mut payload)?,
            position: wire::offset(&mut payload)?,
            proof: wire::array(&mut payload)?,
        };
        wire::end(payload)?;
        Ok(resume)
    }
}

impl fmt::Debug for Resume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resume")
            .field("epoch", &self.epoch)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

/// HELLO: the first frame of each side.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hello {
    /// Which side speaks.
    pub side: Side,
    /// Lowest version it speaks.
    pub min_version: u8,
    /// Highest version it speaks.
    pub max_version: u8,
    /// What it offers.
    pub features: Features,
    /// What it is ready to receive.
    pub limits: Limits,
    /// Opaque to this crate, at most [`MAX_CREDENTIAL`] bytes; empty from the edge.
    pub credential: Bytes,
    /// The session it wants to go on with.
    pub resume: Option<ResumeClaim>,
    /// Name and version of the program, for diagnostics only; at most [`MAX_TEXT`] bytes.
    pub agent: String,
}

impl Hello {
    /// A HELLO that announces the limits and features of `config`.
    #[must_use]
    pub fn new(side: Side, config: &Config, credential: Bytes) -> Self {
        Self {
            side,
            min_version: VERSION,
            max_version: VERSION,
            features: config.features(),
            limits: config.limits(),
            credential,
            resume: None,
            agent: String::new(),
        }
    }

    /// HELLO-4: the highest version that both speak.
    pub(crate) fn common_version(&self, other: &Self) -> Result<u8, Violation> {
        let highest = self.max_version.min(other.max_version);
        let lowest = self.min_version.max(other.min_version);
        if highest < lowest {
            return Err(Violation::Version);
        }
        Ok(highest)
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_slice(&MAGIC);
        out.put_u8(match self.side {
            Side::Gateway => 0,
            Side::Edge => 1,
        });
        out.put_u8(self.min_version);
        out.put_u8(self.max_version);
        wire::put_param(out, PARAM_FEATURES, &self.features.bits().to_be_bytes());
        self.limits.encode(out);
        if !self.credential.is_empty() {
            wire::put_param(out, PARAM_CREDENTIAL, &self.credential);
        }
        if let Some(claim) = &self.resume {
            let mut value = BytesMut::with_capacity(20);
            value.put_slice(claim.session.as_bytes());
            value.put_u32(claim.epoch);
            wire::put_param(out, PARAM_RESUME, &value);
        }
        if !self.agent.is_empty() {
            let agent = wire::clip(&self.agent, MAX_TEXT);
            wire::put_param(out, PARAM_AGENT, agent.as_bytes());
        }
    }

    pub(crate) fn decode(mut payload: &[u8]) -> Result<Self, Violation> {
        // HELLO-2: the magic and the side come first.
        if wire::array(&mut payload)? != MAGIC {
            return Err(Violation::FrameFormat);
        }
        let side = match wire::u8(&mut payload)? {
            0 => Side::Gateway,
            1 => Side::Edge,
            _ => return Err(Violation::FrameFormat),
        };
        let min_version = wire::u8(&mut payload)?;
        let max_version = wire::u8(&mut payload)?;
        let mut features = Features::NONE;
        let mut limits = PartialLimits::default();
        let mut credential = Bytes::new();
        let mut resume = None;
        let mut agent = String::new();
        let mut params = wire::Params::new(payload);
        while let Some((key, mut value)) = params.next()? {
            match key {
                PARAM_FEATURES => {
                    features = Features(wire::u64(&mut value)?);
                    wire::end(value)?;
                }
                PARAM_CREDENTIAL if value.len() <= MAX_CREDENTIAL => {
                    credential = Bytes::copy_from_slice(value);
                }
                PARAM_RESUME => {
                    let session = SessionId(wire::array(&mut value)?);
                    let epoch = wire::u32(&mut value)?;
                    wire::end(value)?;
                    resume = Some(ResumeClaim { session, epoch });
                }
                PARAM_AGENT => agent = wire::text(value, MAX_TEXT)?,
                other => {
                    if !limits.read(other, value)? {
                        wire::unknown_param(other)?;
                    }
                }
            }
        }
        Ok(Self {
            side,
            min_version,
            max_version,
            features,
            limits: limits.complete()?,
            credential,
            resume,
            agent,
        })
    }
}

impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello")
            .field("side", &self.side)
            .field("min_version", &self.min_version)
            .field("max_version", &self.max_version)
            .field("features", &self.features)
            .field("limits", &self.limits)
            .field("credential_bytes", &self.credential.len())
            .field("resume", &self.resume)
            .field("agent", &self.agent)
            .finish()
    }
}

/// A session that the edge is ready to resume, and for how long after its link is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resumable {
    /// The session's name in a [`ResumeClaim`].
    pub session: SessionId,
    /// How long the edge keeps it; whole seconds on the wire.
    pub keep: Duration,
}

impl Resumable {
    /// A resumable session of these parts.
    #[must_use]
    pub const fn new(session: SessionId, keep: Duration) -> Self {
        Self { session, keep }
    }
}

/// The edge's yes: the link carries streams from here on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Activation {
    /// What the edge is ready to receive, in place of what its HELLO said.
    pub limits: Limits,
    /// Present if the session may be resumed.
    pub resumable: Option<Resumable>,
}

impl Activation {
    /// An activation with these limits and no resumption.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            resumable: None,
        }
    }
}

/// The edge's no.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// Why.
    pub code: RefusalCode,
    /// Do not dial again before this has passed; whole milliseconds on the wire.
    pub retry_after: Option<Duration>,
    /// For people; at most [`MAX_TEXT`] bytes.
    pub text: String,
}

impl Refusal {
    /// A refusal with this code and text.
    #[must_use]
    pub fn new(code: RefusalCode, text: impl Into<String>) -> Self {
        Self {
            code,
            retry_after: None,
            text: text.into(),
        }
    }

    /// The same, with a time before which dialling again is pointless.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }
}

/// ADMISSION: the edge's answer to the gateway's HELLO.
///
/// ```text
///   HELLO ──► pending ──► active      streams may be opened
///     │          │  ▲
///     │          │  └─ (again, with a new code)
///     ├──────────┼─────► active
///     └──────────┴─────► refused      the edge closes
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Admission {
    /// A person must approve; the link stays up and carries no stream.
    Pending {
        /// What the gateway shows, so that the person approves the right one; printable ASCII.
        approval_code: String,
    },
    /// The link carries streams now.
    Active(Activation),
    /// The edge will close the link.
    Refused(Refusal),
}

impl Admission {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Pending { approval_code } => {
                out.put_u8(STATUS_PENDING);
                wire::put_param(out, PARAM_APPROVAL, approval_code.as_bytes());
            }
            Self::Active(activation) => {
                out.put_u8(STATUS_ACTIVE);
                activation.limits.encode(out);
                if let Some(resumable) = &activation.resumable {
                    let mut value = BytesMut::with_capacity(20);
                    value.put_slice(resumable.session.as_bytes());
                    value.put_u32(u32::try_from(resumable.keep.as_secs()).unwrap_or(u32::MAX));
                    wire::put_param(out, PARAM_SESSION, &value);
                }
            }
            Self::Refused(refusal) => {
                out.put_u8(STATUS_REFUSED);
                wire::put_param(out, PARAM_REFUSAL, &refusal.code.as_u32().to_be_bytes());
                if let Some(after) = refusal.retry_after {
                    let millis = u32::try_from(after.as_millis()).unwrap_or(u32::MAX);
                    wire::put_param(out, PARAM_RETRY_AFTER, &millis.to_be_bytes());
                }
                if !refusal.text.is_empty() {
                    let text = wire::clip(&refusal.text, MAX_TEXT);
                    wire::put_param(out, PARAM_TEXT, text.as_bytes());
                }
            }
        }
    }

    pub(crate) fn decode(mut payload: &[u8]) -> Result<Self, Violation> {
        let status = wire::u8(&mut payload)?;
        let params = wire::Params::new(payload);
        match status {
            STATUS_PENDING => decode_pending(params),
            STATUS_ACTIVE => decode_active(params),
            STATUS_REFUSED => decode_refused(params),
            _ => Err(Violation::FrameFormat),
        }
    }
}

fn decode_pending(mut params: wire::Params<'_>) -> Result<Admission, Violation> {
    let mut approval_code = None;
    while let Some((key, value)) = params.next()? {
        match key {
            PARAM_APPROVAL => approval_code = Some(approval_text(value)?),
            other => wire::unknown_param(other)?,
        }
    }
    let approval_code = approval_code.ok_or(Violation::FrameFormat)?;
    Ok(Admission::Pending { approval_code })
}

/// ADMISSION-4: printable ASCII, so that a terminal shows exactly it.
fn approval_text(value: &[u8]) -> Result<String, Violation> {
    let printable = value.iter().all(u8::is_ascii_graphic);
    if value.is_empty() || !printable {
        return Err(Violation::FrameFormat);
    }
    wire::text(value, MAX_APPROVAL_CODE)
}

fn decode_active(mut params: wire::Params<'_>) -> Result<Admission, Violation> {
    let mut limits = PartialLimits::default();
    let mut resumable = None;
    while let Some((key, mut value)) = params.next()? {
        if key == PARAM_SESSION {
            let session = SessionId(wire::array(&mut value)?);
            let keep = Duration::from_secs(wire::u32(&mut value)?.into());
            wire::end(value)?;
            resumable = Some(Resumable { session, keep });
        } else if !limits.read(key, value)? {
            wire::unknown_param(key)?;
        }
    }
    Ok(Admission::Active(Activation {
        limits: limits.complete()?,
        resumable,
    }))
}

fn decode_refused(mut params: wire::Params<'_>) -> Result<Admission, Violation> {
    let mut code = None;
    let mut retry_after = None;
    let mut text = String::new();
    while let Some((key, mut value)) = params.next()? {
        match key {
            PARAM_REFUSAL => {
                code = Some(RefusalCode::from_u32(wire::u32(&mut value)?));
                wire::end(value)?;
            }
            PARAM_RETRY_AFTER => {
                retry_after = Some(Duration::from_millis(wire::u32(&mut value)?.into()));
                wire::end(value)?;
            }
            PARAM_TEXT => text = wire::text(value, MAX_TEXT)?,
            other => wire::unknown_param(other)?,
        }
    }
    Ok(Admission::Refused(Refusal {
        code: code.ok_or(Violation::FrameFormat)?,
        retry_after,
        text,
    }))
}
