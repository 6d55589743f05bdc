//! What a connector is made of, and the trust that follows from it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mcp_dial_guard::Policy;
use mcp_tunnel_auth::{
    Announcement, AnnouncementError, Fingerprint, GatewayKey, TokenError, TunnelId, TunnelToken,
};
use mcp_tunnel_transport::tls::{self, TlsConfigError, Trust};
use mcp_tunnel_transport::{EdgeAddress, EdgeHost, Target, TargetError};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::server::{Scheme, ServerSet};
use crate::upstream::dial::Dialler;

/// The MCP servers of a gateway, and how they may be reached.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    set: ServerSet,
    roots: Vec<CertificateDer<'static>>,
    policy: Policy,
    pub(crate) answer_deadline: Duration,
    dial_deadline: Duration,
}

impl ServerConfig {
    /// The servers of `set`, with the defaults that each setter names.
    #[must_use]
    pub fn new(set: ServerSet) -> Self {
        Self {
            set,
            roots: Vec::new(),
            policy: Policy::mcp_server(),
            answer_deadline: ANSWER_DEADLINE,
            dial_deadline: DIAL_DEADLINE,
        }
    }

    /// Trusts these authorities beside the system's; none unless set.
    #[must_use]
    pub fn with_roots(mut self, roots: Vec<CertificateDer<'static>>) -> Self {
        self.roots = roots;
        self
    }

    /// Which addresses servers may have; loopback, private, and public ones over https unless set.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// How long a server may take to begin an answer: 10 min unless set, since tools may work that long.
    ///
    /// A call whose edge asks for less gets less. A caller that waits holds one stream and one server connection.
    #[must_use]
    pub fn with_answer_deadline(mut self, deadline: Duration) -> Self {
        self.answer_deadline = deadline;
        self
    }

    /// How long resolving, connecting and the TLS handshake may take, each: 10 s unless set.
    #[must_use]
    pub fn with_dial_deadline(mut self, deadline: Duration) -> Self {
        self.dial_deadline = deadline;
        self
    }

    /// The servers.
    #[must_use]
    pub fn set(&self) -> &ServerSet {
        &self.set
    }

    pub(crate) fn dialler(&self) -> Result<Dialler, ConfigError> {
        Ok(Dialler::new(
            self.policy.clone(),
            self.tls()?,
            self.dial_deadline,
        ))
    }

    /// The system's authorities are read only where a server needs them: a store takes a megabyte.
    fn tls(&self) -> Result<Arc<ClientConfig>, ConfigError> {
        let mut roots = RootCertStore::empty();
        if self
            .set
            .iter()
            .any(|(_, server)| server.target().scheme() == Scheme::Https)
        {
            roots.add_parsable_certificates(system_roots());
        }
        for root in &self.roots {
            roots
                .add(root.clone())
                .map_err(|source| ConfigError::ServerRoot { source })?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|source| ConfigError::ServerTls { source })?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// Everything that a connector needs; the token says which edge and tunnel.
#[derive(Debug)]
pub struct ConnectorConfig {
    pub(crate) token: TunnelToken,
    pub(crate) key: GatewayKey,
    pub(crate) servers: ServerConfig,
    edge: Option<EdgeAddress>,
    edge_roots: Option<Vec<CertificateDer<'static>>>,
    version: String,
    pub(crate) drain_deadline: Duration,
    pub(crate) link_keep: Duration,
}

impl ConnectorConfig {
    /// The tunnel and edge of `token`, this gateway's own `key`, and the `servers` to expose.
    #[must_use]
    pub fn new(token: TunnelToken, key: GatewayKey, servers: ServerConfig) -> Self {
        Self {
            token,
            key,
            servers,
            edge: None,
            edge_roots: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            drain_deadline: DRAIN_DEADLINE,
            link_keep: LINK_KEEP,
        }
    }

    /// Dials the edge at another address than the token says; its certificate must still carry the token's name.
    #[must_use]
    pub fn with_edge(mut self, edge: EdgeAddress) -> Self {
        self.edge = Some(edge);
        self
    }

    /// Trusts these authorities for the edge, in place of the system's or the one that the token pins.
    #[must_use]
    pub fn with_edge_roots(mut self, roots: Vec<CertificateDer<'static>>) -> Self {
        self.edge_roots = Some(roots);
        self
    }

    /// The version that administrators see; that of this crate unless set. At most 100 printable ASCII characters.
    #[must_use]
    pub fn with_version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// How long running calls may take to finish after a drain begins: 30 s unless set.
    #[must_use]
    pub fn with_drain_deadline(mut self, deadline: Duration) -> Self {
        self.drain_deadline = deadline;
        self
    }

    /// How long calls wait for another connection when that to the edge is lost: 60 s unless set, or less if the edge
    /// says so. Zero fails them at once.
    #[must_use]
    pub fn with_link_keep(mut self, keep: Duration) -> Self {
        self.link_keep = keep;
        self
    }

    /// The tunnel that the token is for.
    #[must_use]
    pub fn tunnel(&self) -> TunnelId {
        self.token.tunnel_id
    }

    /// The fingerprint of this gateway's key, as administrators see it.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.key.public_key().fingerprint()
    }

    /// The servers that are exposed.
    #[must_use]
    pub fn servers(&self) -> &ServerSet {
        self.servers.set()
    }

    /// Where the edge is, and the name that it must prove.
    pub(crate) fn target(&self) -> Result<Target, TargetError> {
        let token = &self.token;
        let address = match &self.edge {
            Some(edge) => edge.clone(),
            None => EdgeAddress::new(EdgeHost::parse(token.edge_host.as_str())?, token.edge_port)?,
        };
        Ok(Target::new(token.edge_name.as_str(), token.edge_port)?.dialled_at(address))
    }

    pub(crate) fn edge_tls(&self) -> Result<Arc<ClientConfig>, TlsConfigError> {
        tls::client_config(match (&self.edge_roots, self.token.ca_pin) {
            (Some(roots), _) => Trust::Roots(roots.clone()),
            (None, Some(pin)) => Trust::PinnedCa(pin),
            (None, None) => Trust::System(system_roots()),
        })
    }

    pub(crate) fn announcement(&self) -> Result<Announcement, AnnouncementError> {
        let routes = self
            .servers()
            .iter()
            .map(|(route, _)| route.clone())
            .collect();
        Announcement::new(&self.version, &host_name(), routes)
    }

    /// The same without routes: an edge sends such a link no call.
    pub(crate) fn routeless_announcement(&self) -> Result<Announcement, AnnouncementError> {
        Announcement::new(&self.version, &host_name(), Vec::new())
    }
}

/// Reads a tunnel token from a file, blanks around it aside.
///
/// # Errors
///
/// [`TokenFileError`]; no part of the content is in it.
pub fn read_token(path: &Path) -> Result<TunnelToken, TokenFileError> {
    let text = std::fs::read(path).map_err(|source| TokenFileError::Read {
        path: path.to_owned(),
        source,
    })?;
    // A file that is no text is no token either, and is recognised by its beginning.
    let token = TunnelToken::parse(&String::from_utf8_lossy(&text));
    token.map_err(|source| TokenFileError::Token {
        path: path.to_owned(),
        source,
    })
}

/// Reads the certificates of a PEM file, at least one.
///
/// # Errors
///
/// [`RootsError`] when it cannot be read or holds none.
pub fn read_roots(path: &Path) -> Result<Vec<CertificateDer<'static>>, RootsError> {
    let failed = |source| RootsError::Read {
        path: path.to_owned(),
        source,
    };
    let roots: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(failed)?
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    if roots.is_empty() {
        return Err(RootsError::Empty {
            path: path.to_owned(),
        });
    }
    Ok(roots)
}

/// Why a configuration makes no connector.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The edge's address or name cannot be dialled.
    #[error("the edge of the token")]
    Edge(#[from] TargetError),
    /// No TLS with the edge: mostly no usable authority.
    #[error("TLS with the edge")]
    EdgeTls(#[from] TlsConfigError),
    /// An authority for MCP servers is not usable.
    #[error("an authority for MCP servers is not usable")]
    ServerRoot {
        /// What the parser said.
        #[source]
        source: rustls::Error,
    },
    /// The crypto provider has no TLS for MCP servers.
    #[error("TLS with MCP servers")]
    ServerTls {
        /// What it said.
        #[source]
        source: rustls::Error,
    },
    /// The routes do not fit a credential.
    #[error("the routes")]
    Announcement(#[from] AnnouncementError),
}

/// Why a token file gives no token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenFileError {
    /// It cannot be read.
    #[error("reading the token file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// Its content is no token.
    #[error("the token file {}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        #[source]
        source: TokenError,
    },
}

/// Why a file gives no authorities.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootsError {
    /// It cannot be read, or is damaged.
    #[error("reading the certificates in {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// It holds no certificate.
    #[error("no certificate in {}: give a file that has -----BEGIN CERTIFICATE-----", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// Those that cannot be parsed are passed over: system stores often hold a few.
fn system_roots() -> Vec<CertificateDer<'static>> {
    rustls_native_certs::load_native_certs().certs
}

/// What this machine calls itself, as far as it fits an announcement.
fn host_name() -> String {
    let name = rustix::system::uname();
    let printable = |c: &char| (' '..='~').contains(c);
    name.nodename()
        .to_string_lossy()
        .chars()
        .filter(printable)
        .take(100)
        .collect()
}

const ANSWER_DEADLINE: Duration = Duration::from_secs(600);
const DIAL_DEADLINE: Duration = Duration::from_secs(10);
const DRAIN_DEADLINE: Duration = Duration::from_secs(30);
/// How long calls wait for another connection, unless configured.
const LINK_KEEP: Duration = Duration::from_secs(60);
