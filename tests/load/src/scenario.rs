// SPDX-License-Identifier: Apache-2.0
//! What is measured.

use crate::table::Family;

/// How routes are divided between senders.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Share {
    /// Every sender has a part.
    Parts,
    /// Every sender has all.
    All,
}

/// A situation with a beginning and an end.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The name on the command line.
    pub name: &'static str,
    /// What it is, in a few words.
    pub what: &'static str,
    /// The family of all sessions.
    pub family: Family,
    /// Prefixes of the table.
    pub prefixes: usize,
    /// Peers that announce.
    pub senders: u16,
    /// What they announce.
    pub share: Share,
    /// Peers that are told, and must be told everything.
    pub receivers: u16,
    /// Whether the policy towards every receiver adds a community of its own.
    pub distinct: bool,
    /// Peers that stop reading once their session is up.
    pub stuck: u16,
    /// Peers with a hold time of three seconds and a family of their own, in which there is nothing
    /// to be told.
    pub idle: u16,
    /// BFD sessions of 50 ms x 3 between the first of these and our own `causeway-bfdd` beside our own
    /// speaker; a rival has none.
    pub bfd: u16,
    /// Seconds of churn after the table is there: 2000 prefixes a second, one in a message.
    pub churn_s: u32,
}

/// Prefixes that change in a second of churn.
pub const CHURN_PER_SECOND: u32 = 2000;

const ONE: Scenario = Scenario {
    name: "one",
    what: "1 M from one sender to one receiver",
    family: Family::Ipv4,
    prefixes: 1_000_000,
    senders: 1,
    share: Share::Parts,
    receivers: 1,
    distinct: false,
    stuck: 0,
    idle: 0,
    bfd: 0,
    churn_s: 0,
};

/// All scenarios, the quick ones of many kinds first.
pub const SCENARIOS: &[Scenario] = &[
    ONE,
    Scenario {
        name: "parts",
        what: "10 senders of 100 k each to one receiver",
        senders: 10,
        ..ONE
    },
    Scenario {
        name: "same",
        what: "10 senders with the same 100 k to one receiver",
        prefixes: 100_000,
        senders: 10,
        share: Share::All,
        ..ONE
    },
    Scenario {
        name: "fan10",
        what: "100 k to 10 receivers",
        prefixes: 100_000,
        receivers: 10,
        ..ONE
    },
    Scenario {
        name: "fan10-policies",
        what: "100 k to 10 receivers, a policy each",
        prefixes: 100_000,
        receivers: 10,
        distinct: true,
        ..ONE
    },
    Scenario {
        name: "fan64",
        what: "100 k to 64 receivers",
        prefixes: 100_000,
        receivers: 64,
        ..ONE
    },
    Scenario {
        name: "fan64-policies",
        what: "100 k to 64 receivers, a policy each",
        prefixes: 100_000,
        receivers: 64,
        distinct: true,
        ..ONE
    },
    Scenario {
        name: "fan10-full",
        what: "1 M to 10 receivers",
        receivers: 10,
        ..ONE
    },
    Scenario {
        name: "fan10-full-policies",
        what: "1 M to 10 receivers, a policy each",
        receivers: 10,
        distinct: true,
        ..ONE
    },
    Scenario {
        name: "ipv6",
        what: "200 k of IPv6 from one sender to one receiver",
        family: Family::Ipv6,
        prefixes: 200_000,
        ..ONE
    },
    Scenario {
        name: "vpnv4",
        what: "200 k of VPNv4 from one sender to one receiver",
        family: Family::Vpnv4,
        prefixes: 200_000,
        ..ONE
    },
    Scenario {
        name: "churn",
        what: "2000 changes a second on 1 M, one receiver",
        churn_s: 10,
        ..ONE
    },
    Scenario {
        name: "stuck",
        what: "100 k to a receiver beside one that stopped reading",
        prefixes: 100_000,
        stuck: 1,
        ..ONE
    },
    Scenario {
        name: "storm",
        what: "1 M to one receiver, 500 peers with hold time 3 s and 100 BFD sessions, then churn",
        idle: 500,
        bfd: 100,
        churn_s: 10,
        ..ONE
    },
];

impl Scenario {
    /// The same with so many minutes of churn, where there is any.
    pub fn lasting(&self, minutes: u32) -> Scenario {
        Scenario {
            churn_s: if self.churn_s > 0 { minutes * 60 } else { 0 },
            ..self.clone()
        }
    }

    /// The same with a hundredth of the prefixes and a short churn.
    pub fn quick(&self) -> Scenario {
        Scenario {
            prefixes: (self.prefixes / 100).max(2000),
            idle: self.idle.min(50),
            bfd: self.bfd.min(10),
            churn_s: self.churn_s.min(2),
            ..self.clone()
        }
    }
}
