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
