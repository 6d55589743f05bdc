//! What was measured, as a table and as JSON.

use serde::Serialize;
use std::{collections::BTreeMap, fmt::Write};

/// One run of one path with so many connections.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Measure {
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) calls_per_second: f64,
    /// Processor time of the side that callers reach, milliseconds for 1,000 calls.
    pub(crate) edge_ms: f64,
    /// The same of the side next to the server.
    pub(crate) gateway_ms: f64,
}

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Results {
    /// By path and connections: the median of the rounds.
    pub(crate) calls: Vec<Row>,
    /// GB/s of a 200 MB download, by path: the median of the rounds.
    pub(crate) download_gb_per_second: Vec<(String, f64)>,
    /// MiB, by process, after the load.
    pub(crate) resident_mib: Vec<(String, f64)>,
    /// MiB of the program on disk.
    pub(crate) gateway_on_disk_mib: f64,
    /// What was not measured, and why.
    pub(crate) left_out: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) path: String,
    pub(crate) connections: usize,
    pub(crate) rounds: usize,
    #[serde(flatten)]
    pub(crate) median: Measure,
}

/// The rounds of every path and number of connections.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    calls: BTreeMap<(usize, usize), Vec<Measure>>,
    downloads: BTreeMap<usize, Vec<f64>>,
}

impl Rounds {
    pub(crate) fn add(&mut self, path: usize, connections: usize, measure: Measure) {
        self.calls
            .entry((path, connections))
            .or_default()
            .push(measure);
    }

    pub(crate) fn add_download(&mut self, path: usize, gb_per_second: f64) {
        self.downloads.entry(path).or_default().push(gb_per_second);
    }

    /// Medians, column by column; `names` are the paths in order.
    pub(crate) fn medians(&self, names: &[String]) -> (Vec<Row>, Vec<(String, f64)>) {
        let name = |path: &usize| names.get(*path).cloned().unwrap_or_default();
        let rows = self.calls.iter().map(|((path, connections), all)| {
            let column = |pick: fn(&Measure) -> f64| median(all.iter().map(pick).collect());
            Row {
                path: name(path),
                connections: *connections,
                rounds: all.len(),
                median: Measure {
                    p50_ms: column(|one| one.p50_ms),
                    p90_ms: column(|one| one.p90_ms),
                    p99_ms: column(|one| one.p99_ms),
                    calls_per_second: column(|one| one.calls_per_second),
                    edge_ms: column(|one| one.edge_ms),
                    gateway_ms: column(|one| one.gateway_ms),
                },
            }
        });
        let downloads = self.downloads.iter();
        let downloads = downloads.map(|(path, all)| (name(path), median(all.clone())));
        (rows.collect(), downloads.collect())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Results {
    /// The table for people.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let mut line = |args: std::fmt::Arguments<'_>| {
            let _ = writeln!(text, "{args}");
        };
        line(format_args!(
            "{:<34} {:>5} {:>9} {:>9} {:>9} {:>9} {:>16}",
            "path", "conns", "p50 ms", "p90 ms", "p99 ms", "calls/s", "CPU ms/1k e/g"
        ));
        for row in &self.calls {
            let Measure {
                p50_ms,
                p90_ms,
                p99_ms,
                calls_per_second,
                edge_ms,
                gateway_ms,
            } = row.median;
            line(format_args!(
                "{:<34} {:>5} {p50_ms:>9.3} {p90_ms:>9.3} {p99_ms:>9.3} {calls_per_second:>9.0} {:>16}",
                row.path,
                row.connections,
                format!("{edge_ms:.0}/{gateway_ms:.0}")
            ));
        }
        for (path, speed) in &self.download_gb_per_second {
            line(format_args!("200 MB, {path:<26} {speed:>15.2} GB/s"));
        }
        for (process, mib) in &self.resident_mib {
            line(format_args!("resident, {process:<24} {mib:>15.1} MiB"));
        }
        line(format_args!(
            "gateway on disk {:>34.1} MiB",
            self.gateway_on_disk_mib
        ));
        for why in &self.left_out {
            line(format_args!("left out: {why}"));
        }
        text
    }
}
