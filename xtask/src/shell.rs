//! Running programs with a heading, a duration and an error worth reading.

use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

/// The folder of the workspace's Cargo.toml.
pub(crate) fn root() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path
}

/// Where tools that the project installs for itself live.
pub(crate) fn tools_folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR");
    target
        .map_or_else(|| root().join("target"), PathBuf::from)
        .join("tools")
}

/// A cargo command at the root of the workspace; `args` are split at spaces.
pub(crate) fn cargo(args: &str) -> Command {
    // Cargo hands its own toolchain down through RUSTUP_TOOLCHAIN; `+nightly` must win over it.
    let mut command = Command::new("cargo");
    command.args(args.split_whitespace()).current_dir(root());
    if args.starts_with('+') {
        command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
    }
    command
}

/// Runs one step to its end.
///
/// # Errors
/// When the program cannot be started, or ends with anything but success.
pub(crate) fn step(title: &str, command: &mut Command) -> Result<()> {
    eprintln!("\n== {title}");
    let began = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("starting {}", command.get_program().display()))?;
    let seconds = began.elapsed().as_secs_f32();
    if !status.success() {
        bail!(
            "{title}: ended with {status} after {seconds:.1} s; the command was {}",
            line(command)
        );
    }
    eprintln!("== {title}: {seconds:.1} s");
    Ok(())
}

/// Runs one step and shows its output only when it fails.
///
/// # Errors
/// As [`step`].
pub(crate) fn quiet_step(title: &str, command: &mut Command) -> Result<()> {
    eprintln!("\n== {title}");
    let output = command
        .output()
        .with_context(|| format!("starting {}", command.get_program().display()))?;
    if !output.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&output.stdout));
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        bail!(
            "{title}: ended with {}; the command was {}",
            output.status,
            line(command)
        );
    }
    Ok(())
}

/// Whether a cargo of another toolchain is there.
pub(crate) fn works(args: &str) -> bool {
    let output = cargo(args).output();
    output.is_ok_and(|output| output.status.success())
}

/// Says plainly that a step did not run: not every machine can have every toolchain.
pub(crate) fn left_out(title: &str, cure: &str) {
    eprintln!("\n== {title}: NOT RUN, its toolchain is missing here; to have it: {cure}");
}

fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|part| part.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
