//! `mcp-cloud caller-key`.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Subcommand;
use jiff::Timestamp;
use managed_agents_api::{CallerKey, CallerKeyWithSecret, CreateCallerKey, PageQuery, Tunnel};
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::table::{Table, ago, visible};
use super::{Cloud, name_of};
use crate::failure::Failure;
use crate::out::say;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Makes a key and prints the client configuration to paste
    Create {
        /// What people call it
        name: String,
        /// Reaches only this tunnel; repeats
        #[arg(long)]
        tunnel: Vec<String>,
        /// Reaches only this route; repeats
        #[arg(long)]
        route: Vec<String>,
        /// Stops to work after this time, such as 30d, 12h or 90m
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        expires_in: Option<Duration>,
    },
    /// Lists keys
    List {
        /// With revoked ones
        #[arg(long)]
        revoked: bool,
    },
    /// Revokes a key: calls with it end at once
    Revoke {
        /// Id or name
        key: String,
    },
}

pub(crate) async fn run(cloud: &Cloud, command: Command) -> Result<(), Failure> {
    match command {
        Command::Create {
            name,
            tunnel,
            route,
            expires_in,
        } => create(cloud, name, tunnel, route, expires_in).await,
        Command::List { revoked } => list(cloud, revoked).await,
        Command::Revoke { key } => revoke(cloud, &key).await,
    }
}

async fn create(
    cloud: &Cloud,
    name: String,
    tunnels: Vec<String>,
    routes: Vec<String>,
    expires_in: Option<Duration>,
) -> Result<(), Failure> {
    let mut scope = Vec::new();
    for text in &tunnels {
        scope.push(cloud.tunnel(text).await?);
    }
    let expires_at = expires_in.map(|time| Timestamp::now() + time);
    let made = cloud
        .client
        .caller_keys()
        .create(&CreateCallerKey {
            name,
            tunnel_ids: (!scope.is_empty())
                .then(|| scope.iter().map(|tunnel| tunnel.id.clone()).collect()),
            routes: (!routes.is_empty()).then(|| routes.clone()),
            expires_at,
        })
        .await?;
    if scope.is_empty() {
        scope = cloud.client.tunnels().list().await?;
    }
    let servers = servers(cloud, &scope, &routes, &made).await?;
    let configuration = json!({ "mcpServers": servers });
    let answer = json!({"caller_key": made, "client_configuration": configuration});
    let text = serde_json::to_string_pretty(&configuration).map_err(Failure::internal)?;
    cloud.answer(&answer, || {
        say!(
            "caller key  {} ({})",
            visible(&made.caller_key.name),
            made.caller_key.id
        );
        say!("            {}", made.key.expose_secret());
        say!("It is shown this once. Every request carries it in this header:");
        say!();
        say!(
            "  Mcp-Tunnel-Authorization: Bearer {}",
            made.key.expose_secret()
        );
        say!();
        say!("Next, the configuration of an MCP client:");
        say!();
        say!("{text}");
        trust(cloud);
    })
}

/// How clients come to trust the certificate of a private CA.
fn trust(cloud: &Cloud) {
    if let Some(roots) = cloud.roots() {
        let roots = roots.display();
        say!();
        say!("The certificate is of a private CA. Clients trust it by:");
        say!();
        say!("  NODE_EXTRA_CA_CERTS={roots}   (Node.js)");
        say!("  SSL_CERT_FILE={roots}         (Python and most others)");
    }
}

/// One entry for each server that the key reaches, as far as gateways announced them.
async fn servers(
    cloud: &Cloud,
    tunnels: &[Tunnel],
    routes: &[String],
    made: &CallerKeyWithSecret,
) -> Result<BTreeMap<String, serde_json::Value>, Failure> {
    let mut servers = BTreeMap::new();
    for tunnel in tunnels.iter().take(SHOWN_MOST) {
        let mut names: Vec<String> = routes.to_vec();
        if names.is_empty() {
            for gateway in cloud.client.connections(&tunnel.id).list().await? {
                names.extend(gateway.routes);
            }
        }
        names.sort();
        names.dedup();
        if names.is_empty() {
            names.push("mcp".to_owned());
        }
        for route in names {
            let url = match &cloud.serving {
                Some(serving) => serving.url(&tunnel.id, &tunnel.domain, &route),
                None => format!("https://{route}--{}/mcp", tunnel.domain),
            };
            let entry = json!({
                "type": "http",
                "url": url,
                "headers": {
                    "Mcp-Tunnel-Authorization": format!("Bearer {}", made.key.expose_secret()),
                },
            });
            servers.insert(format!("{}-{route}", name_of(tunnel)), entry);
        }
    }
    Ok(servers)
}

async fn list(cloud: &Cloud, revoked: bool) -> Result<(), Failure> {
    let keys = all(cloud, revoked).await?;
    cloud.answer(&keys, || {
        let mut table = Table::new(&["NAME", "ID", "REACHES", "CREATED", "EXPIRES", "REVOKED"]);
        for key in &keys {
            table.row([
                key.name.clone(),
                key.id.clone(),
                reach(key),
                ago(Some(key.created_at)),
                key.expires_at
                    .map_or_else(|| "-".to_owned(), |at| at.to_string()),
                key.revoked_at
                    .map_or_else(|| "-".to_owned(), |at| ago(Some(at))),
            ]);
        }
        table.print(&format!(
            "no keys yet; next: {} caller-key create NAME",
            cloud.called_as
        ));
    })
}

async fn revoke(cloud: &Cloud, text: &str) -> Result<(), Failure> {
    let id = match text.starts_with("ckey_") {
        true => text.to_owned(),
        false => {
            let keys = all(cloud, false).await?;
            let mut named = keys.iter().filter(|key| key.name == text);
            match (named.next(), named.next()) {
                (Some(key), None) => key.id.clone(),
                (None, _) => {
                    return Err(Failure::refused(
                        format_args!("no caller key is called {text:?}"),
                        format!("see them: {} caller-key list", cloud.called_as),
                    ));
                }
                (Some(_), Some(_)) => {
                    return Err(Failure::refused(
                        format_args!("more than one caller key is called {text:?}"),
                        format!("give its id: {} caller-key list", cloud.called_as),
                    ));
                }
            }
        }
    };
    let key = cloud.client.caller_keys().revoke(&id).await?;
    cloud.answer(&key, || {
        say!(
            "{} is revoked: calls with it end within two seconds",
            key.id
        );
        say!("next: {} caller-key create NAME", cloud.called_as);
    })
}

async fn all(cloud: &Cloud, revoked: bool) -> Result<Vec<CallerKey>, Failure> {
    let mut query = PageQuery {
        include_archived: Some(revoked),
        limit: Some(managed_agents_api::LIMIT_MAX),
        page: None,
    };
    let mut keys = Vec::new();
    loop {
        let page = cloud.client.caller_keys().page(&query).await?;
        keys.extend(page.data);
        query.page = page.next_page;
        if query.page.is_none() {
            return Ok(keys);
        }
    }
}

fn reach(key: &CallerKey) -> String {
    let part = |texts: &Option<Vec<String>>, all: &str| match texts {
        Some(texts) => texts.join(","),
        None => all.to_owned(),
    };
    match (&key.tunnel_ids, &key.routes) {
        (None, None) => "everything".to_owned(),
        (tunnels, routes) => {
            format!(
                "{} / {}",
                part(tunnels, "every tunnel"),
                part(routes, "every route")
            )
        }
    }
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let wrong = || "a number and s, m, h or d, such as 30d".to_owned();
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text
        .strip_suffix(unit)
        .unwrap_or("")
        .parse()
        .map_err(|_| wrong())?;
    let years_hundred = 100 * 365 * 86_400;
    match number.checked_mul(seconds) {
        Some(total @ 1..) if total <= years_hundred => Ok(Duration::from_secs(total)),
        _ => Err("from 1s to a hundred years".to_owned()),
    }
}

/// Tunnels whose servers are printed; a key may reach more.
const SHOWN_MOST: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_and_an_end() {
        assert_eq!(parse_time("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(parse_time("90m"), Ok(Duration::from_secs(5400)));
        for wrong in ["", "d", "30", "0s", "-1d", "1000000d", "30é"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }
}
