//! What was asked for, checked, and what follows from it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use mcp_tunnel_auth::HostName;

use super::certificates::Certificates;
use super::listen::Listeners;
use crate::args::{ServeArgs, is_loopback};
use crate::failure::Failure;
use crate::serving::Serving;

/// Where everything is, once the listeners have their ports.
#[derive(Debug)]
pub(super) struct Plan {
    rest: SocketAddr,
    edge: SocketAddr,
    ingress: SocketAddr,
    dev: Vec<SocketAddr>,
    domain: String,
    pub(super) public_edge: (HostName, u16),
    pub(super) ca_pin: Option<[u8; 32]>,
    pub(super) edge_name: Option<HostName>,
    roots: Option<PathBuf>,
    /// A name that the certificate covers.
    name: HostName,
}

/// Refuses what would not be safe, before anything is made or bound.
pub(super) fn check(args: &ServeArgs) -> Result<(), Failure> {
    if !is_loopback(args.listen.ip()) && args.tls_cert.is_none() {
        return Err(Failure::wrong(
            format_args!(
                "--listen {} is reachable from outside without a certificate",
                args.listen
            ),
            "give --tls-cert and --tls-key, or listen on 127.0.0.1",
        ));
    }
    if args.auto_approve && !is_loopback(args.edge_listen.ip()) {
        return Err(Failure::wrong(
            format_args!(
                "--auto-approve with --edge-listen {} lets in whoever gets hold of a token",
                args.edge_listen
            ),
            "leave --auto-approve out and approve each gateway, or listen on 127.0.0.1",
        ));
    }
    if args.edge_listen.ip().is_unspecified() && args.public_edge.is_none() {
        return Err(Failure::wrong(
            format_args!("no gateway can dial {}", args.edge_listen.ip()),
            "say what they dial: --public-edge HOST:PORT",
        ));
    }
    Ok(())
}

impl Plan {
    pub(super) fn new(
        args: &ServeArgs,
        listeners: &Listeners,
        certificates: &Certificates,
    ) -> Result<Self, Failure> {
        let edge = listeners.edge();
        let public_edge = match &args.public_edge {
            Some(public) => (public.host.clone(), public.port),
            None => {
                let host = HostName::parse(&edge.ip().to_string()).map_err(Failure::internal)?;
                (host, edge.port())
            }
        };
        let edge_name = certificates.edge_name(&args.domain, &public_edge.0)?;
        Ok(Self {
            rest: listeners.rest(),
            edge,
            ingress: listeners.ingress(),
            dev: listeners.dev(),
            domain: args.domain.to_string(),
            public_edge,
            ca_pin: certificates.ca_pin(),
            name: edge_name.clone().unwrap_or_else(|| args.domain.edge()),
            edge_name,
            roots: certificates.private_roots().map(Path::to_owned),
        })
    }

    /// The one line that says that everything is up.
    pub(super) fn ready_line(&self) -> String {
        let mut line = format!(
            "ready api={} edge={} ingress=https://{}",
            self.base_url(),
            self.edge,
            self.ingress
        );
        for dev in &self.dev {
            line.push_str(&format!(" dev=http://{dev}"));
        }
        line
    }

    pub(super) fn serving(&self) -> Serving {
        let (host, port) = &self.public_edge;
        let absolute = |file: &PathBuf| std::path::absolute(file).unwrap_or_else(|_| file.clone());
        Serving {
            base_url: self.base_url(),
            edge: format!("{host}:{port}"),
            ingress: format!("https://{}", reachable(self.ingress)),
            ingress_address: reachable(self.ingress),
            domain: self.domain.clone(),
            roots: self.roots.as_ref().map(absolute),
        }
    }

    fn base_url(&self) -> String {
        if is_loopback(self.rest.ip()) {
            return format!("http://{}", self.rest);
        }
        match self.rest.port() {
            443 => format!("https://{}", self.name),
            port => format!("https://{}:{port}", self.name),
        }
    }
}

/// An address that this host itself can call, where the listener takes all of them.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
