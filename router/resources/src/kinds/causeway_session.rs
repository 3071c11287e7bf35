// SPDX-License-Identifier: Apache-2.0
//! What `BGPPeerConfig` of `causeway.io` adds to a session and to its families.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pattern;

/// What a session of a `BGPPeerConfig` has beyond one of a `CiliumBGPPeerConfig`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CausewaySession {
    /// Wait for the peer to connect instead of connecting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passive: Option<bool>,
    /// Connect, and refuse when the peer does. Absent: false; either end may connect where the
    /// instance listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    /// The device connections are bound to: they leave and come by it and no other, whatever the
    /// routes say. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15))]
    pub bind_interface: Option<String>,
    /// Drop packets from farther away than this, by their TTL (RFC 5082). Both ends need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_security: Option<TtlSecurity>,
    /// The largest TCP segment in octets. Absent: what the path gives.
    #[serde(rename = "tcpMSS", default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 88, max = 32767))]
    pub tcp_mss: Option<i32>,
    /// What this speaker is to the peer (RFC 9234). Absent: nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<SessionRole>,
    /// Whether messages up to 65535 octets are offered (RFC 8654). Absent: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended_messages: Option<bool>,
    /// Seconds without anything leaving after which the session is given up (RFC 9687); 0 for
    /// never. Absent: 480, or twice the hold time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub send_hold_time_seconds: Option<i32>,
    /// Which capabilities are offered. Absent: `Fallback`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// Another AS number shown to external peers.
    #[serde(rename = "localAS", default, skip_serializing_if = "Option::is_none")]
    pub local_as: Option<LocalAs>,
    /// Whether the peer's AS number in paths sent to it becomes the own one. Absent: false.
    #[serde(
        rename = "asOverride",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub as_override: Option<bool>,
    /// How often the own AS number may be in paths from the peer. Absent: 0.
    #[serde(
        rename = "allowOwnAS",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 0, max = 10))]
    pub allow_own_as: Option<i32>,
    /// What is done with private AS numbers in paths sent to external peers. Absent: `Keep`.
    #[serde(rename = "privateAS", default, skip_serializing_if = "Option::is_none")]
    pub private_as: Option<PrivateAs>,
    /// Whether paths of external peers must begin with their AS number. Absent: true. Routes of
    /// route servers do not.
    #[serde(
        rename = "enforceFirstAS",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub enforce_first_as: Option<bool>,
    /// Whether routes are reflected to and from internal peers (RFC 4456). Absent: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_reflector_client: Option<bool>,
    /// Whether an external peer on the link is given up when the link goes down. Absent: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fast_failover: Option<bool>,
    /// The BFDProfile by which failures of the path to the peer are found. Absent: by the hold
    /// timer alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd_profile_ref: Option<ObjectRef>,
    /// Whether the session waits for BFD to be up. Absent: false, so that a peer without BFD costs
    /// fast detection and not the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd_strict_mode: Option<bool>,
    /// Whether a second connection may take the place of an established one (RFC 4271 §6.8).
    /// Absent: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collision_detect_established: Option<bool>,
}

/// How far a peer may be by the TTL of its packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TtlSecurity {
    /// The most hops: 1 for a peer on the link.
    #[serde(default = "one_hop")]
    #[schemars(range(min = 1, max = 254))]
    pub max_hops: i32,
}

/// What this speaker is to a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionRole {
    /// The role of this speaker.
    pub name: RoleName,
    /// Whether a peer that names no role is refused.
    #[serde(default)]
    pub strict: bool,
}

/// The roles of RFC 9234 §4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names of the RFC")]
pub enum RoleName {
    Provider,
    RouteServer,
    RouteServerClient,
    Customer,
    Peer,
}

/// Which capabilities a session offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Capabilities {
    /// All; a peer that refuses them is called without them the next time.
    Fallback,
    /// All, whatever the peer says.
    Always,
    /// None. Only IPv4 unicast is left then.
    Never,
}

/// Another AS number shown to external peers, as when two ASes become one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalAs {
    /// The AS number.
    #[schemars(range(min = 1, max = 4_294_967_295_i64))]
    pub asn: i64,
    /// Whether it is left out of paths received from the peer.
    #[serde(default)]
    pub no_prepend: bool,
    /// Whether the real AS number is left out of paths sent to the peer.
    #[serde(rename = "replaceAS", default)]
    pub replace_as: bool,
    /// Whether a peer that refuses this number is offered the real one.
    #[serde(rename = "dualAS", default)]
    pub dual_as: bool,
}

/// What is done with private AS numbers (RFC 6996).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PrivateAs {
    /// They stay.
    Keep,
    /// They are removed from paths that have no others.
    RemoveWhenAlone,
    /// They are removed.
    Remove,
    /// The own AS number takes their place.
    Replace,
}

/// What graceful restart of a `BGPPeerConfig` has beyond that of a `CiliumBGPPeerConfig`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CausewayGracefulRestart {
    /// Whether routes are kept, too, over a session that ends by NOTIFICATION or by its hold timer
    /// (RFC 8538). Absent: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notification: Option<bool>,
}

/// What a family of a `BGPPeerConfig` has beyond one of a `CiliumBGPPeerConfig`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CausewayFamily {
    /// What is accepted from the peer. Absent: the default route and nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import: Option<Import>,
    /// What is sent to the peer. Absent: what its advertisements and `transit` give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<Export>,
    /// Several paths for one prefix (RFC 7911). Absent: neither way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_path: Option<AddPath>,
    /// Seconds routes are kept as the last resort after the restart time (RFC 9494). Absent: off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16_777_215))]
    pub long_lived_stale_time_seconds: Option<i32>,
}

/// Several paths for one prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddPath {
    /// Whether the peer may send several.
    #[serde(default)]
    pub receive: bool,
    /// The most that are sent to the peer. Absent: the best one alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 255))]
    pub send: Option<i32>,
}

/// What is accepted from a peer in one family.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.mode) && self.mode == 'Prefixes' ? has(self.prefixes) && size(self.prefixes) > 0 : !has(self.prefixes)",
    "message": "prefixes is required with mode Prefixes and not allowed with others"
}, {
    "rule": "has(self.maxRoutes) || (!has(self.warningPercent) && !has(self.onMaxRoutes) && !has(self.restartAfterSeconds))",
    "message": "warningPercent, onMaxRoutes and restartAfterSeconds need maxRoutes"
}]))]
pub struct Import {
    /// Which routes are accepted. Absent: `All` with a policy, else `DefaultRoute`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ImportMode>,
    /// The accepted prefixes of mode `Prefixes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub prefixes: Option<Vec<ImportPrefix>>,
    /// Whether traffic to accepted routes with the community BLACKHOLE is dropped, and the routes
    /// stay in this AS (RFC 7999). Absent: false; they are routes like others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub honor_blackhole: Option<bool>,
    /// The BGPPolicy routes go through that the mode accepts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_ref: Option<ObjectRef>,
    /// The most routes this peer may have accepted at once. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_i64))]
    pub max_routes: Option<i64>,
    /// At how many percent of `maxRoutes` there is a warning. Absent: 75.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub warning_percent: Option<i32>,
    /// What one route more than `maxRoutes` does. Absent: `Restart`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_max_routes: Option<OnMaxRoutes>,
    /// Seconds the session stays down then; 0 until an operator brings it up. Absent: 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub restart_after_seconds: Option<i32>,
}

/// What one route too many does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnMaxRoutes {
    /// The session ends and comes back later.
    Restart,
    /// A warning; all routes are taken.
    Warn,
}

/// What is sent to a peer in one family.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Export {
    /// The BGPPolicy routes go through before they are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_ref: Option<ObjectRef>,
    /// The most routes that are sent. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_i64))]
    pub max_routes: Option<i64>,
    /// Which next hop is sent. Absent: `Auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<ExportNextHop>,
    /// The next hop that is sent in place of this end of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = pattern::address()))]
    pub next_hop_address: Option<String>,
}

/// Which next hop is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExportNextHop {
    /// As RFC 4271 §5.1.3 has it.
    Auto,
    /// This end of the session.
    #[serde(rename = "Self")]
    ToSelf,
    /// What it was.
    Unchanged,
}

/// The name of another object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Which routes are accepted from a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImportMode {
    /// `0.0.0.0/0` or `::/0`, as the family is, and nothing else.
    #[default]
    DefaultRoute,
    /// What the list says.
    Prefixes,
    /// Everything.
    All,
    /// Nothing.
    None,
}

/// One accepted prefix and the lengths under it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImportPrefix {
    /// The covering prefix, host bits zero.
    #[schemars(regex(pattern = pattern::cidr()))]
    pub prefix: String,
    /// The shortest accepted length. Absent: the prefix's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 128))]
    pub min_length: Option<i32>,
    /// The longest accepted length. Absent: the prefix's own, or `minLength` where that is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 128))]
    pub max_length: Option<i32>,
}

fn one_hop() -> i32 {
    1
}
