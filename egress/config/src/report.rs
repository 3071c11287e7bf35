// SPDX-License-Identifier: Apache-2.0
//! What is said about the policies once the world is there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use egress_core::{Addresses, Interface, Pod, PodKey, PolicyId, Selection, World};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use router_resources::Statement;

use crate::policy::Read;
use crate::statements::{Statements, condition_type, some_of};

/// Says of each policy what it does on this node and what it lacks.
pub(crate) fn report(world: &World, read: &[Read<'_>], statements: &mut Statements) {
    for policy in read {
        use_of(world, policy, statements);
        multicast(policy, statements);
        for (index, group) in policy.policy.groups.iter().enumerate() {
            if group.nodes.is_empty() {
                let message = format!("{} matches no node", policy.fields[index]);
                let kind = condition_type::NO_MATCHING_NODE;
                statements.problem(&policy.policy.id, kind, "NoMatch", message);
            }
            for family in families(&policy.policy.destinations) {
                addresses(world, policy, index, family, statements);
            }
        }
    }
    overlaps(world, statements);
}

/// Whether a policy has an effect on this node, and the pods it has none on.
fn use_of(world: &World, read: &Read<'_>, statements: &mut Statements) {
    let id = &read.policy.id;
    let of = |set: fn(&Pod) -> &BTreeSet<PolicyId>| {
        let pods = world.pods.iter().filter(move |pod| set(pod).contains(id));
        pods.map(|pod| &pod.key).collect::<Vec<&PodKey>>()
    };
    let (selected, undecided) = (of(|pod| &pod.policies), of(|pod| &pod.undecided));
    let gateway = (0..read.fields.len()).find(|index| may_be_gateway(world, read, *index));
    let mut parts = Vec::new();
    if !selected.is_empty() {
        let count = selected.len();
        let pods = if count == 1 { "pod" } else { "pods" };
        parts.push(format!("selects {count} {pods} of this node"));
    }
    if let Some(index) = gateway {
        let field = &read.fields[index];
        parts.push(format!("this node may be its gateway ({field})"));
    }
    let statement = if parts.is_empty() {
        let message = "selects no pod of this node, which cannot be its gateway either";
        Statement::is_false(condition_type::IN_USE, "NotHere", message)
    } else {
        let reason = match selected.is_empty() {
            true => "Gateway",
            false => "Selected",
        };
        Statement::is_true(condition_type::IN_USE, reason, parts.join("; "))
    };
    statements.in_use(id, statement);
    if !undecided.is_empty() {
        let message = format!(
            "the labels of {} are not known, so that they send nothing to its destinations: \
             their Pod or Namespace objects are not there",
            some_of(undecided)
        );
        let kind = condition_type::UNDECIDED;
        statements.problem(id, kind, "LabelsNotKnown", message);
    } else if selected.is_empty() {
        let (reason, message) = if read.selectors.is_empty() {
            ("NoSelector", "selectors is empty and selects no pod")
        } else {
            ("NoMatch", "no pod of this node is selected")
        };
        statements.problem(id, condition_type::NO_MATCHING_POD, reason, message);
    }
}

/// Whether this node may be the gateway of a group. Upstream's gateways are the first by name,
/// whether they are alive or not.
fn may_be_gateway(world: &World, read: &Read<'_>, index: usize) -> bool {
    let nodes = &read.policy.groups[index].nodes;
    match read.policy.selection {
        Selection::FirstByName | Selection::ByPodUid => nodes.first() == Some(&world.node),
        Selection::ActiveStandby | Selection::ActiveActive => nodes.contains(&world.node),
    }
}

/// Says which addresses of a family a group lacks: what is written has none, or this node, which
/// may be the gateway, does not have what is written.
fn addresses(
    world: &World,
    read: &Read<'_>,
    index: usize,
    family: Family,
    statements: &mut Statements,
) {
    let (id, field) = (&read.policy.id, &read.fields[index]);
    let mut address_missing = |reason, message: String| {
        statements.problem(id, condition_type::ADDRESS_MISSING, reason, message);
    };
    let name = family.name();
    let is_here = may_be_gateway(world, read, index);
    match &read.policy.groups[index].addresses {
        Addresses::OnDevice(address) if !family.has(*address) => {
            let message = format!(
                "{field}: egressIP {address} is not {name}: nothing is sent to the {name} destinations"
            );
            address_missing("OtherFamily", message);
        }
        Addresses::Held { addresses, .. } if !addresses.iter().any(|a| family.has(*a)) => {
            let message = format!(
                "{field}: none of its addresses is {name}: nothing is sent to the {name} destinations"
            );
            address_missing("OtherFamily", message);
        }
        _ if !is_here => {}
        Addresses::OnDevice(address) => {
            let mut devices = world.interfaces.iter();
            match devices.find(|(_, device)| device.addresses.contains(address)) {
                None => {
                    let message =
                        format!("{field}: egressIP {address} is on no device of this node");
                    address_missing("OnNoDevice", message);
                }
                Some((device, _)) => _ = missing_device(world, id, field, device, statements),
            }
        }
        Addresses::DefaultRoute => {
            let has_route = |device: &&Interface| match family {
                Family::V4 => device.has_default_route_v4,
                Family::V6 => device.has_default_route_v6,
            };
            let mut devices = world.interfaces.values().filter(has_route).peekable();
            if devices.peek().is_none() {
                let message = format!("{field}: this node has no {name} default route");
                address_missing("NoDefaultRoute", message);
            } else if !devices.any(|device| family.is_on(device)) {
                let message = format!(
                    "{field}: the device of the {name} default route has no {name} address"
                );
                address_missing("NoAddress", message);
            }
        }
        Addresses::Interface(device) => {
            if missing_device(world, id, field, device, statements) {
                return;
            }
            let interface = world.interfaces.get(device);
            if !interface.is_some_and(|interface| family.is_on(interface)) {
                let message = format!("{field}: {device} has no {name} address");
                let kind = condition_type::ADDRESS_MISSING;
                statements.problem(id, kind, "NoAddress", message);
            }
        }
        Addresses::Held { interface, .. } => {
            if let Some(device) = interface {
                missing_device(world, id, field, device, statements);
            }
        }
    }
}

/// Says that a device is not there or down; returns whether it said so.
fn missing_device(
    world: &World,
    id: &PolicyId,
    field: &str,
    device: &str,
    statements: &mut Statements,
) -> bool {
    let (reason, message) = match world.interfaces.get(device) {
        None => ("NotFound", format!("{field}: this node has no {device}")),
        Some(interface) if !interface.is_up => ("Down", format!("{field}: {device} is down")),
        Some(_) => return false,
    };
    statements.problem(id, condition_type::INTERFACE_MISSING, reason, message);
    true
}

/// Says which destinations are multicast: packets to those go to no gateway.
fn multicast(read: &Read<'_>, statements: &mut Statements) {
    let v4: Ipv4Net = Ipv4Net::new_assert([224, 0, 0, 0].into(), 4);
    let v6: Ipv6Net = Ipv6Net::new_assert([0xff00, 0, 0, 0, 0, 0, 0, 0].into(), 8);
    let ranges = [IpNet::V4(v4), IpNet::V6(v6)];
    let is_multicast = |prefix: &&IpNet| ranges.iter().any(|range| range.contains(*prefix));
    let found: Vec<&IpNet> = read
        .policy
        .destinations
        .iter()
        .filter(is_multicast)
        .collect();
    if !found.is_empty() {
        let message = format!("multicast is sent through no gateway: {}", some_of(found));
        let kind = condition_type::NOT_PROVIDED;
        statements.problem(&read.policy.id, kind, "Multicast", message);
    }
}

/// Says which policies have equal destinations for a pod of this node, and which one wins.
fn overlaps(world: &World, statements: &mut Statements) {
    type Overlap<'a> = (BTreeSet<IpNet>, BTreeSet<&'a PodKey>);
    let mut found: BTreeMap<(&PolicyId, &PolicyId), Overlap<'_>> = BTreeMap::new();
    for pod in &world.pods {
        let mut winners: BTreeMap<IpNet, &PolicyId> = BTreeMap::new();
        let selecting = world.policies.iter();
        for policy in selecting.filter(|policy| pod.policies.contains(&policy.id)) {
            for prefix in &policy.destinations {
                let winner = *winners.entry(*prefix).or_insert(&policy.id);
                if winner != &policy.id {
                    let (prefixes, pods) = found.entry((winner, &policy.id)).or_default();
                    prefixes.insert(*prefix);
                    pods.insert(&pod.key);
                }
            }
        }
    }
    let what =
        |(prefixes, pods): &Overlap<'_>| format!("{} of {}", some_of(prefixes), some_of(pods));
    let kind = condition_type::OVERLAPS;
    // Who loses is told first: of a policy that loses and wins, losing is the reason.
    for ((winner, loser), overlap) in &found {
        let message = format!("{winner} comes first and has {}", what(overlap));
        statements.problem(loser, kind, "Shadowed", message);
    }
    for ((winner, loser), overlap) in &found {
        let message = format!("has {} before {loser}, which comes later", what(overlap));
        statements.problem(winner, kind, "Shadows", message);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    fn has(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Family::V4)
    }

    fn is_on(self, device: &Interface) -> bool {
        device.addresses.iter().any(|address| self.has(*address))
    }
}

/// The families of some prefixes.
fn families(prefixes: &BTreeSet<IpNet>) -> impl Iterator<Item = Family> {
    let families = [Family::V4, Family::V6].into_iter();
    families.filter(|family| prefixes.iter().any(|prefix| family.has(prefix.addr())))
}
