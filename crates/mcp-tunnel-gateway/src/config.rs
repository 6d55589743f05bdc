//! From arguments and environment to the engine's configuration.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use mcp_tunnel_auth::{GatewayKey, TunnelToken};
use mcp_tunnel_connector::{
    ConnectorConfig, McpServer, ServerConfig, ServerSet, identity, read_roots, read_token,
};
use secrecy::ExposeSecret;
use tracing::warn;

use crate::args::Args;

/// Everything that a connector needs.
pub(crate) fn connector(
    args: &Args,
    token: TunnelToken,
    servers: ServerConfig,
) -> Result<ConnectorConfig> {
    let key = key(args, &token)?;
    let mut config = ConnectorConfig::new(token, key, servers)
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_drain_deadline(args.drain_timeout);
    if let Some(edge) = &args.edge {
        config = config.with_edge(edge.clone());
    }
    if let Some(file) = &args.edge_ca {
        config = config.with_edge_roots(read_roots(file)?);
    }
    Ok(config)
}

/// The MCP servers, with `--preserve-host` applied.
pub(crate) fn servers(args: &Args) -> Result<ServerConfig> {
    let mut servers = args.mcp_server.clone();
    for name in &args.preserve_host {
        let named = |server: &&mut McpServer| server.route().cloned().unwrap_or_default() == *name;
        let Some(server) = servers.iter_mut().find(named) else {
            bail!("--preserve-host {name}: no MCP server has that name");
        };
        *server = server.clone().with_preserved_host(true);
    }
    let config = ServerConfig::new(ServerSet::new(servers)?);
    Ok(match &args.mcp_server_ca {
        Some(file) => config.with_roots(read_roots(file)?),
        None => config,
    })
}

/// The token, from the first place that has one.
pub(crate) fn token(args: &Args) -> Result<TunnelToken> {
    if let Some(file) = &args.token_file {
        return Ok(read_token(file)?);
    }
    if let Some(token) = &args.token {
        warn!(
            "others on this machine can read --token in the process list: use --token-file FILE or {TOKEN_VARIABLE}"
        );
        return TunnelToken::parse(token.expose_secret()).context("--token");
    }
    match env::var(TOKEN_VARIABLE) {
        Ok(token) => TunnelToken::parse(&token).context(TOKEN_VARIABLE),
        Err(_) => bail!("no tunnel token: give --token-file FILE, or set {TOKEN_VARIABLE}"),
    }
}

/// The key of this gateway; one that is lost with the process where there is no place to keep it.
fn key(args: &Args, token: &TunnelToken) -> Result<GatewayKey> {
    let Some(state) = args.state_dir.clone().or_else(default_state) else {
        warn!(
            "no place to keep the gateway's key: each start needs a new approval; give --state-dir DIR"
        );
        return Ok(identity::ephemeral()?);
    };
    let key = identity::load_or_create(&state, token.tunnel_id);
    key.context("the gateway's own key, which is kept where --state-dir says")
}

/// Where systemd says, or where a user's programs keep what must outlive them.
fn default_state() -> Option<PathBuf> {
    let folder = |variable: &str| {
        env::var_os(variable)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    folder("STATE_DIRECTORY").or_else(|| {
        let base =
            folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")))?;
        Some(base.join("mcp-tunnel-gateway"))
    })
}

const TOKEN_VARIABLE: &str = "MCP_TUNNEL_TOKEN";
