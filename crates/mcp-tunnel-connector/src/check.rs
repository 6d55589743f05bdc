//! Looks at every hop between an MCP server and the edge, and names the cure of what does not work.
//!
//! ```text
//!   token  key  dns  tcp  tls  credential  approval     the way to the edge; the first failure ends it
//!   docs address  docs  docs listens                    for each MCP server, on its own
//! ```

mod ask;
mod edge;
mod server;

use mcp_diagnostics::report::{Line, Report};

use crate::config::{ConfigError, ConnectorConfig, ServerConfig};
use crate::server::ServerSet;

/// Checks the way to the edge, as a link of its own that is closed again, and each MCP server.
///
/// # Errors
///
/// [`ConfigError`], before anything is looked at.
///
/// # Cancel safety
///
/// Dropping the future closes what is open.
pub async fn check(config: &ConnectorConfig) -> Result<Report, ConfigError> {
    let mut report = Report::new();
    edge::check(config, &mut report).await?;
    report.extend(check_servers(&config.servers).await?);
    Ok(report)
}

/// Checks the MCP servers alone, for a gateway that has no usable token.
///
/// # Errors
///
/// As [`check`].
///
/// # Cancel safety
///
/// As [`check`].
pub async fn check_servers(config: &ServerConfig) -> Result<Vec<Line>, ConfigError> {
    let dialler = config.dialler()?;
    let mut lines = Vec::new();
    for (route, server) in config.set().iter() {
        lines.extend(server::check(route, server, &dialler).await);
    }
    Ok(lines)
}

/// Warnings about servers on this machine that others reach without the tunnel, for a gateway that starts.
///
/// Looks at configuration and `/proc` alone: nothing is resolved or dialled.
#[must_use]
pub fn exposed_servers(servers: &ServerSet) -> Vec<Line> {
    servers
        .iter()
        .filter_map(|(route, server)| server::local_exposure(route, server))
        .collect()
}
