//! The vocabulary two or more groups share: AS numbers and patterns over paths of them, router
//! identifiers, address families, routes and next hops.
//!
//! Nouns only. No sockets, no clocks, no I/O; `no_std` with `alloc`, so that codecs, cores and
//! eBPF tests can use it. A noun used by one group alone stays in that group.

#![no_std]
extern crate alloc;

mod as_path_pattern;
mod asn;
mod family;
mod route;

pub use as_path_pattern::{
    AS_PATH_ALPHABET, AsPathPattern, AsPathPatternError, AsPathSymbols, AsPathTree, MAX_PATTERN,
};
pub use asn::{Asn, AsnParseError};
pub use family::{Afi, Family, Safi};
pub use ipnet::{IpNet, Ipv4Net, Ipv6Net};
pub use route::{Forwarding, LinkIndex, NextHop, Route, RouteKey, RouteSource, TableId};
