// SPDX-License-Identifier: Apache-2.0
//! What the configuration changes in routes on their way out, beyond what the protocol does.

use bgp_wire::{PathAttributes, PeerKind, Role};
use router_types::Asn;

use super::rewrite::Reflected;
use super::{Target, Withheld};
use crate::config::{LocalAs, PeerConfig, PrivateAs};
use crate::policy::well_known;
use crate::rib::attributes::Hot;
use crate::rib::neighbour::SessionInfo;

/// Changes to what a neighbour is sent. Neighbours with equal ones share a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::rib) struct Edit {
    /// The AS number this end has in the session.
    pub(in crate::rib) session_asn: Asn,
    /// Whether it is another one than the instance's, and what the paths then show.
    pub(in crate::rib) local_as: Option<LocalAs>,
    /// The neighbour's number, where it is replaced in paths.
    pub(in crate::rib) override_asn: Option<Asn>,
    pub(in crate::rib) private_as: PrivateAs,
    /// Whether everything is marked with GRACEFUL_SHUTDOWN (RFC 8326).
    pub(in crate::rib) graceful_shutdown: bool,
    /// The role this end has towards an external neighbour (RFC 9234).
    pub(in crate::rib) role: Option<Role>,
    /// Whether the neighbour knows long-lived stale routes (RFC 9494 §4.3).
    pub(in crate::rib) long_lived: bool,
}

/// The range for private use of numbers of two octets, and of four (RFC 6996 §5).
const PRIVATE: [std::ops::RangeInclusive<u32>; 2] =
    [64_512..=65_534, 4_200_000_000..=4_294_967_294];

impl Edit {
    /// What a neighbour's configuration and session ask for.
    pub(in crate::rib) fn new(
        peer: &PeerConfig,
        own_asn: Asn,
        session: &SessionInfo,
        graceful_shutdown: bool,
    ) -> Edit {
        let external = !session.internal;
        let session_asn = session.local_asn.unwrap_or(own_asn);
        Edit {
            session_asn,
            local_as: peer.local_as.filter(|_| session_asn != own_asn),
            override_asn: (peer.as_override && external).then_some(session.peer_asn),
            private_as: if external {
                peer.private_as
            } else {
                PrivateAs::Keep
            },
            graceful_shutdown: graceful_shutdown || peer.graceful_shutdown,
            role: session.role.filter(|_| external),
            long_lived: session.long_lived,
        }
    }

    /// Whether what the protocol does is all there is to do.
    pub(super) fn is_plain(&self) -> bool {
        self.local_as.is_none()
            && self.override_asn.is_none()
            && self.private_as == PrivateAs::Keep
            && !self.graceful_shutdown
            && self.role.is_none()
    }

    /// What keeps a route back: ONLY_TO_CUSTOMER (RFC 9234 §5), LLGR_STALE (RFC 9494 §4.3), NO_PEER
    /// (RFC 3765 §2: not to a bilateral peer, which is what the role says).
    pub(super) fn withholds(&self, hot: &Hot) -> Option<Withheld> {
        let keeps = matches!(
            self.role,
            Some(Role::Customer | Role::Peer | Role::RouteServerClient)
        );
        if keeps && hot.only_to_customer {
            return Some(Withheld::OnlyToCustomer);
        }
        if hot.no_peer && self.role == Some(Role::Peer) {
            return Some(Withheld::NoPeer);
        }
        (hot.long_lived_stale && !self.long_lived).then_some(Withheld::LongLivedStale)
    }

    /// What must not reach the neighbour is taken out before a policy sees what it may change.
    pub(super) fn strip(&self, attributes: &mut PathAttributes, target: Target) {
        if target == Target::External {
            // RFC 4271 §5.1.4, §5.1.5; RFC 4456 §8.
            attributes.med = None;
            attributes.local_pref = None;
            attributes.originator_id = None;
            attributes.cluster_list.clear();
        } else {
            attributes.local_pref.get_or_insert(100);
        }
    }

    /// What is done after policy. `own` is the AS of the instance.
    pub(super) fn finish(
        &self,
        attributes: &mut PathAttributes,
        target: Target,
        own: Asn,
        reflected: Option<Reflected>,
    ) {
        if target == Target::External {
            attributes.local_pref = None;
            self.edit_path(attributes, own);
            let sets_otc = matches!(
                self.role,
                Some(Role::Provider | Role::Peer | Role::RouteServer)
            );
            if sets_otc {
                attributes.only_to_customer.get_or_insert(self.session_asn);
            }
        }
        if let Some(reflected) = reflected {
            reflected.mark(attributes);
        }
        if self.graceful_shutdown {
            let kind = match target {
                Target::External => PeerKind::External,
                Target::Internal { .. } => PeerKind::Internal,
            };
            well_known::mark_graceful_shutdown(attributes, kind);
        }
    }

    fn edit_path(&self, attributes: &mut PathAttributes, own: Asn) {
        let path = attributes.as_path.get_or_insert_default();
        // RFC 5065 §4.1: what was inside the confederation stays there.
        path.remove_confederation();
        let is_private = |asn: Asn| PRIVATE.iter().any(|range| range.contains(&asn.0));
        let all_private = path.iter().all(is_private);
        for segment in &mut path.segments {
            match self.private_as {
                PrivateAs::Keep => {}
                PrivateAs::RemoveWhenAlone if !all_private => {}
                PrivateAs::RemoveWhenAlone | PrivateAs::Remove => {
                    segment.asns.retain(|asn| !is_private(*asn));
                }
                PrivateAs::Replace => {
                    for asn in segment.asns.iter_mut().filter(|asn| is_private(**asn)) {
                        *asn = own;
                    }
                }
            }
            if let Some(theirs) = self.override_asn {
                for asn in segment.asns.iter_mut().filter(|asn| **asn == theirs) {
                    *asn = own;
                }
            }
        }
        path.segments.retain(|segment| !segment.asns.is_empty());
        match self.local_as {
            Some(local_as) if local_as.replace => path.prepend(local_as.asn, 1),
            Some(local_as) => {
                path.prepend(own, 1);
                path.prepend(local_as.asn, 1);
            }
            None => path.prepend(own, 1),
        }
    }
}
