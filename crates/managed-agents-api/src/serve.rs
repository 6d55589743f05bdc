//! What an axum service of this API needs: errors as responses, extractors, `Authenticate`.
//!
//! ```
//! use axum::{Json, Router, routing::get};
//! use managed_agents_api::serve::{self, ApiError, PageParams};
//! use managed_agents_api::Page;
//!
//! async fn list(page: PageParams) -> Result<Json<Page<String>>, ApiError> {
//!     if page.limit > 100 {
//!         return Err(ApiError::invalid("limit: at most 100"));
//!     }
//!     Ok(Json(Page { data: vec![], next_page: None }))
//! }
//!
//! // Ids of requests are the caller's to draw: this crate has no randomness.
//! let app: Router = serve::enveloped(Router::new().route("/v1/things", get(list)), || "req_1".into());
//! # drop(app);
//! ```

mod authenticate;
mod envelope;
mod extract;

pub use authenticate::{Authenticate, Permission, Permissions, Principal, bearer, peer_address};
pub use envelope::{ApiError, RequestId, enveloped};
pub use extract::{BODY_LIMIT_BYTES, JsonBody, PageParams, Params};
