// SPDX-License-Identifier: Apache-2.0
//! Tables without lines: columns three blanks apart, as the tools our users know write them.

use std::cmp::Ordering;
use std::net::IpAddr;

use ipnet::IpNet;
use unicode_width::UnicodeWidthStr;

use super::look::{Look, Tone};

/// Blanks between columns.
const GAP: usize = 3;
/// A column is not made narrower than this; the terminal breaks the line then.
const NARROWEST: usize = 12;

/// A column.
#[derive(Clone, Debug)]
pub struct Column {
    /// The heading.
    pub title: &'static str,
    /// Only in `-o wide`.
    pub wide: bool,
    /// Numbers: to the right.
    pub right: bool,
    /// Prose, which may be broken into lines where the terminal is too narrow.
    pub prose: bool,
}

impl Column {
    /// A column that is always there.
    pub const fn new(title: &'static str) -> Column {
        Column {
            title,
            wide: false,
            right: false,
            prose: false,
        }
    }

    /// The column for `-o wide` only.
    pub const fn wide(self) -> Column {
        Column { wide: true, ..self }
    }

    /// The column with its cells at the right.
    pub const fn right(self) -> Column {
        Column {
            right: true,
            ..self
        }
    }

    /// The column as one that may be broken.
    pub const fn prose(self) -> Column {
        Column {
            prose: true,
            ..self
        }
    }

    /// Whether the user means this column: its title without regard to case, blanks and hyphens.
    pub fn is_called(&self, name: &str) -> bool {
        let plain = |s: &str| {
            let kept = s.chars().filter(|c| c.is_alphanumeric());
            kept.collect::<String>().to_ascii_lowercase()
        };
        plain(self.title) == plain(name)
    }
}

/// A text with its meaning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// The text.
    pub text: String,
    /// The meaning.
    pub tone: Tone,
}

impl Cell {
    /// A text of no special meaning.
    pub fn plain(text: impl Into<String>) -> Cell {
        Cell {
            text: text.into(),
            tone: Tone::Plain,
        }
    }

    /// A text with a meaning.
    pub fn toned(tone: Tone, text: impl Into<String>) -> Cell {
        Cell {
            text: text.into(),
            tone,
        }
    }

    /// A heading.
    pub fn strong(text: impl Into<String>) -> Cell {
        Cell::toned(Tone::Strong, text)
    }

    /// Order for `--sort-by`: numbers, addresses and prefixes by value, everything else as text.
    pub fn compare(&self, other: &Cell) -> Ordering {
        let (a, b) = (self.text.as_str(), other.text.as_str());
        if let (Ok(a), Ok(b)) = (a.parse::<u64>(), b.parse::<u64>()) {
            return a.cmp(&b);
        }
        if let (Ok(a), Ok(b)) = (a.parse::<IpNet>(), b.parse::<IpNet>()) {
            return a.cmp(&b);
        }
        if let (Ok(a), Ok(b)) = (a.parse::<IpAddr>(), b.parse::<IpAddr>()) {
            return a.cmp(&b);
        }
        a.cmp(b)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        Cell::plain(text)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell::plain(text)
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Cell {
        Cell::plain(number.to_string())
    }
}

impl From<u32> for Cell {
    fn from(number: u32) -> Cell {
        Cell::plain(number.to_string())
    }
}

/// Columns and rows, ready to be written.
#[derive(Clone, Debug)]
pub struct Table<'a> {
    /// The columns shown.
    pub columns: Vec<&'a Column>,
    /// The rows, a cell for each column.
    pub rows: Vec<Vec<&'a Cell>>,
}

impl Table<'_> {
    /// The text of the table, each line ended.
    pub fn render(&self, look: &Look, headers: bool) -> String {
        let mut widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, column)| {
                let cells = self.rows.iter().map(|row| row[index].text.width()).max();
                cells
                    .unwrap_or(0)
                    .max(if headers { column.title.width() } else { 0 })
            })
            .collect();
        if let Some(terminal) = look.width {
            self.narrow(&mut widths, terminal);
        }
        let mut text = String::new();
        if headers {
            let titles = self
                .columns
                .iter()
                .map(|c| (c.title.to_owned(), Tone::Strong));
            self.write_line(&mut text, look, &widths, &titles.collect::<Vec<_>>());
        }
        for row in &self.rows {
            self.write_row(&mut text, look, &widths, row);
        }
        text
    }

    /// Makes prose columns narrower, the last first, until the table fits or cannot.
    fn narrow(&self, widths: &mut [usize], terminal: usize) {
        for index in (0..widths.len()).rev() {
            let total = widths.iter().sum::<usize>() + GAP * (widths.len() - 1);
            let excess = total.saturating_sub(terminal);
            if excess == 0 {
                return;
            }
            if self.columns[index].prose && widths[index] > NARROWEST {
                widths[index] = widths[index].saturating_sub(excess).max(NARROWEST);
            }
        }
    }

    fn write_row(&self, text: &mut String, look: &Look, widths: &[usize], row: &[&Cell]) {
        let broken: Vec<Vec<String>> = row
            .iter()
            .zip(widths)
            .zip(&self.columns)
            .map(|((cell, &width), column)| match column.prose {
                true => break_lines(&cell.text, width),
                false => vec![cell.text.clone()],
            })
            .collect();
        let height = broken.iter().map(Vec::len).max().unwrap_or(1);
        for line in 0..height {
            let cells: Vec<(String, Tone)> = broken
                .iter()
                .zip(row)
                .map(|(lines, cell)| (lines.get(line).cloned().unwrap_or_default(), cell.tone))
                .collect();
            self.write_line(text, look, widths, &cells);
        }
    }

    fn write_line(
        &self,
        text: &mut String,
        look: &Look,
        widths: &[usize],
        cells: &[(String, Tone)],
    ) {
        let last = cells
            .iter()
            .rposition(|(cell, _)| !cell.is_empty())
            .unwrap_or(0);
        for (index, (cell, tone)) in cells.iter().enumerate().take(last + 1) {
            let padding = " ".repeat(widths[index].saturating_sub(cell.width()));
            let painted = look.paint(*tone, cell);
            if self.columns[index].right {
                text.push_str(&padding);
                text.push_str(&painted);
            } else {
                text.push_str(&painted);
                if index < last {
                    text.push_str(&padding);
                }
            }
            if index < last {
                text.push_str(&" ".repeat(GAP));
            }
        }
        text.push('\n');
    }
}

/// Breaks a text at blanks into lines of at most `width` columns; a longer word stays whole.
fn break_lines(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is always a line");
        if !line.is_empty() && line.width() + 1 + word.width() > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column::new("Name"),
        Column::new("Routes").right(),
        Column::new("Reason").prose(),
    ];

    fn rendered(look: Look, headers: bool) -> String {
        let cells = [
            ["tor-a", "7", "established"],
            [
                "tor-b",
                "1200",
                "no answer from the peer within the connect retry time",
            ],
        ]
        .map(|row| row.map(Cell::from));
        let rows = cells.iter().map(|row| row.iter().collect()).collect();
        Table {
            columns: COLUMNS.iter().collect(),
            rows,
        }
        .render(&look, headers)
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_blanks_at_their_end() {
        assert_eq!(
            rendered(Look::PLAIN, true),
            "Name    Routes   Reason\n\
             tor-a        7   established\n\
             tor-b     1200   no answer from the peer within the connect retry time\n"
        );
    }

    #[test]
    fn prose_is_broken_to_fit_a_narrow_terminal() {
        let text = rendered(
            Look {
                width: Some(40),
                ..Look::PLAIN
            },
            true,
        );
        assert!(text.lines().all(|line| line.len() <= 40), "{text}");
        assert!(
            text.contains("\n                 within the connect\n"),
            "{text}"
        );
    }

    #[test]
    fn headers_can_be_left_out() {
        assert!(rendered(Look::PLAIN, false).starts_with("tor-a      7"));
    }

    #[test]
    fn cells_sort_by_value() {
        let less = |a: &str, b: &str| Cell::from(a).compare(&Cell::from(b)) == Ordering::Less;
        assert!(less("9", "10"));
        assert!(less("10.0.2.0/24", "10.0.10.0/24"));
        assert!(less("192.0.2.9", "192.0.2.10"));
        assert!(less("abc", "abd"));
    }
}
