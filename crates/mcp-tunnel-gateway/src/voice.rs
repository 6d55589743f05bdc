//! What the program says of itself: lines for people, or log lines for programs.

use std::fmt::Display;
use std::io::Write;

use mcp_diagnostics::telemetry::LogFormat;
use tracing::info;

/// How the program tells its state: lines on standard output, or log lines where programs read them.
pub(crate) struct Voice {
    pub(crate) format: LogFormat,
}

impl Voice {
    pub(crate) fn line(&self, text: impl Display) {
        match self.format {
            LogFormat::Json => info!("{text}"),
            _ => print(text),
        }
    }
}

/// A reader that has gone is no reason to stop.
pub(crate) fn print(text: impl Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
