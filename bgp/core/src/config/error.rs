// SPDX-License-Identifier: Apache-2.0
//! Why a configuration is refused, in words that say what to write instead.

use std::net::IpAddr;

use router_types::Family;

use super::{PeerAddress, PeerName};

/// Why a configuration is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// AS 0 names nobody (RFC 7607).
    #[error("local AS 0 is reserved: use 1 to 4294967295")]
    LocalAsnZero,
    /// RFC 6286 §2.1: the identifier is any non-zero number.
    #[error("router id 0.0.0.0 is reserved: use the node's IPv4 address or any other number")]
    RouterIdZero,
    /// Two neighbours of one instance have the same address and port.
    #[error(
        "peers {first} and {second} both are {address}: an instance has one session with an address"
    )]
    DuplicateAddress {
        /// The neighbour that was there.
        first: PeerName,
        /// The neighbour that was added.
        second: PeerName,
        /// The address both have.
        address: PeerAddress,
    },
    /// Two neighbours of one instance have the same name.
    #[error("peer {0} is there twice: names are unique in an instance")]
    DuplicateName(PeerName),
    /// RFC 4271 §4.2: a hold time is zero or at least three seconds.
    #[error("hold time {0} s: use 0 (no keepalives) or 3 to 65535 s")]
    HoldTime(u64),
    /// Keepalives slower than the hold time would end every session.
    #[error("keepalive {keepalive} s is longer than hold time {hold} s: use at most a third of it")]
    KeepaliveTime {
        /// The keepalive interval asked for, in seconds.
        keepalive: u64,
        /// The hold time it must fit into, in seconds.
        hold: u64,
    },
    /// A retry timer of zero would dial without pause.
    #[error("connect retry time {0} s: use 1 to 2147483647 s")]
    ConnectRetryTime(u64),
    /// RFC 2385 and the kernel's `TCP_MD5SIG_MAXKEYLEN`.
    #[error("MD5 password of {0} bytes: use 1 to 80")]
    Md5Length(usize),
    /// A link-local address means nothing without its link.
    #[error("peer address {0} is link-local: write the interface behind it, such as fe80::1%eth0")]
    ZoneMissing(IpAddr),
    /// An address that no neighbour can have.
    #[error("peer address {0} is not the address of a neighbour: use a unicast address")]
    NotUnicast(IpAddr),
    /// A session without a family carries nothing.
    #[error("no address family: a session needs at least one, such as ipv4/unicast")]
    NoFamily,
    /// A family this speaker does not carry.
    #[error(
        "family {0} is not carried: use ipv4 or ipv6 with unicast, mpls_vpn or route_target_constraints"
    )]
    FamilyNotCarried(Family),
    /// A route target that is none.
    #[error("route target '{0}': write rt:65000:100, or an IPv4 address in place of the AS number")]
    RouteTarget(String),
    /// A prefix range whose lengths contradict each other.
    #[error(
        "prefix range {prefix} lengths {min} to {max}: use {len} <= minimum <= maximum <= {bits}"
    )]
    PrefixRange {
        /// The prefix the range is under.
        prefix: ipnet::IpNet,
        /// The shortest length asked for.
        min: u8,
        /// The longest length asked for.
        max: u8,
        /// The prefix's own length.
        len: u8,
        /// The address width.
        bits: u8,
    },
    /// The TTL leaves no hop.
    #[error("multihop TTL 0: use 1 (a neighbour on the link) to 255")]
    TtlZero,
    /// RFC 4724 §3: the restart time has twelve bits.
    #[error("graceful restart time {0} s: use 1 to 4095 s")]
    RestartTime(u16),
    /// `TCP_MAXSEG` takes 88 to 32767.
    #[error("TCP MSS {0}: use 88 to 32767 octets")]
    TcpMss(u16),
    /// RFC 9687 §4: a send hold time below the hold time would end sessions that are fine.
    #[error("send hold time {send_hold} s is below the hold time of {hold} s: use at least that")]
    SendHoldTime {
        /// The send hold time asked for, in seconds.
        send_hold: u32,
        /// The hold time, in seconds.
        hold: u16,
    },
    /// RFC 9494 §4.1: the stale time has 24 bits.
    #[error("long-lived stale time {0} s: use 1 to 16777215 s")]
    StaleTime(u32),
    /// A limit of no route is no session.
    #[error("a limit of 0 prefixes: leave the family out instead")]
    PrefixLimitZero,
    /// A warning after the limit comes too late.
    #[error("a warning at {0} % of the limit: use 1 to 100")]
    WarningPercent(u8),
    /// An instance takes dynamic neighbours by calls only.
    #[error("listen range {0}: the instance listens nowhere; set its localPort")]
    RangeWithoutListening(String),
    /// A range without room.
    #[error("listen range {0}: a maximum of 0 neighbours")]
    RangeWithoutRoom(String),
    /// Two ranges of one instance have the same prefix.
    #[error("listen ranges {first} and {second} both are {prefix}")]
    DuplicateRange {
        /// The range that was there.
        first: String,
        /// The range that was added.
        second: String,
        /// The prefix both have.
        prefix: ipnet::IpNet,
    },
}
