// SPDX-License-Identifier: Apache-2.0
//! Routes of the node itself, and what each neighbour is told about them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use router_types::Family;
use serde::{Deserialize, Serialize};

use super::PeerName;
use crate::policy::RouteOrigin;
use crate::serial;

/// Attributes added to a local route for one neighbour.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct ExportAttributes {
    /// Communities (RFC 1997), well-known ones included, as their 32-bit values.
    pub communities: BTreeSet<u32>,
    /// Large communities (RFC 8092): global administrator and two local parts.
    pub large_communities: BTreeSet<(u32, u32, u32)>,
    /// Local preference, sent to internal neighbours only (RFC 4271 §5.1.5). `None` sends 100.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC (RFC 4271 §5.1.4). `None` sends none.
    #[serde(default)]
    pub med: Option<u32>,
    /// Where the route comes from, for policies.
    #[serde(default)]
    pub source: RouteOrigin,
}

/// A prefix this node originates, with this end of each session as next hop.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LocalRoute {
    #[serde(with = "serial::text")]
    prefix: IpNet,
    /// Who is told, and with which attributes. A neighbour that is not here is not told.
    pub peers: BTreeMap<PeerName, ExportAttributes>,
}

impl LocalRoute {
    /// A route for a prefix (host bits are dropped) that nobody is told about yet.
    pub fn new(prefix: IpNet) -> LocalRoute {
        LocalRoute {
            prefix: prefix.trunc(),
            peers: BTreeMap::new(),
        }
    }

    /// The destination.
    pub fn prefix(&self) -> IpNet {
        self.prefix
    }

    /// The family the destination belongs to.
    pub fn family(&self) -> Family {
        family_of(&self.prefix)
    }
}

/// All local routes of an instance, by prefix. Built with [`LocalRoutes::add`], which unites
/// what several advertisements say about one prefix.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LocalRoutes(Vec<LocalRoute>);

impl LocalRoutes {
    /// Tells a neighbour about a prefix. Said twice, communities are united, the higher local
    /// preference and the first MULTI_EXIT_DISC count, and the source is the first in the order of [`RouteOrigin`].
    pub fn add(&mut self, prefix: IpNet, peer: PeerName, attributes: ExportAttributes) {
        let prefix = prefix.trunc();
        let at = match self.0.binary_search_by_key(&prefix, LocalRoute::prefix) {
            Ok(at) => at,
            Err(at) => {
                self.0.insert(at, LocalRoute::new(prefix));
                at
            }
        };
        match self.0[at].peers.entry(peer) {
            Entry::Vacant(place) => {
                place.insert(attributes);
            }
            Entry::Occupied(mut place) => {
                let known = place.get_mut();
                known.communities.extend(attributes.communities);
                known.large_communities.extend(attributes.large_communities);
                known.local_pref = known.local_pref.max(attributes.local_pref);
                known.med = known.med.or(attributes.med);
                known.source = known.source.min(attributes.source);
            }
        }
    }

    /// The same, with each neighbour of a listen range told what the range is told.
    #[must_use]
    pub fn with_members<'a>(
        &self,
        members: impl IntoIterator<Item = (&'a PeerName, &'a PeerName)>,
    ) -> LocalRoutes {
        let members: Vec<(&PeerName, &PeerName)> = members.into_iter().collect();
        let mut all = self.clone();
        for route in &mut all.0 {
            for (neighbour, range) in &members {
                if let Some(told) = route.peers.get(*range).cloned() {
                    route.peers.insert((*neighbour).clone(), told);
                }
            }
        }
        all
    }

    /// The routes in the order of their prefixes.
    pub fn iter(&self) -> impl Iterator<Item = &LocalRoute> {
        self.0.iter()
    }

    /// How many prefixes there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The unicast family of a prefix.
pub(crate) fn family_of(prefix: &IpNet) -> Family {
    match prefix {
        IpNet::V4(_) => Family::IPV4_UNICAST,
        IpNet::V6(_) => Family::IPV6_UNICAST,
    }
}
