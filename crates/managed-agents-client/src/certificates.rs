//! Authorities of a tunnel's certificates.

use crate::error::ClientError;
use crate::http::Http;
use crate::tunnels::WithReason;
use managed_agents_api::{CreateCertificate, Page, PageQuery, TunnelCertificate};

/// The routes under `/v1/tunnels/{id}/certificates`.
///
/// Every call can be cancelled; a write may then have been carried out all the same.
#[derive(Clone, Copy, Debug)]
pub struct Certificates<'a> {
    pub(crate) http: &'a Http,
    pub(crate) tunnel_id: &'a str,
}

impl Certificates<'_> {
    /// Registers an authority: one PEM certificate of at most 8 kB. At most two are active at a time.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create(self, ca_certificate_pem: &str) -> Result<TunnelCertificate, ClientError> {
        let body = CreateCertificate {
            ca_certificate_pem: ca_certificate_pem.to_owned(),
        };
        self.http
            .write(&["v1", "tunnels", self.tunnel_id, "certificates"], &body)
            .await
    }

    /// One page of certificates, newest first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn page(self, query: &PageQuery) -> Result<Page<TunnelCertificate>, ClientError> {
        self.http
            .read(&["v1", "tunnels", self.tunnel_id, "certificates"], query)
            .await
    }

    /// One certificate.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn retrieve(self, id: &str) -> Result<TunnelCertificate, ClientError> {
        self.http
            .read(&["v1", "tunnels", self.tunnel_id, "certificates", id], &())
            .await
    }

    /// Withdraws an authority. May be repeated.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn archive(self, id: &str) -> Result<TunnelCertificate, ClientError> {
        let path = [
            "v1",
            "tunnels",
            self.tunnel_id,
            "certificates",
            id,
            "archive",
        ];
        self.http.write(&path, &WithReason { reason: None }).await
    }
}
