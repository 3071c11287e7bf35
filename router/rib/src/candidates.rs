// SPDX-License-Identifier: Apache-2.0
//! The candidates of one prefix. Nearly always exactly one, which then takes no allocation.

use router_types::RouteSource;

use crate::forwarding::ForwardingId;
use crate::rib::OriginId;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Candidate {
    pub(crate) source: RouteSource,
    pub(crate) origin: OriginId,
    pub(crate) forwarding: ForwardingId,
}

/// Sorted by source, then origin; each pair once.
#[derive(Debug)]
pub(crate) enum Candidates {
    One(Candidate),
    Many(Vec<Candidate>),
}

impl Candidates {
    pub(crate) const fn none() -> Self {
        Candidates::Many(Vec::new())
    }

    pub(crate) fn as_slice(&self) -> &[Candidate] {
        match self {
            Candidates::One(candidate) => std::slice::from_ref(candidate),
            Candidates::Many(list) => list,
        }
    }

    /// Returns the forwarding it takes the place of.
    pub(crate) fn insert(&mut self, candidate: Candidate) -> Option<ForwardingId> {
        let rank = |c: &Candidate| (c.source, c.origin);
        match self {
            Candidates::Many(list) if list.is_empty() => {
                *self = Candidates::One(candidate);
                None
            }
            Candidates::One(one) if rank(one) == rank(&candidate) => {
                Some(std::mem::replace(one, candidate).forwarding)
            }
            Candidates::One(one) => {
                let mut list = vec![*one, candidate];
                list.sort_unstable_by_key(rank);
                *self = Candidates::Many(list);
                None
            }
            Candidates::Many(list) => match list.binary_search_by_key(&rank(&candidate), rank) {
                Ok(at) => Some(std::mem::replace(&mut list[at], candidate).forwarding),
                Err(at) => {
                    list.insert(at, candidate);
                    None
                }
            },
        }
    }

    /// Removes those `gone` holds for and hands each removed one's forwarding out.
    pub(crate) fn remove(
        &mut self,
        mut gone: impl FnMut(&Candidate) -> bool,
        mut removed: impl FnMut(ForwardingId),
    ) {
        let mut drop = |candidate: &Candidate| {
            let gone = gone(candidate);
            if gone {
                removed(candidate.forwarding);
            }
            gone
        };
        match self {
            Candidates::One(one) => {
                if drop(one) {
                    *self = Candidates::none();
                }
            }
            Candidates::Many(list) => {
                list.retain(|candidate| !drop(candidate));
                if let [one] = list.as_slice() {
                    *self = Candidates::One(*one);
                }
            }
        }
    }
}
