// SPDX-License-Identifier: Apache-2.0
//! What an egress gateway costs, beside plain forwarding, nftables and iptables.
//!
//! Every way has a router of its own between a pod and the world, all alike. The ways take turns,
//! round by round; packets are injected with XDP live frames and dropped, and counted, behind the
//! router by XDP: of each turn all but one in a thousand must arrive, with the right address.

mod flows;
mod report;
mod rig;

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

pub use self::report::Report;
use self::{
    flows::Way,
    report::{Row, Samples},
    rig::{Mode, Rig},
};

/// Flows of the scenario with many.
const MANY: u32 = 50_000;
/// Mappings the gateway has room for, unless it is about very many: its default, and the kernel's for
/// the connections of the rivals.
const ROOM: u32 = 1 << 18;
/// Room for very many.
const MUCH_ROOM: u32 = 1_200_000;
/// Packets of new flows in a turn: few enough for the rivals' tables to take all turns.
const NEW: u32 = 12_000;
/// Most turns of new flows.
const NEW_TURNS: u32 = 12;
/// The first flow that no fill makes.
const UNUSED: u64 = 2_000_000;

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Rounds of every way.
    pub rounds: u32,
    /// Injected packets per way and round; half as many where each is of another flow.
    pub packets: u32,
    /// Seconds of TCP per way and round.
    pub seconds: f64,
    /// Live mappings of the gateway in the scenario with most.
    pub most_mappings: u32,
    /// Rules of the gateway in the scenario with most.
    pub most_rules: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rounds: 12,
            packets: 200_000,
            seconds: 0.7,
            most_mappings: 1_000_000,
            most_rules: 10_000,
        }
    }
}

/// Measures. Says each step by `progress`. Needs root and `nft`; makes namespaces that vanish
/// afterwards.
///
/// # Errors
/// When something cannot be made, or packets did not arrive.
pub fn run(options: &Options, progress: &mut dyn FnMut(&str)) -> Result<Report> {
    let mut report = Report::new(options);
    ways(options, &mut report, progress)?;
    fill_levels(options, &mut report, progress)?;
    rules(options, &mut report, progress)?;
    streams(options, &mut report, progress)?;
    Ok(report)
}

/// All ways: one flow, many, new ones; there and back.
fn ways(options: &Options, report: &mut Report, progress: &mut dyn FnMut(&str)) -> Result<()> {
    let mut rigs = Vec::new();
    for mode in [
        Mode::Forward,
        Mode::Programs,
        Mode::Nft,
        Mode::Iptables,
        Mode::Gateway,
    ] {
        match Rig::for_packets(mode, ROOM, 1) {
            Ok(rig) => rigs.push(rig),
            Err(error) if mode == Mode::Iptables => {
                report
                    .notes
                    .push(format!("iptables was left out: {error:#}"));
            }
            Err(error) => return Err(error),
        }
    }
    for rig in &rigs {
        rig.fill(1)?;
    }
    let mut step = |title, way, flows: u32, packets: u32| -> Result<()> {
        progress(title);
        // What our forwarding delivers to a pod has passed the place where it would be counted.
        let some = |rig: &&Rig| way == Way::Out || rig.mode != Mode::Programs;
        let rigs: Vec<&Rig> = rigs.iter().filter(some).collect();
        let rows = turns(options.rounds, &rigs, |rig, _| {
            rig.measure(way, 0, flows.into(), packets)
        })?;
        report.ways.push((title, rows));
        Ok(())
    };
    let packets = options.packets;
    step(report::HOT, Way::Out, 1, packets)?;
    step(report::HOT_BACK, Way::Back, 1, packets)?;
    for rig in &rigs {
        rig.fill(MANY)?;
    }
    step(report::MANY, Way::Out, MANY, packets / 2)?;
    step(report::MANY_BACK, Way::Back, MANY, packets / 2)?;
    progress(report::NEW);
    let all: Vec<&Rig> = rigs.iter().collect();
    let rows = turns(options.rounds.min(NEW_TURNS), &all, |rig, turn| {
        let first = UNUSED + u64::from(turn * NEW);
        rig.measure(Way::Out, first, NEW.into(), NEW)
    })?;
    report.ways.push((report::NEW, rows));
    if let Some(rig) = rigs.iter().find(|rig| rig.mode == Mode::Gateway) {
        let expected = MANY + NEW * (options.rounds.min(NEW_TURNS) + 1);
        let live = rig.live()?.unwrap_or_default();
        ensure!(
            live == u64::from(expected),
            "the gateway has {live} mappings, and {expected} flows passed"
        );
    }
    Ok(())
}

/// The gateway and nftables with tables more or less full.
fn fill_levels(
    options: &Options,
    report: &mut Report,
    progress: &mut dyn FnMut(&str),
) -> Result<()> {
    let mut rigs = Vec::new();
    let levels = [
        (Mode::Gateway, 1),
        (Mode::Gateway, MANY),
        (Mode::Gateway, options.most_mappings),
        (Mode::Nft, 1),
        (Mode::Nft, MANY),
        (Mode::Nft, options.most_mappings.min(100_000)),
    ];
    for (mode, mappings) in levels {
        progress(&format!("{}, {mappings} mappings", mode.name()));
        let rig = Rig::for_packets(mode, MUCH_ROOM, 1)?;
        rig.fill(mappings)?;
        rigs.push((rig, mappings));
    }
    progress("live mappings");
    let mut samples: Vec<[Samples; 3]> = vec![Default::default(); rigs.len()];
    for turn in 0..=options.rounds {
        for ((rig, mappings), [hot, all, new]) in rigs.iter().zip(&mut samples) {
            let ns = [
                rig.measure(Way::Out, 0, 1, options.packets)?,
                rig.measure(
                    Way::Out,
                    0,
                    (*mappings).into(),
                    (*mappings).clamp(20_000, MANY * 2),
                )?,
                if turn <= NEW_TURNS {
                    let few = NEW / 2;
                    rig.measure(Way::Out, UNUSED + u64::from(turn * few), few.into(), few)?
                } else {
                    0.0
                },
            ];
            if turn > 0 {
                hot.add(ns[0]);
                all.add(ns[1]);
                if turn <= NEW_TURNS {
                    new.add(ns[2]);
                }
            }
        }
    }
    for ((rig, mappings), [hot, all, new]) in rigs.iter().zip(samples) {
        report.levels.push((rig.mode, *mappings, [hot, all, new]));
    }
    Ok(())
}

/// The gateway with more or fewer rules.
fn rules(options: &Options, report: &mut Report, progress: &mut dyn FnMut(&str)) -> Result<()> {
    let counts = [1, 100, options.most_rules];
    let mut rigs = Vec::new();
    for count in counts {
        progress(&format!("{count} rules"));
        rigs.push(Rig::for_packets(Mode::Gateway, ROOM, count)?);
    }
    let mut samples: Vec<[Samples; 2]> = vec![Default::default(); rigs.len()];
    for turn in 0..=options.rounds.min(NEW_TURNS) {
        for (rig, [hot, new]) in rigs.iter().zip(&mut samples) {
            let one = rig.measure(Way::Out, 0, 1, options.packets)?;
            let first = UNUSED + u64::from(turn * NEW);
            let fresh = rig.measure(Way::Out, first, NEW.into(), NEW)?;
            if turn > 0 {
                hot.add(one);
                new.add(fresh);
            }
        }
    }
    report.rules = counts.into_iter().zip(samples).collect();
    Ok(())
}

/// One TCP stream through each way.
fn streams(options: &Options, report: &mut Report, progress: &mut dyn FnMut(&str)) -> Result<()> {
    progress("TCP");
    let modes = [Mode::Forward, Mode::Nft, Mode::Gateway];
    let mut rigs = Vec::new();
    for mode in modes {
        rigs.push(Rig::for_streams(mode)?);
    }
    let mut samples: BTreeMap<Mode, Samples> = BTreeMap::new();
    for turn in 0..=options.rounds {
        for (rig, pair) in &rigs {
            let gigabits = pair.throughput(if turn == 0 { 0.1 } else { options.seconds })?;
            if turn > 0 {
                samples.entry(rig.mode).or_default().add(gigabits);
            }
        }
    }
    report.streams = samples.into_iter().collect();
    Ok(())
}

/// Measures each in turn, so many rounds; one more, which does not count, is the first.
fn turns(
    rounds: u32,
    rigs: &[&Rig],
    mut measure: impl FnMut(&Rig, u32) -> Result<f64>,
) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = rigs
        .iter()
        .map(|rig| (rig.mode, Samples::default()))
        .collect();
    for turn in 0..=rounds {
        for (rig, (_, samples)) in rigs.iter().zip(&mut rows) {
            let ns = measure(rig, turn)?;
            if turn > 0 {
                samples.add(ns);
            }
        }
    }
    Ok(rows)
}
