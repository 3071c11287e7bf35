// SPDX-License-Identifier: Apache-2.0
//! The thread of the routes: candidates and kernel news into the RIB, its changes into the
//! kernel.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::Context;
use ipnet::IpNet;
use prometheus::{Histogram, HistogramOpts};
use router_netlink::{Event, Netlink, Ownership, RouteFilter, RouteTable, Watcher};
use router_reconcile::{Reconciler, step};
use router_rib::{NextHopChange, OriginId, Rib, Topology, TopologyChange, TrackedNextHop};
use router_types::{Forwarding, LinkIndex, Route, RouteKey, RouteSource, TableId};
use tokio::sync::{mpsc, oneshot};

use crate::gateways;

/// The origin of what the node itself offers.
pub const LOCAL: OriginId = OriginId(0);

/// The kernel's table of the node's own addresses, which the RIB leaves out.
const LOCAL_TABLE: TableId = TableId(255);

/// Commands that may wait. A batch of learned routes is one; senders wait when it is full.
const QUEUE: usize = 256;

/// Changes taken from the RIB before looking at commands and kernel news again.
const TURN: usize = 4096;

/// A destination learned by BGP, or no longer.
#[derive(Clone, Debug)]
pub struct Learned {
    /// The destination.
    pub prefix: IpNet,
    /// From an external or an internal neighbour, or this node for an aggregate.
    pub source: RouteSource,
    /// Where its packets go; `None` when the destination is gone.
    pub forwarding: Option<Forwarding>,
}

/// The tables as they are, for those who ask.
pub struct View<'a> {
    /// Candidates, choices, topology.
    pub rib: &'a Rib,
    /// What is wanted in the kernel and how far it is.
    pub reconciler: &'a Reconciler<RouteTable>,
    /// Which routes are ours.
    pub ownership: &'a Ownership,
}

type Question = Box<dyn FnOnce(&View<'_>) + Send>;

enum Command {
    Learned(OriginId, Vec<Learned>),
    WithdrawOrigin(OriginId),
    Local(Vec<Route>),
    Peers(Vec<IpAddr>),
    Track(Vec<TrackedNextHop>),
    Prune,
    Settled(oneshot::Sender<()>),
    Ask(Question),
}

/// Hears of a link that is down or gone, by index and name.
pub type LinkDown = dyn Fn(LinkIndex, &str) + Send;

/// Who is told of what happens to routes.
pub struct Listeners {
    /// Tracked next hops that changed.
    pub next_hops: Box<dyn Fn(Vec<NextHopChange>) + Send>,
    /// Routes, links or addresses changed in the kernel: cached answers are stale.
    pub kernel_changed: Box<dyn Fn() + Send>,
    /// Links, addresses or default routes changed.
    pub interfaces_changed: Box<dyn Fn() + Send>,
    /// A link is down or gone. Told again with every change of it while it is.
    pub link_down: Box<LinkDown>,
}

/// The handle on the thread. It ends with the last clone; routes stay as they are.
#[derive(Clone)]
pub struct Routes {
    commands: mpsc::Sender<Command>,
    convergence: Histogram,
}

impl Routes {
    /// Starts the thread, in the calling thread's network namespace. Routes of an earlier run are
    /// found and kept as stale until [`Routes::prune`].
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn start(
        table: TableId,
        config: router_rib::Config,
        ownership: Ownership,
        listeners: Listeners,
    ) -> anyhow::Result<(Routes, JoinHandle<()>)> {
        let (commands, inbox) = mpsc::channel(QUEUE);
        let convergence = convergence()?;
        let measured = convergence.clone();
        let (opened, outcome) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("routes".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                let runtime = match runtime {
                    Ok(runtime) => runtime,
                    Err(error) => {
                        let _ = opened.send(Err(error.into()));
                        return;
                    }
                };
                runtime.block_on(async {
                    match Worker::open(table, config, ownership, listeners, inbox, measured) {
                        Ok(worker) => {
                            let _ = opened.send(Ok(()));
                            worker.run().await;
                        }
                        Err(error) => {
                            let _ = opened.send(Err(error));
                        }
                    }
                });
            })
            .context("starting the thread of the routes")?;
        outcome
            .recv()
            .context("the thread of the routes ended at once")??;
        let routes = Routes {
            commands,
            convergence,
        };
        Ok((routes, thread))
    }

    /// How long changes of best paths took to be in the kernel.
    pub fn convergence(&self) -> &Histogram {
        &self.convergence
    }

    /// Takes in what an instance learned.
    pub async fn learned(&self, origin: OriginId, changes: Vec<Learned>) {
        self.send(Command::Learned(origin, changes)).await;
    }

    /// Forgets everything an instance learned.
    pub async fn withdraw_origin(&self, origin: OriginId) {
        self.send(Command::WithdrawOrigin(origin)).await;
    }

    /// Replaces the node's own routes.
    pub async fn set_local(&self, routes: Vec<Route>) {
        self.send(Command::Local(routes)).await;
    }

    /// Says which addresses are BGP peers: the way to them is not taken from what they say.
    pub async fn set_peers(&self, peers: Vec<IpAddr>) {
        self.send(Command::Peers(peers)).await;
    }

    /// Asks to be told about exactly these next hops.
    pub async fn track(&self, next_hops: Vec<TrackedNextHop>) {
        self.send(Command::Track(next_hops)).await;
    }

    /// All sources have delivered: what an earlier run left and nobody wants now is deleted.
    pub async fn prune(&self) {
        self.send(Command::Prune).await;
    }

    /// Waits until the kernel has what was sent before, as far as it takes it.
    pub async fn settled(&self) {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Settled(reply)).await;
        // A thread that has ended settles nothing more.
        let _ = answer.await;
    }

    /// Asks a question. `None` when the thread has ended.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&View<'_>) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Ask(Box::new(move |view| {
            // Nobody waits any more: the answer is not needed.
            let _ = reply.send(question(view));
        })))
        .await;
        answer.await.ok()
    }

    async fn send(&self, command: Command) {
        if self.commands.send(command).await.is_err() {
            tracing::error!("the thread of the routes has ended; routes stay as they are");
        }
    }
}

struct Worker {
    /// Where learned routes go.
    learned_table: TableId,
    rib: Rib,
    reconciler: Reconciler<RouteTable>,
    table: RouteTable,
    watcher: Watcher,
    netlink: Netlink,
    inbox: mpsc::Receiver<Command>,
    listeners: Listeners,
    tracked: BTreeSet<TrackedNextHop>,
    /// The topology must be read anew.
    relist: bool,
    kernel_changed: bool,
    interfaces_changed: bool,
    convergence: Histogram,
    /// When the first change came that is not in the kernel yet.
    converging_since: Option<Instant>,
    /// Who waits until everything is.
    waiting: Vec<oneshot::Sender<()>>,
}

impl Worker {
    fn open(
        learned_table: TableId,
        config: router_rib::Config,
        ownership: Ownership,
        listeners: Listeners,
        inbox: mpsc::Receiver<Command>,
        convergence: Histogram,
    ) -> anyhow::Result<Worker> {
        let mut watcher = Watcher::open()?;
        let table = RouteTable::open(ownership)?;
        watcher.ignore_port(table.port()?);
        let mut worker = Worker {
            learned_table,
            rib: Rib::new(config),
            reconciler: Reconciler::new(router_reconcile::Config::default(), Instant::now()),
            table,
            watcher,
            netlink: Netlink::open()?,
            inbox,
            listeners,
            tracked: BTreeSet::new(),
            relist: false,
            kernel_changed: false,
            interfaces_changed: false,
            convergence,
            converging_since: None,
            waiting: Vec::new(),
        };
        let topology = worker.read_topology()?;
        worker.rib.replace_topology(topology);
        Ok(worker)
    }

    async fn run(mut self) {
        loop {
            self.settle();
            let worked = step(&mut self.reconciler, &mut self.table, Instant::now).await;
            if worked || self.rib.has_changes() {
                self.kernel_changed = true;
                // Others get a turn between two batches, without waiting for them.
                if let Ok(command) = self.inbox.try_recv() {
                    self.command(command);
                }
                continue;
            }
            if let Some(since) = self.converging_since.take() {
                self.convergence.observe(since.elapsed().as_secs_f64());
            }
            for waiting in self.waiting.drain(..) {
                // Nobody waits any more: it is settled all the same.
                let _ = waiting.send(());
            }
            self.tell();
            let timeout = self.reconciler.poll_timeout().map(|(at, _)| at);
            tokio::select! {
                command = self.inbox.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                event = self.watcher.next() => match event {
                    Ok(event) => self.event(&event),
                    Err(error) => {
                        tracing::error!(%error, "cannot hear of network changes; listing anew");
                        self.relist = true;
                        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                    }
                },
                () = until(timeout) => self.reconciler.handle_timeout(Instant::now()),
            }
        }
    }

    /// Brings topology and wishes up to date.
    fn settle(&mut self) {
        if std::mem::take(&mut self.relist) {
            match self.read_topology() {
                Ok(topology) => {
                    self.rib.replace_topology(topology);
                    self.reconciler.resync();
                    self.interfaces_changed = true;
                }
                Err(error) => {
                    tracing::error!(%error, "cannot list links, addresses and routes");
                }
            }
        }
        for change in self.rib.take_changes(TURN) {
            match change.forwarding {
                Some(forwarding) => self.reconciler.set(change.key, forwarding),
                None => self.reconciler.remove(&change.key),
            }
        }
        let changes = self.rib.take_next_hop_changes();
        if !changes.is_empty() {
            (self.listeners.next_hops)(changes);
        }
    }

    /// Tells those who listen, once everything is settled.
    fn tell(&mut self) {
        if std::mem::take(&mut self.kernel_changed) {
            (self.listeners.kernel_changed)();
        }
        if std::mem::take(&mut self.interfaces_changed) {
            (self.listeners.interfaces_changed)();
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Learned(origin, changes) => {
                self.converging_since.get_or_insert_with(Instant::now);
                for learned in changes {
                    let key = RouteKey {
                        table: self.learned_table,
                        prefix: learned.prefix,
                    };
                    // A destination has one best path: it is of one source, never of two.
                    for source in [RouteSource::Local, RouteSource::Ebgp, RouteSource::Ibgp] {
                        if source != learned.source || learned.forwarding.is_none() {
                            self.rib.withdraw(origin, source, &key);
                        }
                    }
                    if let Some(forwarding) = learned.forwarding {
                        let source = learned.source;
                        let route = Route {
                            key,
                            source,
                            forwarding,
                        };
                        self.rib.set(origin, route);
                    }
                }
            }
            Command::WithdrawOrigin(origin) => self.rib.withdraw_origin(origin),
            Command::Local(routes) => {
                self.rib.withdraw_origin(LOCAL);
                for route in routes {
                    self.rib.set(LOCAL, route);
                }
            }
            Command::Peers(peers) => {
                self.rib
                    .set_peers(peers.into_iter().map(|peer| (self.learned_table, peer)));
            }
            Command::Track(next_hops) => {
                let wanted: BTreeSet<TrackedNextHop> = next_hops.into_iter().collect();
                for gone in self.tracked.difference(&wanted) {
                    self.rib.untrack(gone);
                }
                for new in wanted.difference(&self.tracked) {
                    self.rib.track(*new);
                }
                self.tracked = wanted;
            }
            Command::Prune => self.reconciler.prune(),
            Command::Settled(reply) => self.waiting.push(reply),
            Command::Ask(question) => question(&View {
                rib: &self.rib,
                reconciler: &self.reconciler,
                ownership: self.table.ownership(),
            }),
        }
    }

    fn event(&mut self, event: &Event) {
        if let Some((key, actual)) = self.table.note(event) {
            // When it is gone because somebody else's took its place, the RIB must hear of that one.
            self.reconciler.handle_observed(key, actual);
            self.kernel_changed = true;
        }
        match event {
            Event::LinkSet(link) => {
                // The kernel drops a down device's IPv4 routes without a word.
                if !link.up || !link.carrier {
                    self.relist = true;
                    (self.listeners.link_down)(link.index, &link.name);
                }
                self.rib
                    .handle_topology(TopologyChange::LinkSet(rib_link(link)));
                self.interfaces_changed = true;
            }
            Event::LinkGone(link) => {
                (self.listeners.link_down)(link.index, &link.name);
                self.rib
                    .handle_topology(TopologyChange::LinkGone(link.index));
                self.relist = true;
                self.interfaces_changed = true;
            }
            Event::AddressSet(address) => {
                self.rib
                    .handle_topology(TopologyChange::AddressSet(address.link, address.address));
                self.interfaces_changed = true;
            }
            Event::AddressGone(address) => {
                self.rib
                    .handle_topology(TopologyChange::AddressGone(address.link, address.address));
                // Routes of the address' network go with it.
                self.relist = true;
                self.interfaces_changed = true;
            }
            Event::RouteSet(route) => {
                if self.is_ground(route) {
                    self.interfaces_changed |= gateways::is_default(&route.key);
                    self.rib
                        .handle_topology(TopologyChange::RouteSet(rib_route(route)));
                }
            }
            Event::RouteGone(route) => {
                if self.is_ground(route) {
                    self.interfaces_changed |= gateways::is_default(&route.key);
                    self.rib.handle_topology(TopologyChange::RouteGone {
                        key: route.key,
                        metric: route.metric,
                        protocol: route.protocol.to_string(),
                    });
                }
            }
            Event::Lost => self.relist = true,
        }
        self.kernel_changed = true;
    }

    /// Whether next hops may stand on a route: not our own, not the node's own addresses.
    fn is_ground(&self, route: &router_netlink::KernelRoute) -> bool {
        route.key.table != LOCAL_TABLE && !self.table.ownership().includes(route)
    }

    fn read_topology(&mut self) -> anyhow::Result<Topology> {
        let mut topology = Topology::default();
        for link in self.netlink.links()? {
            topology.apply(TopologyChange::LinkSet(rib_link(&link)));
        }
        for address in self.netlink.addresses()? {
            topology.apply(TopologyChange::AddressSet(address.link, address.address));
        }
        for route in self.netlink.routes(RouteFilter::default())? {
            if self.is_ground(&route) {
                topology.apply(TopologyChange::RouteSet(rib_route(&route)));
            }
        }
        Ok(topology)
    }
}

fn rib_link(link: &router_netlink::Link) -> router_rib::Link {
    router_rib::Link {
        index: link.index,
        name: link.name.clone(),
        up: link.up,
        carrier: link.carrier,
    }
}

fn rib_route(route: &router_netlink::KernelRoute) -> router_rib::KernelRoute {
    router_rib::KernelRoute {
        key: route.key,
        metric: route.metric,
        protocol: route.protocol.to_string(),
        next_hops: match route.forwarding() {
            Some(Forwarding::Via(hops)) => hops,
            Some(Forwarding::Unreachable | Forwarding::Blackhole) | None => Vec::new(),
        },
        connected: route.is_connected(),
    }
}

/// Of 0.1 ms to 13 s.
fn convergence() -> anyhow::Result<Histogram> {
    let metric = crate::metrics::convergence()?;
    let bounds = prometheus::exponential_buckets(0.000_1, 2.0, 18)?;
    Ok(Histogram::with_opts(
        HistogramOpts::new(metric.name, metric.help).buckets(bounds),
    )?)
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// The node's own routes: what of its pod prefixes no pod holds is unreachable here, and does not
/// leave by the default route to come back.
pub fn own_routes(pod_cidrs: &[IpNet]) -> Vec<Route> {
    pod_cidrs
        .iter()
        .map(|prefix| Route {
            key: RouteKey {
                table: TableId::MAIN,
                prefix: prefix.trunc(),
            },
            source: RouteSource::Local,
            forwarding: Forwarding::Unreachable,
        })
        .collect()
}
