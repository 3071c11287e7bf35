// SPDX-License-Identifier: Apache-2.0
//! The thread that makes this node equal to what is decided about egress, and keeps it so.
//!
//! It owns the tunnel device, the device of held addresses and the gateway's programs; the pods'
//! programs it shares with the pods. [`Node::apply`] takes a new world: the thread decides, writes
//! what the gateway needs before what pods need, and answers when the kernel has it. In between it
//! forgets connections that are over, and lets rules go that have drained.
//!
//! A gateway's programs are loaded when the node first becomes one and stay while connections do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bpf_loader::{
    Datapath, DropCount, Gateway, GatewayConfig, HookChoice, Mapping, RuleState, Timeouts,
};
use egress_core::{
    Addresses, Claims, Desired, Life, PolicyId, Previous, RuleNumber, World, decide,
};
use router_netlink::Netlink;
use router_types::LinkIndex;
use tokio::sync::oneshot;

use crate::announce::{Schedule, announce_once};
use crate::devices::{self, OVERHEAD_V4, OVERHEAD_V6, TunnelWish};
use crate::tables::{self, Tunnel};

/// Commands that may wait.
const QUEUE_LENGTH: usize = 16;

/// The shortest time between two looks at the connections.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How long what could not be done waits for the next attempt, if nothing happens before.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// Looks take a twentieth of the time at most.
const SWEEP_SHARE: u32 = 20;

/// Bytes of a packet in the tunnel device at most: nothing is too big for the device itself, since
/// what does not fit into the fabric is cut outside.
const DEVICE_MTU: u32 = 65_000;

/// What the thread must know before it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of the pins, as in [`bpf_loader::Config`].
    pub pin_root: PathBuf,
    /// UDP port of the tunnel, the same on every node.
    pub tunnel_port: u16,
    /// Largest packet the tunnel takes whole, in bytes; the fabric's MTU less the tunnel's headers
    /// where there is none.
    pub tunnel_mtu: Option<u16>,
    /// Mappings of each family at most.
    pub max_mappings: u32,
}

/// A world to be made true.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wish {
    /// What the decision is made of.
    pub world: World,
    /// Addresses of this node's containers that are no pods: no policy selects them.
    pub strangers: Vec<IpAddr>,
    /// The devices towards the fabric, with their MTU in bytes.
    pub fabric: Vec<(LinkIndex, u32)>,
}

/// What is decided, and what came of it.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// What the decision was made of.
    pub world: Arc<World>,
    /// The decision.
    pub desired: Arc<Desired>,
    /// The rules this node is the gateway of, with their traffic.
    pub rules: Vec<RuleState>,
    /// Connections of each rule at the last look, at its gateway.
    pub connections: BTreeMap<u32, u64>,
    /// Ports of each address and protocol that had connections at the last look.
    pub ports_used: BTreeMap<(IpAddr, u8), u64>,
    /// Refused packets of the gateway.
    pub refusals: Vec<DropCount>,
}

enum Command {
    Apply(Box<Wish>, oneshot::Sender<Vec<String>>),
    View(SyncSender<Result<View, bpf_loader::Error>>),
    Mappings(SyncSender<Result<Vec<Mapping>, bpf_loader::Error>>),
}

/// The egress of this node. Cheap to clone; the thread behind it ends with the last clone, and
/// leaves everything as it is.
#[derive(Clone, Debug)]
pub struct Node {
    commands: SyncSender<Command>,
    held: Arc<Mutex<BTreeMap<IpAddr, PolicyId>>>,
}

/// The thread is gone: it panicked.
#[derive(Debug, thiserror::Error)]
#[error("the egress thread has ended: see the log, and restart the daemon")]
pub struct Gone;

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// See there.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// A map cannot be read.
    #[error(transparent)]
    Datapath(#[from] bpf_loader::Error),
}

impl Node {
    /// Starts the thread, in the network namespace of the calling one.
    ///
    /// # Errors
    /// When no thread or netlink socket can be made.
    pub fn start(config: Config, datapath: Arc<Mutex<Datapath>>) -> Result<Node, StartError> {
        let (commands, queue) = sync_channel(QUEUE_LENGTH);
        let held = Arc::default();
        let mut worker = Worker {
            config,
            netlink: Netlink::open()?,
            datapath,
            gateway: None,
            wish: Wish::default(),
            previous: Previous::default(),
            drains: BTreeMap::new(),
            held: Arc::clone(&held),
            connections: BTreeMap::new(),
            ports_used: BTreeMap::new(),
            has_looked: false,
            retry_at: None,
        };
        thread::Builder::new()
            .name("egress".to_owned())
            .spawn(move || worker.run(&queue))?;
        Ok(Node { commands, held })
    }

    /// Makes the node equal to a world. Answers when the kernel has it, with what could not be
    /// done, in words; all else was. It is tried again every ten seconds, and with the next world.
    pub async fn apply(&self, wish: Wish) -> Vec<String> {
        let (reply, answer) = oneshot::channel();
        let gone = || vec![Gone.to_string()];
        let commands = self.commands.clone();
        let command = Command::Apply(Box::new(wish), reply);
        let sent = tokio::task::spawn_blocking(move || commands.send(command)).await;
        if !matches!(sent, Ok(Ok(()))) {
            return gone();
        }
        answer.await.unwrap_or_else(|_| gone())
    }

    /// The addresses this node holds, with the policy they are or were for: those of new
    /// connections, and those old ones still have. They are to be announced. When they change, an
    /// address of a device does.
    pub fn held(&self) -> BTreeMap<IpAddr, PolicyId> {
        lock(&self.held).clone()
    }

    /// What is decided, and what came of it. Blocks until the thread has time.
    ///
    /// # Errors
    /// When the thread is gone or a map cannot be read.
    pub fn view(&self) -> Result<View, ReadError> {
        self.ask(Command::View)
    }

    /// Every mapping of connections this node is the gateway of, in no order. Blocks: a second with
    /// a million of them.
    ///
    /// # Errors
    /// When the thread is gone or a map cannot be read.
    pub fn mappings(&self) -> Result<Vec<Mapping>, ReadError> {
        self.ask(Command::Mappings)
    }

    fn ask<T>(
        &self,
        command: impl FnOnce(SyncSender<Result<T, bpf_loader::Error>>) -> Command,
    ) -> Result<T, ReadError> {
        let (reply, answer) = sync_channel(1);
        self.commands.send(command(reply)).map_err(|_| Gone)?;
        Ok(answer.recv().map_err(|_| Gone)??)
    }
}

/// Why the thread could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No netlink socket.
    #[error(transparent)]
    Netlink(#[from] router_netlink::Error),
    /// No thread.
    #[error("cannot start the egress thread: {0}")]
    Thread(#[from] std::io::Error),
}

struct Worker {
    config: Config,
    netlink: Netlink,
    datapath: Arc<Mutex<Datapath>>,
    gateway: Option<Gateway>,
    wish: Wish,
    previous: Previous,
    /// See [`Node::held`].
    held: Arc<Mutex<BTreeMap<IpAddr, PolicyId>>>,
    /// Since when rules drain.
    drains: BTreeMap<RuleNumber, Instant>,
    connections: BTreeMap<u32, u64>,
    ports_used: BTreeMap<(IpAddr, u8), u64>,
    /// Whether what lives from before the start is known.
    has_looked: bool,
    /// When what could not be done is tried again.
    retry_at: Option<Instant>,
}

impl Worker {
    fn run(&mut self, queue: &Receiver<Command>) {
        let mut next_sweep = Instant::now() + SWEEP_INTERVAL;
        loop {
            let patience = next_sweep.saturating_duration_since(Instant::now());
            match queue.recv_timeout(patience) {
                Ok(Command::Apply(wish, reply)) => {
                    self.wish = *wish;
                    // Whoever asked may have given up.
                    let _ = reply.send(self.try_settle());
                }
                Ok(Command::View(reply)) => _ = reply.send(self.view()),
                Ok(Command::Mappings(reply)) => {
                    let mappings = self.gateway.as_ref().map(Gateway::mappings);
                    let _ = reply.send(mappings.unwrap_or_else(|| Ok(Vec::new())));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= next_sweep {
                let began = Instant::now();
                self.sweep();
                let pause = (began.elapsed() * SWEEP_SHARE).max(SWEEP_INTERVAL);
                next_sweep = Instant::now() + pause;
                if self.retry_at.is_some_and(|at| Instant::now() >= at) {
                    self.settle_again();
                }
            }
        }
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
        let desired = decide(&self.wish.world, &Claims::new(), &self.previous);
        let held = self.hold(&desired, &mut failures);
        let tunnel = self.devices(&desired, held.keys().copied().collect(), &mut failures);
        if let Err(error) = self.gateway(&desired, tunnel) {
            failures.push(format!("egress gateway: {error}"));
        }
        let world = &self.wish.world;
        let tables = tables::pods_side(world, &desired, &self.wish.strangers, tunnel);
        if let Err(error) = lock(&self.datapath).sync_egress(&tables) {
            failures.push(format!("egress of pods: {error}"));
        }
        let before = std::mem::replace(&mut *lock(&self.held), held.clone());
        self.announce(
            held.into_keys()
                .filter(|address| !before.contains_key(address))
                .collect(),
        );
        self.previous.desired = desired;
        failures
    }

    /// The addresses to hold: those that are decided, and those that are in no policy any more and
    /// still have connections. One that another node is to hold goes at once.
    fn hold(
        &mut self,
        desired: &Desired,
        failures: &mut Vec<String>,
    ) -> BTreeMap<IpAddr, PolicyId> {
        let mut held = held(desired);
        let policies = self.wish.world.policies.iter();
        let written: BTreeSet<IpAddr> = policies
            .flat_map(|policy| &policy.groups)
            .flat_map(|group| match &group.addresses {
                Addresses::Held { addresses, .. } => addresses.as_slice(),
                Addresses::DefaultRoute | Addresses::Interface(_) | Addresses::OnDevice(_) => &[],
            })
            .copied()
            .collect();
        let mut leaving = lock(&self.held).clone();
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

    /// Tells the neighbours on every link that addresses live here now.
    fn announce(&self, addresses: Vec<IpAddr>) {
        if addresses.is_empty() {
            return;
        }
        let links: Vec<LinkIndex> = self.wish.fabric.iter().map(|(link, _)| *link).collect();
        let began = Instant::now();
        let announcing = move || {
            for time in Schedule::default().times() {
                thread::sleep((began + *time).saturating_duration_since(Instant::now()));
                for link in &links {
                    if let Err(failure) = announce_once(&addresses, *link) {
                        tracing::debug!(%failure, "addresses not announced");
                    }
                }
            }
        };
        // In this network namespace, which a thread inherits.
        let thread = thread::Builder::new().name("egress-announce".to_owned());
        if let Err(error) = thread.spawn(announcing) {
            tracing::warn!(%error, "neighbours are not told of addresses that moved here");
        }
    }

    /// Finds out, once, which rules have connections from before the start.
    fn look_back(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if Gateway::is_installed(&self.config.pin_root) {
            let gateway = Gateway::open(&self.gateway_config())?;
            self.connections = gateway.live()?;
            self.gateway = Some(gateway);
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

    fn gateway_config(&self) -> GatewayConfig {
        GatewayConfig {
            pin_root: self.config.pin_root.clone(),
            hook: HookChoice::Auto,
            max_mappings: self.config.max_mappings,
        }
    }

    /// The tunnel, and the addresses this node holds.
    fn devices(
        &mut self,
        desired: &Desired,
        held: BTreeSet<IpAddr>,
        failures: &mut Vec<String>,
    ) -> Option<Tunnel> {
        let is_needed = !desired.ends.is_empty() || !desired.gateway.is_empty();
        let mut wish = devices::Wish {
            tunnel: is_needed.then_some(TunnelWish {
                port: self.config.tunnel_port,
                mtu: DEVICE_MTU,
                may_go_up: false,
            }),
            answer_on: if held.is_empty() {
                BTreeSet::new()
            } else {
                self.wish.fabric.iter().map(|(link, _)| *link).collect()
            },
            held,
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
            (Err(error), _) => failures.push(format!("the tunnel stays down: {error}")),
        }
        let fabric = self.wish.fabric.iter().map(|(_, mtu)| *mtu).min();
        let fabric = fabric.unwrap_or(1500);
        let whole = |overhead: u32| {
            let mtu = fabric.saturating_sub(overhead);
            self.config
                .tunnel_mtu
                .unwrap_or(u16::try_from(mtu).unwrap_or(u16::MAX))
        };
        tunnel.map(|link| Tunnel {
            link,
            mtu_v4: whole(OVERHEAD_V4),
            mtu_v6: whole(OVERHEAD_V6),
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
        report.tunnel
    }

    /// Rules, nodes and devices of the gateway.
    fn gateway(
        &mut self,
        desired: &Desired,
        tunnel: Option<Tunnel>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if self.gateway.is_none() && !desired.gateway.is_empty() {
            self.gateway = Some(Gateway::open(&self.gateway_config())?);
        }
        let Some(gateway) = &mut self.gateway else {
            return Ok(());
        };
        let fabric: Vec<LinkIndex> = self.wish.fabric.iter().map(|(link, _)| *link).collect();
        let report = gateway.sync_devices(tunnel.map(|tunnel| tunnel.link), &fabric)?;
        if let Some(tunnel) = tunnel {
            let world = &self.wish.world;
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
        }
        gateway.sync_rules(&tables::gateway_side(desired))?;
        gateway.routes_changed()?;
        gateway.reap()?;
        match report.failed.into_iter().next() {
            Some((_, error)) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// Forgets what is over, and decides anew when a rule has drained.
    fn sweep(&mut self) {
        if !self.has_looked {
            return;
        }
        if let Err(error) = self.try_sweep() {
            tracing::warn!(%error, "connections of egress gateways cannot be looked at");
        }
    }

    /// Looks at the gateway's connections and forgets those that are over.
    fn look(&mut self) -> Result<(), bpf_loader::Error> {
        if let Some(gateway) = &mut self.gateway {
            let swept = gateway.sweep()?;
            if swept.halves > 0 {
                tracing::warn!(
                    halves = swept.halves,
                    "halves of mappings without the other half were removed"
                );
            }
            self.ports_used = swept.ports_used().collect();
            self.connections = swept.live;
        }
        Ok(())
    }

    fn try_sweep(&mut self) -> Result<(), bpf_loader::Error> {
        self.look()?;
        let timeouts = timeouts_by_rule(&self.wish.world, &self.previous.desired);
        let usual = tables::timeouts(&egress_core::Timeouts::default());
        let ends = &self.previous.desired.ends;
        let is_known =
            |rule| rule == 0 || RuleNumber::new(rule).is_some_and(|n| ends.contains_key(&n));
        let flows = lock(&self.datapath).sweep_egress(&|rule| {
            is_known(rule).then(|| timeouts.get(&rule).copied().unwrap_or(usual))
        })?;
        self.previous.live = live(flows.live.keys().chain(self.connections.keys()));
        self.end_drains();
        let is_over = |number: &RuleNumber| !self.previous.live.contains(number);
        let drained = self.drains.keys().any(is_over);
        let decided = held(&self.previous.desired);
        let is_used = |address: &IpAddr| self.ports_used.keys().any(|(used, _)| used == address);
        let is_left = |address: &IpAddr| !decided.contains_key(address) && !is_used(address);
        let left = lock(&self.held).keys().any(is_left);
        let is_idle = self.previous.desired.gateway.is_empty() && self.connections.is_empty();
        if drained || left {
            self.settle_again();
        }
        if is_idle && let Some(gateway) = self.gateway.take() {
            tracing::info!("this node is no egress gateway any more");
            gateway.uninstall()?;
        }
        Ok(())
    }

    /// Takes rules out of what lives whose time to drain has passed.
    fn end_drains(&mut self) {
        let desired = &self.previous.desired;
        let ends = desired.ends.iter().map(|(number, end)| (*number, end.life));
        let rules = desired.gateway.iter();
        let rules = rules.map(|(number, rule)| (*number, rule.life));
        let draining: BTreeMap<RuleNumber, Option<Duration>> = ends
            .chain(rules)
            .filter_map(|(number, life)| match life {
                Life::Active => None,
                Life::Draining { at_most } => Some((number, at_most)),
            })
            .collect();
        self.drains
            .retain(|number, _| draining.contains_key(number));
        let now = Instant::now();
        for (number, at_most) in draining {
            let since = *self.drains.entry(number).or_insert(now);
            if at_most.is_some_and(|limit| now.duration_since(since) >= limit) {
                self.previous.live.remove(&number);
            }
        }
    }

    fn view(&self) -> Result<View, bpf_loader::Error> {
        let (rules, refusals) = match &self.gateway {
            Some(gateway) => (gateway.rules()?, gateway.refusals()?),
            None => (Vec::new(), Vec::new()),
        };
        Ok(View {
            world: Arc::new(self.wish.world.clone()),
            desired: Arc::new(self.previous.desired.clone()),
            rules,
            connections: self.connections.clone(),
            ports_used: self.ports_used.clone(),
            refusals,
        })
    }
}

/// The addresses a gateway holds, with their policies.
fn held(desired: &Desired) -> BTreeMap<IpAddr, PolicyId> {
    let rules = desired.gateway.values().filter(|rule| rule.is_held);
    let addresses = rules.flat_map(|rule| {
        let v4 = rule.v4.iter().map(|address| IpAddr::V4(*address));
        let all = v4.chain(rule.v6.iter().map(|address| IpAddr::V6(*address)));
        all.map(|address| (address, rule.key.policy.clone()))
    });
    addresses.collect()
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

/// Locks what no panic leaves half changed: every call of the data plane is complete in itself, and
/// the addresses are replaced at once.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
