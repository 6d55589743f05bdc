//! What an agent does: a real MCP client, and one probe that asks for the time of each hop.

use anyhow::{Context, Result, bail};
use reqwest::header::{HeaderName, HeaderValue};
use rmcp::model::{CallToolRequestParams, ProtocolVersion};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt as _};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use secrecy::{ExposeSecret as _, SecretString};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The header that carries a caller key and leaves `Authorization` to the private server.
const CALLER_KEY: HeaderName = HeaderName::from_static("mcp-tunnel-authorization");

/// Longest wait for any answer of the tour.
const DEADLINE: Duration = Duration::from_secs(15);

/// Where the agent calls, and with what.
pub(crate) struct Target {
    /// `https://ROUTE--TUNNEL.DOMAIN:PORT/mcp`.
    pub(crate) url: String,
    /// Host name of `url`, which no resolver of this machine knows.
    pub(crate) host: String,
    /// Where that host really is.
    pub(crate) ingress: SocketAddr,
    pub(crate) caller_key: SecretString,
}

/// What the client saw.
pub(crate) struct Seen {
    pub(crate) protocol: String,
    pub(crate) tools: Vec<String>,
    pub(crate) answer: String,
    pub(crate) connect: Duration,
    pub(crate) list: Duration,
    pub(crate) call: Duration,
}

/// An HTTP client that trusts the cloud's private authority alone.
///
/// # Errors
/// When `ca` is not a readable certificate.
pub(crate) fn http(ca: &Path, target: &Target) -> Result<reqwest::Client> {
    let authority =
        CertificateDer::from_pem_file(ca).with_context(|| format!("reading {}", ca.display()))?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .resolve(&target.host, target.ingress)
        .no_proxy()
        .build()?;
    Ok(client)
}

/// Connects, lists the tools and calls `add`.
pub(crate) async fn call(client: reqwest::Client, target: &Target) -> Result<Seen> {
    let config = StreamableHttpClientTransportConfig::with_uri(target.url.as_str())
        .custom_headers(HashMap::from([(CALLER_KEY, bearer(target)?)]));
    let transport = StreamableHttpClientTransport::with_client(client, config);
    let lifecycle = ClientLifecycleMode::Auto {
        preferred_versions: vec![ProtocolVersion::V_2026_07_28],
        legacy_version: None,
    };
    let began = Instant::now();
    let service = within("connecting", ().serve_with_lifecycle(transport, lifecycle)).await?;
    let connect = began.elapsed();
    let began = Instant::now();
    let tools = within("tools/list", service.list_all_tools()).await?;
    let list = began.elapsed();
    let mut params = CallToolRequestParams::new("add");
    params.arguments = serde_json::json!({ "a": 19, "b": 23 }).as_object().cloned();
    let began = Instant::now();
    let result = within("tools/call", service.call_tool(params)).await?;
    let call = began.elapsed();
    let answer = result
        .content
        .iter()
        .find_map(|part| part.as_text())
        .context("an answer in text")?;
    let protocol = service
        .peer_info()
        .map(|info| info.protocol_version.to_string());
    let seen = Seen {
        protocol: protocol.unwrap_or_default(),
        tools: tools.iter().map(|tool| tool.name.to_string()).collect(),
        answer: answer.text.clone(),
        connect,
        list,
        call,
    };
    service.cancel().await?;
    Ok(seen)
}

/// One call that asks the tunnel to report its hops; answers (hop, milliseconds).
pub(crate) async fn probe(client: &reqwest::Client, target: &Target) -> Result<Vec<(String, f64)>> {
    let version = "2026-07-28";
    let body = serde_json::json!({
        "jsonrpc": "2.0", "id": 1, "method": "server/discover",
        "params": { "_meta": {
            "io.modelcontextprotocol/protocolVersion": version,
            "io.modelcontextprotocol/clientCapabilities": {},
        } },
    });
    let request = client
        .post(&target.url)
        .header(CALLER_KEY, bearer(target)?)
        .header("mcp-tunnel-probe", "1")
        .header("mcp-protocol-version", version)
        .header("mcp-method", "server/discover")
        .header("accept", "application/json, text/event-stream")
        .json(&body);
    let response = within("the probe", request.send()).await?;
    let status = response.status();
    if !status.is_success() {
        bail!(
            "the probe was answered with {status}: {}",
            response.text().await?
        );
    }
    let header = response
        .headers()
        .get("server-timing")
        .context("a Server-Timing header")?;
    Ok(header.to_str()?.split(',').filter_map(hop).collect())
}

/// One metric of Server-Timing: `name;dur=1.25`.
fn hop(metric: &str) -> Option<(String, f64)> {
    let (name, parameters) = metric.trim().split_once(';')?;
    let duration = parameters
        .split(';')
        .find_map(|parameter| parameter.trim().strip_prefix("dur="))?;
    Some((name.to_owned(), duration.parse().ok()?))
}

fn bearer(target: &Target) -> Result<HeaderValue> {
    let mut value =
        HeaderValue::from_str(&format!("Bearer {}", target.caller_key.expose_secret()))?;
    value.set_sensitive(true);
    Ok(value)
}

async fn within<T, E>(what: &str, work: impl Future<Output = Result<T, E>>) -> Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let done = tokio::time::timeout(DEADLINE, work).await;
    done.with_context(|| format!("{what}: no answer within {DEADLINE:?}"))?
        .with_context(|| what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_timing_is_read_hop_by_hop() {
        let read = |header: &str| header.split(',').filter_map(hop).collect::<Vec<_>>();
        let expected = vec![("edge".to_owned(), 0.25), ("server".to_owned(), 3.0)];
        assert_eq!(
            read("edge;dur=0.25, server;desc=\"x\";dur=3, other"),
            expected
        );
    }
}
