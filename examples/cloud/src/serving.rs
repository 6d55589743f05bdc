//! What a running cloud tells its administration about itself: a file in the data folder.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where a running cloud can be reached. Nothing in it is secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Serving {
    /// The REST API.
    pub(crate) base_url: String,
    /// What gateways dial, `HOST:PORT`.
    pub(crate) edge: String,
    /// Where callers come in, by address: `https://127.0.0.1:8443`.
    pub(crate) ingress: String,
    /// The same, to be dialled.
    pub(crate) ingress_address: SocketAddr,
    /// Tunnels are names below this one.
    pub(crate) domain: String,
    /// PEM file of the private CA that vouches for its certificates, if one does.
    pub(crate) roots: Option<PathBuf>,
}

impl Serving {
    pub(crate) const FILE: &str = "serving.json";

    pub(crate) fn read(folder: &Path) -> Option<Self> {
        let text = std::fs::read(folder.join(Self::FILE)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// The URL of a server behind a tunnel: by host name where names of that domain can be
    /// resolved, else by path.
    pub(crate) fn url(&self, tunnel_id: &str, tunnel_domain: &str, route: &str) -> String {
        if self.domain.ends_with("localhost") {
            return format!("{}/t/{tunnel_id}/{route}/mcp", self.ingress);
        }
        let port = match self.ingress_address.port() {
            443 => String::new(),
            port => format!(":{port}"),
        };
        format!("https://{route}--{tunnel_domain}{port}/mcp")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_do_not_resolve_give_way_to_paths() {
        let mut serving = Serving {
            base_url: String::new(),
            edge: String::new(),
            ingress: "https://127.0.0.1:8443".into(),
            ingress_address: ([127, 0, 0, 1], 8443).into(),
            domain: "tunnel.localhost".into(),
            roots: None,
        };
        let path = serving.url("tnl_1", "k7.tunnel.localhost", "docs");
        assert_eq!(path, "https://127.0.0.1:8443/t/tnl_1/docs/mcp");
        serving.domain = "example.com".into();
        let host = serving.url("tnl_1", "k7.example.com", "docs");
        assert_eq!(host, "https://docs--k7.example.com:8443/mcp");
        serving.ingress_address.set_port(443);
        let host = serving.url("tnl_1", "k7.example.com", "docs");
        assert_eq!(host, "https://docs--k7.example.com/mcp");
    }
}
