// SPDX-License-Identifier: Apache-2.0
//! What the chosen cluster configuration becomes with the node's override.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use bgp_core::config::{InstanceConfig, ListenRange, LocalRoutes, PeerName};
use router_resources::kinds::{
    self, BgpInstance, BgpPeer, ClusterConfigSpec, NodeConfigInstance, NodeConfigPeer,
    NodeConfigSpec, OverrideInstance, OverridePeer, PeerConfigRef,
};
use router_resources::{Entry, ObjectKey, Snapshot, Statement};

use crate::advertise::Advertisements;
use crate::compile::{Compiled, CompiledInstance, NodeConfig, SkippedPeer};
use crate::discovery::{self, Found};
use crate::facts::NodeFacts;
use crate::families::SelectedFamily;
use crate::instance::{self, Basics};
use crate::peer::{Made, PeerConfigs, Resolved, Wanted};
use crate::statements::{Statements, condition_type};

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

impl<'b> Expander<'_, 'b> {
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
        let basics = Basics {
            name,
            local_asn,
            local_port,
            router_id,
            is_cordoned: self.facts.is_cordoned,
        };
        let mut shown = Vec::new();
        match self.config(&basics, instance) {
            Ok(mut config) => {
                let mut routes = LocalRoutes::default();
                for (peer, changed) in &peers {
                    shown.extend(self.peers(&mut config, &mut routes, peer, *changed));
                }
                for range in &instance.ours.listen_ranges {
                    if let Err(why) = self.range(&mut config, &mut routes, range) {
                        self.problem(&format!("listen range {name}/{}", range.name), &why);
                    }
                }
                config.policies = self.peer_configs.take_named();
                let made = CompiledInstance { config, routes };
                self.compiled.instances.push(made);
            }
            Err(why) => {
                let message = format!("instance {name} is not run: {why}");
                self.degraded("InstanceNotRun", message.clone());
                for (peer, changed) in &peers {
                    let address = peer.peer_address.clone();
                    let skipped = skipped(name, peer, &peer.name, address.clone(), message.clone());
                    self.compiled.skipped.push(skipped);
                    shown.push(node_config_peer(peer, &peer.name, address, *changed));
                }
            }
        }
        NodeConfigInstance {
            name: name.clone(),
            local_asn,
            router_id: Some(router_id.to_string()),
            local_port,
            peers: shown,
        }
    }

    fn config(
        &mut self,
        basics: &Basics<'_>,
        written: &BgpInstance,
    ) -> Result<InstanceConfig, String> {
        let (mut config, listen) = instance::make(basics, &written.ours)?;
        if let Some(listen) = listen {
            match self.ports.get(&listen.port) {
                Some(first) => {
                    let message = format!(
                        "instance {} does not listen: instance {first} listens on port {}",
                        basics.name, listen.port
                    );
                    self.degraded("PortInUse", message);
                }
                None => {
                    self.ports.insert(listen.port, basics.name.to_owned());
                    config.listen = Some(listen);
                }
            }
        }
        Ok(config)
    }

    /// Adds the peers that one entry of the list means, and says how they are shown.
    fn peers(
        &mut self,
        config: &mut InstanceConfig,
        routes: &mut LocalRoutes,
        peer: &BgpPeer,
        changed: Option<&OverridePeer>,
    ) -> Vec<NodeConfigPeer> {
        if let Some(interface) = discovery::interface(peer) {
            self.compiled.unnumbered.insert(interface.to_owned());
        }
        let found = match discovery::find(peer, self.facts) {
            Ok(found) => found,
            Err(why) => {
                self.skip(
                    config,
                    peer,
                    &peer.name,
                    peer.peer_address.clone(),
                    Skip::Degraded(why),
                );
                let address = peer.peer_address.clone();
                return vec![node_config_peer(peer, &peer.name, address, changed)];
            }
        };
        let mut shown = Vec::new();
        for found in found {
            let address = Some(found.address.to_string());
            if let Err(why) = self.peer(config, routes, peer, &found, changed) {
                self.skip(config, peer, &found.name, address.clone(), why);
            }
            shown.push(node_config_peer(peer, &found.name, address, changed));
        }
        shown
    }

    /// Adds a peer and what it is told, or says why not.
    fn peer(
        &mut self,
        config: &mut InstanceConfig,
        routes: &mut LocalRoutes,
        peer: &BgpPeer,
        found: &Found,
        changed: Option<&OverridePeer>,
    ) -> Result<(), Skip> {
        let resolved = self.resolve(peer.peer_config_ref.as_ref())?;
        let user = format!("{}/{}", config.name(), found.name);
        let wanted = Wanted {
            user: &user,
            address: Some(found.address.clone()),
            is_ipv4: found.address.ip().is_ipv4(),
            asn: peer.peer_asn,
            local_address: changed.and_then(|c| c.local_address.as_deref()),
        };
        let Made {
            config: mut core,
            selected,
        } = self.make(resolved.as_ref(), &wanted)?;
        core.shutdown = peer.ours.shutdown.as_ref().map(|s| s.message.clone());
        core.graceful_shutdown = peer.ours.graceful_shutdown.unwrap_or(false);
        if core.connect == bgp_core::config::ConnectMode::Passive && config.listen.is_none() {
            return Err(Skip::Degraded(
                "it is passive and the instance has no localPort to be called on".into(),
            ));
        }
        let name = PeerName::from(found.name.clone());
        config
            .add_peer(name.clone(), core)
            .map_err(|error| Skip::Degraded(error.to_string()))?;
        self.advertise(&name, &user, resolved.as_ref(), &selected, routes);
        Ok(())
    }

    /// Adds a listen range and what its peers are told, or says why not.
    fn range(
        &mut self,
        config: &mut InstanceConfig,
        routes: &mut LocalRoutes,
        range: &kinds::ListenRange,
    ) -> Result<(), Skip> {
        let resolved = self.resolve(range.peer_config_ref.as_ref())?;
        let user = format!("{}/{}", config.name(), range.name);
        let prefix = instance::prefix(&range.prefix).map_err(Skip::Degraded)?;
        let wanted = Wanted {
            user: &user,
            address: None,
            is_ipv4: prefix.addr().is_ipv4(),
            asn: 0,
            local_address: None,
        };
        let made = self.make(resolved.as_ref(), &wanted)?;
        let most = u16::try_from(range.max_peers).unwrap_or(u16::MAX);
        let degraded = |error: bgp_core::config::ConfigError| Skip::Degraded(error.to_string());
        let mut core = ListenRange::new(prefix, most, made.config).map_err(degraded)?;
        core.asns = instance::asn_ranges(range.peer_asns.iter().flatten());
        let name = PeerName::from(range.name.clone());
        config.add_range(name.clone(), core).map_err(degraded)?;
        self.advertise(&name, &user, resolved.as_ref(), &made.selected, routes);
        Ok(())
    }

    fn resolve(&self, reference: Option<&PeerConfigRef>) -> Result<Option<Resolved<'b>>, Skip> {
        let Some(reference) = reference else {
            return Ok(None);
        };
        let missing =
            || Skip::MissingPeerConfig(format!("no peer configuration '{}'", reference.name));
        self.peer_configs
            .find(reference)
            .ok_or_else(missing)
            .map(Some)
    }

    fn make(&mut self, resolved: Option<&Resolved<'b>>, wanted: &Wanted<'_>) -> Result<Made, Skip> {
        self.peer_configs
            .make(resolved, wanted, self.facts, self.statements)
            .map_err(Skip::Degraded)
    }

    fn advertise(
        &mut self,
        name: &PeerName,
        user: &str,
        resolved: Option<&Resolved<'b>>,
        selected: &[SelectedFamily],
        routes: &mut LocalRoutes,
    ) {
        if resolved.is_none() {
            let message = format!("peer {user} has no peerConfigRef and is told about nothing");
            let kind = condition_type::NOT_ADVERTISED;
            self.statements
                .problem(&self.key, kind, "NoPeerConfigRef", message);
        }
        for (family, selector) in selected {
            self.advertisements.advertise(
                *family,
                selector.as_ref(),
                name,
                user,
                resolved.map(|r| &r.key),
                routes,
                self.statements,
            );
        }
    }

    fn skip(
        &mut self,
        config: &InstanceConfig,
        peer: &BgpPeer,
        name: &str,
        address: Option<String>,
        why: Skip,
    ) {
        let instance = &config.name().0;
        self.problem(&format!("peer {instance}/{name}"), &why);
        let skipped = skipped(instance, peer, name, address, why.words());
        self.compiled.skipped.push(skipped);
    }

    fn problem(&mut self, what: &str, why: &Skip) {
        let (kind, reason, why) = match why {
            Skip::MissingPeerConfig(why) => (
                condition_type::MISSING_PEER_CONFIGS,
                "MissingPeerConfigs",
                why,
            ),
            Skip::Degraded(why) => (condition_type::DEGRADED, "PeerNotRun", why),
        };
        let message = format!("{what} is not run: {why}");
        self.statements.problem(&self.key, kind, reason, message);
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
    MissingPeerConfig(String),
    Degraded(String),
}

impl Skip {
    fn words(self) -> String {
        match self {
            Skip::MissingPeerConfig(why) | Skip::Degraded(why) => why,
        }
    }
}

fn skipped(
    instance: &str,
    peer: &BgpPeer,
    name: &str,
    address: Option<String>,
    why: String,
) -> SkippedPeer {
    SkippedPeer {
        instance: instance.to_owned(),
        peer: name.to_owned(),
        address,
        asn: peer.peer_asn,
        why,
    }
}

fn node_config_peer(
    peer: &BgpPeer,
    name: &str,
    address: Option<String>,
    changed: Option<&OverridePeer>,
) -> NodeConfigPeer {
    NodeConfigPeer {
        name: name.to_owned(),
        peer_address: address,
        peer_asn: peer.peer_asn,
        auto_discovery: peer.auto_discovery.clone(),
        local_address: changed.and_then(|c| c.local_address.clone()),
        peer_interface: discovery::interface(peer).map(str::to_owned),
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
