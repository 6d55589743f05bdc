//! A caller of one server behind a tunnel, on one connection to the ingress.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use managed_agents_api::Tunnel;
use mcp_messages::SseReader;
use mcp_messages::probe::Outgoing;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::admin::{Cloud, certificates};

/// Calls one server.
pub(super) struct Caller {
    sender: SendRequest<Full<Bytes>>,
    address: SocketAddr,
    host: String,
    authority: String,
    key: HeaderValue,
    session: Option<HeaderValue>,
    timings: Vec<(String, String, Duration)>,
    /// Drives the connection for as long as this value lives.
    _connection: JoinSet<()>,
}

/// One answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// One JSON-RPC message; empty if there was none.
    pub(super) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallerError {
    #[error("{0} does not resolve")]
    Resolve(String),
    #[error("no connection to {0}")]
    Connect(SocketAddr, #[source] std::io::Error),
    #[error("the TLS handshake with {0} failed")]
    Tls(SocketAddr, #[source] std::io::Error),
    #[error("the connection broke")]
    Http(#[from] hyper::Error),
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Late,
    #[error("the answer is longer than {ANSWER_MOST} bytes")]
    TooLong,
    #[error("setting TLS up")]
    Setup(#[from] rustls::Error),
    #[error("{0}")]
    Roots(String),
}

impl CallerError {
    /// It, and what it comes from.
    pub(super) fn told(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text.push_str(&format!(": {error}"));
            source = error.source();
        }
        text
    }

    pub(super) fn cure(&self) -> &'static str {
        match self {
            Self::Resolve(_) => "let a wildcard of the domain resolve to the ingress",
            Self::Connect(..) => "see whether the ingress listens there, and what is in between",
            Self::Tls(..) => "use a certificate for *.DOMAIN, or give its CA by --ca-file",
            Self::Http(_) | Self::Late | Self::TooLong => {
                "see the log of mcp-cloud, and of the gateway"
            }
            Self::Setup(_) | Self::Roots(_) => "see --ca-file",
        }
    }
}

impl Caller {
    /// Dials the ingress by the server's own host name: of a cloud on this host without
    /// asking DNS.
    pub(super) async fn connect(
        cloud: &Cloud,
        tunnel: &Tunnel,
        route: &str,
        key: &SecretString,
    ) -> Result<Self, CallerError> {
        let host = format!("{route}--{}", tunnel.domain);
        let address = match &cloud.serving {
            Some(serving) => serving.ingress_address,
            None => resolve(&host).await?,
        };
        let tls = TlsConnector::from(Arc::new(tls_of(cloud)?));
        let name =
            ServerName::try_from(host.clone()).map_err(|_| CallerError::Resolve(host.clone()))?;
        let dial = async {
            let socket = TcpStream::connect(address)
                .await
                .map_err(|error| CallerError::Connect(address, error))?;
            // A socket that is gone already says so when it is used.
            drop(socket.set_nodelay(true));
            tls.connect(name, socket)
                .await
                .map_err(|error| CallerError::Tls(address, error))
        };
        let stream = timeout(DEADLINE, dial)
            .await
            .unwrap_or(Err(CallerError::Late))?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        let mut driver = JoinSet::new();
        driver.spawn(async move { drop(connection.await) });
        let mut key = HeaderValue::try_from(format!("Bearer {}", key.expose_secret()))
            .map_err(|error| CallerError::Roots(error.to_string()))?;
        key.set_sensitive(true);
        Ok(Self {
            sender,
            address,
            authority: match address.port() {
                443 => host.clone(),
                port => format!("{host}:{port}"),
            },
            host,
            key,
            session: None,
            timings: Vec::new(),
            _connection: driver,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// What the first answer that had any said of its hops.
    pub(super) fn take_timings(&mut self) -> Vec<(String, String, Duration)> {
        std::mem::take(&mut self.timings)
    }

    pub(super) async fn ask(&mut self, question: Outgoing) -> Result<Answer, CallerError> {
        let mut request = Request::post("/mcp").header(header::HOST, &self.authority);
        for (name, value) in question.headers {
            request = request.header(name, value);
        }
        if let Some(session) = &self.session {
            request = request.header("mcp-session-id", session);
        }
        let request = request
            .header("mcp-tunnel-authorization", &self.key)
            .header("mcp-tunnel-probe", "1")
            .body(Full::new(Bytes::from(question.body)))
            .map_err(|error| CallerError::Roots(error.to_string()))?;
        timeout(DEADLINE, self.exchange(request))
            .await
            .unwrap_or(Err(CallerError::Late))
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, CallerError> {
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        if self.timings.is_empty() {
            self.timings = timings_of(&head.headers);
        }
        if let Some(session) = head.headers.get("mcp-session-id") {
            self.session = Some(session.clone());
        }
        let body = read_message(&head.headers, body).await?;
        Ok(Answer {
            status: head.status,
            body,
        })
    }
}

async fn resolve(host: &str) -> Result<SocketAddr, CallerError> {
    let none = || CallerError::Resolve(host.to_owned());
    let mut addresses = tokio::net::lookup_host((host, 443))
        .await
        .map_err(|_| none())?;
    addresses.next().ok_or_else(none)
}

fn tls_of(cloud: &Cloud) -> Result<ClientConfig, CallerError> {
    let mut roots = RootCertStore::empty();
    match cloud.roots() {
        Some(file) => {
            let extra =
                certificates(file).map_err(|error| CallerError::Roots(error.to_string()))?;
            roots.add_parsable_certificates(extra);
        }
        None => {
            let system = rustls_native_certs::load_native_certs().certs;
            roots.add_parsable_certificates(system);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// `Server-Timing: edge;dur=0.1, link;dur=3.8;desc="round trip"`: name, text and time of
/// each hop.
fn timings_of(headers: &HeaderMap) -> Vec<(String, String, Duration)> {
    let values = headers.get_all("server-timing").iter();
    let entries = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let mut hops: Vec<_> = entries.filter_map(timing).collect();
    let place = |name: &str| HOPS.iter().position(|(hop, _)| *hop == name);
    hops.sort_by_key(|(name, ..)| place(name).unwrap_or(HOPS.len()));
    hops
}

fn timing(entry: &str) -> Option<(String, String, Duration)> {
    let mut parts = entry.split(';').map(str::trim);
    let name = parts.next()?.to_owned();
    let (mut time, mut text) = (None, String::new());
    for part in parts {
        match part.split_once('=') {
            Some(("dur", value)) => time = value.parse::<f64>().ok(),
            Some(("desc", value)) => value.trim_matches('"').clone_into(&mut text),
            _ => {}
        }
    }
    let time = Duration::try_from_secs_f64(time? / 1e3).ok()?;
    if let (true, Some((_, meaning))) = (text.is_empty(), HOPS.iter().find(|hop| hop.0 == name)) {
        (*meaning).clone_into(&mut text);
    }
    Some((name, text, time))
}

async fn read_message(headers: &HeaderMap, mut body: Incoming) -> Result<Vec<u8>, CallerError> {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .map_or(&[][..], HeaderValue::as_bytes);
    let mut events = kind
        .starts_with(b"text/event-stream")
        .then(|| SseReader::new(ANSWER_MOST));
    let (mut message, mut bytes) = (None, Vec::new());
    // To its end, since the connection carries the next question too.
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        match &mut events {
            Some(reader) => {
                reader.feed(data).map_err(|_| CallerError::TooLong)?;
                while let Some(event) = reader.next_event() {
                    // A stream may begin with an event that only gives it an id.
                    if !event.data.is_empty() {
                        message.get_or_insert_with(|| event.data.into_bytes());
                    }
                }
            }
            None if bytes.len() + data.len() > ANSWER_MOST => return Err(CallerError::TooLong),
            None => bytes.extend_from_slice(data),
        }
    }
    Ok(message.unwrap_or(bytes))
}

/// The hops of our own programs in the order of the way there, and what their times mean.
const HOPS: [(&str, &str); 6] = [
    ("edge", "caller judged, gateway chosen"),
    ("link", "to the gateway and back"),
    ("gateway", "route found, address judged"),
    ("connect", "connected to the MCP server"),
    ("mcp-server", "until the MCP server's answer began"),
    (
        "total",
        "at the edge, from the request to the answer's head",
    ),
];

const DEADLINE: Duration = Duration::from_secs(15);

/// Tool lists of a few hundred kilobytes exist.
const ANSWER_MOST: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_come_in_the_order_of_the_way_there() {
        let mut headers = HeaderMap::new();
        headers.append(
            "server-timing",
            HeaderValue::from_static("gateway;dur=0.1, mcp-server;dur=6.5"),
        );
        headers.append(
            "server-timing",
            HeaderValue::from_static(
                "edge;dur=0.25, total;dur=9, link;dur=3;desc=\"round trip\", odd, worse;dur=x",
            ),
        );
        let hops: Vec<_> = timings_of(&headers);
        let names: Vec<_> = hops.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["edge", "link", "gateway", "mcp-server", "total"]);
        assert_eq!(hops[0].2, Duration::from_micros(250));
        assert_eq!(hops[1].1, "round trip");
    }
}
