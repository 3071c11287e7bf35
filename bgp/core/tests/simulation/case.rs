// SPDX-License-Identifier: Apache-2.0
//! A case: a topology and what happens to it. Everything else follows from its seed.

use serde::{Deserialize, Serialize};

use crate::filter::{Filter, Way};
use crate::random::Random;

/// Prefixes there are: even ones IPv4, odd ones IPv6.
pub(crate) const PREFIXES: u8 = 4;

/// Destinations there are: prefixes, then those of VPNs.
pub(crate) const DESTINATIONS: u8 = PREFIXES + 2;

/// Route targets there are.
pub(crate) const TARGETS: u8 = 3;

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
    #[serde(default)]
    pub(crate) more: More,
    /// What happens, in order.
    pub(crate) steps: Vec<Step>,
}

/// What sessions have beside the families of unicast.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct More {
    /// How long some families are kept beyond the restart time (RFC 9494), on some of the links.
    pub(crate) long_lived_s: Option<u32>,
    /// Whether some links carry several routes for a destination (RFC 7911).
    pub(crate) several: bool,
    /// Whether routes of VPNs are carried (RFC 4364), some only to who wants them (RFC 4684).
    pub(crate) vpn: bool,
    /// Whether external sessions need policies (RFC 8212).
    pub(crate) strict: bool,
    /// Whether scripted neighbours leave IPv6 out of graceful restart (RFC 4724 §3).
    #[serde(default)]
    pub(crate) partial: bool,
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
        /// Which one of several, where the link carries several; elsewhere others than 0 are not
        /// said.
        #[serde(default)]
        id: u8,
        said: Said,
    },
    /// It withdraws one.
    Unsay {
        stranger: usize,
        prefix: u8,
        #[serde(default)]
        id: u8,
    },
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
        /// Whether it forwards meanwhile (RFC 4724 §3, the F bit).
        #[serde(default = "yes")]
        forwards: bool,
    },
    /// A node goes away, when everything had settled, and comes back so late: what becomes of its
    /// routes is looked at in each of these times. It has forgotten some of them by then.
    Away {
        node: usize,
        back: Back,
        forwards: bool,
    },
    /// Both ends reset the session at once, and so both dial at once.
    Race { link: usize },
    /// Everything settles, and is looked at.
    Rest,
    /// A policy, or none.
    Filter {
        link: usize,
        end: usize,
        way: Way,
        filter: Option<Filter>,
    },
    /// A scripted neighbour loses one without a word, and is asked to say everything again.
    Forget { stranger: usize, prefix: u8, id: u8 },
    /// It gives routes of VPNs other labels.
    Relabel { stranger: usize },
    /// A speaker tells a neighbour nothing of its own destinations any more, or does again.
    Hide { link: usize, end: usize },
    /// The policies of a speaker, at an end of a link, come to say something else.
    Revise { link: usize, end: usize },
    /// Both ends of a link come to take several routes for a destination, or one again: in another
    /// session.
    Several { link: usize },
    /// A neighbour may send so many routes of IPv4 unicast, until everything settles. The next step
    /// is long after.
    Limit { link: usize, end: usize, most: u32 },
    /// A speaker wants routes of VPNs with these route targets; `None` wants all.
    Want {
        speaker: usize,
        targets: Option<Vec<u8>>,
    },
    /// A new process takes the sessions over.
    TakeOver { speaker: usize },
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

/// When a node is back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Back {
    /// Within the restart time.
    Soon,
    /// After it, while long-lived routes are kept.
    Late,
    /// When nothing of it is left.
    VeryLate,
}

/// What the scripted neighbour says of a destination.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Said {
    /// The path behind its own AS.
    pub(crate) path: Vec<u32>,
    pub(crate) origin: u8,
    pub(crate) med: Option<u32>,
    pub(crate) communities: Vec<u32>,
    /// Route targets, of a route of a VPN.
    #[serde(default)]
    pub(crate) targets: Vec<u8>,
    /// Its label.
    #[serde(default)]
    pub(crate) label: u8,
}

fn yes() -> bool {
    true
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
        let restart_s = (random.below(3) > 0).then_some([20, 60][random.below(2) as usize]);
        let more = More {
            long_lived_s: (random.below(2) == 0 && restart_s.is_some()).then_some(60),
            several: random.below(3) == 0,
            vpn: random.below(3) == 0,
            strict: random.below(4) == 0,
            partial: random.below(2) == 0,
        };
        let mut case = Case {
            seed,
            shape,
            speakers: match shape {
                Shape::Ring => 3 + random.below(3) as usize,
                Shape::Reflection => 5 + random.below(2) as usize,
            },
            hold_s,
            restart_s,
            more,
            steps: Vec::new(),
        };
        // Something to lose.
        for _ in 0..2 + random.below(4) {
            case.steps.push(Step {
                after_ms: random.below(1_000),
                act: say(shape, more, &mut random),
            });
        }
        for _ in 0..steps {
            let step = Step {
                after_ms: after_ms(&mut random),
                act: act(shape, hold_s, more, &mut random),
            };
            // What is closed is mostly opened again: that is when routes have to come back. And
            // policies change while they are in use.
            let next = match step.act {
                Act::Import { link, end, .. } if random.below(3) > 0 => {
                    let open = true;
                    Some(Act::Import { link, end, open })
                }
                Act::Filter { link, end, .. } if random.below(3) == 0 => {
                    Some(Act::Revise { link, end })
                }
                _ => None,
            };
            case.steps.push(step);
            if let Some(act) = next {
                case.steps.push(Step {
                    after_ms: after_ms(&mut random),
                    act,
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

fn act(shape: Shape, hold_s: u16, more: More, random: &mut Random) -> Act {
    let pick = |random: &mut Random| random.below(64) as usize;
    let end = |random: &mut Random| random.below(2) as usize;
    let prefix = |random: &mut Random| random.below(PREFIXES.into()) as u8;
    // About as often shorter as longer than the hold time.
    let pause = |random: &mut Random| random.below(u64::from(hold_s) * 2_000);
    match random.below(44) {
        0..=3 => Act::Locals {
            speaker: pick(random),
            prefixes: (0..random.below(4)).map(|_| prefix(random)).collect(),
        },
        4..=11 => say(shape, more, random),
        12 | 13 => {
            let (stranger, prefix, id) = one_said(more, random);
            Act::Unsay {
                stranger,
                prefix,
                id,
            }
        }
        14 => {
            let (stranger, prefix, id) = one_said(more, random);
            Act::Forget {
                stranger,
                prefix,
                id,
            }
        }
        15 => Act::SayBroken {
            stranger: end(random),
            prefix: prefix(random),
            said: said(shape, random),
            is_discarded: random.below(3) == 0,
        },
        16..=18 => Act::Cut { link: pick(random) },
        19 | 20 => Act::Freeze {
            link: pick(random),
            for_ms: pause(random),
        },
        21 | 22 => Act::Crash {
            node: pick(random),
            for_ms: pause(random),
            silently: random.below(2) == 0,
            forwards: random.below(3) > 0,
        },
        23 => Act::Reset {
            link: pick(random),
            end: end(random),
        },
        24 => Act::Shutdown {
            link: pick(random),
            end: end(random),
            for_ms: pause(random),
        },
        25 => Act::Import {
            link: pick(random),
            end: end(random),
            open: random.below(4) == 0,
        },
        26 => Act::Metric {
            speaker: pick(random),
            link: pick(random),
            end: end(random),
            metric: (random.below(3) > 0).then(|| random.below(3) as u32),
        },
        27 | 28 => Act::Away {
            node: pick(random),
            back: [Back::Soon, Back::Late, Back::VeryLate][random.below(3) as usize],
            forwards: random.below(3) > 0,
        },
        29 => Act::Race { link: pick(random) },
        30 => Act::Rest,
        31..=33 => Act::Filter {
            link: pick(random),
            end: end(random),
            way: [Way::In, Way::Out][end(random)],
            filter: filter(random),
        },
        34 => Act::Limit {
            link: pick(random),
            end: end(random),
            most: 1 + random.below(2) as u32,
        },
        35 | 36 if more.vpn => Act::Want {
            speaker: pick(random),
            targets: (random.below(3) > 0).then(|| {
                let some = (0..random.below(3)).map(|_| random.below(TARGETS.into()) as u8);
                some.collect()
            }),
        },
        37 if more.several => Act::Several { link: pick(random) },
        37 | 38 | 43 => Act::Filter {
            link: pick(random),
            end: end(random),
            way: Way::Out,
            filter: filter(random),
        },
        42 if more.vpn => Act::Relabel {
            stranger: end(random),
        },
        39 => Act::Hide {
            link: pick(random),
            end: end(random),
        },
        40 => Act::Revise {
            link: pick(random),
            end: end(random),
        },
        41 => Act::TakeOver {
            speaker: pick(random),
        },
        _ => Act::Refresh {
            link: pick(random),
            end: end(random),
        },
    }
}

fn say(shape: Shape, more: More, random: &mut Random) -> Act {
    let (stranger, prefix, id) = one_said(more, random);
    Act::Say {
        stranger,
        prefix,
        id,
        said: said(shape, random),
    }
}

/// A scripted neighbour, a destination and which of its routes.
fn one_said(more: More, random: &mut Random) -> (usize, u8, u8) {
    let destinations = if more.vpn { DESTINATIONS } else { PREFIXES };
    let ids = if more.several { 3 } else { 1 };
    (
        random.below(2) as usize,
        random.below(destinations.into()) as u8,
        random.below(ids) as u8,
    )
}

fn filter(random: &mut Random) -> Option<Filter> {
    Some(match random.below(8) {
        0 => Filter::Open,
        1 => Filter::Mark,
        2 => Filter::Prefer,
        3 => Filter::Pick,
        4 => Filter::Drop,
        5 => Filter::Tag,
        _ => return None,
    })
}

fn said(shape: Shape, random: &mut Random) -> Said {
    const NO_EXPORT: u32 = 0xffff_ff01;
    const NO_ADVERTISE: u32 = 0xffff_ff02;
    const NO_LLGR: u32 = 0xffff_0007;
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
            2..=4 => vec![crate::filter::PICKED],
            5 => vec![NO_LLGR],
            _ => Vec::new(),
        },
        targets: (0..TARGETS).filter(|_| random.below(2) == 0).collect(),
        label: random.below(2) as u8,
    }
}
