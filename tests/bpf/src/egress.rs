// SPDX-License-Identifier: Apache-2.0
//! A pod's node, an egress gateway and the world behind it, which knows nobody but the gateway's
//! address: whatever arrives there under another one is seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bpf_abi::map_names;
use bpf_loader::{
    Config, Datapath, DropCount, DropReason, EgressEnd, EgressNeighbour, EgressTables, EgressWay,
    Gateway, GatewayConfig, GatewayRule, HookChoice, LinkIndex, Mapping, NativeTables,
    RemoteSource, Swept, Timeouts,
};

use crate::{
    namespace::{Namespace, private_pins},
    packet::packet_socket,
    pinned::entries,
    pod::{Pod, allow_errors, index_of, join_nodes, node},
};

/// What the world sees of IPv4 connections.
pub const EGRESS_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 50);
/// What the world sees of IPv6 connections.
pub const EGRESS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x50);
/// The world.
pub const WORLD_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// The world.
pub const WORLD_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x10);
/// A host behind the world, which is a router to it.
pub const BEYOND_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The same host.
pub const BEYOND_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x200, 0, 0, 0, 0, 0x10);
/// The gateway as a router.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The gateway as a router.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 1);
/// A second address for pods.
pub const SECOND_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 51);
/// A second address for pods.
pub const SECOND_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x51);
/// The number of the rule.
pub const RULE: u32 = 5_000;
/// Largest packet the tunnel takes whole: 1500 less VXLAN over IPv4.
pub const TUNNEL_MTU: u16 = 1_450;
/// The same over IPv6.
pub const TUNNEL_MTU_V6: u16 = 1_430;

const TUNNEL: &str = "cw-egress";

/// The pod's node, its gateway, and the world.
#[derive(Debug)]
pub struct EgressLab {
    /// The pods' node.
    pub node: Namespace,
    /// A selected pod of that node.
    pub pod: Pod,
    /// One that is not.
    pub other_pod: Pod,
    /// The gateway's node.
    pub gateway_node: Namespace,
    /// A selected pod of the gateway's node.
    pub gateway_pod: Pod,
    /// What is behind the gateway.
    pub world: Namespace,
    /// The pods' node's programs.
    pub datapath: Datapath,
    /// The gateway's node's programs for its pods.
    pub gateway_datapath: Datapath,
    /// The gateway.
    pub gateway: Gateway,
    /// Who is seen in the world.
    pub witness: Witness,
    /// Where the gateway's pins are.
    pub gateway_pins: PathBuf,
    /// Where those of the pods' node are.
    pub pins: PathBuf,
    /// What of it goes without the tunnel, from the next policy on.
    pub native: Native,
    /// The tunnel, likewise: see [`Self::set_tunnel`].
    tunnel: Tunnel,
    hook: HookChoice,
    max_mappings: u32,
}

/// What goes without the tunnel. The default is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Native {
    /// Whether the pods' node sends so.
    pub is_sent: bool,
    /// Whether the gateway takes what comes so.
    pub is_taken: bool,
    /// Whether the gateway knows the pods of the pods' node.
    pub is_known: bool,
    /// Whether the gateway's node is one.
    pub is_gateway: bool,
    /// Largest packet the pods' node takes for the way.
    pub mtu: u32,
}

/// The tunnel between the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Whether it goes over IPv6.
    pub is_over_ipv6: bool,
    /// Largest packet it takes whole.
    pub mtu: u16,
}

impl Tunnel {
    /// Addresses of the pods' node and of the gateway, by which they reach each other.
    fn ends(self) -> [IpAddr; 2] {
        if self.is_over_ipv6 {
            [1, 2].map(|last| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).into())
        } else {
            [1, 2].map(|last| Ipv4Addr::new(192, 0, 2, last).into())
        }
    }
}

impl Default for Tunnel {
    fn default() -> Self {
        Self {
            is_over_ipv6: false,
            mtu: TUNNEL_MTU,
        }
    }
}

impl Default for Native {
    fn default() -> Self {
        Self {
            is_sent: false,
            is_taken: false,
            is_known: true,
            is_gateway: true,
            mtu: 1_500,
        }
    }
}

impl EgressLab {
    /// Builds it. The gateway has no rule yet, and the pods no policy.
    ///
    /// # Errors
    /// When a namespace, device or program cannot be made.
    pub fn build(hook: HookChoice) -> Result<Self> {
        Self::build_for(hook, 1 << 17)
    }

    /// The same with room for so many mappings of a family.
    ///
    /// # Errors
    /// When a namespace, device or program cannot be made.
    pub fn build_for(hook: HookChoice, max_mappings: u32) -> Result<Self> {
        let (node_a, node_b, world) = (node()?, node()?, Namespace::new()?);
        join_nodes(&node_a, 1, &node_b, 2)?;
        node_b.ip(&format!(
            "link add out type veth peer name eth0 netns {}",
            world.path()
        ))?;
        node_b.ip("link set out up")?;
        world.ip("link set eth0 up")?;
        for (at, device, v4, v6) in [
            (&node_b, "out", GATEWAY_V4, GATEWAY_V6),
            (&node_b, "out", EGRESS_V4, EGRESS_V6),
            (&node_b, "out", SECOND_V4, SECOND_V6),
            (&world, "eth0", WORLD_V4, WORLD_V6),
        ] {
            at.ip(&format!("addr add {v4}/24 dev {device}"))?;
            at.ip(&format!("addr add {v6}/64 dev {device} nodad"))?;
        }
        // The pods' node has a way to the world as well: what leaks gets there.
        node_a.ip("route add default via 192.0.2.2")?;
        node_a.ip("-6 route add default via 2001:db8::2")?;
        let pod = Pod::add(&node_a, 1, 1, 1500)?;
        let other_pod = Pod::add(&node_a, 1, 2, 1500)?;
        let gateway_pod = Pod::add(&node_b, 2, 1, 1500)?;
        for at in [&node_a, &node_b] {
            at.ip(&format!(
                "link add {TUNNEL} address 02:ca:05:e0:00:01 type vxlan external dstport 4789 udp6zerocsumrx"
            ))?;
            at.ip(&format!("link set {TUNNEL} mtu 65000 up"))?;
            at.sysctl(&format!("net/ipv4/conf/{TUNNEL}/accept_local"), "1")?;
        }
        let pins = private_pins()?;
        let gateway_pins = beside(&pins, "gateway");
        let pins = beside(&pins, "pods");
        let datapath = open(
            &node_a,
            hook,
            pins.clone(),
            &[&pod, &other_pod],
            &["fab", TUNNEL],
        )?;
        let gateway_datapath = open(
            &node_b,
            hook,
            gateway_pins.clone(),
            &[&gateway_pod],
            &["fab", "out", TUNNEL],
        )?;
        let gateway = open_gateway(&node_b, hook, gateway_pins.clone(), max_mappings)?;
        let witness = Witness::start(&world, "eth0")?;
        Ok(Self {
            node: node_a,
            pod,
            other_pod,
            gateway_node: node_b,
            gateway_pod,
            world,
            datapath,
            gateway_datapath,
            gateway,
            witness,
            gateway_pins,
            pins,
            native: Native::default(),
            tunnel: Tunnel::default(),
            hook,
            max_mappings,
        })
    }

    /// A rule with both addresses and default timeouts.
    #[must_use]
    pub fn rule() -> GatewayRule {
        GatewayRule {
            interface: None,
            addresses: vec![EGRESS_V4.into(), EGRESS_V6.into()],
            first_port: 1024,
            last_port: u16::MAX,
            is_udp_endpoint_independent: false,
            is_replicated: false,
            is_copy: false,
            drain: None,
            is_draining: false,
            timeouts: timeouts(Duration::from_secs(600)),
        }
    }

    /// Gives the gateway these rules.
    ///
    /// # Errors
    /// When a map cannot be written.
    pub fn set_rules(&mut self, rules: BTreeMap<u32, GatewayRule>) -> Result<()> {
        let Self {
            gateway,
            gateway_node,
            ..
        } = self;
        gateway_node.run(|| gateway.sync_rules(&rules))?;
        Ok(())
    }

    /// Selects the pods for everything outside, by a rule.
    ///
    /// # Errors
    /// When a map cannot be written.
    pub fn select(&mut self, way: EgressWay) -> Result<()> {
        self.select_except(way, &[])
    }

    /// The same with exclusions.
    ///
    /// # Errors
    /// When a map cannot be written.
    pub fn select_except(&mut self, way: EgressWay, exclusions: &[&str]) -> Result<()> {
        let mut set = vec![("0.0.0.0/0", way), ("::/0", way)];
        set.extend(exclusions.iter().map(|prefix| (*prefix, EgressWay::Pass)));
        self.select_set(&set, None, &[])
    }

    /// Gives the pods, and these others of their node, this set of destinations, and pods nobody
    /// has decided about another.
    ///
    /// # Errors
    /// When a map cannot be written.
    pub fn select_set(
        &mut self,
        set: &[(&str, EgressWay)],
        newcomers: Option<&[(&str, EgressWay)]>,
        selected: &[Pod],
    ) -> Result<()> {
        let parse = |set: &[(&str, EgressWay)]| {
            set.iter()
                .map(|(prefix, way)| anyhow::Ok((prefix.parse()?, *way)))
                .collect::<Result<BTreeMap<_, _>>>()
        };
        let mut sets = BTreeMap::from([(1, parse(set)?)]);
        if let Some(newcomers) = newcomers {
            sets.insert(2, parse(newcomers)?);
        }
        let tunnel_a = index_of(&self.node, TUNNEL)?;
        let tunnel_b = index_of(&self.gateway_node, TUNNEL)?;
        let far = |end| {
            let rules = [RULE, RULE + 1].map(|rule| (rule, end));
            anyhow::Ok(EgressTables {
                sources: BTreeMap::new(),
                newcomers: newcomers.map(|_| 2),
                sets: sets.clone(),
                ends: rules.into_iter().collect(),
                own: Vec::new(),
                native: NativeTables::default(),
                nodes: self.tunnel.ends().into(),
                in_cluster: [
                    "10.244.0.0/16",
                    "fd00:10:244::/48",
                    "192.0.2.0/30",
                    "2001:db8::/64",
                ]
                .into_iter()
                .map(str::parse)
                .collect::<Result<_, _>>()?,
            })
        };
        let mut tables = far(EgressEnd::Remote {
            address: self.tunnel.ends()[1],
            tunnel: tunnel_a,
            mtu: self.tunnel.mtu,
        })?;
        for pod in std::iter::once(&self.pod).chain(selected) {
            tables
                .sources
                .extend([(pod.v4.into(), 1), (pod.v6.into(), 1)]);
        }
        let remote: Vec<IpAddr> = tables.sources.keys().copied().collect();
        if self.native.is_sent {
            tables.native = self.sent(remote.clone())?;
        }
        let datapath = &mut self.datapath;
        self.node.run(|| datapath.sync_egress(&tables))?;
        let mut tables = far(EgressEnd::Local { tunnel: tunnel_b })?;
        tables.sources = [
            (self.gateway_pod.v4.into(), 1),
            (self.gateway_pod.v6.into(), 1),
        ]
        .into();
        if self.native.is_taken {
            tables.native = self.taken(remote, tunnel_b)?;
        }
        let datapath = &mut self.gateway_datapath;
        self.gateway_node.run(|| datapath.sync_egress(&tables))?;
        Ok(())
    }

    /// Makes the tunnel another one, and gives the policy of [`Self::set_up`] anew.
    ///
    /// # Errors
    /// When a map cannot be written.
    pub fn set_tunnel(&mut self, tunnel: Tunnel) -> Result<()> {
        self.tunnel = tunnel;
        let index = index_of(&self.gateway_node, TUNNEL)?;
        let Self {
            gateway,
            gateway_node,
            ..
        } = self;
        let nodes = [(tunnel.ends()[0], tunnel.mtu)].into();
        gateway_node.run(|| gateway.sync_nodes(index, &nodes))?;
        self.set_up()
    }

    /// Gives the pod of the gateway's node a smaller MTU.
    ///
    /// # Errors
    /// When `ip` refuses something, or a map cannot be written.
    pub fn set_gateway_pod_mtu(&mut self, mtu: u16) -> Result<()> {
        let pod = &mut self.gateway_pod;
        let device = &pod.host_device;
        self.gateway_node
            .ip(&format!("link set {device} mtu {mtu}"))?;
        pod.namespace.ip(&format!("link set eth0 mtu {mtu}"))?;
        pod.endpoint.mtu = mtu.into();
        let Self {
            gateway,
            gateway_node,
            gateway_datapath,
            gateway_pod,
            ..
        } = self;
        gateway_node.run(|| {
            gateway_datapath.set_endpoint(&gateway_pod.endpoint)?;
            gateway.set_pods_mtu(mtu)
        })?;
        self.set_up()
    }

    /// What the pods' node does without the tunnel.
    fn sent(&self, pods: Vec<IpAddr>) -> Result<NativeTables> {
        let neighbour = |address: &str| {
            anyhow::Ok(EgressNeighbour {
                address: address.parse()?,
                link: index_of(&self.node, "fab")?,
                mtu: self.native.mtu,
            })
        };
        let both = vec![neighbour("192.0.2.2")?, neighbour("2001:db8::2")?];
        Ok(NativeTables {
            known: pods.into_iter().collect(),
            gateways: [RULE, RULE + 1].map(|rule| (rule, both.clone())).into(),
            ..NativeTables::default()
        })
    }

    /// What the gateway takes without it.
    fn taken(&self, pods: Vec<IpAddr>, tunnel: LinkIndex) -> Result<NativeTables> {
        let link = index_of(&self.gateway_node, "fab")?;
        let pods = pods.into_iter().filter(|_| self.native.is_known);
        Ok(NativeTables {
            pods: ["10.244.0.0/16", "fd00:10:244::/48"]
                .into_iter()
                .map(str::parse)
                .collect::<Result<_, _>>()?,
            remote: pods
                .map(|address| (address, RemoteSource { set: 1, link }))
                .collect(),
            gateway: self.native.is_gateway.then_some(tunnel),
            ..NativeTables::default()
        })
    }

    /// The usual: one rule, and the pods under it.
    ///
    /// # Errors
    /// When a map cannot be written.
    pub fn set_up(&mut self) -> Result<()> {
        self.set_rules([(RULE, Self::rule())].into())?;
        self.select(EgressWay::Through(RULE))
    }

    /// Opens the programs of the pods' node anew beside the handle there was, as a restart does; nobody
    /// has said anything of policies to the new one.
    ///
    /// # Errors
    /// When they cannot be opened.
    pub fn restart_node(&mut self) -> Result<()> {
        let pods = [&self.pod, &self.other_pod];
        let fabric = ["fab", TUNNEL];
        self.datapath = open(&self.node, self.hook, self.pins.clone(), &pods, &fabric)?;
        Ok(())
    }

    /// Closes the gateway's handle and opens it anew, as a restart does.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn restart_gateway(&mut self) -> Result<()> {
        let pins = self.gateway_pins.clone();
        self.open_gateway_at(pins)
    }

    /// Opens a gateway with its pins elsewhere, which has no rules yet, instead of the one that is
    /// held.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open_gateway_at(&mut self, pins: PathBuf) -> Result<()> {
        let node = &self.gateway_node;
        self.gateway = open_gateway(node, self.hook, pins.clone(), self.max_mappings)?;
        self.gateway_pins = pins;
        Ok(())
    }

    /// The mappings of the gateway.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn mappings(&self) -> Result<Vec<Mapping>> {
        Ok(self.gateway_node.run(|| self.gateway.mappings())?)
    }

    /// Fails when there are other entries than the two of each mapping: a half without the other one.
    ///
    /// # Errors
    /// Then, or when a map cannot be read.
    pub fn has_no_halves(&self) -> Result<()> {
        let folder = format!("gateway/{:016x}", bpf_abi::GATEWAY_LAYOUT_HASH);
        let folder = self.gateway_pins.join(folder);
        let entries =
            entries(&folder.join(map_names::NAT_V4))? + entries(&folder.join(map_names::NAT_V6))?;
        let mappings = self.mappings()?.len();
        ensure!(
            entries == 2 * mappings,
            "{entries} entries of {mappings} mappings"
        );
        Ok(())
    }

    /// How many packets the gateway refused for a reason.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn refusals(&self, reason: DropReason) -> Result<u64> {
        let refusals = self.gateway_node.run(|| self.gateway.refusals())?;
        Ok(count_of(&refusals, reason))
    }

    /// How many packets from the fabric the gateway's node refused for a reason, before the gateway
    /// itself saw them.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn gateway_drops(&self, reason: DropReason) -> Result<u64> {
        let drops = self.gateway_node.run(|| self.gateway_datapath.drops())?;
        Ok(count_of(&drops, reason))
    }

    /// How many packets the pods' node refused for a reason.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn drops(&self, reason: DropReason) -> Result<u64> {
        let drops = self.node.run(|| self.datapath.drops())?;
        Ok(count_of(&drops, reason))
    }

    /// Puts another selected pod on the pods' node; policies given later count for it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn add_pod(&mut self, number: u8) -> Result<Pod> {
        let pod = Pod::add(&self.node, 1, number, 1500)?;
        let Self { datapath, node, .. } = self;
        node.run(|| datapath.set_endpoint(&pod.endpoint))?;
        Ok(pod)
    }

    /// One sweep of the gateway.
    ///
    /// # Errors
    /// When a map cannot be read or written.
    pub fn sweep(&mut self) -> Result<Swept> {
        let Self {
            gateway,
            gateway_node,
            ..
        } = self;
        Ok(gateway_node.run(|| gateway.sweep())?)
    }

    /// Puts a host behind the world, over a link with this MTU. The world is the router between.
    ///
    /// # Errors
    /// When `ip` refuses something.
    pub fn add_beyond(&self, mtu: u32) -> Result<Namespace> {
        let (world, beyond) = (&self.world, Namespace::new()?);
        world.ip(&format!(
            "link add far mtu {mtu} type veth peer name eth0 mtu {mtu} netns {}",
            beyond.path()
        ))?;
        for (at, device, v4, v6) in [
            (
                world,
                "far",
                Ipv4Addr::new(203, 0, 113, 1),
                "2001:db8:200::1".parse()?,
            ),
            (&beyond, "eth0", BEYOND_V4, BEYOND_V6),
        ] {
            at.ip(&format!("link set {device} up"))?;
            at.ip(&format!("addr add {v4}/24 dev {device}"))?;
            at.ip(&format!("addr add {v6}/64 dev {device} nodad"))?;
        }
        world.sysctl("net/ipv4/ip_forward", "1")?;
        world.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        for at in [world, &beyond] {
            allow_errors(at)?;
        }
        beyond.ip("route add default via 203.0.113.1")?;
        beyond.ip("-6 route add default via 2001:db8:200::1")?;
        let gateway = &self.gateway_node;
        gateway.ip(&format!("route add 203.0.113.0/24 via {WORLD_V4}"))?;
        gateway.ip(&format!("route add 2001:db8:200::/64 via {WORLD_V6}"))?;
        Ok(beyond)
    }
}

/// The same timeout for every phase.
#[must_use]
pub fn timeouts(all: Duration) -> Timeouts {
    Timeouts {
        tcp_opening: all,
        tcp_established: all,
        tcp_closing: all,
        udp_unanswered: all,
        udp: all,
        icmp: all,
        other: all,
    }
}

fn open(
    node: &Namespace,
    hook: HookChoice,
    pin_root: PathBuf,
    pods: &[&Pod],
    fabric: &[&str],
) -> Result<Datapath> {
    let endpoints: Vec<_> = pods.iter().map(|pod| pod.endpoint.clone()).collect();
    let fabric = indexes(node, fabric)?;
    node.run(|| {
        let mut datapath = Datapath::open(Config { pin_root, hook })?;
        for report in [
            datapath.sync_endpoints(&endpoints)?,
            datapath.sync_fabric(&fabric)?,
        ] {
            ensure!(report.failed.is_empty(), "{:?}", report.failed);
        }
        Ok(datapath)
    })
}

/// A pin root beside another one.
#[must_use]
pub fn beside(pins: &Path, name: &str) -> PathBuf {
    let own = pins.file_name().unwrap_or_default().to_string_lossy();
    pins.with_file_name(format!("{own}_{name}"))
}

fn count_of(counts: &[DropCount], reason: DropReason) -> u64 {
    let found = counts.iter().find(|count| count.reason == reason);
    found.map_or(0, |count| count.packets)
}

fn open_gateway(
    node: &Namespace,
    hook: HookChoice,
    pin_root: PathBuf,
    max_mappings: u32,
) -> Result<Gateway> {
    let fabric = indexes(node, &["fab", "out"])?;
    let tunnel = index_of(node, TUNNEL)?;
    node.run(|| {
        let mut gateway = Gateway::open(&GatewayConfig {
            pin_root,
            hook,
            max_mappings,
            tunnel_port: 4_789,
        })?;
        let report = gateway.sync_devices(Some(tunnel), &fabric)?;
        ensure!(report.failed.is_empty(), "{:?}", report.failed);
        gateway.sync_nodes(tunnel, &[("192.0.2.1".parse()?, TUNNEL_MTU)].into())?;
        Ok(gateway)
    })
}

fn indexes(node: &Namespace, names: &[&str]) -> Result<Vec<LinkIndex>> {
    names.iter().map(|name| index_of(node, name)).collect()
}

/// Notes the source address of every IP packet that comes in by a device.
#[derive(Debug)]
pub struct Witness {
    seen: Arc<Mutex<BTreeSet<IpAddr>>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Witness {
    /// Starts watching.
    ///
    /// # Errors
    /// Without the privilege to.
    pub fn start(at: &Namespace, device: &str) -> Result<Self> {
        let index = index_of(at, device)?;
        let socket = at.run(|| packet_socket(index)).context("watch a device")?;
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            thread::spawn(move || watch(&socket, &seen, &stop))
        };
        Ok(Self {
            seen,
            stop,
            thread: Some(thread),
        })
    }

    /// The addresses seen so far; without IPv6's link-local ones, which are the link's own.
    #[must_use]
    pub fn seen(&self) -> BTreeSet<IpAddr> {
        let seen = self.seen.lock();
        seen.map(|seen| seen.clone()).unwrap_or_default()
    }

    /// Fails when anybody but the gateway was seen.
    ///
    /// # Errors
    /// Then.
    pub fn saw_nobody_else(&self) -> Result<()> {
        let own: BTreeSet<IpAddr> = [
            EGRESS_V4.into(),
            EGRESS_V6.into(),
            SECOND_V4.into(),
            SECOND_V6.into(),
            // The gateway as a router: ICMP errors and neighbour discovery.
            GATEWAY_V4.into(),
            GATEWAY_V6.into(),
        ]
        .into();
        let others: Vec<IpAddr> = self.seen().difference(&own).copied().collect();
        ensure!(others.is_empty(), "seen in the world: {others:?}");
        Ok(())
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there is a failure to watch, which the test notices by what it misses.
            let _ = thread.join();
        }
    }
}

fn watch(socket: &OwnedFd, seen: &Mutex<BTreeSet<IpAddr>>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let mut packet = [0_u8; 64];
        // SAFETY: plain numbers; all zero is a value.
        let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        let mut length = size_of_val(&from) as u32;
        // SAFETY: pointers and sizes describe live values.
        let got = unsafe {
            libc::recvfrom(
                socket.as_raw_fd(),
                packet.as_mut_ptr().cast(),
                packet.len(),
                0,
                (&raw mut from).cast(),
                &mut length,
            )
        };
        if got < 20 || from.sll_pkttype == libc::PACKET_OUTGOING {
            continue;
        }
        let source = match u16::from_be(from.sll_protocol) {
            0x0800 => IpAddr::from([packet[12], packet[13], packet[14], packet[15]]),
            0x86dd if got >= 40 => {
                let mut octets = [0; 16];
                octets.copy_from_slice(&packet[8..24]);
                let source = Ipv6Addr::from(octets);
                if source.is_unicast_link_local() || source.is_unspecified() {
                    continue;
                }
                source.into()
            }
            _ => continue,
        };
        if let Ok(mut seen) = seen.lock() {
            seen.insert(source);
        }
    }
}
