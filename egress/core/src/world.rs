// SPDX-License-Identifier: Apache-2.0
//! What the decision is made of.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Everything that has a say, at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct World {
    /// The name of this node.
    pub node: String,
    /// Every node of the cluster, this one among them, by name.
    pub nodes: BTreeMap<String, Node>,
    /// The policies that are valid, in order of precedence: oldest first, then by kind and name.
    pub policies: Vec<Policy>,
    /// The pods of this node.
    pub pods: Vec<Pod>,
    /// The network devices of this node, by name.
    pub interfaces: BTreeMap<String, Interface>,
    /// What is inside the cluster and never leaves by a gateway: pod prefixes and addresses of
    /// nodes.
    pub in_cluster: BTreeSet<IpNet>,
    /// How packets get from pods' nodes to gateways.
    pub transport: Transport,
    /// Where pods live, where packets may come without a tunnel: one that no router forwards and that
    /// comes from there for the world is for the gateway, or for nobody.
    pub pod_prefixes: BTreeSet<IpNet>,
    /// The pods of other nodes that policies this node may be a gateway of select, where packets may
    /// come without a tunnel. None of two that claim one address.
    pub remote_pods: Vec<RemotePod>,
    /// The addresses of other nodes this node reaches without a router in between.
    pub on_link: BTreeMap<IpAddr, OnLink>,
}

/// How packets get from pods' nodes to gateways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// By the tunnel.
    #[default]
    Tunnel,
    /// By the tunnel, and what comes without it is taken: on the way to `Native` and back.
    Either,
    /// As they are, to gateways that are neighbours and know the pod; else by the tunnel.
    Native,
}

impl Transport {
    /// Whether packets that come without the tunnel are taken.
    pub fn takes_native(self) -> bool {
        match self {
            Transport::Tunnel => false,
            Transport::Either | Transport::Native => true,
        }
    }
}

/// The way to a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnLink {
    /// The kernel's number of the device.
    pub link: u32,
    /// Its MTU in bytes.
    pub mtu: u32,
}

/// A pod of another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemotePod {
    /// The pod, as its own node knows it.
    pub pod: Pod,
    /// Its node.
    pub node: String,
}

/// A node of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The address of each family the other nodes reach it by; the tunnel ends there. The first of
    /// a family counts.
    pub addresses: Vec<IpAddr>,
    /// Its zone (`topology.kubernetes.io/zone`).
    pub zone: Option<String>,
    /// Whether it should carry traffic as far as is known: not dead, not leaving. A node nobody
    /// has looked at is healthy. One that is not keeps the rules it holds until another has taken
    /// them over. What single policies want of it is in [`Policy::unanswered`].
    pub is_healthy: bool,
    /// Whether it is known to be dead: by its object, or by BFD and everybody who was asked. It
    /// holds nothing.
    pub is_dead: bool,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub key: PodKey,
    /// Its unique identifier as Kubernetes gave it; empty where there is none. Several gateways
    /// share pods by it, so it must be the same number wherever it is asked for.
    pub uid: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The policies that select it.
    pub policies: BTreeSet<PolicyId>,
    /// The policies that may select it, for all that is known: its labels are not. It sends
    /// nothing to their destinations until they are.
    pub undecided: BTreeSet<PolicyId>,
    /// Whether every node knows all of this, and not only its own.
    pub is_known_to_all: bool,
}

/// The name of a pod: namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A network device of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number of it.
    pub index: u32,
    /// Whether packets can use it.
    pub is_up: bool,
    /// Its usable addresses, in the kernel's order: no link-local, loopback or multicast ones.
    pub addresses: Vec<IpAddr>,
    /// Whether it carries the IPv4 default route of the lowest metric.
    pub has_default_route_v4: bool,
    /// The same for IPv6.
    pub has_default_route_v6: bool,
}

/// Whose kind a policy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PolicyKind {
    /// `CiliumEgressGatewayPolicy`.
    Cilium,
    /// `EgressGatewayPolicy` of `causeway.io`.
    Causeway,
}

/// The name of a policy, unique in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PolicyId {
    /// Its kind.
    pub kind: PolicyKind,
    /// The object's name.
    pub name: String,
}

impl fmt::Display for PolicyId {
    /// Writes `CiliumEgressGatewayPolicy/web`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            PolicyKind::Cilium => "CiliumEgressGatewayPolicy",
            PolicyKind::Causeway => "EgressGatewayPolicy",
        };
        write!(f, "{kind}/{}", self.name)
    }
}

/// One policy, valid by construction.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Its name.
    pub id: PolicyId,
    /// Where it applies.
    pub destinations: BTreeSet<IpNet>,
    /// Where it does not, inside of that; the longer prefix decides.
    pub exclusions: BTreeSet<IpNet>,
    /// The ways out, in the order they are written; at least one.
    pub groups: Vec<Group>,
    /// How pods are shared among them.
    pub selection: Selection,
    /// Which gateways a pod prefers.
    pub zones: Zones,
    /// Ports, times and counts.
    pub limits: Limits,
    /// The nodes that are not known to reach what the policy asks its gateways to. Where one of
    /// the others can be the gateway they are not; where none can they count as if they did, since
    /// a target that is dead must not take everybody's way out.
    pub unanswered: BTreeSet<String>,
}

impl Policy {
    /// Whether its rules move from gateway to gateway, with the addresses they hold.
    pub fn can_move(&self) -> bool {
        let is_held = |group: &Group| matches!(group.addresses, Addresses::Held { .. });
        self.minds_health() && self.groups.iter().any(is_held)
    }

    /// Whether nodes with its pods choose among several gateways by how these are.
    pub fn can_choose(&self) -> bool {
        let nodes: BTreeSet<&String> = self.groups.iter().flat_map(|group| &group.nodes).collect();
        self.minds_health() && nodes.len() > 1
    }

    /// Whether it asks how its gateways are. Upstream's do not.
    fn minds_health(&self) -> bool {
        match self.selection {
            Selection::ActiveStandby | Selection::ActiveActive => true,
            Selection::FirstByName | Selection::ByPodUid => false,
        }
    }
}

/// One way out: nodes that may be the gateway, and the addresses packets get there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The nodes whose labels match, by name; none when no node does.
    pub nodes: BTreeSet<String>,
    /// The addresses packets get.
    pub addresses: Addresses,
}

/// Which addresses packets get at a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// The first of each family of the device with the default route.
    DefaultRoute,
    /// The first of each family of this device.
    Interface(String),
    /// This one, which must be on a device of the gateway already (upstream's `egressIP`).
    OnDevice(IpAddr),
    /// These, which the gateway that holds them puts on and announces itself. At least one, each
    /// once.
    Held {
        /// The addresses, in the order they are written or were drawn from a pool.
        addresses: Vec<IpAddr>,
        /// How they are shared among the pods.
        affinity: Affinity,
        /// The device packets leave by; the routing table decides where there is none.
        interface: Option<String>,
    },
}

/// How several addresses of one gateway group are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// Every pod uses all of them, one after the other as ports run out: more ports for all.
    Policy,
    /// Each namespace has one (of each family).
    Namespace,
    /// Each pod has one (of each family).
    Pod,
}

/// How pods are shared among the groups of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Upstream's `egressGateway`: the first node by name, healthy or not.
    FirstByName,
    /// Upstream's `egressGateways`: the groups' first nodes by name, sorted by their addresses,
    /// and of those the one at FNV-1a (32 bits) of the pod's UID modulo their number, healthy or
    /// not.
    ByPodUid,
    /// Ours, one gateway at a time: the first healthy node; the others stand by.
    ActiveStandby,
    /// Ours, all healthy gateways at once: each pod and address keeps its gateway while that is
    /// healthy (rendezvous hashing, RFC 2991's highest random weight).
    ActiveActive,
}

/// Whether a pod prefers gateways of its node's zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Zones {
    /// No.
    #[default]
    Off,
    /// Only those; without one, nothing is sent.
    LocalOnly,
    /// Those while at least one of them is healthy, else any.
    LocalFirst,
    /// Those before the others in the order of standby; all count.
    LocalPriority,
}

/// The ports a gateway may give to connections, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// The lowest, at least 1.
    pub first: u16,
    /// The highest, not below the lowest.
    pub last: u16,
}

impl Default for PortRange {
    /// 1024 to 65535: everything that is not reserved (RFC 6335 §6).
    fn default() -> Self {
        PortRange {
            first: 1024,
            last: u16::MAX,
        }
    }
}

/// Ports, times and counts of a policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The ports connections may get.
    pub ports: PortRange,
    /// Whether a UDP socket keeps one mapping whomever it sends to (RFC 4787 §4.1).
    pub is_udp_endpoint_independent: bool,
    /// How long idle mappings live.
    pub timeouts: Timeouts,
    /// How long connections keep the gateway and address they began with once the policy gives
    /// new ones another; until they end where there is none.
    pub drain: Option<Duration>,
}

/// How long an idle mapping lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// TCP before both sides have spoken (RFC 5382 REQ-5: at least 4 minutes).
    pub tcp_opening: Duration,
    /// TCP while both sides may speak (RFC 5382 REQ-5: at least 2 hours 4 minutes).
    pub tcp_established: Duration,
    /// TCP after both sides said FIN, or one said RST (RFC 5382 REQ-5: at least 4 minutes).
    pub tcp_closing: Duration,
    /// UDP without an answer.
    pub udp_unanswered: Duration,
    /// UDP (RFC 4787 REQ-5: at least 2 minutes, 5 recommended).
    pub udp: Duration,
    /// ICMP queries (RFC 5508 REQ-1: at least 60 seconds).
    pub icmp: Duration,
    /// Every other protocol.
    pub other: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            tcp_opening: Duration::from_secs(240),
            tcp_established: Duration::from_secs(7440),
            tcp_closing: Duration::from_secs(240),
            udp_unanswered: Duration::from_secs(60),
            udp: Duration::from_secs(300),
            icmp: Duration::from_secs(60),
            other: Duration::from_secs(600),
        }
    }
}
