//! What happens around every handler: who asks, whether they may, and for how long.
//!
//! ```text
//! request ─► authenticate ─► headers ─► permission ─► handler ─► answer
//!               401            400,403     403      within 30 s
//! ```
//!
//! A route exists only through [`Route`], which cannot be made without saying which
//! permission it needs.

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use http::request::Parts;
use managed_agents_api::serve::{self, ApiError, Permission, Principal};
use managed_agents_service::{
    change, check_headers, guarded_caller, in_time, request_span, workspace_of,
};
use mcp_tunnel_auth::WorkspaceId;
use tracing::{Instrument as _, debug};

use crate::environment;
use crate::shared::Shared;
use crate::store::Change;

pub(crate) use managed_agents_service::{Id, Ids, NAME_MOST, Named, checked_text, not_found};

/// One route, and the permission that it needs.
pub(crate) type Route = managed_agents_service::Route<Arc<Shared>, Permission>;

/// The router of `routes`: nothing gets in but through them.
pub(crate) fn mount(routes: Vec<Route>, shared: &Arc<Shared>) -> Router {
    let router = routes
        .into_iter()
        .fold(Router::new(), |router, route| {
            let guard = Guard {
                shared: Arc::clone(shared),
                needs: route.needs,
            };
            let guarded = middleware::from_fn_with_state(guard, guarded);
            router.route(route.path, route.handler.route_layer(guarded))
        })
        .with_state(Arc::clone(shared));
    serve::enveloped(router, || environment::id("req", environment::now()))
}

/// Whoever passed the guard.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) principal: Principal,
    pub(crate) workspace: WorkspaceId,
    address: Option<IpAddr>,
}

impl Caller {
    fn new(principal: Principal, address: Option<IpAddr>) -> Result<Self, ApiError> {
        let workspace = workspace_of(&principal)?;
        Ok(Self {
            principal,
            workspace,
            address,
        })
    }

    /// A change that this caller makes now.
    pub(crate) fn change(&self, reason: Option<String>) -> Result<Change, ApiError> {
        change(&self.workspace, &self.principal.actor, self.address, reason)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        guarded_caller(parts)
    }
}

#[derive(Clone)]
struct Guard {
    shared: Arc<Shared>,
    needs: Permission,
}

async fn guarded(
    State(guard): State<Guard>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let span = request_span(&request);
    in_time(admit(guard, request, next).instrument(span)).await
}

async fn admit(guard: Guard, request: Request, next: Next) -> Result<Response, ApiError> {
    let (mut head, body) = request.into_parts();
    let address = serve::peer_address(&head.extensions);
    let principal = guard
        .shared
        .authenticate
        .authenticate(&head, address)
        .await?;
    let caller = Caller::new(principal, address)?;
    check_headers(&head.headers, &caller.workspace)?;
    caller.principal.require(guard.needs)?;
    debug!(method = %head.method, actor = caller.principal.actor, "request admitted");
    head.extensions.insert(caller);
    Ok(next.run(Request::from_parts(head, body)).await)
}

/// A value that a request gave as text.
pub(crate) fn parsed<T>(field: &str, text: &str) -> Result<T, ApiError>
where
    T: TryFrom<String, Error: Display>,
{
    T::try_from(text.to_owned()).map_err(|error| ApiError::invalid(format!("{field}: {error}")))
}
