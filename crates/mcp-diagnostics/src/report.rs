//! A check report: one line a hop, each failure with its cure.

use std::borrow::Cow;
use std::fmt;
use std::io::IsTerminal;
use std::time::Duration;

use serde::Serialize;

/// What a program found out about itself and its surroundings, hop by hop.
#[derive(Debug, Clone, Default)]
pub struct Report {
    lines: Vec<Line>,
}

impl Report {
    /// A report without lines; its exit code is 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next hop's line.
    pub fn push(&mut self, line: Line) {
        self.lines.push(line);
    }

    /// The lines in the order in which they were added.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Whether no line failed; warnings do not count.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.lines.iter().all(|line| line.status != Status::Fail)
    }

    /// 0 without a failure, else the code of the first line that failed.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.lines
            .iter()
            .find(|line| line.status == Status::Fail)
            .map_or(0, |line| line.exit_code)
    }

    /// The report for people, one line a hop and one more for each cure.
    #[must_use]
    pub fn table(&self, colour: Colour) -> Table<'_> {
        Table {
            report: self,
            coloured: colour.applies(),
        }
    }

    /// The report for programs, as one JSON object.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "ok": self.is_ok(),
            "exit_code": self.exit_code(),
            "lines": self.lines,
        })
    }
}

impl Extend<Line> for Report {
    fn extend<I: IntoIterator<Item = Line>>(&mut self, lines: I) {
        self.lines.extend(lines);
    }
}

/// One hop of a report.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Line {
    /// What was looked at, in one or two words: `dns`, `mcp docs`.
    pub hop: Cow<'static, str>,
    /// How it is.
    pub status: Status,
    /// What was found, one sentence without a full stop.
    pub text: String,
    /// What to do about it; always there on a failure.
    pub cure: Option<String>,
    /// How long the hop took, in milliseconds.
    pub ms: Option<f64>,
    #[serde(skip)]
    exit_code: u8,
}

impl Line {
    /// A hop that works.
    #[must_use]
    pub fn ok(hop: impl Into<Cow<'static, str>>, text: impl Into<String>) -> Self {
        Self::new(hop, Status::Ok, text, None)
    }

    /// A hop that works but should be changed.
    #[must_use]
    pub fn warn(
        hop: impl Into<Cow<'static, str>>,
        text: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self::new(hop, Status::Warn, text, Some(cure.into()))
    }

    /// A hop that does not work; its exit code is 1 unless [`Line::exit_code`] says otherwise.
    #[must_use]
    pub fn fail(
        hop: impl Into<Cow<'static, str>>,
        text: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self::new(hop, Status::Fail, text, Some(cure.into()))
    }

    /// A hop that was not looked at, and why.
    #[must_use]
    pub fn skip(hop: impl Into<Cow<'static, str>>, why: impl Into<String>) -> Self {
        Self::new(hop, Status::Skip, why, None)
    }

    /// States how long the hop took.
    #[must_use]
    pub fn took(mut self, elapsed: Duration) -> Self {
        self.ms = Some((elapsed.as_secs_f64() * 1e5).round() / 1e2);
        self
    }

    /// Sets what the program exits with if this line is the first that failed.
    #[must_use]
    pub fn exit_code(mut self, code: u8) -> Self {
        self.exit_code = code;
        self
    }

    fn new(
        hop: impl Into<Cow<'static, str>>,
        status: Status,
        text: impl Into<String>,
        cure: Option<String>,
    ) -> Self {
        Self {
            hop: hop.into(),
            status,
            text: text.into(),
            cure,
            ms: None,
            exit_code: 1,
        }
    }
}

/// How a hop is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(clippy::exhaustive_enums, reason = "complete by definition")]
pub enum Status {
    /// It works.
    Ok,
    /// It works, and something about it should be changed.
    Warn,
    /// It does not work.
    Fail,
    /// It was not looked at.
    Skip,
}

impl Status {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
            Self::Skip => "skip",
        }
    }

    const fn ansi(self) -> &'static str {
        match self {
            Self::Ok => "\x1b[32m",
            Self::Warn => "\x1b[33m",
            Self::Fail => "\x1b[31m",
            Self::Skip => "\x1b[2m",
        }
    }
}

/// When a table is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by definition")]
pub enum Colour {
    /// When standard output is a terminal and `NO_COLOR` is not set.
    Auto,
    /// Never.
    Never,
    /// Always.
    Always,
}

impl Colour {
    fn applies(self) -> bool {
        match self {
            Self::Auto => {
                std::io::stdout().is_terminal()
                    && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
            }
            Self::Never => false,
            Self::Always => true,
        }
    }
}

/// A report written out for people; made by [`Report::table`].
#[derive(Debug)]
pub struct Table<'a> {
    report: &'a Report,
    coloured: bool,
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.report.lines();
        let hop_width = lines
            .iter()
            .map(|line| line.hop.chars().count())
            .max()
            .unwrap_or(0);
        for line in lines {
            let (on, off) = if self.coloured {
                (line.status.ansi(), RESET)
            } else {
                ("", "")
            };
            let word = line.status.word();
            let hop = Printable(&line.hop);
            let ms = line.ms.map_or_else(String::new, |ms| format!("{ms:.1} ms"));
            writeln!(
                f,
                "{on}{word:<4}{off}  {hop:<hop_width$}  {ms:>10}  {}",
                Printable(&line.text)
            )?;
            if let Some(cure) = &line.cure {
                let indent = hop_width + 20;
                writeln!(f, "{:indent$}-> {}", "", Printable(cure))?;
            }
        }
        Ok(())
    }
}

/// Text that may come from a peer: control characters cannot reach the terminal.
struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clean: String = self
            .0
            .chars()
            .map(|c| if c.is_control() { '\u{fffd}' } else { c })
            .collect();
        f.pad(&clean)
    }
}

const RESET: &str = "\x1b[0m";

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Report {
        let mut report = Report::new();
        report.push(Line::ok("token", "tunnel tnl_1"));
        report.push(Line::ok("dns", "127.0.0.1").took(Duration::from_micros(1234)));
        report.push(Line::warn(
            "mcp docs",
            "listens on 0.0.0.0:3000",
            "bind it to 127.0.0.1",
        ));
        report.push(Line::fail("tcp", "connection refused", "start the edge").exit_code(4));
        report.push(Line::skip("tls", "no connection"));
        report
    }

    #[test]
    fn table_aligns_hops_and_names_each_cure() {
        let want = "\
ok    token                 tunnel tnl_1
ok    dns           1.2 ms  127.0.0.1
warn  mcp docs              listens on 0.0.0.0:3000
                            -> bind it to 127.0.0.1
FAIL  tcp                   connection refused
                            -> start the edge
skip  tls                   no connection
";
        assert_eq!(sample().table(Colour::Never).to_string(), want);
    }

    #[test]
    fn colour_surrounds_the_status_alone() {
        let table = sample().table(Colour::Always).to_string();
        assert!(table.contains("\x1b[31mFAIL\x1b[0m  tcp"), "{table}");
    }

    #[test]
    fn exit_code_is_that_of_the_first_failure() {
        assert_eq!(Report::new().exit_code(), 0);
        let mut report = sample();
        report.push(Line::fail("mcp", "refused", "start it").exit_code(1));
        assert_eq!(report.exit_code(), 4);
        assert!(!report.is_ok());
    }

    #[test]
    fn json_carries_every_field_and_the_verdict() {
        let json = sample().to_json();
        assert_eq!(json["ok"], false);
        assert_eq!(json["exit_code"], 4);
        assert_eq!(json["lines"][1]["ms"], 1.23);
        assert_eq!(
            json["lines"][2],
            serde_json::json!({"hop": "mcp docs", "status": "warn", "text": "listens on 0.0.0.0:3000",
                "cure": "bind it to 127.0.0.1", "ms": null})
        );
    }

    #[test]
    fn control_characters_of_a_peer_never_reach_the_terminal() {
        let mut report = Report::new();
        report.push(Line::ok("mcp", "server \x1b]0;owned\x07 1.0\nok    fake"));
        let table = report.table(Colour::Never).to_string();
        assert_eq!(table.lines().count(), 1);
        assert!(!table.contains(['\x1b', '\x07']));
    }
}
