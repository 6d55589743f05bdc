//! `check`: every hop, whatever of the configuration is there.

use anyhow::Result;
use mcp_diagnostics::report::{Colour, Line, Report};
use mcp_tunnel_connector::check::{check, check_servers};
use tokio::runtime::Runtime;

use crate::args::Args;
use crate::config;
use crate::run::{EXIT_USAGE, Failure, usage};
use crate::voice::print;

/// Prints the report; the answer is the exit code.
pub(crate) fn report(args: &Args, runtime: &Runtime, json: bool) -> Result<u8, Failure> {
    let servers = config::servers(args).map_err(usage)?;
    let report = match config::token(args) {
        Ok(token) => {
            let config = config::connector(args, token, servers).map_err(usage)?;
            runtime.block_on(check(&config))
        }
        Err(error) => runtime.block_on(check_servers(&servers)).map(|lines| {
            let mut report = Report::new();
            let cure = "copy it from where the tunnel was created, or have it revealed there";
            report.push(Line::fail("token", format!("{error:#}"), cure).exit_code(EXIT_USAGE));
            report.extend(lines);
            report
        }),
    };
    let report = report.map_err(|error| usage(error.into()))?;
    if json {
        print(format_args!("{:#}", report.to_json()));
    } else {
        print(report.table(Colour::Auto).to_string().trim_end());
    }
    Ok(report.exit_code())
}
