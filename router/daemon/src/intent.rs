// SPDX-License-Identifier: Apache-2.0
//! From resources and the node's interfaces to what the subsystems are told, whenever one of them
//! changes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bgp_config::{Compiled, CompiledInstance, InterfaceFacts, NodeFacts, OperState, compile};
use bgp_core::config::LocalRoutes;
use bgp_io::drain::Drain;
use bgp_io::{RouterDiscovery, Speaker};
use bpf_loader::Datapath;
use egress_core::PolicyId;
use ipnet::IpNet;
use pods_io::{Manager, Mtu};
use router_netlink::{Link, Netlink};
use router_resources::kinds::EgressAnnounce;
use router_resources::settings::Settings;
use router_resources::source::{DirectorySource, WatchOptions};
use router_resources::store::{FileEvent, Store};
use router_resources::{ObjectKey, Snapshot, Statement};
use router_types::LinkIndex;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::egress;
use crate::gateways::default_routes;
use crate::routes::{Routes, own_routes};

/// How long interfaces must be quiet before they are looked at: a link that comes up changes
/// several times.
const SETTLE: Duration = Duration::from_millis(50);

/// The resources and what became of them, for those who ask.
#[derive(Default)]
pub struct State {
    /// Files, objects and their conditions.
    pub store: Store,
    /// The last outcome.
    pub compiled: Compiled,
    /// What the node was then.
    pub facts: NodeFacts,
    /// What the subsystems could not do with it.
    pub failures: Vec<String>,
    /// The devices towards the fabric.
    pub fabric_devices: Vec<String>,
}

/// Resources in, wishes out.
pub struct Intent {
    settings: Arc<Settings>,
    state: Arc<Mutex<State>>,
    parts: Subsystems,
    netlink: Netlink,
    applied: Option<Applied>,
    egress_applied: Option<egress_io::node::Wish>,
    /// How held addresses are announced.
    announce: BTreeMap<PolicyId, EgressAnnounce>,
}

/// Those who are told what is wished for.
pub struct Subsystems {
    /// BGP.
    pub speaker: Speaker,
    /// RIB and kernel.
    pub routes: Routes,
    /// Pods; `None` without a data plane.
    pub pods: Option<Manager>,
    /// The data plane.
    pub datapath: Option<Arc<Mutex<Datapath>>>,
    /// Egress policies; `None` without a data plane.
    pub egress: Option<egress_io::node::Node>,
    /// Routers on links.
    pub discovery: RouterDiscovery,
    /// Whether the node is drained.
    pub drain: Arc<Drain>,
}

/// Somebody who waits until what is there now is in force.
pub type Waiter = oneshot::Sender<()>;

/// What the subsystems were told last.
#[derive(PartialEq)]
struct Applied {
    instances: Vec<CompiledInstance>,
    pod_cidrs: Vec<IpNet>,
    fabric: Vec<(LinkIndex, String)>,
}

impl Intent {
    pub fn new(settings: Arc<Settings>, parts: Subsystems) -> anyhow::Result<Intent> {
        Ok(Intent {
            settings,
            state: Arc::default(),
            parts,
            netlink: Netlink::open()?,
            applied: None,
            egress_applied: None,
            announce: BTreeMap::new(),
        })
    }

    /// The resources and what became of them.
    pub fn state(&self) -> Arc<Mutex<State>> {
        Arc::clone(&self.state)
    }

    /// Takes in everything that is there now. The daemon is ready after it.
    pub async fn begin(&mut self, source: &mut DirectorySource) {
        let events = source.scan();
        self.take_files(events);
        self.settle().await;
    }

    /// Goes on taking in changes, until both senders are gone.
    pub async fn run(
        mut self,
        mut files: mpsc::Receiver<Vec<FileEvent>>,
        interfaces_changed: Arc<Notify>,
        held_changed: Arc<Notify>,
        mut waiters: mpsc::Receiver<Waiter>,
    ) {
        loop {
            let mut waiting = Vec::new();
            tokio::select! {
                waiter = waiters.recv() => match waiter {
                    Some(waiter) => waiting.push(waiter),
                    None => return,
                },
                events = files.recv() => match events {
                    Some(events) => self.take_files(events),
                    None => return,
                },
                () = interfaces_changed.notified() => tokio::time::sleep(SETTLE).await,
                // Connections stand still until neighbours know.
                () = held_changed.notified() => {}
            }
            while let Ok(waiter) = waiters.try_recv() {
                waiting.push(waiter);
            }
            self.settle().await;
            for waiter in waiting {
                // Whoever waited may have given up.
                let _ = waiter.send(());
            }
        }
    }

    fn take_files(&mut self, events: Vec<FileEvent>) {
        #[expect(clippy::disallowed_methods, reason = "for people to read")]
        let now = SystemTime::now();
        let change = lock(&self.state).store.apply(events, now);
        for finding in &change.diagnostics {
            if finding.is_error() {
                tracing::error!("{finding}");
            } else {
                tracing::warn!("{finding}");
            }
        }
        for (what, keys) in [
            ("added", &change.added),
            ("changed", &change.updated),
            ("removed", &change.removed),
        ] {
            for key in keys {
                tracing::info!(object = %key, "resource {what}");
            }
        }
    }

    /// Compiles, and tells every subsystem what is different for it.
    async fn settle(&mut self) {
        let (interfaces, links) = match self.interfaces() {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(%error, "cannot list interfaces: nothing is changed");
                return;
            }
        };
        let snapshot = lock(&self.state).store.snapshot();
        let mut facts = NodeFacts::gather(
            &self.settings.node_name,
            &self.settings.node_addresses,
            &self.settings.pod_cidrs,
            &snapshot,
            interfaces,
        );
        let mut options = bgp_config::Options {
            secrets_namespace: self.settings.bgp_secrets_namespace.clone(),
            ..Default::default()
        };
        let names = links.iter().map(|link| (link.index, link.name.clone()));
        let names: BTreeMap<LinkIndex, String> = names.collect();
        match default_routes(&self.parts.routes, &mut self.netlink, &names).await {
            Ok(found) => facts.set_default_routes(&found),
            Err(error) => {
                tracing::error!(%error, "cannot list default routes: nothing is changed");
                return;
            }
        }
        facts.link_routers = self.parts.discovery.routers();
        // Egress first: BGP tells of the addresses this node holds.
        let mut failures = Vec::new();
        let statements = match self
            .egress(&snapshot, &mut facts, &links, &mut failures)
            .await
        {
            Ok((statements, users_of_bfd)) => {
                options.other_users_of_bfd = users_of_bfd;
                statements
            }
            Err(error) => {
                tracing::error!(%error, "cannot look at pods: nothing is changed");
                return;
            }
        };
        let mut compiled = compile(&snapshot, &facts, &options);
        compiled.statements.extend(statements);
        self.parts.discovery.set_interfaces(&compiled.unnumbered);
        let mut instances = compiled.instances.clone();
        for instance in &mut instances {
            self.parts.drain.apply(&mut instance.config);
        }
        let next = Applied {
            instances,
            pod_cidrs: facts.pod_cidrs.clone(),
            fabric: self.fabric(links),
        };
        {
            let mut state = lock(&self.state);
            #[expect(clippy::disallowed_methods, reason = "for people to read")]
            let now = SystemTime::now();
            state.store.set_conditions(compiled.statements.clone(), now);
            state.compiled = compiled;
            state.facts = facts;
            state.fabric_devices = next.fabric.iter().map(|(_, name)| name.clone()).collect();
        }
        if self.applied.as_ref() == Some(&next) && failures.is_empty() {
            return;
        }
        let before = self.applied.take();
        if before.as_ref().map(|b| &b.fabric) != Some(&next.fabric) {
            self.apply_fabric(&next.fabric, &mut failures).await;
        }
        if before.as_ref().map(|b| &b.pod_cidrs) != Some(&next.pod_cidrs) {
            self.parts
                .routes
                .set_local(own_routes(&next.pod_cidrs))
                .await;
            if let Some(pods) = &self.parts.pods
                && let Err(failure) = pods.set_pod_cidrs(next.pod_cidrs.clone()).await
            {
                failures.push(format!("pod CIDRs: {failure}"));
            }
        }
        if before.as_ref().map(|b| &b.instances) != Some(&next.instances) {
            let peers: Vec<IpAddr> = next
                .instances
                .iter()
                .flat_map(|instance| instance.config.peers().values())
                .map(|peer| peer.address.ip())
                .collect();
            self.parts.routes.set_peers(peers).await;
            let wanted: Vec<(_, LocalRoutes)> = next
                .instances
                .iter()
                .map(|instance| (instance.config.clone(), instance.routes.clone()))
                .collect();
            failures.extend(self.parts.speaker.apply(wanted).await);
        }
        for failure in &failures {
            tracing::error!("{failure}");
        }
        lock(&self.state).failures = failures;
        self.applied = Some(next);
    }

    async fn apply_fabric(&self, fabric: &[(LinkIndex, String)], failures: &mut Vec<String>) {
        if let Some(datapath) = &self.parts.datapath {
            let links: Vec<LinkIndex> = fabric.iter().map(|(index, _)| *index).collect();
            match lock(datapath).sync_fabric(&links) {
                Ok(report) => failures.extend(
                    report
                        .failed
                        .iter()
                        .map(|(link, error)| format!("device {}: {error}", link.0)),
                ),
                Err(error) => failures.push(format!("fabric devices: {error}")),
            }
        }
        if let Some(pods) = &self.parts.pods {
            let names = fabric.iter().map(|(_, name)| name.clone()).collect();
            if let Err(failure) = pods.set_mtu(Mtu::SmallestOf(names)).await {
                failures.push(format!("MTU of pods: {failure}"));
            }
        }
    }

    /// The node's interfaces as facts, and all links that are not pods'.
    fn interfaces(&mut self) -> anyhow::Result<Interfaces> {
        let links = self.netlink.links()?;
        let mut facts: BTreeMap<String, InterfaceFacts> = BTreeMap::new();
        let mut names = BTreeMap::new();
        let mut others = Vec::new();
        for link in links
            .into_iter()
            .filter(|link| !pods_io::is_pod_device(link))
        {
            names.insert(link.index, link.name.clone());
            facts.insert(
                link.name.clone(),
                InterfaceFacts {
                    is_admin_up: link.up,
                    oper_state: if link.carrier {
                        OperState::Up
                    } else {
                        OperState::Down
                    },
                    addresses: Vec::new(),
                },
            );
            others.push(link);
        }
        for address in self.netlink.addresses()? {
            if address.tentative || address.duplicate {
                continue;
            }
            if let Some(fact) = names
                .get(&address.link)
                .and_then(|name| facts.get_mut(name))
            {
                fact.addresses.push(address.address.addr());
            }
        }
        Ok((facts, others))
    }

    /// Makes egress equal to what is wished for, and adds to the facts what came of it. What is to be
    /// said of its policies, and the BFDProfiles they use.
    async fn egress(
        &mut self,
        snapshot: &Snapshot,
        node: &mut NodeFacts,
        links: &[Link],
        failures: &mut Vec<String>,
    ) -> anyhow::Result<(Vec<(ObjectKey, Statement)>, Vec<(String, String)>)> {
        let pods = self.parts.pods.as_ref();
        let transport = self.settings.egress.transport;
        let (facts, strangers) =
            egress::facts(node, links, pods, transport, &mut self.netlink).await?;
        let compiled = egress_config::compile(snapshot, &facts);
        let fabric = self.fabric(links.to_vec()).into_iter();
        let mtu = |link: LinkIndex| {
            links
                .iter()
                .find(|l| l.index == link)
                .map(|l| (link, l.mtu))
        };
        let profiles = |name: &str| {
            bgp_config::bfd_profile(name, snapshot, &self.settings.bgp_secrets_namespace)
        };
        let has_secret = self.settings.egress.secret_file.is_some();
        let watched = egress::watch::watches(&compiled, profiles, has_secret);
        // What a policy said that is gone holds while its addresses have connections.
        self.announce.extend(compiled.announce.clone());
        let wish = egress_io::node::Wish {
            probes: egress::watch::probes(&compiled),
            watches: watched.watches,
            is_leaving: self.parts.drain.asked().is_some(),
            announce: egress::announcements(&self.announce),
            served: egress::services(&compiled.served),
            world: compiled.world,
            strangers,
            fabric: fabric.filter_map(|(link, _)| mtu(link)).collect(),
        };
        if let Some(egress) = &self.parts.egress {
            if self.egress_applied.as_ref() != Some(&wish) {
                failures.extend(egress.apply(wish.clone()).await);
                // What could not be done is tried again at the next occasion.
                self.egress_applied = failures.is_empty().then_some(wish);
            }
            let holdings = egress.holdings();
            node.held_addresses = egress::announced(&holdings, &self.announce);
            self.announce.retain(|policy, _| {
                let mut left = holdings.held.values();
                compiled.announce.contains_key(policy) || left.any(|of| of == policy)
            });
        }
        let mut statements = compiled.statements;
        statements.extend(watched.statements);
        Ok((statements, watched.users))
    }

    /// The devices packets from the fabric come in by.
    fn fabric(&self, links: Vec<router_netlink::Link>) -> Vec<(LinkIndex, String)> {
        links
            .into_iter()
            .filter(|link| {
                let is_own = link.loopback
                    || link.controller.is_some()
                    || link.alias.as_deref() == Some(egress_io::devices::ALIAS);
                self.settings.is_fabric_device(&link.name, is_own)
            })
            .map(|link| (link.index, link.name))
            .collect()
    }
}

type Interfaces = (BTreeMap<String, InterfaceFacts>, Vec<router_netlink::Link>);

/// Locks what cannot be left half changed by a panic: every change under the lock is an assignment.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Watches the resources directory on a thread of its own.
pub fn watch(mut source: DirectorySource) -> anyhow::Result<mpsc::Receiver<Vec<FileEvent>>> {
    let (sender, receiver) = mpsc::channel(8);
    std::thread::Builder::new()
        .name("resources".to_owned())
        .spawn(move || {
            while let Some(events) = source.wait() {
                if sender.blocking_send(events).is_err() {
                    return;
                }
            }
        })?;
    Ok(receiver)
}

/// The source of a node's resources.
pub fn source(settings: &Settings) -> DirectorySource {
    DirectorySource::new(
        settings.resources_directory.clone(),
        WatchOptions::default(),
    )
}
