// SPDX-License-Identifier: Apache-2.0
//! `EgressGatewayPolicy` of `causeway.io`: upstream's fields, and gateways that are watched, take
//! over from each other, and hold and announce their addresses themselves.

use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ObjectRef;
use super::advertisement::{Attributes, Communities};
use super::egress_policy::{EgressGateway, EgressSelector};
use crate::condition::Condition;
use crate::pattern;

/// The most addresses the pools of one gateway may have together: 1024, an IPv4 /22. Arbitrary; the
/// holder has each of them on a device, and each is a route where BGP announces them.
pub const MAX_POOL_ADDRESSES: u128 = 1024;

/// Which pods reach destinations outside the cluster through gateway nodes, under which addresses,
/// and what happens when a gateway fails.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.egressGateway) || (has(self.egressGateways) && size(self.egressGateways) > 0)",
    "message": "one of egressGateway and egressGateways is required"
}]))]
pub struct EgressPolicySpec {
    /// Which pods: those that an entry selects. Empty: none.
    pub selectors: Vec<EgressSelector>,
    /// Where the policy applies: prefixes of destinations outside the cluster, host bits zero. Pods
    /// and nodes are reached directly, whatever stands here.
    #[serde(rename = "destinationCIDRs")]
    #[schemars(inner(regex(pattern = pattern::cidr())))]
    pub destination_cidrs: Vec<String>,
    /// Where it does not, within the destinations, host bits zero; of the prefixes that match, the
    /// longest decides.
    #[serde(
        rename = "excludedCIDRs",
        default,
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(inner(regex(pattern = pattern::cidr())))]
    pub excluded_cidrs: Vec<String>,
    /// The gateway; not used where `egressGateways` has an entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_gateway: Option<CausewayEgressGateway>,
    /// Several gateways, in the order they stand by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub egress_gateways: Vec<CausewayEgressGateway>,
    /// How pods are shared among the gateways.
    #[serde(default)]
    pub mode: EgressMode,
    /// Whether a pod prefers gateways of its node's zone (`topology.kubernetes.io/zone`).
    #[serde(default)]
    pub zone_preference: ZonePreference,
    /// How gateways are found dead. Absent: by their Node objects alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<EgressHealth>,
    /// How the world learns where `egressIPs` and addresses of pools are.
    #[serde(default)]
    pub announce: EgressAnnounce,
    /// What connections get, and what becomes of them.
    #[serde(default)]
    pub connections: EgressConnections,
    /// What else is served at `egressIPs` and addresses of pools: the address of a load balancer, say.
    /// What comes for these ports and belongs to no connection of a pod is the holder's kernel's, to
    /// answer or to translate; for all others it is dropped. Outside `connections.sourcePorts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub served_ports: Vec<ServedPort>,
}

/// A port at which something is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServedPort {
    /// By which protocol.
    #[serde(default)]
    pub protocol: ServedProtocol,
    /// The port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

/// By which protocol something is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum ServedProtocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// How a policy stands, as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressPolicyStatus {
    /// The nodes that carry its traffic, or would if there were some.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub active_gateways: Vec<String>,
    /// The nodes that could: healthy, and with an answer where the policy has gateways ask.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub healthy_gateways: Vec<String>,
    /// What its packets get, as far as this node knows: the addresses of a device are known to its
    /// gateway alone.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub addresses: Vec<IpAddr>,
    /// What Causeway has to say about it.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

impl EgressPolicySpec {
    /// The gateways in effect: the list, or the single one where the list is empty.
    pub fn gateways(&self) -> &[CausewayEgressGateway] {
        if self.egress_gateways.is_empty() {
            self.egress_gateway.as_slice()
        } else {
            &self.egress_gateways
        }
    }
}

/// Gateway nodes and the addresses packets get there. At most one of `egressIP`, `egressIPs` and
/// `addressPool`; with none of them and no `interface`, the first address of the device with the
/// default route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.egressIP) && self.egressIP != '', has(self.egressIPs) && self.egressIPs.size() > 0, has(self.addressPool)].filter(x, x).size() <= 1",
    "message": "at most one of egressIP, egressIPs and addressPool is allowed"
}]))]
pub struct CausewayEgressGateway {
    /// What upstream's gateways have. With `egressIPs` and `addressPool`, `interface` is the
    /// device packets leave by; absent: the routing table decides.
    #[serde(flatten)]
    pub upstream: EgressGateway,
    /// Addresses of which every pod uses all, one after the other as ports run out. Causeway puts
    /// them on the gateway that holds them and announces them; they are nowhere before.
    #[serde(rename = "egressIPs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(regex(pattern = pattern::address()))
    )]
    pub egress_ips: Vec<String>,
    /// Prefixes addresses are drawn from. Causeway puts these on the gateway that holds them and
    /// announces them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_pool: Option<AddressPool>,
}

impl CausewayEgressGateway {
    /// Whether Causeway holds its addresses: they are on no device before.
    pub fn holds(&self) -> bool {
        !self.egress_ips.is_empty() || self.address_pool.is_some()
    }

    /// The addresses of `egressIPs`, in the order they are written, each once.
    pub fn held_addresses(&self) -> Vec<IpAddr> {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in self.egress_ips.iter().filter_map(|text| text.parse().ok()) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }
}

/// Prefixes addresses are drawn from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressPool {
    /// The prefixes, host bits zero, apart from each other, 1024 addresses together at most. All of
    /// their addresses are used, the first and the last of a prefix too; where each namespace or pod
    /// has one of both families, as many of each as the smaller family has.
    #[schemars(
        length(min = 1, max = 16),
        inner(regex(pattern = pattern::cidr()))
    )]
    pub cidrs: Vec<String>,
    /// Who has an address of its own, one of each family the pool has. It is the same after a
    /// restart and wherever it is asked for. Namespaces and pods are given theirs by hash: two may
    /// have the same one.
    #[serde(default)]
    pub assign: PoolAssignment,
}

impl AddressPool {
    /// The prefixes. A parsed object has been checked for texts that are none.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> {
        self.cidrs.iter().filter_map(|text| text.parse().ok())
    }

    /// How many addresses there are.
    pub fn size(&self) -> u128 {
        self.prefixes()
            .map(|prefix| {
                let bits = u32::from(prefix.max_prefix_len() - prefix.prefix_len());
                1u128.checked_shl(bits).unwrap_or(u128::MAX)
            })
            .fold(0, u128::saturating_add)
    }
}

/// Who has an address of a pool of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PoolAssignment {
    /// The policy: all its pods share it.
    #[default]
    Policy,
    /// Each namespace.
    Namespace,
    /// Each pod.
    Pod,
}

/// How pods are shared among gateways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EgressMode {
    /// All use the first healthy one, in the order of `egressGateways` and of the nodes' names; the
    /// others stand by.
    #[default]
    ActiveStandby,
    /// All healthy ones are used at once; each pod keeps its own while that is healthy.
    ActiveActive,
}

/// Whether a pod prefers gateways of its node's zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ZonePreference {
    /// No. (Not `Off`: without quotes that is false to kubectl.)
    #[default]
    None,
    /// It uses only those; without a healthy one it sends nothing.
    LocalOnly,
    /// It uses those while one of them is healthy, else any.
    LocalFirst,
    /// They come before the others in the order of standby; all count.
    LocalPriority,
}

/// How gateways are found dead. A gateway is healthy while nothing here says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressHealth {
    /// The BFDProfile of the sessions between the nodes and the gateways. Absent: there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd_profile_ref: Option<ObjectRef>,
    /// What each gateway must reach to be one. Absent: nothing is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<EgressProbe>,
}

/// A question each gateway asks something outside the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "(self.protocol == 'TCP') == has(self.port)",
        "message": "port is required with protocol TCP and not allowed with ICMP"
    },
    {
        "rule": "self.timeoutSeconds <= self.intervalSeconds",
        "message": "timeoutSeconds must not be larger than intervalSeconds"
    }
]))]
pub struct EgressProbe {
    /// The address that is asked.
    #[schemars(regex(pattern = pattern::address()))]
    pub target: String,
    /// The TCP port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// What is asked.
    #[serde(default)]
    pub protocol: ProbeProtocol,
    /// How often, in seconds.
    #[serde(default = "default_interval")]
    #[schemars(range(min = 1, max = 3600))]
    pub interval_seconds: i32,
    /// How long an answer may take, in seconds; at most the interval.
    #[serde(default = "default_timeout")]
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_seconds: i32,
    /// Questions without an answer in a row that mean dead. One answer means alive again.
    #[serde(default = "default_threshold")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: i32,
}

/// What a probe asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ProbeProtocol {
    /// Whether a TCP connection is accepted.
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    /// Whether an ICMP echo request is answered.
    #[serde(rename = "ICMP")]
    Icmp,
}

/// How the world learns where the addresses Causeway holds are. Addresses that are on a device
/// already (`egressIP`, `interface`) are not announced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressAnnounce {
    /// To the BGP peers of the holder, as host routes. Absent: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bgp: Option<EgressBgp>,
    /// By ARP and neighbour discovery on links with a subnet the address is in: answers, and an
    /// unasked one when the holder changes (RFC 5227 §3, RFC 4861 §7.2.6).
    #[serde(default = "yes")]
    pub arp: bool,
}

impl Default for EgressAnnounce {
    fn default() -> Self {
        EgressAnnounce {
            bgp: None,
            arp: true,
        }
    }
}

/// Announcement by BGP.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressBgp {
    /// Communities and local preference, as in a CiliumBGPAdvertisement; of gateways that stand by
    /// too.
    #[serde(flatten)]
    pub attributes: Attributes,
    /// MULTI_EXIT_DISC of the holder's route (RFC 4271 §5.1.4). Absent: none is sent, which most
    /// routers read as 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub med: Option<i64>,
    /// MULTI_EXIT_DISC of the routes of gateways that stand by, above `med`, so that the fabric
    /// knows the way before it needs it. A gateway announces it once it has all connections of the
    /// holder. Absent: `med`, or they announce nothing where `standbyCommunities` is absent too.
    #[serde(
        rename = "standbyMED",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 1, max = 4_294_967_295_i64))]
    pub standby_med: Option<i64>,
    /// Communities of the routes of gateways that stand by, in place of `communities`: for a fabric
    /// whose policy goes by them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby_communities: Option<Communities>,
}

impl EgressBgp {
    /// What gateways that stand by announce; none where they announce nothing. Of this, only what
    /// is for the holder counts.
    pub fn standby(&self) -> Option<EgressBgp> {
        if self.standby_med.is_none() && self.standby_communities.is_none() {
            return None;
        }
        let communities = self.standby_communities.as_ref();
        Some(EgressBgp {
            attributes: Attributes {
                communities: communities
                    .or(self.attributes.communities.as_ref())
                    .cloned(),
                ..self.attributes.clone()
            },
            med: self.standby_med.or(self.med),
            ..EgressBgp::default()
        })
    }
}

/// What connections get, and what becomes of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressConnections {
    /// Whether connections keep the gateway and address they began with when the policy gives new
    /// ones another.
    #[serde(default = "yes")]
    pub survive: bool,
    /// For how long, in seconds. Absent: until they end. Not allowed with `survive: false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604_800))]
    pub drain_seconds: Option<i32>,
    /// The ports connections may get at the gateway.
    #[serde(default)]
    pub source_ports: SourcePorts,
    /// Whether a UDP socket keeps one address and port whomever it sends to, as RFC 4787 §4.1 asks
    /// for applications that find each other through NAT; costs a port for each socket.
    #[serde(default)]
    pub udp_endpoint_independent: bool,
    /// How long idle connections are remembered.
    #[serde(default)]
    pub timeouts: EgressTimeouts,
}

impl Default for EgressConnections {
    fn default() -> Self {
        EgressConnections {
            survive: true,
            drain_seconds: None,
            source_ports: SourcePorts::default(),
            udp_endpoint_independent: false,
            timeouts: EgressTimeouts::default(),
        }
    }
}

/// A range of ports, both ends included. The defaults are everything that is not reserved
/// (RFC 6335 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.first <= self.last",
    "message": "first must not be larger than last"
}]))]
pub struct SourcePorts {
    /// The lowest.
    #[serde(default = "default_first_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub first: i32,
    /// The highest.
    #[serde(default = "default_last_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub last: i32,
}

impl Default for SourcePorts {
    fn default() -> Self {
        SourcePorts {
            first: default_first_port(),
            last: default_last_port(),
        }
    }
}

/// How long idle connections are remembered, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressTimeouts {
    /// TCP before both sides have spoken (RFC 5382 REQ-5: at least 4 minutes).
    #[serde(default = "four_minutes")]
    #[schemars(range(min = 1, max = 604_800))]
    pub tcp_opening_seconds: i32,
    /// TCP while both sides may speak (RFC 5382 REQ-5: at least 2 hours 4 minutes).
    #[serde(default = "two_hours_four_minutes")]
    #[schemars(range(min = 1, max = 604_800))]
    pub tcp_established_seconds: i32,
    /// TCP after both sides said FIN, or one said RST (RFC 5382 REQ-5: at least 4 minutes).
    #[serde(default = "four_minutes")]
    #[schemars(range(min = 1, max = 604_800))]
    pub tcp_closing_seconds: i32,
    /// UDP without an answer.
    #[serde(default = "one_minute")]
    #[schemars(range(min = 1, max = 604_800))]
    pub udp_unanswered_seconds: i32,
    /// UDP (RFC 4787 REQ-5: at least 2 minutes, 5 recommended).
    #[serde(default = "five_minutes")]
    #[schemars(range(min = 1, max = 604_800))]
    pub udp_seconds: i32,
    /// ICMP queries (RFC 5508 REQ-1: at least 60 seconds).
    #[serde(default = "one_minute")]
    #[schemars(range(min = 1, max = 604_800))]
    pub icmp_seconds: i32,
    /// Every other protocol.
    #[serde(default = "ten_minutes")]
    #[schemars(range(min = 1, max = 604_800))]
    pub other_seconds: i32,
}

impl Default for EgressTimeouts {
    fn default() -> Self {
        EgressTimeouts {
            tcp_opening_seconds: four_minutes(),
            tcp_established_seconds: two_hours_four_minutes(),
            tcp_closing_seconds: four_minutes(),
            udp_unanswered_seconds: one_minute(),
            udp_seconds: five_minutes(),
            icmp_seconds: one_minute(),
            other_seconds: ten_minutes(),
        }
    }
}

fn yes() -> bool {
    true
}

fn default_interval() -> i32 {
    5
}

fn default_timeout() -> i32 {
    2
}

fn default_threshold() -> i32 {
    3
}

fn default_first_port() -> i32 {
    1024
}

fn default_last_port() -> i32 {
    65535
}

fn one_minute() -> i32 {
    60
}

fn four_minutes() -> i32 {
    240
}

fn five_minutes() -> i32 {
    300
}

fn ten_minutes() -> i32 {
    600
}

fn two_hours_four_minutes() -> i32 {
    7440
}
