//! What a release asks: the version that the changes since the last one need, and crates that package.

use crate::{
    ci::SANS_IO,
    packages,
    shell::{cargo, root, step},
    tools,
};
use anyhow::{Context, Result};
use std::{
    fs,
    process::{Command, Stdio},
};

/// Whether the versions fit what has changed since the last release.
///
/// Before the first one nothing can have changed, which is said; the comparison is tried all the same, of the last commit
/// with itself, so that the second release does not meet a tool that cannot read these crates.
pub(crate) fn semver() -> Result<()> {
    let mut check = Command::new(tools::SEMVER_CHECKS.installed()?);
    check.arg("semver-checks").current_dir(root());
    if let Some(tag) = last_release()? {
        check.args(["--baseline-rev", &tag]);
        check.args(packages::published()?.iter().flat_map(|name| ["-p", name]));
        return step(&format!("semver since {tag}"), &mut check);
    }
    eprintln!(
        "\n== semver: NO RELEASE YET, there is no tag v* to compare with; the tool is tried on the last commit"
    );
    check.args(["--baseline-rev", "HEAD"]);
    check.args(SANS_IO.iter().flat_map(|name| ["-p", name]));
    step("semver, rehearsed", &mut check)
}

/// Every crate that is released packages, and builds from its package.
pub(crate) fn package() -> Result<()> {
    // Built apart and thrown away: outside the workspace its profiles do not count, so that all is compiled anew.
    let target = root().join("target/packages");
    let mut package = cargo("package --locked --quiet");
    package
        .args(packages::published()?.iter().flat_map(|name| ["-p", name]))
        .arg("--target-dir")
        .arg(&target)
        .env("CARGO_PROFILE_DEV_DEBUG", "false");
    step("packages", &mut package)?;
    fs::remove_dir_all(&target).with_context(|| format!("removing {}", target.display()))
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
