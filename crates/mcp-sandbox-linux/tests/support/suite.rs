//! Runs the suite on this machine, as whoever we are and, as root, as an ordinary user.

use std::collections::BTreeSet;
use std::env;
use std::fs;

use mcp_sandbox_conformance::{LocalHost, Suite};
use mcp_sandbox_executor::Executor as _;
use mcp_sandbox_linux::{Config, LinuxExecutor, Tier};

use crate::{holdings, user};

/// Runs it once for each tier that is to be the strongest.
pub(crate) fn run_here(filter: Option<&str>, strongest: &[Tier]) {
    // The run as an ordinary user is part of the first one.
    let first = !user::is_second_run();
    let _alone = first.then(holdings::alone);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.unwrap();
    for tier in strongest {
        runtime.block_on(suite(filter, *tier));
    }
    if first {
        user::run_again(filter);
    }
}

async fn suite(filter: Option<&str>, strongest: Tier) {
    let state = tempfile::tempdir().unwrap();
    // At T3 commands reach their workspace by its path.
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(state.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let config = Config::new().with_state_dir(state.path()).unwrap();
    let config = config.dangerous_strongest_tier(strongest);
    let executor = match LinuxExecutor::start(config).await {
        Ok(executor) => executor,
        Err(error) => return skip(&format!("no sandbox can be made here: {error}")),
    };
    let report = executor.report();
    println!(
        "tier {}; not stronger because: {:?}",
        report.tier, report.fell
    );
    for layer in &report.layers {
        println!("  {:<14} {:?}: {}", layer.name, layer.state, layer.detail);
    }
    let host = LocalHost::start()
        .unwrap()
        .with_holdings(holdings::holdings);
    let mut suite = Suite::new(&executor).with_host(&host);
    if let Some(text) = filter {
        suite = suite.only(text);
    }
    let outcome = suite.run().await;
    println!("{outcome}");
    assert!(outcome.passed());
    assert_eq!(outcome.not_observable().count(), 0);
    if filter.is_none() {
        let skipped = outcome
            .skipped()
            .map(|case| case.id)
            .collect::<BTreeSet<_>>();
        let freezer = executor.capabilities().persistence.suspend;
        assert_eq!(
            skipped,
            expected_skips(report.tier, freezer),
            "skips must be explained"
        );
    }
    for name in executor.workspaces().await.unwrap() {
        executor.delete_workspace(&name).await.unwrap();
    }
    assert!(
        fs::read_dir(state.path().join("workspaces"))
            .unwrap()
            .next()
            .is_none()
    );
}

/// What a weaker tier cannot do: no control groups.
fn expected_skips(tier: Tier, freezer: bool) -> BTreeSet<&'static str> {
    let mut skips = BTreeSet::new();
    if tier != Tier::T1 {
        skips.extend(["R02", "R03"]);
    }
    if tier == Tier::T3 {
        // No file system of its own, no /proc and no host name of its own.
        skips.extend(["F08", "L04", "P01", "P02", "P03", "R04", "R05", "R16"]);
        if !rustix::process::geteuid().is_root() {
            skips.insert("R01");
        }
    }
    if !freezer {
        skips.insert("S05");
    }
    skips
}

/// Where everything is required a skip is a failure.
fn skip(why: &str) {
    assert!(env::var_os("CI_REQUIRE_ALL").is_none(), "{why}");
    println!("SKIPPED conformance: {why}");
}
