// SPDX-License-Identifier: Apache-2.0
//! The compiler's input, output and order of work.

use std::collections::BTreeSet;

use bgp_core::config::{InstanceConfig, LocalRoutes};
use router_resources::kinds::NodeConfigSpec;
use router_resources::{Kind, ObjectKey, Snapshot, Statement};

use crate::advertise::Advertisements;
use crate::cluster;
use crate::expand::expand;
use crate::facts::NodeFacts;
use crate::peer::PeerConfigs;
use crate::statements::{Statements, condition_type};

/// What node settings say about BGP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The namespace of the Secrets `authSecretRef` names.
    pub secrets_namespace: String,
    /// BFDProfiles that are used by others than peers, with who they are.
    pub other_users_of_bfd: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            secrets_namespace: "kube-system".into(),
            other_users_of_bfd: Vec::new(),
        }
    }
}

/// One instance to run.
#[derive(Clone, Debug, PartialEq)]
pub struct CompiledInstance {
    /// The speaker's configuration.
    pub config: InstanceConfig,
    /// What it originates, and what each peer is told.
    pub routes: LocalRoutes,
}

/// A peer that is written and not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedPeer {
    /// The name of its instance.
    pub instance: String,
    /// Its name.
    pub peer: String,
    /// Its address as written.
    pub address: Option<String>,
    /// Its AS number as written; 0 for any.
    pub asn: i64,
    /// Why it is not run, in words.
    pub why: String,
}

/// The node's `CiliumBGPNodeConfig`; its name is the node's.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeConfig {
    /// The cluster configuration it is made of.
    pub owner: ObjectKey,
    /// Its spec.
    pub spec: NodeConfigSpec,
}

/// Everything BGP is to do on the node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compiled {
    /// The instances to run, in the order they are written.
    pub instances: Vec<CompiledInstance>,
    /// The peers that are not run.
    pub skipped: Vec<SkippedPeer>,
    /// The interfaces on which routers are to be looked for; for [`NodeFacts::link_routers`].
    pub unnumbered: BTreeSet<String>,
    /// What to say about each BGP object; for [`router_resources::Store::set_conditions`].
    pub statements: Vec<(ObjectKey, Statement)>,
    /// The outcome as a resource; `None` when no cluster configuration is for this node.
    pub node_config: Option<NodeConfig>,
}

/// Compiles the objects in force for one node.
pub fn compile(snapshot: &Snapshot, facts: &NodeFacts, options: &Options) -> Compiled {
    let mut statements = Statements::default();
    let mut compiled = Compiled::default();
    let mut peer_configs = PeerConfigs::new(snapshot, options);
    let mut advertisements = Advertisements::new(snapshot, facts);
    if let Some(chosen) = cluster::choose(snapshot, facts, &mut statements) {
        expand(
            &chosen,
            snapshot,
            facts,
            &mut peer_configs,
            &mut advertisements,
            &mut statements,
            &mut compiled,
        );
    }
    peer_configs.conclude(&mut statements);
    advertisements.conclude(&mut statements);
    conclude_overrides(
        snapshot,
        facts,
        compiled.node_config.is_some(),
        &mut statements,
    );
    compiled.statements = statements.finish();
    compiled
}

/// Says of each override whether it is for this node.
fn conclude_overrides(
    snapshot: &Snapshot,
    facts: &NodeFacts,
    is_configured: bool,
    statements: &mut Statements,
) {
    for entry in snapshot.node_config_overrides() {
        let key = entry.key();
        let statement = if entry.name() != facts.name {
            let message = format!("for node {}; this node is {}", entry.name(), facts.name);
            Statement::is_false(condition_type::IN_USE, "OtherNode", message)
        } else if !is_configured {
            let message = "no cluster configuration selects this node";
            Statement::is_false(condition_type::IN_USE, "NoClusterConfig", message)
        } else {
            Statement::is_true(condition_type::IN_USE, "ThisNode", "applied to this node")
        };
        statements.otherwise(&key, statement);
    }
    for stored in snapshot
        .iter()
        .filter(|s| s.object.kind() == Kind::NodeConfig)
    {
        let message = "CiliumBGPNodeConfig is written by Causeway and not read";
        let statement = Statement::is_false(condition_type::IN_USE, "WrittenByCauseway", message);
        statements.otherwise(&stored.object.key(), statement);
    }
}
