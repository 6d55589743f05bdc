//! The console of a data folder: its database, master key and administrator.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use managed_agents_api::serve::Permissions;
use mcp_console::store::{SqliteConfig, SqliteStore, TunnelStore as _};
use mcp_console::{ApiKeys, Config, Console};
use mcp_tunnel_auth::{ApiKey, MasterKeyId, WorkspaceId};
use secrecy::ExposeSecret as _;
use tracing::warn;

use super::masters::MasterKeys;
use super::plan::Plan;
use crate::args::ServeArgs;
use crate::data::{DATABASE, DataFolder, Origin};
use crate::failure::Failure;
use crate::out::say;

/// Opens the database, makes what is not there, and lets the administrator in.
pub(super) async fn open(
    data: &DataFolder,
    args: &ServeArgs,
    plan: &Plan,
) -> Result<(Arc<SqliteStore>, Console), Failure> {
    let file = data.file(DATABASE);
    let store = SqliteStore::open(&SqliteConfig::new(&file))
        .await
        .map_err(|error| unusable(&file, error))?;
    let in_use = store
        .master_keys_in_use()
        .await
        .map_err(Failure::internal)?;
    let config = console_config(data, args, plan, &in_use)?;
    let store = Arc::new(store);
    adopt_admin_key(data, Arc::clone(&store)).await?;
    let console = Console::new(Arc::clone(&store) as _, config)
        .await
        .map_err(Failure::internal)?;
    Ok((store, console))
}

/// What is said of a database that cannot be opened.
pub(super) fn unusable(file: &Path, error: impl Error + Send + Sync + 'static) -> Failure {
    Failure::usage(
        anyhow::Error::new(error).context(format!("opening {}", file.display())),
        "is the disk full, or the file from a newer version?",
    )
}

fn console_config(
    data: &DataFolder,
    args: &ServeArgs,
    plan: &Plan,
    in_use: &[MasterKeyId],
) -> Result<Config, Failure> {
    let (newest, older) = MasterKeys::for_use(data, args, in_use)?;
    let mut config = Config::new(newest, args.domain.clone(), plan.public_edge.clone());
    for older in older {
        config = config.with_older_master(older);
    }
    if args.auto_approve {
        config = config.with_approval(mcp_tunnel_auth::Approval::Auto);
    }
    if let Some(pin) = plan.ca_pin {
        config = config.with_ca_pin(pin);
    }
    if let Some(name) = &plan.edge_name {
        config = config.with_edge_name(name.clone());
    }
    Ok(config)
}

/// The key's file is written before its row: killed in between, the next start writes the
/// row.
async fn adopt_admin_key(data: &DataFolder, store: Arc<SqliteStore>) -> Result<(), Failure> {
    let (text, origin) = data.secret("admin.key", || ApiKey::from_entropy(random()).encode())?;
    let key = ApiKey::parse(text.expose_secret().trim()).map_err(|error| {
        Failure::usage(error, "remove admin.key: the next start makes another one")
    })?;
    let workspace = WorkspaceId::parse("default").map_err(Failure::internal)?;
    let record = ApiKeys::new(store)
        .adopt(&key, &workspace, "admin", Permissions::all())
        .await
        .map_err(Failure::internal)?;
    if record.revoked_at.is_some() {
        return Err(Failure::wrong(
            "the key in admin.key was revoked",
            "remove admin.key: the next start makes another one",
        ));
    }
    if record.permissions != Permissions::all() {
        warn!(
            "the key in admin.key is from before sessions, and may not use them: \
             remove admin.key, and the next start makes another one"
        );
    }
    if origin == Origin::Made {
        let file = data.file("admin.key");
        say!(
            "made {}: the API key that may do everything",
            file.display()
        );
    }
    Ok(())
}

pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}
