// SPDX-License-Identifier: Apache-2.0
//! What was measured, as a page.

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
    fs,
    time::Duration,
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
            machine(),
            self.wanted,
            self.load()
        )
    }

    fn load(&self) -> String {
        let loads = sorted(self.rounds.iter().map(|round| round.load));
        match (loads.first(), loads.last()) {
            (Some(least), Some(most)) => format!("{least:.1} to {most:.1}"),
            _ => "unknown".to_owned(),
        }
    }

    fn of(&self, case: Case) -> impl Iterator<Item = &Round> {
        let is_of = move |round: &&Round| (round.live, round.event) == case;
        self.rounds.iter().filter(is_of)
    }

    fn row(&self, case: Case, family: usize) -> String {
        let (_, event) = case;
        let outcomes: Vec<&Outcome> = self.of(case).map(|round| &round.outcomes[family]).collect();
        let silences = sorted(outcomes.iter().map(|outcome| ms(outcome.silence)));
        let at_server = sorted(outcomes.iter().map(|outcome| ms(outcome.silence_out)));
        let lost = sorted(outcomes.iter().map(|outcome| outcome.lost as f64));
        let lost_out = sorted(outcomes.iter().map(|outcome| outcome.lost_out as f64));
        let (goal, holds) = match event.goal() {
            Goal::None => ("-".to_owned(), None),
            Goal::NoLoss => ("0 lost".to_owned(), Some(most(&lost) == 0.0)),
            Goal::Silence(limit) => (
                format!("≤ {:.0} ms", ms(limit)),
                Some(most(&silences) <= ms(limit)),
            ),
        };
        let verdict = match holds {
            None => "",
            Some(true) => "holds",
            Some(false) => "missed",
        };
        format!(
            "| {} | {} | {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {goal} | {verdict} |",
            name(case),
            ["IPv4", "IPv6"][family],
            outcomes.len(),
            silences.first().copied().unwrap_or(f64::NAN),
            median(&silences),
            most(&silences),
            most(&at_server),
            median(&lost),
            most(&lost),
            most(&lost_out),
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cases = self.rounds.iter().map(|round| (round.live, round.event));
        let cases: BTreeSet<Case> = cases.collect();
        writeln!(f, "\n### gaps\n")?;
        writeln!(
            f,
            "| event | family | rounds | longest gap: least ms | median | most | at the server: most | \
             lost: median | most | on the way out: most | goal | |"
        )?;
        writeln!(f, "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|---|")?;
        for case in &cases {
            for family in 0..2 {
                writeln!(f, "{}", self.row(*case, family))?;
            }
        }
        let timed = |case: Case| -> Vec<Phases> {
            self.of(case).filter_map(|round| round.phases).collect()
        };
        if cases.iter().all(|case| timed(*case).is_empty()) {
            return Ok(());
        }
        writeln!(f, "\n### where the time goes\n")?;
        writeln!(
            f,
            "| event | not heard by BFD: median ms | most | dead to all: median | most | \
             claimed: median | most | answers: median | most |"
        )?;
        writeln!(f, "|---|--:|--:|--:|--:|--:|--:|--:|--:|")?;
        for case in cases {
            let phases = timed(case);
            if phases.is_empty() {
                continue;
            }
            write!(f, "| {} |", name(case))?;
            let parts: [fn(&Phases) -> Duration; 4] = [
                |phases| phases.unheard,
                |phases| phases.dead,
                |phases| phases.claimed,
                |phases| phases.answered,
            ];
            for part in parts {
                let times = sorted(phases.iter().map(|phases| ms(part(phases))));
                write!(f, " {:.0} | {:.0} |", median(&times), most(&times))?;
            }
            writeln!(f)?;
        }
        Ok(())
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

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn most(sorted: &[f64]) -> f64 {
    sorted.last().copied().unwrap_or(f64::NAN)
}

fn machine() -> String {
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
