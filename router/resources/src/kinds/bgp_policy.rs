// SPDX-License-Identifier: Apache-2.0
//! `BGPPolicy` of `causeway.io`: which routes are taken or sent, and what is changed in them.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{Afi, Safi};
use crate::pattern;

/// A routing policy: statements that are tried in their order. Peer configurations name it for
/// the import or the export of a family.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicySpec {
    /// The statements. All look at the route as it came to the policy, whatever earlier
    /// statements change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 128),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub statements: Vec<PolicyStatement>,
    /// What becomes of a route that no statement accepts or rejects.
    #[serde(default)]
    pub default_action: PolicyDefault,
}

/// One statement of a policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.action != 'Reject' || !has(self.set)",
    "message": "set is not allowed with action Reject"
}]))]
pub struct PolicyStatement {
    /// Its name, unique in the policy.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// What a route must be, all of it. Absent: any route.
    #[serde(rename = "match", default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<PolicyMatch>,
    /// What is changed in a route that is accepted in the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<PolicySet>,
    /// What happens to a route that matches.
    pub action: PolicyAction,
}

/// What happens to a route that a statement matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PolicyAction {
    /// It is taken, or sent.
    Accept,
    /// It is not.
    Reject,
    /// The changes are noted, and the next statement is tried.
    Continue,
}

/// What becomes of a route in the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PolicyDefault {
    /// It is taken, or sent.
    Accept,
    /// It is not.
    #[default]
    Reject,
}

/// What a route must be. Every field given must hold; a list holds when one of its entries does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyMatch {
    /// The destination is one of these, or under one of them within lengths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub prefixes: Option<Vec<PolicyPrefix>>,
    /// The address family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    pub families: Option<Vec<PolicyFamily>>,
    /// Regular expressions over the AS path as text, `65001 65002 {65003,65004}`. `_` is a space,
    /// comma or bracket, or the beginning or end of the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), inner(length(min = 1, max = 256)))]
    pub as_paths: Option<Vec<String>>,
    /// The length of the AS path; an AS_SET counts one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_path_length: Option<PolicyNumbers>,
    /// The last AS of the path, in which the route began.
    #[serde(
        rename = "originASNs",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(length(min = 1, max = 1024))]
    pub origin_asns: Option<Vec<AsnRange>>,
    /// The first AS of the path.
    #[serde(
        rename = "neighborASNs",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(length(min = 1, max = 1024))]
    pub neighbor_asns: Option<Vec<AsnRange>>,
    /// The AS of the peer the policy is used for.
    #[serde(rename = "peerASNs", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub peer_asns: Option<Vec<AsnRange>>,
    /// The communities of the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub communities: Option<PolicyCommunityMatch>,
    /// The next hop as announced is one of these addresses, or in one of these prefixes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 1024),
        inner(regex(pattern = pattern::address_or_cidr()))
    )]
    pub next_hops: Option<Vec<String>>,
    /// The ORIGIN attribute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 3))]
    pub origins: Option<Vec<PolicyOrigin>>,
    /// LOCAL_PREF; a route without it has 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_preference: Option<PolicyNumbers>,
    /// MULTI_EXIT_DISC; a route without it has 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub med: Option<PolicyNumbers>,
    /// Where the route comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    pub sources: Option<Vec<PolicySource>>,
    /// The names of peers the route was learned from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), inner(length(min = 1)))]
    pub peers: Option<Vec<String>>,
}

/// A prefix and the lengths under it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyPrefix {
    /// The covering prefix, host bits zero.
    #[schemars(regex(pattern = pattern::cidr()))]
    pub prefix: String,
    /// The shortest length that matches. Absent: the prefix's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 128))]
    pub min_length: Option<i32>,
    /// The longest length that matches. Absent: the prefix's own, or `minLength` where that is
    /// given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 128))]
    pub max_length: Option<i32>,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyFamily {
    /// Address family.
    pub afi: Afi,
    /// Subsequent address family.
    pub safi: Safi,
}

/// Numbers from one to another, both included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyNumbers {
    /// The least number. Absent: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub min: Option<i64>,
    /// The greatest number. Absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub max: Option<i64>,
}

/// An AS number, `65001`, or a range of them, `64512-65534`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AsnRange {
    /// One.
    Number(i64),
    /// One or a range.
    Text(String),
}

impl AsnRange {
    /// The least and the greatest number, as written; `None` for what is neither.
    pub fn bounds(&self) -> Option<(u32, u32)> {
        match self {
            AsnRange::Number(number) => {
                let number = u32::try_from(*number).ok()?;
                Some((number, number))
            }
            AsnRange::Text(text) => {
                let (min, max) = text.split_once('-').unwrap_or((text, text));
                Some((min.parse().ok()?, max.parse().ok()?))
            }
        }
    }
}

impl JsonSchema for AsnRange {
    fn schema_name() -> Cow<'static, str> {
        "AsnRange".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "An AS number, 65001, or a range of them, 64512-65534.",
            "x-kubernetes-int-or-string": true,
            "minimum": 0,
            "maximum": 4_294_967_295_i64,
            "pattern": pattern::asn_range(),
        })
    }
}

/// What a route's communities must be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyCommunityMatch {
    /// The route has at least one of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub any: Option<PolicyCommunityPatterns>,
    /// The route has each of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<PolicyCommunityPatterns>,
    /// The route has none of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub none: Option<PolicyCommunityPatterns>,
}

/// Communities, with ranges and wildcards.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyCommunityPatterns {
    /// RFC 1997: `65000:100`, `65000:100-199`, `65000:*`, or a well-known name such as `no-export`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 1024),
        inner(regex(pattern = pattern::standard_community_pattern()))
    )]
    pub standard: Vec<String>,
    /// RFC 8092: `65000:1:2`, `65000:1:*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 1024),
        inner(regex(pattern = pattern::large_community_pattern()))
    )]
    pub large: Vec<String>,
    /// RFC 4360: `rt:65000:100`, `rt:65000:*`, `soo:192.0.2.1:7`, or the first octets, `0x4004*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 1024),
        inner(regex(pattern = pattern::extended_community_pattern()))
    )]
    pub extended: Vec<String>,
}

impl PolicyCommunityPatterns {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.standard.len() + self.large.len() + self.extended.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The ORIGIN attribute (RFC 4271 §5.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PolicyOrigin {
    /// Inside its AS.
    Igp,
    /// From the EGP protocol.
    Egp,
    /// Otherwise.
    Incomplete,
}

/// Where a route comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PolicySource {
    /// A pod prefix of this node.
    #[serde(rename = "PodCIDR")]
    PodCidr,
    /// A prefix this node holds of a CiliumPodIPPool.
    #[serde(rename = "CiliumPodIPPool")]
    PodIpPool,
    /// An address of a service.
    Service,
    /// An address of an interface.
    Interface,
    /// An aggregate this node makes of other routes.
    Aggregate,
    /// A peer in another AS.
    #[serde(rename = "EBGP")]
    Ebgp,
    /// A peer in this AS.
    #[serde(rename = "IBGP")]
    Ibgp,
}

/// What is changed in a route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicySet {
    /// LOCAL_PREF. Sent to internal peers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub local_preference: Option<i64>,
    /// MULTI_EXIT_DISC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub med: Option<PolicyMed>,
    /// The communities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub communities: Option<PolicyCommunities>,
    /// What is put in front of the AS path, before the AS number every external session adds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_path_prepend: Option<PolicyPrepend>,
    /// The next hop. Absent: the rule of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<PolicyNextHop>,
    /// ORIGIN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<PolicyOrigin>,
}

/// What becomes of MULTI_EXIT_DISC. Exactly one field is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.value), has(self.add), has(self.subtract), has(self.remove)].filter(x, x).size() == 1",
    "message": "exactly one of value, add, subtract, remove is required"
}]))]
pub struct PolicyMed {
    /// It becomes this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub value: Option<i64>,
    /// It grows by this, to 4294967295 at most. A route without it has 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub add: Option<i64>,
    /// It shrinks by this, to 0 at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub subtract: Option<i64>,
    /// It is removed; only `true` makes sense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove: Option<bool>,
}

/// What becomes of the communities, by kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyCommunities {
    /// RFC 1997.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standard: Option<StandardChange>,
    /// RFC 8092.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub large: Option<LargeChange>,
    /// RFC 4360.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended: Option<ExtendedChange>,
}

/// What becomes of standard communities: first `replace`, then `remove`, then `add`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StandardChange {
    /// All are removed and these are there instead. An empty list removes all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 256),
        inner(regex(pattern = pattern::named_community()))
    )]
    pub replace: Option<Vec<String>>,
    /// Those that match are removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        inner(regex(pattern = pattern::standard_community_pattern()))
    )]
    pub remove: Vec<String>,
    /// These are added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        inner(regex(pattern = pattern::named_community()))
    )]
    pub add: Vec<String>,
}

/// What becomes of large communities: first `replace`, then `remove`, then `add`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LargeChange {
    /// All are removed and these are there instead. An empty list removes all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 256),
        inner(regex(pattern = pattern::large_community()))
    )]
    pub replace: Option<Vec<String>>,
    /// Those that match are removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        inner(regex(pattern = pattern::large_community_pattern()))
    )]
    pub remove: Vec<String>,
    /// These are added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        inner(regex(pattern = pattern::large_community()))
    )]
    pub add: Vec<String>,
}

/// What becomes of extended communities: first `replace`, then `remove`, then `add`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExtendedChange {
    /// All are removed and these are there instead. An empty list removes all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 256),
        inner(regex(pattern = pattern::extended_community()))
    )]
    pub replace: Option<Vec<String>>,
    /// Those that match are removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        inner(regex(pattern = pattern::extended_community_pattern()))
    )]
    pub remove: Vec<String>,
    /// These are added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        inner(regex(pattern = pattern::extended_community()))
    )]
    pub add: Vec<String>,
}

/// What is put in front of the AS path. Exactly one field is given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.count) != has(self.asns)",
    "message": "exactly one of count and asns is required"
}]))]
pub struct PolicyPrepend {
    /// The own AS number, this many times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub count: Option<i32>,
    /// These AS numbers, the first one foremost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 64),
        inner(range(min = 1, max = 4_294_967_295_i64))
    )]
    pub asns: Option<Vec<i64>>,
}

/// What becomes of the next hop. Exactly one field is given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.address) != has(self.mode)",
    "message": "exactly one of address and mode is required"
}]))]
pub struct PolicyNextHop {
    /// It becomes this address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = pattern::address()))]
    pub address: Option<String>,
    /// It becomes this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<PolicyNextHopMode>,
}

/// What a next hop becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PolicyNextHopMode {
    /// This end of the session. Export only.
    #[serde(rename = "Self")]
    Own,
    /// What was received, even towards another AS.
    Unchanged,
}
