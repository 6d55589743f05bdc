//! `check`: which isolation is in force here.

use std::fs;

use mcp_diagnostics::report::{Colour, Line, Report};
use mcp_sandbox_executor::{Layer, LayerState};
use mcp_sandbox_linux::{LinuxExecutor, StartError, Tier};

use crate::args::{CheckArgs, NetworkArg};
use crate::compose::{self, config};

/// Prints the report; the result is the exit code.
pub(crate) async fn run(args: CheckArgs) -> u8 {
    let mut report = Report::new();
    report.push(Line::ok("kernel", kernel()));
    match config(&args.sandbox) {
        Err(error) => {
            report.push(Line::fail("configuration", format!("{error:#}"), "").exit_code(2))
        }
        Ok(config) => match LinuxExecutor::start(config).await {
            Ok(executor) => found(&mut report, &executor),
            Err(error) => not_possible(&mut report, &error),
        },
    }
    report.push(match args.sandbox.network {
        NetworkArg::None => Line::ok("network", "none: the sandbox's own loopback only"),
        NetworkArg::Host => Line::warn(
            "network",
            "the host's, unfiltered: commands reach whatever this host can reach",
            "leave --network out",
        ),
    });
    queue(&mut report, &args).await;
    if args.json {
        println!("{:#}", report.to_json());
    } else {
        print!("{}", report.table(Colour::Auto));
    }
    report.exit_code()
}

/// The queue, if an environment was named.
async fn queue(report: &mut Report, args: &CheckArgs) {
    let folder = compose::state_dir(args.sandbox.state_dir.as_deref()).unwrap_or_default();
    match compose::queue(&args.queue, &compose::worker_folder(&folder)) {
        Ok(None) => report.push(Line::skip(
            "queue",
            "no environment named: give --environment-id and its key to check the queue too",
        )),
        Ok(Some(config)) => report.extend(mcp_sandbox_worker::check(&config).await),
        Err(error) => {
            let cure = "see `mcp-sandbox check --help`";
            report.push(Line::fail("queue", format!("{error:#}"), cure).exit_code(2));
        }
    }
}

fn found(report: &mut Report, executor: &LinuxExecutor) {
    let found = executor.report();
    let what = match found.tier {
        Tier::T1 => {
            "private user ids and control groups for each sandbox; commands cannot reach root"
        }
        Tier::T2 => {
            "namespaces; commands run with a user id that other sandboxes or the caller share"
        }
        Tier::T3 => "Landlock and seccomp on the host's own files, no namespaces",
    };
    report.push(match found.tier {
        Tier::T1 => Line::ok("tier", format!("T1: {what}")),
        tier => Line::warn("tier", format!("{tier}: {what}"), "see the next lines"),
    });
    for reason in found.fell {
        let (why, cure) = split_cure(&reason);
        report.push(Line::warn("stronger tier", why, cure));
    }
    report.extend(found.layers.iter().map(line));
}

fn not_possible(report: &mut Report, error: &StartError) {
    let StartError::NotPossible { reasons } = error else {
        let chain = mcp_diagnostics::telemetry::chain(error).to_string();
        report.push(
            Line::fail(
                "launcher",
                chain,
                "run the program from a file that can be executed",
            )
            .exit_code(5),
        );
        return;
    };
    for reason in reasons {
        let (why, cure) = split_cure(reason);
        report.push(Line::fail("tier", why, cure).exit_code(4));
    }
}

fn line(layer: &Layer) -> Line {
    let hop = layer.name.clone();
    match layer.state {
        LayerState::InForce => Line::ok(hop, layer.detail.clone()),
        LayerState::Partial => Line::warn(
            hop,
            format!("{}. Exposes: {}", layer.detail, layer.exposes),
            layer.cure.clone(),
        ),
        _ => Line::warn(
            hop,
            format!("NOT in force: {}. Exposes: {}", layer.detail, layer.exposes),
            layer.cure.clone(),
        ),
    }
}

/// Reasons carry their cure in parentheses.
fn split_cure(reason: &str) -> (String, String) {
    match reason
        .strip_suffix(')')
        .and_then(|text| text.rsplit_once(" (cure: "))
    {
        Some((why, cure)) => (why.to_owned(), cure.to_owned()),
        None => (reason.to_owned(), String::new()),
    }
}

fn kernel() -> String {
    let read = |path| {
        fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let lsm = read("/sys/kernel/security/lsm");
    let lsm = if lsm.is_empty() {
        String::new()
    } else {
        format!("; security modules: {lsm}")
    };
    format!("Linux {}{lsm}", read("/proc/sys/kernel/osrelease"))
}
