// SPDX-License-Identifier: Apache-2.0
//! A case: a topology and what happens to it. Everything else follows from its seed.

use serde::{Deserialize, Serialize};

use crate::random::Random;

/// Destinations there are: even ones IPv4, odd ones IPv6.
pub(crate) const PREFIXES: u8 = 4;

/// One run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Case {
    /// Of delays, cuts and orders.
    pub(crate) seed: u64,
    /// How speakers are connected.
    pub(crate) shape: Shape,
    /// How many speakers there are.
    pub(crate) speakers: usize,
    /// The hold time of all sessions.
    pub(crate) hold_s: u16,
    /// Whether sessions have graceful restart, with this restart time.
    pub(crate) restart_s: Option<u16>,
    /// What happens, in order.
    pub(crate) steps: Vec<Step>,
}

/// How speakers are connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Shape {
    /// Each has an AS of its own, in a ring with one chord.
    Ring,
    /// Two route reflectors with common clients, one more internal neighbour, and one outside.
    Reflection,
}

/// Something that happens so long after the step before.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) after_ms: u64,
    pub(crate) act: Act,
}

/// What happens. Numbers count round, so that a script makes sense whatever is left out of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Act {
    /// A speaker's own destinations are these.
    Locals { speaker: usize, prefixes: Vec<u8> },
    /// The scripted neighbour announces a destination.
    Say {
        stranger: usize,
        prefix: u8,
        said: Said,
    },
    /// It withdraws one.
    Unsay { stranger: usize, prefix: u8 },
    /// It announces one with an attribute that RFC 7606 has treated as a withdrawal (so that the
    /// route goes), or one that is only discarded (so that the route comes).
    SayBroken {
        stranger: usize,
        prefix: u8,
        said: Said,
        is_discarded: bool,
    },
    /// Every connection of a link is reset; what is under way is lost, from any octet on.
    Cut { link: usize },
    /// Nothing passes a link for a while; nothing is lost.
    Freeze { link: usize, for_ms: u64 },
    /// A speaker or scripted neighbour crashes and comes back with nothing. Silently: its
    /// neighbours hear nothing of it before they say something to the new one.
    Crash {
        node: usize,
        for_ms: u64,
        silently: bool,
    },
    /// An operator resets a session.
    Reset { link: usize, end: usize },
    /// An operator shuts a session down, for so long.
    Shutdown {
        link: usize,
        end: usize,
        for_ms: u64,
    },
    /// A speaker takes nothing from a neighbour any more, or everything.
    Import { link: usize, end: usize, open: bool },
    /// What a speaker learns about the way to an address of a link; no metric is no way.
    Metric {
        speaker: usize,
        link: usize,
        end: usize,
        metric: Option<u32>,
    },
    /// A speaker asks for a neighbour's routes again.
    Refresh { link: usize, end: usize },
}

/// What the scripted neighbour says of a destination.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Said {
    /// The path behind its own AS.
    pub(crate) path: Vec<u32>,
    pub(crate) origin: u8,
    pub(crate) med: Option<u32>,
    pub(crate) communities: Vec<u32>,
}

impl Case {
    /// A random case.
    pub(crate) fn random(seed: u64) -> Case {
        let mut random = Random::new(seed);
        let shape = if random.below(2) == 0 {
            Shape::Ring
        } else {
            Shape::Reflection
        };
        let hold_s = [9, 30][random.below(2) as usize];
        let steps = 4 + random.below(28);
        let mut case = Case {
            seed,
            shape,
            speakers: match shape {
                Shape::Ring => 3 + random.below(3) as usize,
                Shape::Reflection => 5 + random.below(2) as usize,
            },
            hold_s,
            restart_s: (random.below(2) == 0).then_some(20),
            steps: Vec::new(),
        };
        for _ in 0..steps {
            let step = Step {
                after_ms: after_ms(&mut random),
                act: act(shape, hold_s, &mut random),
            };
            // What is closed is mostly opened again: that is when routes have to come back.
            let reopens = match step.act {
                Act::Import { link, end, .. } if random.below(3) > 0 => Some((link, end)),
                _ => None,
            };
            case.steps.push(step);
            if let Some((link, end)) = reopens {
                let open = true;
                case.steps.push(Step {
                    after_ms: after_ms(&mut random),
                    act: Act::Import { link, end, open },
                });
            }
        }
        case
    }
}

fn after_ms(random: &mut Random) -> u64 {
    match random.below(4) {
        0 => random.below(20),
        1 => random.below(1_000),
        2 => random.below(8_000),
        _ => random.below(40_000),
    }
}

fn act(shape: Shape, hold_s: u16, random: &mut Random) -> Act {
    let pick = |random: &mut Random| random.below(64) as usize;
    let end = |random: &mut Random| random.below(2) as usize;
    let prefix = |random: &mut Random| random.below(PREFIXES.into()) as u8;
    // About as often shorter as longer than the hold time.
    let pause = |random: &mut Random| random.below(u64::from(hold_s) * 2_000);
    match random.below(30) {
        0..=3 => Act::Locals {
            speaker: pick(random),
            prefixes: (0..random.below(4)).map(|_| prefix(random)).collect(),
        },
        4..=8 | 24..=29 => Act::Say {
            stranger: end(random),
            prefix: prefix(random),
            said: said(shape, random),
        },
        9 | 10 => Act::Unsay {
            stranger: end(random),
            prefix: prefix(random),
        },
        11 => Act::SayBroken {
            stranger: end(random),
            prefix: prefix(random),
            said: said(shape, random),
            is_discarded: random.below(3) == 0,
        },
        12..=14 => Act::Cut { link: pick(random) },
        15 | 16 => Act::Freeze {
            link: pick(random),
            for_ms: pause(random),
        },
        17 | 18 => Act::Crash {
            node: pick(random),
            for_ms: pause(random),
            silently: random.below(2) == 0,
        },
        19 => Act::Reset {
            link: pick(random),
            end: end(random),
        },
        20 => Act::Shutdown {
            link: pick(random),
            end: end(random),
            for_ms: pause(random),
        },
        21 => Act::Import {
            link: pick(random),
            end: end(random),
            open: random.below(4) == 0,
        },
        22 => Act::Metric {
            speaker: pick(random),
            link: pick(random),
            end: end(random),
            metric: (random.below(3) > 0).then(|| random.below(3) as u32),
        },
        _ => Act::Refresh {
            link: pick(random),
            end: end(random),
        },
    }
}

fn said(shape: Shape, random: &mut Random) -> Said {
    const NO_EXPORT: u32 = 0xffff_ff01;
    const NO_ADVERTISE: u32 = 0xffff_ff02;
    const OTHERS: [u32; 4] = [64_801, 64_802, 65_000, 65_001];
    Said {
        path: (0..random.below(4).saturating_sub(1))
            .map(|_| OTHERS[random.below(4) as usize])
            .collect(),
        origin: random.below(3) as u8,
        // Behind reflectors, MED makes routes that never settle possible (RFC 3345 §2).
        med: (shape == Shape::Ring && random.below(4) > 0).then(|| random.below(4) as u32),
        communities: match random.below(12) {
            0 => vec![NO_EXPORT],
            1 => vec![NO_ADVERTISE],
            2..=4 => vec![64_701 << 16 | 7],
            _ => Vec::new(),
        },
    }
}
