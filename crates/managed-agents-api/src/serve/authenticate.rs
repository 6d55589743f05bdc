//! Who asks, and what they may do.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use async_trait::async_trait;
use axum::extract::ConnectInfo;
use http::Extensions;
use http::header::AUTHORIZATION;
use http::request::Parts;
use secrecy::SecretString;

use super::ApiError;
use crate::headers;

/// Turns the head of a request into whoever makes it.
///
/// The one way for a program with users of its own to let them use this API: a
/// session cookie, a token of an identity provider, a client certificate.
///
/// ```
/// use std::net::IpAddr;
/// use managed_agents_api::serve::{ApiError, Authenticate, Permissions, Principal, bearer};
///
/// struct Staff;
///
/// #[async_trait::async_trait]
/// impl Authenticate for Staff {
///     async fn authenticate(
///         &self,
///         head: &http::request::Parts,
///         _peer: Option<IpAddr>,
///     ) -> Result<Principal, ApiError> {
///         let _token = bearer(head).ok_or_else(|| ApiError::unauthenticated("log in first"))?;
///         // … ask the identity provider who that is …
///         Ok(Principal::new("user:ada", "wrkspc_staff", Permissions::all()))
///     }
/// }
/// ```
#[async_trait]
pub trait Authenticate: Send + Sync + 'static {
    /// Judges one request, before its body is read.
    ///
    /// # Errors
    /// 401 ([`ApiError::unauthenticated`]) where the credential is missing or wrong.
    ///
    /// # Cancel safety
    /// The future is dropped when the client goes away.
    async fn authenticate(&self, head: &Parts, peer: Option<IpAddr>)
    -> Result<Principal, ApiError>;
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Principal {
    /// Name in the audit: `api_key:akey_…`, `user:ada`.
    pub actor: String,
    /// The workspace that everything they see and make belongs to.
    pub workspace: String,
    /// What they may do in it.
    pub permissions: Permissions,
}

impl Principal {
    /// `actor`, who may do what `permissions` say in `workspace`.
    pub fn new(
        actor: impl Into<String>,
        workspace: impl Into<String>,
        permissions: Permissions,
    ) -> Self {
        Self {
            actor: actor.into(),
            workspace: workspace.into(),
            permissions,
        }
    }

    /// # Errors
    /// 403, naming what is missing.
    pub fn require(&self, permission: Permission) -> Result<(), ApiError> {
        if self.permissions.contains(permission) {
            return Ok(());
        }
        Err(ApiError::forbidden(format!(
            "this credential lacks the permission {permission}: \
             use one that has it, or ask an administrator"
        )))
    }
}

/// One thing that a principal may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Permission {
    /// See tunnels, certificates, connections, settings.
    TunnelsRead,
    /// Create, change and archive tunnels; reveal and rotate their tokens.
    TunnelsManage,
    /// Let gateways in, and refuse them.
    ConnectionsApprove,
    /// See, make and revoke the keys of callers.
    CallerKeysManage,
    /// See who did what, and from where.
    AuditRead,
    /// See agents and their versions.
    AgentsRead,
    /// Create, change and archive agents.
    AgentsManage,
    /// See environments, the names of their keys and the state of their queues.
    EnvironmentsRead,
    /// Create, change, archive and delete environments; stop and label their work.
    EnvironmentsManage,
    /// Make and revoke the keys of environments' workers.
    EnvironmentKeysManage,
    /// See skills and their files.
    SkillsRead,
    /// Create and delete skills and their versions.
    SkillsManage,
    /// See sessions, their events and threads.
    SessionsRead,
    /// Create, change and end sessions; send events to them.
    SessionsManage,
}

impl Permission {
    /// Every permission.
    pub const ALL: [Self; 14] = [
        Self::TunnelsRead,
        Self::TunnelsManage,
        Self::ConnectionsApprove,
        Self::CallerKeysManage,
        Self::AuditRead,
        Self::AgentsRead,
        Self::AgentsManage,
        Self::EnvironmentsRead,
        Self::EnvironmentsManage,
        Self::EnvironmentKeysManage,
        Self::SkillsRead,
        Self::SkillsManage,
        Self::SessionsRead,
        Self::SessionsManage,
    ];

    /// Its name in rows and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TunnelsRead => "tunnels:read",
            Self::TunnelsManage => "tunnels:manage",
            Self::ConnectionsApprove => "connections:approve",
            Self::CallerKeysManage => "caller_keys:manage",
            Self::AuditRead => "audit:read",
            Self::AgentsRead => "agents:read",
            Self::AgentsManage => "agents:manage",
            Self::EnvironmentsRead => "environments:read",
            Self::EnvironmentsManage => "environments:manage",
            Self::EnvironmentKeysManage => "environment_keys:manage",
            Self::SkillsRead => "skills:read",
            Self::SkillsManage => "skills:manage",
            Self::SessionsRead => "sessions:read",
            Self::SessionsManage => "sessions:manage",
        }
    }

    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A set of permissions, written as names with spaces between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Permissions(u32);

impl Permissions {
    /// None at all.
    #[must_use]
    pub const fn none() -> Self {
        Self(0)
    }

    /// Every one that this version knows.
    #[must_use]
    pub fn all() -> Self {
        Permission::ALL.into_iter().collect()
    }

    /// Whether `permission` is among them.
    #[must_use]
    pub const fn contains(self, permission: Permission) -> bool {
        self.0 & permission.bit() != 0
    }

    /// These and `permission`.
    #[must_use]
    pub const fn with(self, permission: Permission) -> Self {
        Self(self.0 | permission.bit())
    }

    /// These without `permission`.
    #[must_use]
    pub const fn without(self, permission: Permission) -> Self {
        Self(self.0 & !permission.bit())
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        permissions.into_iter().fold(Self::none(), Self::with)
    }
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for permission in Permission::ALL {
            if self.contains(permission) {
                write!(f, "{separator}{permission}")?;
                separator = " ";
            }
        }
        Ok(())
    }
}

impl FromStr for Permissions {
    type Err = std::convert::Infallible;

    /// Names that this version does not know grant nothing.
    fn from_str(names: &str) -> Result<Self, Self::Err> {
        Ok(names
            .split_ascii_whitespace()
            .filter_map(|name| Permission::ALL.into_iter().find(|p| p.as_str() == name))
            .collect())
    }
}

/// The credential of a request: `x-api-key`, or `authorization: Bearer`.
#[must_use]
pub fn bearer(head: &Parts) -> Option<SecretString> {
    let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    text(headers::API_KEY)
        .or_else(|| {
            let (scheme, token) = text(AUTHORIZATION.as_str())?.split_once(' ')?;
            scheme
                .eq_ignore_ascii_case("bearer")
                .then_some(token.trim())
        })
        .filter(|token| !token.is_empty())
        .map(SecretString::from)
}

/// The address that a request came from, where the listener says it: the
/// [`ConnectInfo`] of `into_make_service_with_connect_info`.
#[must_use]
pub fn peer_address(extensions: &Extensions) -> Option<IpAddr> {
    let ConnectInfo(address) = extensions.get::<ConnectInfo<SocketAddr>>()?;
    Some(address.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[track_caller]
    fn credential(name: &str, value: &str) -> Option<String> {
        let (head, ()) = http::Request::builder()
            .header(name, value)
            .body(())
            .unwrap()
            .into_parts();
        bearer(&head).map(|secret| secret.expose_secret().to_owned())
    }

    #[test]
    fn both_headers_carry_a_credential() {
        assert_eq!(credential("x-api-key", "k").as_deref(), Some("k"));
        assert_eq!(
            credential("authorization", "Bearer k").as_deref(),
            Some("k")
        );
        assert_eq!(
            credential("authorization", "bearer  k").as_deref(),
            Some("k")
        );
        assert_eq!(credential("authorization", "Basic k"), None);
        assert_eq!(credential("x-api-key", ""), None);
    }

    #[test]
    fn permissions_are_written_by_name() {
        let some = Permissions::none()
            .with(Permission::TunnelsRead)
            .with(Permission::ConnectionsApprove);
        assert_eq!(some.to_string(), "tunnels:read connections:approve");
        assert_eq!(some.to_string().parse(), Ok(some));
        assert_eq!(
            "tunnels:read later:thing".parse(),
            Ok(Permissions::none().with(Permission::TunnelsRead))
        );
        assert!(
            !Permissions::all()
                .without(Permission::TunnelsManage)
                .contains(Permission::TunnelsManage)
        );
    }

    #[test]
    fn a_missing_permission_is_named() {
        let nobody = Principal::new("user:ada", "wrkspc_1", Permissions::none());
        let refused = nobody.require(Permission::ConnectionsApprove).unwrap_err();
        assert_eq!(refused.status().as_u16(), 403);
        assert!(refused.message().contains("connections:approve"));
    }
}
