//! What happens around every handler: who asks, whether they may, and for how long.
//!
//! ```text
//! request ─► authenticate ─► headers ─► kind, permission ─► rate ─► handler ─► answer
//!               401          400,403          403            429     head within 30 s
//! ```
//!
//! A route exists only through [`Route`], which cannot be made without saying which
//! credentials it takes.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use http::request::Parts;
use managed_agents_api::serve::{self, ApiError, Permission};
use managed_agents_service::{change, check_headers, guarded_caller, in_time, request_span};
use mcp_tunnel_auth::{CredentialKind, EnvironmentId, WorkspaceId};
use tracing::{Instrument as _, debug};

use crate::keys::{self, Admitted};
use crate::shared::Shared;
use crate::store::{Authority, Change};

pub(crate) use managed_agents_service::{Id, Ids, NAME_MOST, Named, checked_text, not_found};

/// One route, and the credentials that it takes.
pub(crate) type Route = managed_agents_service::Route<Arc<Shared>, Takes>;

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
    routes.into_iter().fold(Router::new(), |router, route| {
        let guard = Guard {
            shared: Arc::clone(shared),
            takes: route.needs,
        };
        let guarded = middleware::from_fn_with_state(guard, guarded);
        router.route(route.path, route.handler.route_layer(guarded))
    })
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
        change(&self.workspace, self.actor(), self.address, reason)
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
        guarded_caller(parts)
    }
}

#[derive(Clone)]
struct Guard {
    shared: Arc<Shared>,
    takes: Takes,
}

async fn guarded(
    State(guard): State<Guard>,
    params: RawPathParams,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let span = request_span(&request);
    in_time(admit(guard, params, request, next).instrument(span)).await
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_route_takes_is_said() {
        let takes = Takes::api(Permission::SkillsRead).or_key().or_item();
        assert_eq!(
            takes.to_string(),
            "an API key with skills:read or an environment key (mce_…) or an item token (mci_…)"
        );
    }
}
