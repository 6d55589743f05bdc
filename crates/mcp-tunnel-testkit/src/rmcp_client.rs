//! rmcp as a client, and the HTTP client that tests use by themselves.

use crate::drivers::{Outcome, Target};
use anyhow::{Context, Result};
use http::{HeaderMap, HeaderName, HeaderValue};
use rmcp::{
    model::{CallToolRequestParams, ClientConfig, ProtocolVersion},
    service::{ClientLifecycleMode, ClientServiceExt},
    transport::streamable_http_client::{
        StreamableHttpClientTransport, StreamableHttpClientTransportConfig,
    },
};
use rustls::{RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::{error::Error, path::Path, sync::Arc, time::Duration};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(60);

/// The `initialize` handshake.
#[must_use]
pub fn legacy() -> ClientLifecycleMode {
    ClientLifecycleMode::Initialize
}

/// `server/discover`, no handshake.
#[must_use]
pub fn modern() -> ClientLifecycleMode {
    ClientLifecycleMode::Discover {
        preferred_versions: vec![ProtocolVersion::V_2026_07_28],
    }
}

/// Lists the tools and calls one.
///
/// # Errors
/// The HTTP client cannot be made; what goes wrong on the wire is in the outcome.
pub async fn drive(mode: ClientLifecycleMode, target: &Target) -> Result<Outcome> {
    let client = http_client(target.ca.as_deref(), target.resolve.as_deref(), &target.url)?;
    let called = timeout(DEADLINE, call(client, mode, target)).await;
    Ok(match called.context("rmcp takes too long")? {
        Ok(outcome) => outcome,
        Err(error) => Outcome {
            error: chain(error.as_ref()),
            ..Outcome::default()
        },
    })
}

async fn call(
    client: reqwest::Client,
    mode: ClientLifecycleMode,
    target: &Target,
) -> Result<Outcome, Box<dyn Error + Send + Sync>> {
    let mut config = StreamableHttpClientTransportConfig::with_uri(target.url.as_str());
    for (name, value) in &target.headers {
        let name = HeaderName::from_bytes(name.as_bytes())?;
        config
            .custom_headers
            .insert(name, HeaderValue::from_str(value)?);
    }
    let transport = StreamableHttpClientTransport::with_client(client, config);
    let service = ClientConfig::default()
        .serve_with_lifecycle(transport, mode)
        .await?;
    let tools = service.list_all_tools().await?;
    let mut request = CallToolRequestParams::new(target.tool.clone());
    request.arguments = target.arguments.as_object().cloned();
    let result = service.call_tool(request).await?;
    let text = result.content.iter().filter_map(|block| block.as_text());
    let outcome = Outcome {
        ok: result.is_error != Some(true),
        era: service
            .peer_info()
            .map_or_else(String::new, |peer| peer.protocol_version.to_string()),
        tools: tools
            .into_iter()
            .map(|tool| tool.name.into_owned())
            .collect(),
        text: text.map(|text| text.text.as_str()).collect(),
        ..Outcome::default()
    };
    service.cancel().await?;
    Ok(outcome)
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" | ")
}

/// An HTTP client that trusts `ca` only, and looks `url`'s host up at home if it ends in `resolve`.
///
/// # Errors
/// The certificate cannot be read.
pub fn http_client(ca: Option<&Path>, resolve: Option<&str>, url: &str) -> Result<reqwest::Client> {
    let mut roots = RootCertStore::empty();
    if let Some(ca) = ca {
        for certificate in CertificateDer::pem_file_iter(ca).context("reading the CA")? {
            roots.add(certificate?)?;
        }
    }
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .tls_backend_preconfigured(tls);
    let host = url
        .split("://")
        .nth(1)
        .and_then(|rest| rest.split(['/', ':']).next());
    if let (Some(suffix), Some(host)) = (resolve, host)
        && host.ends_with(suffix)
    {
        builder = builder.resolve(host, ([127, 0, 0, 1], 0).into());
    }
    Ok(builder.default_headers(HeaderMap::new()).build()?)
}
