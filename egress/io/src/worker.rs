// SPDX-License-Identifier: Apache-2.0
//! The thread that makes this node equal to what is decided about egress, and keeps it so.
//!
//! It owns the tunnel device, the device of held addresses and the gateway's programs; the pods'
//! programs it shares with the pods. For each new world it decides, writes what the gateway needs
//! before what pods need, and answers when the kernel has it. In between it listens to the other
//! gateways and decides anew when one dies or takes something over, forgets connections that are
//! over, and lets rules go that have drained.
//!
//! A gateway's programs are loaded when the node first becomes one, or stands by for one, and stay
//! while connections do.
//!
//! Nothing here blocks for long: looks at connections go in portions, between which whatever
//! happened has its turn.

mod decision;
mod looks;

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bpf_loader::{Cursor, Datapath, Gateway, GatewayConfig, HookChoice, Sweep, Timeouts};
use egress_core::{Addresses, Claims, Desired, PolicyId, Previous, RuleNumber, World};
use egress_sync::name::NodeName;
use router_netlink::{Netlink, TunnelKind};
use router_types::LinkIndex;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::announce::{Schedule, announce};
use crate::devices::{self, OVERHEAD_V4, OVERHEAD_V6, TunnelWish};
use crate::holdings::{Announcement, Holdings, held_by, ready};
use crate::links::{self, Ways};
use crate::memory::Memory;
use crate::node::{Command, Config, View, Wish, lock};
use crate::peers::{Event, Peers};
use crate::tables::{self, Tunnel};

/// The shortest time between two looks at the connections.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How long what could not be done waits for the next attempt, if nothing happens before.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// Bytes of a packet in the tunnel device at most: nothing is too big for the device itself. What does
/// not fit into the fabric is a matter of the programs, or cut outside.
const DEVICE_MTU: u32 = 65_000;

pub(crate) struct Worker {
    config: Config,
    netlink: Netlink,
    datapath: Arc<Mutex<Datapath>>,
    peers: Peers,
    gateway: Option<Gateway>,
    /// Readable when the gateway has events.
    events: Option<AsyncFd<OwnedFd>>,
    wish: Wish,
    /// The world of the last decision: the wish's, and what is known of the nodes here.
    world: Arc<World>,
    claims: Arc<Claims>,
    previous: Previous,
    /// See [`crate::node::Node::holdings`].
    holdings: Arc<Mutex<Holdings>>,
    /// The rules this node stands by for that it could take over with all their connections.
    ready: BTreeSet<RuleNumber>,
    /// See [`View::tunnel_problem`].
    tunnel_problem: Option<String>,
    /// The addresses that were held when the thread began.
    found: BTreeSet<IpAddr>,
    memory: Memory,
    /// Whether that may not know the last decision.
    is_unwritten: bool,
    /// The policies of addresses that were held when the thread began, until they are decided on.
    were_held: BTreeMap<IpAddr, PolicyId>,
    /// What was said of a tunnel that is too narrow.
    narrow: Option<String>,
    /// Addresses that are being announced.
    announcing: Vec<(BTreeSet<IpAddr>, AbortHandle)>,
    /// Addresses of pods that policies do not select any more.
    leavers: BTreeSet<IpAddr>,
    /// Whether standbys have been told of all events there were a moment ago.
    is_told: bool,
    /// Since when rules drain.
    drains: BTreeMap<RuleNumber, Instant>,
    /// Since when rules have addresses no more that connections have still.
    left: BTreeMap<(u32, IpAddr), Instant>,
    connections: BTreeMap<u32, u64>,
    ports_used: BTreeMap<(IpAddr, u8), u64>,
    /// Whether what lives from before the start is known.
    has_looked: bool,
    /// When what could not be done is tried again.
    retry_at: Option<Instant>,
    /// The look under way, with the time it has taken.
    sweep: Option<(Sweep, Duration)>,
    sweep_at: Instant,
    /// The ways to other nodes, since they were last asked for; nothing before that and where the wish
    /// is new. A takeover does not wait for a question of each node.
    ways: Option<Ways>,
    /// When it is looked next whether they are the same.
    links_at: Instant,
}

/// What the tunnel speaks, for other nodes.
fn spoken(config: &Config) -> egress_sync::wire::Tunnel {
    egress_sync::wire::Tunnel {
        protocol: match config.tunnel_kind {
            TunnelKind::Vxlan => egress_sync::wire::Tunnel::VXLAN,
            TunnelKind::Geneve => egress_sync::wire::Tunnel::GENEVE,
        },
        port: config.tunnel_port,
    }
}

/// What woke the thread.
enum Woken {
    Command(Option<Command>),
    Peers(Event),
    /// There are events of the data plane, or it is time for something.
    Turn,
}

impl Worker {
    pub(crate) fn new(
        config: Config,
        name: NodeName,
        netlink: Netlink,
        datapath: Arc<Mutex<Datapath>>,
        holdings: Arc<Mutex<Holdings>>,
    ) -> Worker {
        let now = Instant::now();
        Worker {
            peers: Peers::new(name, config.peers.clone(), spoken(&config), now),
            memory: Memory::new(&config.state_directory),
            config,
            netlink,
            datapath,
            gateway: None,
            events: None,
            wish: Wish::default(),
            world: Arc::default(),
            claims: Arc::default(),
            previous: Previous::default(),
            holdings,
            ready: BTreeSet::new(),
            tunnel_problem: None,
            found: BTreeSet::new(),
            is_unwritten: false,
            were_held: BTreeMap::new(),
            narrow: None,
            announcing: Vec::new(),
            leavers: BTreeSet::new(),
            is_told: false,
            drains: BTreeMap::new(),
            left: BTreeMap::new(),
            connections: BTreeMap::new(),
            ports_used: BTreeMap::new(),
            has_looked: false,
            retry_at: None,
            sweep: None,
            sweep_at: now + SWEEP_INTERVAL,
            ways: None,
            links_at: now + SWEEP_INTERVAL,
        }
    }

    pub(crate) async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Command>) {
        let mut has_more = false;
        loop {
            let wake = match has_more || self.sweep.is_some() {
                true => Instant::now(),
                false => self.next_wake(),
            };
            let Worker { peers, events, .. } = &mut self;
            let woken = tokio::select! {
                // Others before the clock: under load the clock is always due.
                biased;
                command = queue.recv() => Woken::Command(command),
                event = peers.event() => Woken::Peers(event),
                () = readable(events.as_ref()) => Woken::Turn,
                () = tokio::time::sleep_until(wake.into()) => Woken::Turn,
            };
            match woken {
                Woken::Command(Some(command)) => self.carry_out(command),
                Woken::Command(None) => return,
                Woken::Peers(event) => self.peers.handle(event, Instant::now()),
                Woken::Turn => {}
            }
            has_more = self.turn();
        }
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Apply(wish, reply) => {
                self.wish = *wish;
                self.ways = None;
                // Whoever asked may have given up, here and below.
                let _ = reply.send(self.try_settle());
            }
            Command::View(reply) => _ = reply.send(self.view()),
            Command::Mappings(mut cursor, reply) => {
                let read = match &self.gateway {
                    Some(gateway) => gateway.next_mappings(&|_| true, &mut cursor),
                    None => {
                        cursor = Cursor::end();
                        Ok(Vec::new())
                    }
                };
                let _ = reply.send(read.map(|mappings| (mappings, cursor)));
            }
        }
    }

    /// When the thread has something to do at the latest.
    fn next_wake(&self) -> Instant {
        let peers = self.peers.next_timeout();
        let times = [peers, self.retry_at].into_iter().flatten();
        times.fold(self.sweep_at, Instant::min)
    }

    /// What there is to do after whatever happened. Whether there is more to do at once.
    fn turn(&mut self) -> bool {
        if !self.has_looked {
            // Nobody is spoken to before it is known what is here.
            let now = Instant::now();
            if self.retry_at.is_some_and(|at| now >= at) {
                self.settle_again();
            }
            self.sweep_at = now + SWEEP_INTERVAL;
            return false;
        }
        let has_events = match &mut self.gateway {
            Some(gateway) => self.peers.tell_events(gateway),
            None => false,
        };
        let fabric: Vec<LinkIndex> = self.wish.fabric.iter().map(|(link, _)| *link).collect();
        let now = Instant::now();
        let mut has_more = has_events;
        has_more |= self.peers.pump(self.gateway.as_mut(), &fabric, now);
        has_more |= self.peers.walk_on(self.gateway.as_mut(), now);
        let is_due = self.retry_at.is_some_and(|at| now >= at);
        if self.peers.take_stale() || is_due || self.has_moved_links(now) {
            self.is_told = !has_events;
            self.settle_again();
            self.is_told = false;
            has_more = true;
        } else {
            self.remember(now);
        }
        if now >= self.sweep_at {
            self.sweep_at = now + SWEEP_INTERVAL;
            self.sweep.get_or_insert_default();
        }
        if self.sweep.is_some() {
            self.sweep_on();
        }
        has_more
    }

    /// Whether the ways to other nodes are others than at the last decision. Nobody tells of routes.
    fn has_moved_links(&mut self, now: Instant) -> bool {
        if now < self.links_at {
            return false;
        }
        let fabric = &self.wish.fabric;
        let found = links::ways(&mut self.netlink, &self.world, fabric);
        let pause = (now.elapsed() * looks::SWEEP_SHARE).max(SWEEP_INTERVAL);
        self.links_at = Instant::now() + pause;
        let before = self.ways.replace(found);
        before != self.ways
    }

    /// Settles, and notes when to try again what could not be done.
    fn try_settle(&mut self) -> Vec<String> {
        let failures = self.settle();
        self.retry_at = (!failures.is_empty()).then(|| Instant::now() + RETRY_INTERVAL);
        failures
    }

    /// The same when nobody asked.
    fn settle_again(&mut self) {
        for failure in self.try_settle() {
            tracing::error!("{failure}");
        }
    }

    /// Decides, and makes the kernel equal to it.
    fn settle(&mut self) -> Vec<String> {
        let mut failures = Vec::new();
        if !self.has_looked {
            match self.look_back() {
                Ok(()) => self.has_looked = true,
                Err(error) => {
                    // To go on would be to forget what lives.
                    return vec![format!("egress stays as it is: {error}")];
                }
            }
        }
        let desired = self.decide();
        let held = self.hold(&desired, &mut failures);
        self.guard(&held, &mut failures);
        let tunnel = self.devices(&desired, &held, &mut failures);
        if let Err(error) = self.gateway(&desired, &held, tunnel.as_ref()) {
            failures.push(format!("egress gateway: {error}"));
        }
        self.note_width(&desired, tunnel.as_ref());
        let world = Arc::clone(&self.world);
        let now = Instant::now();
        self.peers.set_roles(
            &world,
            &desired,
            !self.wish.is_leaving,
            &self.wish.watches,
            self.gateway.as_mut(),
            now,
        );
        self.note_leavers(&desired);
        let strangers = &self.wish.strangers;
        let tables = tables::pods_side(&world, &desired, strangers, &self.leavers, tunnel.as_ref());
        if let Err(error) = lock(&self.datapath).sync_egress(&tables) {
            failures.push(format!("egress of pods: {error}"));
        }
        self.announce(&held);
        let peers = &self.peers;
        let is_complete = |number| peers.is_complete(number);
        self.ready = ready(&self.ready, &self.previous.desired, &desired, is_complete);
        let standby = desired.standby.iter();
        let standby = standby.filter(|(number, _)| self.ready.contains(number));
        let holdings = Holdings {
            held,
            ready: held_by(standby.map(|(_, rule)| rule)),
        };
        if std::mem::replace(&mut *lock(&self.holdings), holdings.clone()) != holdings {
            self.config.held_changed.notify_one();
        }
        self.previous.desired = desired;
        self.is_unwritten = true;
        failures
    }

    /// Says once that the tunnel is too narrow. No failure: trying again would not help.
    fn note_width(&mut self, desired: &Desired, tunnel: Option<&Tunnel>) {
        let is_gateway = !desired.gateway.is_empty() || !desired.standby.is_empty();
        let ends = desired.ends.values().map(|rule| rule.end);
        let narrow =
            tunnel.and_then(|tunnel| tables::too_narrow(&self.world, ends, is_gateway, tunnel));
        if self.narrow == narrow {
            return;
        }
        match &narrow {
            Some(narrow) => tracing::error!("egress: {narrow}"),
            None => tracing::info!("egress: the tunnel over IPv6 is wide enough for IPv6"),
        }
        self.narrow = narrow;
    }

    /// Writes down what a restart must not forget. After what was decided has been told: a takeover
    /// does not wait for a file.
    fn remember(&mut self, now: Instant) {
        if !std::mem::take(&mut self.is_unwritten) {
            return;
        }
        let (desired, memory) = (&self.previous.desired, &mut self.memory);
        let written = memory.write(desired, &self.drains, &self.left, &self.leavers, now);
        if let Err(error) = written {
            tracing::error!(%error, "a restart would end connections of deleted policies");
            self.retry_at.get_or_insert(now + RETRY_INTERVAL);
        }
    }

    /// Notes whose pods no policy selects any more, while there may be connections of before.
    fn note_leavers(&mut self, desired: &Desired) {
        let before = self.previous.desired.sources.keys().copied();
        self.leavers.extend(before);
        let has_connections = !self.previous.live.is_empty();
        let pods = self.world.pods.iter().flat_map(|pod| &pod.addresses);
        let pods: BTreeSet<&IpAddr> = pods.collect();
        self.leavers.retain(|address| {
            let is_selected = desired.sources.contains_key(address);
            has_connections && pods.contains(address) && !is_selected
        });
    }

    /// The addresses to hold: those that are decided, and those that are in no policy any more and
    /// still have connections. One that another node is to hold goes at once.
    fn hold(
        &mut self,
        desired: &Desired,
        failures: &mut Vec<String>,
    ) -> BTreeMap<IpAddr, PolicyId> {
        let mut held = held_by(desired.gateway.values());
        let policies = self.world.policies.iter();
        let written: BTreeSet<IpAddr> = policies
            .flat_map(|policy| &policy.groups)
            .flat_map(|group| match &group.addresses {
                Addresses::Held { addresses, .. } => addresses.as_slice(),
                Addresses::DefaultRoute | Addresses::Interface(_) | Addresses::OnDevice(_) => &[],
            })
            .copied()
            .collect();
        let mut leaving = lock(&self.holdings).held.clone();
        leaving.append(&mut self.were_held);
        leaving.retain(|address, _| !held.contains_key(address) && !written.contains(address));
        if !leaving.is_empty()
            && let Err(error) = self.look()
        {
            failures.push(format!("connections of addresses that go: {error}"));
        }
        let in_use: BTreeSet<IpAddr> = self
            .ports_used
            .keys()
            .map(|(address, _)| *address)
            .collect();
        held.extend(
            leaving
                .into_iter()
                .filter(|(address, _)| in_use.contains(address)),
        );
        held
    }

    /// Tells the neighbours on every link of addresses that are new here, and stops telling of those
    /// that are not here any more.
    fn announce(&mut self, held: &BTreeMap<IpAddr, PolicyId>) {
        self.announcing.retain(|(addresses, task)| {
            let is_held = addresses.iter().all(|address| held.contains_key(address));
            if !is_held {
                task.abort();
            }
            is_held && !task.is_finished()
        });
        let before = lock(&self.holdings).held.clone();
        let new = held.iter().filter(|(address, policy)| {
            !before.contains_key(address) && self.announcement(policy).is_on_segments
        });
        let new: BTreeSet<IpAddr> = new.map(|(address, _)| *address).collect();
        if new.is_empty() {
            return;
        }
        let links: Vec<LinkIndex> = self.wish.fabric.iter().map(|(link, _)| *link).collect();
        let addresses: Vec<IpAddr> = new.iter().copied().collect();
        let announcing = async move {
            announce(&addresses, &links, &Schedule::default()).await;
        };
        let task = tokio::spawn(announcing).abort_handle();
        self.announcing.push((new, task));
    }

    fn announcement(&self, policy: &PolicyId) -> Announcement {
        let announce = &self.wish.announce;
        announce.get(policy).copied().unwrap_or_default()
    }

    /// Finds out, once, which rules have connections from before the start.
    fn look_back(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if Gateway::is_installed(&self.config.pin_root) {
            let gateway = Gateway::open(&self.gateway_config())?;
            self.connections = gateway.live()?;
            self.begin(gateway);
        }
        self.found = devices::held(&mut self.netlink)?;
        let now = Instant::now();
        match self.memory.read(now) {
            Ok(before) => {
                self.were_held = before.held(&self.found);
                self.drains = before.drains;
                self.left = before.left;
                if let Some(gateway) = &mut self.gateway {
                    let left = self.left.iter();
                    gateway.restore_left(left.map(|(of, at)| (*of, now.duration_since(*at))));
                }
                self.leavers = before.pods;
                self.previous.desired = before.desired;
            }
            Err(error) => tracing::error!("{error}"),
        }
        let forever = tables::timeouts(&egress_core::Timeouts {
            tcp_opening: Duration::MAX,
            tcp_established: Duration::MAX,
            tcp_closing: Duration::MAX,
            udp_unanswered: Duration::MAX,
            udp: Duration::MAX,
            icmp: Duration::MAX,
            other: Duration::MAX,
        });
        let flows = lock(&self.datapath).sweep_egress(&|_| Some(forever))?;
        self.previous.live = live(flows.live.keys().chain(self.connections.keys()));
        Ok(())
    }

    fn begin(&mut self, gateway: Gateway) {
        let descriptor = gateway.events_fd().try_clone_to_owned();
        let events = descriptor.and_then(|descriptor| {
            // SAFETY: the descriptor is ours, and closed when the registration is dropped.
            let registered =
                unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
            registered.map_err(std::io::Error::from)
        });
        self.events = events
            .inspect_err(|error| tracing::error!(%error, "standbys hear of connections late"))
            .ok();
        self.gateway = Some(gateway);
    }

    fn gateway_config(&self) -> GatewayConfig {
        GatewayConfig {
            pin_root: self.config.pin_root.clone(),
            hook: HookChoice::Auto,
            max_mappings: self.config.max_mappings,
            tunnel_port: self.config.tunnel_port,
        }
    }

    /// The tunnel, and the addresses this node holds.
    fn devices(
        &mut self,
        desired: &Desired,
        held: &BTreeMap<IpAddr, PolicyId>,
        failures: &mut Vec<String>,
    ) -> Option<Tunnel> {
        let is_needed = self.peers.is_candidate()
            || !desired.ends.is_empty()
            || !desired.gateway.is_empty()
            || !desired.standby.is_empty();
        let those = |of: &BTreeMap<IpAddr, PolicyId>, is_meant: fn(Announcement) -> bool| {
            let meant = of.iter();
            let meant = meant.filter(|(_, policy)| is_meant(self.announcement(policy)));
            meant.map(|(address, _)| *address).collect::<BTreeSet<_>>()
        };
        let mut wanted = held_by(desired.standby.values());
        wanted.extend(held.clone());
        let mut wish = devices::Wish {
            tunnel: is_needed.then_some(TunnelWish {
                kind: self.config.tunnel_kind,
                port: self.config.tunnel_port,
                mtu: DEVICE_MTU,
                may_go_up: false,
            }),
            held: held.keys().copied().collect(),
            answered: those(held, |announcement| announcement.is_on_segments),
            answer_on: self.wish.fabric.iter().map(|(link, _)| *link).collect(),
            dropped: those(&wanted, |announcement| announcement.is_by_bgp),
        };
        let mut tunnel = self.sync(&wish, failures);
        // The programs before the first packet. Without them the device stays down.
        let guarded = lock(&self.datapath).set_tunnel(tunnel);
        match (guarded, &mut wish.tunnel) {
            (Ok(()), Some(wished)) => {
                wished.may_go_up = true;
                tunnel = self.sync(&wish, failures);
            }
            (Ok(()), None) => {}
            (Err(error), _) => {
                let problem = format!("egress: the tunnel stays down: {error}");
                failures.push(problem.clone());
                self.tunnel_problem = Some(problem);
            }
        }
        let fabric = self.wish.fabric.iter().map(|(_, mtu)| *mtu).min();
        let fabric = fabric.unwrap_or(1500);
        let whole = |overhead: u32| {
            let mtu = fabric.saturating_sub(overhead);
            self.config
                .tunnel_mtu
                .unwrap_or(u16::try_from(mtu).unwrap_or(u16::MAX))
        };
        let elsewhere = match (self.config.tunnel_mtu, &self.ways) {
            (None, Some(ways)) => ways.elsewhere.clone(),
            (Some(_), _) | (_, None) => BTreeMap::new(),
        };
        tunnel.map(|link| Tunnel {
            link,
            mtu_v4: whole(OVERHEAD_V4),
            mtu_v6: whole(OVERHEAD_V6),
            elsewhere,
        })
    }

    /// One round of the devices; the tunnel's, if there is one.
    fn sync(&mut self, wish: &devices::Wish, failures: &mut Vec<String>) -> Option<LinkIndex> {
        let report = devices::sync(&mut self.netlink, wish);
        for change in &report.changes {
            tracing::info!("{change}");
        }
        for failure in &report.failures {
            let failure = format!("egress: {failure}");
            if !failures.contains(&failure) {
                failures.push(failure);
            }
        }
        self.tunnel_problem = report
            .tunnel_problem
            .map(|problem| format!("egress: {problem}"));
        report.tunnel
    }

    /// The programs know of addresses before the kernel has them, and until it has them no more: it
    /// would tell those who send to them that nobody is there.
    fn guard(&mut self, held: &BTreeMap<IpAddr, PolicyId>, failures: &mut Vec<String>) {
        let Some(gateway) = &mut self.gateway else {
            return;
        };
        if let Err(error) = gateway.guard(held.keys().copied()) {
            failures.push(format!("egress gateway: {error}"));
        }
    }

    /// Rules, nodes and devices of the gateway.
    fn gateway(
        &mut self,
        desired: &Desired,
        held: &BTreeMap<IpAddr, PolicyId>,
        tunnel: Option<&Tunnel>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let is_needed = !desired.gateway.is_empty() || !desired.standby.is_empty();
        if self.gateway.is_none() && is_needed {
            self.begin(Gateway::open(&self.gateway_config())?);
        }
        let Some(gateway) = &mut self.gateway else {
            return Ok(());
        };
        let fabric: Vec<LinkIndex> = self.wish.fabric.iter().map(|(link, _)| *link).collect();
        let report = gateway.sync_devices(tunnel.map(|tunnel| tunnel.link), &fabric)?;
        if let Some(tunnel) = tunnel {
            let world = &self.world;
            let others = world.nodes.iter().filter(|(name, _)| **name != world.node);
            let mut addresses = BTreeMap::new();
            for (_, node) in others {
                for is_v4 in [true, false] {
                    let first = node.addresses.iter().find(|a| a.is_ipv4() == is_v4);
                    addresses.extend(first.map(|address| (*address, tunnel.mtu(*address))));
                }
            }
            gateway.set_own_addresses(&tables::own_addresses(world));
            gateway.sync_nodes(tunnel.link, &addresses)?;
            let pods = lock(&self.datapath).smallest_mtu().unwrap_or_default();
            gateway.set_pods_mtu(u16::try_from(pods).unwrap_or(u16::MAX))?;
        }
        let is_told = self.peers.is_spoken();
        gateway.sync_rules(&tables::gateway_side(desired, is_told))?;
        gateway.sync_held(held.keys().copied())?;
        gateway.routes_changed()?;
        gateway.reap()?;
        let served = held.iter().flat_map(|(address, policy)| {
            let services = self.wish.served.get(policy).into_iter().flatten();
            services.map(|service| (*address, *service))
        });
        gateway.sync_served(served)?;
        match report.failed.into_iter().next() {
            Some((_, error)) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// How often rules of each policy changed hands.
    fn failovers(&self) -> BTreeMap<PolicyId, u64> {
        let mut failovers = BTreeMap::new();
        for (rule, count) in self.peers.moves() {
            let number = RuleNumber::new(rule.get());
            let seat = number.and_then(|number| self.previous.desired.seats.get(&number));
            if let Some(seat) = seat {
                *failovers.entry(seat.key.policy.clone()).or_default() += count;
            }
        }
        failovers
    }

    fn view(&self) -> Result<View, bpf_loader::Error> {
        let (rules, refusals) = match &self.gateway {
            Some(gateway) => (gateway.rules()?, gateway.refusals()?),
            None => (Vec::new(), Vec::new()),
        };
        Ok(View {
            world: Arc::clone(&self.world),
            claims: Arc::clone(&self.claims),
            desired: Arc::new(self.previous.desired.clone()),
            ready: self.ready.clone(),
            rules,
            connections: self.connections.clone(),
            ports_used: self.ports_used.clone(),
            refusals,
            peers: self.peers.views(),
            tunnel_problem: self.tunnel_problem.clone(),
            failovers: self.failovers(),
        })
    }
}

/// Waits until there are events; for ever where there is no gateway.
async fn readable(events: Option<&AsyncFd<OwnedFd>>) {
    match events {
        Some(events) => match events.readable().await {
            Ok(mut guard) => guard.clear_ready(),
            Err(_) => pending().await,
        },
        None => pending().await,
    }
}

/// The timeouts of the rules pods of this node use.
fn timeouts_by_rule(world: &World, desired: &Desired) -> BTreeMap<u32, Timeouts> {
    let policies: BTreeMap<_, _> = world.policies.iter().map(|p| (&p.id, p)).collect();
    let rules = desired.ends.iter().filter_map(|(number, end)| {
        let policy = policies.get(&end.key.policy)?;
        Some((number.get(), tables::timeouts(&policy.limits.timeouts)))
    });
    rules.collect()
}

fn live<'a>(rules: impl Iterator<Item = &'a u32>) -> BTreeSet<RuleNumber> {
    rules.filter_map(|rule| RuleNumber::new(*rule)).collect()
}
