//! Single frames for `tokio_util::codec::Framed`: for tools that watch or fake a link.

use std::io;

use bytes::BytesMut;
use tokio_util::codec::{Decoder, Encoder};

use crate::{EncodeError, Frame, HEADER, Violation, frame};

/// Decodes and encodes single frames. A session needs [`crate::Connection`] instead: it
/// knows states and credit, which a codec does not.
#[derive(Debug, Clone)]
pub struct FrameCodec {
    max_frame: u16,
}

impl FrameCodec {
    /// A codec that refuses payloads longer than `max_frame` bytes.
    #[must_use]
    pub const fn new(max_frame: u16) -> Self {
        Self { max_frame }
    }
}

/// Why a codec stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The byte stream failed.
    #[error("reading or writing frames")]
    Io(#[from] io::Error),
    /// The peer sent what is no frame.
    #[error("peer misbehaved")]
    PeerMisbehaved(#[from] Violation),
    /// The frame to send does not fit.
    #[error("encoding a frame")]
    Encode(#[from] EncodeError),
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = CodecError;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, CodecError> {
        let frame = frame::decode(input, self.max_frame)?;
        if frame.is_none() {
            // Room for the rest of the frame, whose length is known to be allowed.
            let whole = frame::Head::peek(input).map_or(0, |head| head.length);
            input.reserve(whole.saturating_add(HEADER).saturating_sub(input.len()));
        }
        Ok(frame)
    }
}

impl Encoder<Frame> for FrameCodec {
    type Error = CodecError;

    fn encode(&mut self, frame: Frame, out: &mut BytesMut) -> Result<(), CodecError> {
        Ok(frame.encode(out)?)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::StreamId;

    #[test]
    fn frames_pass_byte_by_byte() {
        let mut codec = FrameCodec::new(4096);
        let frame = Frame::Data {
            id: StreamId::new(7).unwrap(),
            payload: Bytes::from_static(b"payload"),
            fin: true,
        };
        let mut wire = BytesMut::new();
        codec.encode(frame.clone(), &mut wire).unwrap();
        let mut input = BytesMut::new();
        for (at, byte) in wire.iter().enumerate() {
            assert!(codec.decode(&mut input).unwrap().is_none(), "before {at}");
            input.extend_from_slice(&[*byte]);
        }
        assert_eq!(codec.decode(&mut input).unwrap(), Some(frame));
        assert!(codec.decode_eof(&mut input).unwrap().is_none());
    }

    #[test]
    fn a_cut_frame_is_an_error_at_the_end() {
        let mut codec = FrameCodec::new(4096);
        let mut input = BytesMut::from(&[0x05, 0, 8, 0, 0, 0][..]);
        assert!(matches!(
            codec.decode_eof(&mut input),
            Err(CodecError::Io(_))
        ));
    }

    #[test]
    fn violations_and_long_frames_keep_their_cause() {
        let mut codec = FrameCodec::new(4096);
        let mut input = BytesMut::from(&[0x42, 0xff, 0xff, 0, 0, 0, 0, 1][..]);
        assert!(matches!(
            codec.decode(&mut input),
            Err(CodecError::PeerMisbehaved(Violation::FrameSize))
        ));
        let frame = Frame::Data {
            id: StreamId::new(1).unwrap(),
            payload: Bytes::from(vec![0; 70_000]),
            fin: false,
        };
        let mut out = BytesMut::new();
        assert!(matches!(
            codec.encode(frame, &mut out),
            Err(CodecError::Encode(EncodeError::TooLong))
        ));
        assert!(out.is_empty());
    }
}
