//! Query of a listing and JSON bodies, with envelopes for what is wrong with them.

use axum::body::HttpBody as _;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use http::request::Parts;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::ApiError;
use crate::error::ErrorType;
use crate::page::{LIMIT_DEFAULT, LIMIT_MAX};
use crate::query::{self, QueryError};

/// Largest body of a request that needs no more: 64 KiB. The largest legitimate one is a certificate of
/// 8 kB; what an authenticated client gains by more is memory of the server, for the
/// time of one request.
pub const BODY_LIMIT_BYTES: usize = 64 * 1024;

/// Query of a listing, judged. Members that it does not know (`beta`) are ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PageParams {
    /// Whether archived entries are listed too.
    pub include_archived: bool,
    /// 1 to [`LIMIT_MAX`].
    pub limit: u32,
    /// `next_page` of the page before.
    pub page: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for PageParams {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let pairs = pairs(parts)?;
        let mut params = Self {
            include_archived: false,
            limit: LIMIT_DEFAULT,
            page: None,
        };
        for (name, value) in pairs {
            match name.as_str() {
                "include_archived" => {
                    params.include_archived = value
                        .parse()
                        .map_err(|_| ApiError::invalid("include_archived: true or false"))?;
                }
                "limit" => params.limit = parse_limit(&value)?,
                "page" if !value.is_empty() => params.page = Some(value),
                _ => {}
            }
        }
        Ok(params)
    }
}

/// The query of a route, read by the type that clients write it with.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "an extractor is its one field")]
pub struct Params<Q>(pub Q);

impl<Q: query::Query, S: Send + Sync> FromRequestParts<S> for Params<Q> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let pairs = pairs(parts)?;
        let pairs = pairs
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()));
        Ok(Self(Q::from_pairs(pairs)?))
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        Self::invalid(error.to_string())
    }
}

fn pairs(parts: &Parts) -> Result<Vec<(String, String)>, ApiError> {
    let Query(pairs) = Query::try_from_uri(&parts.uri)
        .map_err(|_| ApiError::invalid("the query is not well-formed"))?;
    Ok(pairs)
}

fn parse_limit(value: &str) -> Result<u32, ApiError> {
    value
        .parse()
        .ok()
        .filter(|limit| (1..=LIMIT_MAX).contains(limit))
        .ok_or_else(|| ApiError::invalid(format!("limit: a number from 1 to {LIMIT_MAX}")))
}

/// A JSON body of at most `LIMIT` bytes; an empty one counts as `{}`, and the content
/// type is not asked for, since SDKs differ in both.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "an extractor is its one field")]
pub struct JsonBody<T, const LIMIT: usize = BODY_LIMIT_BYTES>(pub T);

impl<T: DeserializeOwned, S: Send + Sync, const LIMIT: usize> FromRequest<S>
    for JsonBody<T, LIMIT>
{
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let too_large = || {
            let text = format!("the body is larger than {} KiB", LIMIT / 1024);
            ApiError::new(ErrorType::TooLarge, text)
        };
        let body = request.into_body();
        // One that says so need not be sent to be refused.
        if body.size_hint().lower() > LIMIT as u64 {
            return Err(too_large());
        }
        let body = Limited::new(body, LIMIT)
            .collect()
            .await
            .map_err(|error| {
                if error.downcast_ref::<LengthLimitError>().is_some() {
                    too_large()
                } else {
                    ApiError::invalid("the body ended before its time")
                }
            })?
            .to_bytes();
        let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
        // serde would take an array for an object, member by member.
        if text.trim_ascii_start().first() != Some(&b'{') {
            return Err(ApiError::invalid("body: a JSON object is expected"));
        }
        serde_json::from_slice(text)
            .map(JsonBody)
            .map_err(|error| ApiError::invalid(format!("body: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;
    use crate::session::{SessionFilter, SessionStatus};
    use crate::tunnel::{CreateCertificate, CreateTunnel};

    #[track_caller]
    fn page(query: &str) -> Result<PageParams, String> {
        let (mut parts, ()) = http::Request::builder()
            .uri(format!("/v1/tunnels{query}"))
            .body(())
            .unwrap()
            .into_parts();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime
            .block_on(PageParams::from_request_parts(&mut parts, &()))
            .map_err(|error| error.message().to_owned())
    }

    #[test]
    fn a_query_has_defaults_and_bounds() {
        let plain = page("").unwrap();
        assert_eq!(
            (plain.include_archived, plain.limit, plain.page),
            (false, 20, None)
        );
        let full = page("?beta=true&include_archived=true&limit=1000&page=abc").unwrap();
        assert_eq!(
            (full.include_archived, full.limit, full.page.as_deref()),
            (true, 1000, Some("abc"))
        );
        for wrong in ["?limit=0", "?limit=1001", "?limit=-1", "?limit=x"] {
            assert_eq!(page(wrong).unwrap_err(), "limit: a number from 1 to 1000");
        }
        assert!(page("?include_archived=perhaps").is_err());
    }

    #[tokio::test]
    async fn a_query_is_read_by_the_type_that_writes_it() {
        let (mut parts, ()) = http::Request::builder()
            .uri("/v1/sessions?statuses%5B%5D=idle&created_at[gte]=2026-11-24T07%3A00%3A00Z&beta=true")
            .body(())
            .unwrap()
            .into_parts();
        let Params(filter) = Params::<SessionFilter>::from_request_parts(&mut parts, &())
            .await
            .unwrap();
        assert_eq!(filter.statuses, [SessionStatus::Idle]);
        assert!(filter.created_at.gte.is_some());
        parts.uri = "/?created_at[gte]=noon".parse().unwrap();
        let refused = Params::<SessionFilter>::from_request_parts(&mut parts, &()).await;
        assert!(
            refused
                .unwrap_err()
                .message()
                .starts_with("created_at[gte]")
        );
    }

    async fn body<T: DeserializeOwned>(text: String) -> Result<T, ApiError> {
        <JsonBody<T>>::from_request(Request::new(Body::from(text)), &())
            .await
            .map(|JsonBody(value)| value)
    }

    #[tokio::test]
    async fn a_body_may_be_empty_but_not_endless() {
        assert_eq!(
            body::<CreateTunnel>(String::new()).await.unwrap(),
            CreateTunnel::default()
        );
        for other in ["[]", "null", "\"x\"", "\u{feff}{}"] {
            let refused = body::<CreateTunnel>(other.into()).await.unwrap_err();
            assert_eq!(refused.message(), "body: a JSON object is expected");
        }
        let missing = body::<CreateCertificate>(String::new()).await.unwrap_err();
        assert!(missing.message().contains("ca_certificate_pem"));
        let endless = body::<CreateTunnel>(" ".repeat(BODY_LIMIT_BYTES + 1))
            .await
            .unwrap_err();
        assert_eq!(endless.status().as_u16(), 413);
    }
}
