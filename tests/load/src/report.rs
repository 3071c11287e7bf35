// SPDX-License-Identifier: Apache-2.0
//! Medians of runs as Markdown, ours first and rivals as ratios.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use crate::run::Measured;
use crate::scenario::Scenario;

/// All runs of one speaker in one scenario.
#[derive(Clone, Debug)]
pub struct Row {
    /// The speaker.
    pub name: &'static str,
    /// What every run gave, in words where it failed.
    pub runs: Vec<Result<Measured, String>>,
}

/// The middle of the values; of an even number the lower one.
fn median<T: Ord + Copy>(mut values: Vec<T>) -> Option<T> {
    values.sort_unstable();
    values.get(values.len().checked_sub(1)? / 2).copied()
}

/// The medians of the runs that succeeded, each number on its own.
pub fn medians(runs: &[Result<Measured, String>]) -> Option<Measured> {
    let good: Vec<&Measured> = runs.iter().flatten().collect();
    let time = |of: fn(&Measured) -> Duration| median(good.iter().map(|m| of(m)).collect());
    let number = |of: fn(&Measured) -> u64| median(good.iter().map(|m| of(m)).collect());
    let mut latencies_ns: Vec<u64> = good.iter().flat_map(|m| m.latencies_ns.clone()).collect();
    latencies_ns.sort_unstable();
    Some(Measured {
        wall: time(|m| m.wall)?,
        cpu: time(|m| m.cpu)?,
        withdraw_wall: time(|m| m.withdraw_wall)?,
        withdraw_cpu: time(|m| m.withdraw_cpu)?,
        churn_cpu: time(|m| m.churn_cpu)?,
        peak_kib: number(|m| m.peak_kib)?,
        settled_kib: number(|m| m.settled_kib)?,
        generator_cpu: time(|m| m.generator_cpu)?,
        updates: number(|m| m.updates)?,
        missed: good.iter().map(|m| m.missed).max()?,
        bfd: good
            .iter()
            .filter_map(|m| m.bfd)
            .max_by_key(|bfd| bfd.flaps),
        latencies_ns,
        profile: None,
    })
}

/// One scenario as a table.
pub fn scenario(scenario: &Scenario, rows: &[Row]) -> String {
    let mut text = format!("### `{}`: {}\n\n", scenario.name, scenario.what);
    let has_churn = scenario.churn_s > 0;
    text += "| speaker | wall s | CPU s | peak MiB | settled MiB | withdrawal wall s | CPU s |";
    text += if has_churn {
        " churn CPU s | CPU s of all three | p50 ms | p99 ms | p99.9 ms | most ms | missed |\n"
    } else {
        " generator CPU s | UPDATEs | missed |\n"
    };
    text += "|---|--:|--:|--:|--:|--:|--:|";
    text += if has_churn {
        "--:|--:|--:|--:|--:|--:|--:|\n"
    } else {
        "--:|--:|--:|\n"
    };
    let ours = rows.first().and_then(|row| medians(&row.runs));
    let mut failures = Vec::new();
    for (place, row) in rows.iter().enumerate() {
        for why in row.runs.iter().filter_map(|run| run.as_ref().err()) {
            failures.push(format!("- {}: {why}", row.name));
        }
        let Some(m) = medians(&row.runs) else {
            let columns = if has_churn { 13 } else { 9 };
            let _ = writeln!(
                text,
                "| {} | failed |{}",
                row.name,
                " |".repeat(columns - 1)
            );
            continue;
        };
        let base = ours.as_ref().filter(|_| place > 0);
        let time = |of: fn(&Measured) -> Duration| {
            let own = of(&m).as_secs_f64();
            with_ratio(own, 2, base.map(|base| of(base).as_secs_f64()))
        };
        let memory = |of: fn(&Measured) -> u64| {
            let own = of(&m) as f64 / 1024.0;
            with_ratio(own, 0, base.map(|base| of(base) as f64 / 1024.0))
        };
        let _ = write!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            row.name,
            time(|m| m.wall),
            time(|m| m.cpu),
            memory(|m| m.peak_kib),
            memory(|m| m.settled_kib),
            time(|m| m.withdraw_wall),
            time(|m| m.withdraw_cpu)
        );
        if has_churn {
            let latency = |percent| {
                let own = m.latency(percent).unwrap_or_default();
                format!("{:.2}", own.as_secs_f64() * 1000.0)
            };
            let _ = writeln!(
                text,
                " {} | {} | {} | {} | {} | {} | {} |",
                time(|m| m.churn_cpu),
                time(|m| m.cpu + m.withdraw_cpu + m.churn_cpu),
                latency(50.0),
                latency(99.0),
                latency(99.9),
                latency(100.0),
                m.missed
            );
        } else {
            let _ = writeln!(
                text,
                " {:.2} | {} | {} |",
                m.generator_cpu.as_secs_f64(),
                m.updates,
                m.missed
            );
        }
    }
    for row in rows {
        if let Some(bfd) = medians(&row.runs).and_then(|m| m.bfd) {
            let _ = writeln!(
                text,
                "\n{}: {} BFD sessions, lost {} times; the latest timer was {:.1} ms late.",
                row.name,
                bfd.sessions,
                bfd.flaps,
                bfd.latest.as_secs_f64() * 1000.0
            );
        }
    }
    failures.dedup();
    if !failures.is_empty() {
        text += "\n";
        text += &failures.join("\n");
        text += "\n";
    }
    text += "\n";
    text
}

/// A rival's number, and how much of it ours is.
fn with_ratio(own: f64, digits: usize, ours: Option<f64>) -> String {
    match ours {
        Some(ours) if own > 0.0 => format!("{own:.digits$} ({:.2})", ours / own),
        _ => format!("{own:.digits$}"),
    }
}

/// The machine, in a line.
pub fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |text| {
            text.trim_start_matches([' ', '\t', ':'])
        });
    let count = cpu
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let memory = read("/proc/meminfo");
    let kib = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0);
    let release = read("/proc/sys/kernel/osrelease");
    format!(
        "{count} processors ({model}), {} GiB of memory, Linux {}",
        kib.div_ceil(1 << 20),
        release.trim().split('-').next().unwrap_or("unknown")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::SCENARIOS;

    #[test]
    fn failed_runs_are_told_and_not_counted() {
        let run = |seconds| {
            Ok(Measured {
                cpu: Duration::from_secs(seconds),
                ..Measured::default()
            })
        };
        let rows = [
            Row {
                name: "ours",
                runs: vec![run(1), Err("it fell".to_owned()), run(3), run(2)],
            },
            Row {
                name: "theirs",
                runs: vec![run(4)],
            },
            Row {
                name: "other",
                runs: vec![Err("it is not there".to_owned())],
            },
        ];
        let text = scenario(&SCENARIOS[0], &rows);
        assert!(text.contains("| ours | 0.00 | 2.00 |"), "{text}");
        assert!(text.contains("| 4.00 (0.50) |"), "{text}");
        assert!(text.contains("| other | failed |"), "{text}");
        assert!(text.contains("- ours: it fell\n"), "{text}");
    }
}
