// SPDX-License-Identifier: Apache-2.0
//! An UPDATE and what is done with it.

use bgp_wire::{
    ErrorKind, Fault, Notification, PathAttributes, PeerKind, SessionContext, Treatment, Update,
    UpdateView,
};
use router_types::Family;

#[path = "../../../../tests/advisories/update.rs"]
mod update;

pub(crate) use self::update::body;

pub(crate) const ORIGIN: &[u8] = &[0x40, 1, 1, 0];
pub(crate) const AS_PATH: &[u8] = &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9];
pub(crate) const NEXT_HOP: &[u8] = &[0x40, 3, 4, 192, 0, 2, 1];
pub(crate) const PREFIX: &[u8] = &[24, 198, 51, 100];

/// What is done with an UPDATE: nothing, one of the two mild treatments, or what ends it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Accepted,
    Discarded,
    Withdrawn,
    Disabled(Family),
    Reset(ErrorKind),
}
pub(crate) use Outcome::{Accepted, Disabled, Discarded, Reset, Withdrawn};

pub(crate) struct Judged {
    pub(crate) outcome: Outcome,
    pub(crate) faults: Vec<Fault>,
    pub(crate) attributes: PathAttributes,
    pub(crate) announced: usize,
}

pub(crate) fn context(peer: PeerKind) -> SessionContext {
    SessionContext::plain(peer, &[Family::IPV4_UNICAST, Family::IPV6_UNICAST])
}

pub(crate) fn judge(body: &[u8], context: &SessionContext) -> Judged {
    let view = match UpdateView::split(body) {
        Ok(view) => view,
        Err(Notification { kind, .. }) => {
            return Judged {
                outcome: Reset(kind),
                faults: Vec::new(),
                attributes: PathAttributes::default(),
                announced: 0,
            };
        }
    };
    let mut canonical = Vec::new();
    let update = Update::parse(&view, context, &mut canonical);
    let decoded = PathAttributes::decode(&canonical, context);
    let faults = update.faults(&decoded);
    let outcome = match Fault::strongest(&faults) {
        None => Accepted,
        Some(Treatment::AttributeDiscard) => Discarded,
        Some(Treatment::TreatAsWithdraw) => Withdrawn,
        Some(Treatment::DisableFamily { family, .. }) => Disabled(*family),
        Some(Treatment::SessionReset(notification)) => Reset(notification.kind),
    };
    let mp = update.mp_announced.map_or(0, |mp| mp.nlri.count());
    let announced = update.announced.count() + mp;
    Judged {
        outcome,
        faults,
        attributes: decoded.attributes,
        announced,
    }
}

pub(crate) fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![flags, code, value.len() as u8];
    bytes.extend_from_slice(value);
    bytes
}

/// A route with the mandatory attributes and one more, from the given kind of peer.
pub(crate) fn with_attribute(peer: PeerKind, more: &[u8]) -> Judged {
    judge(
        &body(&[], &[ORIGIN, AS_PATH, NEXT_HOP, more], PREFIX),
        &context(peer),
    )
}

pub(crate) const GLOBAL: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

pub(crate) fn mp_reach(afi: u8, next_hop: &[u8], nlri: &[u8]) -> Vec<u8> {
    let mut value = vec![0, afi, 1, next_hop.len() as u8];
    value.extend_from_slice(next_hop);
    value.push(0);
    value.extend_from_slice(nlri);
    attribute(0x80, 14, &value)
}
