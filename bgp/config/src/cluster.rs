// SPDX-License-Identifier: Apache-2.0
//! Which cluster configuration is for this node, and what it becomes with the node's override.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use bgp_core::config::{InstanceConfig, InstanceName, Listen, LocalRoutes, PeerName};
use router_resources::kinds::{
    BgpInstance, BgpPeer, ClusterConfigSpec, NodeConfigInstance, NodeConfigPeer, NodeConfigSpec,
    OverrideInstance, OverridePeer,
};
use router_resources::{Entry, ObjectKey, Snapshot, Statement};
use router_types::Asn;

use crate::advertise::Advertisements;
use crate::compile::{Compiled, CompiledInstance, NodeConfig, SkippedPeer};
use crate::facts::NodeFacts;
use crate::peer::PeerConfigs;
use crate::statements::{Statements, condition_type};

/// Finds the cluster configuration for this node and says of the others why they are not used.
pub(crate) fn choose<'a>(
    snapshot: &'a Snapshot,
    facts: &NodeFacts,
    statements: &mut Statements,
) -> Option<Entry<'a, ClusterConfigSpec>> {
    let mut configs: Vec<_> = snapshot.cluster_configs().collect();
    configs.sort_by_key(|entry| (entry.metadata.creation_timestamp, entry.name().to_owned()));
    let mut chosen: Option<Entry<'a, ClusterConfigSpec>> = None;
    let mut losers = Vec::new();
    for entry in configs {
        let key = entry.key();
        let selects = |labels| {
            entry
                .spec
                .node_selector
                .as_ref()
                .is_none_or(|s| s.matches(labels))
        };
        let is_for_us = selects(&facts.labels);
        let others: Vec<_> = snapshot
            .nodes()
            .filter(|node| node.name() != facts.name && selects(&node.metadata.labels))
            .map(|node| node.name().to_owned())
            .collect();
        if !is_for_us && others.is_empty() {
            let message = format!(
                "nodeSelector matches no known node; the labels of this node, {}, are {}",
                facts.name,
                show_labels(facts)
            );
            statements.problem(
                &key,
                condition_type::NO_MATCHING_NODE,
                "NoMatchingNode",
                message,
            );
        }
        statements.otherwise(
            &key,
            Statement::is_false(
                condition_type::NO_MATCHING_NODE,
                "NodeMatched",
                "nodeSelector matches at least one node",
            ),
        );
        if !is_for_us {
            let message = format!("nodeSelector does not match this node, {}", facts.name);
            let statement = Statement::is_false(condition_type::IN_USE, "NotSelected", message);
            statements.otherwise(&key, statement);
            continue;
        }
        match &chosen {
            None => {
                let message = format!("nodeSelector matches this node, {}", facts.name);
                let statement = Statement::is_true(condition_type::IN_USE, "Selected", message);
                statements.otherwise(&key, statement);
                chosen = Some(entry);
            }
            Some(winner) => {
                let message = format!("{} comes first and is used", winner.key());
                let statement = Statement::is_false(condition_type::IN_USE, "Conflict", message);
                statements.otherwise(&key, statement);
                losers.push(key);
            }
        }
    }
    for loser in &losers {
        let winner = chosen.as_ref()?.key();
        let kind = condition_type::CONFLICTING_CLUSTER_CONFIG;
        let message = format!(
            "selects node {} as {winner} does, which is used",
            facts.name
        );
        statements.problem(loser, kind, "ConflictingClusterConfig", message);
        let message = format!("{loser} selects node {} too and is not used", facts.name);
        statements.problem(&winner, kind, "ConflictingClusterConfig", message);
    }
    for entry in snapshot.cluster_configs() {
        let kind = condition_type::CONFLICTING_CLUSTER_CONFIG;
        let message = "no other configuration selects this node";
        statements.otherwise(
            &entry.key(),
            Statement::is_false(kind, "NoConflict", message),
        );
    }
    chosen
}

/// Makes the instances of the chosen configuration.
pub(crate) fn expand<'b>(
    chosen: &Entry<'_, ClusterConfigSpec>,
    snapshot: &Snapshot,
    facts: &NodeFacts,
    peer_configs: &mut PeerConfigs<'b>,
    advertisements: &mut Advertisements<'b>,
    statements: &mut Statements,
    compiled: &mut Compiled,
) {
    let own = snapshot.node_config_override(&facts.name);
    let overrides: BTreeMap<&str, &OverrideInstance> = own
        .iter()
        .flat_map(|entry| &entry.spec.bgp_instances)
        .map(|instance| (instance.name.as_str(), instance))
        .collect();
    if let Some(entry) = &own {
        report_unknown_names(chosen.spec, &overrides, &entry.key(), chosen, statements);
    }
    let mut expander = Expander {
        key: chosen.key(),
        override_key: own.map(|entry| entry.key()),
        facts,
        peer_configs,
        advertisements,
        statements,
        compiled,
        ports: BTreeMap::new(),
    };
    let mut spec = NodeConfigSpec::default();
    for instance in &chosen.spec.bgp_instances {
        let changed = overrides.get(instance.name.as_str()).copied();
        spec.bgp_instances
            .push(expander.instance(instance, changed));
    }
    let owner = expander.key.clone();
    for (kind, reason, message) in [
        (
            condition_type::MISSING_PEER_CONFIGS,
            "AllFound",
            "all peer configurations exist",
        ),
        (
            condition_type::DEGRADED,
            "AsWritten",
            "everything that is written is done",
        ),
    ] {
        statements.otherwise(&owner, Statement::is_false(kind, reason, message));
    }
    compiled.node_config = Some(NodeConfig { owner, spec });
}

struct Expander<'a, 'b> {
    key: ObjectKey,
    override_key: Option<ObjectKey>,
    facts: &'a NodeFacts,
    peer_configs: &'a mut PeerConfigs<'b>,
    advertisements: &'a mut Advertisements<'b>,
    statements: &'a mut Statements,
    compiled: &'a mut Compiled,
    /// The instance that listens on a port.
    ports: BTreeMap<u16, String>,
}

impl Expander<'_, '_> {
    fn instance(
        &mut self,
        instance: &BgpInstance,
        changed: Option<&OverrideInstance>,
    ) -> NodeConfigInstance {
        let name = &instance.name;
        let local_asn = changed.and_then(|c| c.local_asn).or(instance.local_asn);
        let local_port = changed.and_then(|c| c.local_port).or(instance.local_port);
        let router_id = changed
            .and_then(|c| c.router_id.as_ref()?.parse::<Ipv4Addr>().ok())
            .unwrap_or_else(|| self.facts.default_router_id());
        let peers: Vec<(&BgpPeer, Option<&OverridePeer>)> = instance
            .peers
            .iter()
            .map(|peer| {
                let changed = changed.and_then(|c| c.peers.iter().find(|p| p.name == peer.name));
                (peer, changed)
            })
            .collect();
        if !instance.bmp_servers.is_empty() {
            let message =
                format!("instance {name}: bmpServers are not provided yet, no station is dialled");
            self.statements
                .problem(&self.key, condition_type::NOT_PROVIDED, "BMP", message);
        }
        match self.config(name, local_asn, local_port, router_id) {
            Ok(mut config) => {
                let mut routes = LocalRoutes::default();
                for (peer, changed) in &peers {
                    if let Err(why) = self.peer(&mut config, &mut routes, peer, *changed) {
                        self.skip(name, peer, why);
                    }
                }
                self.compiled
                    .instances
                    .push(CompiledInstance { config, routes });
            }
            Err(why) => {
                let message = format!("instance {name} is not run: {why}");
                self.degraded("InstanceNotRun", message.clone());
                for (peer, _) in &peers {
                    self.compiled
                        .skipped
                        .push(skipped(name, peer, message.clone()));
                }
            }
        }
        NodeConfigInstance {
            name: name.clone(),
            local_asn,
            router_id: Some(router_id.to_string()),
            local_port,
            peers: peers
                .iter()
                .map(|(peer, changed)| node_config_peer(peer, *changed))
                .collect(),
        }
    }

    fn config(
        &mut self,
        name: &str,
        local_asn: Option<i64>,
        local_port: Option<i32>,
        router_id: Ipv4Addr,
    ) -> Result<InstanceConfig, String> {
        let asn = local_asn.ok_or(
            "localASN is not set, neither here nor in the node's CiliumBGPNodeConfigOverride",
        )?;
        let asn = u32::try_from(asn).map_err(|_| format!("localASN {asn} is not an AS number"))?;
        let mut config = InstanceConfig::new(InstanceName(name.to_owned()), Asn(asn), router_id)
            .map_err(|error| error.to_string())?;
        let port = local_port.and_then(|port| u16::try_from(port).ok());
        if let Some(port) = port {
            match self.ports.get(&port) {
                Some(first) => {
                    let message = format!(
                        "instance {name} does not listen: instance {first} listens on port {port}"
                    );
                    self.degraded("PortInUse", message);
                }
                None => {
                    self.ports.insert(port, name.to_owned());
                    config.listen = Some(Listen {
                        port,
                        addresses: Vec::new(),
                    });
                }
            }
        }
        Ok(config)
    }

    /// Adds a peer and what it is told, or says why not.
    fn peer(
        &mut self,
        config: &mut InstanceConfig,
        routes: &mut LocalRoutes,
        peer: &BgpPeer,
        changed: Option<&OverridePeer>,
    ) -> Result<(), Skip> {
        if peer.auto_discovery.is_some() {
            return Err(Skip::NotProvided(
                "autoDiscovery is not provided yet; write peerAddress".into(),
            ));
        }
        let reference = peer.peer_config_ref.as_ref();
        let resolved = match reference {
            None => None,
            Some(reference) => Some(self.peer_configs.find(reference).ok_or_else(|| {
                Skip::MissingPeerConfig(format!("no peer configuration '{}'", reference.name))
            })?),
        };
        let user = format!("{}/{}", config.name(), peer.name);
        let local_address = changed.and_then(|c| c.local_address.as_deref());
        let (core, selected) = self
            .peer_configs
            .make(
                resolved.as_ref(),
                peer,
                local_address,
                &user,
                self.facts,
                self.statements,
            )
            .map_err(Skip::Degraded)?;
        if core.connect == bgp_core::config::ConnectMode::Passive && config.listen.is_none() {
            return Err(Skip::Degraded(
                "it is passive and the instance has no localPort to be called on".into(),
            ));
        }
        let name = PeerName(peer.name.clone());
        config
            .add_peer(name.clone(), core)
            .map_err(|error| Skip::Degraded(error.to_string()))?;
        if resolved.is_none() {
            let message = format!("peer {user} has no peerConfigRef and is told about nothing");
            let kind = condition_type::NOT_ADVERTISED;
            self.statements
                .problem(&self.key, kind, "NoPeerConfigRef", message);
        }
        for (family, selector) in selected {
            self.advertisements.advertise(
                family,
                selector.as_ref(),
                &name,
                &user,
                resolved.as_ref().map(|r| &r.key),
                routes,
                self.statements,
            );
        }
        Ok(())
    }

    fn skip(&mut self, instance: &str, peer: &BgpPeer, why: Skip) {
        let (kind, reason, why) = match why {
            Skip::NotProvided(why) => (condition_type::NOT_PROVIDED, "AutoDiscovery", why),
            Skip::MissingPeerConfig(why) => (
                condition_type::MISSING_PEER_CONFIGS,
                "MissingPeerConfigs",
                why,
            ),
            Skip::Degraded(why) => (condition_type::DEGRADED, "PeerNotRun", why),
        };
        let message = format!("peer {instance}/{} is not run: {why}", peer.name);
        self.statements.problem(&self.key, kind, reason, message);
        self.compiled.skipped.push(skipped(instance, peer, why));
    }

    fn degraded(&mut self, reason: &'static str, message: String) {
        if let Some(key) = self.override_key.clone().filter(|_| reason == "PortInUse") {
            self.statements
                .problem(&key, condition_type::DEGRADED, reason, message.clone());
        }
        self.statements
            .problem(&self.key, condition_type::DEGRADED, reason, message);
    }
}

/// Why a peer is not run.
enum Skip {
    NotProvided(String),
    MissingPeerConfig(String),
    Degraded(String),
}

fn skipped(instance: &str, peer: &BgpPeer, why: String) -> SkippedPeer {
    SkippedPeer {
        instance: instance.to_owned(),
        peer: peer.name.clone(),
        address: peer.peer_address.clone(),
        asn: peer.peer_asn,
        why,
    }
}

fn node_config_peer(peer: &BgpPeer, changed: Option<&OverridePeer>) -> NodeConfigPeer {
    NodeConfigPeer {
        name: peer.name.clone(),
        peer_address: peer.peer_address.clone(),
        peer_asn: peer.peer_asn,
        auto_discovery: peer.auto_discovery.clone(),
        local_address: changed.and_then(|c| c.local_address.clone()),
        peer_interface: None,
        peer_config_ref: peer.peer_config_ref.clone(),
    }
}

/// Says of the override which of its names the cluster configuration does not have.
fn report_unknown_names(
    spec: &ClusterConfigSpec,
    overrides: &BTreeMap<&str, &OverrideInstance>,
    key: &ObjectKey,
    chosen: &Entry<'_, ClusterConfigSpec>,
    statements: &mut Statements,
) {
    for (name, changed) in overrides {
        let Some(instance) = spec.bgp_instances.iter().find(|i| i.name == *name) else {
            let message = format!("{} has no instance '{name}'", chosen.key());
            statements.problem(key, condition_type::DEGRADED, "NoSuchInstance", message);
            continue;
        };
        for peer in &changed.peers {
            if !instance.peers.iter().any(|p| p.name == peer.name) {
                let message = format!(
                    "instance {name} of {} has no peer '{}'",
                    chosen.key(),
                    peer.name
                );
                statements.problem(key, condition_type::DEGRADED, "NoSuchPeer", message);
            }
        }
    }
}

fn show_labels(facts: &NodeFacts) -> String {
    let labels: Vec<String> = facts
        .labels
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    labels.join(", ")
}
