//! The servers of one gateway, each under a route of its own.

use mcp_tunnel_auth::RouteName;

use super::McpServer;

/// The servers of one gateway by route: no two alike, at least one.
#[derive(Debug, Clone)]
pub struct ServerSet {
    servers: Vec<(RouteName, McpServer)>,
    default: Option<usize>,
}

impl ServerSet {
    /// Gives the one unnamed server, if there is one, the route `mcp`.
    ///
    /// # Errors
    ///
    /// [`ServerSetError`] when there is none, too many, or two with one route.
    pub fn new(servers: Vec<McpServer>) -> Result<Self, ServerSetError> {
        if servers.len() > MAX_SERVERS {
            return Err(ServerSetError::TooMany);
        }
        let mut unnamed = None;
        let mut named: Vec<(RouteName, McpServer)> = Vec::with_capacity(servers.len());
        for server in servers {
            if server.route.is_none() && unnamed.replace(named.len()).is_some() {
                return Err(ServerSetError::SeveralUnnamed);
            }
            let route = server.route.clone().unwrap_or_default();
            if named.iter().any(|(taken, _)| *taken == route) {
                return Err(ServerSetError::Twice { route });
            }
            named.push((route, server));
        }
        let default = match named.len() {
            0 => return Err(ServerSetError::Empty),
            1 => Some(0),
            _ => unnamed,
        };
        Ok(Self {
            servers: named,
            default,
        })
    }

    /// Route and server, in the order in which they were given.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&RouteName, &McpServer)> {
        self.servers.iter().map(|(route, server)| (route, server))
    }

    /// Which of them answers on the bare name of the tunnel: the unnamed one, or the only one.
    #[must_use]
    pub fn default_route(&self) -> Option<&RouteName> {
        self.default
            .and_then(|at| self.servers.get(at))
            .map(|(route, _)| route)
    }
}

/// Why servers do not make a set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServerSetError {
    /// There is none.
    #[error("no MCP server is given: add --mcp-server HOST:PORT")]
    Empty,
    /// More than the edge is told about.
    #[error("more than {MAX_SERVERS} MCP servers: run a second gateway")]
    TooMany,
    /// Two without a name.
    #[error("with several MCP servers each needs a name: --mcp-server NAME=HOST:PORT")]
    SeveralUnnamed,
    /// Two with one name.
    #[error("the name {route} is given to two MCP servers")]
    Twice {
        /// That name.
        route: RouteName,
    },
}

/// Each is announced to the edge inside of one credential.
const MAX_SERVERS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn set(texts: &[&str]) -> Result<ServerSet, ServerSetError> {
        ServerSet::new(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn the_unnamed_server_is_mcp_and_the_default() {
        let alone = set(&["3000"]).unwrap();
        assert_eq!(alone.default_route().unwrap().as_str(), "mcp");
        let beside = set(&["docs=3000", "3001"]).unwrap();
        assert_eq!(beside.default_route().unwrap().as_str(), "mcp");
        let routes: Vec<_> = beside
            .iter()
            .map(|(route, _)| route.as_str().to_owned())
            .collect();
        assert_eq!(routes, ["docs", "mcp"]);
    }

    #[test]
    fn a_single_named_server_is_the_default_and_of_several_none_is() {
        assert_eq!(
            set(&["docs=3000"])
                .unwrap()
                .default_route()
                .unwrap()
                .as_str(),
            "docs"
        );
        assert_eq!(
            set(&["docs=3000", "files=3001"]).unwrap().default_route(),
            None
        );
    }

    #[test]
    fn sets_without_clear_routes_are_refused() {
        assert_eq!(set(&[]).unwrap_err(), ServerSetError::Empty);
        assert_eq!(
            set(&["3000", "3001"]).unwrap_err(),
            ServerSetError::SeveralUnnamed
        );
        assert!(matches!(
            set(&["docs=3000", "docs=3001"]),
            Err(ServerSetError::Twice { .. })
        ));
        assert!(matches!(
            set(&["3000", "mcp=3001"]),
            Err(ServerSetError::Twice { .. })
        ));
        let many: Vec<String> = (0..=MAX_SERVERS)
            .map(|i| format!("server{i}=3000"))
            .collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(set(&many).unwrap_err(), ServerSetError::TooMany);
    }
}
