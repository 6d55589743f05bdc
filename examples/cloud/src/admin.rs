//! Administration: a thin client of the REST API.

mod caller_key;
mod connection;
mod environment;
mod environment_key;
mod probe;
mod session;
mod table;
mod tunnel;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use managed_agents_api::{Tunnel, TunnelConnection};
use managed_agents_client::{Client, ClientConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::{ExposeSecret as _, SecretString};

use crate::args::RemoteArgs;
use crate::data::read_secret;
use crate::failure::Failure;
use crate::out::say;
use crate::serving::Serving;

#[derive(Debug, Subcommand)]
pub(crate) enum AdminCommand {
    /// Tunnels and their tokens
    #[command(subcommand)]
    Tunnel(tunnel::Command),
    /// Gateways: who may attach to a tunnel
    #[command(subcommand)]
    Connection(connection::Command),
    /// Keys of callers: who may call through a tunnel
    #[command(subcommand)]
    CallerKey(caller_key::Command),
    /// Environments: where the tools of sessions run
    #[command(subcommand)]
    Environment(environment::Command),
    /// Keys of an environment's workers
    #[command(subcommand)]
    EnvironmentKey(environment_key::Command),
    /// Sessions: commands in an environment, without a model
    #[command(subcommand)]
    Session(session::Command),
    /// Calls the servers behind a tunnel from this side, hop by hop
    Probe(probe::Arguments),
}

pub(crate) async fn run(
    data: Option<&Path>,
    remote: &RemoteArgs,
    command: AdminCommand,
) -> Result<u8, Failure> {
    let cloud = Cloud::find(data, remote)?;
    match command {
        AdminCommand::Tunnel(command) => tunnel::run(&cloud, command).await?,
        AdminCommand::Connection(command) => connection::run(&cloud, command).await?,
        AdminCommand::CallerKey(command) => caller_key::run(&cloud, command).await?,
        AdminCommand::Environment(command) => environment::run(&cloud, command).await?,
        AdminCommand::EnvironmentKey(command) => environment_key::run(&cloud, command).await?,
        AdminCommand::Session(command) => return session::run(&cloud, command).await,
        AdminCommand::Probe(arguments) => return probe::run(&cloud, arguments).await,
    }
    Ok(0)
}

/// The cloud that is administered.
pub(crate) struct Cloud {
    pub(crate) client: Client,
    /// What a cloud of this host says of itself.
    pub(crate) serving: Option<Serving>,
    ca_file: Option<PathBuf>,
    /// How this program was called, for the commands that it prints.
    pub(crate) called_as: String,
    pub(crate) json: bool,
}

impl Cloud {
    fn find(data: Option<&Path>, remote: &RemoteArgs) -> Result<Self, Failure> {
        match (&remote.base_url, data) {
            (Some(base_url), _) => Self::remote(base_url, data, remote),
            (None, Some(data)) => Self::local(data, remote.json),
            (None, None) => Err(Failure::wrong(
                "which cloud?",
                "give --data DIR of one on this host, or --base-url and --api-key-file",
            )),
        }
    }

    fn local(data: &Path, json: bool) -> Result<Self, Failure> {
        let called_as = format!("mcp-cloud --data {}", shell_word(&data.to_string_lossy()));
        if !data.join("admin.key").exists() {
            return Err(Failure::wrong(
                format_args!("{} is not the data folder of a cloud", data.display()),
                format!("start one there first: {called_as}"),
            ));
        }
        let serving = Serving::read(data).ok_or_else(|| {
            Failure::unreachable(
                anyhow::anyhow!("the cloud of {} is not running", data.display()),
                format!("start it in another terminal: {called_as}"),
            )
        })?;
        let key = read_secret(&data.join("admin.key"))?;
        let mut config = ClientConfig::new(&serving.base_url, trimmed(&key));
        if let (true, Some(roots)) = (serving.base_url.starts_with("https"), &serving.roots) {
            config = config.roots(certificates(roots)?);
        }
        Ok(Self {
            client: Client::new(config)?,
            serving: Some(serving),
            ca_file: None,
            called_as,
            json,
        })
    }

    fn remote(base_url: &str, data: Option<&Path>, remote: &RemoteArgs) -> Result<Self, Failure> {
        let mut called_as = format!("mcp-cloud --base-url {}", shell_word(base_url));
        let key_file = match (&remote.api_key_file, data) {
            (Some(file), _) => file.clone(),
            (None, Some(data)) => data.join("admin.key"),
            (None, None) => {
                return Err(Failure::wrong(
                    "--base-url needs a key",
                    "give --api-key-file FILE",
                ));
            }
        };
        called_as.push_str(&format!(
            " --api-key-file {}",
            shell_word(&key_file.to_string_lossy())
        ));
        let mut config = ClientConfig::new(base_url, trimmed(&read_secret(&key_file)?));
        if let Some(file) = &remote.ca_file {
            config = config.roots(certificates(file)?);
            called_as.push_str(&format!(
                " --ca-file {}",
                shell_word(&file.to_string_lossy())
            ));
        }
        Ok(Self {
            client: Client::new(config)?,
            serving: None,
            ca_file: remote.ca_file.clone(),
            called_as,
            json: remote.json,
        })
    }

    /// PEM file of the private CA of its certificates, where there is one.
    pub(crate) fn roots(&self) -> Option<&Path> {
        let own = self
            .serving
            .as_ref()
            .and_then(|serving| serving.roots.as_deref());
        own.or(self.ca_file.as_deref())
    }

    /// The tunnel that `text` names: by id, by display name, or by domain.
    pub(crate) async fn tunnel(&self, text: &str) -> Result<Tunnel, Failure> {
        if text.starts_with("tnl_") {
            return Ok(self.client.tunnels().retrieve(text).await?);
        }
        let all = self.client.tunnels().list().await?;
        let named = |tunnel: &&Tunnel| {
            tunnel.display_name.as_deref() == Some(text)
                || tunnel.domain == text
                || tunnel.domain.split('.').next() == Some(text)
        };
        let mut found = all.iter().filter(named);
        match (found.next(), found.next()) {
            (Some(tunnel), None) => Ok(tunnel.clone()),
            (None, _) => Err(Failure::refused(
                format_args!("no tunnel is called {text:?}"),
                format!("see them: {} tunnel list", self.called_as),
            )),
            (Some(_), Some(_)) => Err(Failure::refused(
                format_args!("more than one tunnel is called {text:?}"),
                format!("give its id: {} tunnel list", self.called_as),
            )),
        }
    }

    /// The gateways of one tunnel, or of all.
    pub(crate) async fn gateways(
        &self,
        tunnel: Option<&str>,
    ) -> Result<Vec<(Tunnel, TunnelConnection)>, Failure> {
        let tunnels = match tunnel {
            Some(text) => vec![self.tunnel(text).await?],
            None => self.client.tunnels().list().await?,
        };
        let mut gateways = Vec::new();
        for tunnel in tunnels {
            for gateway in self.client.connections(&tunnel.id).list().await? {
                gateways.push((tunnel.clone(), gateway));
            }
        }
        Ok(gateways)
    }

    /// The answer for programs, or what `show` prints for people.
    pub(crate) fn answer<T: serde::Serialize>(
        &self,
        answer: &T,
        show: impl FnOnce(),
    ) -> Result<(), Failure> {
        if self.json {
            let text = serde_json::to_string_pretty(answer).map_err(Failure::internal)?;
            say!("{text}");
        } else {
            show();
        }
        Ok(())
    }
}

/// What people call a tunnel.
pub(crate) fn name_of(tunnel: &Tunnel) -> &str {
    tunnel.display_name.as_deref().unwrap_or(&tunnel.id)
}

pub(crate) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| {
            let error = anyhow::Error::new(error).context(format!("reading {}", file.display()));
            Failure::usage(error, "a PEM file with CA certificates is expected")
        })
}

/// A word that a shell takes as it is meant.
pub(crate) fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+~".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

fn trimmed(secret: &SecretString) -> SecretString {
    secret.expose_secret().trim().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_words_survive_a_shell() {
        assert_eq!(shell_word("/tmp/a-b"), "/tmp/a-b");
        assert_eq!(shell_word("a b"), "'a b'");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
        assert_eq!(shell_word("$(x)"), "'$(x)'");
        assert_eq!(shell_word(""), "''");
    }
}
