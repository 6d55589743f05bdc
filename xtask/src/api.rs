//! The public API of the crates without IO, listed and compared with the list that was committed.
//!
//! rustdoc's JSON is unstable, so that the compiler is asked for it with `RUSTC_BOOTSTRAP`; nothing else is built so.

use crate::{
    ci::SANS_IO,
    shell::{cargo, quiet_step, root},
};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Compares; with `bless` the lists are written instead.
pub(crate) fn run(bless: bool) -> Result<()> {
    let mut changed = Vec::new();
    for name in SANS_IO {
        let found = list(name)?;
        let kept = root().join(format!("xtask/api/{name}.txt"));
        if bless {
            fs::write(&kept, found).with_context(|| format!("writing {}", kept.display()))?;
        } else if fs::read_to_string(&kept).unwrap_or_default() != found {
            show(&kept, name, &found)?;
            changed.push(name);
        }
    }
    if !changed.is_empty() {
        bail!(
            "the public API of {} has changed, as shown above; if it was meant: `cargo xtask api --bless`, and a line \
             in CHANGELOG.md",
            changed.join(", ")
        );
    }
    Ok(())
}

/// One line per item, without what is derived or follows from others: as `cargo public-api -sss` has it.
fn list(name: &str) -> Result<String> {
    let mut doc = cargo(&format!("rustdoc --locked --quiet --lib -p {name}"));
    doc.args(["--", "-Z", "unstable-options", "--output-format", "json"]);
    let title = format!("public API of {name}");
    quiet_step(&title, doc.env("RUSTC_BOOTSTRAP", "1"))?;
    let json = target().join(format!("doc/{}.json", name.replace('-', "_")));
    let api = public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .context("this reads the JSON of Rust 1.95's rustdoc")?;
    Ok(api.to_string())
}

fn show(kept: &Path, name: &str, found: &str) -> Result<()> {
    let new = target().join(format!("{name}.api.txt"));
    fs::write(&new, found)?;
    Command::new("git")
        .args(["--no-pager", "diff", "--no-index"])
        .args([kept, &new])
        .status()?;
    Ok(())
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}
