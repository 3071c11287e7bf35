// SPDX-License-Identifier: Apache-2.0
//! `CiliumBGPPeerConfig`, and what `BGPPeerConfig` of `causeway.io` has in common with it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::causeway_session::{CausewayFamily, CausewayGracefulRestart, CausewaySession};
use crate::selector::LabelSelector;

/// What the sessions with a class of peers are like.
// The fields under `ours` exist in `BGPPeerConfig` of `causeway.io` only, beside the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerConfigSpec {
    /// TCP settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// The protocol's timers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timers: Option<Timers>,
    /// The Secret whose key `password` protects the session by TCP MD5 (RFC 2385). It is looked
    /// up in the namespace for BGP secrets. Without the Secret the session is not tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_secret_ref: Option<String>,
    /// Graceful restart (RFC 4724). Absent: off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_restart: Option<GracefulRestart>,
    /// The TTL of packets to an external peer; 1 for a neighbour on the same link. Internal
    /// peers are not limited.
    #[serde(default = "default_multihop")]
    #[schemars(range(min = 1, max = 255))]
    pub ebgp_multihop: i32,
    /// The address families of the session. Absent: IPv6 and IPv4 unicast, advertising nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub families: Option<Vec<Family>>,
    /// What only `BGPPeerConfig` of `causeway.io` has.
    #[serde(flatten)]
    pub ours: CausewaySession,
}

impl Default for PeerConfigSpec {
    /// What a peer without a peer configuration gets.
    fn default() -> Self {
        PeerConfigSpec {
            transport: None,
            timers: None,
            auth_secret_ref: None,
            graceful_restart: None,
            ebgp_multihop: default_multihop(),
            families: None,
            ours: CausewaySession::default(),
        }
    }
}

/// TCP settings of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transport {
    /// The peer's TCP port.
    #[serde(default = "default_peer_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub peer_port: i32,
    /// The interface whose address is the source of the session. It must have exactly one usable
    /// address of the peer's family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_interface: Option<String>,
    /// The local TCP port; accepted in `v2alpha1` and ignored: source ports are ephemeral.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub local_port: Option<i32>,
}

impl Default for Transport {
    fn default() -> Self {
        Transport {
            peer_port: default_peer_port(),
            source_interface: None,
            local_port: None,
        }
    }
}

/// The timers of RFC 4271 §10, in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.keepAliveTimeSeconds <= self.holdTimeSeconds",
    "message": "keepAliveTimeSeconds must not be larger than holdTimeSeconds"
}]))]
pub struct Timers {
    /// Between attempts to connect.
    #[serde(default = "default_connect_retry")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub connect_retry_time_seconds: i32,
    /// Silence after which the peer is taken as dead. A change resets the session.
    #[serde(default = "default_hold")]
    #[schemars(range(min = 3, max = 65535))]
    pub hold_time_seconds: i32,
    /// Between keepalives. A change resets the session.
    #[serde(default = "default_keepalive")]
    #[schemars(range(min = 1, max = 65535))]
    pub keep_alive_time_seconds: i32,
}

impl Default for Timers {
    fn default() -> Self {
        Timers {
            connect_retry_time_seconds: default_connect_retry(),
            hold_time_seconds: default_hold(),
            keep_alive_time_seconds: default_keepalive(),
        }
    }
}

/// Graceful restart (RFC 4724).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GracefulRestart {
    /// Whether the capability is announced.
    pub enabled: bool,
    /// How long the peer keeps routes while this speaker restarts.
    #[serde(default = "default_restart_time")]
    #[schemars(range(min = 1, max = 4095))]
    pub restart_time_seconds: i32,
    /// What only `BGPPeerConfig` of `causeway.io` has.
    #[serde(flatten)]
    pub ours: CausewayGracefulRestart,
}

/// One address family of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Family {
    /// Address family.
    pub afi: Afi,
    /// Subsequent address family.
    pub safi: Safi,
    /// The CiliumBGPAdvertisement objects to advertise, by their labels. Absent: none. The empty
    /// selector selects all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertisements: Option<LabelSelector>,
    /// What only `BGPPeerConfig` of `causeway.io` has.
    #[serde(flatten)]
    pub ours: CausewayFamily,
}

/// An address family as the manifests name it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the registry's names say all there is")]
pub enum Afi {
    Ipv4,
    Ipv6,
    L2vpn,
    Ls,
    Opaque,
}

impl Afi {
    /// The name as manifests write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Afi::Ipv4 => "ipv4",
            Afi::Ipv6 => "ipv6",
            Afi::L2vpn => "l2vpn",
            Afi::Ls => "ls",
            Afi::Opaque => "opaque",
        }
    }
}

/// A subsequent address family as the manifests name it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the registry's names say all there is")]
pub enum Safi {
    Unicast,
    Multicast,
    MplsLabel,
    Encapsulation,
    Vpls,
    Evpn,
    Ls,
    SrPolicy,
    Mup,
    MplsVpn,
    MplsVpnMulticast,
    RouteTargetConstraints,
    FlowspecUnicast,
    FlowspecVpn,
    KeyValue,
}

impl Safi {
    /// The name as manifests write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Safi::Unicast => "unicast",
            Safi::Multicast => "multicast",
            Safi::MplsLabel => "mpls_label",
            Safi::Encapsulation => "encapsulation",
            Safi::Vpls => "vpls",
            Safi::Evpn => "evpn",
            Safi::Ls => "ls",
            Safi::SrPolicy => "sr_policy",
            Safi::Mup => "mup",
            Safi::MplsVpn => "mpls_vpn",
            Safi::MplsVpnMulticast => "mpls_vpn_multicast",
            Safi::RouteTargetConstraints => "route_target_constraints",
            Safi::FlowspecUnicast => "flowspec_unicast",
            Safi::FlowspecVpn => "flowspec_vpn",
            Safi::KeyValue => "key_value",
        }
    }
}

fn default_multihop() -> i32 {
    1
}

fn default_peer_port() -> i32 {
    179
}

fn default_connect_retry() -> i32 {
    120
}

fn default_hold() -> i32 {
    90
}

fn default_keepalive() -> i32 {
    30
}

fn default_restart_time() -> i32 {
    120
}
