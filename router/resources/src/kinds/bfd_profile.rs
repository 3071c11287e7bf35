// SPDX-License-Identifier: Apache-2.0
//! `BFDProfile` of `causeway.io`: how fast failures of a path to a peer are found.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ObjectRef;

/// How BFD sessions run (RFC 5880 to 5883). Peer configurations name it in `bfdProfileRef`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BfdProfileSpec {
    /// How often the peer may send, in milliseconds. The slower of this and what the peer wants to
    /// send is used.
    #[serde(default = "default_interval")]
    #[schemars(range(min = 10, max = 60_000))]
    pub receive_interval_milliseconds: i32,
    /// How often this end would like to send, in milliseconds.
    #[serde(default = "default_interval")]
    #[schemars(range(min = 10, max = 60_000))]
    pub transmit_interval_milliseconds: i32,
    /// Packets lost in a row that mean down.
    #[serde(default = "default_multiplier")]
    #[schemars(range(min = 1, max = 255))]
    pub detect_multiplier: i32,
    /// The lowest TTL that is accepted from a peer several hops away: 254 for one router between.
    /// A peer on the link must send 255, whatever stands here.
    #[serde(rename = "minimumTTL", default = "default_minimum_ttl")]
    #[schemars(range(min = 1, max = 255))]
    pub minimum_ttl: i32,
    /// Whether the peer has to speak first.
    #[serde(default)]
    pub passive: bool,
    /// The echo function, on links only. Absent: none are sent, and the peer is told not to send any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub echo: Option<BfdEcho>,
    /// How packets are authenticated. Absent: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<BfdAuthentication>,
}

/// The echo function: packets that the other end's forwarding returns, so that the path is tested
/// with the data plane and without the control plane of the other end. At least one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BfdEcho {
    /// How often the peer may send echo packets, in milliseconds, to have them returned. Absent: the
    /// peer is told not to send any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60_000))]
    pub receive_interval_milliseconds: Option<i32>,
    /// How often this end sends echo packets, in milliseconds, where the peer takes them; the slower
    /// of this and what the peer allows is used. Once some have come back, `detectMultiplier` lost in
    /// a row mean down, and control packets slow down to one a second. Absent: none are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60_000))]
    pub transmit_interval_milliseconds: Option<i32>,
}

/// How packets are authenticated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BfdAuthentication {
    /// The type.
    #[serde(rename = "type")]
    pub kind: BfdAuthType,
    /// The number both ends know the key by.
    #[serde(rename = "keyID")]
    #[schemars(range(min = 0, max = 255))]
    pub key_id: i32,
    /// The Secret whose `password` is the key, in the namespace of the other secrets of BGP: up to
    /// 16 octets, for SHA1 up to 20.
    pub secret_ref: ObjectRef,
}

/// The types of RFC 5880 §4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BfdAuthType {
    /// The key in clear.
    SimplePassword,
    /// MD5.
    KeyedMD5,
    /// MD5, a number in each packet counted up.
    MeticulousKeyedMD5,
    /// SHA1.
    KeyedSHA1,
    /// SHA1, a number in each packet counted up.
    MeticulousKeyedSHA1,
}

fn default_interval() -> i32 {
    300
}

fn default_multiplier() -> i32 {
    3
}

fn default_minimum_ttl() -> i32 {
    254
}
