//! What a release asks: the version that the changes since the last one need, and crates that package.

use crate::shell::{cargo, root, step, tools};
use anyhow::Result;
use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
};

/// Packages that are never published.
const OWN: [&str; 3] = ["benches", "fuzz", "xtask"];

/// Whether the versions fit what has changed since the last release. Says loudly what keeps it from looking.
pub(crate) fn semver() -> Result<()> {
    let Some(tag) = last_release()? else {
        eprintln!("\n== semver: NOT CHECKED, there is no tag v* yet to compare with");
        return Ok(());
    };
    let Some(tool) = semver_checks() else {
        eprintln!(
            "\n== semver: NOT CHECKED, `cargo install --locked cargo-semver-checks` is missing"
        );
        return Ok(());
    };
    let mut check = Command::new(tool);
    check.args(["semver-checks", "--workspace", "--baseline-rev", &tag]);
    for name in OWN {
        check.args(["--exclude", name]);
    }
    step(&format!("semver since {tag}"), check.current_dir(root()))
}

/// Every crate packages, and builds from its package.
pub(crate) fn package() -> Result<()> {
    let excluded = OWN.map(|name| format!("--exclude {name}")).join(" ");
    let command = format!("package --workspace {excluded} --locked --quiet");
    step("packages", &mut cargo(&command))
}

fn last_release() -> Result<Option<String>> {
    let output = Command::new("git")
        .args(["describe", "--tags", "--abbrev=0", "--match", "v*"])
        .stderr(Stdio::null())
        .current_dir(root())
        .output()?;
    let tag = String::from_utf8(output.stdout)?.trim().to_owned();
    Ok((output.status.success() && !tag.is_empty()).then_some(tag))
}

/// Too large to be installed in passing.
fn semver_checks() -> Option<PathBuf> {
    let name = "cargo-semver-checks";
    let path = env::var_os("PATH")?;
    let mut folders = env::split_paths(&path).chain([tools().join("bin")]);
    folders.find_map(|folder| Some(folder.join(name)).filter(|program| program.is_file()))
}
