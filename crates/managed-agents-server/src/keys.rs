//! Who a credential is: the embedder's principal, an environment's worker, one claim.

use std::net::IpAddr;

use http::StatusCode;
use http::request::Parts;
use managed_agents_api::serve::{self, ApiError, Permissions};
use managed_agents_service::workspace_of;
use mcp_tunnel_auth::{
    CredentialKind, EnvironmentId, EnvironmentKey, EnvironmentKeyId, ItemToken, WorkId,
};
use secrecy::ExposeSecret as _;

use crate::failure::answer;
use crate::hooks::{Caller, Takes};
use crate::shared::Shared;
use crate::store::Authority;

/// Whoever presented a good credential.
pub(crate) struct Admitted {
    pub(crate) caller: Caller,
    /// What a principal may do; `None` for workers, whose authority is their credential.
    pub(crate) permissions: Option<Permissions>,
    /// The one environment that a worker knows of.
    pub(crate) environment: Option<EnvironmentId>,
}

/// # Errors
/// 401 where the credential is missing or wrong.
pub(crate) async fn authenticate(
    shared: &Shared,
    head: &Parts,
    address: Option<IpAddr>,
) -> Result<Admitted, ApiError> {
    let presented = serve::bearer(head);
    let text = presented.as_ref().map(|secret| secret.expose_secret());
    match text.map(|text| (text, CredentialKind::recognise(text))) {
        Some((text, Some(CredentialKind::EnvironmentKey))) => {
            environment_key(shared, text, address).await
        }
        Some((text, Some(CredentialKind::ItemToken))) => item_token(shared, text, address).await,
        _ => principal(shared, head, address).await,
    }
}

/// Whether whoever presented `head` may still do what `takes` says, as the same caller. Where that
/// cannot be said now, they may: the next look says it.
pub(crate) async fn still_admits(
    shared: &Shared,
    head: &Parts,
    caller: &Caller,
    takes: Takes,
) -> bool {
    match authenticate(shared, head, caller.address).await {
        Ok(admitted) => {
            admitted.caller.workspace == caller.workspace
                && admitted.caller.authority == caller.authority
                && takes.require(&admitted).is_ok()
        }
        Err(error) => {
            error.status().is_server_error() || error.status() == StatusCode::TOO_MANY_REQUESTS
        }
    }
}

async fn principal(
    shared: &Shared,
    head: &Parts,
    address: Option<IpAddr>,
) -> Result<Admitted, ApiError> {
    let principal = shared.authenticate.authenticate(head, address).await?;
    let workspace = workspace_of(&principal)?;
    Ok(Admitted {
        caller: Caller {
            workspace,
            address,
            authority: Authority::Operator {
                actor: principal.actor,
            },
        },
        permissions: Some(principal.permissions),
        environment: None,
    })
}

/// Looked up at each request: a revoked key is refused at once.
async fn environment_key(
    shared: &Shared,
    text: &str,
    address: Option<IpAddr>,
) -> Result<Admitted, ApiError> {
    let key = EnvironmentKey::parse(text)
        .map_err(|error| ApiError::unauthenticated(error.to_string()))?;
    let known = shared
        .store
        .environment_key(key.hash())
        .await
        .map_err(answer::<EnvironmentKeyId>)?;
    let record = known
        .filter(|record| record.revoked_at.is_none())
        .ok_or_else(|| {
            ApiError::unauthenticated("the environment key is not known here, or was revoked")
        })?;
    Ok(Admitted {
        caller: Caller {
            workspace: record.workspace,
            address,
            authority: Authority::EnvironmentKey {
                key: record.id,
                environment: record.environment,
            },
        },
        permissions: None,
        environment: Some(record.environment),
    })
}

/// Only that the token is one of ours is judged here: whether its claim still stands is
/// judged by the transaction of whatever it is used for.
async fn item_token(
    shared: &Shared,
    text: &str,
    address: Option<IpAddr>,
) -> Result<Admitted, ApiError> {
    let token =
        ItemToken::parse(text).map_err(|error| ApiError::unauthenticated(error.to_string()))?;
    let unknown = || ApiError::unauthenticated("the item token is not one of this server's");
    if !shared.config.made(&token) {
        return Err(unknown());
    }
    let home = shared
        .store
        .item_home(token.work())
        .await
        .map_err(answer::<WorkId>)?
        .ok_or_else(unknown)?;
    Ok(Admitted {
        caller: Caller {
            workspace: home.workspace,
            address,
            authority: Authority::Item {
                work: token.work(),
                epoch: token.epoch(),
            },
        },
        permissions: None,
        environment: Some(home.environment),
    })
}
