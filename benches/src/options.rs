//! What the command line asks of a benchmark.

use std::{env, path::PathBuf};

/// Options that all benchmarks of this package take.
#[derive(Debug, Default)]
pub struct Options {
    /// One short round: to see that it works.
    pub quick: bool,
    /// Write the tables here too.
    pub json: Option<PathBuf>,
    /// Only rows whose title or name contains this.
    pub only: Option<String>,
    /// No table, but one piece of work so many times: for counting instructions.
    pub once: Option<(String, usize)>,
    /// What is left.
    pub rest: Vec<String>,
}

impl Options {
    /// Of this process.
    pub fn of_process() -> Self {
        let mut options = Self::default();
        let mut words = env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--quick" => options.quick = true,
                "--json" => options.json = words.next().map(PathBuf::from),
                "--only" => options.only = words.next(),
                "--once" => {
                    let count = |text: String| text.parse().ok();
                    options.once = words.next().zip(words.next().and_then(count));
                }
                // Cargo says so to every benchmark.
                "--bench" => {}
                _ => options.rest.push(word),
            }
        }
        options
    }

    /// Whether a row is asked for.
    pub fn wants(&self, row: &str) -> bool {
        self.only.as_ref().is_none_or(|only| row.contains(only))
    }
}
