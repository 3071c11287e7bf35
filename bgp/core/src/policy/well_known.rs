// SPDX-License-Identifier: Apache-2.0
//! What well-known communities and RFC 8212 ask for, whatever the policies say.

use bgp_wire::{Community, PathAttributes, PeerKind};
use serde::{Deserialize, Serialize};

use super::model::Verdict;

/// Whether external neighbours without a policy exchange routes (RFC 8212).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum WithoutPolicy {
    /// As RFC 8212 demands: without an import policy nothing is taken from an external neighbour,
    /// without an export policy nothing is sent to it.
    Denied,
    /// What the other settings say goes.
    #[default]
    Allowed,
}

impl WithoutPolicy {
    /// What becomes of the routes of a direction that has no policy (RFC 8212 §3). It is about
    /// external neighbours only.
    pub fn verdict(self, peer: PeerKind) -> Verdict {
        match (self, peer) {
            (WithoutPolicy::Denied, PeerKind::External) => Verdict::Reject,
            (WithoutPolicy::Denied | WithoutPolicy::Allowed, _) => Verdict::Accept,
        }
    }
}

/// What is done on import for GRACEFUL_SHUTDOWN: LOCAL_PREF 0, so that every other path is
/// preferred while this one still works (RFC 8326 §4.1). Made after the import policy, which must
/// not raise it again. Returns whether the community is there.
pub fn lower_on_graceful_shutdown(attributes: &mut PathAttributes) -> bool {
    let is_leaving = has(attributes, Community::GRACEFUL_SHUTDOWN);
    if is_leaving {
        attributes.local_pref = Some(0);
    }
    is_leaving
}

/// Marks what is announced while this speaker is about to leave (RFC 8326 §4.2): the community,
/// and inside the AS the lowest LOCAL_PREF beside it.
pub fn mark_graceful_shutdown(attributes: &mut PathAttributes, peer: PeerKind) {
    add(attributes, Community::GRACEFUL_SHUTDOWN);
    if peer != PeerKind::External {
        attributes.local_pref = Some(0);
    }
}

/// Whether traffic to the route is to be dropped (RFC 7999 §3.3): it asks for it. Whoever honours
/// this must have agreed it with the neighbour, and must not take it for more than the neighbour's
/// own prefixes; both are the import policy's work.
pub fn asks_for_blackhole(attributes: &PathAttributes) -> bool {
    has(attributes, Community::BLACKHOLE)
}

/// Adds what a speaker that honours BLACKHOLE adds before it hands the route on
/// (RFC 7999 §3.2): NO_EXPORT, unless NO_ADVERTISE is there, so that it stays in this AS.
pub fn contain_blackhole(attributes: &mut PathAttributes) {
    if asks_for_blackhole(attributes) && !has(attributes, Community::NO_ADVERTISE) {
        add(attributes, Community::NO_EXPORT);
    }
}

/// Whether a route may go to a neighbour as far as its communities have a say: NO_ADVERTISE to
/// nobody, NO_EXPORT and NO_EXPORT_SUBCONFED not to another AS (RFC 1997), NO_PEER not to a
/// bilateral peer (RFC 3765 §2).
pub fn may_advertise(attributes: &PathAttributes, peer: PeerKind, relation: Relation) -> bool {
    let to_other_as = peer == PeerKind::External;
    let to_other_member = peer != PeerKind::Internal;
    let to_bilateral = to_other_as && relation == Relation::BilateralPeer;
    let obstacles = [
        (true, Community::NO_ADVERTISE),
        (to_other_as, Community::NO_EXPORT),
        (to_other_member, Community::NO_EXPORT_SUBCONFED),
        (to_bilateral, Community::NO_PEER),
    ];
    let is_stopped =
        |(applies, community): &(bool, Community)| *applies && has(attributes, *community);
    !obstacles.iter().any(is_stopped)
}

/// What a neighbour is to this AS, as far as NO_PEER cares.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Relation {
    /// A bilateral peer: role `peer` of RFC 9234.
    BilateralPeer,
    /// A provider, a customer, a route server, or unknown.
    #[default]
    Other,
}

fn has(attributes: &PathAttributes, community: Community) -> bool {
    attributes.communities.contains(&community)
}

/// Adds to the sorted list, once.
fn add(attributes: &mut PathAttributes, community: Community) {
    if let Err(at) = attributes.communities.binary_search(&community) {
        attributes.communities.insert(at, community);
    }
}
