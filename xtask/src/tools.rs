//! Tools of cargo's own kind, each of one version, compiled under `target/tools` at first use.

use crate::shell::{cargo, step, tools_folder};
use anyhow::{Context, Result};
use std::{fs, path::PathBuf};

/// A tool and the version that these checks are written for.
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    version: &'static str,
}

pub(crate) const DENY: Tool = Tool::new("cargo-deny", "0.20.2");
pub(crate) const HACK: Tool = Tool::new("cargo-hack", "0.6.46");
/// Reads the rustdoc JSON of the pinned compiler; takes minutes to compile.
pub(crate) const SEMVER_CHECKS: Tool = Tool::new("cargo-semver-checks", "0.51.0");

impl Tool {
    const fn new(name: &'static str, version: &'static str) -> Self {
        Self { name, version }
    }

    /// Its path; installs it where this version is not there.
    pub(crate) fn installed(&self) -> Result<PathBuf> {
        let (name, version) = (self.name, self.version);
        if !self.is_installed() {
            // Unoptimized: compiling takes longer than all that the tool then does.
            let install = format!("install --locked --quiet --debug {name}@{version} --root");
            let mut install = cargo(&install);
            // A folder for what is built, shared with the workspace, would keep a gigabyte of it.
            install.arg(tools_folder()).env_remove("CARGO_TARGET_DIR");
            step(&format!("installing {name} {version}"), &mut install).with_context(|| {
                format!("{name} comes from crates.io: is it reachable from here?")
            })?;
        }
        Ok(tools_folder().join("bin").join(name))
    }

    /// Cargo notes what it has installed.
    pub(crate) fn is_installed(&self) -> bool {
        let noted = fs::read_to_string(tools_folder().join(".crates.toml")).unwrap_or_default();
        noted.contains(&format!("\"{} {} (", self.name, self.version))
    }
}
