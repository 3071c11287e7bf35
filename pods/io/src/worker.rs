// SPDX-License-Identifier: Apache-2.0
//! The thread that owns the pods: one operation after another.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bpf_loader::Datapath;
use pods_core::{
    AddRequest, Addition, Attachment, Code, Endpoint, EndpointId, Failure, Family, NetnsRef, Phase,
    Registry,
};
use router_netlink::{Netlink, Netns};
use router_types::LinkIndex;

use crate::config::{Config, Mtu};
use crate::inspect;
use crate::manager::{AddCall, Command, StartError};
use crate::plumbing::{self, PlumbingError};
use crate::report::{EndpointView, PodsStatus, Resync, StartReport};
use crate::store::{StateFolder, Store, StoreError};

mod recover;
mod resync;

/// MTU of pods while no fabric device is known: Ethernet's.
const DEFAULT_MTU: u32 = 1500;
/// The smallest MTU of a device with IPv6, RFC 8200 §5.
const MIN_IPV6_MTU: u32 = 1280;
/// How many addresses in use by somebody else one ADD steps over before it gives up. Arbitrary;
/// more than a few say that the pod CIDR is not ours.
const OCCUPIED_TRIES: usize = 16;

pub(crate) struct Worker {
    config: Config,
    store: Store,
    registry: Registry,
    netlink: Netlink,
    datapath: Arc<Mutex<Datapath>>,
    /// Identity of the namespace the node lives in: no pod may be put there.
    own_netns: (u64, u64),
    /// Devices at the host's side, of endpoints that have one.
    links: BTreeMap<EndpointId, LinkIndex>,
    /// Endpoints that are not as they should be, and why.
    problems: BTreeMap<EndpointId, String>,
    /// Addresses that an ADD found in use by somebody else, and by what.
    in_use: BTreeMap<IpAddr, String>,
    /// Addresses of devices nobody claims after the journal was damaged.
    kept: BTreeMap<IpAddr, String>,
    /// Whether the journal lost something, so that unclaimed devices may be somebody's.
    is_memory_damaged: bool,
    last_resync: Resync,
}

impl Worker {
    pub(crate) fn start(
        config: Config,
        folder: StateFolder,
        datapath: Arc<Mutex<Datapath>>,
    ) -> Result<(Worker, StartReport), StartError> {
        let (store, replay) = Store::open(folder, &config.boot_id)?;
        let mut report = StartReport {
            torn_octets: replay.torn_length,
            damage: replay.damage.iter().map(ToString::to_string).collect(),
            ..StartReport::default()
        };
        let is_memory_damaged = !replay.damage.is_empty();
        let (registry, opened) = Registry::open(
            replay,
            &config.boot_id,
            &config.pod_cidrs,
            config.cool_down,
            Instant::now(),
        )?;
        report.dropped_by_reboot = opened.dropped_by_reboot;
        report.contradicted = opened
            .contradicted
            .into_iter()
            .map(|e| e.attachment)
            .collect();
        let named = |id: &EndpointId| registry.get(*id).map(|e| e.attachment.clone());
        report.interrupted = opened.interrupted.iter().filter_map(named).collect();
        let mut netlink = Netlink::open()?;
        plumbing::enable_forwarding(&mut netlink)?;
        let mut worker = Worker {
            own_netns: own_netns().map_err(StartError::Thread)?,
            config,
            store,
            registry,
            netlink,
            datapath,
            links: BTreeMap::new(),
            problems: BTreeMap::new(),
            in_use: BTreeMap::new(),
            kept: BTreeMap::new(),
            is_memory_damaged,
            last_resync: Resync::default(),
        };
        if let Err(error) = worker.store.repair(&worker.registry) {
            // STATUS says so, and each ADD tries again.
            tracing::error!(%error, "the journal of pods cannot be written: no pod can be added");
        }
        worker.report_stranded();
        report.resync = worker.resync()?;
        log_start(&report, worker.registry.endpoints().len());
        Ok((worker, report))
    }

    /// Serves commands until nobody can send any more.
    pub(crate) fn run(&mut self, queue: &Receiver<Command>) {
        let mut next_resync = Instant::now() + self.config.resync_interval;
        loop {
            let wait = next_resync.saturating_duration_since(Instant::now());
            match queue.recv_timeout(wait) {
                Ok(command) => self.serve(command),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = self.resync() {
                        tracing::error!(%error, "the pods could not be compared with the kernel");
                    }
                    next_resync = Instant::now() + self.config.resync_interval;
                }
            }
        }
    }

    fn serve(&mut self, command: Command) {
        // A reply nobody waits for any more is no loss: the runtime will repeat ADD or send DEL.
        match command {
            // Its caller has given up, and would never know of the pod.
            Command::Add(_, reply) if reply.is_closed() => {}
            Command::Add(call, reply) => drop(reply.send(self.add(&call))),
            Command::Del(attachment, reply) => drop(reply.send(self.del(&attachment))),
            Command::Check(attachment, netns, expected, reply) => {
                drop(reply.send(self.check(&attachment, netns.as_deref(), &expected)));
            }
            Command::Gc(network, valid, reply) => drop(reply.send(self.gc(&network, &valid))),
            Command::Status(reply) => drop(reply.send(self.status())),
            Command::List(reply) => drop(reply.send(self.list())),
            Command::SetCidrs(cidrs, reply) => {
                let result = self.registry.ipam_mut().set_cidrs(&cidrs);
                if result.is_ok() {
                    self.report_stranded();
                    self.config.pod_cidrs = cidrs;
                }
                drop(reply.send(result));
            }
            Command::SetMtu(mtu, reply) => {
                self.config.mtu = mtu;
                if reply.send(()).is_err() {
                    tracing::debug!("nobody waits to hear that the MTU was changed");
                }
            }
            Command::Resync(reply) => {
                if let Err(error) = self.resync() {
                    tracing::error!(%error, "the pods could not be compared with the kernel");
                }
                drop(reply.send(self.last_resync.clone()));
            }
        }
    }

    fn add(&mut self, call: &AddCall) -> Result<Endpoint, Failure> {
        let (netns, netns_ref) = self.open_netns(&call.netns)?;
        self.release_if_dead(&call.attachment)?;
        let request = AddRequest {
            attachment: call.attachment.clone(),
            network: call.network.clone(),
            netns: netns_ref,
            pod: call.pod.clone(),
            requested: call.requested.clone(),
            mtu: self.mtu(),
        };
        self.check_mtu(request.mtu)?;
        self.in_use.clear();
        self.refresh_occupied()?;
        for _ in 0..OCCUPIED_TRIES {
            let (endpoint, is_new) = match self.registry.add(&request, Instant::now())? {
                Addition::Existing(endpoint) => (endpoint, false),
                Addition::New(endpoint, record) => {
                    if let Err(error) = self.store.put(&record, &self.registry) {
                        self.registry.remove(endpoint.id, Instant::now());
                        return Err(not_durable(&error));
                    }
                    (endpoint, true)
                }
            };
            let id = endpoint.id;
            match self.bring_up(&endpoint, &netns) {
                Ok(()) => return Ok(self.set_ready(endpoint)),
                Err(error) if !is_new => {
                    self.problems.insert(id, error.to_string());
                    return Err(kernel_failure(&endpoint, &error));
                }
                Err(error) => {
                    self.roll_back(&endpoint);
                    let PlumbingError::AddressInUse { address, .. } = &error else {
                        return Err(kernel_failure(&endpoint, &error));
                    };
                    tracing::warn!(%address, %error, "skipped an address of the pod CIDR");
                    self.in_use.insert(*address, error.to_string());
                    self.refresh_occupied()?;
                }
            }
        }
        Err(Failure::new(
            Code::Exhausted,
            format!(
                "{OCCUPIED_TRIES} addresses of the pod CIDRs in a row are in use by something else"
            ),
        )
        .with_details(self.in_use.values().cloned().collect::<Vec<_>>().join("; ")))
    }

    fn del(&mut self, attachment: &Attachment) -> Result<(), Failure> {
        match self.registry.find(attachment).cloned() {
            Some(endpoint) => self
                .release(&endpoint)
                .map_err(|error| kernel_failure(&endpoint, &error)),
            None => {
                tracing::debug!(%attachment, "DEL of an attachment that is not there");
                Ok(())
            }
        }
    }

    fn check(
        &mut self,
        attachment: &Attachment,
        netns: Option<&Path>,
        expected: &[IpAddr],
    ) -> Result<(), Failure> {
        let endpoint = self.registry.find(attachment).cloned().ok_or_else(|| {
            Failure::new(
                Code::UnknownContainer,
                format!("{attachment} was never added, or was deleted"),
            )
        })?;
        let path = netns.unwrap_or_else(|| Path::new(&endpoint.netns.path));
        let (netns, here) = self.open_netns(path)?;
        let mut found: Vec<String> = expected
            .iter()
            .filter(|a| !endpoint.addresses.contains(a))
            .map(|a| format!("{a} is expected and was not given to it"))
            .collect();
        let is_known = !endpoint.netns.path.is_empty();
        if is_known && (here.device, here.inode) != (endpoint.netns.device, endpoint.netns.inode) {
            found.push(format!(
                "{} is another namespace than at ADD",
                path.display()
            ));
        } else {
            found.extend(
                inspect::differences(&mut self.netlink, &self.datapath, &endpoint, &netns)
                    .map_err(|error| kernel_failure(&endpoint, &error))?,
            );
        }
        if found.is_empty() {
            return Ok(());
        }
        Err(Failure::new(
            Code::Mismatch,
            format!(
                "the network of {} is not as it was left: {}",
                label(&endpoint),
                found[0]
            ),
        )
        .with_details(found.join("; ")))
    }

    fn gc(
        &mut self,
        network: &str,
        valid: &BTreeSet<Attachment>,
    ) -> Result<Vec<Attachment>, Failure> {
        let mut removed = Vec::new();
        let mut failed = Vec::new();
        for attachment in self.registry.leaked(network, valid) {
            match self.del(&attachment) {
                Ok(()) => {
                    tracing::warn!(%attachment, network, "reclaimed: the runtime knows it no longer");
                    removed.push(attachment);
                }
                Err(failure) => failed.push(failure.to_string()),
            }
        }
        if failed.is_empty() {
            return Ok(removed);
        }
        let message = format!(
            "{} of {} leaked attachments could not be removed",
            failed.len(),
            failed.len() + removed.len()
        );
        Err(Failure::new(Code::Kernel, message).with_details(failed.join("; ")))
    }

    fn status(&mut self) -> PodsStatus {
        let mtu = self.mtu();
        let ipam = self.registry.ipam();
        PodsStatus {
            endpoints: self.registry.endpoints().len(),
            pools: ipam.usage(Instant::now()),
            stranded: ipam.stranded().collect(),
            not_ready: self.not_ready(),
            last_resync: self.last_resync.clone(),
            mtu,
        }
    }

    fn not_ready(&self) -> Option<Failure> {
        if let Some(failure) = self.store.failure() {
            return Some(
                Failure::new(
                    Code::NotAvailable,
                    format!("pods cannot be recorded: {failure}"),
                )
                .with_details("make room on that file system; the next ADD tries again"),
            );
        }
        if self.registry.endpoints().len() >= bpf_loader::MAX_ENDPOINTS as usize {
            let message = format!(
                "the node has {} pods, as many as the data plane can hold",
                bpf_loader::MAX_ENDPOINTS
            );
            return Some(Failure::new(Code::NotAvailable, message));
        }
        let ipam = self.registry.ipam();
        if ipam.cidrs().next().is_none() {
            return Some(
                Failure::new(Code::NotAvailable, "the node has no pod CIDR yet").with_details(
                    "set podCIDRs of its Node object, or wait for whoever assigns them",
                ),
            );
        }
        Family::ALL
            .into_iter()
            .filter(|family| ipam.serves(*family))
            .find_map(|family| ipam.has_room(family).err())
            .map(|error| Failure::new(Code::NotAvailable, error.to_string()))
    }

    fn list(&self) -> Vec<EndpointView> {
        self.registry
            .endpoints()
            .map(|endpoint| EndpointView {
                endpoint: endpoint.clone(),
                link: self.links.get(&endpoint.id).copied(),
                problem: self.problems.get(&endpoint.id).cloned(),
            })
            .collect()
    }

    /// Everything of one endpoint, programs before the pod can send.
    fn bring_up(&mut self, endpoint: &Endpoint, netns: &Netns) -> Result<(), PlumbingError> {
        let device = plumbing::host_side(&mut self.netlink, endpoint, Some(netns))?;
        self.links.insert(endpoint.id, device.link);
        {
            let mut datapath = plumbing::lock(&self.datapath);
            datapath.set_endpoint(&plumbing::datapath_endpoint(endpoint, device.link))?;
            datapath.routes_changed()?;
        }
        plumbing::pod_side(endpoint, netns)?;
        Ok(())
    }

    fn set_ready(&mut self, endpoint: Endpoint) -> Endpoint {
        self.problems.remove(&endpoint.id);
        if let Some(record) = self.registry.set_ready(endpoint.id) {
            self.store.note(record, &self.registry);
        }
        Endpoint {
            phase: Phase::Ready,
            ..endpoint
        }
    }

    /// Takes an endpoint away, in the kernel first: its addresses become free once nothing
    /// answers to them.
    fn release(&mut self, endpoint: &Endpoint) -> Result<(), PlumbingError> {
        if let Err(error) = plumbing::remove(&mut self.netlink, &self.datapath, endpoint) {
            self.problems.insert(endpoint.id, error.to_string());
            return Err(error);
        }
        self.links.remove(&endpoint.id);
        self.problems.remove(&endpoint.id);
        if let Some((_, record)) = self.registry.remove(endpoint.id, Instant::now()) {
            self.store.note(record, &self.registry);
        }
        Ok(())
    }

    fn roll_back(&mut self, endpoint: &Endpoint) {
        if let Err(error) = self.release(endpoint) {
            // It stays in the registry as being created; the next resync tries again.
            tracing::error!(%error, pod = %label(endpoint), "a failed ADD could not be undone yet");
        }
    }

    /// Makes way for a container that is added again after its namespace went without a DEL.
    fn release_if_dead(&mut self, attachment: &Attachment) -> Result<(), Failure> {
        let Some(endpoint) = self.registry.find(attachment).cloned() else {
            return Ok(());
        };
        if endpoint.phase == Phase::Creating || find_netns(&endpoint).is_none() {
            self.release(&endpoint)
                .map_err(|error| kernel_failure(&endpoint, &error))?;
        }
        Ok(())
    }

    fn open_netns(&self, path: &Path) -> Result<(Netns, NetnsRef), Failure> {
        let refused = |why: String| {
            Failure::new(
                Code::InvalidEnvironment,
                format!("CNI_NETNS {}: {why}", path.display()),
            )
        };
        let netns = Netns::open(path).map_err(|e| refused(e.to_string()))?;
        let reference = reference(path).map_err(|e| refused(e.to_string()))?;
        if (reference.device, reference.inode) == self.own_netns {
            return Err(refused(
                "this is the node's own namespace, where a pod needs no device".into(),
            ));
        }
        Ok((netns, reference))
    }

    /// What else on the node has an address of the pod CIDRs.
    fn refresh_occupied(&mut self) -> Result<(), Failure> {
        let failed = |e: router_netlink::Error| Failure::new(Code::Kernel, e.to_string());
        let cidrs: Vec<_> = self.registry.ipam().cidrs().collect();
        let mut occupied = self.kept.clone();
        occupied.extend(self.in_use.clone());
        for address in self.netlink.addresses().map_err(failed)? {
            let ip = address.address.addr();
            if cidrs.iter().any(|c| c.contains(&ip)) {
                let name = self.netlink.link_by_index(address.link).map(|l| l.name);
                let name = name.unwrap_or_else(|_| format!("device #{}", address.link.0));
                occupied.insert(ip, format!("address of {name}"));
            }
        }
        self.registry.ipam_mut().set_occupied(occupied);
        Ok(())
    }

    fn mtu(&mut self) -> u32 {
        match &self.config.mtu {
            Mtu::Fixed(mtu) => *mtu,
            Mtu::SmallestOf(names) => names
                .iter()
                .filter_map(|name| self.netlink.link_by_name(name).ok())
                .map(|link| link.mtu)
                .min()
                .unwrap_or(DEFAULT_MTU),
        }
    }

    /// RFC 8200 §5: the kernel takes no IPv6 address on a device of a smaller MTU, and says no more
    /// than "invalid argument".
    fn check_mtu(&self, mtu: u32) -> Result<(), Failure> {
        if mtu >= MIN_IPV6_MTU || !self.registry.ipam().serves(Family::V6) {
            return Ok(());
        }
        Err(Failure::new(
            Code::InvalidConfig,
            format!("pods have IPv6 addresses and would get MTU {mtu}: IPv6 needs {MIN_IPV6_MTU}"),
        )
        .with_details(
            "raise the MTU of the fabric devices or of the setting, or give no IPv6 pod CIDR",
        ))
    }

    fn report_stranded(&self) {
        let ipam = self.registry.ipam();
        if ipam.cidrs().next().is_none() {
            // Not known yet: the node's object is read after the pods are adopted.
            return;
        }
        for (address, id) in ipam.stranded() {
            tracing::warn!(%address, endpoint = %id, "held outside the pod CIDRs until its pod ends");
        }
    }
}

/// The pod's namespace, if it is still where and what it was.
fn find_netns(endpoint: &Endpoint) -> Option<Netns> {
    let path = Path::new(&endpoint.netns.path);
    let here = reference(path).ok()?;
    if (here.device, here.inode) != (endpoint.netns.device, endpoint.netns.inode) {
        return None;
    }
    Netns::open(path).ok()
}

fn reference(path: &Path) -> std::io::Result<NetnsRef> {
    let metadata = fs::metadata(path)?;
    Ok(NetnsRef {
        path: path.display().to_string(),
        device: metadata.dev(),
        inode: metadata.ino(),
    })
}

fn own_netns() -> std::io::Result<(u64, u64)> {
    reference(Path::new("/proc/thread-self/ns/net")).map(|r| (r.device, r.inode))
}

/// The pod's name where it is known, else the container's.
fn label(endpoint: &Endpoint) -> String {
    match &endpoint.pod {
        Some(pod) => format!("pod {pod}"),
        None => format!("container {}", endpoint.attachment),
    }
}

fn kernel_failure(endpoint: &Endpoint, error: &PlumbingError) -> Failure {
    let code = match error {
        PlumbingError::PodDeviceTaken(_) => Code::InvalidEnvironment,
        PlumbingError::AddressInUse { .. } => Code::AddressRefused,
        PlumbingError::Netlink(_)
        | PlumbingError::Datapath(_)
        | PlumbingError::ForeignDevice(_)
        | PlumbingError::NowhereToCreate(_) => Code::Kernel,
    };
    Failure::new(code, format!("{}: {error}", label(endpoint)))
}

fn not_durable(error: &StoreError) -> Failure {
    Failure::new(Code::Io, format!("the pod cannot be recorded: {error}"))
        .with_details("no address was handed out; make room on that file system and try again")
}

fn log_start(report: &StartReport, endpoints: usize) {
    tracing::info!(
        endpoints,
        adopted = report.resync.adopted,
        "pods taken over"
    );
    if report.dropped_by_reboot > 0 {
        tracing::info!(
            count = report.dropped_by_reboot,
            "the node was rebooted; its former pods are gone"
        );
    }
    if report.torn_octets > 0 {
        tracing::warn!(
            octets = report.torn_octets,
            "dropped an unfinished record; nobody was told of it"
        );
    }
    for line in &report.damage {
        tracing::error!(
            line,
            "the journal of pods is damaged: what this record said is lost"
        );
    }
    for attachment in &report.contradicted {
        tracing::error!(%attachment, "dropped: a younger pod has its address or name");
    }
    for attachment in &report.interrupted {
        tracing::warn!(%attachment, "took back an ADD that was broken off");
    }
}
