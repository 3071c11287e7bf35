// SPDX-License-Identifier: Apache-2.0
//! Speakers under test, on loopback addresses of their own and ports the system chooses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bgp_core::config::{
    ExportAttributes, ImportMode, ImportPolicy, InstanceConfig, InstanceName, Listen, ListenRange,
    LocalRoutes, PeerAddress, PeerConfig, PeerName, PrefixLimit, Timers,
};
use bgp_core::fsm::State;
use bgp_core::peer::{PeerSnapshot, StopReason};
use bgp_core::rib::{FamilyCounts, PrefixFilter, RouteQuery, RouteTable, RouteView};
use bgp_io::handover;
use bgp_io::{InstanceSnapshot, Options, PeerReport, Reset, RouteEvent, Speaker};
use router_types::{Asn, Family};
use tokio::sync::mpsc;

/// How long a condition may take on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// An address of 127/8 that no other test of this run has; the process id keeps runs apart.
pub(crate) fn address() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let run = std::process::id() % 0xfe + 1;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Ipv4Addr::from(0x7f00_0000 | run << 16 | number).into()
}

/// A speaker with one instance.
pub(crate) struct Node {
    pub(crate) ip: IpAddr,
    pub(crate) asn: u32,
    /// Where it takes calls.
    pub(crate) port: u16,
    /// The port to configure; 0 lets the system choose.
    pub(crate) listen_port: u16,
    pub(crate) router_id: Ipv4Addr,
    pub(crate) speaker: Speaker,
    pub(crate) name: InstanceName,
    pub(crate) locals: LocalRoutes,
    pub(crate) ranges: Vec<(PeerName, ListenRange)>,
    peers: Vec<(PeerName, PeerConfig)>,
    thread: Option<JoinHandle<()>>,
    events: Arc<Mutex<Vec<RouteEvent>>>,
}

impl Node {
    pub(crate) async fn start(asn: u32) -> Node {
        Node::start_with(address(), asn, Options::default()).await
    }

    pub(crate) async fn start_with(ip: IpAddr, asn: u32, options: Options) -> Node {
        let (sender, mut receiver) = mpsc::channel(16);
        let (speaker, thread) = Speaker::start(options, sender).expect("a thread for the speaker");
        let events: Arc<Mutex<Vec<RouteEvent>>> = Arc::default();
        let sink = events.clone();
        tokio::spawn(async move {
            while let Some(event) = receiver.recv().await {
                sink.lock().unwrap().push(event);
            }
        });
        let mut node = Node {
            ip,
            asn,
            port: 0,
            listen_port: 0,
            router_id: match ip {
                IpAddr::V4(v4) => v4,
                IpAddr::V6(_) => Ipv4Addr::from(asn),
            },
            speaker,
            name: "test".into(),
            locals: LocalRoutes::default(),
            ranges: Vec::new(),
            peers: Vec::new(),
            thread: Some(thread),
            events,
        };
        node.apply().await;
        let snapshot = node.snapshot().await;
        assert_eq!(snapshot.listen_failures, []);
        node.port = snapshot.listening[0].port();
        node
    }

    /// A process after this one, which goes on with the sessions that are up.
    pub(crate) async fn succeeded(mut self) -> Node {
        let sessions = self.speaker.hand_over().await;
        let thread = self.thread.take().expect("stopped once");
        let ended = tokio::task::spawn_blocking(move || thread.join()).await;
        ended.unwrap().expect("no panic");
        let (mut from, mut to) = UnixStream::pair().unwrap();
        let sent = tokio::task::spawn_blocking(move || handover::send(&mut from, &sessions, LIMIT));
        let adopted = tokio::task::spawn_blocking(move || handover::receive(&mut to)).await;
        sent.await.unwrap().expect("sent");
        let adopted = adopted.unwrap().expect("received");
        assert!(!adopted.is_empty(), "nothing was handed over");
        let (sender, mut receiver) = mpsc::channel(16);
        let options = Options {
            adopted,
            ..Options::default()
        };
        let (speaker, thread) = Speaker::start(options, sender).expect("a thread");
        tokio::spawn(async move { while receiver.recv().await.is_some() {} });
        self.speaker = speaker;
        self.thread = Some(thread);
        self.listen_port = self.port;
        self.apply().await;
        self
    }

    /// Where it takes calls.
    pub(crate) fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }

    /// A neighbour's configuration: everything is taken, timers are short.
    pub(crate) fn neighbour(&self, at: SocketAddr, asn: u32) -> PeerConfig {
        let address = PeerAddress::new(at.ip(), None).unwrap();
        let mut config = PeerConfig::new(address);
        config.port = at.port();
        config.asn = Some(Asn(asn));
        config.local_address = Some(self.ip);
        config.timers = Timers::new(1, 9, 3).unwrap();
        let mut families = config.families().clone();
        let ipv4 = families.entry(Family::IPV4_UNICAST).or_default();
        ipv4.next_hop = Some(next_hop(self.ip).into());
        let config = config.with_families(families).unwrap();
        importing(config, ImportMode::All, None)
    }

    /// The configuration of another speaker as a neighbour.
    pub(crate) fn towards(&self, other: &Node) -> PeerConfig {
        self.neighbour(other.socket(), other.asn)
    }

    /// Adds a neighbour or changes it, and applies that.
    pub(crate) async fn set(&mut self, name: &str, config: PeerConfig) {
        self.peers.retain(|(other, _)| *other.0 != *name);
        self.peers.push((name.into(), config));
        self.apply().await;
    }

    /// Changes a neighbour without telling the speaker.
    pub(crate) fn replace(&mut self, name: &str, config: PeerConfig) {
        self.peers.retain(|(other, _)| *other.0 != *name);
        self.peers.push((name.into(), config));
    }

    /// Takes a neighbour away without telling the speaker.
    pub(crate) fn forget(&mut self, name: &str) {
        self.peers.retain(|(other, _)| *other.0 != *name);
    }

    /// The configuration of a neighbour.
    pub(crate) fn config(&self, name: &str) -> PeerConfig {
        let found = self.peers.iter().find(|(other, _)| *other.0 == *name);
        found.expect("a neighbour of this name").1.clone()
    }

    pub(crate) async fn remove(&mut self, name: &str) {
        self.peers.retain(|(other, _)| *other.0 != *name);
        self.apply().await;
    }

    /// Announces prefixes to neighbours of this name, in place of what was announced before.
    pub(crate) async fn announce(&mut self, peer: &str, prefixes: &[&str]) {
        let mut routes = LocalRoutes::default();
        for prefix in prefixes {
            let prefix = prefix.parse().unwrap();
            routes.add(prefix, peer.into(), ExportAttributes::default());
        }
        self.locals = routes;
        self.apply().await;
    }

    pub(crate) async fn apply(&self) {
        let mut config = InstanceConfig::new(self.name.clone(), Asn(self.asn), self.router_id)
            .expect("a configuration");
        config.listen = Some(Listen {
            port: self.listen_port,
            addresses: vec![self.ip],
            device: None,
        });
        for (name, peer) in &self.peers {
            config.add_peer(name.clone(), peer.clone()).unwrap();
        }
        for (name, range) in &self.ranges {
            config.add_range(name.clone(), range.clone()).unwrap();
        }
        let failures = self
            .speaker
            .apply(vec![(config, self.locals.clone())])
            .await;
        assert_eq!(failures, [] as [String; 0]);
    }

    pub(crate) async fn snapshot(&self) -> InstanceSnapshot {
        let mut all = self.speaker.snapshot().await;
        assert_eq!(all.len(), 1, "one instance");
        all.remove(0)
    }

    pub(crate) async fn report(&self, peer: &str) -> Option<PeerReport> {
        let all = self.snapshot().await.peers;
        all.into_iter().find(|p| *p.session.name.0 == *peer)
    }

    pub(crate) async fn session(&self, peer: &str) -> PeerSnapshot {
        self.report(peer).await.expect("a neighbour").session
    }

    /// Waits until a neighbour is in a state that satisfies the condition.
    pub(crate) async fn until(
        &self,
        peer: &str,
        what: &str,
        condition: impl Fn(&PeerReport) -> bool,
    ) -> PeerReport {
        let limit = Instant::now() + LIMIT;
        loop {
            let report = self.report(peer).await;
            if let Some(report) = report.clone().filter(&condition) {
                return report;
            }
            assert!(Instant::now() < limit, "not in time: {what}: {report:?}");
            pause().await;
        }
    }

    pub(crate) async fn until_up(&self, peer: &str) -> PeerSnapshot {
        self.until(peer, "session up", |p| {
            p.session.state == State::Established
        })
        .await
        .session
    }

    /// Waits until this is among the reasons why the session was down.
    pub(crate) async fn until_down(&self, peer: &str, words: &str) -> PeerSnapshot {
        let down = |report: &PeerReport| {
            let last = report.session.last_error.iter().map(|(_, reason)| reason);
            let before = report
                .session
                .history
                .iter()
                .filter_map(|c| c.reason.as_ref());
            last.chain(before)
                .any(|reason| reason.to_string().contains(words))
        };
        self.until(peer, words, down).await.session
    }

    /// Waits until a neighbour has so many accepted IPv4 routes.
    pub(crate) async fn until_accepted(&self, peer: &str, accepted: u64) -> PeerReport {
        self.until(peer, &format!("{accepted} routes accepted"), |p| {
            counts(p, Family::IPV4_UNICAST).accepted == accepted
        })
        .await
    }

    /// The routes of a table, up to a thousand.
    pub(crate) async fn routes(&self, table: RouteTable, family: Family) -> Vec<RouteView> {
        let query = RouteQuery {
            table,
            family,
            filter: PrefixFilter::All,
            after: None,
            limit: 1000,
        };
        let page = self
            .speaker
            .ask(&self.name, move |rib, now| rib.routes(&query, now))
            .await;
        page.expect("an instance").routes
    }

    pub(crate) async fn reset(&self, peer: &str, how: Reset) {
        assert!(self.speaker.reset(&self.name, &peer.into(), how).await);
    }

    /// Whether an event like this was reported.
    pub(crate) fn has_event(&self, like: impl Fn(&RouteEvent) -> bool) -> bool {
        self.events.lock().unwrap().iter().any(like)
    }

    /// Stops the speaker and waits for its thread.
    pub(crate) async fn stop(mut self, reason: StopReason) {
        self.speaker.stop(reason).await;
        let thread = self.thread.take().expect("stopped once");
        let ended = tokio::task::spawn_blocking(move || thread.join());
        let ended = tokio::time::timeout(LIMIT, ended).await;
        ended.expect("the thread ends").unwrap().expect("no panic");
    }
}

/// Two speakers that are configured as each other's `peer`.
pub(crate) async fn pair(left_asn: u32, right_asn: u32) -> (Node, Node) {
    let mut left = Node::start(left_asn).await;
    let mut right = Node::start(right_asn).await;
    let (to_right, to_left) = (left.towards(&right), right.towards(&left));
    left.set("peer", to_right).await;
    right.set("peer", to_left).await;
    (left, right)
}

/// The neighbour with another import policy for both families.
pub(crate) fn importing(
    config: PeerConfig,
    mode: ImportMode,
    max_routes: Option<u32>,
) -> PeerConfig {
    let mut families = config.families().clone();
    for family in families.values_mut() {
        family.import = ImportPolicy { mode: mode.clone() };
        family.limit = max_routes.map(|max| PrefixLimit::new(max).unwrap());
    }
    config.with_families(families).unwrap()
}

/// The next hop a speaker on a loopback address announces: nobody takes a loopback address as one.
pub(crate) fn next_hop(ip: IpAddr) -> Ipv4Addr {
    match ip {
        IpAddr::V4(v4) => {
            let [_, _, high, low] = v4.octets();
            Ipv4Addr::new(198, 18, high, low)
        }
        IpAddr::V6(_) => Ipv4Addr::new(198, 19, 0, 1),
    }
}

pub(crate) fn counts(report: &PeerReport, family: Family) -> FamilyCounts {
    report.routes.get(&family).copied().unwrap_or_default()
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !condition().await {
        assert!(Instant::now() < limit, "not in time: {what}");
        pause().await;
    }
}

/// Between two looks at a condition.
pub(crate) async fn pause() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}
