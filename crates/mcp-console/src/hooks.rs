//! What happens around every handler: who asks, whether they may, and for how long.
//!
//! ```text
//! request ─► authenticate ─► headers ─► permission ─► handler ─► answer
//!               401            400,403     403      within DEADLINE
//! ```
//!
//! A route exists only through [`Route`], which cannot be made without saying which
//! permission it needs.

use std::fmt::Display;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::handler::Handler;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use http::request::Parts;
use http::{HeaderMap, Method};
use managed_agents_api::serve::{self, ApiError, Permission, Principal, RequestId};
use managed_agents_api::{ErrorType, headers};
use mcp_tunnel_auth::{
    CallerKeyId, CertificateId, ConnectionId, CredentialKind, TunnelId, WorkspaceId,
};
use tracing::{Instrument as _, debug, error, info_span};

use crate::environment;
use crate::failure::chain;
use crate::shared::Shared;
use crate::store::Change;

/// One route: what it is, and who may call it.
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) needs: Permission,
    handler: MethodRouter<Arc<Shared>>,
}

impl Route {
    pub(crate) fn get<H, T>(path: &'static str, needs: Permission, handler: H) -> Self
    where
        H: Handler<T, Arc<Shared>>,
        T: 'static,
    {
        Self {
            method: Method::GET,
            path,
            needs,
            handler: on(MethodFilter::GET, handler),
        }
    }

    pub(crate) fn post<H, T>(path: &'static str, needs: Permission, handler: H) -> Self
    where
        H: Handler<T, Arc<Shared>>,
        T: 'static,
    {
        Self {
            method: Method::POST,
            path,
            needs,
            handler: on(MethodFilter::POST, handler),
        }
    }

    fn mount(self, router: Router<Arc<Shared>>, shared: &Arc<Shared>) -> Router<Arc<Shared>> {
        let guard = Guard {
            shared: Arc::clone(shared),
            needs: self.needs,
        };
        let handler = self
            .handler
            .route_layer(middleware::from_fn_with_state(guard, guarded));
        router.route(self.path, handler)
    }
}

/// The router of `routes`: nothing gets in but through them.
pub(crate) fn mount(routes: Vec<Route>, shared: &Arc<Shared>) -> Router {
    let router = routes
        .into_iter()
        .fold(Router::new(), |router, route| route.mount(router, shared))
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
        let workspace = WorkspaceId::parse(&principal.workspace).map_err(|error| {
            error!(
                error = chain(&error),
                "the authenticator gave no workspace id"
            );
            ApiError::internal()
        })?;
        Ok(Self {
            principal,
            workspace,
            address,
        })
    }

    /// A change that this caller makes now.
    pub(crate) fn change(&self, reason: Option<String>) -> Result<Change, ApiError> {
        let at = environment::now();
        let mut change = Change::new(
            environment::id("audit", at),
            self.workspace.clone(),
            self.principal.actor.clone(),
            at,
        );
        change.address = self.address;
        change.reason = reason.map(|reason| checked_reason(&reason)).transpose()?;
        Ok(change)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get().cloned().ok_or_else(|| {
            error!(
                path = parts.uri.path(),
                "a route without a guard was reached"
            );
            ApiError::internal()
        })
    }
}

/// An id in the path. A text that is no such id is answered as one that is not there.
pub(crate) struct Id<T>(pub(crate) T);

impl<T: Named, S: Send + Sync> FromRequestParts<S> for Id<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let text = Path::<String>::from_request_parts(parts, state).await;
        parse(text.ok().as_ref().map(|Path(text)| text)).map(Self)
    }
}

/// The ids of a thing and of its part in the path.
pub(crate) struct Ids<A, B>(pub(crate) A, pub(crate) B);

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
pub(crate) trait Named: FromStr {
    const MISSING: &'static str;
}

impl Named for TunnelId {
    const MISSING: &'static str = "there is no such tunnel in this workspace";
}

impl Named for CertificateId {
    const MISSING: &'static str =
        "there is no such tunnel with such a certificate in this workspace";
}

impl Named for ConnectionId {
    const MISSING: &'static str =
        "there is no such tunnel with such a connection in this workspace";
}

impl Named for CallerKeyId {
    const MISSING: &'static str = "there is no such caller key in this workspace";
}

pub(crate) fn not_found<T: Named>() -> ApiError {
    ApiError::not_found(T::MISSING)
}

fn parse<T: Named>(text: Option<&String>) -> Result<T, ApiError> {
    text.and_then(|text| text.parse().ok())
        .ok_or_else(not_found::<T>)
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
    let id = request.extensions().get::<RequestId>();
    let span = info_span!("request", id = id.map(|id| &*id.0));
    tokio::time::timeout(DEADLINE, admit(guard, request, next).instrument(span))
        .await
        .unwrap_or_else(|_| {
            Err(ApiError::new(
                ErrorType::Timeout,
                "it took too long; try again",
            ))
        })
}

async fn admit(guard: Guard, request: Request, next: Next) -> Result<Response, ApiError> {
    let (mut head, body) = request.into_parts();
    let address = serve::peer_address(&head.extensions);
    let principal = guard
        .shared
        .authenticate
        .authenticate(&head, address)
        .await?;
    check_headers(&head.headers, &principal)?;
    principal.require(guard.needs)?;
    debug!(method = %head.method, actor = principal.actor, "request admitted");
    head.extensions.insert(Caller::new(principal, address)?);
    Ok(next.run(Request::from_parts(head, body)).await)
}

/// The versions and betas of the vendor's SDKs are all welcome; what is no version at all
/// is an error of the client that it had better see.
fn check_headers(headers: &HeaderMap, principal: &Principal) -> Result<(), ApiError> {
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
    if selected.is_some_and(|workspace| workspace.as_bytes() != principal.workspace.as_bytes()) {
        return Err(ApiError::forbidden(format!(
            "{}: this credential belongs to another workspace; leave the header out",
            headers::WORKSPACE
        )));
    }
    Ok(())
}

fn checked_reason(reason: &str) -> Result<String, ApiError> {
    checked_text("reason", reason, REASON_MOST)
}

/// A text for people: not empty, not endless, no credential by mistake.
pub(crate) fn checked_text(field: &str, text: &str, most: usize) -> Result<String, ApiError> {
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

/// A value that a request gave as text.
pub(crate) fn parsed<T>(field: &str, text: &str) -> Result<T, ApiError>
where
    T: TryFrom<String, Error: Display>,
{
    T::try_from(text.to_owned()).map_err(|error| ApiError::invalid(format!("{field}: {error}")))
}

/// Longest that a request may take, reading its body included. A client that sends
/// slowly holds one connection for that long, and no lock.
const DEADLINE: Duration = Duration::from_secs(30);

/// Longest reason, in characters.
const REASON_MOST: usize = 1000;

/// Longest name for people, in characters: the vendor's limit.
pub(crate) const NAME_MOST: usize = 255;
