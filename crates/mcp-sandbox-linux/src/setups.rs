//! Where the results of setup scripts are kept: the launcher's side.

use std::io;
use std::path::Path;

use mcp_sandbox_executor::WorkspaceName;
use sha2::{Digest as _, Sha256};

use crate::config::{Config, RootSource};
use crate::image::hex;
use crate::message::{DeleteOutcome, SetupStep, SetupUse};
use crate::workspace::Workspaces;

/// The folder, and the two names in it that this launcher uses.
#[derive(Debug)]
pub(crate) struct Setups {
    pub(crate) folder: Workspaces,
    kept: WorkspaceName,
    building: WorkspaceName,
}

/// The name under which the result of this configuration's script is kept.
pub(crate) fn kept_name(config: &Config) -> Option<String> {
    config.setup.as_ref().map(|script| name(config, script))
}

fn name(config: &Config, script: &str) -> String {
    let root = match &config.root {
        RootSource::Host => String::new(),
        RootSource::Folder(path) | RootSource::Layout(path) => path.to_string_lossy().into_owned(),
    };
    let digest = Sha256::new()
        .chain_update(root)
        .chain_update([0])
        .chain_update(script)
        .finalize();
    hex(&digest)
}

/// Whether it was being made by a launcher that no longer lives.
fn is_left_over(name: &WorkspaceName) -> bool {
    let maker = name.as_str().strip_prefix("new-");
    let pid = maker.and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
    pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

impl Setups {
    /// Opens or makes `STATE_DIR/setup`. The kept one is named by the script's content
    /// and the root that it ran on.
    pub(crate) fn open(config: &Config, script: &str, as_root: bool) -> io::Result<Self> {
        let digest = name(config, script);
        let building = format!("new-{}-{}", std::process::id(), &digest[..40]);
        let folder = Workspaces::open(config, "setup", as_root, true)?;
        for left in folder.list().iter().filter(|name| is_left_over(name)) {
            folder.delete(left);
        }
        Ok(Self {
            folder,
            kept: WorkspaceName::parse(&digest).map_err(io::Error::other)?,
            building: WorkspaceName::parse(&building).map_err(io::Error::other)?,
        })
    }

    /// The one that a sandbox gets.
    pub(crate) fn name(&self, used: SetupUse) -> Option<&WorkspaceName> {
        match used {
            SetupUse::None => None,
            SetupUse::Kept => Some(&self.kept),
            SetupUse::Build => Some(&self.building),
        }
    }

    pub(crate) fn step(&self, step: SetupStep) -> bool {
        match step {
            SetupStep::Has => self.folder.has(&self.kept),
            SetupStep::Keep => {
                let renamed = self.folder.rename(&self.building, &self.kept);
                // Somebody else was faster with the same script.
                renamed.is_ok() || (self.folder.has(&self.kept) && self.step(SetupStep::Drop))
            }
            SetupStep::Drop => self.folder.delete(&self.building) == DeleteOutcome::Done,
        }
    }
}
