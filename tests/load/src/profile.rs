// SPDX-License-Identifier: Apache-2.0
//! Where a speaker's time goes: `perf record` beside a run, its stacks as a table by thread.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Samples a second: no multiple of a timer's rate.
const FREQUENCY: &str = "1999";
/// Functions shown of each thread.
const SHOWN: usize = 25;

/// A recording that runs.
pub struct Recording {
    perf: Child,
    file: PathBuf,
}

impl Recording {
    /// Begins to record a process and all its threads, by the processor's clock: hardware counters
    /// are not there in most virtual machines.
    ///
    /// # Errors
    /// When perf is missing or refused.
    pub fn start(pid: u32, dir: &Path) -> Result<Recording> {
        let file = dir.join("perf.data");
        let perf = Command::new("perf")
            .args([
                "record",
                "--quiet",
                "--event",
                "cpu-clock",
                "--call-graph",
                "fp",
            ])
            .args(["--freq", FREQUENCY, "--pid", &pid.to_string(), "--output"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot run perf (package linux-perf)")?;
        Ok(Recording { perf, file })
    }

    /// Ends the recording and sums it up.
    ///
    /// # Errors
    /// When perf recorded nothing.
    pub fn finish(mut self) -> Result<String> {
        let pid = Pid::from_raw(i32::try_from(self.perf.id()).context("pids fit")?);
        kill(pid, Signal::SIGINT).context("perf ended before the speaker")?;
        self.perf.wait()?;
        let output = Command::new("perf")
            .args(["script", "--fields", "comm,ip,sym", "--input"])
            .arg(&self.file)
            .stderr(Stdio::null())
            .output()
            .context("cannot run perf script")?;
        ensure!(
            output.status.success(),
            "perf script failed ({})",
            output.status
        );
        Ok(table(&fold(&String::from_utf8_lossy(&output.stdout))))
    }
}

/// A stack, from the thread's name to the innermost function, and how often it was seen.
type Folded = BTreeMap<Vec<String>, u64>;

/// Reads what `perf script` prints: a thread's name, its stack from the inside, an empty line.
fn fold(text: &str) -> Folded {
    let mut folded = Folded::new();
    for sample in text.split("\n\n") {
        let mut lines = sample.lines().filter(|line| !line.trim().is_empty());
        let Some(thread) = lines.next() else { continue };
        let mut stack: Vec<String> = lines
            .filter_map(|line| line.trim().split_once(' '))
            .map(|(_, name)| plain(name))
            .collect();
        stack.push(thread.trim().to_owned());
        stack.reverse();
        *folded.entry(stack).or_default() += 1;
    }
    folded
}

/// A function's name without hash and offset.
fn plain(name: &str) -> String {
    let name = name.split("+0x").next().unwrap_or(name).trim();
    match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 => path.to_owned(),
        _ => name.to_owned(),
    }
}

/// Of every thread the functions that took most: by themselves, and with all they called.
fn table(folded: &Folded) -> String {
    let all: u64 = folded.values().sum();
    let mut threads: BTreeMap<&str, u64> = BTreeMap::new();
    let mut own: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut whole: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (stack, count) in folded {
        let Some((thread, functions)) = stack.split_first() else {
            continue;
        };
        *threads.entry(thread).or_default() += count;
        if let Some(innermost) = functions.last() {
            *own.entry((thread, innermost)).or_default() += count;
        }
        // Recursion counts once.
        for function in functions.iter().collect::<BTreeSet<_>>() {
            *whole.entry((thread, function)).or_default() += count;
        }
    }
    let percent = |count: u64| count as f64 * 100.0 / all.max(1) as f64;
    let mut text = format!("{all} samples at {FREQUENCY} a second\n");
    let mut by_weight: Vec<_> = threads.into_iter().collect();
    by_weight.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for (thread, count) in by_weight {
        let _ = writeln!(text, "\nthread {thread}: {:.1} %", percent(count));
        for (title, counts) in [("by itself", &own), ("with all it calls", &whole)] {
            let _ = writeln!(text, "  {title}");
            let of_thread = counts.iter().filter(|((name, _), _)| *name == thread);
            let mut rows: Vec<_> = of_thread.map(|((_, f), count)| (*count, *f)).collect();
            rows.sort_unstable_by(|a, b| b.cmp(a));
            for (count, function) in rows.into_iter().take(SHOWN) {
                let _ = writeln!(text, "    {:5.1} %  {function}", percent(count));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_counted_by_thread() {
        let text = "rib-main \n\t  7f01 inner::h0123456789abcdef+0x12\n\t  7f02 outer\n\n\
                    rib-main \n\t  7f02 outer\n\nbgp \n\t 7f03 read\n\n";
        let table = table(&fold(text));
        assert!(table.starts_with("3 samples"), "{table}");
        assert!(table.contains("thread rib-main: 66.7 %"), "{table}");
        assert!(table.contains("     33.3 %  inner\n"), "{table}");
        assert!(table.contains("     66.7 %  outer\n"), "{table}");
    }
}
