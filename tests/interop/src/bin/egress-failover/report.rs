// SPDX-License-Identifier: Apache-2.0
//! What was measured, as a page.

use std::{collections::BTreeSet, fmt, time::Duration};

use harness::page::{
    self,
    Column::{Numbers, Words},
    Samples, Table,
};

use crate::{
    events::{Event, Goal, Round},
    phases::Phases,
    stream::{Outcome, RATE},
};

/// All rounds.
pub(crate) struct Report {
    wanted: u32,
    rounds: Vec<Round>,
}

impl Report {
    pub(crate) fn new(wanted: u32) -> Self {
        Self {
            wanted,
            rounds: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, round: Round) {
        self.rounds.push(round);
    }

    /// The page.
    pub(crate) fn page(&self) -> String {
        format!(
            "{INTRODUCTION}Machine: {}. Rounds of each event: {}. Load of the machine meanwhile: {}.\n{self}\n\
             {EXPLANATIONS}",
            page::machine(),
            self.wanted,
            self.load()
        )
    }

    fn load(&self) -> String {
        let loads: Samples = self.rounds.iter().map(|round| round.load).collect();
        if loads.count() == 0 {
            return "unknown".to_owned();
        }
        format!("{:.1} to {:.1}", loads.least(), loads.most())
    }

    fn of(&self, case: Case) -> impl Iterator<Item = &Round> {
        let is_of = move |round: &&Round| (round.live, round.event) == case;
        self.rounds.iter().filter(is_of)
    }

    fn row(&self, case: Case, family: usize) -> [String; 12] {
        let (_, event) = case;
        let outcomes: Vec<&Outcome> = self.of(case).map(|round| &round.outcomes[family]).collect();
        let of = |value: fn(&Outcome) -> f64| -> Samples {
            outcomes.iter().map(|outcome| value(outcome)).collect()
        };
        let silences = of(|outcome| ms(outcome.silence));
        let at_server = of(|outcome| ms(outcome.silence_out));
        let lost = of(|outcome| outcome.lost as f64);
        let lost_out = of(|outcome| outcome.lost_out as f64);
        let (goal, holds) = match event.goal() {
            Goal::None => ("-".to_owned(), None),
            Goal::NoLoss => ("0 lost".to_owned(), Some(lost.most() == 0.0)),
            Goal::Silence(limit) => (
                format!("≤ {:.0} ms", ms(limit)),
                Some(silences.most() <= ms(limit)),
            ),
        };
        let whole = |value: f64| format!("{value:.0}");
        [
            name(case),
            ["IPv4", "IPv6"][family].to_owned(),
            outcomes.len().to_string(),
            whole(silences.least()),
            whole(silences.median()),
            whole(silences.most()),
            whole(at_server.most()),
            whole(lost.median()),
            whole(lost.most()),
            whole(lost_out.most()),
            goal,
            holds.map_or("", page::verdict).to_owned(),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cases = self.rounds.iter().map(|round| (round.live, round.event));
        let cases: BTreeSet<Case> = cases.collect();
        let mut table = Table::new(&[
            Words("event"),
            Words("family"),
            Numbers("rounds"),
            Numbers("longest gap: least ms"),
            Numbers("median"),
            Numbers("most"),
            Numbers("at the server: most"),
            Numbers("lost: median"),
            Numbers("most"),
            Numbers("on the way out: most"),
            Words("goal"),
            Words(""),
        ]);
        for case in &cases {
            for family in 0..2 {
                table.row(self.row(*case, family));
            }
        }
        write!(f, "\n### gaps\n\n{table}")?;
        let timed = |case: Case| -> Vec<Phases> {
            self.of(case).filter_map(|round| round.phases).collect()
        };
        if cases.iter().all(|case| timed(*case).is_empty()) {
            return Ok(());
        }
        let mut table = Table::new(&[
            Words("event"),
            Numbers("not heard by BFD: median ms"),
            Numbers("most"),
            Numbers("dead to all: median"),
            Numbers("most"),
            Numbers("claimed: median"),
            Numbers("most"),
            Numbers("answers: median"),
            Numbers("most"),
        ]);
        for case in cases {
            let phases = timed(case);
            if phases.is_empty() {
                continue;
            }
            let parts: [fn(&Phases) -> Duration; 4] = [
                |phases| phases.unheard,
                |phases| phases.dead,
                |phases| phases.claimed,
                |phases| phases.answered,
            ];
            let mut row = vec![name(case)];
            for part in parts {
                let times: Samples = phases.iter().map(|phases| ms(part(phases))).collect();
                row.extend([times.median(), times.most()].map(|time| format!("{time:.0}")));
            }
            table.row(row);
        }
        write!(f, "\n### where the time goes\n\n{table}")
    }
}

/// How many other connections live, and what happens.
type Case = (u32, Event);

fn name((live, event): Case) -> String {
    match live {
        0 => event.name().to_owned(),
        live => format!("{}, {live} others alive", event.name()),
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

const INTRODUCTION: &str = "# The bench of egress gateways that fail

`cargo xtask bench egress failover` wrote this page. A pod sends numbered datagrams through the address that the
guide's policy `billing-standby` has two gateways hold, and the server sends them back: what it misses while
something happens to the gateway.

- The lab is `egress`: two nodes, two gateways, a router between all of them, a firewall that lets one
  address pass, all on one machine. Release builds. Datagrams of both families, 1000 of each in a second,
  from one socket each, which is one connection.
- BFD between gateways is that of the guide, every 50 ms, three missing; then the other nodes are asked for
  50 ms whether they hear the gateway.
- The *longest gap* is the longest time between two answers at the pod, from the event on. *Lost* is what
  had no answer, *on the way out* what the server has not seen. To the end the server must see each socket
  under one address and port, or the run fails.
- The threads that send, answer and read run before all other work of the machine; the gateways' daemons
  do not.
- In a round each event happens once, and then the lab is mended: the next waits until the gateways are
  linked with each other and with both nodes, and the one that stands by has all connections. *Power off*
  ends the lab: each of its rounds has one of its own.

";

const EXPLANATIONS: &str = "### What is in the numbers, and what is not

- **nothing** is what the machine adds to all other numbers.
- **both lost** counts from when both gateways are back.
- **others alive** are connections of a pod of the other node, UDP without answers, which are replicated like
  all others; the gateways have room for them (`egress.maxMappings`). That the standby has all of them is
  waited for before each event.
- *Where the time goes* counts from the last answer before the gap, by the log of the gateway that took over:
  when BFD heard the holder no more, when all who were asked had not heard it either, when the claim was
  made, and the first answer at the pod.
- There is no rival here. The usual one for two routers with one address is VRRP with conntrackd, which is
  on none of our lab's machines; the kernel alone has nothing that takes an address over.
- One event at a time. A gateway that was unheard for seconds and is back takes some more until its sessions
  with the router and its links are as before; the other one's death in that time is not measured here.
- Nodes and processors are shared: a loaded machine makes BFD miss packets of those who live, and takes
  longer between phases.
";

const _: () = assert!(RATE == 1000);
