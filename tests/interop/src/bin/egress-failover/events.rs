// SPDX-License-Identifier: Apache-2.0
//! What happens to the gateways, and what is waited for before and after.

use std::{
    cell::Cell,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use harness::{
    CONVERGED, Lab, Signal, causeway,
    egress::SERVER,
    pod::Pod,
    standby::{self, Cut, GATEWAYS, has_address, holds, linked, one_holds, unheard},
    wait_for,
};

use crate::{
    live,
    phases::{self, Phases},
    report::Report,
    stream::{Outcome, Stream},
};

/// Before an event, and after it is over.
const MARGIN: Duration = Duration::from_secs(1);
/// How long a datagram may be on its way.
const STRAGGLERS: Duration = Duration::from_millis(500);
/// How long the lab is left alone before the processors are looked at: nobody asks what became of an
/// event while it is measured.
const ALONE: Duration = Duration::from_secs(3);

/// How long sessions with the router may take to end after packets were lost for some seconds: TCP
/// sends again ever later, and the lab's hold time is 9 s. Without its routes a gateway is cut off
/// once more, which is another event.
const SESSIONS: Duration = Duration::from_secs(10);

/// A gateway's links: with the other gateway and the two nodes that have pods.
const LINKS: usize = 3;

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Event {
    /// Nothing: what the machine itself adds to every other number.
    Nothing,
    /// SIGKILL to the holder's daemon, and its next start.
    Daemon,
    /// The gateways do not hear each other, and both live.
    Split,
    /// `causeway drain` on the holder.
    Drain,
    /// The holder's link to the fabric goes down.
    Link,
    /// All that the holder sends and gets is lost, as of a hung kernel.
    Hung,
    /// The same of both gateways, and both come back; the time after that.
    Both,
    /// The holder's power is cut. Each round has a lab of its own.
    Power,
}

/// What is wanted of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    None,
    /// Nothing is lost.
    NoLoss,
    /// No longer silence.
    Silence(Duration),
}

impl Event {
    pub(crate) fn goal(self) -> Goal {
        match self {
            Event::Nothing | Event::Both => Goal::None,
            Event::Daemon | Event::Split | Event::Drain => Goal::NoLoss,
            Event::Link | Event::Hung | Event::Power => Goal::Silence(Duration::from_millis(300)),
        }
    }

    /// Whether it says something else when there are many connections.
    fn is_repeated_live(self) -> bool {
        matches!(
            self,
            Event::Nothing | Event::Daemon | Event::Drain | Event::Hung | Event::Power
        )
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Event::Nothing => "nothing",
            Event::Daemon => "daemon killed, and started",
            Event::Split => "gateways do not hear each other",
            Event::Drain => "planned move",
            Event::Link => "link cut",
            Event::Hung => "hung kernel",
            Event::Both => "both lost, after they are back",
            Event::Power => "power off",
        }
    }
}

/// One event's effect.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) event: Event,
    /// Other connections alive.
    pub(crate) live: u32,
    /// By family, IPv4 first.
    pub(crate) outcomes: [Outcome; 2],
    /// Where a takeover's time went.
    pub(crate) phases: Option<Phases>,
    /// Load of the machine of the last minute.
    pub(crate) load: f64,
}

/// What is to happen.
pub(crate) struct Plan<'a> {
    /// All of them if empty.
    pub(crate) events: &'a [Event],
    /// How often each.
    pub(crate) rounds: u32,
    /// Other connections alive meanwhile.
    pub(crate) live: u32,
    pub(crate) trace: bool,
}

/// Has everything happen, and tells what it did.
pub(crate) fn run(plan: &Plan<'_>, report: &mut Report) -> Result<()> {
    let wanted = |event: &Event| {
        let is_named = plan.events.is_empty() || plan.events.contains(event);
        is_named && (plan.live == 0 || event.is_repeated_live())
    };
    let repeated: Vec<Event> = Event::value_variants()
        .iter()
        .copied()
        .filter(|event| wanted(event) && *event != Event::Power)
        .collect();
    if !repeated.is_empty() {
        let lab = live::lab(plan.live)?;
        let bench = Bench::start(&lab, plan)?;
        for _ in 0..plan.rounds {
            for event in &repeated {
                report.add(bench.round(*event)?);
            }
        }
        bench.finish()?;
    }
    if wanted(&Event::Power) {
        for _ in 0..plan.rounds {
            let lab = live::lab(plan.live)?;
            let bench = Bench::start(&lab, plan)?;
            report.add(bench.round(Event::Power)?);
            bench.finish()?;
        }
    }
    Ok(())
}

/// A lab with streams.
struct Bench<'a> {
    lab: &'a Lab,
    streams: [Stream; 2],
    live: u32,
    trace: bool,
    /// Until when logs have been shown.
    shown: Cell<SystemTime>,
}

impl<'a> Bench<'a> {
    fn start(lab: &'a Lab, plan: &Plan<'_>) -> Result<Self> {
        let pod = Pod::add_to(lab.node("node1"), "shop", "billing-1")?;
        // It makes its node one that gateways can ask, and has the other connections.
        let other = Pod::add_to(lab.node("node2"), "shop", "billing-2")?;
        let start = |target| Stream::start(&pod, lab.node("server"), target);
        let streams = [start(SERVER[0])?, start(SERVER[1])?];
        live::fill(lab, &other, plan.live)?;
        #[expect(clippy::disallowed_methods, reason = "files and logs are dated by it")]
        let now = SystemTime::now();
        Ok(Self {
            lab,
            streams,
            live: plan.live,
            trace: plan.trace,
            shown: Cell::new(now),
        })
    }

    fn finish(self) -> Result<()> {
        for stream in self.streams {
            stream.finish()?;
        }
        Ok(())
    }

    /// Has an event happen once, and mends what it broke.
    fn round(&self, event: Event) -> Result<Round> {
        let lab = self.lab;
        let holder = one_holds(lab)?;
        let other = standby::other(&holder);
        let (gateway, standby) = (lab.node(&holder), lab.node(other));
        let mended = Instant::now();
        copied(lab, &holder)?;
        all_linked(lab)?;
        let ready = mended.elapsed().as_secs_f64();
        thread::sleep(2 * MARGIN);
        #[expect(clippy::disallowed_methods, reason = "files and logs are dated by it")]
        let begun = (Instant::now(), SystemTime::now());
        let from = begun.0;
        let mut round = match event {
            Event::Nothing => self.measured(event, from)?,
            Event::Daemon => {
                gateway.kill(Signal::SIGKILL)?;
                thread::sleep(ALONE);
                gateway.start()?;
                linked(lab)?;
                self.measured(event, from)?
            }
            Event::Split => {
                let cut = Cut::between_gateways(lab)?;
                unheard(lab)?;
                thread::sleep(ALONE);
                cut.mend()?;
                linked(lab)?;
                self.measured(event, from)?
            }
            Event::Drain => {
                let drain = ["causeway", "drain", "--detach", "--reason", "bench"];
                gateway.exec_ok(&drain)?;
                thread::sleep(ALONE);
                holds(lab, other)?;
                let round = self.measured(event, from)?;
                gateway.exec_ok(&["causeway", "undrain"])?;
                round
            }
            Event::Link => {
                gateway.link_down("eth1")?;
                let round = self.taken_over(event, from, standby)?;
                gateway.link_up("eth1")?;
                round
            }
            Event::Hung => {
                let cut = Cut::whole(gateway)?;
                let round = self.taken_over(event, from, standby)?;
                cut.mend()?;
                round
            }
            Event::Both => {
                let cuts = [Cut::whole(gateway)?, Cut::whole(standby)?];
                unheard(lab)?;
                // Each finds out that it is cut off, and holds nothing.
                thread::sleep(ALONE);
                let from = Instant::now();
                for cut in cuts {
                    cut.mend()?;
                }
                linked(lab)?;
                one_holds(lab)?;
                self.measured(event, from)?
            }
            Event::Power => {
                gateway.power_off()?;
                self.taken_over(event, from, standby)?
            }
        };
        if let Goal::Silence(_) = event.goal() {
            round.phases = phases::of(begun, standby, &round.outcomes);
        }
        self.say(&round, ready);
        if matches!(event, Event::Hung | Event::Both) {
            thread::sleep(SESSIONS);
        }
        if event != Event::Power {
            linked(lab)?;
            let now = one_holds(lab)?;
            let moves = matches!(event, Event::Drain | Event::Link | Event::Hung);
            ensure!(
                event == Event::Both || (now != holder) == moves,
                "{event:?}: {holder} held the addresses, {now} does"
            );
        }
        Ok(round)
    }

    /// What happened until the other gateway had everything.
    fn taken_over(&self, event: Event, from: Instant, standby: &harness::Node) -> Result<Round> {
        thread::sleep(ALONE);
        wait_for("the other gateway to take over", CONVERGED, || {
            ensure!(has_address(standby)?, "it has no address");
            Ok(())
        })?;
        self.measured(event, from)
    }

    fn measured(&self, event: Event, from: Instant) -> Result<Round> {
        thread::sleep(MARGIN);
        let to = Instant::now();
        thread::sleep(STRAGGLERS);
        let [v4, v6] = &self.streams;
        let load = load()?;
        Ok(Round {
            event,
            live: self.live,
            outcomes: [v4.between(from, to), v6.between(from, to)],
            phases: None,
            load,
        })
    }

    fn say(&self, round: &Round, ready: f64) {
        for (family, outcome) in ["IPv4", "IPv6"].iter().zip(&round.outcomes) {
            eprintln!(
                "{}, {family}: {} of {} lost ({} on the way out), {:.0} ms of silence \
                 ({:.0} at the server, {:.0} of the sender), load {:.1}",
                round.event.name(),
                outcome.lost,
                outcome.sent,
                outcome.lost_out,
                outcome.silence.as_secs_f64() * 1e3,
                outcome.silence_out.as_secs_f64() * 1e3,
                outcome.pause.as_secs_f64() * 1e3,
                round.load,
            );
        }
        if let Some(phases) = &round.phases {
            eprintln!("  {phases}");
        }
        eprintln!("  ready {ready:.1} s after the one before");
        if !self.trace {
            return;
        }
        for outcome in &round.outcomes {
            for (at, arrived) in outcome.lost_at.iter().take(40) {
                eprintln!("  lost after {at:?}, arrived: {arrived}");
            }
            for (at, error) in outcome.errors.iter().take(10) {
                eprintln!("  after {at:?}: {error}");
            }
        }
        #[expect(clippy::disallowed_methods, reason = "files and logs are dated by it")]
        let now = SystemTime::now();
        let since = self.shown.replace(now);
        for node in ["gw1", "gw2", "node1"] {
            let node = self.lab.node(node);
            if !node.is_alive() {
                continue;
            }
            eprintln!("-- {}", node.name());
            for (after, line) in phases::lines(&node.log(), since) {
                eprintln!("  {:+.3} {line}", after.as_secs_f64());
            }
        }
    }
}

/// Waits until the gateway that stands by has all connections.
fn copied(lab: &Lab, holder: &str) -> Result<()> {
    linked(lab)?;
    wait_for("copies of all connections", CONVERGED, || {
        let peers = causeway::items(lab.node(holder), "egress gateways")?;
        let other = standby::other(holder);
        let peer = peers.iter().find(|peer| peer["name"] == other);
        let peer = peer.context("the other gateway")?;
        let (to, complete) = (&peer["copiedTo"], &peer["copiedToComplete"]);
        ensure!(to == complete && to.as_u64() > Some(0), "{peer:#}");
        Ok(())
    })
}

/// Waits until the gateways are linked with every node, which they ask when one of them is gone.
fn all_linked(lab: &Lab) -> Result<()> {
    for (gateway, _) in GATEWAYS {
        wait_for(&format!("links of {gateway}"), CONVERGED, || {
            let peers = causeway::items(lab.node(gateway), "egress gateways")?;
            let linked = peers.iter().filter(|peer| peer["isLinked"] == true);
            ensure!(linked.count() == LINKS, "{peers:#?}");
            Ok(())
        })?;
    }
    Ok(())
}

fn load() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    let first = text.split(' ').next().and_then(|word| word.parse().ok());
    first.context("/proc/loadavg has a number")
}
