//! Workers as processes: ours, and the official ones as their documentation starts them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// What a worker is started with.
pub(crate) struct Place<'a> {
    pub(crate) url: &'a str,
    pub(crate) environment: &'a str,
    pub(crate) key: &'a str,
    /// A folder of its own.
    pub(crate) workdir: &'a Path,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ours,
    Python,
    TypeScript,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Ours, Self::Python, Self::TypeScript];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "mcp-sandbox worker",
            Self::Python => "official worker, Python",
            Self::TypeScript => "official worker, TypeScript",
        }
    }

    /// What it needs and where that is.
    ///
    /// # Errors
    /// It is not there.
    pub(crate) fn find(self) -> Result<PathBuf> {
        let path = match self {
            Self::Ours => match env::var_os("MCP_SANDBOX") {
                Some(path) => PathBuf::from(path),
                None => target().join("release/mcp-sandbox"),
            },
            Self::Python => tools().join("python/bin/python"),
            Self::TypeScript => {
                let machine = match env::consts::ARCH {
                    "aarch64" => "arm64",
                    _ => "x64",
                };
                tools().join(format!("node/node_modules/node-linux-{machine}/bin/node"))
            }
        };
        let cure = match self {
            Self::Ours => "cargo build --release -p mcp-sandbox",
            Self::Python | Self::TypeScript => "cargo xtask setup",
        };
        anyhow::ensure!(path.exists(), "{} is missing: run `{cure}`", path.display());
        Ok(path)
    }

    pub(crate) fn start(self, program: &Path, place: &Place<'_>) -> Result<Worker> {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .env("HOME", place.workdir)
            .env("WORKDIR", place.workdir)
            .env("ANTHROPIC_BASE_URL", place.url)
            .env("ANTHROPIC_ENVIRONMENT_ID", place.environment)
            .env("ENVIRONMENT_ID", place.environment)
            .env("ANTHROPIC_ENVIRONMENT_KEY", place.key);
        match self {
            Self::Ours => {
                command
                    .args(["--log-level", "warn", "worker", "--workdir"])
                    .arg(place.workdir);
            }
            Self::Python => {
                command.arg(root().join("examples/cloud/tests/sdk/worker.py"));
            }
            Self::TypeScript => {
                command
                    .arg(root().join("examples/cloud/tests/sdk/worker.mjs"))
                    .env("SDK", tools().join("node/package.json"));
            }
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        Ok(Worker(child))
    }
}

/// A running worker.
pub(crate) struct Worker(Child);

impl Worker {
    /// Ends it in good order, or after a while otherwise.
    pub(crate) async fn end(mut self) -> Result<()> {
        if let Some(process) = self.0.id() {
            let mut kill = Command::new("kill");
            kill.args(["-TERM", &process.to_string()]).status().await?;
        }
        if timeout(Duration::from_secs(10), self.0.wait())
            .await
            .is_err()
        {
            self.0.kill().await?;
        }
        Ok(())
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

fn tools() -> PathBuf {
    target().join("tools")
}
