//! The official Anthropic Python SDK, unmodified, against this program.

use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};

use crate::cloud::{Folder, errors, text};

/// What `cargo xtask setup` installs, below `target/tools`; `None` where it did not run,
/// which is told.
#[expect(clippy::print_stderr, reason = "a test that did not run is told")]
pub(crate) fn tool(name: &str) -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
        PathBuf::from,
    );
    let tool = target.join("tools").join(name);
    if tool.exists() {
        return Some(tool);
    }
    let why = format!("{} is missing: run `cargo xtask setup`", tool.display());
    assert!(
        std::env::var("CI_REQUIRE_ALL").as_deref() != Ok("1"),
        "{why}"
    );
    eprintln!("\n*** SKIPPED: {why}\n");
    None
}

fn authority() -> String {
    let mut params = CertificateParams::new(vec![]).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().expect("a key");
    params.self_signed(&key).expect("a certificate").pem()
}

#[test]
fn the_official_sdk_drives_every_operation_of_tunnels() {
    let Some(python) = tool("python/bin/python") else {
        return;
    };
    let folder = Folder::new();
    let cloud = folder.start(&[]);
    let key = std::fs::read_to_string(folder.path().join("admin.key")).unwrap();
    let mut command = Command::new(python);
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/anthropic_sdk.py"))
        .env_clear()
        .env("BASE_URL", cloud.address("api"))
        .env("API_KEY", key.trim());
    for number in 0..3 {
        command.env(format!("CA_{number}"), authority());
    }
    let output = command.output().expect("Python runs");
    assert!(
        output.status.success(),
        "{}\n{}",
        text(&output),
        errors(&output)
    );
    assert!(
        text(&output).contains("all operations answered"),
        "{}",
        text(&output)
    );
}
