//! The packages of the workspace, as their manifests have them.

use crate::shell::cargo;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;

/// All that cargo knows of each.
pub(crate) fn all() -> Result<Vec<Value>> {
    let output = cargo("metadata --format-version 1 --no-deps --locked").output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo metadata: {said}");
    let mut metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    match metadata["packages"].take() {
        Value::Array(packages) => Ok(packages),
        _ => anyhow::bail!("cargo metadata lists no packages"),
    }
}

/// The names of those that are released.
pub(crate) fn published() -> Result<Vec<String>> {
    let packages = all()?;
    let published = packages.iter().filter(|package| is_published(package));
    Ok(published.filter_map(name).collect())
}

/// What is released, by the oldest compiler that it promises to build with: `1.88.0` and names.
pub(crate) fn by_oldest_compiler() -> Result<BTreeMap<String, Vec<String>>> {
    let mut groups = BTreeMap::<_, Vec<_>>::new();
    for package in all()?.iter().filter(|package| is_published(package)) {
        let version = package["rust_version"]
            .as_str()
            .context("no rust-version")?;
        let toolchain = format!("{version}.0");
        groups.entry(toolchain).or_default().extend(name(package));
    }
    Ok(groups)
}

fn is_published(package: &Value) -> bool {
    package["publish"]
        .as_array()
        .is_none_or(|registries| !registries.is_empty())
}

fn name(package: &Value) -> Option<String> {
    package["name"].as_str().map(str::to_owned)
}
