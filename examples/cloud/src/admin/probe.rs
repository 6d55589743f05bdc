//! `mcp-cloud probe`: the whole way from the caller's side, hop by hop.

use super::Cloud;
use crate::failure::Failure;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Id, name or domain
    pub(crate) tunnel: String,
}

pub(crate) async fn run(cloud: &Cloud, arguments: Arguments) -> Result<(), Failure> {
    let tunnel = cloud.tunnel(&arguments.tunnel).await?;
    Err(Failure::refused(
        format_args!("{} cannot be probed yet", tunnel.id),
        "the edge is not here yet",
    ))
}
