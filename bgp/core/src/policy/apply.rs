// SPDX-License-Identifier: Apache-2.0
//! Making a policy's changes.

use bgp_wire::PathAttributes;
use router_types::Asn;

use super::model::{AnyCommunity, Change, CommunityKind, NextHopChange};

/// Makes changes in their order.
pub(super) fn apply<'a>(
    changes: impl Iterator<Item = &'a Change>,
    mut attributes: PathAttributes,
    local_asn: Asn,
) -> (PathAttributes, Option<NextHopChange>) {
    let mut next_hop = None;
    for change in changes {
        match change {
            Change::LocalPref(value) => attributes.local_pref = Some(*value),
            Change::Med(value) => attributes.med = Some(*value),
            Change::AddMed(value) => {
                attributes.med = Some(attributes.med.unwrap_or(0).saturating_add(*value));
            }
            Change::SubtractMed(value) => {
                attributes.med = Some(attributes.med.unwrap_or(0).saturating_sub(*value));
            }
            Change::RemoveMed => attributes.med = None,
            Change::ClearCommunities(kind) => match kind {
                CommunityKind::Standard => attributes.communities.clear(),
                CommunityKind::Large => attributes.large_communities.clear(),
                CommunityKind::Extended => attributes.extended_communities.clear(),
            },
            Change::RemoveCommunities(patterns) => {
                let kept = &mut attributes.communities;
                kept.retain(|c| !patterns.iter().any(|p| p.matches(*c)));
                let kept = &mut attributes.large_communities;
                kept.retain(|c| !patterns.iter().any(|p| p.matches_large(*c)));
                let kept = &mut attributes.extended_communities;
                kept.retain(|c| !patterns.iter().any(|p| p.matches_extended(*c)));
            }
            Change::AddCommunities(added) => {
                for community in added {
                    match community {
                        AnyCommunity::Standard(c) => add(&mut attributes.communities, *c),
                        AnyCommunity::Large(c) => add(&mut attributes.large_communities, *c),
                        AnyCommunity::Extended(c) => add(&mut attributes.extended_communities, *c),
                    }
                }
            }
            Change::Prepend(asns) => {
                for asn in asns.iter().rev() {
                    prepend(&mut attributes, *asn, 1);
                }
            }
            Change::PrependOwn(times) => prepend(&mut attributes, local_asn, (*times).into()),
            Change::NextHop(change) => next_hop = Some(*change),
            Change::Origin(origin) => attributes.origin = Some(*origin),
        }
    }
    (attributes, next_hop)
}

/// Adds to a sorted list without duplicates.
fn add<T: Ord + Copy>(list: &mut Vec<T>, value: T) {
    if let Err(at) = list.binary_search(&value) {
        list.insert(at, value);
    }
}

fn prepend(attributes: &mut PathAttributes, asn: Asn, times: usize) {
    let path = attributes.as_path.get_or_insert_default();
    path.prepend(asn, times);
}
