//! `mcp-cloud tunnel`.

use clap::Subcommand;
use managed_agents_api::{Tunnel, TunnelToken};
use secrecy::ExposeSecret as _;

use super::table::{Table, ago, or_dash, visible};
use super::{Cloud, name_of};
use crate::failure::Failure;
use crate::out::say;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Creates a tunnel and prints the command that attaches a gateway
    Create {
        /// What people call it
        name: Option<String>,
    },
    /// Lists tunnels
    List {
        /// With archived ones
        #[arg(long)]
        archived: bool,
    },
    /// Shows the token again, with the command that uses it
    Token {
        /// Id, name or domain
        tunnel: String,
    },
    /// Draws a new token; the old one attaches no gateway any more
    Rotate {
        /// Id, name or domain
        tunnel: String,
        /// For the audit
        #[arg(long)]
        reason: Option<String>,
    },
    /// Ends a tunnel, its token and its name for ever
    Archive {
        /// Id, name or domain
        tunnel: String,
    },
}

pub(crate) async fn run(cloud: &Cloud, command: Command) -> Result<(), Failure> {
    let tunnels = cloud.client.tunnels();
    match command {
        Command::Create { name } => {
            let tunnel = tunnels.create(name.as_deref()).await?;
            let token = tunnels.reveal_token(&tunnel.id).await?;
            let answer = serde_json::json!({"tunnel": tunnel, "token": token});
            cloud.answer(&answer, || {
                say!("tunnel  {}", visible(name_of(&tunnel)));
                say!("id      {}", tunnel.id);
                say!("domain  {}", tunnel.domain);
                say!();
                attach(cloud, &tunnel, &token);
            })
        }
        Command::List { archived } => list(cloud, archived).await,
        Command::Token { tunnel } => {
            let tunnel = cloud.tunnel(&tunnel).await?;
            let token = tunnels.reveal_token(&tunnel.id).await?;
            cloud.answer(&token, || attach(cloud, &tunnel, &token))
        }
        Command::Rotate { tunnel, reason } => {
            let tunnel = cloud.tunnel(&tunnel).await?;
            let token = tunnels.rotate_token(&tunnel.id, reason.as_deref()).await?;
            cloud.answer(&token, || {
                say!("The old token attaches no gateway any more; links that used it end");
                say!("when their calls have. Start each gateway again with the new one.");
                say!();
                attach(cloud, &tunnel, &token);
            })
        }
        Command::Archive { tunnel } => {
            let tunnel = cloud.tunnel(&tunnel).await?;
            let tunnel = tunnels.archive(&tunnel.id).await?;
            cloud.answer(&tunnel, || {
                say!(
                    "{} is archived: its token and name are gone for ever",
                    tunnel.id
                );
                say!("next: {} tunnel create NAME", cloud.called_as);
            })
        }
    }
}

async fn list(cloud: &Cloud, archived: bool) -> Result<(), Failure> {
    let mut all: Vec<Tunnel> = Vec::new();
    let mut query = managed_agents_api::PageQuery {
        include_archived: Some(archived),
        limit: Some(managed_agents_api::LIMIT_MAX),
        page: None,
    };
    loop {
        let page = cloud.client.tunnels().page(&query).await?;
        all.extend(page.data);
        query.page = page.next_page;
        if query.page.is_none() {
            break;
        }
    }
    cloud.answer(&all, || {
        let mut table = Table::new(&["NAME", "ID", "DOMAIN", "CREATED", "ARCHIVED"]);
        for tunnel in &all {
            table.row([
                or_dash(tunnel.display_name.clone()),
                tunnel.id.clone(),
                tunnel.domain.clone(),
                ago(Some(tunnel.created_at)),
                tunnel
                    .archived_at
                    .map_or_else(|| "-".to_owned(), |at| ago(Some(at))),
            ]);
        }
        table.print(&format!(
            "no tunnels yet; next: {} tunnel create NAME",
            cloud.called_as
        ));
    })
}

/// The next step: on the machine that reaches the MCP server.
fn attach(cloud: &Cloud, tunnel: &Tunnel, token: &TunnelToken) {
    say!("Next, where the MCP server can be reached (put its address in place of");
    say!("localhost:50051; the token is a secret):");
    say!();
    say!(
        "  mcp-tunnel-gateway --mcp-server localhost:50051 --token {}",
        token.tunnel_token.expose_secret()
    );
    say!();
    say!("It prints a code and waits, unless it is approved already. Then, here:");
    say!();
    say!("  {} connection approve CODE", cloud.called_as);
    say!();
    say!(
        "To see the token again: {} tunnel token {}",
        cloud.called_as,
        tunnel.id
    );
}
