//! Ids in the path of a request.

use std::str::FromStr;

use axum::extract::{FromRequestParts, Path};
use http::request::Parts;
use managed_agents_api::serve::ApiError;
use mcp_tunnel_auth::{
    AgentId, ApiKeyId, CallerKeyId, CertificateId, ConnectionId, EnvironmentId, EnvironmentKeyId,
    EventId, SessionId, SkillId, SkillVersionId, ThreadId, TunnelId, WorkId,
};

/// An id in the path. A text that is no such id is answered as one that is not there.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "handlers take it apart")]
pub struct Id<T>(pub T);

impl<T: Named, S: Send + Sync> FromRequestParts<S> for Id<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let text = Path::<String>::from_request_parts(parts, state).await;
        parse(text.ok().as_ref().map(|Path(text)| text)).map(Self)
    }
}

/// The ids of a thing and of its part in the path.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "handlers take it apart")]
pub struct Ids<A, B>(pub A, pub B);

impl<A: Named, B: Named, S: Send + Sync> FromRequestParts<S> for Ids<A, B> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let texts = Path::<(String, String)>::from_request_parts(parts, state).await;
        let texts = texts.ok();
        let (a, b) = texts.as_ref().map(|Path((a, b))| (a, b)).unzip();
        // Both are missing together: a wrong part says nothing of the whole.
        let a = parse(a).map_err(|_| not_found::<B>())?;
        Ok(Self(a, parse(b)?))
    }
}

/// What is said where there is nothing of this id, or nothing that the caller may know of.
pub trait Named: FromStr {
    /// The message of that answer.
    const MISSING: &'static str;
    /// Its `error_code`.
    const CODE: Option<&'static str> = None;
}

/// The answer where there is no such thing.
#[must_use]
pub fn not_found<T: Named>() -> ApiError {
    let missing = ApiError::not_found(T::MISSING);
    match T::CODE {
        Some(code) => missing.with_code(code),
        None => missing,
    }
}

/// # Errors
/// 404 where the text is no such id, or there is none.
pub fn parse<T: Named>(text: Option<&String>) -> Result<T, ApiError> {
    text.and_then(|text| text.parse().ok())
        .ok_or_else(not_found::<T>)
}

impl Named for EnvironmentId {
    const MISSING: &'static str = "there is no such environment in this workspace";
    const CODE: Option<&'static str> = Some("environment_not_found");
}

macro_rules! named {
    ($($id:ty, $missing:literal;)+) => {
        $(impl Named for $id {
            const MISSING: &'static str = concat!("there is no such ", $missing);
        })+
    };
}

named! {
    AgentId, "agent in this workspace, or it has no such version";
    ApiKeyId, "API key in this workspace";
    CallerKeyId, "caller key in this workspace";
    CertificateId, "tunnel with such a certificate in this workspace";
    ConnectionId, "tunnel with such a connection in this workspace";
    EnvironmentKeyId, "environment with such a key in this workspace";
    EventId, "session with such an event in this workspace";
    SessionId, "session in this workspace";
    SkillId, "skill in this workspace";
    SkillVersionId, "skill with such a version in this workspace";
    ThreadId, "session with such a thread in this workspace";
    TunnelId, "tunnel in this workspace";
    WorkId, "environment with such a work item in this workspace";
}
