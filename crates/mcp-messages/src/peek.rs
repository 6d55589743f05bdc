//! The few parameters that routing, policy and records need, read when asked for.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::envelope::{Message, present, string};

/// What was found in `params`; a value of another type than expected counts as absent.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Peek<'a> {
    /// `name`: of a tool or a prompt.
    pub name: Option<Cow<'a, str>>,
    /// `uri`: of a resource.
    pub uri: Option<Cow<'a, str>>,
    /// `_meta["io.modelcontextprotocol/protocolVersion"]`, which every request of the modern era carries.
    pub protocol_version: Option<Cow<'a, str>>,
    /// `_meta.progressToken`: a JSON string or number as it was written.
    pub progress_token: Option<&'a str>,
    /// `_meta.traceparent`: the trace that the request belongs to.
    pub traceparent: Option<Cow<'a, str>>,
}

/// A key that is looked for occurs twice, in `params` or in `_meta`: readers would disagree on which one counts.
#[derive(Debug, thiserror::Error)]
#[error("the message's parameters are ambiguous")]
#[non_exhaustive]
pub struct PeekError {
    #[from]
    source: serde_json::Error,
}

impl<'a> Message<'a> {
    /// Looks into the parameters, one level and `_meta`; arguments are skipped over.
    ///
    /// # Errors
    /// [`PeekError`] for a key that occurs twice.
    pub fn peek(&self) -> Result<Peek<'a>, PeekError> {
        let Some(params) = self.params().filter(|params| params.get().starts_with('{')) else {
            return Ok(Peek::default());
        };
        let params: Params<'a> = serde_json::from_str(params.get())?;
        let meta = match params.meta.filter(|meta| meta.get().starts_with('{')) {
            Some(meta) => serde_json::from_str(meta.get())?,
            None => Meta::default(),
        };
        Ok(Peek {
            name: params.name.and_then(string),
            uri: params.uri.and_then(string),
            protocol_version: meta.protocol_version.and_then(string),
            progress_token: meta.progress_token.map(RawValue::get),
            traceparent: meta.traceparent.and_then(string),
        })
    }
}

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    name: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    uri: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present", rename = "_meta")]
    meta: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Meta<'a> {
    #[serde(
        borrow,
        default,
        deserialize_with = "present",
        rename = "io.modelcontextprotocol/protocolVersion"
    )]
    protocol_version: Option<&'a RawValue>,
    #[serde(
        borrow,
        default,
        deserialize_with = "present",
        rename = "progressToken"
    )]
    progress_token: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    traceparent: Option<&'a RawValue>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peek(text: &str) -> Result<Peek<'_>, PeekError> {
        Message::parse(text.as_bytes()).unwrap().peek()
    }

    #[test]
    fn a_modern_call() {
        let text = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_\u0077eather","arguments":{"name":"x","_meta":3},
            "_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","progressToken":12345678901234567890,"traceparent":"00-1"}}}"#;
        let peek = peek(text).unwrap();
        assert_eq!(peek.name.as_deref(), Some("get_weather"));
        assert_eq!(peek.protocol_version.as_deref(), Some("2026-07-28"));
        assert_eq!(peek.progress_token, Some("12345678901234567890"));
        assert_eq!(peek.traceparent.as_deref(), Some("00-1"));
        assert_eq!(peek.uri, None);
    }

    #[test]
    fn other_types_count_as_absent() {
        for params in [
            r#"[1,2]"#,
            "null",
            r#"{"name":5,"uri":null,"_meta":[]}"#,
            r#"{"name":"\ud800"}"#,
        ] {
            let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{params}}}"#);
            let peek = peek(&text).unwrap();
            assert!(
                peek.name.is_none() && peek.uri.is_none() && peek.protocol_version.is_none(),
                "{params}"
            );
        }
    }

    #[test]
    fn a_key_that_occurs_twice_is_refused_however_it_is_written() {
        for params in [
            r#"{"name":"a","name":"b"}"#,
            r#"{"name":"a","\u006eame":"b"}"#,
            r#"{"_meta":{},"_meta":{}}"#,
            r#"{"_meta":{"progressToken":1,"progressToken":2}}"#,
        ] {
            let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{params}}}"#);
            assert!(peek(&text).is_err(), "{params}");
        }
    }
}
