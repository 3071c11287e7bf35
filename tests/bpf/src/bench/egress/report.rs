// SPDX-License-Identifier: Apache-2.0
//! What was measured, as a page.

use std::fmt::{self, Write as _};

use super::{MANY as MANY_FLOWS, Mode, Options};

pub(super) const HOT: &str = "one flow";
pub(super) const HOT_BACK: &str = "one flow, answers";
pub(super) const MANY: &str = "50 000 flows";
pub(super) const MANY_BACK: &str = "50 000 flows, answers";
pub(super) const NEW: &str = "new flows";

/// What Cilium's gateway added to plain forwarding on another day, and nftables beside it, in
/// nanoseconds per packet.
const CILIUM: [(&str, f64, f64); 3] = [
    (HOT, 424.0, 232.0),
    (MANY, 870.0, 430.0),
    (NEW, 1387.0, 1365.0),
];

/// The rounds of one way.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Samples(Vec<f64>);

impl Samples {
    pub(super) fn add(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_unstable_by(f64::total_cmp);
    }

    fn least(&self) -> f64 {
        self.0.first().copied().unwrap_or(f64::NAN)
    }

    fn most(&self) -> f64 {
        self.0.last().copied().unwrap_or(f64::NAN)
    }

    fn median(&self) -> f64 {
        self.0.get(self.0.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

pub(super) type Row = (Mode, Samples);

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    rounds: u32,
    pub(super) ways: Vec<(&'static str, Vec<Row>)>,
    /// One flow, every flow in turn, new flows.
    pub(super) levels: Vec<(Mode, u32, [Samples; 3])>,
    /// One flow, new flows.
    pub(super) rules: Vec<(u32, [Samples; 2])>,
    pub(super) streams: Vec<Row>,
    pub(super) notes: Vec<String>,
}

impl Report {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            rounds: options.rounds,
            ways: Vec::new(),
            levels: Vec::new(),
            rules: Vec::new(),
            streams: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The best round of a way; not a number where there is none.
    fn best(&self, scenario: &str, mode: Mode) -> f64 {
        let rows = self.ways.iter().find(|(title, _)| *title == scenario);
        let row = rows.and_then(|(_, rows)| rows.iter().find(|row| row.0 == mode));
        row.map_or(f64::NAN, |row| row.1.least())
    }

    fn added(&self, scenario: &str, mode: Mode, to: Mode) -> f64 {
        self.best(scenario, mode) - self.best(scenario, to)
    }

    /// The page.
    #[must_use]
    pub fn page(&self) -> String {
        format!(
            "{INTRODUCTION}Machine: {}. Rounds: {}.\n{self}\n{EXPLANATIONS}",
            machine(),
            self.rounds
        )
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for (scenario, cilium, nft) in CILIUM {
            let added = self.added(scenario, Mode::Gateway, Mode::Forward);
            let beside = self.added(scenario, Mode::Nft, Mode::Forward);
            verdicts.push(Verdict::at_most(
                format!("{scenario}: added to plain forwarding, in Cilium's addition by way of nftables'"),
                added / (beside * cilium / nft),
                0.5,
            ));
            let own = self.added(scenario, Mode::Gateway, Mode::Programs);
            let goal = if scenario == NEW { 0.6 } else { 0.5 };
            verdicts.push(Verdict::at_most(
                format!("{scenario}: added to plain forwarding, in nftables'"),
                added / beside,
                goal,
            ));
            verdicts.push(Verdict::at_most(
                format!("{scenario}: added to our own forwarding, in nftables'"),
                own / beside,
                goal,
            ));
            verdicts.push(Verdict::at_most(
                format!("{scenario}: the whole path, in nftables'"),
                self.best(scenario, Mode::Gateway) / self.best(scenario, Mode::Nft),
                0.85,
            ));
        }
        let gateway: Vec<_> = self
            .levels
            .iter()
            .filter(|level| level.0 == Mode::Gateway)
            .collect();
        if let (Some(few), Some(most)) = (gateway.first(), gateway.last()) {
            for (index, what) in [(0, HOT), (2, NEW)] {
                verdicts.push(Verdict::at_most(
                    format!("{what}: {} live mappings, in one with {}", most.1, few.1),
                    most.2[index].least() / few.2[index].least(),
                    1.15,
                ));
            }
        }
        if let (Some(few), Some(most)) = (self.rules.first(), self.rules.last()) {
            for (index, what) in [(0, HOT), (1, NEW)] {
                verdicts.push(Verdict::at_most(
                    format!("{what}: {} rules, in one with {}", most.0, few.0),
                    most.1[index].least() / few.1[index].least(),
                    1.15,
                ));
            }
        }
        let stream = |mode| {
            let row = self.streams.iter().find(|row| row.0 == mode);
            row.map_or(f64::NAN, |row| row.1.most())
        };
        verdicts.push(Verdict::at_least(
            "TCP throughput, in nftables'".to_owned(),
            stream(Mode::Gateway) / stream(Mode::Nft),
            1.0,
        ));
        verdicts
    }
}

/// A ratio and its goal.
struct Verdict {
    what: String,
    ratio: f64,
    goal: f64,
    is_floor: bool,
}

impl Verdict {
    fn at_most(what: String, ratio: f64, goal: f64) -> Self {
        Self {
            what,
            ratio,
            goal,
            is_floor: false,
        }
    }

    fn at_least(what: String, ratio: f64, goal: f64) -> Self {
        Self {
            is_floor: true,
            ..Self::at_most(what, ratio, goal)
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, holds) = if self.is_floor {
            ("≥", self.ratio >= self.goal)
        } else {
            ("≤", self.ratio <= self.goal)
        };
        let verdict = if holds { "holds" } else { "missed" };
        let Self {
            what, ratio, goal, ..
        } = self;
        write!(f, "| {what} | {ratio:.2} | {sign} {goal:.2} | {verdict} |")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (title, rows) in &self.ways {
            writeln!(f, "\n### {title}\n")?;
            writeln!(
                f,
                "| way | best ns | median ns | over plain forwarding | ours / this |"
            )?;
            writeln!(f, "|---|--:|--:|--:|--:|")?;
            let ours = self.best(title, Mode::Gateway);
            for (mode, samples) in rows {
                writeln!(
                    f,
                    "| {} | {:.0} | {:.0} | {:+.0} | {:.2} |",
                    mode.name(),
                    samples.least(),
                    samples.median(),
                    samples.least() - self.best(title, Mode::Forward),
                    ours / samples.least()
                )?;
            }
        }
        writeln!(f, "\n### live mappings\n")?;
        writeln!(
            f,
            "| way | mappings | {HOT}: best ns | median | every one in turn: best ns | median | {NEW}: best ns | median |"
        )?;
        writeln!(f, "|---|--:|--:|--:|--:|--:|--:|--:|")?;
        for (mode, mappings, samples) in &self.levels {
            write!(f, "| {} | {mappings} |", mode.name())?;
            for samples in samples {
                write!(f, " {:.0} | {:.0} |", samples.least(), samples.median())?;
            }
            writeln!(f)?;
        }
        writeln!(f, "\n### rules of our gateway\n")?;
        writeln!(
            f,
            "| rules | {HOT}: best ns | median | {NEW}: best ns | median |"
        )?;
        writeln!(f, "|--:|--:|--:|--:|--:|")?;
        for (count, samples) in &self.rules {
            write!(f, "| {count} |")?;
            for samples in samples {
                write!(f, " {:.0} | {:.0} |", samples.least(), samples.median())?;
            }
            writeln!(f)?;
        }
        writeln!(f, "\n### one TCP stream\n")?;
        writeln!(f, "| way | best Gbit/s | median |\n|---|--:|--:|")?;
        for (mode, samples) in &self.streams {
            let (most, median) = (samples.most(), samples.median());
            writeln!(f, "| {} | {most:.1} | {median:.1} |", mode.name())?;
        }
        writeln!(f, "\n### goals\n")?;
        writeln!(
            f,
            "| ratio, by best rounds | ours | goal | |\n|---|--:|--:|---|"
        )?;
        for verdict in self.verdicts() {
            writeln!(f, "{verdict}")?;
        }
        for note in &self.notes {
            writeln!(f, "\n{note}")?;
        }
        Ok(())
    }
}

fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (cpus, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let processors = cpus.lines().filter(|line| line.starts_with("processor"));
    let kib: Option<u64> = memory.lines().find_map(|line| {
        line.strip_prefix("MemTotal:")?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
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

const INTRODUCTION: &str = "# The bench of egress gateways

`cargo xtask bench egress` wrote this page. Numbers are nanoseconds per 64-byte IPv4 UDP packet of the
whole path, from the router's first veth device until an XDP program has counted and dropped it behind
its second one, the making of the packet included. Only ratios within one table mean something: other work of the machine is in all of
them.

- Each way has a router of its own, a network namespace between a pod and the world; all are alike. The
  ways take turns round by round, the first round does not count, and *best* is the least of the
  others.
- Packets come from XDP live frames, with static neighbours, on one core, before all other work. Of
  every turn at least 999 of 1000 packets must arrive with the right source (answers: destination)
  address, or the run fails.
- Addresses, ports and both checksums are real. Connection tracking does not check checksums
  (`nf_conntrack_checksum=0`), as behind a network card that does, and its UDP timeouts are an hour, so
  that no entry ends.
- Every way keeps the port a packet has, since it is free.

";

const EXPLANATIONS: &str = "### What is in the numbers, and what is not

- **our gateway** is `egress_out` on the pod's device and `egress_back` on the fabric's, in place of the
  tunnel: a program of four instructions before it puts the number of the rule into the packet's mark, as
  `from_pod` does for pods of the gateway's own node. VXLAN is not in the numbers in either direction,
  nor reading its key (a helper call that finds none is in its place), nor, for new flows, looking
  up the pod's node. Forwarding is in them: the cached route and `bpf_redirect_neigh`.
- Answers go to a pod of the gateway's own node: `egress_back` translates and the kernel forwards, with
  `to_pod` and `from_fabric` not attached.
- **our forwarding** is `from_pod` and `from_fabric` without any translation. Translation's own share is
  what a way adds to forwarding; of our gateway both are given, what it adds to the kernel's and to ours.
- Lookups in maps per packet of a known flow: five on the way out (`WORK`, `RULES`, `NAT`,
  `GATEWAY_ROUTES`, `RULE_COUNTERS`), three back (`WORK`, `NAT`, `RULE_COUNTERS`; through the tunnel one
  more, `TUNNEL_ENDS`). Two are hashes on the way out, one back; the others are arrays. There is no prefix
  tree.
- *by way of nftables'*: Cilium's gateway added 424 ns to plain forwarding for one flow, 870 for 50 000
  and 1387 for new ones on another day, where nftables `snat` added 232, 430 and 1365. Their ratio there
  times what nftables adds here is what Cilium would add here.
- The tables of nftables and iptables are as large as the kernel makes them without being told, 262 144
  entries; ours has its default, room for as many mappings, and under *live mappings* for 1.2 million,
  which is rounded up to 2.1 million.
  *Every one in turn* goes through all mappings, or through the first 100 000 of them: what it costs
  more than one flow is the memory's share, and so is what a new flow costs more among a million, where
  it finds others in its places of the hash.
";

const _: () = assert!(MANY_FLOWS == 50_000);
