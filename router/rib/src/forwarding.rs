// SPDX-License-Identifier: Apache-2.0
//! Next-hop sets, stored once each, and what they resolve to.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use router_types::{Forwarding, NextHop, TableId};

use crate::topology::{KernelRoute, Topology};

/// Greatest weight the kernel takes.
const WEIGHT_MAX: u16 = 256;

/// Why a next hop cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unresolved {
    /// No route of anybody else leads to it.
    NoRoute,
    /// Only the default route leads to it, which does not count.
    OnlyDefaultRoute,
    /// The route to it drops packets.
    Discarded,
    /// It is one of this node's own addresses.
    OwnAddress,
    /// A link-local address without a device, or neither address nor device.
    NoDevice,
    /// The device is not there (any more).
    DeviceGone,
    /// The device, by name, is down.
    DeviceDown(String),
    /// The device, by name, has no carrier: the cable or the other end is gone.
    NoCarrier(String),
    /// An IPv6 destination cannot have an IPv4 next hop.
    WrongFamily,
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unresolved::NoRoute => f.write_str("no connected network or other route leads to it"),
            Unresolved::OnlyDefaultRoute => {
                f.write_str("only a default route leads to it, which does not resolve next hops")
            }
            Unresolved::Discarded => f.write_str("the route to it drops packets"),
            Unresolved::OwnAddress => f.write_str("it is an address of this node"),
            Unresolved::NoDevice => f.write_str("it is link-local and no device is known for it"),
            Unresolved::DeviceGone => f.write_str("its device is gone"),
            Unresolved::DeviceDown(name) => write!(f, "device {name} is down"),
            Unresolved::NoCarrier(name) => write!(f, "device {name} has no carrier"),
            Unresolved::WrongFamily => {
                f.write_str("an IPv6 destination cannot have an IPv4 next hop")
            }
        }
    }
}

/// Where a next hop leads, and how far it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Resolved {
    pub(crate) hops: Vec<NextHop>,
    pub(crate) metric: u32,
}

/// Finds the device and gateway for a next hop. See the crate's documentation for the rules.
pub(crate) fn resolve(
    topology: &Topology,
    via_default: bool,
    context: Context,
    hop: NextHop,
) -> Result<Resolved, Unresolved> {
    let Some(via) = hop.via else {
        check_device(topology, hop)?;
        return Ok(Resolved {
            hops: vec![hop],
            metric: 0,
        });
    };
    if context.ipv6 && via.is_ipv4() {
        return Err(Unresolved::WrongFamily);
    }
    if topology.is_own_address(via) {
        return Err(Unresolved::OwnAddress);
    }
    if is_link_local(via) {
        check_device(topology, hop)?;
        return Ok(Resolved {
            hops: vec![hop],
            metric: 0,
        });
    }
    let route = topology
        .lookup(context.table, via, hop.link)
        .or_else(|| topology.lookup(TableId::MAIN, via, hop.link))
        .ok_or_else(|| match hop.link.map(|link| topology.link(link)) {
            Some(None) => Unresolved::DeviceGone,
            Some(Some(_)) | None => Unresolved::NoRoute,
        })?;
    if route.key.prefix.prefix_len() == 0 && !via_default {
        return Err(Unresolved::OnlyDefaultRoute);
    }
    let hops = over_route(topology, route, hop, via)?;
    Ok(Resolved {
        hops,
        metric: if route.connected { 0 } else { route.metric },
    })
}

/// What a next-hop set belongs to: resolution depends on it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Context {
    pub(crate) table: TableId,
    pub(crate) ipv6: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct ForwardingId(u32);

impl ForwardingId {
    /// Position in what [`Forwardings::resolve_all`] returns.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A candidate's forwarding, with what it resolves to.
#[derive(Debug)]
pub(crate) struct Interned {
    pub(crate) context: Context,
    /// What the candidate says.
    pub(crate) wanted: Forwarding,
    /// What the kernel gets when this candidate is alone; `None` when no next hop is usable.
    pub(crate) outcome: Option<Arc<Forwarding>>,
    users: u32,
}

/// All forwardings of candidates, each stored once.
#[derive(Debug, Default)]
pub(crate) struct Forwardings {
    ids: BTreeMap<(Context, Forwarding), ForwardingId>,
    entries: Vec<Option<Interned>>,
    free: Vec<ForwardingId>,
    /// Resolved sets in use: what is equal is shared.
    shared: BTreeMap<Vec<NextHop>, Arc<Forwarding>>,
    unreachable: Option<Arc<Forwarding>>,
    blackhole: Option<Arc<Forwarding>>,
}

impl Forwardings {
    pub(crate) fn get(&self, id: ForwardingId) -> &Interned {
        self.entries[id.0 as usize]
            .as_ref()
            .expect("an id is released by its last user only")
    }

    /// Adds a user of a forwarding.
    pub(crate) fn acquire(
        &mut self,
        topology: &Topology,
        via_default: bool,
        context: Context,
        forwarding: Forwarding,
    ) -> ForwardingId {
        let wanted = match forwarding {
            Forwarding::Via(mut hops) => {
                hops.sort_unstable();
                hops.dedup();
                Forwarding::Via(hops)
            }
            Forwarding::Unreachable | Forwarding::Blackhole => forwarding,
        };
        let key = (context, wanted);
        if let Some(id) = self.ids.get(&key) {
            let id = *id;
            self.entries[id.0 as usize]
                .as_mut()
                .expect("an id in the index is in use")
                .users += 1;
            return id;
        }
        let outcome = self.outcome(topology, via_default, context, &key.1);
        let interned = Interned {
            context,
            wanted: key.1.clone(),
            outcome,
            users: 1,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.entries[id.0 as usize] = Some(interned);
                id
            }
            None => {
                self.entries.push(Some(interned));
                ForwardingId(u32::try_from(self.entries.len() - 1).expect("fewer than 2^32 sets"))
            }
        };
        self.ids.insert(key, id);
        id
    }

    /// Takes a user away.
    pub(crate) fn release(&mut self, id: ForwardingId) {
        let slot = &mut self.entries[id.0 as usize];
        let Some(interned) = slot else { return };
        interned.users -= 1;
        if interned.users == 0
            && let Some(interned) = slot.take()
        {
            self.ids.remove(&(interned.context, interned.wanted));
            self.free.push(id);
        }
    }

    /// Resolves everything anew; returns which forwardings changed, by id.
    pub(crate) fn resolve_all(&mut self, topology: &Topology, via_default: bool) -> Vec<bool> {
        self.shared
            .retain(|_, forwarding| Arc::strong_count(forwarding) > 1);
        let mut changed = vec![false; self.entries.len()];
        for (index, changed) in changed.iter_mut().enumerate() {
            let Some(mut interned) = self.entries[index].take() else {
                continue;
            };
            let outcome = self.outcome(topology, via_default, interned.context, &interned.wanted);
            *changed = outcome != interned.outcome;
            interned.outcome = outcome;
            self.entries[index] = Some(interned);
        }
        changed
    }

    /// The one shared copy of a set of resolved next hops.
    pub(crate) fn share(&mut self, mut hops: Vec<NextHop>) -> Arc<Forwarding> {
        // Same way twice: once, with the greater weight.
        hops.sort_unstable_by_key(|hop| (hop.via, hop.link, u16::MAX - hop.weight));
        hops.dedup_by_key(|hop| (hop.via, hop.link));
        hops.sort_unstable();
        match self.shared.get(&hops) {
            Some(forwarding) => Arc::clone(forwarding),
            None => {
                let forwarding = Arc::new(Forwarding::Via(hops.clone()));
                self.shared.insert(hops, Arc::clone(&forwarding));
                forwarding
            }
        }
    }

    pub(crate) fn unreachable(&mut self) -> Arc<Forwarding> {
        Arc::clone(
            self.unreachable
                .get_or_insert_with(|| Arc::new(Forwarding::Unreachable)),
        )
    }

    pub(crate) fn blackhole(&mut self) -> Arc<Forwarding> {
        Arc::clone(
            self.blackhole
                .get_or_insert_with(|| Arc::new(Forwarding::Blackhole)),
        )
    }

    fn outcome(
        &mut self,
        topology: &Topology,
        via_default: bool,
        context: Context,
        wanted: &Forwarding,
    ) -> Option<Arc<Forwarding>> {
        let hops = match wanted {
            Forwarding::Via(hops) => hops,
            Forwarding::Unreachable => return Some(self.unreachable()),
            Forwarding::Blackhole => return Some(self.blackhole()),
        };
        let resolved: Vec<NextHop> = hops
            .iter()
            .filter_map(|hop| resolve(topology, via_default, context, *hop).ok())
            .flat_map(|resolved| resolved.hops)
            .collect();
        (!resolved.is_empty()).then(|| self.share(resolved))
    }
}

fn over_route(
    topology: &Topology,
    route: &KernelRoute,
    hop: NextHop,
    via: IpAddr,
) -> Result<Vec<NextHop>, Unresolved> {
    let mut problem = Unresolved::Discarded;
    let mut hops = Vec::new();
    for way in &route.next_hops {
        if hop.link.is_some() && way.link != hop.link {
            continue;
        }
        if let Err(unresolved) = check_device(topology, *way) {
            problem = unresolved;
            continue;
        }
        hops.push(NextHop {
            via: Some(way.via.unwrap_or(via)),
            link: way.link,
            weight: hop.weight.saturating_mul(way.weight).clamp(1, WEIGHT_MAX),
        });
    }
    if hops.is_empty() {
        Err(problem)
    } else {
        Ok(hops)
    }
}

fn check_device(topology: &Topology, hop: NextHop) -> Result<(), Unresolved> {
    let index = hop.link.ok_or(Unresolved::NoDevice)?;
    let link = topology.link(index).ok_or(Unresolved::DeviceGone)?;
    if !link.up {
        return Err(Unresolved::DeviceDown(link.name.clone()));
    }
    if !link.carrier {
        return Err(Unresolved::NoCarrier(link.name.clone()));
    }
    Ok(())
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}
