//! `mcp-cloud environment`.

use clap::Subcommand;
use managed_agents_api::{CreateEnvironment, Environment, EnvironmentConfig, PageQuery};

use super::Cloud;
use super::table::{Table, ago, visible};
use crate::failure::Failure;
use crate::out::say;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Makes an environment whose tools workers of yours run
    Create {
        /// What people call it
        name: String,
    },
    /// Lists environments, and what waits in their queues
    List {
        /// With archived ones
        #[arg(long)]
        archived: bool,
    },
}

pub(crate) async fn run(cloud: &Cloud, command: Command) -> Result<(), Failure> {
    match command {
        Command::Create { name } => create(cloud, name).await,
        Command::List { archived } => list(cloud, archived).await,
    }
}

async fn create(cloud: &Cloud, name: String) -> Result<(), Failure> {
    let new = CreateEnvironment::self_hosted(name);
    let made = cloud.client.environments().create(&new).await?;
    cloud.answer(&made, || {
        say!("environment  {} ({})", visible(&made.name), made.id);
        say!(
            "next: {} environment-key create NAME --environment {}",
            cloud.called_as,
            made.id
        );
    })
}

async fn list(cloud: &Cloud, archived: bool) -> Result<(), Failure> {
    let environments = all(cloud, archived).await?;
    let mut table = Table::new(&["NAME", "ID", "KIND", "WAITING", "WORKERS", "CREATED"]);
    for environment in &environments {
        let (kind, waiting, workers) = match &environment.config {
            EnvironmentConfig::SelfHosted(_) => {
                let stats = cloud.client.work(&environment.id).stats().await?;
                let workers = stats.workers_polling.unwrap_or(0);
                ("self_hosted", stats.depth.to_string(), workers.to_string())
            }
            _ => ("cloud", "-".to_owned(), "-".to_owned()),
        };
        table.row([
            environment.name.clone(),
            environment.id.clone(),
            kind.to_owned(),
            waiting,
            workers,
            ago(Some(environment.created_at)),
        ]);
    }
    cloud.answer(&environments, || {
        table.print(&format!(
            "no environments yet; next: {} environment create NAME",
            cloud.called_as
        ));
    })
}

/// The environment that `text` names, by id or name; the only one where nothing is said.
pub(super) async fn find(cloud: &Cloud, text: Option<&str>) -> Result<Environment, Failure> {
    if let Some(id) = text.filter(|text| text.starts_with("env_")) {
        return Ok(cloud.client.environments().retrieve(id).await?);
    }
    let all = all(cloud, false).await?;
    let mut found = all
        .iter()
        .filter(|one| text.is_none_or(|text| one.name == text));
    let see = format!("see them: {} environment list", cloud.called_as);
    match (found.next(), found.next(), text) {
        (Some(environment), None, _) => Ok(environment.clone()),
        (None, _, None) => Err(Failure::refused(
            "there is no environment yet",
            format!("make one: {} environment create NAME", cloud.called_as),
        )),
        (None, _, Some(text)) => Err(Failure::refused(
            format_args!("no environment is called {text:?}"),
            see,
        )),
        (Some(_), Some(_), None) => Err(Failure::wrong("which environment?", see)),
        (Some(_), Some(_), Some(text)) => Err(Failure::refused(
            format_args!("more than one environment is called {text:?}"),
            see,
        )),
    }
}

async fn all(cloud: &Cloud, archived: bool) -> Result<Vec<Environment>, Failure> {
    let mut query = PageQuery {
        include_archived: Some(archived),
        limit: Some(managed_agents_api::LIMIT_MAX),
        page: None,
    };
    let mut all = Vec::new();
    loop {
        let page = cloud.client.environments().page(&query).await?;
        all.extend(page.data);
        query.page = page.next_page;
        if query.page.is_none() {
            return Ok(all);
        }
    }
}
