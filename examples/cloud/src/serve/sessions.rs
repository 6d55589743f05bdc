//! The sessions of a data folder: their database, beside the console's.

use std::sync::Arc;

use jiff::SignedDuration;
use managed_agents_server::store::{SqliteConfig, SqliteStore};
use managed_agents_server::{Config, RateLimits, Server};
use mcp_console::ApiKeys;

use super::console::unusable;
use super::masters::MasterKeys;
use crate::args::ServeArgs;
use crate::data::{DataFolder, SESSIONS};
use crate::failure::Failure;

/// Opens the database; `keys` are those of the console, workspaces included.
pub(super) async fn open(
    data: &DataFolder,
    args: &ServeArgs,
    keys: ApiKeys,
) -> Result<(Arc<SqliteStore>, Server), Failure> {
    let file = data.file(SESSIONS);
    let store = SqliteStore::open(&SqliteConfig::new(&file))
        .await
        .map_err(|error| unusable(&file, error))?;
    // The console has made sure of those that tunnel tokens need; no item outlives its key.
    let (newest, older) = MasterKeys::for_use(data, args, &[])?;
    let mut config = older
        .into_iter()
        .fold(Config::new(newest), Config::with_older_master);
    config = config
        .with_lease(SignedDuration::from_secs(args.lease.into()))
        .with_ended_kept(SignedDuration::from_hours(24 * i64::from(args.keep_ended)));
    if args.rate_limits {
        config = config.with_rate_limits(RateLimits::vendor());
    }
    let store = Arc::new(store);
    let server = Server::new(
        Arc::clone(&store) as _,
        Arc::clone(&store) as _,
        config,
        Arc::new(keys),
    );
    Ok((store, server))
}
