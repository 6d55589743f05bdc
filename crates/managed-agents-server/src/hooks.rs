//! What happens around every handler: who asks, whether they may, and for how long.
//!
//! ```text
//! request ─► authenticate ─► headers ─► kind, permission ─► rate ─► handler ─► answer
//!               401          400,403          403            429     head within DEADLINE
//! ```
//!
//! A route exists only through [`Route`], which cannot be made without saying which
//! credentials it takes.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequestParts, Path, RawPathParams, Request, State};
use axum::handler::Handler;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use http::request::Parts;
use http::{HeaderMap, Method};
use managed_agents_api::serve::{self, ApiError, Permission, RequestId};
use managed_agents_api::{ErrorType, headers};
use mcp_tunnel_auth::{
    AgentId, CredentialKind, EnvironmentId, EnvironmentKeyId, EventId, SessionId, SkillId,
    SkillVersionId, ThreadId, WorkId, WorkspaceId,
};
use tracing::{Instrument as _, debug, error, info_span};

use crate::environment;
use crate::keys::{self, Admitted};
use crate::shared::Shared;
use crate::store::{Authority, Change};

/// One route: what it is, and who may call it.
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) takes: Takes,
    handler: MethodRouter<Arc<Shared>>,
}

impl Route {
    pub(crate) fn get<H, T>(path: &'static str, takes: Takes, handler: H) -> Self
    where
        H: Handler<T, Arc<Shared>>,
        T: 'static,
    {
        Self::new(Method::GET, path, takes, on(MethodFilter::GET, handler))
    }

    pub(crate) fn post<H, T>(path: &'static str, takes: Takes, handler: H) -> Self
    where
        H: Handler<T, Arc<Shared>>,
        T: 'static,
    {
        Self::new(Method::POST, path, takes, on(MethodFilter::POST, handler))
    }

    pub(crate) fn delete<H, T>(path: &'static str, takes: Takes, handler: H) -> Self
    where
        H: Handler<T, Arc<Shared>>,
        T: 'static,
    {
        let handler = on(MethodFilter::DELETE, handler);
        Self::new(Method::DELETE, path, takes, handler)
    }

    const fn new(
        method: Method,
        path: &'static str,
        takes: Takes,
        handler: MethodRouter<Arc<Shared>>,
    ) -> Self {
        Self {
            method,
            path,
            takes,
            handler,
        }
    }

    fn mount(self, router: Router<Arc<Shared>>, shared: &Arc<Shared>) -> Router<Arc<Shared>> {
        let guard = Guard {
            shared: Arc::clone(shared),
            takes: self.takes,
        };
        let handler = self
            .handler
            .route_layer(middleware::from_fn_with_state(guard, guarded));
        router.route(self.path, handler)
    }
}

/// Which credentials a route takes. What they may do beyond that, each effect's own
/// transaction judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Takes {
    /// An API key, or whatever [`Authenticate`](serve::Authenticate) takes, with this permission.
    pub api: Option<Permission>,
    /// The key of an environment's worker.
    pub environment_key: bool,
    /// The token of one claim of a work item.
    pub item_token: bool,
}

impl Takes {
    /// The key of an environment's worker and nothing else.
    pub(crate) const KEY: Self = Self {
        api: None,
        environment_key: true,
        item_token: false,
    };

    /// The token of one claim of a work item and nothing else.
    pub(crate) const ITEM: Self = Self {
        api: None,
        environment_key: false,
        item_token: true,
    };

    pub(crate) const fn api(permission: Permission) -> Self {
        Self {
            api: Some(permission),
            environment_key: false,
            item_token: false,
        }
    }

    pub(crate) const fn or_key(mut self) -> Self {
        self.environment_key = true;
        self
    }

    pub(crate) const fn or_item(mut self) -> Self {
        self.item_token = true;
        self
    }

    /// # Errors
    /// 403, naming what is taken.
    pub(crate) fn require(self, admitted: &Admitted) -> Result<(), ApiError> {
        let (taken, presented) = match (&admitted.caller.authority, self.api) {
            (Authority::Operator { .. }, Some(permission)) => {
                return admitted
                    .permissions
                    .map_or(Ok(()), |principal| require(&principal, permission));
            }
            (Authority::Operator { .. }, None) => (false, "an API key"),
            (Authority::EnvironmentKey { .. }, _) => {
                (self.environment_key, CredentialKind::EnvironmentKey.noun())
            }
            (Authority::Item { .. }, _) => (self.item_token, CredentialKind::ItemToken.noun()),
        };
        if taken {
            return Ok(());
        }
        Err(ApiError::forbidden(format!(
            "this route takes {self}, not {presented}"
        )))
    }
}

fn require(permissions: &serve::Permissions, permission: Permission) -> Result<(), ApiError> {
    if permissions.contains(permission) {
        return Ok(());
    }
    Err(ApiError::forbidden(format!(
        "this credential lacks the permission {permission}: \
         use one that has it, or ask an administrator"
    )))
}

impl fmt::Display for Takes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if let Some(permission) = self.api {
            write!(f, "an API key with {permission}")?;
            separator = " or ";
        }
        if self.environment_key {
            write!(f, "{separator}{}", CredentialKind::EnvironmentKey.noun())?;
            separator = " or ";
        }
        if self.item_token {
            write!(f, "{separator}{}", CredentialKind::ItemToken.noun())?;
        }
        Ok(())
    }
}

/// The router of `routes`: nothing gets in but through them.
pub(crate) fn mount(routes: Vec<Route>, shared: &Arc<Shared>) -> Router<Arc<Shared>> {
    routes
        .into_iter()
        .fold(Router::new(), |router, route| route.mount(router, shared))
}

/// Whoever passed the guard.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) workspace: WorkspaceId,
    pub(crate) address: Option<IpAddr>,
    pub(crate) authority: Authority,
}

impl Caller {
    /// A change that this caller makes now.
    pub(crate) fn change(&self, reason: Option<String>) -> Result<Change, ApiError> {
        let at = environment::now();
        let mut change = Change::new(
            environment::id("audit", at),
            self.workspace.clone(),
            self.actor(),
            at,
        );
        change.address = self.address;
        change.reason = reason
            .map(|reason| checked_text("reason", &reason, REASON_MOST))
            .transpose()?;
        Ok(change)
    }

    /// Its name in the audit and in the log.
    pub(crate) fn actor(&self) -> String {
        match &self.authority {
            Authority::Operator { actor } => actor.clone(),
            Authority::EnvironmentKey { key, .. } => format!("environment_key:{key}"),
            Authority::Item { work, .. } => format!("work:{work}"),
        }
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
    /// `error_code` of that answer.
    const CODE: Option<&'static str> = None;
}

impl Named for EnvironmentId {
    const MISSING: &'static str = "there is no such environment in this workspace";
    const CODE: Option<&'static str> = Some("environment_not_found");
}

impl Named for EnvironmentKeyId {
    const MISSING: &'static str = "there is no such environment with such a key in this workspace";
}

impl Named for AgentId {
    const MISSING: &'static str =
        "there is no such agent in this workspace, or it has no such version";
}

impl Named for SkillId {
    const MISSING: &'static str = "there is no such skill in this workspace";
}

impl Named for SkillVersionId {
    const MISSING: &'static str = "there is no such skill with such a version in this workspace";
}

impl Named for SessionId {
    const MISSING: &'static str = "there is no such session in this workspace";
}

impl Named for ThreadId {
    const MISSING: &'static str = "there is no such session with such a thread in this workspace";
}

impl Named for EventId {
    const MISSING: &'static str = "there is no such session with such an event in this workspace";
}

impl Named for WorkId {
    const MISSING: &'static str =
        "there is no such environment with such a work item in this workspace";
}

pub(crate) fn not_found<T: Named>() -> ApiError {
    let missing = ApiError::not_found(T::MISSING);
    match T::CODE {
        Some(code) => missing.with_code(code),
        None => missing,
    }
}

pub(crate) fn parse<T: Named>(text: Option<&String>) -> Result<T, ApiError> {
    text.and_then(|text| text.parse().ok())
        .ok_or_else(not_found::<T>)
}

#[derive(Clone)]
struct Guard {
    shared: Arc<Shared>,
    takes: Takes,
}

/// The deadline ends with the response's head: a stream may take as long as it likes.
async fn guarded(
    State(guard): State<Guard>,
    params: RawPathParams,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let id = request.extensions().get::<RequestId>();
    let trace = trace_id(request.headers());
    let span = info_span!("request", id = id.map(|id| &*id.0), trace);
    let admitted = admit(guard, params, request, next).instrument(span);
    tokio::time::timeout(DEADLINE, admitted)
        .await
        .unwrap_or_else(|_| {
            Err(ApiError::new(
                ErrorType::Timeout,
                "it took too long; try again",
            ))
        })
}

async fn admit(
    guard: Guard,
    params: RawPathParams,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (mut head, body) = request.into_parts();
    let address = serve::peer_address(&head.extensions);
    let admitted = keys::authenticate(&guard.shared, &head, address).await?;
    check_headers(&head.headers, &admitted.caller.workspace)?;
    guard.takes.require(&admitted)?;
    stay_at_home(&admitted, &params)?;
    guard.shared.limits.admit(&admitted.caller, &head.method)?;
    let caller = admitted.caller;
    debug!(method = %head.method, actor = caller.actor(), "request admitted");
    head.extensions.insert(caller);
    Ok(next.run(Request::from_parts(head, body)).await)
}

/// For a worker there is one environment: any other is as one that is not there.
fn stay_at_home(admitted: &Admitted, params: &RawPathParams) -> Result<(), ApiError> {
    let Some(home) = admitted.environment else {
        return Ok(());
    };
    let named = params.iter().find(|(name, _)| *name == "environment");
    match named {
        Some((_, text)) if text.parse() != Ok(home) => Err(not_found::<EnvironmentId>()),
        _ => Ok(()),
    }
}

/// The versions and betas of the vendor's SDKs are all welcome; what is no version at all
/// is an error of the client that it had better see.
fn check_headers(headers: &HeaderMap, workspace: &WorkspaceId) -> Result<(), ApiError> {
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

/// The trace that the caller continues, for the log: the second field of a W3C
/// `traceparent`. Anything else is ignored, as the recommendation says.
fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut fields = headers.get(headers::TRACE)?.to_str().ok()?.split('-');
    let trace = fields.nth(1)?;
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (trace.len() == 32 && trace.bytes().all(hex)).then_some(trace)
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

/// Longest that a request may take until the head of its answer, reading its body
/// included. A client that sends slowly holds one connection for that long, and no lock.
const DEADLINE: Duration = Duration::from_secs(30);

/// Longest reason, in characters.
const REASON_MOST: usize = 1000;

/// Longest name for people, in characters: the vendor's limit.
pub(crate) const NAME_MOST: usize = 255;

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

    #[test]
    fn what_a_route_takes_is_said() {
        let takes = Takes::api(Permission::SkillsRead).or_key().or_item();
        assert_eq!(
            takes.to_string(),
            "an API key with skills:read or an environment key (mce_…) or an item token (mci_…)"
        );
    }
}
