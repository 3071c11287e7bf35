// SPDX-License-Identifier: Apache-2.0
//! After a restart: which neighbours have sent all their routes (RFC 4724 §4.1).

use std::collections::BTreeSet;
use std::time::Duration;

use router_types::Family;

use crate::config::{InstanceName, PeerName};
use crate::peer::PeerSnapshot;

/// How long learned routes wait for all neighbours after a restart, so that none of them is
/// preferred for being heard first: the Selection_Deferral_Timer of RFC 4724 §4.1.
pub const SELECTION_DEFERRAL: Duration = Duration::from_secs(15);

/// How long routes of an earlier run are kept for neighbours that are not back. The longest
/// restart time most routers are configured with.
pub const STALE_ROUTES: Duration = Duration::from_secs(120);

/// The End-of-RIB markers of all instances since the start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Deliveries {
    complete: BTreeSet<(InstanceName, PeerName, Family)>,
}

impl Deliveries {
    /// A neighbour has sent all its routes of a family.
    pub fn end_of_rib(&mut self, instance: InstanceName, peer: PeerName, family: Family) {
        self.complete.insert((instance, peer, family));
    }

    /// Whether a neighbour has sent all its routes of a family, in this session or an earlier one.
    #[must_use]
    pub fn has(&self, instance: &InstanceName, peer: &PeerName, family: Family) -> bool {
        self.complete
            .contains(&(instance.clone(), peer.clone(), family))
    }

    /// Whether every configured neighbour is up and has sent all routes of every family that was
    /// agreed with it.
    pub fn are_complete<'a>(
        &self,
        sessions: impl IntoIterator<Item = (&'a InstanceName, &'a PeerSnapshot)>,
    ) -> bool {
        sessions.into_iter().all(|(instance, session)| {
            session.negotiated.as_ref().is_some_and(|negotiated| {
                negotiated
                    .families()
                    .all(|family| self.has(instance, &session.name, family))
            })
        })
    }
}
