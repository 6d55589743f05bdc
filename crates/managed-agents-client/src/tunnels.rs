//! Tunnels, their tokens and settings.

use crate::error::ClientError;
use crate::http::Http;
use managed_agents_api::{
    CreateTunnel, Page, PageQuery, Tunnel, TunnelSettings, TunnelToken, UpdateSettings,
};
use serde::Serialize;

/// The routes under `/v1/tunnels`.
///
/// Every call can be cancelled; a write may then have been carried out all the same.
#[derive(Clone, Copy, Debug)]
pub struct Tunnels<'a> {
    pub(crate) http: &'a Http,
}

/// Body of a write whose only member is a text for the audit.
#[derive(Serialize)]
pub(crate) struct WithReason<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'a str>,
}

impl Tunnels<'_> {
    /// Makes a tunnel; `display_name` has 1 to 255 characters. Not idempotent.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create(self, display_name: Option<&str>) -> Result<Tunnel, ClientError> {
        let body = CreateTunnel {
            display_name: display_name.map(str::to_owned),
        };
        self.http.write(&["v1", "tunnels"], &body).await
    }

    /// One page of tunnels, newest first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn page(self, query: &PageQuery) -> Result<Page<Tunnel>, ClientError> {
        self.http.read(&["v1", "tunnels"], query).await
    }

    /// Every tunnel that is not archived, newest first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn list(self) -> Result<Vec<Tunnel>, ClientError> {
        let mut query = PageQuery::default();
        let mut tunnels = Vec::new();
        loop {
            let page = self.page(&query).await?;
            tunnels.extend(page.data);
            match page.next_page {
                Some(next) => query.page = Some(next),
                None => return Ok(tunnels),
            }
        }
    }

    /// One tunnel.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn retrieve(self, id: &str) -> Result<Tunnel, ClientError> {
        self.http.read(&["v1", "tunnels", id], &()).await
    }

    /// Ends a tunnel for ever: its name, certificates, token and links with it. May be repeated.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn archive(self, id: &str) -> Result<Tunnel, ClientError> {
        self.http
            .write(
                &["v1", "tunnels", id, "archive"],
                &WithReason { reason: None },
            )
            .await
    }

    /// The token that gateways of this tunnel present; the same value until it is rotated.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn reveal_token(self, id: &str) -> Result<TunnelToken, ClientError> {
        self.http
            .write(
                &["v1", "tunnels", id, "reveal_token"],
                &WithReason { reason: None },
            )
            .await
    }

    /// Draws a new token; the old one opens no link any more.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn rotate_token(
        self,
        id: &str,
        reason: Option<&str>,
    ) -> Result<TunnelToken, ClientError> {
        self.http
            .write(
                &["v1", "tunnels", id, "rotate_token"],
                &WithReason { reason },
            )
            .await
    }

    /// Changes who approves gateways and who authenticates callers; members that are `None` stay.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn update_settings(
        self,
        id: &str,
        settings: &UpdateSettings,
    ) -> Result<TunnelSettings, ClientError> {
        self.http
            .write(&["v1", "tunnels", id, "settings"], settings)
            .await
    }
}
