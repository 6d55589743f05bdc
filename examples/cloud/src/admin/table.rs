//! Tables for people. Texts come from gateways and other people: what could steer a
//! terminal is shown instead of sent.

use jiff::Timestamp;

use crate::out::say;

pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        let head = head.iter().map(|text| (*text).to_owned()).collect();
        Self { rows: vec![head] }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows
            .push(cells.into_iter().map(|cell| visible(&cell)).collect());
    }

    /// Prints it, or `otherwise` where it has no rows.
    pub(crate) fn print(&self, otherwise: &str) {
        if self.rows.len() == 1 {
            say!("{otherwise}");
            return;
        }
        for line in self.lines() {
            say!("{line}");
        }
    }

    fn lines(&self) -> Vec<String> {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths);
            let padded = cells.map(|(cell, width)| format!("{cell:width$}"));
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }
}

/// The text without anything that a terminal acts upon, or that is there and not to be seen: a name that somebody else
/// gave must neither move the cursor nor turn the line around.
pub(crate) fn visible(text: &str) -> String {
    let unseen = |c| matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    text.chars()
        .map(|c| {
            if c.is_control() || unseen(c) {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

pub(crate) fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

/// How long ago, roughly.
pub(crate) fn ago(at: Option<Timestamp>) -> String {
    let Some(at) = at else {
        return "never".to_owned();
    };
    let seconds = Timestamp::now().as_second() - at.as_second();
    match seconds {
        ..5 => "now".to_owned(),
        5..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_escapes_do_not_act() {
        let mut table = Table::new(&["A", "LONG"]);
        table.row(["wide cell".into(), "x".into()]);
        table.row(["\u{1b}[2J".into(), "y".into()]);
        assert_eq!(visible("a\u{202e}b\u{200b}c é"), "a\u{fffd}b\u{fffd}c é");
        assert_eq!(
            table.lines(),
            ["A          LONG", "wide cell  x", "\u{fffd}[2J       y"]
        );
    }
}
