// SPDX-License-Identifier: Apache-2.0
//! Gateways that are reached without a tunnel.
//!
//! A packet that comes as it is says nothing of its rule, so its gateway looks for it as the pod's
//! node has: by the pod and the destination. It has to know the pod for that, as every node knows it.
//! It does not ask which gateway the pod takes, since healths and claims reach nodes at different
//! times: the pod's node has chosen this one, and the question is only which of its rules that means.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::context::Context;
use crate::desired::{Life, Neighbour, RemoteSource, Way};
use crate::destinations::{Says, owners};
use crate::finding::{Family, Refusal};
use crate::plan::Plan;
use crate::sets::{Sets, Table};
use crate::world::{Pod, Transport, World};

/// Where packets of a rule go as they are.
pub(crate) fn neighbours(world: &World, gateway: &str, life: Life) -> Vec<Neighbour> {
    match (world.transport, life) {
        (Transport::Native, Life::Active) if gateway != world.node => {}
        _ => return Vec::new(),
    }
    let families = [Family::V4, Family::V6].into_iter();
    let neighbours = families.filter_map(|family| neighbour(world, gateway, family));
    neighbours.collect()
}

/// Whether a pod's packets may go to gateways as they are.
pub(crate) fn is_known(world: &World, pod: &Pod) -> bool {
    world.transport == Transport::Native && pod.is_known_to_all
}

/// The pods of other nodes whose gateway this node is, where packets may come as they are.
pub(crate) fn remote(
    context: &Context<'_>,
    plans: &BTreeMap<usize, Plan<'_>>,
    sets: &mut Sets<'_>,
) -> BTreeMap<IpAddr, RemoteSource> {
    let world = context.world;
    let mut remote = BTreeMap::new();
    if !world.transport.takes_native() {
        return remote;
    }
    for other in world.remote_pods.iter().filter(|o| o.node != world.node) {
        let Some(table) = table(context, plans, &other.pod) else {
            continue;
        };
        let set = sets.number(table);
        for address in &other.pod.addresses {
            let family = Family::of(*address);
            if let Some(neighbour) = neighbour(world, &other.node, family) {
                let source = RemoteSource {
                    pod: other.pod.key.clone(),
                    set,
                    link: neighbour.on_link.link,
                };
                remote.entry(*address).or_insert(source);
            }
        }
    }
    remote
}

/// What becomes of a pod's packets here; none where nothing of it is for this gateway.
fn table(context: &Context<'_>, plans: &BTreeMap<usize, Plan<'_>>, pod: &Pod) -> Option<Table> {
    let (owners, _) = owners(context, pod);
    let ways = owners.into_iter().map(|(prefix, owner)| {
        let family = Family::of_net(prefix);
        let chosen = || {
            let plan = plans.get(&owner.of.place)?;
            plan.choose_by(&context.world.node, pod, family)?.number
        };
        let way = match owner.says {
            Says::Exclude => Way::Excluded,
            Says::Wait => Way::Refused(Refusal::Undecided),
            Says::Gateway => chosen().map_or(Way::Refused(Refusal::NoGateway), Way::Through),
        };
        (prefix, way)
    });
    let table: Table = ways.collect();
    let is_ours = |way: &Way| matches!(way, Way::Through(_));
    table.values().any(is_ours).then_some(table)
}

/// The address of a family of a node, if there is no router in between.
fn neighbour(world: &World, node: &str, family: Family) -> Option<Neighbour> {
    let mut addresses = world.nodes.get(node)?.addresses.iter();
    let address = *addresses.find(|address| Family::of(**address) == family)?;
    let on_link = *world.on_link.get(&address)?;
    Some(Neighbour { address, on_link })
}
