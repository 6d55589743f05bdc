//! Query of a listing and JSON bodies, with envelopes for what is wrong with them.

use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use http::request::Parts;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::ApiError;
use crate::error::ErrorType;
use crate::page::{LIMIT_DEFAULT, LIMIT_MAX};

/// Largest body of a request: 64 KiB. The largest legitimate one is a certificate of
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
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|_| ApiError::invalid("the query is not well-formed"))?;
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

fn parse_limit(value: &str) -> Result<u32, ApiError> {
    value
        .parse()
        .ok()
        .filter(|limit| (1..=LIMIT_MAX).contains(limit))
        .ok_or_else(|| ApiError::invalid(format!("limit: a number from 1 to {LIMIT_MAX}")))
}

/// A JSON body of at most [`BODY_LIMIT_BYTES`]; an empty one counts as `{}`, and the
/// content type is not asked for, since SDKs differ in both.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "an extractor is its one field")]
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let body = Limited::new(request.into_body(), BODY_LIMIT_BYTES)
            .collect()
            .await
            .map_err(|error| {
                if error.downcast_ref::<LengthLimitError>().is_some() {
                    let most = BODY_LIMIT_BYTES / 1024;
                    ApiError::new(
                        ErrorType::TooLarge,
                        format!("the body is larger than {most} KiB"),
                    )
                } else {
                    ApiError::invalid("the body ended before its time")
                }
            })?
            .to_bytes();
        let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
        serde_json::from_slice(text)
            .map(JsonBody)
            .map_err(|error| ApiError::invalid(format!("body: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;
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

    async fn body<T: DeserializeOwned>(text: String) -> Result<T, ApiError> {
        JsonBody::from_request(Request::new(Body::from(text)), &())
            .await
            .map(|JsonBody(value)| value)
    }

    #[tokio::test]
    async fn a_body_may_be_empty_but_not_endless() {
        assert_eq!(
            body::<CreateTunnel>(String::new()).await.unwrap(),
            CreateTunnel::default()
        );
        let missing = body::<CreateCertificate>(String::new()).await.unwrap_err();
        assert!(missing.message().contains("ca_certificate_pem"));
        let endless = body::<CreateTunnel>(" ".repeat(BODY_LIMIT_BYTES + 1))
            .await
            .unwrap_err();
        assert_eq!(endless.status().as_u16(), 413);
    }
}
