//! Reading and writing of the pieces that payloads are made of.
//!
//! A parameter is `key u8, length u16, value`. Keys ascend within a payload; a key with its top
//! bit set may be ignored by a receiver that does not know it (PARAM-1 to PARAM-3 of SPEC.md).

use bytes::{Buf, BufMut, BytesMut};

use crate::Violation;

/// Bit of a parameter key or frame type that allows a receiver to skip what it does not know.
pub(crate) const IGNORABLE: u8 = 0x80;

/// No offset, limit or count is greater, so that sums of two never overflow 64 bits.
pub(crate) const MAX_OFFSET: u64 = (1 << 62) - 1;

pub(crate) fn u8(input: &mut &[u8]) -> Result<u8, Violation> {
    input.try_get_u8().map_err(|_| Violation::FrameFormat)
}

pub(crate) fn u16(input: &mut &[u8]) -> Result<u16, Violation> {
    input.try_get_u16().map_err(|_| Violation::FrameFormat)
}

pub(crate) fn u32(input: &mut &[u8]) -> Result<u32, Violation> {
    input.try_get_u32().map_err(|_| Violation::FrameFormat)
}

pub(crate) fn u64(input: &mut &[u8]) -> Result<u64, Violation> {
    input.try_get_u64().map_err(|_| Violation::FrameFormat)
}

/// A 64-bit limit, position or count, checked against [`MAX_OFFSET`].
pub(crate) fn offset(input: &mut &[u8]) -> Result<u64, Violation> {
    let value = u64(input)?;
    if value > MAX_OFFSET {
        return Err(Violation::Range);
    }
    Ok(value)
}

/// The next `N` bytes.
pub(crate) fn array<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], Violation> {
    let (head, rest) = input.split_first_chunk().ok_or(Violation::FrameFormat)?;
    *input = rest;
    Ok(*head)
}

/// The next `length` bytes.
pub(crate) fn take<'a>(input: &mut &'a [u8], length: usize) -> Result<&'a [u8], Violation> {
    let (head, rest) = input
        .split_at_checked(length)
        .ok_or(Violation::FrameFormat)?;
    *input = rest;
    Ok(head)
}

/// FRAME-3, PARAM-3: nothing may follow.
pub(crate) fn end(input: &[u8]) -> Result<(), Violation> {
    if input.is_empty() {
        Ok(())
    } else {
        Err(Violation::FrameFormat)
    }
}

/// TEXT-1: text a peer sent: UTF-8, bounded, without control characters, so that it is safe to print.
pub(crate) fn text(bytes: &[u8], most: usize) -> Result<String, Violation> {
    let text = std::str::from_utf8(bytes).map_err(|_| Violation::FrameFormat)?;
    if bytes.len() > most || text.chars().any(char::is_control) {
        return Err(Violation::FrameFormat);
    }
    Ok(text.to_owned())
}

/// `text` without control characters, cut to `most` bytes at a character's border.
pub(crate) fn clip(text: &str, most: usize) -> String {
    let mut clipped = String::with_capacity(text.len().min(most));
    for c in text.chars().filter(|c| !c.is_control()) {
        if clipped.len() + c.len_utf8() > most {
            break;
        }
        clipped.push(c);
    }
    clipped
}

/// The parameters of a payload, in order.
#[derive(Debug)]
pub(crate) struct Params<'a> {
    rest: &'a [u8],
    last: Option<u8>,
}

impl<'a> Params<'a> {
    pub(crate) fn new(rest: &'a [u8]) -> Self {
        Self { rest, last: None }
    }

    /// The next parameter; PARAM-1: keys ascend strictly, so none comes twice.
    pub(crate) fn next(&mut self) -> Result<Option<(u8, &'a [u8])>, Violation> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = u8(&mut self.rest)?;
        if self.last.is_some_and(|last| key <= last) {
            return Err(Violation::FrameFormat);
        }
        self.last = Some(key);
        let length = u16(&mut self.rest)?;
        Ok(Some((key, take(&mut self.rest, usize::from(length))?)))
    }
}

/// PARAM-2: what to do with a key that this version does not know.
pub(crate) fn unknown_param(key: u8) -> Result<(), Violation> {
    if key & IGNORABLE == 0 {
        return Err(Violation::FrameFormat);
    }
    Ok(())
}

/// Writes one parameter. The caller has bounded `value` far below 64 KiB.
pub(crate) fn put_param(out: &mut BytesMut, key: u8, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    out.put_u8(key);
    out.put_u16(length);
    out.put_slice(value.get(..usize::from(length)).unwrap_or_default());
}
