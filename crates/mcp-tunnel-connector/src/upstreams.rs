//! All MCP servers of a gateway, by route.

use std::collections::HashMap;
use std::sync::Arc;

use mcp_tunnel_auth::RouteName;
use tokio_util::task::TaskTracker;

use crate::measures::RouteMeasures;
use crate::server::{McpServer, ServerSet};
use crate::upstream::Upstream;
use crate::upstream::dial::Dialler;

/// The servers that calls may reach; nothing else is ever dialled.
#[derive(Debug)]
pub(crate) struct Upstreams {
    by_route: HashMap<RouteName, Arc<Upstream>>,
    default: Option<RouteName>,
    tasks: TaskTracker,
}

impl Upstreams {
    pub(crate) fn new(servers: &ServerSet, dialler: &Dialler) -> Self {
        let tasks = TaskTracker::new();
        let upstream = |(route, server): (&RouteName, &McpServer)| {
            let measures = RouteMeasures::new(route);
            (
                route.clone(),
                Upstream::new(server.clone(), dialler.clone(), tasks.clone(), measures),
            )
        };
        let by_route = servers.iter().map(upstream).collect();
        Self {
            by_route,
            default: servers.default_route().cloned(),
            tasks,
        }
    }

    /// The server behind a route; the empty name is that of the default one.
    pub(crate) fn find(&self, route: &str) -> Option<&Arc<Upstream>> {
        let name = match route {
            "" => self.default.clone()?,
            _ => RouteName::parse(route).ok()?,
        };
        self.by_route.get(&name)
    }

    /// Closes all idle connections and waits until every task of this set is gone.
    pub(crate) async fn close(&self) {
        self.by_route
            .values()
            .for_each(|upstream| upstream.close_idle());
        self.tasks.close();
        self.tasks.wait().await;
    }
}
