// SPDX-License-Identifier: Apache-2.0
//! What a neighbour was told, for a process that goes on with its session.

use bgp_wire::Nlri;
use router_types::Family;

use super::{Exports, PeerId, Sources, Transmit};
use crate::rib::keys::DestId;
use crate::rib::neighbour::SessionFamily;

impl Exports {
    /// The routes of a table a neighbour is told, with path identifiers; none where it is not up.
    pub(in crate::rib) fn told(
        &self,
        peer: PeerId,
        slot: usize,
        from: &Sources<'_>,
    ) -> Vec<(DestId, u32)> {
        let member = self.members.get(&peer);
        let group = member.and_then(|member| self.groups.get(&member.group));
        group.map_or_else(Vec::new, |group| group.told(peer, slot, from))
    }

    /// Whether a neighbour is told a route.
    pub(in crate::rib) fn is_told(
        &self,
        peer: PeerId,
        slot: usize,
        route: (DestId, u32),
        from: &Sources<'_>,
    ) -> bool {
        let member = self.members.get(&peer);
        let group = member.and_then(|member| self.groups.get(&member.group));
        group.is_some_and(|group| group.is_told(peer, slot, route, from))
    }

    /// Whether the routes of a family have path identifiers on the way to a neighbour.
    pub(in crate::rib) fn has_path_ids(&self, peer: PeerId, family: Family) -> bool {
        let outlet = self.key(peer).and_then(|key| key.outlet(family));
        outlet.is_some_and(|outlet| outlet.family.add_path_send)
    }

    /// Withdraws what a neighbour was told by the process before, behind all that waits for it.
    pub(in crate::rib) fn take_back(&mut self, peer: PeerId, nlri: Nlri<'_>) {
        let Some(key) = self.key(peer) else { return };
        let outlet = key.outlet(nlri.family());
        let alike = |family: &SessionFamily| family.add_path_send == nlri.has_path_ids();
        let Some(outlet) = outlet.filter(|outlet| alike(&outlet.family)) else {
            return;
        };
        let (context, max_len) = (outlet.family.context(), key.max_len);
        let mut bytes = Vec::new();
        let updates = bgp_wire::withdraw_nlri(&mut bytes, &context, max_len, nlri);
        if let Some(member) = self.members.get_mut(&peer)
            && updates > 0
        {
            member.push(Transmit {
                bytes: bytes.into(),
                updates: updates as u32,
                refreshes: 0,
            });
        }
    }
}
