//! The default `Authenticate`: API keys of the console's own, kept as hashes.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use http::request::Parts;
use managed_agents_api::serve::{self, ApiError, Authenticate, Permissions, Principal};
use mcp_tunnel_auth::{ApiKey, ApiKeyId, WorkspaceId};
use secrecy::ExposeSecret as _;

use crate::environment::{self, entropy, unix_ms};
use crate::failure;
use crate::store::{ApiKeyRecord, Change, NewApiKey, StoreError, TunnelStore};

/// Authenticates by API keys (`mca_…`) whose hashes are in the store.
pub struct ApiKeys {
    store: Arc<dyn TunnelStore>,
}

impl ApiKeys {
    /// The keys of `store`.
    #[must_use]
    pub fn new(store: Arc<dyn TunnelStore>) -> Self {
        Self { store }
    }

    /// Makes `key` known, unless it is: the first start of a program draws a key, keeps it
    /// in a file and calls this at every start, so that no order of crashes loses it.
    /// Keys with fewer permissions, such as one that may approve gateways and nothing else,
    /// are made the same way: no route makes API keys, so that none can give itself more.
    ///
    /// # Errors
    /// The store's.
    ///
    /// # Cancel safety
    /// The key is known afterwards, or it is not; calling again is right in both cases.
    pub async fn adopt(
        &self,
        key: &ApiKey,
        workspace: &WorkspaceId,
        name: &str,
        permissions: Permissions,
    ) -> Result<ApiKeyRecord, StoreError> {
        if let Some(record) = self.store.api_key(key.hash()).await? {
            return Ok(record);
        }
        let at = environment::now();
        let new = NewApiKey {
            id: ApiKeyId::new(unix_ms(at), &entropy()),
            hash: key.hash(),
            name: name.to_owned(),
            permissions,
        };
        let change = Change::new(
            environment::id("audit", at),
            workspace.clone(),
            "operator",
            at,
        );
        self.store.create_api_key(&change, new).await
    }
}

impl std::fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiKeys").finish_non_exhaustive()
    }
}

#[async_trait]
impl Authenticate for ApiKeys {
    async fn authenticate(&self, head: &Parts, _: Option<IpAddr>) -> Result<Principal, ApiError> {
        let presented = serve::bearer(head).ok_or_else(|| {
            ApiError::unauthenticated(
                "send an API key (mca_…) in x-api-key or authorization: Bearer",
            )
        })?;
        let key = ApiKey::parse(presented.expose_secret())
            .map_err(|error| ApiError::unauthenticated(error.to_string()))?;
        let known = self
            .store
            .api_key(key.hash())
            .await
            .map_err(failure::answer::<ApiKeyId>)?;
        match known.filter(|record| record.revoked_at.is_none()) {
            Some(record) => Ok(Principal::new(
                format!("api_key:{}", record.id),
                record.workspace.as_str(),
                record.permissions,
            )),
            None => Err(ApiError::unauthenticated(
                "the API key is not known here, or was revoked",
            )),
        }
    }
}
