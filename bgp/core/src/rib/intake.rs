// SPDX-License-Identifier: Apache-2.0
//! What becomes of a neighbour's attributes on their way in: what makes a route no candidate, what
//! the configuration changes in it, and what policy does.

use std::collections::BTreeMap;
use std::sync::Arc;

use bgp_wire::{PathAttributes, Role};
use ipnet::IpNet;
use router_types::{Asn, Family};

use super::attributes::Hot;
use super::rejection::Rejection;
use super::targets::is_vpn;
use crate::config::{FamilyConfig, ImportMode, ImportPolicy, PeerConfig, PeerName, PrefixLimit};
use crate::policy::{
    Decision, Judgement, NextHopChange, Policy, PolicyName, RouteContext, RouteOrigin, well_known,
};
use crate::routes::NextHopAddress;

/// How routes of one family come in from a neighbour.
#[derive(Clone, Debug)]
pub(super) struct Intake {
    /// The neighbour.
    pub(super) name: PeerName,
    pub(super) prefixes: ImportPolicy,
    /// The policy; where one is named that is not there, nothing comes in.
    pub(super) policy: PolicyUse,
    pub(super) allow_own_as: u8,
    /// Whether paths must begin with the neighbour's AS (RFC 4271 §6.3).
    pub(super) enforce_first_as: bool,
    /// Put in front of paths, where another AS number is shown to the neighbour.
    pub(super) prepend: Option<Asn>,
    /// Whether everything the neighbour sends is the last choice (RFC 8326).
    pub(super) graceful_shutdown: bool,
    /// Whether traffic to routes with BLACKHOLE is dropped (RFC 7999).
    pub(super) blackhole: bool,
    /// How many routes are taken.
    pub(super) limit: Option<PrefixLimit>,
}

/// A policy as a direction of a session uses it.
#[derive(Clone, Debug, Default)]
pub(super) enum PolicyUse {
    /// None is configured, and none is needed.
    #[default]
    None,
    /// None is configured where one is needed (RFC 8212 §3): nothing learned passes. The node's own
    /// routes do, since who is told of them is configured for each neighbour.
    Deny,
    /// The one named is not there: nothing passes.
    Missing,
    /// This one.
    Policy(Arc<Policy>),
}

/// The session an UPDATE came by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    pub(super) name: &'a PeerName,
    pub(super) family: Family,
    pub(super) internal: bool,
    pub(super) peer_asn: Asn,
    pub(super) local_asn: Asn,
    /// The role this end has (RFC 9234 §4.1).
    pub(super) role: Option<Role>,
    pub(super) router_id: std::net::Ipv4Addr,
    pub(super) cluster_id: std::net::Ipv4Addr,
}

/// The attributes of an UPDATE, judged as far as they can be without the prefix.
pub(super) enum Judged<'p> {
    /// As they came.
    Plain,
    /// Changed by configuration alone, alike for all prefixes.
    Changed(Box<PathAttributes>),
    /// By policy, prefix by prefix.
    Policy(Box<PathAttributes>, Judgement<'p>),
    /// Not a candidate, whatever the prefix.
    Rejected(Rejection),
}

impl Intake {
    /// How a family comes in by a neighbour's configuration.
    pub(super) fn new(
        name: &PeerName,
        peer: &PeerConfig,
        family: &FamilyConfig,
        policy: PolicyUse,
    ) -> Intake {
        let local_as = peer.local_as.filter(|local_as| local_as.prepend_received);
        Intake {
            name: name.clone(),
            prefixes: family.import.clone(),
            policy,
            allow_own_as: peer.allow_own_as,
            enforce_first_as: peer.enforce_first_as,
            prepend: local_as.map(|local_as| local_as.asn),
            graceful_shutdown: peer.graceful_shutdown,
            blackhole: family.blackhole,
            limit: family.limit,
        }
    }

    /// Why nothing comes in at all, where it does not.
    pub(super) fn closed(&self) -> Option<Rejection> {
        match self.policy {
            _ if self.prefixes.mode == ImportMode::None => Some(Rejection::Import),
            PolicyUse::Deny => Some(Rejection::NoPolicy),
            PolicyUse::Missing => Some(Rejection::PolicyMissing),
            PolicyUse::None | PolicyUse::Policy(_) => None,
        }
    }

    /// Judges attributes. `decoded` is asked only where bytes do not say enough.
    pub(super) fn judge(
        &self,
        hot: &Hot,
        decoded: impl FnOnce() -> PathAttributes,
        next_hop: NextHopAddress,
        from: &Source<'_>,
    ) -> Judged<'_> {
        if hot.own_as > self.allow_own_as {
            return Judged::Rejected(Rejection::OwnAs);
        }
        if hot.originator == Some(from.router_id) {
            return Judged::Rejected(Rejection::OwnOriginator);
        }
        if !from.internal && self.enforce_first_as && hot.neighbour != from.peer_asn {
            return Judged::Rejected(Rejection::FirstAs);
        }
        let marks_otc = !from.internal && from.role.is_some();
        let leaves = !from.internal && (hot.graceful_shutdown || self.graceful_shutdown);
        let policy = match &self.policy {
            PolicyUse::Policy(policy) => Some(policy),
            PolicyUse::None => None,
            PolicyUse::Deny => return Judged::Rejected(Rejection::NoPolicy),
            PolicyUse::Missing => return Judged::Rejected(Rejection::PolicyMissing),
        };
        let drops = self.blackhole && hot.blackhole;
        let plain = policy.is_none() && self.prepend.is_none() && !leaves && !marks_otc && !drops;
        if plain && hot.cluster_len == 0 {
            return Judged::Plain;
        }
        let mut attributes = decoded();
        if attributes.cluster_list.contains(&from.cluster_id) {
            return Judged::Rejected(Rejection::OwnCluster);
        }
        if plain {
            return Judged::Plain;
        }
        if let (Some(role), false) = (from.role, from.internal)
            && mark_only_to_customer(&mut attributes, role, from.peer_asn)
        {
            return Judged::Rejected(Rejection::Leak);
        }
        if let Some(asn) = self.prepend {
            attributes.as_path.get_or_insert_default().prepend(asn, 1);
        }
        let Some(policy) = policy else {
            self.finish(&mut attributes, from);
            return Judged::Changed(Box::new(attributes));
        };
        let context = RouteContext {
            family: from.family,
            next_hop: Some(next_hop.address),
            source: if from.internal {
                RouteOrigin::Internal
            } else {
                RouteOrigin::External
            },
            learned_from: Some(from.name),
            peer_asn: from.peer_asn,
            local_asn: from.local_asn,
        };
        let judgement = policy.judge(&attributes, &context);
        Judged::Policy(Box::new(attributes), judgement)
    }

    /// The attributes and next hop a policy's decision leads to; `None` where it rejects.
    pub(super) fn apply(
        &self,
        attributes: &PathAttributes,
        judgement: &Judgement<'_>,
        decision: Decision,
        next_hop: NextHopAddress,
        from: &Source<'_>,
    ) -> Option<(PathAttributes, NextHopAddress)> {
        if !decision.is_accepted() {
            return None;
        }
        let (mut attributes, change) = judgement.apply(decision, attributes.clone());
        self.finish(&mut attributes, from);
        let next_hop = match change {
            // The label is of the next hop it came with.
            Some(_) if is_vpn(from.family) => next_hop,
            Some(NextHopChange::Address(address)) => NextHopAddress {
                address,
                link_local: None,
            },
            Some(NextHopChange::Own | NextHopChange::Unchanged) | None => next_hop,
        };
        Some((attributes, next_hop))
    }

    /// What is done last, so that no policy raises it again (RFC 8326 §4.1), and that what traffic
    /// is dropped for goes no further (RFC 7999 §3.2).
    fn finish(&self, attributes: &mut PathAttributes, from: &Source<'_>) {
        if self.blackhole {
            well_known::contain_blackhole(attributes);
        }
        if !from.internal {
            well_known::lower_on_graceful_shutdown(attributes);
            if self.graceful_shutdown {
                attributes.local_pref = Some(0);
            }
        }
    }

    /// Whether the prefix alone keeps a route out.
    #[inline]
    pub(super) fn refuses(&self, prefix: impl FnOnce() -> IpNet) -> Option<Rejection> {
        let takes = match &self.prefixes.mode {
            ImportMode::All => true,
            ImportMode::None => false,
            ImportMode::DefaultRoute | ImportMode::Prefixes(_) => self.prefixes.accepts(&prefix()),
        };
        (!takes).then_some(Rejection::Import)
    }
}

impl PolicyUse {
    /// The policy of a direction: by name, among those there are. Without one, RFC 8212 decides
    /// for external neighbours where it is asked for.
    pub(super) fn of(
        name: Option<&PolicyName>,
        policies: &BTreeMap<PolicyName, Arc<Policy>>,
        required: bool,
    ) -> PolicyUse {
        match name {
            Some(name) => policies.get(name).map_or(PolicyUse::Missing, |policy| {
                PolicyUse::Policy(policy.clone())
            }),
            None if required => PolicyUse::Deny,
            None => PolicyUse::None,
        }
    }
}

impl PartialEq for PolicyUse {
    /// The same one, not an equal one: policies that did not change stay what they are.
    fn eq(&self, other: &PolicyUse) -> bool {
        match (self, other) {
            (PolicyUse::None, PolicyUse::None)
            | (PolicyUse::Deny, PolicyUse::Deny)
            | (PolicyUse::Missing, PolicyUse::Missing) => true,
            (PolicyUse::Policy(a), PolicyUse::Policy(b)) => Arc::ptr_eq(a, b),
            (PolicyUse::None | PolicyUse::Deny | PolicyUse::Missing | PolicyUse::Policy(_), _) => {
                false
            }
        }
    }
}

/// Checks and sets ONLY_TO_CUSTOMER on the way in (RFC 9234 §5). Returns whether the route leaked.
fn mark_only_to_customer(attributes: &mut PathAttributes, role: Role, peer_asn: Asn) -> bool {
    match (role, attributes.only_to_customer) {
        (Role::Provider | Role::RouteServer, Some(_)) => true,
        (Role::Peer, Some(asn)) if asn != peer_asn => true,
        (Role::Customer | Role::Peer | Role::RouteServerClient, None) => {
            attributes.only_to_customer = Some(peer_asn);
            false
        }
        (Role::Provider | Role::RouteServer, None)
        | (Role::Customer | Role::Peer | Role::RouteServerClient, Some(_)) => false,
    }
}
