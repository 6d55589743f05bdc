//! Numbered steps with their duration, coloured only on a terminal.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

/// Prints the progress of the tour.
pub(crate) struct Steps {
    began: Instant,
    number: u32,
    colour: bool,
}

impl Steps {
    pub(crate) fn new() -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some();
        Self {
            began: Instant::now(),
            number: 0,
            colour: std::io::stdout().is_terminal() && !plain,
        }
    }

    /// Announces the next step.
    pub(crate) fn step(&mut self, title: &str) {
        self.number += 1;
        let at = self.began.elapsed().as_secs_f32();
        println!(
            "\n{} {}",
            self.paint("1", &format!("{}. {title}", self.number)),
            self.dim(&format!("[{at:.1} s]"))
        );
    }

    /// Says one fact about the current step.
    pub(crate) fn say(&self, text: &str) {
        for line in text.lines() {
            println!("   {line}");
        }
    }

    /// Says that something holds.
    pub(crate) fn good(&self, text: &str) {
        println!("   {} {text}", self.paint("32", "ok"));
    }

    /// Says that something is less than it could be.
    pub(crate) fn less(&self, text: &str) {
        println!("   {} {text}", self.paint("33", "--"));
    }

    /// A command that the reader may type.
    pub(crate) fn command(&self, text: &str) {
        println!("   {} {text}", self.dim("$"));
    }

    fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

pub(crate) fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}
