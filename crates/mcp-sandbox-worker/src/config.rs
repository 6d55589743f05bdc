//! What an operator says about a worker.

use std::path::PathBuf;
use std::time::Duration;

use mcp_sandbox_executor::SandboxSpec;
use mcp_tunnel_auth::{CredentialKind, WrongCredential};
use rustls_pki_types::CertificateDer;
use secrecy::{ExposeSecret as _, SecretString};
use thiserror::Error;

use crate::desk::KeepLimits;

/// Settings of a [`Worker`](crate::Worker).
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    pub(crate) base_url: String,
    pub(crate) environment: String,
    pub(crate) key: Option<SecretString>,
    pub(crate) roots: Vec<CertificateDer<'static>>,
    pub(crate) worker_id: String,
    pub(crate) folder: PathBuf,
    pub(crate) spec: SandboxSpec,
    pub(crate) max_sessions: usize,
    pub(crate) max_idle: Option<Duration>,
    pub(crate) limits: KeepLimits,
}

/// Why a configuration is not acceptable.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WorkerConfigError {
    /// Another kind of credential was given.
    #[error("environment key")]
    Key(#[from] WrongCredential),
    /// An environment's id is needed.
    #[error("{0:?} is not the id of an environment")]
    Environment(String),
    /// A credential was given as the environment's id.
    #[error("environment id")]
    EnvironmentIsSecret(#[source] WrongCredential),
    /// The worker's id goes into a header.
    #[error("a worker id has 1 to 128 printable ASCII characters")]
    WorkerId,
    /// A variable of every sandbox holds a credential.
    #[error(
        "the variable {0} would put a credential inside sandboxes, where an agent's commands read it"
    )]
    Variable(String),
    /// There must be work to do, within reason.
    #[error("a worker serves 1 to 4096 sessions at once")]
    MaxSessions,
}

impl WorkerConfig {
    /// A worker of `environment` at `base_url`. Its own files (journals, logs, its socket) are kept in `folder`, which only
    /// its user may enter.
    ///
    /// # Errors
    /// The id is none.
    pub fn new(
        base_url: impl Into<String>,
        environment: impl Into<String>,
        folder: impl Into<PathBuf>,
    ) -> Result<Self, WorkerConfigError> {
        let environment = environment.into();
        // Ids are logged and shown.
        CredentialKind::Identifier
            .expect(&environment)
            .map_err(WorkerConfigError::EnvironmentIsSecret)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if !(1..=128).contains(&environment.len()) || !environment.bytes().all(plain) {
            return Err(WorkerConfigError::Environment(environment));
        }
        Ok(Self {
            base_url: base_url.into(),
            environment,
            key: None,
            roots: Vec::new(),
            worker_id: default_worker_id(),
            folder: folder.into(),
            spec: SandboxSpec::new(),
            max_sessions: 16,
            max_idle: Some(Duration::from_secs(60)),
            limits: KeepLimits {
                sandbox_idle: Duration::from_secs(30 * 60),
                session_keep: Duration::from_secs(24 * 3600),
                keep_bytes: 50 * 1024 * 1024 * 1024,
            },
        })
    }

    /// Authenticates with an environment key.
    ///
    /// # Errors
    /// It is recognised as another kind of credential.
    pub fn with_key(mut self, key: SecretString) -> Result<Self, WorkerConfigError> {
        match CredentialKind::recognise(key.expose_secret()) {
            // The vendor's environment keys are OAuth access tokens.
            None | Some(CredentialKind::EnvironmentKey | CredentialKind::VendorOauthToken) => {}
            Some(_) => CredentialKind::EnvironmentKey.expect(key.expose_secret())?,
        }
        self.key = Some(key);
        Ok(self)
    }

    /// Trusts these authorities, and with at least one given, only these.
    #[must_use]
    pub fn with_roots(mut self, roots: impl IntoIterator<Item = CertificateDer<'static>>) -> Self {
        self.roots.extend(roots);
        self
    }

    /// Names this worker to the queue. Default: host name and 12 random digits.
    ///
    /// # Errors
    /// It cannot be a header's value.
    pub fn with_worker_id(mut self, id: impl Into<String>) -> Result<Self, WorkerConfigError> {
        let id = id.into();
        if !(1..=128).contains(&id.len()) || !id.bytes().all(|byte| (0x21..0x7f).contains(&byte)) {
            return Err(WorkerConfigError::WorkerId);
        }
        self.worker_id = id;
        Ok(self)
    }

    /// What each session's sandbox is like; its workspace and labels are the worker's business.
    ///
    /// # Errors
    /// A variable holds a credential of this product or of the vendor's: tools could read it.
    pub fn with_sandboxes(mut self, spec: SandboxSpec) -> Result<Self, WorkerConfigError> {
        let secret = |value: &str| {
            let kind = CredentialKind::recognise(value);
            kind.is_some_and(|kind| !matches!(kind, CredentialKind::Identifier))
                || self
                    .key
                    .as_ref()
                    .is_some_and(|key| key.expose_secret() == value)
        };
        if let Some((name, _)) = spec.env.iter().find(|(_, value)| secret(value)) {
            return Err(WorkerConfigError::Variable(name.clone()));
        }
        self.spec = spec;
        Ok(self)
    }

    /// Sessions served at once. Default: 16.
    ///
    /// Each costs a sandbox (its memory limit), an event stream and a few hundred KiB here.
    ///
    /// # Errors
    /// It is 0 or beyond 4,096.
    pub fn with_max_sessions(mut self, count: usize) -> Result<Self, WorkerConfigError> {
        if !(1..=4096).contains(&count) {
            return Err(WorkerConfigError::MaxSessions);
        }
        self.max_sessions = count;
        Ok(self)
    }

    /// Gives an item back when its session had nothing to do for so long; `None`: never. Default: 60 s.
    #[must_use]
    pub fn with_max_idle(mut self, idle: Option<Duration>) -> Self {
        self.max_idle = idle;
        self
    }

    /// Ends a session's sandbox so long after its last item; its files stay. Default: 30 min.
    #[must_use]
    pub fn with_sandbox_idle(mut self, idle: Duration) -> Self {
        self.limits.sandbox_idle = idle;
        self
    }

    /// Keeps a session's files so long after their last use. Default: 24 h.
    #[must_use]
    pub fn with_session_keep(mut self, keep: Duration) -> Self {
        self.limits.session_keep = keep;
        self
    }

    /// Keeps so many bytes of files without a sandbox; the longest unused go first. Default: 50 GiB.
    #[must_use]
    pub fn with_keep_bytes(mut self, bytes: u64) -> Self {
        self.limits.keep_bytes = bytes;
        self
    }

    /// The environment whose queue is served.
    #[must_use]
    pub fn environment(&self) -> &str {
        &self.environment
    }

    /// Where the queue is.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// The folder of sockets that [`ask_workers`](crate::ask_workers) wants.
    #[must_use]
    pub fn sockets(folder: &std::path::Path) -> PathBuf {
        folder.join("run")
    }
}

fn default_worker_id() -> String {
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    let host = host
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'));
    let host = host.take(64).collect::<String>();
    format!("{host}-{}", random_digits())
}

/// 12 hexadecimal digits.
fn random_digits() -> String {
    let mut entropy = [0; 6];
    // Without randomness two workers of one host share an id: statistics count them as one.
    let _ = getrandom::fill(&mut entropy);
    entropy.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> WorkerConfig {
        WorkerConfig::new("http://127.0.0.1:1", "env_01", "/tmp/x").unwrap()
    }

    #[test]
    fn another_kind_of_credential_is_named() {
        for good in ["mce_x", "sk-ant-oat01-x", "something of a gateway"] {
            assert!(config().with_key(good.into()).is_ok(), "{good}");
        }
        for bad in ["sk-ant-api03-secret", "mca_secret", "mct_secret"] {
            let error = config().with_key(bad.into()).unwrap_err();
            let text = mcp_diagnostics::telemetry::chain(&error).to_string();
            assert!(text.contains("environment key"), "{text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn a_credential_among_the_variables_of_sandboxes_is_refused() {
        let with = |value: &str| {
            let config = config().with_key("of a gateway".into()).unwrap();
            config.with_sandboxes(SandboxSpec::new().with_env("NAME", value))
        };
        assert!(with("plain").is_ok() && with("env_01").is_ok());
        for secret in ["of a gateway", "sk-ant-api03-x", "mca_x"] {
            let error = with(secret).unwrap_err().to_string();
            assert!(error.contains("NAME") && !error.contains(secret), "{error}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(WorkerConfig::new("http://x", "../env", "/x").is_err());
        assert!(WorkerConfig::new("http://x", "", "/x").is_err());
        let secret = WorkerConfig::new("http://x", "mce_secret", "/x").unwrap_err();
        let text = mcp_diagnostics::telemetry::chain(&secret).to_string();
        assert!(
            text.contains("an environment key") && !text.contains("secret"),
            "{text}"
        );
        assert!(config().with_max_sessions(0).is_err());
        assert!(config().with_worker_id("a\nb").is_err());
        assert!(config().worker_id.len() > 12);
    }
}
