//! Results: printed in the form that README.md holds, and written as JSON.

use std::{fmt::Write as _, fs, io, path::Path};

use serde_json::{Value, json};

/// Rows of figures side by side, the best of each in bold.
#[derive(Debug, Clone)]
pub struct Table {
    title: String,
    columns: Vec<String>,
    /// Columns from here on are a ceiling, not a rival.
    rivals: usize,
    rows: Vec<Row>,
}

#[derive(Debug, Clone)]
struct Row {
    name: String,
    unit: Unit,
    figures: Vec<Option<f64>>,
    /// What is shown in place of a figure.
    texts: Vec<String>,
}

/// How a figure is shown, and which is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Per second; more is better.
    BytesPerSecond,
    /// Per second; more is better.
    PerSecond,
    /// Fewer are better.
    Seconds,
    /// Fewer are better.
    Nanoseconds,
    /// Fewer are better.
    Bytes,
    /// Fewer are better.
    Count,
    /// Of another figure; less is better.
    Share,
}

impl Table {
    /// A table whose first `rivals` columns are compared.
    pub fn new(title: &str, columns: &[&str], rivals: usize) -> Self {
        Self {
            title: title.to_owned(),
            columns: columns.iter().map(|&name| name.to_owned()).collect(),
            rivals,
            rows: Vec::new(),
        }
    }

    /// Appends a row, and says on the error stream that it is done.
    pub fn push(&mut self, name: &str, unit: Unit, figures: Vec<Option<f64>>) {
        let texts = figures.iter().map(|figure| unit.show(*figure)).collect();
        self.push_shown(name, unit, figures, texts);
    }

    /// The same with other words than the figures'.
    pub fn push_shown(
        &mut self,
        name: &str,
        unit: Unit,
        figures: Vec<Option<f64>>,
        texts: Vec<String>,
    ) {
        progress(&format!("{}: {name}: {}", self.title, texts.join("  ")));
        self.rows.push(Row {
            name: name.to_owned(),
            unit,
            figures,
            texts,
        });
    }

    /// Whether there is nothing to show.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// For README.md.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "| {} | {} |", self.title, self.columns.join(" | "));
        let _ = writeln!(text, "|---|{}", "---|".repeat(self.columns.len()));
        for row in &self.rows {
            let best = row.best(self.rivals);
            let cells = row.texts.iter().enumerate().map(|(column, text)| {
                if Some(column) == best {
                    format!("**{text}**")
                } else {
                    text.clone()
                }
            });
            let cells: Vec<_> = cells.collect();
            let _ = writeln!(text, "| {} | {} |", row.name, cells.join(" | "));
        }
        text
    }

    fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({ "name": row.name, "unit": format!("{:?}", row.unit), "figures": row.figures })
        });
        json!({
            "title": self.title,
            "columns": self.columns,
            "rows": rows.collect::<Vec<_>>(),
        })
    }
}

impl Row {
    /// The best of the rivals, where there are several.
    fn best(&self, rivals: usize) -> Option<usize> {
        let rivals = self.figures.iter().take(rivals).enumerate();
        let figures: Vec<_> = rivals
            .filter_map(|(at, figure)| Some((at, (*figure)?)))
            .collect();
        if figures.len() < 2 {
            return None;
        }
        let compare = |a: &&(usize, f64), b: &&(usize, f64)| a.1.total_cmp(&b.1);
        let best = match self.unit {
            Unit::BytesPerSecond | Unit::PerSecond => figures.iter().max_by(compare),
            _ => figures.iter().min_by(compare),
        };
        best.map(|(at, _)| *at)
    }
}

impl Unit {
    fn show(self, figure: Option<f64>) -> String {
        let Some(figure) = figure else {
            return String::new();
        };
        match self {
            Self::BytesPerSecond if figure >= 1e9 => format!("{:.2} GB/s", figure / 1e9),
            Self::BytesPerSecond => format!("{:.1} MB/s", figure / 1e6),
            Self::PerSecond if figure >= 99_950.0 => format!("{:.0}k/s", figure / 1e3),
            Self::PerSecond if figure >= 1e3 => format!("{:.1}k/s", figure / 1e3),
            Self::PerSecond => format!("{figure:.1}/s"),
            Self::Seconds if figure < 1e-3 => format!("{:.0} µs", figure * 1e6),
            Self::Seconds => format!("{:.2} ms", figure * 1e3),
            Self::Nanoseconds => format!("{figure:.0} ns"),
            Self::Bytes if figure >= 10_240.0 => format!("{:.1} KiB", figure / 1024.0),
            Self::Bytes => format!("{figure:.0} B"),
            Self::Count if figure >= 1e3 => format!("{:.1}k", figure / 1e3),
            Self::Count => format!("{figure:.3}"),
            Self::Share => format!("{:+.1} %", (figure - 1.0) * 100.0),
        }
    }
}

/// Prints the tables that hold anything, and writes them where asked.
///
/// # Errors
/// The file cannot be written.
pub fn finish(tables: &[Table], json: Option<&Path>) -> io::Result<()> {
    let mut whole = String::new();
    for table in tables.iter().filter(|table| !table.is_empty()) {
        let _ = writeln!(whole, "\n{}", table.markdown().trim_end());
    }
    io::Write::write_all(&mut io::stdout(), whole.as_bytes())?;
    match json {
        Some(file) => fs::write(
            file,
            Value::from_iter(tables.iter().map(Table::json)).to_string(),
        ),
        None => Ok(()),
    }
}

/// One line on the error stream.
#[expect(
    clippy::print_stderr,
    reason = "whoever waits for a benchmark wants to see it move"
)]
pub fn progress(line: &str) {
    eprintln!("{line}");
}

/// The middle one; `None` of none.
pub fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}
