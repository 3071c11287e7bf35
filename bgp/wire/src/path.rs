// SPDX-License-Identifier: Apache-2.0
//! The attributes that describe a path, apart from where it leads and what it reaches.

use alloc::vec::Vec;
use core::fmt;
use core::net::Ipv4Addr;

use router_types::Asn;

use crate::as_path::AsPath;
use crate::attribute::{AttributeCode, AttributeFlags, RawAttribute};
use crate::community::{Community, ExtendedCommunity, LargeCommunity};
use crate::fault::Fault;

mod canonical;
mod decode;
mod encode;

/// How a route came into BGP (RFC 4271 §5.1.1). The order is the order of preference.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Origin {
    /// Inside its AS.
    Igp = 0,
    /// From the EGP protocol; historical.
    Egp = 1,
    /// Otherwise, mostly redistributed.
    Incomplete = 2,
}

impl Origin {
    /// The origin of this code.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Origin::Igp),
            1 => Some(Origin::Egp),
            2 => Some(Origin::Incomplete),
            _ => None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Igp => "igp",
            Origin::Egp => "egp",
            Origin::Incomplete => "incomplete",
        })
    }
}

/// Who aggregated a route (RFC 4271 §5.1.7).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Aggregator {
    /// Its AS.
    pub asn: Asn,
    /// Its BGP identifier.
    pub router_id: Ipv4Addr,
}

/// An optional transitive attribute this speaker does not read and hands on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OpaqueAttribute {
    /// Its flags; Partial is set, as RFC 4271 §5 demands of a speaker that hands it on.
    pub flags: AttributeFlags,
    /// Its type.
    pub code: AttributeCode,
    /// Its value.
    pub value: Vec<u8>,
}

/// The attributes of a path without NEXT_HOP, MP_REACH_NLRI and MP_UNREACH_NLRI, so that paths
/// that differ only in next hop and prefixes share one set.
///
/// Lists of communities are sorted and free of duplicates: they are sets.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct PathAttributes {
    /// Mandatory in announcements.
    pub origin: Option<Origin>,
    /// Mandatory in announcements; may be empty. AS4_PATH is already merged into it.
    pub as_path: Option<AsPath>,
    /// MULTI_EXIT_DISC: lower is preferred among paths of one neighbour AS.
    pub med: Option<u32>,
    /// LOCAL_PREF: higher is preferred; inside the AS only.
    pub local_pref: Option<u32>,
    /// The route was aggregated and lost path information.
    pub atomic_aggregate: bool,
    /// Who aggregated it. AS4_AGGREGATOR is already merged into it.
    pub aggregator: Option<Aggregator>,
    /// Standard communities.
    pub communities: Vec<Community>,
    /// Who brought a reflected route into the AS.
    pub originator_id: Option<Ipv4Addr>,
    /// Clusters a reflected route has passed, latest first.
    pub cluster_list: Vec<Ipv4Addr>,
    /// Extended communities.
    pub extended_communities: Vec<ExtendedCommunity>,
    /// Large communities.
    pub large_communities: Vec<LargeCommunity>,
    /// ONLY_TO_CUSTOMER (RFC 9234 §5).
    pub only_to_customer: Option<Asn>,
    /// PREFIX_SID as received, checked only to be a list of TLVs. RFC 8669 §5: whoever does not
    /// expect it from this peer ignores it.
    pub prefix_sid: Option<Vec<u8>>,
    /// Everything else that is transitive, by ascending type.
    pub opaque: Vec<OpaqueAttribute>,
}

/// The result of reading path attributes: what could be read, and what was wrong.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DecodedAttributes {
    /// What could be read. A malformed attribute is absent.
    pub attributes: PathAttributes,
    /// What was wrong, in the order found. Empty for nearly every message.
    pub faults: Vec<Fault>,
}

impl OpaqueAttribute {
    fn raw(&self) -> RawAttribute<'_> {
        RawAttribute {
            flags: self.flags,
            code: self.code,
            value: &self.value,
        }
    }
}
