//! `mcp-cloud connection`.

use std::time::Duration;

use clap::Subcommand;
use managed_agents_api::{ConnectionStatus, Tunnel, TunnelConnection};
use tokio::time::{Instant, sleep};

use super::table::{Table, ago, or_dash, visible};
use super::{Cloud, name_of, shell_word};
use crate::failure::Failure;
use crate::out::say;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Lists gateways
    List {
        /// Id, name or domain; all tunnels without it
        tunnel: Option<String>,
    },
    /// Lets a gateway in
    Approve {
        /// The code that the gateway prints, its fingerprint, or the id of its connection
        gateway: String,
        /// Only if the gateway has this key (SHA256:…)
        #[arg(long)]
        fingerprint: Option<String>,
        /// For a fingerprint that was never seen: the tunnel that it may attach to
        #[arg(long)]
        tunnel: Option<String>,
    },
    /// Keeps a gateway out, or takes its approval back
    Refuse {
        /// Code, fingerprint or id
        gateway: String,
        #[arg(long)]
        /// For the audit
        reason: Option<String>,
    },
    /// Closes the links of a gateway; an approved one comes back
    Disconnect {
        /// Fingerprint or id
        gateway: String,
    },
}

pub(crate) async fn run(cloud: &Cloud, command: Command) -> Result<(), Failure> {
    match command {
        Command::List { tunnel } => list(cloud, tunnel.as_deref()).await,
        Command::Approve {
            gateway,
            fingerprint,
            tunnel,
        } => {
            let approved = approve(cloud, &gateway, fingerprint.as_deref(), tunnel.as_deref());
            let (tunnel, connection) = approved.await?;
            cloud.answer(&connection, || show_approved(cloud, &tunnel, &connection))
        }
        Command::Refuse { gateway, reason } => {
            let (tunnel, found) = find(cloud, &gateway, None).await?;
            let connections = cloud.client.connections(&tunnel.id);
            let connection = connections.refuse(&found.id, reason.as_deref()).await?;
            cloud.answer(&connection, || {
                say!("refused: {}", connection.gateway_key_fingerprint);
                say!(
                    "to let it in after all: {} connection approve {}",
                    cloud.called_as,
                    connection.id
                );
            })
        }
        Command::Disconnect { gateway } => {
            let (tunnel, found) = find(cloud, &gateway, None).await?;
            let connections = cloud.client.connections(&tunnel.id);
            let connection = connections.disconnect(&found.id, None).await?;
            cloud.answer(&connection, || {
                say!("links closed: {}", connection.gateway_key_fingerprint);
                say!(
                    "to keep it away: {} connection refuse {}",
                    cloud.called_as,
                    connection.id
                );
            })
        }
    }
}

async fn list(cloud: &Cloud, tunnel: Option<&str>) -> Result<(), Failure> {
    let gateways = cloud.gateways(tunnel).await?;
    let answer: Vec<&TunnelConnection> = gateways.iter().map(|(_, gateway)| gateway).collect();
    cloud.answer(&answer, || {
        let mut table = Table::new(&[
            "TUNNEL",
            "STATUS",
            "CODE",
            "LINKS",
            "FROM",
            "ROUTES",
            "SEEN",
            "FINGERPRINT",
        ]);
        for (tunnel, gateway) in &gateways {
            let from = or_dash(gateway.remote_address.clone());
            table.row([
                name_of(tunnel).to_owned(),
                gateway.status.to_string(),
                or_dash(gateway.approval_code.clone()),
                gateway.live_links.to_string(),
                if gateway.several_addresses {
                    format!("{from} and others")
                } else {
                    from
                },
                gateway.routes.join(","),
                ago(gateway.last_seen_at),
                gateway.gateway_key_fingerprint.clone(),
            ]);
        }
        table.print(
            "no gateway was here yet; start one with the command that `tunnel token TUNNEL` prints",
        );
        let waits = gateways
            .iter()
            .find(|(_, gateway)| gateway.status == ConnectionStatus::Pending);
        if let Some(code) = waits.and_then(|(_, gateway)| gateway.approval_code.as_ref()) {
            say!();
            say!("next: {} connection approve {code}", cloud.called_as);
        }
    })
}

async fn approve(
    cloud: &Cloud,
    gateway: &str,
    fingerprint: Option<&str>,
    tunnel: Option<&str>,
) -> Result<(Tunnel, TunnelConnection), Failure> {
    if let (true, Some(text)) = (gateway.starts_with("SHA256:"), tunnel) {
        let tunnel = cloud.tunnel(text).await?;
        let connection = cloud
            .client
            .connections(&tunnel.id)
            .approve_key(gateway)
            .await?;
        return Ok((tunnel, connection));
    }
    let (tunnel, found) = find(cloud, gateway, tunnel).await?;
    let connections = cloud.client.connections(&tunnel.id);
    let connection = connections.approve(&found.id, fingerprint).await?;
    Ok((tunnel, connection))
}

/// The one gateway that `text` names.
async fn find(
    cloud: &Cloud,
    text: &str,
    tunnel: Option<&str>,
) -> Result<(Tunnel, TunnelConnection), Failure> {
    let look = async || -> Result<Vec<_>, Failure> {
        let mut found = cloud.gateways(tunnel).await?;
        found.retain(|(_, gateway)| is_named(gateway, text));
        Ok(found)
    };
    let mut found = look().await?;
    // A gateway prints its code a moment before the console has written down that it waits.
    let is_code = mcp_tunnel_auth::ApprovalCode::parse(text).is_ok();
    let until = Instant::now() + JUST_PRINTED;
    while found.is_empty() && is_code && Instant::now() < until {
        sleep(LOOK_AGAIN).await;
        found = look().await?;
    }
    if found.len() > 1 {
        return Err(Failure::refused(
            format_args!("{text:?} names more than one gateway"),
            format!("give the id: {} connection list", cloud.called_as),
        ));
    }
    found.pop().ok_or_else(|| {
        let cure = if text.starts_with("SHA256:") {
            format!("to approve a key before its gateway comes: {} connection approve {} --tunnel TUNNEL", cloud.called_as, shell_word(text))
        } else {
            format!(
                "see who waits: {} connection list; a gateway that connects again has a new code",
                cloud.called_as
            )
        };
        Failure::refused(format_args!("no gateway has {text:?}"), cure)
    })
}

/// How long a code that nobody has may be on its way.
const JUST_PRINTED: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Codes are compared as people read them.
fn is_named(gateway: &TunnelConnection, text: &str) -> bool {
    let code = mcp_tunnel_auth::ApprovalCode::parse(text).ok();
    let shown = gateway.approval_code.as_deref();
    gateway.id == text
        || gateway.gateway_key_fingerprint == text
        || shown.is_some_and(|shown| {
            code == mcp_tunnel_auth::ApprovalCode::parse(shown).ok() && code.is_some()
        })
}

fn show_approved(cloud: &Cloud, tunnel: &Tunnel, connection: &TunnelConnection) {
    say!("approved: {}", connection.gateway_key_fingerprint);
    say!("tunnel    {}", visible(name_of(tunnel)));
    if !connection.routes.is_empty() {
        say!("routes    {}", connection.routes.join(", "));
    }
    say!();
    say!("Next, a key for whoever calls:");
    say!();
    say!("  {} caller-key create NAME", cloud.called_as);
    say!();
    say!(
        "To try the way from end to end: {} probe {}",
        cloud.called_as,
        shell_word(name_of(tunnel))
    );
}
