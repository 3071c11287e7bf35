// SPDX-License-Identifier: Apache-2.0
//! Measures BGP speakers side by side; `cargo xtask bench bgp` builds what it needs and calls it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bgp_load::report::{self, Row};
use bgp_load::run::{Options, run};
use bgp_load::scenario::{SCENARIOS, Scenario};
use bgp_load::subject::Subject;
use bgp_load::table::Table;
use bgp_load::world::World;
use clap::Parser;
use lab_runner::rootfs;

/// Measures BGP speakers by the protocol alone, one after the other in every round.
#[derive(Parser)]
struct Arguments {
    /// Scenarios by name; all of them if none is given.
    scenarios: Vec<String>,
    /// Names the scenarios and ends.
    #[arg(long)]
    list: bool,
    /// The rivals, separated by commas: bird2, bird3, frr, gobgp, openbgpd; or none.
    #[arg(long, default_value = "bird2,bird3,frr,gobgp,openbgpd")]
    rivals: String,
    /// Measures this daemon.
    #[arg(long)]
    causewayd: Option<PathBuf>,
    /// Measures this build of bgp-bench-speaker.
    #[arg(long)]
    speaker: Option<PathBuf>,
    /// Rounds; medians are shown.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// A hundredth of the prefixes.
    #[arg(long)]
    quick: bool,
    /// Minutes of churn, in scenarios that have any; seconds without this.
    #[arg(long)]
    minutes: Option<u32>,
    /// The program that runs BFD sessions in scenarios that have any [default: causeway-bfdd beside
    /// this one].
    #[arg(long)]
    bfdd: Option<PathBuf>,
    /// Seconds that a speaker may take for one step of a scenario.
    #[arg(long, default_value_t = 120)]
    limit: u64,
    /// Records every speaker with perf and prints where its time went.
    #[arg(long)]
    profile: bool,
    /// Writes the table to this file too.
    #[arg(long)]
    write: Option<PathBuf>,
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        // The table has said why.
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether ours failed nothing; rivals may.
fn measure(arguments: &Arguments) -> Result<bool> {
    if arguments.list {
        for scenario in SCENARIOS {
            println!("{:20} {}", scenario.name, scenario.what);
        }
        return Ok(true);
    }
    let mut scenarios = chosen(&arguments.scenarios, arguments.quick)?;
    if let Some(minutes) = arguments.minutes {
        scenarios = scenarios.iter().map(|each| each.lasting(minutes)).collect();
    }
    let bfdd = match &arguments.bfdd {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("causeway-bfdd"),
    };
    let subjects = subjects(arguments)?;
    let rootfs = rootfs::ensure(|step| eprintln!("{step}"))?;
    let world = World::enter(&rootfs)?;
    let mut text = head(arguments, &world, &subjects)?;
    print!("{text}");
    let mut have_succeeded = true;
    let mut tables: HashMap<_, Table> = HashMap::new();
    for scenario in &scenarios {
        let key = (scenario.family, scenario.prefixes);
        let table = tables
            .entry(key)
            .or_insert_with(|| Table::new(scenario.family, scenario.prefixes, 1));
        let mut rows: Vec<Row> = subjects
            .iter()
            .map(|subject| Row {
                name: subject.name(),
                runs: Vec::new(),
            })
            .collect();
        for round in 1..=arguments.runs {
            for (subject, row) in subjects.iter().zip(&mut rows) {
                // What failed twice will fail a third time.
                if row.runs.len() == 2 && row.runs.iter().all(Result::is_err) {
                    continue;
                }
                let start = Instant::now();
                let options = Options {
                    limit: Duration::from_secs(arguments.limit),
                    profile: arguments.profile,
                    bfdd: bfdd.clone(),
                };
                let result = run(&world, subject, scenario, table, &options);
                if let Ok(measured) = &result
                    && let Some(profile) = &measured.profile
                {
                    println!(
                        "## {}: {}\n\n```\n{profile}```\n",
                        scenario.name,
                        subject.name()
                    );
                }
                let said = match &result {
                    Ok(m) => format!(
                        "wall {:.2} s, CPU {:.2} s, {} MiB",
                        m.wall.as_secs_f64(),
                        m.cpu.as_secs_f64(),
                        m.peak_kib >> 10
                    ),
                    Err(error) => format!("failed: {error:#}"),
                };
                eprintln!(
                    "{} {round}/{}: {}: {said} ({} s)",
                    scenario.name,
                    arguments.runs,
                    subject.name(),
                    start.elapsed().as_secs()
                );
                have_succeeded &= result.is_ok() || subject.is_rival();
                row.runs.push(result.map_err(|error| format!("{error:#}")));
            }
        }
        let part = report::scenario(scenario, &rows);
        print!("{part}");
        text += &part;
        // A later scenario may be interrupted.
        if let Some(path) = &arguments.write {
            std::fs::write(path, text.trim_end().to_owned() + "\n")
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(have_succeeded)
}

fn chosen(names: &[String], quick: bool) -> Result<Vec<Scenario>> {
    let mut chosen = Vec::new();
    for name in names {
        let Some(scenario) = SCENARIOS.iter().find(|scenario| scenario.name == name) else {
            let known: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
            bail!(
                "there is no scenario `{name}`; known are {}",
                known.join(", ")
            );
        };
        chosen.push(scenario.clone());
    }
    if chosen.is_empty() {
        chosen = SCENARIOS.to_vec();
    }
    if quick {
        chosen = chosen.iter().map(Scenario::quick).collect();
    }
    Ok(chosen)
}

fn subjects(arguments: &Arguments) -> Result<Vec<Subject>> {
    let mut subjects = Vec::new();
    // The working folder is the same in the other mount namespace, but a daemon has its own.
    let absolute = |path: &PathBuf| {
        std::fs::canonicalize(path).with_context(|| format!("there is no {}", path.display()))
    };
    if let Some(path) = &arguments.causewayd {
        subjects.push(Subject::Causewayd(absolute(path)?));
    }
    if let Some(path) = &arguments.speaker {
        subjects.push(Subject::Speaker(absolute(path)?));
    }
    for name in arguments.rivals.split(',').filter(|name| *name != "none") {
        let rivals = Subject::rivals();
        let Some(rival) = rivals.iter().find(|rival| rival.name() == name) else {
            bail!("there is no rival `{name}`; known are bird2, bird3, frr, gobgp, openbgpd");
        };
        subjects.push(rival.clone());
    }
    Ok(subjects)
}

fn head(arguments: &Arguments, world: &World, subjects: &[Subject]) -> Result<String> {
    let mut text = "# The BGP bench\n\n".to_owned();
    text += include_str!("../../bench.md");
    writeln!(
        text,
        "\nMachine: {}. Rounds: {}.\n",
        report::machine(),
        arguments.runs
    )?;
    text += "| speaker | version | configuration |\n|---|---|---|\n";
    for subject in subjects {
        let version = match subject.version(world) {
            Ok(version) => version,
            Err(error) => format!("unknown ({error:#})"),
        };
        writeln!(
            text,
            "| {} | {version} | {} |",
            subject.name(),
            subject.remark()
        )?;
    }
    text += "\n";
    Ok(text)
}
