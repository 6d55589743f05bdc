//! Log set-up of the programs: level, text or JSON, standard error.
//!
//! Crates that are not of this workspace are held at `info`, whatever level is asked for: their own traces may print
//! header values, and a header value may be a credential.

use std::error::Error;
use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};

/// Installs the process-wide subscriber that writes to standard error.
///
/// # Errors
///
/// When a subscriber was installed before.
pub fn init(level: LogLevel, format: LogFormat) -> Result<(), TelemetryError> {
    let ansi = std::io::stderr().is_terminal();
    tracing::subscriber::set_global_default(subscriber(level, format, ansi, std::io::stderr))
        .map_err(|_| TelemetryError::AlreadyInstalled)
}

/// The subscriber that [`init`] installs, over any writer; for programs and tests that scope their own.
pub fn subscriber<W>(
    level: LogLevel,
    format: LogFormat,
    ansi: bool,
    writer: W,
) -> impl Subscriber + Send + Sync + use<W>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(ansi);
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(level.targets()))
}

/// An error and everything below it, for one log line: `connecting: connection refused`.
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl fmt::Display + 'a {
    struct Chain<'a>(&'a (dyn Error + 'static));

    impl fmt::Display for Chain<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{}", self.0)?;
            let mut next = self.0.source();
            while let Some(source) = next {
                write!(f, ": {source}")?;
                next = source.source();
            }
            Ok(())
        }
    }

    Chain(error)
}

/// How much is logged: `off`, `error`, `warn`, `info`, `debug` or `trace`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLevel(LevelFilter);

impl LogLevel {
    /// What is not as it should be.
    pub const WARN: Self = Self(LevelFilter::WARN);
    /// Lifecycle, a handful of lines a link.
    pub const INFO: Self = Self(LevelFilter::INFO);
    /// Everything, down to each frame.
    pub const TRACE: Self = Self(LevelFilter::TRACE);

    fn targets(self) -> Targets {
        OWN_TARGETS.iter().fold(
            Targets::new().with_default(self.0.min(LevelFilter::INFO)),
            |targets, own| targets.with_target(*own, self.0),
        )
    }
}

impl Default for LogLevel {
    fn default() -> Self {
        Self::INFO
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for LogLevel {
    type Err = TelemetryError;

    fn from_str(text: &str) -> Result<Self, TelemetryError> {
        match text {
            "off" => Ok(Self(LevelFilter::OFF)),
            "error" => Ok(Self(LevelFilter::ERROR)),
            "warn" => Ok(Self(LevelFilter::WARN)),
            "info" => Ok(Self(LevelFilter::INFO)),
            "debug" => Ok(Self(LevelFilter::DEBUG)),
            "trace" => Ok(Self(LevelFilter::TRACE)),
            _ => Err(TelemetryError::Level),
        }
    }
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

impl FromStr for LogFormat {
    type Err = TelemetryError;

    fn from_str(text: &str) -> Result<Self, TelemetryError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(TelemetryError::Format),
        }
    }
}

/// Why telemetry could not be set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// `--log-level` is none of the six words.
    #[error("log level must be one of off, error, warn, info, debug, trace")]
    Level,
    /// `--log-format` is neither of the two words.
    #[error("log format must be text or json")]
    Format,
    /// Another subscriber or recorder is in place already.
    #[error("telemetry is installed already")]
    AlreadyInstalled,
}

/// Prefixes of the targets whose records are ours, and proven to carry no secret.
const OWN_TARGETS: [&str; 2] = ["mcp_", "managed_agents_"];

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: LogLevel, format: LogFormat, log: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        tracing::subscriber::with_default(
            subscriber(level, format, false, move || writer.clone()),
            log,
        );
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn foreign_crates_are_held_at_info() {
        let text = logged(LogLevel::TRACE, LogFormat::Text, || {
            tracing::trace!(target: "hyper::proto", "authorization: Bearer x");
            tracing::debug!(target: "rustls::client", "hello");
            tracing::info!(target: "hyper::proto", "foreign info");
            tracing::trace!(target: "mcp_tunnel_proto::frame", "own trace");
        });
        assert!(
            !text.contains("Bearer") && !text.contains("hello"),
            "{text}"
        );
        assert!(
            text.contains("foreign info") && text.contains("own trace"),
            "{text}"
        );
    }

    #[test]
    fn a_level_below_info_holds_for_everyone() {
        let text = logged("error".parse().unwrap(), LogFormat::Text, || {
            tracing::info!(target: "hyper", "foreign");
            tracing::info!(target: "mcp_x", "own");
        });
        assert_eq!(text, "");
    }

    #[test]
    fn json_is_one_object_a_line_with_fields_beside_the_message() {
        let text = logged(LogLevel::INFO, LogFormat::Json, || {
            tracing::info!(target: "mcp_x", bytes = 7, "sent");
            tracing::info!(target: "mcp_x", "again");
        });
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(
            (&lines[0]["message"], &lines[0]["bytes"]),
            (&"sent".into(), &7.into())
        );
    }

    #[test]
    fn a_chain_names_every_cause() {
        #[derive(Debug, thiserror::Error)]
        #[error("connecting")]
        struct Outer(#[source] io::Error);
        let error = Outer(io::Error::other("refused"));
        assert_eq!(chain(&error).to_string(), "connecting: refused");
    }

    #[test]
    fn words_are_exact() {
        assert_eq!("verbose".parse::<LogLevel>(), Err(TelemetryError::Level));
        assert_eq!("JSON".parse::<LogFormat>(), Err(TelemetryError::Format));
        assert_eq!("json".parse::<LogFormat>(), Ok(LogFormat::Json));
        assert_eq!("trace".parse::<LogLevel>().unwrap().to_string(), "trace");
    }
}
