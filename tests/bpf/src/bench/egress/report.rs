// SPDX-License-Identifier: Apache-2.0
//! What was measured, and which goals it reaches.

use std::fmt;

use harness::page::{
    self,
    Column::{Numbers, Words},
    Samples, Table,
};

use super::{
    MANY as MANY_FLOWS, Mode, Options,
    page::{EXPLANATIONS, INTRODUCTION},
    programs::Cost,
};

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

const _: () = assert!(MANY_FLOWS == 50_000);

/// Where packets come from, and what is on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// One router between a pod and the world.
    One,
    /// The gateway alone, fed by the network in VXLAN.
    Behind,
    /// The pod's node and the gateway, VXLAN between them.
    Vxlan,
    /// The pod's node and the gateway, nothing between them.
    Native,
}

impl Place {
    /// Behind the name of a scenario.
    fn suffix(self) -> &'static str {
        match self {
            Self::One => "",
            Self::Behind => ", the gateway alone behind VXLAN",
            Self::Vxlan => ", two nodes by VXLAN",
            Self::Native => ", two nodes without a tunnel",
        }
    }
}

/// The rounds of a way.
pub(super) type Row = (Mode, Samples);

/// All ways in one scenario: plain forwarding first, our gateway last.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Section {
    place: Place,
    scenario: &'static str,
    rows: Vec<Row>,
}

impl Section {
    pub(super) fn new(place: Place, scenario: &'static str, rows: Vec<Row>) -> Self {
        Self {
            place,
            scenario,
            rows,
        }
    }

    fn plain(&self) -> f64 {
        self.rows.first().map_or(f64::NAN, |row| row.1.least())
    }

    fn ours(&self) -> f64 {
        self.rows.last().map_or(f64::NAN, |row| row.1.least())
    }

    /// The best round of the first way of these that is there.
    fn best(&self, modes: &[Mode]) -> f64 {
        let row = self.rows.iter().find(|row| modes.contains(&row.0));
        row.map_or(f64::NAN, |row| row.1.least())
    }

    fn nftables(&self) -> f64 {
        self.best(&[Mode::Nft, Mode::VxlanNft, Mode::RoutedNft])
    }

    fn name(&self) -> String {
        format!("{}{}", self.scenario, self.place.suffix())
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = if self.scenario == NEW {
            "best: M connections/s"
        } else {
            "best: M packets/s"
        };
        let mut table = Table::new(&[
            Words("way"),
            Numbers("best ns"),
            Numbers("median ns"),
            Numbers(rate),
            Numbers("over plain forwarding"),
            Numbers("ours / this"),
        ]);
        for (mode, samples) in &self.rows {
            table.row([
                mode.name().to_owned(),
                whole(samples.least()),
                whole(samples.median()),
                format!("{:.2}", 1e3 / samples.least()),
                format!("{:+.0}", samples.least() - self.plain()),
                format!("{:.2}", self.ours() / samples.least()),
            ]);
        }
        write!(f, "\n### {}\n\n{table}", self.name())
    }
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    rounds: u32,
    pub(super) sections: Vec<Section>,
    pub(super) programs: Vec<Cost>,
    /// One flow, every flow in turn, new flows.
    pub(super) levels: Vec<(Mode, u32, [Samples; 3])>,
    /// One flow, new flows.
    pub(super) policies: Vec<(u32, [Samples; 2])>,
    pub(super) streams: Vec<Row>,
    /// Ours in nftables', round by round.
    pub(super) stream_ratios: Samples,
    pub(super) notes: Vec<String>,
}

impl Report {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            rounds: options.rounds,
            sections: Vec::new(),
            programs: Vec::new(),
            levels: Vec::new(),
            policies: Vec::new(),
            streams: Vec::new(),
            stream_ratios: Samples::default(),
            notes: Vec::new(),
        }
    }

    /// The page.
    #[must_use]
    pub fn page(&self) -> String {
        format!(
            "{INTRODUCTION}Machine: {}. Rounds: {}.\n{self}\n{EXPLANATIONS}",
            page::machine(),
            self.rounds
        )
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for section in &self.sections {
            for (_, cilium, nft) in CILIUM.iter().filter(|one| one.0 == section.scenario) {
                verdicts.extend(of_section(section, cilium / nft));
            }
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
        if let (Some(few), Some(most)) = (self.policies.first(), self.policies.last()) {
            for (index, what) in [(0, HOT), (1, NEW)] {
                verdicts.push(Verdict::at_most(
                    format!("{what}: {} policies, in one with {}", most.0, few.0),
                    most.1[index].least() / few.1[index].least(),
                    1.15,
                ));
            }
        }
        verdicts.push(Verdict::at_least(
            "TCP throughput, in nftables', the median of all rounds".to_owned(),
            self.stream_ratios.median(),
            1.0,
        ));
        verdicts
    }
}

/// The goals of one scenario; `cilium` is its addition in nftables' where both were measured.
fn of_section(section: &Section, cilium: f64) -> Vec<Verdict> {
    let name = section.name();
    let added = section.ours() - section.plain();
    let beside = section.nftables() - section.plain();
    let share = if section.scenario == NEW { 0.6 } else { 0.5 };
    let mut verdicts = Vec::new();
    if matches!(section.place, Place::One | Place::Behind) {
        verdicts.push(Verdict::at_most(
            format!("{name}: added to plain forwarding, in Cilium's addition by way of nftables'"),
            added / (beside * cilium),
            0.5,
        ));
    }
    // The translation's own share: the rest of what ours does is left out by a way that does it too.
    let (own, beside_own) = match section.place {
        Place::One => {
            verdicts.push(Verdict::at_most(
                format!("{name}: added to plain forwarding, in nftables'"),
                added / beside,
                share,
            ));
            (Mode::Programs, "our own forwarding")
        }
        Place::Behind => (Mode::VxlanMetadata, "forwarding behind such a tunnel"),
        Place::Vxlan | Place::Native => (Mode::Gateway, ""),
    };
    let own = section.ours() - section.best(&[own]);
    if !own.is_nan() {
        let what = format!("{name}: added to {beside_own}, in nftables'");
        verdicts.push(goal_of(section.place, what, own / beside, share));
    }
    let what = format!("{name}: the whole path, in nftables'");
    let ratio = section.ours() / section.nftables();
    verdicts.push(goal_of(section.place, what, ratio, 0.85));
    verdicts
}

/// The goals are a gateway's by itself, as Cilium's was measured; with tunnels and a pod's node in the
/// path there is only what it came to.
fn goal_of(place: Place, what: String, ratio: f64, goal: f64) -> Verdict {
    match place {
        Place::One => Verdict::at_most(what, ratio, goal),
        Place::Behind | Place::Vxlan | Place::Native => Verdict {
            goal: None,
            ..Verdict::at_most(what, ratio, goal)
        },
    }
}

/// A ratio, and its goal if it has one.
struct Verdict {
    what: String,
    ratio: f64,
    goal: Option<f64>,
    is_floor: bool,
}

impl Verdict {
    fn at_most(what: String, ratio: f64, goal: f64) -> Self {
        Self {
            what,
            ratio,
            goal: Some(goal),
            is_floor: false,
        }
    }

    fn at_least(what: String, ratio: f64, goal: f64) -> Self {
        Self {
            is_floor: true,
            ..Self::at_most(what, ratio, goal)
        }
    }

    fn row(self) -> [String; 4] {
        let (goal, verdict) = match (self.goal, self.is_floor) {
            (None, _) => ("none".to_owned(), ""),
            (Some(goal), true) => (format!("≥ {goal:.2}"), page::verdict(self.ratio >= goal)),
            (Some(goal), false) => (format!("≤ {goal:.2}"), page::verdict(self.ratio <= goal)),
        };
        let ratio = format!("{:.2}", self.ratio);
        [self.what, ratio, goal, verdict.to_owned()]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in [Place::One, Place::Behind, Place::Vxlan, Place::Native] {
            for section in self.sections.iter().filter(|one| one.place == place) {
                write!(f, "{section}")?;
            }
        }
        write!(f, "\n### the programs alone\n\n{}", self.programs())?;
        write!(f, "\n### live mappings\n\n{}", self.levels())?;
        write!(f, "\n### policies\n\n{}", self.policies())?;
        write!(f, "\n### one TCP stream\n\n{}", self.streams())?;
        let mut table = Table::new(&[
            Words("ratio, by best rounds"),
            Numbers("ours"),
            Numbers("goal"),
            Words(""),
        ]);
        for verdict in self.verdicts() {
            table.row(verdict.row());
        }
        write!(f, "\n### goals\n\n{table}")?;
        for note in &self.notes {
            writeln!(f, "\n{note}")?;
        }
        Ok(())
    }
}

impl Report {
    fn programs(&self) -> Table {
        let mut table = Table::new(&[
            Words("program"),
            Words("packet of a"),
            Numbers("least ns"),
            Numbers("median ns"),
            Numbers("Cilium's: least"),
            Numbers("median"),
            Numbers("instructions"),
        ]);
        for cost in &self.programs {
            let [cilium_median, cilium_least] = cost.cilium;
            table.row([
                format!("`{}`", cost.program),
                cost.what.to_owned(),
                whole(cost.ns.least()),
                whole(cost.ns.median()),
                cilium_least.to_string(),
                cilium_median.to_string(),
                cost.instructions.to_string(),
            ]);
        }
        table
    }

    fn levels(&self) -> Table {
        let mut table = Table::new(&[
            Words("way"),
            Numbers("mappings"),
            Numbers("one flow: best ns"),
            Numbers("median"),
            Numbers("every one in turn: best ns"),
            Numbers("median"),
            Numbers("new flows: best ns"),
            Numbers("median"),
        ]);
        for (mode, mappings, samples) in &self.levels {
            let mut row = vec![mode.name().to_owned(), mappings.to_string()];
            for samples in samples {
                row.extend([whole(samples.least()), whole(samples.median())]);
            }
            table.row(row);
        }
        table
    }

    fn policies(&self) -> Table {
        let mut table = Table::new(&[
            Numbers("policies"),
            Numbers("one flow: best ns"),
            Numbers("median"),
            Numbers("new flows: best ns"),
            Numbers("median"),
        ]);
        for (count, samples) in &self.policies {
            let mut row = vec![count.to_string()];
            for samples in samples {
                row.extend([whole(samples.least()), whole(samples.median())]);
            }
            table.row(row);
        }
        table
    }

    fn streams(&self) -> Table {
        let mut table = Table::new(&[
            Words("way"),
            Numbers("best Gbit/s"),
            Numbers("median"),
            Numbers("least"),
        ]);
        for (mode, samples) in &self.streams {
            let all = [samples.most(), samples.median(), samples.least()];
            let mut row = vec![mode.name().to_owned()];
            row.extend(all.map(|value| format!("{value:.1}")));
            table.row(row);
        }
        table
    }
}

fn whole(value: f64) -> String {
    format!("{value:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(place: Place, ways: &[(Mode, f64)]) -> Section {
        let rows = ways
            .iter()
            .map(|(mode, ns)| (*mode, [*ns].into_iter().collect()));
        Section::new(place, HOT, rows.collect())
    }

    fn ratios(section: &Section) -> Vec<String> {
        let verdicts = of_section(section, 2.0).into_iter();
        verdicts
            .map(|verdict| verdict.row()[1..].join(" "))
            .collect()
    }

    #[test]
    fn goals_are_about_what_a_way_adds() {
        let one = section(
            Place::One,
            &[
                (Mode::Forward, 600.0),
                (Mode::Programs, 500.0),
                (Mode::Nft, 1000.0),
                (Mode::Gateway, 720.0),
            ],
        );
        let wanted = [
            "0.15 ≤ 0.50 holds",
            "0.30 ≤ 0.50 holds",
            "0.55 ≤ 0.50 missed",
            "0.72 ≤ 0.85 holds",
        ];
        assert_eq!(ratios(&one), wanted);
        let behind = section(
            Place::Behind,
            &[
                (Mode::VxlanForward, 1200.0),
                (Mode::VxlanMetadata, 1500.0),
                (Mode::VxlanNft, 1800.0),
                (Mode::Vxlan, 1680.0),
            ],
        );
        assert_eq!(
            ratios(&behind),
            ["0.40 ≤ 0.50 holds", "0.30 none ", "0.93 none "]
        );
    }

    #[test]
    fn what_was_not_measured_reaches_no_goal() {
        let none = section(
            Place::One,
            &[(Mode::Forward, 600.0), (Mode::Gateway, 720.0)],
        );
        assert!(
            ratios(&none).iter().all(|ratio| ratio.ends_with("missed")),
            "{:?}",
            ratios(&none)
        );
    }
}
