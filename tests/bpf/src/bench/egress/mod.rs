// SPDX-License-Identifier: Apache-2.0
//! What an egress gateway costs, beside plain forwarding, nftables and iptables.
//!
//! Every way has a router of its own between a pod and the world, or two nodes with a tunnel between
//! them, all alike. The ways take turns, round by round; packets are injected with XDP live frames and
//! dropped, and counted, behind the router: of each turn all but one in a thousand must arrive, with
//! the right address.

mod chain;
mod flows;
mod page;
mod programs;
mod report;
mod rig;

use anyhow::{Result, ensure};
use harness::page::Samples;

pub use self::report::Report;
use self::{
    chain::Chain,
    flows::{Series, Way},
    report::{Place, Row, Section},
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
/// The same where a pod's node notes the way of each: few enough for its notes.
const NEW_NOTED: u32 = 4_000;
/// Most turns of new flows.
const NEW_TURNS: u32 = 12;
/// The first flow that no fill makes.
const UNUSED: u64 = 2_000_000;
/// The same for new flows of the same ways in another place.
const UNUSED_TOO: u64 = 3_000_000;
/// Rounds of TCP for each round of packets: they differ by much more.
const STREAM_TURNS: u32 = 3;

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
    /// Policies of the pod in the scenario with most.
    pub most_policies: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rounds: 12,
            packets: 200_000,
            seconds: 0.5,
            most_mappings: 1_000_000,
            most_policies: 10_000,
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
    two_nodes(options, &mut report, progress)?;
    fill_levels(options, &mut report, progress)?;
    policies(options, &mut report, progress)?;
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
    let mut step = |title, way, series: Series| -> Result<()> {
        progress(title);
        // What our forwarding delivers to a pod has passed the place where it would be counted.
        let some = |rig: &&Rig| way == Way::Out || rig.mode != Mode::Programs;
        let rigs: Vec<&Rig> = rigs.iter().filter(some).collect();
        let rows = turns(
            options.rounds,
            &rigs,
            |rig| rig.mode,
            |rig, _| rig.measure(way, series),
        )?;
        report.sections.push(Section::new(Place::One, title, rows));
        Ok(())
    };
    step(report::HOT, Way::Out, one(options.packets))?;
    step(report::HOT_BACK, Way::Back, one(options.packets))?;
    for rig in &rigs {
        rig.fill(MANY)?;
    }
    step(report::MANY, Way::Out, many(options.packets / 2))?;
    step(report::MANY_BACK, Way::Back, many(options.packets / 2))?;
    progress(report::NEW);
    let all: Vec<&Rig> = rigs.iter().collect();
    let rounds = options.rounds.min(NEW_TURNS);
    let rows = turns(
        rounds,
        &all,
        |rig| rig.mode,
        |rig, turn| rig.measure(Way::Out, fresh(UNUSED, turn, NEW)),
    )?;
    report
        .sections
        .push(Section::new(Place::One, report::NEW, rows));
    if let Some(rig) = rigs.iter().find(|rig| rig.mode == Mode::Gateway) {
        let expected = MANY + NEW * (rounds + 1);
        let live = rig.live()?.unwrap_or_default();
        ensure!(
            live == u64::from(expected),
            "the gateway has {live} mappings, and {expected} flows passed"
        );
    }
    Ok(())
}

/// The pod's node and the gateway, by VXLAN and without, and the gateway alone behind VXLAN.
fn two_nodes(options: &Options, report: &mut Report, progress: &mut dyn FnMut(&str)) -> Result<()> {
    const BY_VXLAN: usize = 4;
    let mut chains = Vec::new();
    for mode in [
        Mode::VxlanForward,
        Mode::VxlanMetadata,
        Mode::VxlanNft,
        Mode::Vxlan,
        Mode::RoutedForward,
        Mode::RoutedNft,
        Mode::Native,
    ] {
        let chain = Chain::build(mode, ROOM, 1)?;
        chain.fill(1)?;
        chains.push(chain);
    }
    progress("the programs alone");
    if let Some(chain) = chains.iter().find(|chain| chain.mode == Mode::Vxlan) {
        report.programs = programs::run(chain)?;
        chain.fill(1)?;
    }
    let packets = options.packets / 2;
    let rounds = options.rounds.min(NEW_TURNS);
    let mut both = |chains: &[Chain], title, way, series: &dyn Fn(u32) -> Series| -> Result<_> {
        progress(&format!("{title}, two nodes"));
        let all: Vec<&Chain> = chains.iter().collect();
        let mut rows = turns(
            rounds,
            &all,
            |chain| chain.mode,
            |chain, turn| chain.measure(way, series(turn)),
        )?;
        let routed = rows.split_off(BY_VXLAN);
        report
            .sections
            .push(Section::new(Place::Vxlan, title, rows));
        report
            .sections
            .push(Section::new(Place::Native, title, routed));
        Ok(())
    };
    both(&chains, report::HOT, Way::Out, &|_| one(packets))?;
    both(&chains, report::HOT_BACK, Way::Back, &|_| one(packets))?;
    both(&chains, report::NEW, Way::Out, &|turn| {
        fresh(UNUSED, turn, NEW_NOTED)
    })?;
    for chain in &mut chains {
        chain.forget_ways()?;
        chain.fill(MANY)?;
    }
    both(&chains, report::MANY, Way::Out, &|_| many(packets))?;
    chains.truncate(BY_VXLAN);
    for chain in &mut chains {
        chain.feed()?;
    }
    let all: Vec<&Chain> = chains.iter().collect();
    let mut alone = |title, series: &dyn Fn(u32) -> Series| -> Result<()> {
        progress(&format!("{title}, behind VXLAN"));
        let rows = turns(
            rounds,
            &all,
            |chain| chain.mode,
            |chain, turn| chain.measure_gateway(series(turn)),
        )?;
        report
            .sections
            .push(Section::new(Place::Behind, title, rows));
        Ok(())
    };
    alone(report::HOT, &|_| one(options.packets))?;
    alone(report::MANY, &|_| many(packets))?;
    alone(report::NEW, &|turn| fresh(UNUSED_TOO, turn, NEW_NOTED))
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
                rig.measure(Way::Out, one(options.packets))?,
                rig.measure(
                    Way::Out,
                    Series::all_over(*mappings, (*mappings).clamp(20_000, MANY * 2)),
                )?,
                if turn <= NEW_TURNS {
                    rig.measure(Way::Out, fresh(UNUSED, turn, NEW / 2))?
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

/// A pod under more or fewer policies, each with a rule and a destination of its own.
fn policies(options: &Options, report: &mut Report, progress: &mut dyn FnMut(&str)) -> Result<()> {
    let counts = [1, 100, options.most_policies];
    let mut chains = Vec::new();
    for count in counts {
        progress(&format!("{count} policies"));
        chains.push(Chain::build(Mode::Vxlan, ROOM, count)?);
    }
    let mut samples: Vec<[Samples; 2]> = vec![Default::default(); chains.len()];
    for turn in 0..=options.rounds.min(NEW_TURNS) {
        for (chain, [hot, new]) in chains.iter().zip(&mut samples) {
            let known = chain.measure(Way::Out, one(options.packets / 2))?;
            let first = chain.measure(Way::Out, fresh(UNUSED, turn, NEW_NOTED))?;
            if turn > 0 {
                hot.add(known);
                new.add(first);
            }
        }
    }
    report.policies = counts.into_iter().zip(samples).collect();
    Ok(())
}

/// One TCP stream through each way. What one stream gets changes from second to second, for all
/// alike: the ways are compared round by round.
fn streams(options: &Options, report: &mut Report, progress: &mut dyn FnMut(&str)) -> Result<()> {
    progress("TCP");
    let modes = [Mode::Forward, Mode::Nft, Mode::Gateway];
    let mut rigs = Vec::new();
    for mode in modes {
        rigs.push(Rig::for_streams(mode)?);
    }
    let mut rows: Vec<Row> = modes.map(|mode| (mode, Samples::default())).into();
    for turn in 0..=options.rounds * STREAM_TURNS {
        let mut round = [0.0; 3];
        for place in in_turn(turn, rigs.len()) {
            let seconds = if turn == 0 { 0.1 } else { options.seconds };
            round[place] = rigs[place].1.throughput(seconds)?;
        }
        if turn > 0 {
            let [_, nftables, ours] = round;
            report.stream_ratios.add(ours / nftables);
            for ((_, samples), gigabits) in rows.iter_mut().zip(round) {
                samples.add(gigabits);
            }
        }
    }
    report.streams = rows;
    Ok(())
}

/// Measures each in turn, so many rounds; one more, which does not count, is the first.
fn turns<T>(
    rounds: u32,
    rigs: &[&T],
    mode: impl Fn(&T) -> Mode,
    mut measure: impl FnMut(&T, u32) -> Result<f64>,
) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = rigs
        .iter()
        .map(|rig| (mode(rig), Samples::default()))
        .collect();
    for turn in 0..=rounds {
        for place in in_turn(turn, rigs.len()) {
            let ns = measure(rigs[place], turn)?;
            if turn > 0 {
                rows[place].1.add(ns);
            }
        }
    }
    Ok(rows)
}

/// The places of a round: forwards, and backwards in the next, so that nobody always comes after
/// the same one.
fn in_turn(turn: u32, places: usize) -> Vec<usize> {
    if turn.is_multiple_of(2) {
        (0..places).collect()
    } else {
        (0..places).rev().collect()
    }
}

/// Packets of one flow.
fn one(packets: u32) -> Series {
    Series::all_over(1, packets)
}

/// Packets of many flows.
fn many(packets: u32) -> Series {
    Series::all_over(MANY, packets)
}

/// So many new flows for a turn, of those from a number on.
fn fresh(first: u64, turn: u32, flows: u32) -> Series {
    Series::each(first + u64::from(turn * flows), flows)
}
