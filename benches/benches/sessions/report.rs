//! The figures, as lines and as JSON.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

#[derive(Default)]
pub(crate) struct Report(Vec<Value>);

impl Report {
    /// The median of so many times.
    pub(crate) fn times(&mut self, what: &str, mut times: Vec<Duration>) {
        times.sort_unstable();
        let at = |part: usize| {
            let time = times.get(times.len() * part / 100);
            time.copied().unwrap_or_default().as_secs_f64() * 1000.0
        };
        let (median, p90) = (at(50), at(90));
        println!(
            "{what}: {median:.1} ms, p90 {p90:.1} ms ({} rounds)",
            times.len()
        );
        self.0
            .push(json!({"name": what, "median_ms": median, "p90_ms": p90, "rounds": times.len()}));
    }

    /// How much of something.
    pub(crate) fn figure(&mut self, what: &str, figure: f64, unit: &str) {
        println!("{what}: {figure:.0} {unit}");
        self.0
            .push(json!({"name": what, "figure": figure, "unit": unit}));
    }

    /// What was not measured, and why.
    pub(crate) fn left_out(&mut self, what: &str, why: &str) {
        println!("{what}: left out: {why}");
        self.0.push(json!({"name": what, "left_out": why}));
    }

    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.0)?;
        fs::write(file, text).with_context(|| format!("writing {}", file.display()))
    }
}
