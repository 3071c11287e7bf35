// SPDX-License-Identifier: Apache-2.0
//! The pod's node and the gateway, with a tunnel between them or none: the whole way of a packet.

use std::{collections::BTreeMap, net::Ipv4Addr};

use anyhow::{Context as _, Result};
use bpf_loader::{
    EgressEnd, EgressNeighbour, EgressTables, EgressWay, HookChoice, LinkIndex, NativeTables,
    RemoteSource,
};

use super::{
    flows::{self, Addresses, Counter, Flows, Series, Tunnel, Way},
    rig::{self, Mode},
};
use crate::{
    egress::{EGRESS_V4, EgressLab, RULE, TUNNEL_MTU, WORLD_V4, timeouts},
    namespace::Namespace,
    pod::{self, Pod, index_of},
};

/// A server in the world; of the world's flows the last two bytes differ.
const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const SERVERS: &str = "203.0.0.0/16";

const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const NODE_MAC: [u8; 6] = [2, 0, 0, 0, 0xfb, 1];
const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0xfb, 2];
const OUT_MAC: [u8; 6] = [2, 0, 0, 0, 0xfa, 1];
const WORLD_MAC: [u8; 6] = [2, 0, 0, 0, 0xfa, 2];

/// The device of the kernel's tunnel, and MAC addresses in it: those of ours.
const KERNELS_TUNNEL: &str = "vx";
const TUNNEL: &str = "cw-egress";
const TUNNEL_MAC: [u8; 6] = bpf_abi::nat::TUNNEL_MAC;
const TUNNEL_SOURCE_MAC: [u8; 6] = bpf_abi::nat::TUNNEL_SOURCE_MAC;

/// Both nodes, the pod and the world.
pub(super) struct Chain {
    pub(super) mode: Mode,
    nodes: Nodes,
    pod: Flows,
    world: Flows,
    at_world: Counter,
    at_pod: Counter,
    /// What the network would give to the gateway.
    network: Option<Flows>,
}

/// Who holds the namespaces.
enum Nodes {
    Kernels {
        node: Namespace,
        gateway: Namespace,
        world: Namespace,
        pod: Pod,
    },
    Ours(Box<EgressLab>),
}

impl Nodes {
    fn node(&self) -> &Namespace {
        match self {
            Self::Kernels { node, .. } => node,
            Self::Ours(lab) => &lab.node,
        }
    }

    fn gateway(&self) -> &Namespace {
        match self {
            Self::Kernels { gateway, .. } => gateway,
            Self::Ours(lab) => &lab.gateway_node,
        }
    }

    fn world(&self) -> &Namespace {
        match self {
            Self::Kernels { world, .. } => world,
            Self::Ours(lab) => &lab.world,
        }
    }

    fn pod(&self) -> &Pod {
        match self {
            Self::Kernels { pod, .. } => pod,
            Self::Ours(lab) => &lab.pod,
        }
    }
}

impl Chain {
    /// Builds one; its tables take so many mappings. Ours has so many policies, each with a rule
    /// and a destination of its own, and the pod is under all of them.
    pub(super) fn build(mode: Mode, mappings: u32, policies: u32) -> Result<Self> {
        let mut nodes = match mode {
            Mode::Vxlan | Mode::Native => {
                Nodes::Ours(Box::new(EgressLab::build_for(HookChoice::Auto, mappings)?))
            }
            _ => kernels()?,
        };
        neighbours(&nodes)?;
        match mode {
            Mode::RoutedForward | Mode::RoutedNft => {
                nodes
                    .node()
                    .ip(&format!("route add {SERVERS} via {GATEWAY}"))?;
            }
            Mode::VxlanForward | Mode::VxlanMetadata | Mode::VxlanNft => {
                kernels_tunnel(&nodes, mode == Mode::VxlanMetadata)?;
            }
            _ => {}
        }
        let translates = !matches!(
            mode,
            Mode::RoutedForward | Mode::VxlanForward | Mode::VxlanMetadata
        );
        if matches!(mode, Mode::RoutedNft | Mode::VxlanNft) {
            rig::nftables(nodes.gateway(), "out", EGRESS_V4)?;
        }
        if let Nodes::Ours(lab) = &mut nodes {
            select(lab, mode == Mode::Native, policies)?;
        }
        let pod = nodes.pod();
        let seen = if translates { EGRESS_V4 } else { pod.v4 };
        let out = from_pod(pod);
        let back = Addresses {
            destination: seen,
            ..from_world()
        };
        let (device, pod_v4) = (pod.endpoint.link.0, pod.v4);
        let out_device = index_of(nodes.gateway(), "out")?.0;
        Ok(Self {
            mode,
            pod: nodes.node().run(|| Flows::attach(device, Way::Out, &out))?,
            world: nodes
                .gateway()
                .run(|| Flows::attach(out_device, Way::Back, &back))?,
            at_world: nodes
                .world()
                .run(|| Counter::attach("eth0", Way::Out, seen))?,
            at_pod: pod
                .namespace
                .run(|| Counter::attach_behind("eth0", Way::Back, pod_v4))?,
            network: None,
            nodes,
        })
    }

    /// Lets the gateway be fed by the network, in VXLAN. What that takes makes packets of the pod's
    /// node slower at the gateway's device.
    pub(super) fn feed(&mut self) -> Result<()> {
        let addresses = in_tunnel(self.nodes.pod());
        let tunnel = Tunnel {
            source_mac: NODE_MAC,
            destination_mac: GATEWAY_MAC,
            source: NODE,
            destination: GATEWAY,
            identifier: RULE,
        };
        let gateway = self.nodes.gateway();
        let device = index_of(gateway, "fab")?.0;
        self.network =
            Some(gateway.run(|| Flows::attach_in(device, Way::Out, &addresses, &tunnel))?);
        Ok(())
    }

    /// Sends packets from the pod, or from the world, and returns nanoseconds per packet.
    pub(super) fn measure(&self, way: Way, series: Series) -> Result<f64> {
        let (at, source, counter) = match way {
            Way::Out => (self.nodes.node(), &self.pod, &self.at_world),
            Way::Back => (self.nodes.gateway(), &self.world, &self.at_pod),
        };
        flows::send(at, source, counter, series).with_context(|| self.complaints())
    }

    /// Gives packets in VXLAN to the gateway alone, and returns nanoseconds per packet.
    pub(super) fn measure_gateway(&self, series: Series) -> Result<f64> {
        let source = self.network.as_ref().context("the gateway is not fed")?;
        flows::send(self.nodes.gateway(), source, &self.at_world, series)
            .with_context(|| self.complaints())
    }

    /// Sends one packet of each of so many flows.
    pub(super) fn fill(&self, flows: u32) -> Result<()> {
        self.measure(Way::Out, Series::each(0, flows)).map(|_| ())
    }

    /// Has the pod's node forget which way its connections take: it notes fewer than the gateway has
    /// mappings.
    pub(super) fn forget_ways(&mut self) -> Result<()> {
        if let Nodes::Ours(lab) = &mut self.nodes {
            lab.datapath.sweep_egress(&|_| None)?;
        }
        Ok(())
    }

    /// Ours, to look into.
    pub(super) fn lab(&self) -> Option<&EgressLab> {
        match &self.nodes {
            Nodes::Kernels { .. } => None,
            Nodes::Ours(lab) => Some(lab),
        }
    }

    fn complaints(&self) -> String {
        let mut line = self.mode.name().to_owned();
        if let Nodes::Ours(lab) = &self.nodes {
            let refusals = lab.gateway.refusals().unwrap_or_default();
            let refusals: Vec<_> = refusals.iter().filter(|one| one.packets != 0).collect();
            let drops = lab.datapath.drops().unwrap_or_default();
            let drops: Vec<_> = drops.iter().filter(|one| one.packets != 0).collect();
            line += &format!(", which refused {refusals:?}, the pod's node {drops:?}");
        }
        line
    }
}

/// The frame of flow 0 as it leaves a pod.
pub(super) fn from_pod(pod: &Pod) -> Addresses {
    Addresses {
        source_mac: pod.endpoint.pod_mac.0,
        destination_mac: pod.endpoint.host_mac.0,
        source: pod.v4,
        destination: SERVER,
    }
}

/// The same in the tunnel.
pub(super) fn in_tunnel(pod: &Pod) -> Addresses {
    Addresses {
        source_mac: TUNNEL_SOURCE_MAC,
        destination_mac: TUNNEL_MAC,
        ..from_pod(pod)
    }
}

/// The same from the world, as it arrives at the gateway.
pub(super) fn from_world() -> Addresses {
    Addresses {
        source_mac: WORLD_MAC,
        destination_mac: OUT_MAC,
        source: SERVER,
        destination: EGRESS_V4,
    }
}

/// Two nodes without any program of ours, in the shape of [`EgressLab`].
fn kernels() -> Result<Nodes> {
    let (node, gateway, world) = (pod::node()?, pod::node()?, Namespace::new()?);
    pod::join_nodes(&node, 1, &gateway, 2)?;
    gateway.ip(&format!(
        "link add out type veth peer name eth0 netns {}",
        world.path()
    ))?;
    gateway.ip("link set out up")?;
    gateway.ip(&format!("addr add {EGRESS_V4}/24 dev out"))?;
    world.ip("link set eth0 up")?;
    world.ip(&format!("addr add {WORLD_V4}/24 dev eth0"))?;
    let pod = Pod::add(&node, 1, 1, 1500)?;
    Ok(Nodes::Kernels {
        node,
        gateway,
        world,
        pod,
    })
}

/// Gives every device a MAC address that its neighbours know: what eats packets eats ARP.
fn neighbours(nodes: &Nodes) -> Result<()> {
    let (node, gateway, world, pod) = (nodes.node(), nodes.gateway(), nodes.world(), nodes.pod());
    for (at, device, own, far, far_mac) in [
        (node, "fab", NODE_MAC, GATEWAY, GATEWAY_MAC),
        (gateway, "fab", GATEWAY_MAC, NODE, NODE_MAC),
        (gateway, "out", OUT_MAC, WORLD_V4, WORLD_MAC),
        (world, "eth0", WORLD_MAC, EGRESS_V4, OUT_MAC),
    ] {
        let (own, far_mac) = (mac(own), mac(far_mac));
        at.ip(&format!("link set {device} address {own}"))?;
        at.ip(&format!(
            "neigh replace {far} lladdr {far_mac} dev {device} nud permanent"
        ))?;
    }
    gateway.ip(&format!("route add {SERVERS} via {WORLD_V4}"))?;
    node.ip(&format!(
        "neigh replace {} lladdr {} dev {} nud permanent",
        pod.v4, pod.endpoint.pod_mac, pod.host_device
    ))
}

/// A tunnel of the kernel's own, with one identifier and one other end, which its device knows or is
/// told with each packet.
fn kernels_tunnel(nodes: &Nodes, by_metadata: bool) -> Result<()> {
    let ends = [
        (
            nodes.node(),
            (NODE, GATEWAY),
            (TUNNEL_SOURCE_MAC, TUNNEL_MAC),
            SERVERS,
        ),
        (
            nodes.gateway(),
            (GATEWAY, NODE),
            (TUNNEL_MAC, TUNNEL_SOURCE_MAC),
            "10.244.1.0/24",
        ),
    ];
    for (at, (own, far), (own_mac, far_mac), behind) in ends {
        let device = format!(
            "link add {KERNELS_TUNNEL} address {} type vxlan dstport 4789",
            mac(own_mac)
        );
        let (device, route) = if by_metadata {
            (
                format!("{device} external"),
                format!("{behind} encap ip id {RULE} dst {far}"),
            )
        } else {
            let ends = format!("id {RULE} local {own} remote {far} dev fab nolearning noudpcsum");
            (format!("{device} {ends}"), behind.to_owned())
        };
        for line in [
            device,
            format!("link set {KERNELS_TUNNEL} up"),
            format!(
                "neigh add 169.254.2.1 lladdr {} dev {KERNELS_TUNNEL} nud permanent",
                mac(far_mac)
            ),
            format!("route replace {route} via 169.254.2.1 dev {KERNELS_TUNNEL} onlink"),
        ] {
            at.ip(&line)?;
        }
    }
    Ok(())
}

/// Puts the policies in force on both nodes.
fn select(lab: &mut EgressLab, is_native: bool, policies: u32) -> Result<()> {
    let mut rule = EgressLab::rule();
    rule.addresses = vec![EGRESS_V4.into()];
    rule.timeouts = timeouts(rig::TIMEOUT);
    lab.set_rules(
        (0..policies)
            .map(|number| (RULE + number, rule.clone()))
            .collect(),
    )?;
    let mut set = BTreeMap::new();
    for number in 0..policies {
        // The first one's is where packets go, the others' are beside it.
        let destination = match number {
            0 => SERVERS.parse()?,
            _ => format!("203.{}.{}.0/24", 1 + (number >> 8), number & 0xff).parse()?,
        };
        set.insert(destination, EgressWay::Through(RULE + number));
    }
    let tables = |end: EgressEnd| {
        anyhow::Ok(EgressTables {
            sets: [(1, set.clone())].into(),
            ends: (0..policies).map(|number| (RULE + number, end)).collect(),
            nodes: [NODE.into(), GATEWAY.into()].into(),
            in_cluster: ["10.244.0.0/16".parse()?, "192.0.2.0/30".parse()?].into(),
            ..EgressTables::default()
        })
    };
    let pod = lab.pod.v4.into();
    let tunnel = index_of(&lab.node, TUNNEL)?;
    let mut wanted = tables(EgressEnd::Remote {
        address: GATEWAY.into(),
        tunnel,
        mtu: TUNNEL_MTU,
    })?;
    wanted.sources = [(pod, 1)].into();
    if is_native {
        let gateway = EgressNeighbour {
            address: GATEWAY.into(),
            link: index_of(&lab.node, "fab")?,
            mtu: 1_500,
        };
        wanted.native = NativeTables {
            known: [pod].into(),
            gateways: (0..policies)
                .map(|number| (RULE + number, vec![gateway]))
                .collect(),
            ..NativeTables::default()
        };
    }
    let EgressLab { datapath, node, .. } = lab;
    node.run(|| datapath.sync_egress(&wanted))?;
    let tunnel = index_of(&lab.gateway_node, TUNNEL)?;
    let mut wanted = tables(EgressEnd::Local { tunnel })?;
    if is_native {
        let link: LinkIndex = index_of(&lab.gateway_node, "fab")?;
        wanted.native = NativeTables {
            pods: ["10.244.0.0/16".parse()?].into(),
            remote: [(pod, RemoteSource { set: 1, link })].into(),
            gateway: Some(tunnel),
            ..NativeTables::default()
        };
    }
    let EgressLab {
        gateway_datapath,
        gateway_node,
        ..
    } = lab;
    gateway_node.run(|| gateway_datapath.sync_egress(&wanted))?;
    Ok(())
}

fn mac(bytes: [u8; 6]) -> String {
    bpf_loader::MacAddr(bytes).to_string()
}
