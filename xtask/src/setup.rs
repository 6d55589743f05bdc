//! `cargo xtask setup`: the third-party tools that tests and benchmarks need.
//!
//! Everything goes to `target/tools/`, pinned by the manifests of `xtask/tools/`. Each part leaves
//! a stamp with the manifests it was made from, so that a second run does nothing.

use crate::{
    miri, packages,
    shell::tools_folder,
    tools::{self, Tool},
};
use anyhow::{Context, Result, bail, ensure};
use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

/// Installs what the tests need and is not there yet.
pub(crate) fn run() -> Result<()> {
    part("wasm32 target", || rust_target("wasm32-unknown-unknown"))?;
    part("npm tools", || npm("node"))?;
    part("MCP Inspector", || npm("inspector"))?;
    part("Python tools", || python("python"))?;
    part("older Python SDK", || python("python-0"))?;
    part("openssl", || debian("openssl", "/usr/bin/openssl"))?;
    part("iproute2", || debian("iproute2", "/sbin/ip"))?;
    // The documentation folder tells it from the dynamic busybox, which has the same path.
    part("static busybox", || {
        debian("busybox-static", "/usr/share/doc/busybox-static")
    })
}

/// Installs what only the benchmarks need: more Debian packages, and a peer.
pub(crate) fn run_for_benches() -> Result<()> {
    part("sshd", || debian("openssh-server", "/usr/sbin/sshd"))?;
    part("valgrind", || debian("valgrind", "/usr/bin/valgrind"))?;
    part("rathole", rathole)
}

/// Installs what only the long checks need: guests for sandboxes, the targets that they are built for, compilers, and
/// tools of cargo's kind.
pub(crate) fn run_for_long() -> Result<()> {
    part("aarch64 target", || {
        rust_target("aarch64-unknown-linux-gnu")
    })?;
    part("musl target", || rust_target("x86_64-unknown-linux-musl"))?;
    part("musl compiler", || {
        debian("musl-tools", "/usr/bin/musl-gcc")
    })?;
    part("user-mode Linux", || {
        debian("user-mode-linux", "/usr/bin/linux")
    })?;
    part("docker", || debian("docker.io", "/usr/sbin/dockerd"))?;
    for version in packages::by_oldest_compiler()?.keys() {
        part(&format!("compiler {version}"), || toolchain(version, &[]))?;
    }
    for tool in [tools::DENY, tools::HACK, tools::SEMVER_CHECKS] {
        part(tool.name, || cargo_tool(&tool))?;
    }
    part("miri", || toolchain(miri::TOOLCHAIN, &["miri", "rust-src"]))
}

/// What a part did.
enum Outcome {
    Present,
    Installed,
    /// Not possible here; whatever needs it says so when it is skipped.
    Without(String),
}

fn part(name: &str, install: impl FnOnce() -> Result<Outcome>) -> Result<()> {
    print!("setup: {name:<16} ");
    std::io::stdout().flush()?;
    let start = Instant::now();
    match install().inspect_err(|_| println!("failed"))? {
        Outcome::Present => println!("present"),
        Outcome::Installed => println!("installed in {:.1} s", start.elapsed().as_secs_f32()),
        Outcome::Without(why) => println!("left out: {why}"),
    }
    Ok(())
}

fn rust_target(target: &str) -> Result<Outcome> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    if Path::new(sysroot.trim())
        .join("lib/rustlib")
        .join(target)
        .exists()
    {
        return Ok(Outcome::Present);
    }
    if !on_path("rustup") {
        return Ok(Outcome::Without(format!(
            "no rustup; add the target {target} with whatever installed rustc"
        )));
    }
    output(Command::new("rustup").args(["target", "add", target]))?;
    Ok(Outcome::Installed)
}

/// A compiler beside the usual one. What cannot be had here is named again by the step that is left out for it.
fn toolchain(name: &str, components: &[&str]) -> Result<Outcome> {
    if !on_path("rustup") {
        return Ok(Outcome::Without("no rustup".to_owned()));
    }
    let run = |args: &[&str]| output(Command::new("rustup").args(args));
    let rustc = run(&["run", name, "rustc", "--version"]);
    let installed = rustc.is_ok()
        && components.iter().all(|component| {
            let listed = run(&["component", "list", "--installed", "--toolchain", name]);
            listed.is_ok_and(|listed| listed.lines().any(|line| line.starts_with(component)))
        });
    if installed {
        return Ok(Outcome::Present);
    }
    let mut install = vec![
        "toolchain",
        "install",
        name,
        "--profile",
        "minimal",
        "--no-self-update",
    ];
    for component in components {
        install.extend(["--component", component]);
    }
    Ok(match run(&install) {
        Ok(_) => Outcome::Installed,
        Err(error) => Outcome::Without(format!("{error:#}")),
    })
}

fn cargo_tool(tool: &Tool) -> Result<Outcome> {
    if tool.is_installed() {
        return Ok(Outcome::Present);
    }
    tool.installed()?;
    Ok(Outcome::Installed)
}

fn npm(name: &str) -> Result<Outcome> {
    let (manifests, folder) = (manifests().join(name), tools_folder().join(name));
    let inputs = [
        manifests.join("package.json"),
        manifests.join("package-lock.json"),
    ];
    if stamped(&folder, &inputs)? {
        return Ok(Outcome::Present);
    }
    ensure!(
        on_path("npm"),
        "npm is not on the path: install Node.js 20 or newer (Debian: `apt-get install nodejs npm`) \
         and run `cargo xtask setup` again"
    );
    fs::create_dir_all(&folder)?;
    for input in &inputs {
        fs::copy(
            input,
            folder.join(input.file_name().context("a manifest has a name")?),
        )?;
    }
    let mut install = Command::new("npm");
    install
        .current_dir(&folder)
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .args(["--loglevel", "error"]);
    output(&mut install).context(
        "installing npm packages; is the registry reachable? (`npm ping`, `npm config get registry`)",
    )?;
    stamp(&folder, &inputs)?;
    Ok(Outcome::Installed)
}

fn python(name: &str) -> Result<Outcome> {
    let folder = tools_folder().join(name);
    let inputs = [manifests().join(name).join("requirements.txt")];
    if stamped(&folder, &inputs)? {
        return Ok(Outcome::Present);
    }
    ensure!(
        on_path("python3"),
        "python3 is not on the path: install Python 3.10 or newer and run `cargo xtask setup` again"
    );
    let venv = || output(Command::new("python3").args(["-m", "venv"]).arg(&folder));
    if let Err(error) = venv() {
        if !(is_root() && on_path("apt-get")) {
            return Err(error.context(
                "making a virtual environment; on Debian: `apt-get install python3-venv`",
            ));
        }
        apt_install("python3-venv")?;
        venv()?;
    }
    let mut install = Command::new(folder.join("bin/pip"));
    install
        .args(["install", "--quiet", "--disable-pip-version-check", "-r"])
        .arg(&inputs[0]);
    output(&mut install).context(
        "installing Python packages; is the package index reachable? (`pip config list`)",
    )?;
    stamp(&folder, &inputs)?;
    Ok(Outcome::Installed)
}

fn debian(package: &str, program: &str) -> Result<Outcome> {
    if Path::new(program).exists() {
        return Ok(Outcome::Present);
    }
    if !(is_root() && on_path("apt-get")) {
        return Ok(Outcome::Without(format!(
            "needs root on Debian; by hand: `apt-get install {package}`"
        )));
    }
    apt_install(package)?;
    Ok(Outcome::Installed)
}

/// Another tunnel to measure beside ours. Its own lock file no longer compiles.
fn rathole() -> Result<Outcome> {
    let folder = tools_folder().join("peers");
    if folder.join("bin/rathole").exists() {
        return Ok(Outcome::Present);
    }
    let mut install = Command::new("cargo");
    install
        .args(["install", "--quiet", "rathole", "--version", "0.5.0"])
        .args(["--no-default-features", "--features", "client,server,tls"])
        .arg("--root")
        .arg(&folder);
    Ok(match output(&mut install) {
        Ok(_) => Outcome::Installed,
        Err(_) => {
            Outcome::Without("does not build here; it needs libssl-dev and pkg-config".to_owned())
        }
    })
}

fn apt_install(package: &str) -> Result<()> {
    let install = || {
        output(
            Command::new("apt-get")
                .env("DEBIAN_FRONTEND", "noninteractive")
                .args(["install", "-y", "-q", "--no-install-recommends", package]),
        )
    };
    if install().is_err() {
        output(Command::new("apt-get").args(["update", "-q"]))?;
        install()?;
    }
    Ok(())
}

/// Whether `folder` was made from just these manifests.
fn stamped(folder: &Path, inputs: &[PathBuf]) -> Result<bool> {
    let made_from = fs::read_to_string(folder.join(STAMP)).unwrap_or_default();
    Ok(made_from == contents(inputs)?)
}

fn stamp(folder: &Path, inputs: &[PathBuf]) -> Result<()> {
    fs::write(folder.join(STAMP), contents(inputs)?).context("writing the stamp")
}

fn contents(inputs: &[PathBuf]) -> Result<String> {
    let mut all = String::new();
    for input in inputs {
        all +=
            &fs::read_to_string(input).with_context(|| format!("reading {}", input.display()))?;
    }
    Ok(all)
}

/// Runs a command; its output is shown only if it fails.
fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command
        .output()
        .with_context(|| format!("starting {program}"))?;
    if !done.status.success() {
        bail!(
            "{command:?} ended with {}\n{}{}",
            done.status,
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

fn on_path(program: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|uid| uid.trim() == "0")
}

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tools")
}

const STAMP: &str = ".stamp";
