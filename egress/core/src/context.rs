// SPDX-License-Identifier: Apache-2.0
//! What every part of the decision looks at: the world, and what is found out about it once.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::elect::Claim;
use crate::number::Numbers;
use crate::rule::RuleNumber;
use crate::world::{Addresses, Group, PolicyId, World};

/// Who holds which rules at the moment, as their holders say.
pub type Claims = BTreeMap<RuleNumber, Claim>;

/// What every part of the decision looks at.
pub(crate) struct Context<'a> {
    pub(crate) world: &'a World,
    pub(crate) claims: &'a Claims,
    pub(crate) numbers: Numbers,
    /// The place of each policy in the order of precedence.
    pub(crate) places: BTreeMap<&'a PolicyId, usize>,
    /// The first policy and group, in order of precedence, of every held address.
    owners: BTreeMap<IpAddr, (&'a PolicyId, u32)>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(world: &'a World, claims: &'a Claims, numbers: Numbers) -> Self {
        let mut places = BTreeMap::new();
        let mut owners = BTreeMap::new();
        for (place, policy) in world.policies.iter().enumerate() {
            places.entry(&policy.id).or_insert(place);
            for (group, number) in policy.groups.iter().zip(0..) {
                for address in held(group) {
                    owners.entry(*address).or_insert((&policy.id, number));
                }
            }
        }
        Context {
            world,
            claims,
            numbers,
            places,
            owners,
        }
    }

    /// The policy that holds this address although another group wants it.
    pub(crate) fn other_owner(
        &self,
        address: IpAddr,
        policy: &PolicyId,
        group: u32,
    ) -> Option<&'a PolicyId> {
        let (owner, of) = self.owners.get(&address)?;
        (*owner != policy || *of != group).then_some(*owner)
    }

    /// Whether a group of any policy wants to hold this address.
    pub(crate) fn is_wanted(&self, address: IpAddr) -> bool {
        self.owners.contains_key(&address)
    }

    /// The zone of this node.
    pub(crate) fn zone(&self) -> Option<&'a str> {
        zone_of(self.world, &self.world.node)
    }
}

/// The held addresses of a group; none of any other kind.
pub(crate) fn held(group: &Group) -> &[IpAddr] {
    match &group.addresses {
        Addresses::Held { addresses, .. } => addresses,
        Addresses::DefaultRoute | Addresses::Interface(_) | Addresses::OnDevice(_) => &[],
    }
}

/// The zone of a node.
pub(crate) fn zone_of<'a>(world: &'a World, node: &str) -> Option<&'a str> {
    world.nodes.get(node)?.zone.as_deref()
}
