// SPDX-License-Identifier: Apache-2.0
//! The data plane of an egress gateway as one handle: rules, the tunnel's other ends, and the
//! mappings of connections.
//!
//! [`Gateway::open`] adopts what an earlier process left, connections included;
//! [`Gateway::sync_rules`], [`Gateway::sync_nodes`] and [`Gateway::sync_devices`] take the whole
//! desired state, as often as one likes. [`Gateway::sweep`] removes mappings that are over and is
//! to be called regularly: nothing else does. Dropping the handle detaches nothing.
//!
//! The pins are in a folder of their own, below the one of [`Datapath`](crate::Datapath).

mod held;
mod mapping;
mod rule;
mod slots;
mod sweep;
mod tables;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use aya::{Ebpf, maps::MapInfo};
use bpf_abi::{
    map_names,
    nat::{LOCAL_NODE, MAX_RULES, NATIVE_NODE, TunnelEnd, V4, V6, nat_entries},
};
use router_types::LinkIndex;

pub use held::Service;
pub use mapping::{Mapping, Phase, PodNode, Said};
pub use rule::{GatewayRule, Timeouts};
pub use sweep::{Sweep, Swept};
pub use tables::RuleTraffic;

pub(crate) use mapping::{duration_of, narrow, ticks_of, ticks_since, widen, words_v4, words_v6};

use self::{slots::Slots, tables::Tables};
use crate::{
    Datapath, DropCount, Error, HookChoice, HookKind, OpenError, Role, SyncReport,
    attach::{self, Outcome},
    clock,
    device::{self, Device},
    egress::source_for,
    kernel::{self, Position},
    load,
    pins::{self, AttachmentPin},
};

/// Settings of [`Gateway::open`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayConfig {
    /// Folder of the pins, as in [`Config`](crate::Config): the same value. The gateway's are in
    /// `gateway` below it.
    pub pin_root: PathBuf,
    /// How programs attach.
    pub hook: HookChoice,
    /// Mappings of each family, 128 to 8 million; rounded up to a power of two, see [`nat_entries`].
    /// The kernel takes the memory at once, about 260 bytes for an IPv4 and 320 for an IPv6 mapping.
    /// Tables that are pinned keep their size.
    pub max_mappings: u32,
    /// UDP port of the tunnel. No new mapping of UDP gets it: what comes to it is the tunnel's, also
    /// where a mapping of another time has it.
    pub tunnel_port: u16,
}

/// The loaded data plane of a gateway. Dropping it leaves everything running.
pub struct Gateway {
    root: PathBuf,
    folder: PathBuf,
    hook: HookKind,
    adopted: bool,
    ebpf: Ebpf,
    tables: Tables,
    rules: BTreeMap<u32, GatewayRule>,
    slots: Slots,
    /// Indexes of the other ends of the tunnel.
    nodes: BTreeMap<IpAddr, u16>,
    /// Where the search for a free index goes on: one that was just given up may still be in a
    /// mapping.
    next_node: u16,
    /// See [`Self::sync_held`].
    held: BTreeSet<V6>,
    /// See [`Self::sync_served`].
    served: BTreeSet<(V6, Service)>,
    sweeps: u64,
    own: Vec<IpAddr>,
    /// When this process took over the tables of an earlier one, in ticks.
    adopted_at: Option<u32>,
    /// When rules became this gateway's own that it had copies of before.
    since: BTreeMap<u32, u32>,
    /// When connections were first seen under addresses that their rule has no more.
    left: BTreeMap<(u32, IpAddr), u32>,
    /// Events that found the buffer full, as far as [`Self::missed`] has told.
    lost: u64,
}

/// How far somebody has read the mappings.
#[derive(Clone, Debug)]
pub struct Cursor {
    v4: Option<Position>,
    v6: Option<Position>,
}

impl Default for Cursor {
    /// At the beginning.
    fn default() -> Self {
        let start = Some(Position::default());
        Self {
            v4: start,
            v6: start,
        }
    }
}

impl Cursor {
    /// Behind the last one.
    #[must_use]
    pub fn end() -> Self {
        Self { v4: None, v6: None }
    }

    /// Whether that was all.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway")
            .field("folder", &self.folder)
            .field("rules", &self.rules.len())
            .field("nodes", &self.nodes.len())
            .finish_non_exhaustive()
    }
}

/// What a gateway has done with the traffic of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleState {
    /// Its number.
    pub number: u32,
    /// As it was given.
    pub rule: GatewayRule,
    /// Traffic so far.
    pub traffic: RuleTraffic,
    /// Refused packets by reason; only reasons that occurred.
    pub refusals: Vec<DropCount>,
}

impl Gateway {
    /// Loads the programs, adopting maps, connections and attachments an earlier process pinned.
    ///
    /// # Errors
    /// As [`Datapath::open`](crate::Datapath::open).
    pub fn open(config: &GatewayConfig) -> Result<Self, OpenError> {
        let root = root_below(&config.pin_root);
        load::prepare_file_system(&config.pin_root)?;
        let (folder, adopted) = load::prepare_folder(&root, &load::GATEWAY)?;
        let entries = nat_entries(config.max_mappings.clamp(128, 1 << 23));
        let sizes = [(map_names::NAT_V4, entries), (map_names::NAT_V6, entries)];
        let port = config.tunnel_port.to_be();
        let mut ebpf = load::load(&folder, &load::GATEWAY, &sizes, &[("TUNNEL_PORT", port)])?;
        let mut tables = Tables::take(&mut ebpf)?;
        let refused = |error: Error| OpenError::Load(Box::new(error));
        let here = device::netns_cookie().map_err(|source| OpenError::System {
            call: "getsockopt(SO_NETNS_COOKIE)",
            source,
        })?;
        if tables.owner().map_err(refused)? != here {
            tables.set_owner(here).map_err(refused)?;
        }
        let slots = Slots::of(tables.rules().map_err(refused)?);
        let nodes = tables.nodes().map_err(refused)?;
        let held = tables.held().map_err(refused)?;
        let served = tables.served().map_err(refused)?;
        let lost = tables.events_lost().map_err(refused)?;
        let next_node = nodes.values().max().map_or(LOCAL_NODE, |last| *last) + 1;
        let hook = match config.hook {
            HookChoice::Auto if kernel::has_tcx() => HookKind::Tcx,
            HookChoice::Auto | HookChoice::Clsact => HookKind::Clsact,
        };
        load::adopt_attachments(&mut ebpf, &folder)?;
        tracing::info!(path = %folder.display(), adopted, %hook, "egress gateway loaded");
        Ok(Self {
            root,
            folder,
            hook,
            adopted,
            ebpf,
            tables,
            rules: BTreeMap::new(),
            slots,
            nodes,
            next_node,
            held,
            served: served.into_iter().map(held::service).collect(),
            sweeps: 0,
            own: Vec::new(),
            adopted_at: adopted.then(now),
            since: BTreeMap::new(),
            left: BTreeMap::new(),
            lost,
        })
    }

    /// Whether [`Self::open`] found the maps of an earlier process.
    #[must_use]
    pub fn is_adopted(&self) -> bool {
        self.adopted
    }

    /// Makes the rules exactly these, by their numbers. Mappings of rules that are gone are removed
    /// by the next sweep; until then their answers still go back.
    ///
    /// # Errors
    /// When there are more than [`MAX_RULES`], or a map cannot be written: the rules that could be
    /// are in force then, and calling again goes on.
    pub fn sync_rules(&mut self, wanted: &BTreeMap<u32, GatewayRule>) -> Result<(), Error> {
        for number in self.slots.numbers() {
            if !wanted.contains_key(&number) {
                self.tables.remove_rule(number)?;
                self.slots.retire(number, self.sweeps);
            }
        }
        for (number, rule) in wanted {
            let slot = match self.slots.get(*number) {
                Some(slot) => slot,
                None => {
                    let slot = self.slots.take(*number).ok_or(Error::MapFull {
                        map: map_names::RULES,
                        max: MAX_RULES,
                    })?;
                    self.tables.clear_rule(slot)?;
                    slot
                }
            };
            self.tables.set_rule(*number, &rule.encode(slot))?;
        }
        for (number, rule) in wanted {
            let was_copy = self.rules.get(number).is_some_and(|rule| rule.is_copy);
            if was_copy && !rule.is_copy {
                self.since.insert(*number, now());
            }
        }
        self.since.retain(|number, _| wanted.contains_key(number));
        let has_left = |(number, address): &(u32, IpAddr)| {
            wanted
                .get(number)
                .is_some_and(|rule| rule.has_left(*address))
        };
        self.left.retain(|left, _| has_left(left));
        self.rules.clone_from(wanted);
        Ok(())
    }

    /// The addresses that rules have no more and connections have still, each with its rule and how
    /// long ago that was seen: [`GatewayRule::drain`] counts from then. For [`Self::restore_left`]
    /// of the next process.
    pub fn left(&self) -> impl Iterator<Item = ((u32, IpAddr), Duration)> {
        let now = now();
        let left = self.left.iter();
        left.map(move |(of, at)| (*of, duration_of(ticks_since(*at, now))))
    }

    /// Takes over what an earlier process knew. Before [`Self::sync_rules`], which forgets what its
    /// rules have again.
    pub fn restore_left(&mut self, left: impl IntoIterator<Item = ((u32, IpAddr), Duration)>) {
        let now = now();
        let left = left.into_iter();
        self.left = left
            .map(|(of, ago)| (of, now.wrapping_sub(ticks_of(ago))))
            .collect();
    }

    /// Makes the nodes pods' packets may come from exactly these: the outer addresses of their
    /// packets, reached back by this tunnel device, with the largest IP packet the tunnel to each
    /// takes whole, in bytes. Indexes of nodes that stay do not change.
    ///
    /// # Errors
    /// When there are too many, or a map cannot be written.
    pub fn sync_nodes(
        &mut self,
        tunnel: LinkIndex,
        wanted: &BTreeMap<IpAddr, u16>,
    ) -> Result<(), Error> {
        let gone: Vec<IpAddr> = self
            .nodes
            .keys()
            .filter(|address| !wanted.contains_key(address))
            .copied()
            .collect();
        for address in gone {
            self.tables.remove_node(widen(address))?;
            if let Some(index) = self.nodes.remove(&address) {
                self.tables.set_end(index, TunnelEnd::default())?;
            }
        }
        for (address, mtu) in wanted {
            let index = match self.nodes.get(address) {
                Some(index) => *index,
                None => self.free_node()?,
            };
            let end = TunnelEnd {
                address: widen(*address),
                source: source_for(*address, &self.own),
                ifindex: tunnel.0,
                ip_version: if address.is_ipv4() { 4 } else { 6 },
                mtu: *mtu,
                ..TunnelEnd::default()
            };
            self.tables.set_end(index, end)?;
            self.tables.set_node(widen(*address), index)?;
            self.nodes.insert(*address, index);
        }
        Ok(())
    }

    /// Says the largest IP packet the pods of this node take, in bytes; zero where there are none. Who
    /// sends them a larger one, which may not be cut, is told so.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn set_pods_mtu(&mut self, mtu: u16) -> Result<(), Error> {
        let end = TunnelEnd {
            is_local: 1,
            mtu,
            ..TunnelEnd::default()
        };
        self.tables.set_end(LOCAL_NODE, end)
    }

    /// Says by which address of each family other nodes know this one, for the next
    /// [`Self::sync_nodes`]; the routing table chooses where there is none.
    pub fn set_own_addresses(&mut self, own: &[IpAddr]) {
        self.own = own.to_vec();
    }

    /// Makes the devices the programs are on exactly these: the tunnel's and those towards the
    /// fabric. What fails for one stops no other.
    ///
    /// # Errors
    /// When the pin folder cannot be read at all.
    pub fn sync_devices(
        &mut self,
        tunnel: Option<LinkIndex>,
        fabric: &[LinkIndex],
    ) -> Result<SyncReport, Error> {
        let mut report = SyncReport::default();
        let wanted: BTreeSet<(Role, LinkIndex)> = tunnel
            .map(|link| (Role::EgressOut, link))
            .into_iter()
            .chain(fabric.iter().map(|link| (Role::EgressBack, *link)))
            .collect();
        for pin in self.all_pins()? {
            if !wanted.contains(&(pin.role, pin.link)) {
                match attach::detach(&pin) {
                    Ok(()) => report.pruned += 1,
                    Err(error) => report.failed.push((pin.link, error.into())),
                }
            }
        }
        for (role, link) in wanted {
            match self.attach(role, link) {
                Ok(Outcome::Attached) => report.added += 1,
                Ok(Outcome::Replaced) => report.changed += 1,
                Ok(Outcome::Unchanged) => report.unchanged += 1,
                Err(error) => report.failed.push((link, error)),
            }
        }
        Ok(report)
    }

    /// Makes every cached routing answer stale. Call it after changing routes, links or rules of
    /// routing; without the call a change is effective after 100 ms.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn routes_changed(&mut self) -> Result<(), Error> {
        self.tables.raise_route_generation()
    }

    /// Every mapping, in no order. With a million of them this takes a second and 200 MB: it is for
    /// people and for tests.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn mappings(&self) -> Result<Vec<Mapping>, Error> {
        let mut mappings = self.mappings_of::<V4>()?;
        mappings.extend(self.mappings_of::<V6>()?);
        Ok(mappings)
    }

    /// Puts a mapping in, both halves, as another gateway had it; mappings that have either half are
    /// replaced. Unknown nodes and rules are an error.
    ///
    /// # Errors
    /// When the rule or the node is not known here, or a map is full.
    pub fn set_mapping(&mut self, mapping: &Mapping) -> Result<(), Error> {
        let slot = self
            .slots
            .get(mapping.rule)
            .ok_or(Error::NoSuchRule(mapping.rule))?;
        let node = match mapping.node {
            PodNode::Here => LOCAL_NODE,
            PodNode::Native => NATIVE_NODE,
            PodNode::Tunnel(address) => {
                *self.nodes.get(&address).ok_or(Error::NoSuchNode(address))?
            }
        };
        let is_replicated = self
            .rules
            .get(&mapping.rule)
            .is_some_and(|rule| rule.is_replicated);
        self.tables.set_mapping(mapping, slot, node, is_replicated)
    }

    /// What the tables have for the connection of a mapping, which may be of another rule and have
    /// another egress address by now.
    ///
    /// # Errors
    /// When a map cannot be read, or the mapping is of two families.
    pub fn find(&self, of: &Mapping) -> Result<Option<Mapping>, Error> {
        match of.pod.ip() {
            IpAddr::V4(_) => self.find_of::<V4>(of),
            IpAddr::V6(_) => self.find_of::<V6>(of),
        }
    }

    /// Removes a mapping, both halves; one that is gone is removed already.
    ///
    /// # Errors
    /// When a map cannot be changed.
    pub fn remove_mapping(&mut self, mapping: &Mapping) -> Result<(), Error> {
        self.tables.remove_mapping(mapping)
    }

    /// What happened to mappings of replicated rules since the last call, at most `limit` of it:
    /// each is a mapping as it is now, new or changed. A mapping that ended is in [`Swept`]
    /// instead. What did not fit into the kernel's buffer is missing; [`Self::mappings`] has all.
    pub fn changes(&mut self, limit: usize) -> Vec<Mapping> {
        let mut events = Vec::new();
        while events.len() < limit {
            let Some(event) = self.tables.next_event() else {
                break;
            };
            events.push(event);
        }
        events
            .iter()
            .map(|event| mapping::from_event(event, self.node_of(event.node as u16)))
            .collect()
    }

    /// How many events were lost since the last call: if there are any, [`Self::changes`] left
    /// something out, and only the tables know all. To be asked after it: the buffer was full then.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn missed(&mut self) -> Result<u64, Error> {
        let lost = self.tables.events_lost()?;
        let before = std::mem::replace(&mut self.lost, lost);
        Ok(lost.saturating_sub(before))
    }

    /// Becomes readable when there are [`Self::changes`].
    #[must_use]
    pub fn events_fd(&self) -> BorrowedFd<'_> {
        self.tables.events_fd()
    }

    /// Some more mappings, of wanted rules only, at most a few hundred, as they are now; possibly none
    /// before the cursor is at its end. One that stays is seen once.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn next_mappings(
        &self,
        is_wanted: &dyn Fn(u32) -> bool,
        cursor: &mut Cursor,
    ) -> Result<Vec<Mapping>, Error> {
        let mut found = Vec::new();
        if cursor.v4.is_some() {
            self.next_of::<V4>(is_wanted, &mut cursor.v4, &mut found)?;
        } else {
            self.next_of::<V6>(is_wanted, &mut cursor.v6, &mut found)?;
        }
        Ok(found)
    }

    /// Removes mappings that are idle for longer than their rule lets them, halves without the
    /// other one, and what belongs to rules that are gone. Says how many mappings each rule has.
    ///
    /// # Errors
    /// When a map cannot be read or written.
    pub fn sweep(&mut self) -> Result<Swept, Error> {
        let mut sweep = Sweep::default();
        while !self.sweep_on(&mut sweep)? {}
        Ok(sweep.swept)
    }

    /// The same in portions of a few milliseconds; whether that was the last one.
    ///
    /// # Errors
    /// When a map cannot be read or written.
    pub fn sweep_on(&mut self, sweep: &mut Sweep) -> Result<bool, Error> {
        if !self.sweep_next(sweep)? {
            return Ok(false);
        }
        self.sweeps += 1;
        // A mapping that was made while its rule went away is found by the second sweep after.
        self.slots.release(self.sweeps);
        Ok(true)
    }

    /// How many connections the mappings in the tables belong to, by rule; also those of rules that
    /// are not set. For a start: what lives must not be forgotten.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn live(&self) -> Result<BTreeMap<u32, u64>, Error> {
        let mut live = BTreeMap::new();
        self.count_family::<V4>(&mut live)?;
        self.count_family::<V6>(&mut live)?;
        Ok(live)
    }

    /// Every rule with its traffic, in order of numbers.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn rules(&self) -> Result<Vec<RuleState>, Error> {
        let mut states = Vec::with_capacity(self.rules.len());
        for (number, rule) in &self.rules {
            let Some(slot) = self.slots.get(*number) else {
                continue;
            };
            states.push(RuleState {
                number: *number,
                rule: rule.clone(),
                traffic: self.tables.traffic(slot)?,
                refusals: self.tables.refusals_of(slot)?,
            });
        }
        Ok(states)
    }

    /// Refused packets of the whole gateway by reason; every reason, also those that never
    /// occurred.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn refusals(&self) -> Result<Vec<DropCount>, Error> {
        self.tables.refusals()
    }

    /// Detaches everything and removes every pin, and with them every connection.
    ///
    /// # Errors
    /// When a pin or filter cannot be removed.
    pub fn uninstall(self) -> Result<(), Error> {
        Datapath::uninstall_pins(&self.root)
    }

    /// The same without a loaded gateway: for a node that is none any more, or when
    /// [`Self::open`] fails. `pin_root` is the one of [`GatewayConfig`].
    ///
    /// # Errors
    /// When a pin or filter cannot be removed.
    pub fn uninstall_pins(pin_root: &Path) -> Result<(), Error> {
        Datapath::uninstall_pins(&root_below(pin_root))
    }

    /// Whether an earlier process left a gateway here.
    #[must_use]
    pub fn is_installed(pin_root: &Path) -> bool {
        pins::layout_folders(&root_below(pin_root)).is_ok_and(|folders| !folders.is_empty())
    }

    /// How many mappings of each family the tables that are in use can hold, which is what
    /// [`GatewayConfig::max_mappings`] was when they were made; none where there are no tables.
    #[must_use]
    pub fn capacity(pin_root: &Path) -> Option<u32> {
        let folder = pins::own_folder(&root_below(pin_root), load::GATEWAY.layout_hash);
        let info = MapInfo::from_pin(folder.join(map_names::NAT_V4)).ok()?;
        // Each mapping has two halves.
        Some(info.max_entries() / 2)
    }

    /// Removes pins of devices that are gone, and folders of other layouts nothing is attached
    /// from.
    ///
    /// # Errors
    /// When the pin folder cannot be read.
    pub fn reap(&mut self) -> Result<(), Error> {
        for pin in self.all_pins()? {
            if !attach::is_alive(&pin) {
                pins::remove_file(&pin.path())
                    .map_err(|source| folder_failed("remove", &pin.path(), source))?;
            }
        }
        for folder in self.layout_folders()? {
            if folder != self.folder && self.pins_in(&folder)?.is_empty() {
                pins::remove_folder(&folder)
                    .map_err(|source| folder_failed("remove", &folder, source))?;
            }
        }
        Ok(())
    }

    fn free_node(&mut self) -> Result<u16, Error> {
        let used: BTreeSet<u16> = self.nodes.values().copied().collect();
        let max = bpf_abi::nat::MAX_NODES as u16;
        let after = (self.next_node..max).chain(LOCAL_NODE + 1..self.next_node);
        let free = after
            .into_iter()
            .find(|index| !used.contains(index))
            .ok_or(Error::MapFull {
                map: map_names::TUNNEL_ENDS,
                max: u32::from(max),
            })?;
        self.next_node = free + 1;
        Ok(free)
    }

    /// How answers get to the pods of a node.
    fn node_of(&self, index: u16) -> PodNode {
        match index {
            LOCAL_NODE => PodNode::Here,
            NATIVE_NODE => PodNode::Native,
            _ => match self.tables.end(index) {
                Ok(end) if end.ip_version != 0 => {
                    PodNode::Tunnel(narrow(end.address, end.ip_version))
                }
                // A node that is gone: answers are refused.
                Ok(_) | Err(_) => PodNode::Here,
            },
        }
    }

    fn attach(&mut self, role: Role, link: LinkIndex) -> Result<Outcome, Error> {
        let device = Device::find(link)?;
        device.require_ethernet()?;
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
        Ok(attach::attach(program, &wanted, &device, &existing)?)
    }

    /// Attachment pins of every layout, this one's first.
    fn all_pins(&self) -> Result<Vec<AttachmentPin>, Error> {
        let mut all = self.pins_in(&self.folder)?;
        for folder in self.layout_folders()? {
            if folder != self.folder {
                all.extend(self.pins_in(&folder)?);
            }
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

/// Now, in the unit of mappings and by the programs' clock.
pub(crate) fn now() -> u32 {
    let since_boot = clock::monotonic().as_nanos();
    bpf_abi::nat::tick(u64::try_from(since_boot).unwrap_or(u64::MAX))
}

fn root_below(pin_root: &Path) -> PathBuf {
    pin_root.join("gateway")
}

fn folder_failed(action: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::PinFolder {
        action,
        path: path.to_owned(),
        source,
    }
}
