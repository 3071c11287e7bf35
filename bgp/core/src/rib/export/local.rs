// SPDX-License-Identifier: Apache-2.0
//! Routes of the node itself, as neighbours are told about them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bgp_wire::{AsPath, Community, LargeCommunity, Origin, PathAttributes};
use ipnet::IpNet;

use super::group::View;
use super::{GroupKey, PeerId, Target};
use crate::config::{ExportAttributes, LocalRoute, PeerName};
use crate::policy::RouteOrigin;
use crate::rib::attributes::decode;

/// What a neighbour is told of a prefix of this node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Told {
    /// A local route, with what is added for the neighbour.
    Own(ExportAttributes),
    /// An aggregate, with its attributes in canonical form.
    Aggregate(Arc<[u8]>),
}

impl Told {
    /// Where it comes from, for policies.
    pub(super) fn origin(&self) -> RouteOrigin {
        match self {
            Told::Own(told) => told.source,
            Told::Aggregate(_) => RouteOrigin::Aggregate,
        }
    }
}

/// What each neighbour is told, neighbours that are told the same sharing it. All are told of
/// aggregates; a local route of the same prefix comes first.
pub(super) fn views(
    locals: &BTreeMap<IpNet, LocalRoute>,
    aggregates: &BTreeMap<IpNet, Arc<[u8]>>,
    ids: &BTreeMap<PeerName, PeerId>,
) -> BTreeMap<PeerId, Arc<View>> {
    let mut distinct: Vec<Arc<View>> = Vec::new();
    let mut views = BTreeMap::new();
    for (name, &id) in ids {
        let told = |(prefix, route): (&IpNet, &LocalRoute)| {
            route
                .peers
                .get(name)
                .map(|attributes| (*prefix, Told::Own(attributes.clone())))
        };
        let mut view: View = locals.iter().filter_map(told).collect();
        for (prefix, bytes) in aggregates {
            let told = || Told::Aggregate(bytes.clone());
            view.entry(*prefix).or_insert_with(told);
        }
        let shared = match distinct.iter().find(|other| ***other == view) {
            Some(shared) => shared.clone(),
            None => {
                distinct.push(Arc::new(view));
                distinct[distinct.len() - 1].clone()
            }
        };
        views.insert(id, shared);
    }
    views
}

/// The attributes a local route is announced with, before the own AS is put in front.
pub(super) fn attributes(told: &Told, key: &GroupKey) -> PathAttributes {
    let internal = key.target != Target::External;
    let told = match told {
        Told::Own(told) => told,
        Told::Aggregate(bytes) => {
            return PathAttributes {
                local_pref: internal.then_some(100),
                ..decode(bytes)
            };
        }
    };
    PathAttributes {
        origin: Some(Origin::Igp),
        as_path: Some(AsPath::default()),
        // RFC 4271 §5.1.5: to internal neighbours always, to external ones never.
        local_pref: internal.then(|| told.local_pref.unwrap_or(100)),
        med: told.med,
        communities: told.communities.iter().copied().map(Community).collect(),
        large_communities: told
            .large_communities
            .iter()
            .map(|&(global, local_1, local_2)| LargeCommunity::new(global, local_1, local_2))
            .collect(),
        ..PathAttributes::default()
    }
}

/// A local route as an aggregate takes it in: with the communities all who are told of it see.
pub(in crate::rib) fn contribution(route: &LocalRoute) -> PathAttributes {
    let mut told = route.peers.values();
    let mut common = told.next().cloned().unwrap_or_default();
    for other in told {
        common.communities.retain(|c| other.communities.contains(c));
        let large = &other.large_communities;
        common.large_communities.retain(|c| large.contains(c));
    }
    PathAttributes {
        origin: Some(Origin::Igp),
        as_path: Some(AsPath::default()),
        communities: common.communities.into_iter().map(Community).collect(),
        large_communities: common
            .large_communities
            .into_iter()
            .map(|(global, local_1, local_2)| LargeCommunity::new(global, local_1, local_2))
            .collect(),
        ..PathAttributes::default()
    }
}
