//! Listeners: bound before anything is made, served until `stop`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use mcp_tunnel_edge::serve::{ServeError, Server, caller_tls};
use mcp_tunnel_edge::{DevTarget, Edge, Gate, GateConfig};
use mcp_tunnel_transport::{dial::TcpOptions, tls};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::certificates::Certificates;
use super::rest::Rest;
use crate::args::{ServeArgs, is_loopback};
use crate::failure::Failure;

/// Every listener, with its port.
#[derive(Debug)]
pub(super) struct Listeners {
    rest: Bound,
    edge: Bound,
    /// `None` where callers come in at the edge's address.
    ingress: Option<Bound>,
    dev: Vec<(Bound, DevTarget)>,
}

#[derive(Debug)]
struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listeners {
    pub(super) async fn bind(args: &ServeArgs) -> Result<Self, Failure> {
        let ingress = match args.ingress_listen {
            // ALPN tells gateways and callers apart.
            shared if shared == args.edge_listen && shared.port() != 0 => None,
            own => Some(Bound::new("--ingress-listen", own).await?),
        };
        let mut dev = Vec::new();
        for ingress in &args.dev_ingress {
            let bound = Bound::new("--dev-ingress", ingress.listen).await?;
            dev.push((bound, ingress.target.clone()));
        }
        Ok(Self {
            rest: Bound::new("--listen", args.listen).await?,
            edge: Bound::new("--edge-listen", args.edge_listen).await?,
            ingress,
            dev,
        })
    }

    pub(super) fn rest(&self) -> SocketAddr {
        self.rest.address
    }

    pub(super) fn edge(&self) -> SocketAddr {
        self.edge.address
    }

    pub(super) fn ingress(&self) -> SocketAddr {
        self.ingress.as_ref().unwrap_or(&self.edge).address
    }

    pub(super) fn dev(&self) -> Vec<SocketAddr> {
        self.dev.iter().map(|(bound, _)| bound.address).collect()
    }

    /// Serves all of them in `tasks`.
    pub(super) fn serve(
        self,
        rest: Router,
        edge: &Edge,
        certificates: &Certificates,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        let rest = match is_loopback(self.rest.address.ip()) {
            true => Rest::plain(rest),
            false => Rest::tls(rest, certificates.resolver())?,
        };
        let rest = Arc::new(rest);
        self.rest.serve(tasks, stop, move |socket, remote, stop| {
            let rest = Arc::clone(&rest);
            async move { rest.serve(socket, remote, stop).await }
        });
        let server = Server::new(edge.clone(), Gate::new(GateConfig::default()));
        let links = tls::server_config(certificates.resolver()).map_err(Failure::internal)?;
        let callers = caller_tls(certificates.resolver()).map_err(Failure::internal)?;
        let mut gateways = server.clone().with_links(links);
        match self.ingress {
            Some(ingress) => {
                let callers = server.clone().with_callers(callers);
                ingress.serve(tasks, stop, connections_of(callers));
            }
            None => gateways = gateways.with_callers(callers),
        }
        self.edge.serve(tasks, stop, connections_of(gateways));
        for (bound, target) in self.dev {
            let server = server.clone();
            bound.serve(tasks, stop, move |socket, remote, stop| {
                let (server, target) = (server.clone(), target.clone());
                async move { ended(server.serve_dev(socket, remote, target, stop).await, remote) }
            });
        }
        Ok(())
    }
}

/// How the edge serves a connection of gateways or callers.
fn connections_of(
    server: Server,
) -> impl Fn(TcpStream, SocketAddr, CancellationToken) -> Connection + Send + 'static {
    move |socket, remote, stop| {
        let server = server.clone();
        Box::pin(async move { ended(server.serve(socket, remote, stop).await, remote) })
    }
}

type Connection = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Anybody can cause these errors: they are of interest to whoever looks for one.
fn ended(result: Result<(), ServeError>, remote: SocketAddr) {
    if let Err(error) = result {
        debug!(error = %format_args!("{:#}", anyhow::Error::from(error)), %remote, "connection ended");
    }
}

impl Bound {
    async fn new(flag: &str, address: SocketAddr) -> Result<Self, Failure> {
        let bound = async {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok::<_, io::Error>(Self { listener, address })
        };
        bound
            .await
            .with_context(|| format!("listening on {address}"))
            .map_err(|error| Failure::usage(error, format!("choose another address with {flag}")))
    }

    /// Accepts until `stop`, a task for each connection.
    fn serve<F, S>(self, tasks: &TaskTracker, stop: &CancellationToken, serve: S)
    where
        S: Fn(TcpStream, SocketAddr, CancellationToken) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (connections, stop) = (tasks.clone(), stop.clone());
        let tcp = TcpOptions::default().set_user_timeout(STALL);
        tasks.spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = self.listener.accept() => accepted,
                };
                match accepted {
                    Ok((socket, remote)) => {
                        // A socket that is gone already says so when it is used.
                        drop(tcp.apply(&socket));
                        connections.spawn(serve(socket, remote, stop.clone()));
                    }
                    Err(error) => {
                        warn!(%error, address = %self.address, "accepting failed");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        });
    }
}

/// As many sockets as the system lets this process have.
pub(super) fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, "the limit of open files stays as it was");
    }
}

/// Whoever is gone without a word, or takes none of what is sent to it for so long, is cut by
/// the kernel: a reader may be slow, but holds a call's memory no longer than that.
const STALL: Duration = Duration::from_secs(300);

/// Where no file descriptor is left, trying again at once would only burn the processor.
const PAUSE: Duration = Duration::from_millis(50);
