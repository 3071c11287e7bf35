//! Routes as the subsystems hand them to the RIB and the RIB to the kernel.

use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use ipnet::IpNet;

/// A kernel routing table (`RTA_TABLE`). 254 is `main`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TableId(pub u32);

impl TableId {
    /// The kernel's `main` table.
    pub const MAIN: TableId = TableId(254);
}

/// A network device's index in its namespace. Indexes repeat between namespaces and are reused
/// after a device is gone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkIndex(pub u32);

/// Who offers a route. The order is the order of preference when several offer the same prefix:
/// what the node itself owns first, what it merely heard last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RouteSource {
    /// This node's own pods, addresses and prefixes.
    Local,
    /// Written by the operator.
    Static,
    /// A node of this or a meshed cluster.
    Mesh,
    /// Learned from an external BGP peer.
    Ebgp,
    /// Learned from an internal BGP peer.
    Ibgp,
}

impl fmt::Display for RouteSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RouteSource::Local => "local",
            RouteSource::Static => "static",
            RouteSource::Mesh => "mesh",
            RouteSource::Ebgp => "ebgp",
            RouteSource::Ibgp => "ibgp",
        })
    }
}

/// One way towards a destination.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NextHop {
    /// The router to hand the packet to; `None` for a destination on the link itself. May be of
    /// another family than the destination (RFC 8950).
    pub via: Option<IpAddr>,
    /// The device to leave by. `None`: the one by which `via` resolves. Always set for a
    /// link-local `via`.
    pub link: Option<LinkIndex>,
    /// Share among the next hops of one route, 1 to 256.
    pub weight: u16,
}

/// What a route is for: the table and the destination.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RouteKey {
    /// The table it belongs to.
    pub table: TableId,
    /// The destination, host bits zero.
    pub prefix: IpNet,
}

/// What happens to a packet that matches a route.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Forwarding {
    /// Handed to one of these. At least one; sorted and free of duplicates, so that equal routes
    /// compare equal.
    Via(Vec<NextHop>),
    /// Dropped with an ICMP "destination unreachable": the part of an own prefix nobody holds,
    /// which must not leave by the default route and come back.
    Unreachable,
    /// Dropped without a word: the owner of the destination asked for it (RFC 7999).
    Blackhole,
}

/// A route: where packets for a destination go, and who says so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// Table and destination.
    pub key: RouteKey,
    /// Who offers it.
    pub source: RouteSource,
    /// What happens to the packets.
    pub forwarding: Forwarding,
}
