//! What happens around every handler, as far as it is the same for all services.

use std::net::IpAddr;
use std::time::Duration;

use axum::extract::Request;
use axum::handler::Handler;
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use http::request::Parts;
use http::{HeaderMap, Method};
use managed_agents_api::serve::{ApiError, Principal, RequestId};
use managed_agents_api::{ErrorType, headers};
use mcp_tunnel_auth::{CredentialKind, WorkspaceId};
use tracing::{Span, error, info_span};

use crate::environment;
use crate::failure::chain;
use crate::records::Change;

/// One route: what it is, and what its guard asks for. There is no way to make one without saying that.
#[derive(Debug)]
#[non_exhaustive]
pub struct Route<S, N> {
    /// Its method.
    pub method: Method,
    /// Its path, with names in braces.
    pub path: &'static str,
    /// What a caller needs: judged by the service's own guard, which is to be put around the handler.
    pub needs: N,
    /// Who answers.
    pub handler: MethodRouter<S>,
}

impl<S: Clone + Send + Sync + 'static, N> Route<S, N> {
    /// Answers `GET`.
    pub fn get<H: Handler<T, S>, T: 'static>(path: &'static str, needs: N, handler: H) -> Self {
        Self::new(Method::GET, path, needs, on(MethodFilter::GET, handler))
    }

    /// Answers `POST`.
    pub fn post<H: Handler<T, S>, T: 'static>(path: &'static str, needs: N, handler: H) -> Self {
        Self::new(Method::POST, path, needs, on(MethodFilter::POST, handler))
    }

    /// Answers `DELETE`.
    pub fn delete<H: Handler<T, S>, T: 'static>(path: &'static str, needs: N, handler: H) -> Self {
        let handler = on(MethodFilter::DELETE, handler);
        Self::new(Method::DELETE, path, needs, handler)
    }

    const fn new(method: Method, path: &'static str, needs: N, handler: MethodRouter<S>) -> Self {
        Self {
            method,
            path,
            needs,
            handler,
        }
    }
}

/// Gives an answer's head within 30 s, or one that says that it took too long. A stream may then take as long as it likes.
///
/// # Errors
/// Those of `answer`, and 408.
///
/// # Cancel safety
/// That of `answer`.
pub async fn in_time(
    answer: impl Future<Output = Result<Response, ApiError>>,
) -> Result<Response, ApiError> {
    let answered = tokio::time::timeout(DEADLINE, answer).await;
    answered.unwrap_or_else(|_| {
        Err(ApiError::new(
            ErrorType::Timeout,
            "it took too long; try again",
        ))
    })
}

/// The span of a request: its id, and the trace that its caller continues.
#[must_use]
pub fn request_span(request: &Request) -> Span {
    let id = request.extensions().get::<RequestId>();
    let trace = trace_id(request.headers());
    info_span!("request", id = id.map(|id| &*id.0), trace)
}

/// The second field of a W3C `traceparent`. Anything else is ignored, as the recommendation says.
fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut fields = headers.get(headers::TRACE)?.to_str().ok()?.split('-');
    let trace = fields.nth(1)?;
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (trace.len() == 32 && trace.bytes().all(hex)).then_some(trace)
}

/// The versions and betas of the vendor's SDKs are all welcome; what is no version at all is an error of the client that it
/// had better see.
///
/// # Errors
/// 400 for no version, 403 where the caller selects another workspace than its own.
pub fn check_headers(headers: &HeaderMap, workspace: &WorkspaceId) -> Result<(), ApiError> {
    let is_date = |text: &str| {
        text.len() == 10
            && text
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'-')
    };
    let version = headers.get(headers::VERSION).map(http::HeaderValue::to_str);
    if version.is_some_and(|version| !version.is_ok_and(is_date)) {
        let known = headers::VERSIONS.join(" or ");
        return Err(ApiError::invalid(format!(
            "{}: a date such as {known}",
            headers::VERSION
        )));
    }
    let selected = headers.get(headers::WORKSPACE);
    if selected.is_some_and(|selected| selected.as_bytes() != workspace.as_str().as_bytes()) {
        return Err(ApiError::forbidden(format!(
            "{}: this credential belongs to another workspace; leave the header out",
            headers::WORKSPACE
        )));
    }
    Ok(())
}

/// Where a principal is at home.
///
/// # Errors
/// 500 where whoever authenticated it names no workspace.
pub fn workspace_of(principal: &Principal) -> Result<WorkspaceId, ApiError> {
    WorkspaceId::parse(&principal.workspace).map_err(|error| {
        error!(
            error = chain(&error),
            "the authenticator gave no workspace id"
        );
        ApiError::internal()
    })
}

/// Whoever passed the guard, which has put a `C` into the request's extensions.
///
/// # Errors
/// 500 where no guard was passed.
pub fn guarded_caller<C: Clone + Send + Sync + 'static>(parts: &Parts) -> Result<C, ApiError> {
    parts.extensions.get().cloned().ok_or_else(|| {
        error!(
            path = parts.uri.path(),
            "a route without a guard was reached"
        );
        ApiError::internal()
    })
}

/// A change that is made now.
///
/// # Errors
/// 400 where the reason is none.
pub fn change(
    workspace: &WorkspaceId,
    actor: impl Into<String>,
    address: Option<IpAddr>,
    reason: Option<String>,
) -> Result<Change, ApiError> {
    let at = environment::now();
    let id = environment::id(AUDIT_PREFIX, at);
    let mut change = Change::new(id, workspace.clone(), actor, at);
    change.address = address;
    change.reason = reason
        .map(|reason| checked_text("reason", &reason, REASON_MOST))
        .transpose()?;
    Ok(change)
}

/// A text for people: not empty, at most `most` characters, no credential by mistake.
///
/// # Errors
/// 400, naming the field.
pub fn checked_text(field: &str, text: &str, most: usize) -> Result<String, ApiError> {
    if !(1..=most).contains(&text.chars().count()) {
        return Err(ApiError::invalid(format!(
            "{field}: 1 to {most} characters"
        )));
    }
    match CredentialKind::recognise(text) {
        Some(CredentialKind::Identifier) | None => Ok(text.to_owned()),
        Some(kind) => Err(ApiError::invalid(format!(
            "{field}: {} is a secret, and this text is shown to others; {}",
            kind.noun(),
            kind.place()
        ))),
    }
}

/// Longest that a request may take until the head of its answer, reading its body included. A client that sends slowly holds
/// one connection for that long, and no lock.
const DEADLINE: Duration = Duration::from_secs(30);

/// Longest reason, in characters.
const REASON_MOST: usize = 1000;

/// Longest name for people, in characters: the vendor's limit.
pub const NAME_MOST: usize = 255;

/// What ids of audit rows begin with.
pub(crate) const AUDIT_PREFIX: &str = "audit";

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn trace(value: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", value.parse().unwrap());
        trace_id(&headers).map(str::to_owned)
    }

    #[test]
    fn a_trace_is_continued_and_anything_else_ignored() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(
            trace(good).as_deref(),
            Some("0af7651916cd43dd8448eb211c80319c")
        );
        for other in [
            "",
            "00",
            "00-short-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-1-1",
        ] {
            assert_eq!(trace(other), None);
        }
    }
}
