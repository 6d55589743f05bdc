use std::error::Error as StdError;
use std::io;

use thiserror::Error;

type Source = Box<dyn StdError + Send + Sync>;

/// Why a sandbox could not be made or found.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The specification asks for something this backend does not do.
    #[error("this backend cannot provide {what}")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
    },
    /// The specification asks for something this backend's operator forbids.
    #[error("not allowed by the executor's configuration: {what}")]
    Forbidden {
        /// What was asked for.
        what: String,
    },
    /// No sandbox of this id is alive.
    #[error("no such sandbox")]
    NotFound,
    /// The backend has no room for another one now.
    #[error("no capacity for another sandbox")]
    Full,
    /// A required layer of isolation could not be put in force.
    #[error("isolation step `{step}` is not possible here")]
    Isolation {
        /// The step that was refused.
        step: String,
        /// What the system answered.
        #[source]
        source: Source,
    },
    /// The backend could not be reached or answered nonsense.
    #[error("the sandbox backend is not available")]
    Backend(#[source] Source),
}

/// Why an operation on a live sandbox did not succeed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// This backend does not do that; its capabilities say so.
    #[error("this backend cannot {what}")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
    },
    /// The sandbox is gone: destroyed, expired or killed.
    #[error("the sandbox is gone")]
    Gone,
    /// The connection to the command is lost, so its fate is unknown.
    #[error("the connection to the command is lost")]
    Lost,
    /// The program does not exist inside.
    #[error("program not found")]
    ProgramNotFound,
    /// The program exists and cannot be executed.
    #[error("program is not executable")]
    ProgramNotExecutable,
    /// The working directory does not exist inside.
    #[error("working directory not found")]
    WorkingDirectory,
    /// A limit of the sandbox was met before the command started.
    #[error("limit reached: {what}")]
    Limit {
        /// Which limit.
        what: &'static str,
    },
    /// The command line, environment or path is not acceptable.
    #[error("invalid {what}")]
    Invalid {
        /// Which part.
        what: &'static str,
    },
    /// No such file inside.
    #[error("no such file")]
    FileNotFound,
    /// A file inside could not be read or written.
    #[error("file operation refused inside the sandbox")]
    File(#[source] Source),
    /// The backend could not be reached or answered nonsense.
    #[error("the sandbox backend is not available")]
    Backend(#[source] Source),
}

impl SandboxError {
    /// Why the operating system did not start a program.
    pub fn not_started(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::ProgramNotFound,
            io::ErrorKind::PermissionDenied => Self::ProgramNotExecutable,
            io::ErrorKind::InvalidInput => Self::Invalid {
                what: "command line",
            },
            _ => Self::Backend(error.into()),
        }
    }
}

impl From<io::Error> for SandboxError {
    fn from(error: io::Error) -> Self {
        Self::Backend(error.into())
    }
}

impl From<io::Error> for CreateError {
    fn from(error: io::Error) -> Self {
        Self::Backend(error.into())
    }
}
