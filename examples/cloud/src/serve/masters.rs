//! The master keys, and whether those are all there that the database counts on.
//!
//! A file has one key a line, the newest first. A line `lost ID` says that an older one is gone for good: tokens that
//! were derived from it go on working, since edges verify them by public keys, but nobody can show them again.

use std::path::Path;

use anyhow::Context as _;
use mcp_tunnel_auth::{MasterKey, MasterKeyId};
use secrecy::{ExposeSecret as _, SecretString};

use super::console::random;
use crate::args::ServeArgs;
use crate::data::{DataFolder, read_secret};
use crate::failure::Failure;
use crate::out::say;

/// What a file of master keys says.
#[derive(Debug, Default)]
pub(super) struct MasterKeys {
    keys: Vec<MasterKey>,
    lost: Vec<MasterKeyId>,
}

impl MasterKeys {
    /// The newest key and the older ones, wherever they are.
    pub(super) fn for_use(
        data: &DataFolder,
        args: &ServeArgs,
        in_use: &[MasterKeyId],
    ) -> Result<(MasterKey, Vec<MasterKey>), Failure> {
        let mut keys = match &args.master_key_file {
            Some(file) => Self::given(file, in_use)?,
            None => Self::of(data, in_use)?,
        }
        .into_iter();
        let newest = keys
            .next()
            .ok_or_else(|| Failure::internal(anyhow::anyhow!("no master key")))?;
        Ok((newest, keys.collect()))
    }

    /// Those of the operator's own file.
    fn given(file: &Path, in_use: &[MasterKeyId]) -> Result<Vec<MasterKey>, Failure> {
        let read = Self::parse(&read_secret(file)?)?;
        read.check(in_use, file)?;
        if read.keys.is_empty() {
            return Err(Failure::wrong(
                "the master key file is empty",
                "put the key back from your copy",
            ));
        }
        Ok(read.keys)
    }

    /// Those of the data folder. The first start makes one; a later one does so only where no token needs the key that
    /// is missing.
    fn of(data: &DataFolder, in_use: &[MasterKeyId]) -> Result<Vec<MasterKey>, Failure> {
        let file = data.file(FILE);
        let text = match file.exists() {
            true => read_secret(&file)?,
            false => SecretString::default(),
        };
        let mut read = Self::parse(&text)?;
        read.check(in_use, &file)?;
        if read.keys.is_empty() {
            let (key, line) = new_key()?;
            let content = format!("{line}\n{}", text.expose_secret());
            data.write(FILE, &content, 0o600)?;
            say!(
                "made {}: tunnel tokens are derived from it; keep a copy",
                file.display()
            );
            read.keys.push(key);
        }
        Ok(read.keys)
    }

    fn parse(text: &SecretString) -> Result<Self, Failure> {
        let mut read = Self::default();
        let lines = text.expose_secret().lines().map(str::trim);
        for line in lines.filter(|line| !line.is_empty()) {
            let wrong = |error| {
                let error = anyhow::Error::new(error).context("reading the master key file");
                Failure::usage(error, "one key a line, the newest first, or `lost ID`")
            };
            match line.strip_prefix("lost ") {
                Some(id) => read
                    .lost
                    .push(MasterKeyId::parse(id.trim()).map_err(wrong)?),
                None => read.keys.push(MasterKey::parse(line).map_err(wrong)?),
            }
        }
        Ok(read)
    }

    /// A key that is missing is more often misplaced than lost: a new one in its place would go into tokens before
    /// anybody notices.
    fn check(&self, in_use: &[MasterKeyId], file: &Path) -> Result<(), Failure> {
        let is_known = |id: &&MasterKeyId| {
            self.lost.contains(id) || self.keys.iter().any(|key| key.id() == **id)
        };
        match in_use.iter().find(|id| !is_known(id)) {
            None => Ok(()),
            Some(missing) => Err(Failure::wrong(
                format_args!(
                    "the master key {missing}, which tokens in the database are derived from, is not in {}",
                    file.display()
                ),
                format!(
                    "put it back from your copy, on a line of its own (mode 600); if it is gone for good, put the line \
                     `lost {missing}` there: gateways go on working, and each tunnel gets a new token by `tunnel rotate`"
                ),
            )),
        }
    }
}

fn new_key() -> Result<(MasterKey, String), Failure> {
    let bytes: [u8; 32] = random();
    let line: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let key = MasterKey::parse(&line)
        .context("making a master key")
        .map_err(Failure::internal)?;
    Ok((key, line))
}

const FILE: &str = "master.key";
