//! Gateways of a tunnel.

use crate::error::ClientError;
use crate::http::Http;
use crate::tunnels::WithReason;
use managed_agents_api::{Page, PageQuery, TunnelConnection};
use serde::Serialize;

/// The routes under `/v1/tunnels/{id}/connections`.
///
/// Every call can be cancelled; a write may then have been carried out all the same.
#[derive(Clone, Copy, Debug)]
pub struct Connections<'a> {
    pub(crate) http: &'a Http,
    pub(crate) tunnel_id: &'a str,
}

#[derive(Serialize)]
struct Approve<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway_key_fingerprint: Option<&'a str>,
}

impl Connections<'_> {
    /// Every gateway of the tunnel, newest first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn list(self) -> Result<Vec<TunnelConnection>, ClientError> {
        let mut query = PageQuery::default();
        let mut connections = Vec::new();
        loop {
            let page: Page<TunnelConnection> = self.http.read(&self.path(&[]), &query).await?;
            connections.extend(page.data);
            match page.next_page {
                Some(next) => query.page = Some(next),
                None => return Ok(connections),
            }
        }
    }

    /// Approves a gateway's key before its first contact.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn approve_key(self, fingerprint: &str) -> Result<TunnelConnection, ClientError> {
        self.http
            .write(
                &self.path(&[]),
                &Approve {
                    gateway_key_fingerprint: Some(fingerprint),
                },
            )
            .await
    }

    /// Lets a gateway carry traffic; with a `fingerprint`, only if its key has that one.
    ///
    /// # Errors
    /// See [`ClientError`]; status 409 when the fingerprint differs.
    pub async fn approve(
        self,
        id: &str,
        fingerprint: Option<&str>,
    ) -> Result<TunnelConnection, ClientError> {
        self.http
            .write(
                &self.path(&[id, "approve"]),
                &Approve {
                    gateway_key_fingerprint: fingerprint,
                },
            )
            .await
    }

    /// Refuses a gateway, or withdraws its approval; its links are cut.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn refuse(
        self,
        id: &str,
        reason: Option<&str>,
    ) -> Result<TunnelConnection, ClientError> {
        self.http
            .write(&self.path(&[id, "refuse"]), &WithReason { reason })
            .await
    }

    /// Cuts a gateway's links; an approved one may come back at once.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn disconnect(
        self,
        id: &str,
        reason: Option<&str>,
    ) -> Result<TunnelConnection, ClientError> {
        self.http
            .write(&self.path(&[id, "disconnect"]), &WithReason { reason })
            .await
    }

    fn path<'p>(&'p self, rest: &[&'p str]) -> Vec<&'p str> {
        [&["v1", "tunnels", self.tunnel_id, "connections"], rest].concat()
    }
}
