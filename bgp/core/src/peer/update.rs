// SPDX-License-Identifier: Apache-2.0
//! UPDATE: from a message to route changes, with the verdicts of RFC 7606 carried out.

use bgp_wire::update::{Update, UpdateView};
use bgp_wire::{Fault, Nlri, Notification, PathAttributes, PathNextHop, SessionContext, Treatment};
use ipnet::IpNet;

use super::status::ErrorTreatment;
use crate::routes::{NextHopAddress, RouteChange};

/// What an UPDATE came to.
pub(super) struct ReadUpdate {
    /// The changes, or the NOTIFICATION that ends the session.
    pub(super) result: Result<Vec<RouteChange>, Notification>,
    /// Each error by attribute type (0 for the message as a whole) and treatment.
    pub(super) errors: Vec<(u8, ErrorTreatment)>,
}

/// Reads the body of an UPDATE.
///
/// Where RFC 7606 allows to disable a family instead of ending the session, the session ends: a
/// session with half its families down is harder to see than one that is down with a reason.
pub(super) fn read(body: &[u8], context: &SessionContext) -> ReadUpdate {
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
    let mut canonical = Vec::new();
    let update = Update::parse(&view, context, &mut canonical);
    let decoded = PathAttributes::decode(&canonical, context);
    let faults = update.faults(&decoded);
    let errors = faults.iter().map(counted).collect();
    let withdraws = match Fault::strongest(&faults) {
        None | Some(Treatment::AttributeDiscard) => false,
        Some(Treatment::TreatAsWithdraw) => true,
        Some(
            Treatment::SessionReset(notification) | Treatment::DisableFamily { notification, .. },
        ) => {
            let result = Err(notification.clone());
            return ReadUpdate { result, errors };
        }
    };
    for fault in &faults {
        tracing::debug!(
            attribute = ?fault.attribute, finding = ?fault.finding,
            treatment = fault.treatment.name(), rule = fault.rule, "erroneous UPDATE"
        );
    }
    if let Some(family) = update.end_of_rib() {
        return ReadUpdate {
            result: Ok(vec![RouteChange::EndOfRib { family }]),
            errors,
        };
    }
    let mut changes = Vec::new();
    for nlri in [Some(update.withdrawn), update.mp_withdrawn]
        .into_iter()
        .flatten()
    {
        withdraw(&mut changes, &nlri);
    }
    let announced = [
        update
            .next_hop
            .map(|hop| (PathNextHop::V4(hop), update.announced)),
        update
            .mp_announced
            .map(|reach| (reach.next_hop, reach.nlri)),
    ];
    if withdraws {
        // The classic field counts even where NEXT_HOP could not be read.
        withdraw(&mut changes, &update.announced);
        if let Some(reach) = update.mp_announced {
            withdraw(&mut changes, &reach.nlri);
        }
    } else {
        let mut bytes = Vec::with_capacity(canonical.len());
        decoded.attributes.encode(true, &mut bytes);
        let attributes: std::sync::Arc<[u8]> = bytes.into();
        for (hop, nlri) in announced
            .into_iter()
            .flatten()
            .filter(|(_, nlri)| !nlri.is_empty())
        {
            changes.push(RouteChange::Announce {
                family: nlri.family(),
                attributes: attributes.clone(),
                next_hop: hop.into(),
                prefixes: prefixes(&nlri),
            });
        }
    }
    ReadUpdate {
        result: Ok(changes),
        errors,
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

fn withdraw(changes: &mut Vec<RouteChange>, nlri: &Nlri<'_>) {
    if !nlri.is_empty() {
        changes.push(RouteChange::Withdraw {
            family: nlri.family(),
            prefixes: prefixes(nlri),
        });
    }
}

fn prefixes(nlri: &Nlri<'_>) -> Vec<IpNet> {
    let mut list = Vec::with_capacity(nlri.count());
    list.extend(nlri.iter().map(|entry| entry.prefix));
    list
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
