// SPDX-License-Identifier: Apache-2.0
//! What two OPEN messages agreed on, as far as it changes how later messages are read and written.

use alloc::vec::Vec;

use router_types::{Afi, Family};

use crate::capability::Capability;
use crate::frame;
use crate::open::Open;

/// Relation of a session's two ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PeerKind {
    /// Another AS.
    External,
    /// The same AS.
    Internal,
    /// Another member AS of the same confederation (RFC 5065).
    Confederation,
}

/// What to do with a route whose path contains an AS_SET or AS_CONFED_SET.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum AsSetPolicy {
    /// Treat as withdrawn, as RFC 9774 §3 demands.
    #[default]
    Withdraw,
    /// Take it, for fabrics that aggregate with AS sets.
    Accept,
}

/// One negotiated family.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FamilyContext {
    /// The family.
    pub family: Family,
    /// The peer's prefixes carry path identifiers (RFC 7911 §3).
    pub add_path_receive: bool,
    /// Our prefixes carry path identifiers.
    pub add_path_send: bool,
    /// IPv4 prefixes may have IPv6 next hops, both ways (RFC 8950 §4).
    pub extended_next_hop: bool,
}

impl FamilyContext {
    /// The family alone, nothing optional agreed.
    pub const fn plain(family: Family) -> Self {
        FamilyContext {
            family,
            add_path_receive: false,
            add_path_send: false,
            extended_next_hop: false,
        }
    }
}

/// How the messages of one session are read and written.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SessionContext {
    /// Relation to the peer.
    pub peer: PeerKind,
    /// AS numbers in paths have four octets (RFC 6793).
    pub four_octet_as: bool,
    /// Messages may have up to 65535 octets (RFC 8654).
    pub extended_messages: bool,
    /// AS sets, a matter of configuration.
    pub as_sets: AsSetPolicy,
    /// The families both sides offered, in our order.
    pub families: Vec<FamilyContext>,
}

impl SessionContext {
    /// What holds between a speaker that sent `ours` and one that sent `theirs`.
    ///
    /// [`PeerKind::Confederation`] cannot be seen from the messages; the caller sets it.
    pub fn negotiate(ours: &Open, theirs: &Open) -> Self {
        let both = |wanted: &dyn Fn(&Capability) -> bool| {
            ours.capabilities.iter().any(wanted) && theirs.capabilities.iter().any(wanted)
        };
        let peer_families = theirs.families();
        let families = ours
            .families()
            .into_iter()
            .filter(|f| peer_families.contains(f));
        let families = families.map(|family| {
            let (our_receive, our_send) = add_path(ours, family);
            let (their_receive, their_send) = add_path(theirs, family);
            FamilyContext {
                family,
                add_path_receive: our_receive && their_send,
                add_path_send: our_send && their_receive,
                extended_next_hop: extended_next_hop(ours, family)
                    && extended_next_hop(theirs, family),
            }
        });
        SessionContext {
            peer: if ours.asn == theirs.asn {
                PeerKind::Internal
            } else {
                PeerKind::External
            },
            four_octet_as: both(&|c| matches!(c, Capability::FourOctetAs(_))),
            extended_messages: both(&|c| matches!(c, Capability::ExtendedMessages)),
            as_sets: AsSetPolicy::default(),
            families: families.collect(),
        }
    }

    /// A session of the given kind with four-octet AS numbers and these families, nothing else.
    pub fn plain(peer: PeerKind, families: &[Family]) -> Self {
        SessionContext {
            peer,
            four_octet_as: true,
            extended_messages: false,
            as_sets: AsSetPolicy::default(),
            families: families.iter().map(|f| FamilyContext::plain(*f)).collect(),
        }
    }

    /// What was agreed for a family; `None` if it was not negotiated.
    pub fn family(&self, family: Family) -> Option<&FamilyContext> {
        self.families.iter().find(|f| f.family == family)
    }

    /// Longest message either side may send, for [`frame::next`] and the packer.
    pub const fn max_len(&self) -> usize {
        if self.extended_messages {
            frame::MAX_EXTENDED_LEN
        } else {
            frame::MAX_LEN
        }
    }
}

/// Receive and send of a family's add-path entry. RFC 7911 §4: of several entries for a family
/// the first counts here; of several capabilities the last one would, which no speaker sends.
fn add_path(open: &Open, family: Family) -> (bool, bool) {
    let lists = open.capabilities.iter().filter_map(|c| match c {
        Capability::AddPath(list) => Some(list),
        _ => None,
    });
    lists
        .flatten()
        .find(|entry| entry.family == family)
        .map_or((false, false), |entry| (entry.receive, entry.send))
}

fn extended_next_hop(open: &Open, family: Family) -> bool {
    open.capabilities.iter().any(|c| match c {
        Capability::ExtendedNextHop(list) => list
            .iter()
            .any(|e| e.family == family && family.afi == Afi::IPV4 && e.next_hop == Afi::IPV6),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::{AddPath, ExtendedNextHop};
    use alloc::vec;
    use router_types::Asn;

    fn open(asn: u32, capabilities: Vec<Capability>) -> Open {
        Open {
            asn: Asn(asn),
            hold_time_s: 90,
            router_id: [10, 0, 0, 1].into(),
            capabilities,
        }
    }

    #[test]
    fn only_what_both_offer_holds() {
        let (v4, v6) = (Family::IPV4_UNICAST, Family::IPV6_UNICAST);
        let add_path = |family, receive, send| {
            Capability::AddPath(vec![AddPath {
                family,
                receive,
                send,
            }])
        };
        let next_hop = Capability::ExtendedNextHop(vec![ExtendedNextHop {
            family: v4,
            next_hop: Afi::IPV6,
        }]);
        let ours = open(
            65001,
            vec![
                Capability::Multiprotocol(v6),
                Capability::Multiprotocol(v4),
                Capability::FourOctetAs(Asn(65001)),
                Capability::ExtendedMessages,
                add_path(v4, true, true),
                next_hop.clone(),
            ],
        );
        let theirs = open(
            65002,
            vec![
                Capability::Multiprotocol(v4),
                Capability::FourOctetAs(Asn(65002)),
                add_path(v4, false, true),
                next_hop,
            ],
        );
        let context = SessionContext::negotiate(&ours, &theirs);
        assert_eq!(context.peer, PeerKind::External);
        assert!(context.four_octet_as);
        assert_eq!(context.max_len(), frame::MAX_LEN);
        let agreed = FamilyContext {
            family: v4,
            add_path_receive: true,
            add_path_send: false,
            extended_next_hop: true,
        };
        assert_eq!(context.families, [agreed]);
    }

    #[test]
    fn a_speaker_without_capabilities_means_ipv4_unicast() {
        let old = open(65001, Vec::new());
        let new = open(65001, vec![Capability::FourOctetAs(Asn(65001))]);
        let context = SessionContext::negotiate(&new, &old);
        assert_eq!(context.peer, PeerKind::Internal);
        assert!(!context.four_octet_as);
        assert_eq!(
            context.families,
            [FamilyContext::plain(Family::IPV4_UNICAST)]
        );
        let v6_only = open(65001, vec![Capability::Multiprotocol(Family::IPV6_UNICAST)]);
        assert_eq!(SessionContext::negotiate(&v6_only, &old).families, []);
    }
}
