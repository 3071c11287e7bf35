// SPDX-License-Identifier: Apache-2.0
//! Pages of benches: tables in Markdown, the numbers of rounds, and the machine they were made on.

use std::{
    fmt::{self, Write as _},
    fs,
};

/// A column of a [`Table`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Words, which stand left.
    Words(&'static str),
    /// Numbers, which stand right.
    Numbers(&'static str),
}

/// A table in Markdown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    #[must_use]
    pub fn new(columns: &[Column]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    ///
    /// # Panics
    /// When it has not one cell for each column.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<String> = cells.into_iter().collect();
        assert_eq!(cells.len(), self.columns.len(), "{cells:?}");
        self.rows.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (names, marks): (Vec<_>, Vec<_>) = self
            .columns
            .iter()
            .map(|column| match column {
                Column::Words(name) => (*name, "---"),
                Column::Numbers(name) => (*name, "--:"),
            })
            .unzip();
        writeln!(f, "| {} |", names.join(" | "))?;
        writeln!(f, "|{}|", marks.join("|"))?;
        for row in &self.rows {
            writeln!(f, "| {} |", row.join(" | "))?;
        }
        Ok(())
    }
}

/// What the rounds of one thing gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds a round.
    pub fn add(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_unstable_by(f64::total_cmp);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The least; not a number where there are none.
    #[must_use]
    pub fn least(&self) -> f64 {
        self.at(0)
    }

    /// The most; not a number where there are none.
    #[must_use]
    pub fn most(&self) -> f64 {
        self.at(self.0.len().saturating_sub(1))
    }

    /// The middle, of an even number the higher one; not a number where there are none.
    #[must_use]
    pub fn median(&self) -> f64 {
        self.at(self.0.len() / 2)
    }

    fn at(&self, index: usize) -> f64 {
        self.0.get(index).copied().unwrap_or(f64::NAN)
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<T: IntoIterator<Item = f64>>(values: T) -> Self {
        let mut samples: Vec<f64> = values.into_iter().collect();
        samples.sort_unstable_by(f64::total_cmp);
        Self(samples)
    }
}

/// How a goal is said to be reached or not.
#[must_use]
pub fn verdict(holds: bool) -> &'static str {
    if holds { "holds" } else { "missed" }
}

/// Processors, memory and kernel of this machine.
#[must_use]
pub fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (cpus, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let processors = cpus.lines().filter(|line| line.starts_with("processor"));
    let kib: Option<u64> = memory.lines().find_map(|line| {
        let rest = line.strip_prefix("MemTotal:")?;
        rest.split_whitespace().next()?.parse().ok()
    });
    let kernel = read("/proc/sys/kernel/osrelease");
    let release = kernel.split('-').next().unwrap_or_default().trim();
    let mut line = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        line,
        "{} processors ({}), {:.0} GiB of memory, Linux {release}",
        processors.count(),
        model.unwrap_or("unknown"),
        kib.unwrap_or_default() as f64 / f64::from(1 << 20),
    );
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_markdown() {
        let mut table = Table::new(&[Column::Words("way"), Column::Numbers("ns")]);
        table.row(["ours".to_owned(), "5".to_owned()]);
        assert_eq!(table.to_string(), "| way | ns |\n|---|--:|\n| ours | 5 |\n");
    }

    #[test]
    fn samples_are_told_apart_and_none_are_no_number() {
        let samples: Samples = [3.0, 1.0, 2.0, 9.0].into_iter().collect();
        assert_eq!(
            (samples.least(), samples.median(), samples.most()),
            (1.0, 3.0, 9.0)
        );
        let none = Samples::default();
        assert!(none.least().is_nan() && none.median().is_nan() && none.most().is_nan());
    }
}
