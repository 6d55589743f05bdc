//! `mcp-cloud environment-key`.

use clap::Subcommand;
use managed_agents_api::{EnvironmentKey, PageQuery};
use secrecy::ExposeSecret as _;

use super::table::{Table, ago, or_dash, visible};
use super::{Cloud, environment};
use crate::failure::Failure;
use crate::out::say;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Makes a key and prints what a worker is started with
    Create {
        /// What people call it: the host, as a rule
        name: String,
        /// Id or name; may be left out where there is only one
        #[arg(long, value_name = "ENVIRONMENT")]
        environment: Option<String>,
    },
    /// Lists keys
    List {
        /// Id or name; may be left out where there is only one
        #[arg(long, value_name = "ENVIRONMENT")]
        environment: Option<String>,
        /// With revoked ones
        #[arg(long)]
        revoked: bool,
    },
    /// Revokes a key: its workers are refused at once
    Revoke {
        /// Id or name
        key: String,
        /// Id or name; may be left out where there is only one
        #[arg(long, value_name = "ENVIRONMENT")]
        environment: Option<String>,
    },
}

pub(crate) async fn run(cloud: &Cloud, command: Command) -> Result<(), Failure> {
    match command {
        Command::Create { name, environment } => create(cloud, &name, environment).await,
        Command::List {
            environment,
            revoked,
        } => list(cloud, environment, revoked).await,
        Command::Revoke { key, environment } => revoke(cloud, &key, environment).await,
    }
}

async fn create(cloud: &Cloud, name: &str, environment: Option<String>) -> Result<(), Failure> {
    let environment = environment::find(cloud, environment.as_deref()).await?;
    let made = cloud
        .client
        .environment_keys(&environment.id)
        .create(name)
        .await?;
    cloud.answer(&made, || {
        let key = &made.environment_key;
        say!("environment key  {} ({})", visible(&key.name), key.id);
        say!("It is shown this once. A worker, ours or the vendor's, is started with:");
        say!();
        if let Some(serving) = &cloud.serving {
            say!("export ANTHROPIC_BASE_URL={}", serving.base_url);
        }
        say!("export ANTHROPIC_ENVIRONMENT_ID={}", environment.id);
        say!(
            "export ANTHROPIC_ENVIRONMENT_KEY={}",
            made.key.expose_secret()
        );
        say!("mcp-sandbox worker");
    })
}

async fn list(cloud: &Cloud, environment: Option<String>, revoked: bool) -> Result<(), Failure> {
    let environment = environment::find(cloud, environment.as_deref()).await?;
    let keys = all(cloud, &environment.id, revoked).await?;
    cloud.answer(&keys, || {
        let mut table = Table::new(&["NAME", "ID", "CREATED", "REVOKED"]);
        for key in &keys {
            table.row([
                key.name.clone(),
                key.id.clone(),
                ago(Some(key.created_at)),
                or_dash(key.revoked_at.map(|at| ago(Some(at)))),
            ]);
        }
        table.print(&format!(
            "no keys yet; next: {} environment-key create NAME",
            cloud.called_as
        ));
    })
}

async fn revoke(cloud: &Cloud, text: &str, environment: Option<String>) -> Result<(), Failure> {
    let environment = environment::find(cloud, environment.as_deref()).await?;
    let id = match text.starts_with("ekey_") {
        true => text.to_owned(),
        false => named(cloud, &environment.id, text).await?,
    };
    let keys = cloud.client.environment_keys(&environment.id);
    let key = keys.revoke(&id).await?;
    cloud.answer(&key, || {
        say!(
            "{} is revoked: its workers are refused, and their sessions go to others",
            key.id
        );
        say!("next: {} environment-key create NAME", cloud.called_as);
    })
}

async fn named(cloud: &Cloud, environment: &str, name: &str) -> Result<String, Failure> {
    let keys = all(cloud, environment, false).await?;
    let mut named = keys.iter().filter(|key| key.name == name);
    let see = format!("{} environment-key list", cloud.called_as);
    match (named.next(), named.next()) {
        (Some(key), None) => Ok(key.id.clone()),
        (None, _) => Err(Failure::refused(
            format_args!("no environment key is called {name:?}"),
            format!("see them: {see}"),
        )),
        (Some(_), Some(_)) => Err(Failure::refused(
            format_args!("more than one environment key is called {name:?}"),
            format!("give its id: {see}"),
        )),
    }
}

async fn all(
    cloud: &Cloud,
    environment: &str,
    revoked: bool,
) -> Result<Vec<EnvironmentKey>, Failure> {
    let mut query = PageQuery {
        include_archived: Some(revoked),
        limit: Some(managed_agents_api::LIMIT_MAX),
        page: None,
    };
    let mut all = Vec::new();
    loop {
        let page = cloud
            .client
            .environment_keys(environment)
            .page(&query)
            .await?;
        all.extend(page.data);
        query.page = page.next_page;
        if query.page.is_none() {
            return Ok(all);
        }
    }
}
