// SPDX-License-Identifier: Apache-2.0
//! Routes of the node itself, as neighbours are told about them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bgp_wire::{AsPath, Community, LargeCommunity, Origin, PathAttributes};
use ipnet::IpNet;

use super::group::View;
use super::{GroupKey, PeerId, Target};
use crate::config::{ExportAttributes, LocalRoute, PeerName};

/// What each neighbour is told, neighbours that are told the same sharing it.
pub(super) fn views(
    locals: &BTreeMap<IpNet, LocalRoute>,
    ids: &BTreeMap<PeerName, PeerId>,
) -> BTreeMap<PeerId, Arc<View>> {
    let mut distinct: Vec<Arc<View>> = Vec::new();
    let mut views = BTreeMap::new();
    for (name, &id) in ids {
        let told = |(prefix, route): (&IpNet, &LocalRoute)| {
            route
                .peers
                .get(name)
                .map(|attributes| (*prefix, attributes.clone()))
        };
        let view: View = locals.iter().filter_map(told).collect();
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
pub(super) fn attributes(told: &ExportAttributes, key: &GroupKey) -> PathAttributes {
    let internal = key.target != Target::External;
    PathAttributes {
        origin: Some(Origin::Igp),
        as_path: Some(AsPath::default()),
        // RFC 4271 §5.1.5: to internal neighbours always, to external ones never.
        local_pref: internal.then(|| told.local_pref.unwrap_or(100)),
        communities: told.communities.iter().copied().map(Community).collect(),
        large_communities: told
            .large_communities
            .iter()
            .map(|&(global, local_1, local_2)| LargeCommunity::new(global, local_1, local_2))
            .collect(),
        ..PathAttributes::default()
    }
}
