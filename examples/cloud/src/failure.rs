//! What ends the program, with its cure and exit code.

use std::fmt;

use managed_agents_client::{BuildError, ClientError};

/// What ends the program.
#[derive(Debug)]
pub(crate) struct Failure {
    code: Code,
    what: anyhow::Error,
    cure: Option<String>,
}

/// Exit codes, the same as of the other programs where they mean the same.
#[derive(Debug, Clone, Copy)]
enum Code {
    Refused = 1,
    Usage = 2,
    Credential = 3,
    Unreachable = 4,
    Internal = 5,
}

impl Failure {
    /// What was given cannot be used: exit code 2.
    pub(crate) fn usage(what: impl Into<anyhow::Error>, cure: impl Into<String>) -> Self {
        Self::new(Code::Usage, what.into(), Some(cure.into()))
    }

    /// The same for a text.
    pub(crate) fn wrong(what: impl fmt::Display, cure: impl Into<String>) -> Self {
        Self::usage(anyhow::anyhow!("{what}"), cure)
    }

    /// Somebody else said no: exit code 1.
    pub(crate) fn refused(what: impl fmt::Display, cure: impl Into<String>) -> Self {
        Self::new(Code::Refused, anyhow::anyhow!("{what}"), Some(cure.into()))
    }

    /// Nobody answers: exit code 4.
    pub(crate) fn unreachable(what: impl Into<anyhow::Error>, cure: impl Into<String>) -> Self {
        Self::new(Code::Unreachable, what.into(), Some(cure.into()))
    }

    /// It is not the user's fault: exit code 5.
    pub(crate) fn internal(what: impl Into<anyhow::Error>) -> Self {
        Self::new(Code::Internal, what.into(), None)
    }

    pub(crate) fn code(&self) -> u8 {
        self.code as u8
    }

    fn new(code: Code, what: anyhow::Error, cure: Option<String>) -> Self {
        Self { code, what, cure }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mcp-cloud: {:#}", self.what)?;
        match &self.cure {
            Some(cure) => write!(f, "\n  {cure}"),
            None => Ok(()),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Api(refusal) if refusal.status == 401 => Self::new(
                Code::Credential,
                error.into(),
                Some(
                    "use the API key of this cloud: --api-key-file, or the --data it was made in"
                        .into(),
                ),
            ),
            ClientError::Api(_) => Self::new(Code::Refused, error.into(), None),
            ClientError::Connection { .. } | ClientError::TimedOut { .. } => Self::unreachable(
                error,
                "start it with `mcp-cloud --data DIR`, or name another one with --base-url",
            ),
            _ => Self::new(Code::Refused, error.into(), None),
        }
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        Self::usage(error, "see --base-url, --api-key-file and --ca-file")
    }
}
