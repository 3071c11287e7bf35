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

/// Adds what a speaker that honours BLACKHOLE adds before it hands the route on
/// (RFC 7999 §3.2): NO_EXPORT, unless NO_ADVERTISE is there, so that it stays in this AS.
pub fn contain_blackhole(attributes: &mut PathAttributes) {
    if has(attributes, Community::BLACKHOLE) && !has(attributes, Community::NO_ADVERTISE) {
        add(attributes, Community::NO_EXPORT);
    }
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
