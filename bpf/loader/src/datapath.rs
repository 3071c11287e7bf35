// SPDX-License-Identifier: Apache-2.0
//! The data plane as one handle.

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
};

use aya::{Ebpf, maps::MapInfo};
use bpf_abi::{
    AddressEntry, DeviceEntry, MAPS, MAX_ENDPOINTS, egress::source_flags, map_names,
    nat::TUNNEL_MAC,
};
use router_types::LinkIndex;

use crate::{
    AttachedProgram, Config, DropCount, EgressFlows, EgressTables, Endpoint, EndpointId,
    EndpointState, EndpointTraffic, Error, HookChoice, HookKind, MacAddr, MapFill, NotedFlow,
    OpenError, ReapReport, Role, Status, SyncReport, Timeouts,
    attach::{self, Outcome},
    device::{self, Device},
    egress::Egress,
    kernel, load,
    pins::{self, AttachmentPin},
    registry::{Known, Registry},
    tables::Tables,
};

/// The roles a pod's device has.
const POD_ROLES: [Role; 2] = [Role::FromPod, Role::ToPod];

/// The loaded data plane. Dropping it leaves everything running.
pub struct Datapath {
    root: PathBuf,
    folder: PathBuf,
    hook: HookKind,
    adopted: bool,
    pub(crate) ebpf: Ebpf,
    tables: Tables,
    egress: Egress,
    /// See [`Datapath::set_tunnel`].
    tunnel: Option<LinkIndex>,
    registry: Registry,
    /// Whether [`Datapath::sync_egress`] was called.
    knows_policies: bool,
    /// Devices of pods that another layout's programs serve until then.
    waiting: BTreeSet<LinkIndex>,
}

impl fmt::Debug for Datapath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datapath")
            .field("folder", &self.folder)
            .field("hook", &self.hook)
            .field("registry", &self.registry)
            .finish_non_exhaustive()
    }
}

/// How [`Datapath::apply`] found an endpoint.
enum Change {
    Added,
    Changed,
    Unchanged,
}

impl Datapath {
    /// Loads the programs, adopting maps and attachments an earlier process pinned: when it
    /// returns, every device of this layout runs this process' programs.
    ///
    /// # Errors
    /// When there is no BPF file system, the pins belong to another network namespace, or the
    /// kernel refuses the object.
    pub fn open(config: Config) -> Result<Self, OpenError> {
        load::prepare_file_system(&config.pin_root)?;
        let (folder, adopted) = load::prepare_folder(&config.pin_root, &load::NODE)?;
        let mut ebpf = load::load(&folder, &load::NODE, &[], &[])?;
        let mut tables = Tables::take(&mut ebpf)?;
        let mut egress = Egress::take(&mut ebpf)?;
        let refused = |error: Error| OpenError::Load(Box::new(error));
        let here = device::netns_cookie().map_err(|source| OpenError::System {
            call: "getsockopt(SO_NETNS_COOKIE)",
            source,
        })?;
        if tables.owner().map_err(refused)? != here {
            tables.set_owner(here).map_err(refused)?;
        }
        let devices = tables.devices().map_err(refused)?;
        let addresses = tables.addresses().map_err(refused)?;
        // Until somebody says otherwise, pods keep the sets they have.
        egress.sources = addresses
            .iter()
            .map(|(address, entry)| (*address, entry.egress_set))
            .collect();
        let known = addresses
            .iter()
            .filter(|(_, entry)| entry.egress_flags & source_flags::KNOWN_TO_GATEWAYS != 0);
        egress.known = known.map(|(address, _)| *address).collect();
        let (registry, orphans) = Registry::from_maps(&devices, &addresses);
        for address in orphans {
            tables.remove_address(address).map_err(refused)?;
        }
        let links = registry.links();
        for (link, _) in devices.iter().filter(|(link, _)| !links.contains(link)) {
            tables.remove_device(*link).map_err(refused)?;
        }
        let hook = match config.hook {
            HookChoice::Auto if kernel::has_tcx() => HookKind::Tcx,
            HookChoice::Auto | HookChoice::Clsact => HookKind::Clsact,
        };
        load::adopt_attachments(&mut ebpf, &folder)?;
        tracing::info!(path = %folder.display(), adopted, %hook, "data plane loaded");
        Ok(Self {
            root: config.pin_root,
            folder,
            hook,
            adopted,
            ebpf,
            tables,
            egress,
            tunnel: None,
            registry,
            knows_policies: false,
            waiting: BTreeSet::new(),
        })
    }

    /// Makes the local endpoints exactly these: maps filled, programs attached, others pruned with
    /// their counters. What fails for one endpoint is in the report and stops no other.
    ///
    /// # Errors
    /// When the pin folder cannot be read at all.
    pub fn sync_endpoints(&mut self, wanted: &[Endpoint]) -> Result<SyncReport, Error> {
        let mut report = SyncReport::default();
        let ids: BTreeSet<EndpointId> = wanted.iter().map(|endpoint| endpoint.id).collect();
        let unwanted: Vec<EndpointId> = self
            .registry
            .iter()
            .map(|k| k.endpoint.id)
            .filter(|id| !ids.contains(id))
            .collect();
        // First what must go: its addresses and devices may be wanted by others.
        for id in unwanted {
            let link = self
                .registry
                .get(id)
                .map_or(LinkIndex(0), |known| known.endpoint.link);
            match self.remove_endpoint(id) {
                Ok(()) => report.pruned += 1,
                Err(error) => report.failed.push((link, error)),
            }
        }
        let links: BTreeSet<LinkIndex> = wanted.iter().map(|endpoint| endpoint.link).collect();
        for pin in self.all_pins()? {
            if POD_ROLES.contains(&pin.role)
                && !links.contains(&pin.link)
                && let Err(error) = attach::detach(&pin)
            {
                report.failed.push((pin.link, error.into()));
            }
        }
        for endpoint in wanted {
            match self.apply(endpoint) {
                Ok(Change::Added) => report.added += 1,
                Ok(Change::Changed) => report.changed += 1,
                Ok(Change::Unchanged) => report.unchanged += 1,
                Err(error) => report.failed.push((endpoint.link, error)),
            }
        }
        Ok(report)
    }

    /// Adds or changes one endpoint. When it returns `Ok`, packets flow: before the first
    /// [`Self::sync_egress`] by the programs of another layout, if those are on its device.
    ///
    /// # Errors
    /// When the device is gone or another one, an address is taken, or a map is full. Nothing
    /// half-done stays for a new endpoint.
    pub fn set_endpoint(&mut self, wanted: &Endpoint) -> Result<(), Error> {
        self.apply(wanted).map(|_| ())
    }

    /// Removes one endpoint with its counters; unknown ones are removed already. The device may be
    /// gone. From its first step on, what the pod still sends is refused; once it returns the
    /// programs are off the device, so remove the device first or soon.
    ///
    /// # Errors
    /// When a map or pin cannot be changed.
    pub fn remove_endpoint(&mut self, id: EndpointId) -> Result<(), Error> {
        let Some(known) = self.registry.get(id).cloned() else {
            return Ok(());
        };
        for address in &known.endpoint.addresses {
            self.tables.remove_address(*address)?;
        }
        self.tables.remove_device(known.endpoint.link)?;
        self.tables.raise_route_generation()?;
        self.tables.clear_traffic(known.slot)?;
        self.registry.remove(id);
        self.waiting.remove(&known.endpoint.link);
        self.detach_pod(known.endpoint.link)
    }

    /// Makes the fabric devices exactly these.
    ///
    /// # Errors
    /// When the pin folder cannot be read at all; failures of one device are in the report.
    pub fn sync_fabric(&mut self, devices: &[LinkIndex]) -> Result<SyncReport, Error> {
        let mut report = SyncReport::default();
        let wanted: BTreeSet<LinkIndex> = devices.iter().copied().chain(self.tunnel).collect();
        // A tunnel of an earlier process stays guarded until somebody says what becomes of it.
        let is_tunnel =
            |link| Device::find(link).is_ok_and(|device| device.mac == MacAddr(TUNNEL_MAC));
        for pin in self.all_pins()? {
            if pin.role == Role::FromFabric && !wanted.contains(&pin.link) && !is_tunnel(pin.link) {
                match attach::detach(&pin) {
                    Ok(()) => report.pruned += 1,
                    Err(error) => report.failed.push((pin.link, error.into())),
                }
            }
        }
        for link in wanted {
            let outcome = Device::find(link).map_err(Error::from).and_then(|device| {
                device.require_ethernet()?;
                self.attach(Role::FromFabric, link, &device)
            });
            match outcome {
                Ok(Outcome::Attached) => report.added += 1,
                Ok(Outcome::Replaced) => report.changed += 1,
                Ok(Outcome::Unchanged) => report.unchanged += 1,
                Err(error) => report.failed.push((link, error)),
            }
        }
        Ok(report)
    }

    /// Makes the egress policies of pods exactly these. A pod that was not decided about before
    /// sends under its own address at no moment: what is new is written first, then the pods'
    /// sets, and only then goes what nobody uses. Pods that programs of another layout serve get this
    /// one's when its policies are in force, at the first call.
    ///
    /// # Errors
    /// When a map is full or cannot be written. Nothing is removed then, and pods whose set could
    /// not be written keep the one they had.
    pub fn sync_egress(&mut self, wanted: &EgressTables) -> Result<(), Error> {
        self.egress.add(wanted)?;
        self.egress.sources.clone_from(&wanted.sources);
        self.egress.newcomers = wanted.newcomers;
        self.egress.known.clone_from(&wanted.native.known);
        for (address, entry) in self.tables.addresses()? {
            let egress_set = self.egress.set_of(address);
            let egress_flags = self.egress.flags_of(address);
            if entry.egress_set != egress_set || entry.egress_flags != egress_flags {
                let entry = AddressEntry {
                    egress_set,
                    egress_flags,
                    ..entry
                };
                self.tables.set_address(address, entry)?;
            }
        }
        // Cached flows may have been decided by what the maps said before.
        self.tables.raise_route_generation()?;
        let taken = self.take_over();
        self.egress.prune(wanted)?;
        taken
    }

    /// Forgets connections under egress policies that are over, by the timeouts of their rules
    /// (0 for those that were begun from outside; none for rules that are gone). Says how many
    /// there are. To be called regularly: nothing else forgets them.
    ///
    /// # Errors
    /// When the map cannot be read or written.
    pub fn sweep_egress(
        &mut self,
        timeouts: &dyn Fn(u32) -> Option<Timeouts>,
    ) -> Result<EgressFlows, Error> {
        self.egress.sweep(timeouts)
    }

    /// Calls `visit` with every connection under egress policies whose way is noted, in no order.
    /// Changes nothing. At most 65,536 of them: tens of milliseconds.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn each_egress_flow(&self, visit: &mut dyn FnMut(&NotedFlow)) -> Result<(), Error> {
        self.egress.each_flow(visit)
    }

    /// Puts the program of fabric devices on the tunnel between pods and gateways, beside those of
    /// [`Self::sync_fabric`], and keeps it there. To be called before the device goes up: what comes
    /// out of it is for pods, and nothing for the kernel to forward.
    ///
    /// # Errors
    /// When the device is gone or the program cannot be attached.
    pub fn set_tunnel(&mut self, tunnel: Option<LinkIndex>) -> Result<(), Error> {
        self.tunnel = tunnel;
        if let Some(link) = tunnel {
            let device = Device::find(link)?;
            device.require_ethernet()?;
            self.attach(Role::FromFabric, link, &device)?;
        }
        Ok(())
    }

    /// Makes every cached routing answer stale. Call it after changing routes, links, rules or
    /// forwarding; without the call a change is effective after 100 ms.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn routes_changed(&mut self) -> Result<(), Error> {
        self.tables.raise_route_generation()
    }

    /// Removes pins and endpoints of devices that are gone, and folders of other layouts once
    /// nothing of them is attached. Call it after both syncs, and now and then.
    ///
    /// # Errors
    /// When the pin folder cannot be read.
    pub fn reap(&mut self) -> Result<ReapReport, Error> {
        let mut report = ReapReport::default();
        let mut gone = BTreeSet::new();
        for pin in self.all_pins()? {
            if !attach::is_alive(&pin) {
                pins::remove_file(&pin.path())
                    .map_err(|source| folder_failed("remove", &pin.path(), source))?;
                gone.insert(pin.link);
            }
        }
        let endpoints: Vec<Endpoint> = self
            .registry
            .iter()
            .map(|known| known.endpoint.clone())
            .collect();
        for endpoint in endpoints {
            let there =
                Device::find(endpoint.link).is_ok_and(|device| device.mac == endpoint.host_mac);
            if !there {
                gone.insert(endpoint.link);
                self.remove_endpoint(endpoint.id)?;
            }
        }
        report.vanished_devices = gone.into_iter().collect();
        self.reap_layouts(&mut report)?;
        Ok(report)
    }

    fn reap_layouts(&self, report: &mut ReapReport) -> Result<(), Error> {
        for folder in self.layout_folders()? {
            if folder == self.folder {
                continue;
            }
            if self.pins_in(&folder)?.is_empty() {
                pins::remove_folder(&folder)
                    .map_err(|source| folder_failed("remove", &folder, source))?;
                report.old_layouts.push(folder);
            } else {
                report.kept_layouts.push(folder);
            }
        }
        Ok(())
    }

    /// The endpoints as they are in the maps, with their traffic, in order of their numbers.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn endpoints(&self) -> Result<Vec<EndpointState>, Error> {
        let pins = self.pins_in(&self.folder)?;
        let attached = |role, link| {
            attach::matching(&pins, role, link)
                .iter()
                .any(attach::is_alive)
        };
        self.registry
            .iter()
            .map(|known| {
                let link = known.endpoint.link;
                Ok(EndpointState {
                    endpoint: known.endpoint.clone(),
                    attached: POD_ROLES.into_iter().all(|role| attached(role, link)),
                    traffic: self.tables.traffic(known.slot)?,
                })
            })
            .collect()
    }

    /// The largest IP packet that every endpoint takes, in bytes; `None` without endpoints.
    #[must_use]
    pub fn smallest_mtu(&self) -> Option<u32> {
        self.registry.iter().map(|known| known.endpoint.mtu).min()
    }

    /// Traffic of every endpoint, in order of their numbers.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn counters(&self) -> Result<Vec<(EndpointId, EndpointTraffic)>, Error> {
        self.registry
            .iter()
            .map(|known| Ok((known.endpoint.id, self.tables.traffic(known.slot)?)))
            .collect()
    }

    /// Refused frames of the whole node by reason; every reason, also those that never occurred.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn drops(&self) -> Result<Vec<DropCount>, Error> {
        self.tables.drops()
    }

    /// Hooks, programs, attachments, fill of the maps.
    ///
    /// # Errors
    /// When a map or pin cannot be read.
    pub fn status(&self) -> Result<Status, Error> {
        let program_ids = load::NODE
            .roles
            .iter()
            .copied()
            .filter_map(|role| {
                let info = self.ebpf.program(role.program_name())?.info().ok()?;
                Some((role, info.id()))
            })
            .collect();
        let mut attached = Vec::new();
        for pin in self.all_pins()? {
            if let Some(program_id) = attach::program_id(&pin) {
                let AttachmentPin {
                    role, link, hook, ..
                } = pin;
                attached.push(AttachedProgram {
                    link,
                    role,
                    hook,
                    program_id,
                });
            }
        }
        let maps = MAPS.iter().map(|map| {
            let info =
                MapInfo::from_pin(self.folder.join(map.name)).map_err(|source| Error::Map {
                    action: "read",
                    map: map.name,
                    source: source.into(),
                })?;
            Ok(MapFill {
                name: map.name,
                map_id: info.id(),
                entries: match self.tables.entries(map.name)? {
                    None => self.egress.entries(map.name),
                    counted => counted,
                },
                max_entries: map.max_entries,
            })
        });
        Ok(Status {
            hook: self.hook,
            pin_path: self.folder.clone(),
            adopted: self.adopted,
            program_ids,
            attached,
            maps: maps.collect::<Result<_, Error>>()?,
        })
    }

    /// Detaches everything and removes every pin.
    ///
    /// # Errors
    /// When a pin or filter cannot be removed.
    pub fn uninstall(self) -> Result<(), Error> {
        Self::uninstall_pins(&self.root)
    }

    /// The same without a loaded data plane: for a tool, or when [`Self::open`] fails. The calling
    /// thread must be in the network namespace the pins belong to.
    ///
    /// # Errors
    /// When a pin or filter cannot be removed.
    pub fn uninstall_pins(root: &Path) -> Result<(), Error> {
        let failed = |path: &Path, source| folder_failed("remove", path, source);
        for folder in pins::layout_folders(root).map_err(|source| failed(root, source))? {
            let attachments =
                pins::attachments(&folder).map_err(|source| failed(&folder, source))?;
            for pin in &attachments {
                attach::detach(pin)?;
            }
            pins::remove_folder(&folder).map_err(|source| failed(&folder, source))?;
        }
        // Something else in it is not ours to remove.
        if let Err(error) = std::fs::remove_dir(root) {
            tracing::debug!(path = %root.display(), %error, "the pin root stays");
        }
        Ok(())
    }

    fn apply(&mut self, wanted: &Endpoint) -> Result<Change, Error> {
        let device = Device::find(wanted.link)?;
        device.require_ethernet()?;
        device.require_mac(wanted.link, wanted.host_mac)?;
        self.resolve_conflicts(wanted)?;
        let before = self.registry.get(wanted.id).cloned();
        let slot = self.registry.slot_for(wanted.id).ok_or(Error::MapFull {
            map: map_names::DEVICES,
            max: MAX_ENDPOINTS,
        })?;
        let mut addresses = wanted.addresses.clone();
        addresses.sort();
        addresses.dedup();
        let wanted = Endpoint {
            addresses,
            ..wanted.clone()
        };
        let same = before
            .as_ref()
            .is_some_and(|known| known.endpoint == wanted);
        if !same {
            if before.is_none() {
                self.tables.clear_traffic(slot)?;
            }
            let written = self.write_maps(&wanted, slot);
            if let (Err(error), None) = (written, &before) {
                self.forget_new(&wanted)?;
                return Err(error);
            }
        }
        let attached = if !self.knows_policies && self.is_of_another_layout(wanted.link)? {
            self.waiting.insert(wanted.link);
            Ok(Outcome::Unchanged)
        } else {
            self.attach_pod(wanted.link, &device)
        };
        let outcome = match attached {
            Ok(outcome) => outcome,
            Err(error) => {
                if before.is_none() {
                    self.forget_new(&wanted)?;
                }
                return Err(error);
            }
        };
        if let Some(before) = &before {
            self.remove_leftovers(&before.endpoint, &wanted)?;
        }
        self.registry.insert(Known {
            endpoint: wanted,
            slot,
        });
        Ok(match (before, same, outcome) {
            (None, _, _) => Change::Added,
            (Some(_), true, Outcome::Unchanged) => Change::Unchanged,
            (Some(_), _, _) => Change::Changed,
        })
    }

    /// Removes endpoints that stand in the way and whose device is gone; others are an error.
    fn resolve_conflicts(&mut self, wanted: &Endpoint) -> Result<(), Error> {
        while let Some((owner, error)) = self.registry.conflict(wanted) {
            let stale = self.registry.get(owner).is_none_or(|known| {
                !Device::find(known.endpoint.link)
                    .is_ok_and(|device| device.mac == known.endpoint.host_mac)
            });
            if !stale {
                return Err(error);
            }
            tracing::info!(endpoint = %owner, "removing an endpoint whose device is gone");
            self.remove_endpoint(owner)?;
        }
        Ok(())
    }

    fn write_maps(&mut self, wanted: &Endpoint, slot: u32) -> Result<(), Error> {
        let device = DeviceEntry {
            endpoint_id: wanted.id.0,
            slot,
            mtu: wanted.mtu,
            pod_mac: wanted.pod_mac.0,
            host_mac: wanted.host_mac.0,
        };
        let entry = AddressEntry {
            ifindex: wanted.link.0,
            slot,
            mtu: wanted.mtu,
            pod_mac: wanted.pod_mac.0,
            host_mac: wanted.host_mac.0,
            egress_set: 0,
            egress_flags: 0,
        };
        self.tables.set_device(wanted.link, device)?;
        for address in &wanted.addresses {
            let entry = AddressEntry {
                egress_set: self.egress.set_of(*address),
                egress_flags: self.egress.flags_of(*address),
                ..entry
            };
            self.tables.set_address(*address, entry)?;
        }
        // Cached flows may have been decided by what the maps said before.
        self.tables.raise_route_generation()
    }

    /// Undoes [`Self::write_maps`] and any attachment for an endpoint that was not there before.
    fn forget_new(&mut self, wanted: &Endpoint) -> Result<(), Error> {
        for address in &wanted.addresses {
            self.tables.remove_address(*address)?;
        }
        self.tables.remove_device(wanted.link)?;
        self.tables.raise_route_generation()?;
        self.detach_pod(wanted.link)
    }

    /// Removes what an endpoint had and has no more.
    fn remove_leftovers(&mut self, before: &Endpoint, wanted: &Endpoint) -> Result<(), Error> {
        for address in before
            .addresses
            .iter()
            .filter(|a| !wanted.addresses.contains(a))
        {
            self.tables.remove_address(*address)?;
        }
        self.tables.raise_route_generation()?;
        if before.link != wanted.link {
            self.tables.remove_device(before.link)?;
            self.detach_pod(before.link)?;
        }
        Ok(())
    }

    /// Whether only programs of another layout are on a pod's device.
    fn is_of_another_layout(&self, link: LinkIndex) -> Result<bool, Error> {
        let pins = self.all_pins()?;
        let mut here = pins.iter().filter(|pin| pin.link == link).peekable();
        Ok(here.peek().is_some() && here.all(|pin| pin.folder != self.folder))
    }

    fn attach_pod(&mut self, link: LinkIndex, device: &Device) -> Result<Outcome, Error> {
        let mut outcome = Outcome::Unchanged;
        for role in POD_ROLES {
            match self.attach(role, link, device)? {
                Outcome::Unchanged => {}
                other => outcome = other,
            }
        }
        Ok(outcome)
    }

    /// Takes devices over from another layout's programs: all it can, and those it cannot next time.
    fn take_over(&mut self) -> Result<(), Error> {
        self.knows_policies = true;
        let mut taken = Ok(());
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.is_empty() {
            return taken;
        }
        for link in waiting {
            // One that is gone needs none.
            if let Ok(device) = Device::find(link)
                && let Err(error) = self.attach_pod(link, &device)
            {
                self.waiting.insert(link);
                taken = taken.and(Err(error));
            }
        }
        // Whoever calls `reap` at the start may have done so before.
        taken.and(self.reap_layouts(&mut ReapReport::default()))
    }

    fn attach(&mut self, role: Role, link: LinkIndex, device: &Device) -> Result<Outcome, Error> {
        let existing = attach::matching(&self.all_pins()?, role, link);
        let wanted = AttachmentPin {
            role,
            link,
            hook: self.hook,
            folder: self.folder.clone(),
        };
        let program = load::program(&mut self.ebpf, role).map_err(|error| Error::Program {
            role,
            source: Box::new(error),
        })?;
        Ok(attach::attach(program, &wanted, device, &existing)?)
    }

    fn detach_pod(&self, link: LinkIndex) -> Result<(), Error> {
        let pins = self.all_pins()?;
        for pin in pins
            .iter()
            .filter(|p| POD_ROLES.contains(&p.role) && p.link == link)
        {
            attach::detach(pin)?;
        }
        Ok(())
    }

    /// Attachment pins of every layout, this one's first.
    fn all_pins(&self) -> Result<Vec<AttachmentPin>, Error> {
        let mut all = self.pins_in(&self.folder)?;
        for folder in self
            .layout_folders()?
            .into_iter()
            .filter(|f| *f != self.folder)
        {
            all.extend(self.pins_in(&folder)?);
        }
        Ok(all)
    }

    fn pins_in(&self, folder: &Path) -> Result<Vec<AttachmentPin>, Error> {
        pins::attachments(folder).map_err(|source| folder_failed("read", folder, source))
    }

    fn layout_folders(&self) -> Result<Vec<PathBuf>, Error> {
        pins::layout_folders(&self.root).map_err(|source| folder_failed("read", &self.root, source))
    }
}

fn folder_failed(action: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::PinFolder {
        action,
        path: path.to_owned(),
        source,
    }
}
