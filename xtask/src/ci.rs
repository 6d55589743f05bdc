//! What continuous integration runs, in the order that fails soonest.

use crate::shell::{cargo, left_out, root, step, works};
use crate::{api, bench, fuzz, miri, packages, release, setup, tidy, tools};
use anyhow::Result;
use std::process::Command;

/// Crates without IO, clock or randomness: they build for wasm32.
pub(crate) const SANS_IO: [&str; 8] = [
    "managed-agents-api",
    "managed-agents-loop",
    "mcp-dial-guard",
    "mcp-messages",
    "mcp-sandbox-executor",
    "mcp-skill-zip",
    "mcp-tunnel-auth",
    "mcp-tunnel-proto",
];

/// How long each fuzz target runs here; `cargo xtask fuzz` runs longer.
const SMOKE_SECONDS: u32 = 1;

/// Whether a test may be left out where a program or a privilege is missing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Skipping {
    /// On a user's machine: it says so loudly.
    Allowed,
    /// In continuous integration: it fails.
    Forbidden,
}

/// Every test of the workspace, and the guided first run.
pub(crate) fn test(skipping: Skipping) -> Result<()> {
    setup::run()?;
    let mut tests = cargo("test --workspace --locked --quiet");
    if skipping == Skipping::Forbidden {
        tests.env("CI_REQUIRE_ALL", "1");
    }
    step("tests", tests.env("RUST_BACKTRACE", "1"))?;
    // The README's command, with a profile that compiles in a third of the time: speed is what benchmarks look at.
    let mut quickstart = cargo("run --locked --quiet --release -p quickstart");
    if skipping == Skipping::Forbidden {
        quickstart
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "256")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0");
    }
    step("quickstart", &mut quickstart)
}

/// Every test and every check; `full` adds the long ones.
pub(crate) fn run(full: bool) -> Result<()> {
    step("format", &mut cargo("fmt --all --check"))?;
    tidy::run()?;
    step(
        "lints",
        &mut cargo("clippy --workspace --all-targets --locked --quiet -- -D warnings"),
    )?;
    wasm()?;
    test(Skipping::Forbidden)?;
    docs()?;
    fuzz::run(None, SMOKE_SECONDS, false)?;
    step(
        "bans, licences, sources",
        &mut deny("check --hide-inclusion-graph bans licenses sources")?,
    )?;
    if full {
        long()?;
    }
    Ok(())
}

/// Known vulnerabilities in the dependencies.
pub(crate) fn audit() -> Result<()> {
    step("advisories", &mut deny("check advisories")?)
}

fn wasm() -> Result<()> {
    step(
        "wasm32 target",
        Command::new("rustup").args(["target", "add", "wasm32-unknown-unknown"]),
    )?;
    let packages = SANS_IO.map(|name| format!("-p {name}")).join(" ");
    let build = format!("check --locked --quiet --target wasm32-unknown-unknown {packages}");
    step("wasm32 build of the crates without IO", &mut cargo(&build))
}

fn docs() -> Result<()> {
    let mut command = cargo("doc --workspace --no-deps --locked --quiet");
    step("documentation", command.env("RUSTDOCFLAGS", "-D warnings"))
}

fn long() -> Result<()> {
    setup::run_for_long()?;
    sandboxes()?;
    features()?;
    api::run(false)?;
    release::semver()?;
    release::package()?;
    bench::run("mux", true, None)?;
    oldest()?;
    miri::run()
}

/// Each package alone, with each set of its features: what a build of the whole workspace would lend it is missing then.
fn features() -> Result<()> {
    let mut hack = Command::new(tools::HACK.installed()?);
    // The defaults are sums of features that are tried by themselves.
    hack.args(["hack", "check", "--workspace", "--feature-powerset"])
        .args(["--exclude-features", "default", "--locked", "--quiet"])
        .current_dir(root());
    step("feature powerset", &mut hack)
}

/// The compilers that the manifests promise to build with.
fn oldest() -> Result<()> {
    for (version, names) in packages::by_oldest_compiler()? {
        let title = format!("compiler {version}");
        if !works(&format!("+{version} --version")) {
            left_out(&title, &format!("rustup toolchain install {version}"));
            continue;
        }
        let mut check = cargo(&format!("+{version} check --locked --quiet --all-features"));
        check.args(names.iter().flat_map(|name| ["-p", name]));
        step(&title, &mut check)?;
    }
    Ok(())
}

/// What the ordinary tests leave out: a user-mode Linux guest and a default container, each with the whole suite; the static
/// program as helper on a foreign root; another architecture.
fn sandboxes() -> Result<()> {
    let mut guests = cargo("test --locked --quiet -p mcp-sandbox-linux --test guests");
    step("sandboxes in guests", guests.env("SANDBOX_GUESTS", "1"))?;
    let build = "build --locked --quiet -p mcp-sandbox --target x86_64-unknown-linux-musl";
    step("static mcp-sandbox", &mut cargo(build))?;
    let program = root().join("target/x86_64-unknown-linux-musl/debug/mcp-sandbox");
    let mut rootfs = cargo("test --locked --quiet -p mcp-sandbox-linux --test rootfs");
    step(
        "static mcp-sandbox on a foreign root",
        rootfs.env("SANDBOX_HELPER", program),
    )?;
    let check = "check --locked --quiet -p mcp-sandbox-linux --target aarch64-unknown-linux-gnu";
    step("sandboxes for aarch64", &mut cargo(check))
}

fn deny(args: &str) -> Result<Command> {
    let mut command = Command::new(tools::DENY.installed()?);
    command.args(args.split(' ')).current_dir(root());
    Ok(command)
}
