// SPDX-License-Identifier: Apache-2.0
//! The compiler's output and order of work.

use std::collections::{BTreeMap, BTreeSet};

use egress_core::{Pod, PolicyId, PolicyKind, World};
use router_resources::kinds::{CausewayEgressGateway, EgressAnnounce, ServedPort};
use router_resources::{Labels, ObjectKey, Snapshot, Statement};

use crate::cluster::{self, Cluster};
use crate::facts::Facts;
use crate::health::Health;
use crate::known::{self, Known};
use crate::policy;
use crate::report::report;
use crate::select::Candidate;
use crate::statements::{Statements, condition_type};

/// What the egress decision of this node is made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compiled {
    /// The decision's input.
    pub world: World,
    /// How the gateways of each policy are watched; policies that ask for nothing are not here.
    pub health: BTreeMap<PolicyId, Health>,
    /// How the addresses Causeway holds for each policy are announced; policies without such
    /// addresses are not here.
    pub announce: BTreeMap<PolicyId, EgressAnnounce>,
    /// What else is served at these addresses; policies that say nothing of it are not here.
    pub served: BTreeMap<PolicyId, Vec<ServedPort>>,
    /// What to say about each policy; for [`router_resources::Store::set_conditions`].
    pub statements: Vec<(ObjectKey, Statement)>,
}

/// Compiles the objects in force for one node.
pub fn compile(snapshot: &Snapshot, facts: &Facts) -> Compiled {
    let mut statements = Statements::default();
    let cluster = Cluster::gather(snapshot, facts);
    let read = policy::read(snapshot, &cluster, &mut statements);
    let no_labels = Labels::new();
    let node_labels = cluster.labels(&facts.node).unwrap_or(&no_labels);
    let has_native = facts.transport.takes_native();
    let known = match has_native {
        true => Known::gather(snapshot),
        false => Known::default(),
    };
    let candidates = facts.endpoints.iter();
    let candidates = candidates.filter_map(|endpoint| Candidate::of(snapshot, endpoint));
    let pods = candidates.map(|candidate| {
        let is_known_to_all = known.has(snapshot, &facts.node, &candidate);
        Pod {
            is_known_to_all,
            ..known::pod(candidate, &read, node_labels)
        }
    });
    let pods = pods.collect();
    let world = World {
        transport: facts.transport,
        remote_pods: match has_native {
            true => known.remote(snapshot, &cluster, &read, &facts.node),
            false => Vec::new(),
        },
        pod_prefixes: match has_native {
            true => cluster.pod_prefixes,
            false => BTreeSet::new(),
        },
        // Known to whoever has the routing table.
        on_link: BTreeMap::new(),
        node: facts.node.clone(),
        policies: read.iter().map(|read| read.policy.clone()).collect(),
        pods,
        interfaces: cluster::usable(&facts.interfaces),
        nodes: cluster.nodes,
        in_cluster: cluster.in_cluster,
    };
    report(&world, &read, &mut statements);
    let mut compiled = Compiled {
        world,
        ..Compiled::default()
    };
    beyond_the_world(snapshot, &mut compiled, &mut statements);
    compiled.statements = statements.finish();
    compiled
}

/// Takes out of our policies what the world has no place for.
fn beyond_the_world(snapshot: &Snapshot, compiled: &mut Compiled, statements: &mut Statements) {
    for entry in snapshot.egress_policies() {
        let id = PolicyId {
            kind: PolicyKind::Causeway,
            name: entry.name().to_owned(),
        };
        if let Some(spec) = &entry.spec.health {
            let is_profile = |name: &str| snapshot.bfd_profile(name).is_some();
            if let Some(reference) = &spec.bfd_profile_ref
                && !is_profile(&reference.name)
            {
                let message = format!(
                    "BFDProfile/{} does not exist, so that gateways are not watched by BFD",
                    reference.name
                );
                let kind = condition_type::MISSING_BFD_PROFILE;
                statements.problem(&id, kind, "NotFound", message);
            }
            if let Some(health) = Health::of(spec, is_profile) {
                compiled.health.insert(id.clone(), health);
            }
        }
        let spec = entry.spec;
        if spec.gateways().iter().any(CausewayEgressGateway::holds) {
            if !spec.served_ports.is_empty() {
                compiled
                    .served
                    .insert(id.clone(), spec.served_ports.clone());
            }
            compiled.announce.insert(id, spec.announce.clone());
        }
    }
}
