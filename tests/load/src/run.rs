// SPDX-License-Identifier: Apache-2.0
//! One scenario with one speaker, from its start to its end.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::time::{ClockId, clock_gettime};

use crate::bfd::{self, Bfd};
use crate::generator::Generator;
use crate::message::{self, Origin};
use crate::peer::{Identity, Peer};
use crate::process::Process;
use crate::profile::Recording;
use crate::random::Random;
use crate::received::{Index, Received, Stamps};
use crate::scenario::{CHURN_PER_SECOND, Scenario, Share};
use crate::subject::{Neighbour, SPEAKER_ASN, Setup, Subject};
use crate::table::{Attributes, Family, Table};
use crate::world::{World, peer_v4};

/// How long sessions may take to come up.
const ESTABLISHED: Duration = Duration::from_secs(60);
/// AS numbers of peers begin here.
const FIRST_ASN: u32 = 70_000;
/// The hold time of peers that are not idle: nothing of it is measured.
const HOLD_S: u16 = 90;
/// The speaker is at rest when it used less than this in [`REST_WINDOW`].
const REST_CPU: Duration = Duration::from_millis(20);
const REST_WINDOW: Duration = Duration::from_millis(500);
const REST_LIMIT: Duration = Duration::from_secs(20);

/// What was measured. Times are of the speaker, but for `wall`s, which are the generator's.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// From the first octet of the table written to the last prefix received by the last receiver.
    pub wall: Duration,
    /// CPU time from then until the speaker is at rest.
    pub cpu: Duration,
    /// From the senders' closing to the last prefix withdrawn; none where that is not measured.
    pub withdraw_wall: Duration,
    /// CPU time from then until the speaker is at rest.
    pub withdraw_cpu: Duration,
    /// The most memory, with the table there.
    pub peak_kib: u64,
    /// Memory at rest, with the table there.
    pub settled_kib: u64,
    /// CPU time of the churn.
    pub churn_cpu: Duration,
    /// Of the churn, from writing to receiving, in ascending order.
    pub latencies_ns: Vec<u64>,
    /// Sessions that ended, hold times in which nothing came, and BFD sessions that were lost.
    pub missed: u32,
    /// The BFD sessions, where there were any.
    pub bfd: Option<bfd::Measured>,
    /// CPU time of the generator while the table was under way: when it is near `wall`, the
    /// generator was what limited it.
    pub generator_cpu: Duration,
    /// Where time went, if perf recorded it.
    pub profile: Option<String>,
    /// UPDATEs that the first receiver read for the table.
    pub updates: u64,
}

impl Measured {
    /// A percentile of the latencies.
    pub fn latency(&self, percent: f64) -> Option<Duration> {
        let last = self.latencies_ns.len().checked_sub(1)?;
        let place = (last as f64 * percent / 100.0).round() as usize;
        Some(Duration::from_nanos(self.latencies_ns[place]))
    }
}

/// What a run is besides its scenario.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// How long one step may take.
    pub limit: Duration,
    /// Whether perf records the speaker.
    pub profile: bool,
    /// The program `causeway-bfdd`.
    pub bfdd: PathBuf,
}

/// The peers of a run by what they do.
struct Cast {
    generator: Generator,
    senders: std::ops::Range<usize>,
    receivers: std::ops::Range<usize>,
}

/// Plays a scenario. The table is the caller's, so that one table serves all speakers.
///
/// # Errors
/// When the speaker fails it: does not start, is too slow, or tells something else than it was told.
pub fn run(
    world: &World,
    subject: &Subject,
    scenario: &Scenario,
    table: &Table,
    options: &Options,
) -> Result<Measured> {
    let index = Rc::new(Index::new(table));
    let (setup, peers) = cast(scenario, table, &index);
    let senders = 0..usize::from(scenario.senders);
    let receivers = senders.end..senders.end + usize::from(scenario.receivers);
    let output: Vec<Rc<[u8]>> = senders
        .clone()
        .map(|place| sender_bytes(scenario, table, &peers[place]).into())
        .collect();
    let mut process = subject.start(world, &setup)?;
    let mut cast = Cast {
        generator: Generator::new(peers),
        senders,
        receivers,
    };
    let first = scenario.senders + scenario.receivers + scenario.stuck;
    let watched = first..first + scenario.bfd.min(scenario.idle);
    let mut bfd = match watched.is_empty() || subject.is_rival() {
        true => None,
        false => Some(Bfd::start(world, &options.bfdd, watched)?),
    };
    let mut recording = None;
    let mut result = come_up(&mut cast, &mut process).and_then(|()| {
        // Not before: perf misses threads that are made while it looks which there are.
        if options.profile {
            recording = Some(Recording::start(process.pids()[0], world.dir())?);
        }
        play(
            &mut cast,
            &mut process,
            scenario,
            table,
            output,
            options.limit,
        )
    });
    if let (Ok(measured), Some(bfd)) = (&mut result, &mut bfd) {
        let bfd = bfd.measured()?;
        measured.missed += u32::try_from(bfd.flaps).unwrap_or(u32::MAX);
        measured.bfd = Some(bfd);
    }
    if let (Ok(measured), Some(recording)) = (&mut result, recording) {
        measured.profile = Some(recording.finish()?);
    }
    // Why it ended says more than that it did not answer.
    process.check()?;
    let mut result = result.with_context(|| match process.log_tail() {
        log if log.is_empty() => format!("{} failed", subject.name()),
        log => format!("{} failed; its log: {log}", subject.name()),
    });
    drop(cast);
    let log = process.stop()?;
    // A speaker built to count its allocations says so last.
    if let Ok(measured) = &mut result
        && let Some(profile) = &mut measured.profile
        && let Some(place) = log.find("allocations: ")
    {
        *profile += "\n";
        *profile += &log[place..];
    }
    result
}

fn cast(scenario: &Scenario, table: &Table, index: &Rc<Index>) -> (Setup, Vec<Peer>) {
    let is_v6 = table.family == Family::Ipv6;
    let (speaker, _) = World::addresses(is_v6, 0);
    let now = Instant::now();
    let (mut neighbours, mut peers) = (Vec::new(), Vec::new());
    let busy = scenario.senders + scenario.receivers + scenario.stuck;
    for number in 0..busy + scenario.idle {
        let is_idle = number >= busy;
        let is_receiver =
            (scenario.senders..scenario.senders + scenario.receivers).contains(&number);
        let (speaker, address) = World::addresses(is_v6 && !is_idle, number);
        let asn = FIRST_ASN + u32::from(number);
        let family = match (is_idle, table.family) {
            (false, family) => family,
            (true, Family::Ipv6) => Family::Ipv4,
            (true, Family::Ipv4 | Family::Vpnv4) => Family::Ipv6,
        };
        neighbours.push(Neighbour {
            address,
            asn,
            family,
            adds: (is_receiver && scenario.distinct).then(|| added(number)),
        });
        let identity = Identity {
            address,
            asn,
            identifier: peer_v4(number),
            hold_s: if is_idle { 3 } else { HOLD_S },
        };
        let mut peer = Peer::new(identity, (speaker, 179).into(), family, now);
        if is_receiver {
            let received = Received::new(index.clone(), table, SPEAKER_ASN, speaker);
            let is_vpn = table.family == Family::Vpnv4;
            let senders = (0..scenario.senders).filter(|_| is_vpn);
            let senders = senders.map(|sender| World::addresses(false, sender).1);
            peer.received = Some(received.or_unchanged(senders.collect()));
        }
        peers.push(peer);
    }
    let setup = Setup {
        address: speaker,
        neighbours,
    };
    (setup, peers)
}

/// The community that the policy towards a receiver adds.
fn added(number: u16) -> u32 {
    SPEAKER_ASN << 16 | u32::from(number)
}

fn origin(peer: &Peer) -> Origin {
    Origin {
        asn: peer.identity.asn,
        next_hop: peer.identity.address,
    }
}

fn sender_bytes(scenario: &Scenario, table: &Table, peer: &Peer) -> Vec<u8> {
    let sets = match scenario.share {
        Share::All => 0..table.sets.len(),
        Share::Parts => {
            let number = peer.identity.asn - FIRST_ASN;
            table.parts(scenario.senders.into())[number as usize].clone()
        }
    };
    let mut bytes = message::updates(table, sets, origin(peer));
    bytes.extend(message::end_of_rib(table.family));
    bytes
}

/// Until all sessions are there and what that took is done.
fn come_up(cast: &mut Cast, process: &mut Process) -> Result<()> {
    cast.generator.establish(ESTABLISHED)?;
    rest(cast, process)
}

fn play(
    cast: &mut Cast,
    process: &mut Process,
    scenario: &Scenario,
    table: &Table,
    output: Vec<Rc<[u8]>>,
    limit: Duration,
) -> Result<Measured> {
    let stuck = cast.receivers.end..cast.receivers.end + usize::from(scenario.stuck);
    for peer in &mut cast.generator.peers[stuck] {
        peer.is_reading = false;
    }
    let mut measured = Measured::default();
    let (before, own_before) = (process.cpu()?, own_cpu()?);
    for (peer, bytes) in cast.generator.peers[cast.senders.clone()]
        .iter_mut()
        .zip(output)
    {
        peer.send(bytes);
    }
    measured.wall = until_count(cast, table.prefixes.len(), limit)?;
    measured.generator_cpu = own_cpu()?.saturating_sub(own_before);
    rest(cast, process)?;
    measured.cpu = process.cpu()?.saturating_sub(before);
    let memory = process.memory()?;
    (measured.peak_kib, measured.settled_kib) = (memory.peak_kib, memory.now_kib);
    check(cast, scenario, table)?;
    let first = cast.generator.peers[cast.receivers.start].received.as_ref();
    measured.updates = first.map_or(0, |received| received.updates);
    if scenario.churn_s > 0 {
        let before = process.cpu()?;
        measured.latencies_ns = churn(cast, scenario, table)?;
        measured.churn_cpu = process.cpu()?.saturating_sub(before);
    }
    let before = process.cpu()?;
    for peer in &mut cast.generator.peers[cast.senders.clone()] {
        peer.close();
    }
    measured.withdraw_wall = until_count(cast, 0, limit)?;
    rest(cast, process)?;
    measured.withdraw_cpu = process.cpu()?.saturating_sub(before);
    let memory = process.memory()?;
    measured.peak_kib = measured.peak_kib.max(memory.peak_kib);
    let missed = cast.generator.peers.iter().map(|p| p.losses + p.expiries);
    measured.missed = missed.sum();
    Ok(measured)
}

/// Until every receiver has so many prefixes.
fn until_count(cast: &mut Cast, count: usize, limit: Duration) -> Result<Duration> {
    let receivers = cast.receivers.clone();
    let counts = |generator: &Generator| -> Vec<usize> {
        let peers = generator.peers[receivers.clone()].iter();
        peers
            .filter_map(|peer| Some(peer.received.as_ref()?.count))
            .collect()
    };
    let what = format!("{count} prefixes at every receiver");
    let busy = cast.senders.start..cast.receivers.end;
    let is_lost =
        |generator: &Generator| generator.peers[busy.clone()].iter().any(|p| p.losses > 0);
    let holds = |generator: &Generator| counts(generator).iter().all(|found| *found == count);
    let took = cast.generator.until(
        &what,
        limit,
        |generator| holds(generator) || is_lost(generator),
        |generator| {
            let losses: Vec<&str> = generator
                .peers
                .iter()
                .filter_map(|peer| peer.last_loss.as_deref().filter(|_| peer.losses > 0))
                .collect();
            let last = losses.last().unwrap_or(&"no session was lost");
            format!("{:?} ({last})", counts(generator))
        },
    )?;
    let peers = cast.generator.peers[busy.clone()].iter();
    if let Some(peer) = peers.clone().find(|peer| peer.losses > 0) {
        let why = peer.last_loss.as_deref().unwrap_or("unknown");
        bail!("a session was lost: {}: {why}", peer.identity.address);
    }
    Ok(took)
}

/// Until the speaker does nothing worth counting.
fn rest(cast: &mut Cast, process: &mut Process) -> Result<()> {
    let start = Instant::now();
    loop {
        let before = process.cpu()?;
        cast.generator.run_for(REST_WINDOW)?;
        process.check()?;
        if process.cpu()?.saturating_sub(before) < REST_CPU || start.elapsed() > REST_LIMIT {
            return Ok(());
        }
    }
}

/// Compares every receiver's table with what was sent.
fn check(cast: &Cast, scenario: &Scenario, table: &Table) -> Result<()> {
    for number in cast.receivers.clone() {
        let peer = &cast.generator.peers[number];
        let received = peer.received.as_ref().context("a receiver has a table")?;
        let who = peer.identity.address;
        ensure!(
            received.strangers == 0 && received.misled == 0,
            "{who} was told {} prefixes that nobody announced and {} routes that do not lead to \
             the speaker",
            received.strangers,
            received.misled
        );
        let mut wrong = 0;
        for set in &table.sets {
            let mut attributes = set.attributes.clone();
            if scenario.distinct {
                attributes.communities.push(added(number as u16));
            }
            let hash = attributes.hash();
            let places = set.prefixes.clone();
            wrong += places.filter(|place| received.hash(*place) != hash).count();
        }
        ensure!(
            wrong == 0,
            "{who}: {wrong} of {} prefixes have other attributes than were sent",
            table.prefixes.len()
        );
    }
    Ok(())
}

/// Changes the attributes of prefixes at an even pace; returns the latencies.
fn churn(cast: &mut Cast, scenario: &Scenario, table: &Table) -> Result<Vec<u64>> {
    let count = scenario.churn_s * CHURN_PER_SECOND;
    let places = table.prefixes.len();
    let mut random = Random::new(99);
    let mut bytes = Vec::new();
    stamps(cast, |own| {
        *own = Some(Stamps {
            written: vec![None; places],
            latencies_ns: Vec::with_capacity(count as usize),
        });
    })?;
    let start = Instant::now();
    let pace = Duration::from_secs(1) / CHURN_PER_SECOND;
    for number in 0..count {
        let due = start + pace * number;
        while let Some(left) = due.checked_duration_since(Instant::now()) {
            cast.generator.step(left)?;
        }
        let place = random.below(places as u32) as usize;
        let attributes = Attributes {
            tail: vec![1000 + number % 60, 3_000_000 + number],
            communities: vec![1000 << 16 | number & 0xffff],
            ..Attributes::default()
        };
        let sender = owner(cast, scenario, table, place);
        bytes.clear();
        let keys = &table.prefixes[place..=place];
        let origin = origin(&cast.generator.peers[sender]);
        message::update(&mut bytes, table.family, keys, &attributes, origin);
        let hash = attributes.hash();
        let now = Instant::now();
        stamps(cast, |own| {
            if let Some(stamps) = own {
                stamps.written[place] = Some((now, hash));
            }
        })?;
        let peer = &mut cast.generator.peers[sender];
        peer.send(bytes.as_slice().into());
        peer.write(now);
    }
    // The last ones are under way.
    cast.generator.run_for(Duration::from_secs(1))?;
    let mut latencies = Vec::new();
    let mut missing = 0;
    stamps(cast, |own| {
        if let Some(stamps) = own.take() {
            missing = stamps.written.iter().flatten().count();
            latencies = stamps.latencies_ns;
        }
    })?;
    ensure!(missing == 0, "{missing} of {count} changes never came");
    latencies.sort_unstable();
    Ok(latencies)
}

/// Which sender announced a prefix.
fn owner(cast: &Cast, scenario: &Scenario, table: &Table, place: usize) -> usize {
    let senders = cast.senders.len();
    match scenario.share {
        Share::All => cast.senders.start,
        Share::Parts if senders == 1 => cast.senders.start,
        Share::Parts => {
            let set = table.sets.partition_point(|set| set.prefixes.end <= place);
            let parts = table.parts(senders);
            parts
                .iter()
                .position(|part| part.contains(&set))
                .unwrap_or(0)
        }
    }
}

fn stamps(cast: &mut Cast, act: impl FnOnce(&mut Option<Stamps>)) -> Result<()> {
    let received = cast.generator.peers[cast.receivers.start].received.as_mut();
    act(&mut received.context("a receiver has a table")?.stamps);
    Ok(())
}

/// CPU time of this process.
fn own_cpu() -> Result<Duration> {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?;
    Ok(Duration::from(time))
}
