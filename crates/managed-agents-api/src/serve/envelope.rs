//! Errors as responses, and the id that every answer carries.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::error::{ErrorDetails, ErrorEnvelope, ErrorObject, ErrorType};
use crate::headers;

/// An answer that is an error.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{kind}: {message}")]
pub struct ApiError {
    kind: ErrorType,
    message: String,
    status: StatusCode,
    details: Option<Box<ErrorDetails>>,
    should_retry: Option<bool>,
    retry_after: Option<Duration>,
}

impl ApiError {
    /// An error of class `kind`, with the status that goes with it.
    pub fn new(kind: ErrorType, message: impl Into<String>) -> Self {
        let status =
            StatusCode::from_u16(kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self {
            kind,
            message: message.into(),
            status,
            details: None,
            should_retry: None,
            retry_after: None,
        }
    }

    /// 400: the request itself is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorType::InvalidRequest, message)
    }

    /// 401: no credential, or none that is good here.
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(ErrorType::Authentication, message)
    }

    /// 403: the credential is good, but not for this.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(ErrorType::Permission, message)
    }

    /// 404: there is none such, or none that this credential may know of.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorType::NotFound, message)
    }

    /// 409 that a retry cannot cure: SDKs, which retry 409 by themselves, are told so.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorType::Conflict, message).with_retry(false)
    }

    /// 503: nothing was done; `message` says the cure.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorType::Api, message).with_status(StatusCode::SERVICE_UNAVAILABLE)
    }

    /// 500, without what happened: that is in the log.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(
            ErrorType::Api,
            "internal error; the operator finds it in the log under this request id",
        )
    }

    /// With another status than the class's own.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// With `error.details.error_code`.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.details.get_or_insert_default().error_code = Some(code.into());
        self
    }

    /// With `error.details`, in place of what they were.
    #[must_use]
    pub fn with_details(mut self, details: ErrorDetails) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    /// With `x-should-retry`.
    #[must_use]
    pub fn with_retry(mut self, should_retry: bool) -> Self {
        self.should_retry = Some(should_retry);
        self
    }

    /// With `retry-after`, in whole seconds.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Its class.
    #[must_use]
    pub fn kind(&self) -> &ErrorType {
        &self.kind
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What the client reads.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    fn body(&self, request_id: Option<&str>) -> Vec<u8> {
        let envelope = ErrorEnvelope {
            error: ErrorObject {
                kind: self.kind.clone(),
                message: self.message.clone(),
                details: self.details.as_deref().cloned(),
            },
            request_id: request_id.map(str::to_owned),
        };
        serde_json::to_vec(&envelope).unwrap_or_default()
    }

    fn write_headers(&self, headers: &mut HeaderMap) {
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        if let Some(should_retry) = self.should_retry {
            headers.insert(
                HeaderName::from_static(headers::SHOULD_RETRY),
                HeaderValue::from_static(if should_retry { "true" } else { "false" }),
            );
        }
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs()));
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body(None)));
        *response.status_mut() = self.status;
        self.write_headers(response.headers_mut());
        response.extensions_mut().insert(self);
        response
    }
}

/// The id of a request: an extension that [`enveloped`] gives it, for logs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestId(pub Arc<str>);

/// `router`, whose every answer has a `request-id` drawn from `next_id`, and whose
/// errors, unknown paths and wrong methods included, are envelopes that repeat it.
pub fn enveloped(router: Router, next_id: impl Fn() -> String + Send + Sync + 'static) -> Router {
    let next_id: Arc<dyn Fn() -> String + Send + Sync> = Arc::new(next_id);
    router
        .fallback(async || ApiError::not_found("no such route"))
        .method_not_allowed_fallback(async || {
            ApiError::invalid("the route does not take this method")
                .with_status(StatusCode::METHOD_NOT_ALLOWED)
        })
        .layer(middleware::from_fn(
            move |mut request: Request, next: Next| {
                let id: Arc<str> = next_id().into();
                request.extensions_mut().insert(RequestId(Arc::clone(&id)));
                async move { identified(next.run(request).await, &id) }
            },
        ))
}

fn identified(mut response: Response, request_id: &str) -> Response {
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        *response.body_mut() = Body::from(error.body(Some(request_id)));
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    if let Ok(value) = HeaderValue::from_str(request_id) {
        response
            .headers_mut()
            .insert(HeaderName::from_static(headers::REQUEST_ID), value);
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    async fn answer(method: &str, path: &str) -> (StatusCode, HeaderMap, ErrorEnvelope) {
        let router = Router::new().route(
            "/full",
            get(async || {
                ApiError::conflict("held")
                    .with_code("held_elsewhere")
                    .with_retry_after(Duration::from_secs(3))
            }),
        );
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .body(Body::empty())
            .unwrap();
        let response = enveloped(router, || "req_7".into())
            .oneshot(request)
            .await
            .unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (
            head.status,
            head.headers,
            serde_json::from_slice(&body).unwrap(),
        )
    }

    #[tokio::test]
    async fn an_error_repeats_the_id_and_says_how_to_retry() {
        let (status, headers, envelope) = answer("GET", "/full").await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert_eq!(headers["request-id"], "req_7");
        assert_eq!(headers["x-should-retry"], "false");
        assert_eq!(headers["retry-after"], "3");
        assert_eq!(envelope.request_id.as_deref(), Some("req_7"));
        assert_eq!(envelope.error.kind, ErrorType::Conflict);
        let code = envelope.error.details.unwrap().error_code;
        assert_eq!(code.as_deref(), Some("held_elsewhere"));
    }

    #[tokio::test]
    async fn unknown_paths_and_methods_are_envelopes_too() {
        let (status, headers, envelope) = answer("GET", "/none").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(headers["request-id"], "req_7");
        assert_eq!(envelope.error.kind, ErrorType::NotFound);
        let (status, _, envelope) = answer("DELETE", "/full").await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(envelope.error.kind, ErrorType::InvalidRequest);
    }
}
