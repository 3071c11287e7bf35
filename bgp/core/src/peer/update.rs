// SPDX-License-Identifier: Apache-2.0
//! UPDATE: from a message to route changes, with the verdicts of RFC 7606 carried out.

use std::net::IpAddr;
use std::ops::Range;

use bgp_wire::update::{Update, UpdateView};
use bgp_wire::{Fault, Nlri, Notification, PathAttributes, PathNextHop, SessionContext, Treatment};

use super::status::ErrorTreatment;
use crate::routes::{NextHopAddress, RouteBatch};

/// What an UPDATE came to.
pub(super) struct ReadUpdate {
    /// Whether it was read, or the NOTIFICATION that ends the session.
    pub(super) result: Result<(), Notification>,
    /// Each error by attribute type (0 for the message as a whole) and treatment.
    pub(super) errors: Vec<(u8, ErrorTreatment)>,
}

/// Reads the body of an UPDATE and appends what it says.
///
/// Where RFC 7606 allows to disable a family instead of ending the session, the session ends: a
/// session with half its families down is harder to see than one that is down with a reason.
pub(super) fn read(body: &[u8], context: &SessionContext, batch: &mut RouteBatch) -> ReadUpdate {
    let view = match UpdateView::split(body) {
        Ok(view) => view,
        Err(notification) => {
            let errors = vec![(0, ErrorTreatment::SessionReset)];
            return ReadUpdate {
                result: Err(notification),
                errors,
            };
        }
    };
    batch.expect(body.len());
    let (attributes, update) = batch.push_attributes(|out| Update::parse(&view, context, out));
    let Judged {
        attributes,
        withdraws,
        errors,
    } = match judge(&update, attributes, context, batch) {
        Ok(judged) => judged,
        Err((notification, errors)) => {
            let result = Err(notification);
            return ReadUpdate { result, errors };
        }
    };
    let result = Ok(());
    if let Some(family) = update.end_of_rib() {
        batch.end_of_rib(family);
        return ReadUpdate { result, errors };
    }
    let mut withdraw = |nlri: Nlri<'_>| {
        if !nlri.is_empty() {
            batch.withdraw(nlri);
        }
    };
    withdraw(update.withdrawn);
    update.mp_withdrawn.into_iter().for_each(&mut withdraw);
    if withdraws {
        // The classic field counts even where NEXT_HOP could not be read.
        withdraw(update.announced);
        update
            .mp_announced
            .into_iter()
            .for_each(|reach| withdraw(reach.nlri));
        return ReadUpdate { result, errors };
    }
    let classic = update
        .next_hop
        .map(|hop| (PathNextHop::V4(hop), update.announced));
    let mp = update
        .mp_announced
        .map(|reach| (reach.next_hop, reach.nlri));
    for (hop, nlri) in classic.into_iter().chain(mp) {
        if !nlri.is_empty() {
            batch.announce(attributes.clone(), hop.into(), nlri);
        }
    }
    ReadUpdate { result, errors }
}

/// An UPDATE that does not end the session.
struct Judged {
    /// Its attributes, good ones in canonical form.
    attributes: Range<usize>,
    /// Whether what it announces is to be treated as withdrawn.
    withdraws: bool,
    errors: Vec<(u8, ErrorTreatment)>,
}

/// Judges an UPDATE, and puts good attributes in the place of those it came with, the last bytes of
/// the batch. Those of nearly all are good as they came, and are not decoded.
fn judge(
    update: &Update<'_>,
    attributes: Range<usize>,
    context: &SessionContext,
    batch: &mut RouteBatch,
) -> Result<Judged, (Notification, Vec<(u8, ErrorTreatment)>)> {
    let bytes = batch.attributes(&attributes);
    let says_nothing = bytes.is_empty() && !update.has_announcements();
    if update.is_sound() && (says_nothing || PathAttributes::are_canonical(bytes, context)) {
        return Ok(Judged {
            attributes,
            withdraws: false,
            errors: Vec::new(),
        });
    }
    let decoded = PathAttributes::decode(bytes, context);
    let faults = update.faults(&decoded);
    let errors = faults.iter().map(counted).collect();
    let withdraws = match Fault::strongest(&faults) {
        None | Some(Treatment::AttributeDiscard) => false,
        Some(Treatment::TreatAsWithdraw) => true,
        Some(
            Treatment::SessionReset(notification) | Treatment::DisableFamily { notification, .. },
        ) => return Err((notification.clone(), errors)),
    };
    for fault in &faults {
        tracing::debug!(
            attribute = ?fault.attribute, finding = ?fault.finding,
            treatment = fault.treatment.name(), rule = fault.rule, "erroneous UPDATE"
        );
    }
    batch.drop_attributes(attributes);
    let (attributes, ()) = batch.push_attributes(|out| {
        if !withdraws && update.has_announcements() {
            decoded.attributes.encode(true, out);
        }
    });
    Ok(Judged {
        attributes,
        withdraws,
        errors,
    })
}

impl From<NextHopAddress> for PathNextHop {
    fn from(hop: NextHopAddress) -> Self {
        match hop.address {
            IpAddr::V4(address) => PathNextHop::V4(address),
            IpAddr::V6(global) => PathNextHop::V6 {
                global,
                link_local: hop.link_local,
            },
        }
    }
}

impl From<PathNextHop> for NextHopAddress {
    fn from(hop: PathNextHop) -> Self {
        let link_local = match hop {
            PathNextHop::V4(_) => None,
            PathNextHop::V6 { link_local, .. } => link_local,
        };
        NextHopAddress {
            address: hop.address(),
            link_local,
        }
    }
}

fn counted(fault: &Fault) -> (u8, ErrorTreatment) {
    let treatment = match fault.treatment {
        Treatment::AttributeDiscard => ErrorTreatment::AttributeDiscard,
        Treatment::TreatAsWithdraw => ErrorTreatment::TreatAsWithdraw,
        Treatment::DisableFamily { .. } | Treatment::SessionReset(_) => {
            ErrorTreatment::SessionReset
        }
    };
    (fault.attribute.map_or(0, |code| code.0), treatment)
}

#[cfg(test)]
mod tests {
    use bgp_wire::{AsSetPolicy, FamilyContext, PeerKind};
    use router_types::Family;

    use super::*;
    use crate::routes::RouteChange;

    #[test]
    fn what_an_update_says_is_the_same_spelled_out() {
        let context = SessionContext {
            peer: PeerKind::External,
            four_octet_as: true,
            extended_messages: false,
            as_sets: AsSetPolicy::Withdraw,
            families: vec![FamilyContext::plain(Family::IPV4_UNICAST)],
        };
        // 10.9.0.0/16 goes; ORIGIN igp, AS_PATH 65001, NEXT_HOP 192.0.2.1; 10.1.0.0/16 comes.
        let mut body = vec![0, 3, 16, 10, 9, 0, 20];
        body.extend([0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9]);
        body.extend([0x40, 3, 4, 192, 0, 2, 1, 16, 10, 1]);
        let mut batch = RouteBatch::new();
        let read = read(&body, &context, &mut batch);
        assert_eq!((read.result, read.errors), (Ok(()), Vec::new()));
        let spelled: Vec<RouteChange> = batch.clone().into();
        assert_eq!(spelled.len(), 2);
        assert_eq!(RouteBatch::from(spelled), batch);
        assert_ne!(RouteBatch::new(), batch);
    }
}
