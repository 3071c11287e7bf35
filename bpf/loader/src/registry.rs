// SPDX-License-Identifier: Apache-2.0
//! What the maps hold, as endpoints: read once at the start, kept in step afterwards.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use bpf_abi::{AddressEntry, DeviceEntry, MAX_ENDPOINTS};
use router_types::LinkIndex;

use crate::{Endpoint, EndpointId, Error, MacAddr};

/// An endpoint in the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) endpoint: Endpoint,
    pub(crate) slot: u32,
}

/// All endpoints in the maps.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    by_id: BTreeMap<EndpointId, Known>,
}

impl Registry {
    /// Rebuilds the endpoints from the maps of an earlier process. Also returns addresses that
    /// point to no device: a process that died between two writes leaves them.
    pub(crate) fn from_maps(
        devices: &[(LinkIndex, DeviceEntry)],
        addresses: &[(IpAddr, AddressEntry)],
    ) -> (Self, Vec<IpAddr>) {
        let mut by_link: BTreeMap<LinkIndex, Known> = BTreeMap::new();
        for (link, device) in devices {
            let endpoint = Endpoint {
                id: EndpointId(device.endpoint_id),
                link: *link,
                host_mac: MacAddr(device.host_mac),
                pod_mac: MacAddr(device.pod_mac),
                addresses: Vec::new(),
                mtu: device.mtu,
            };
            by_link.insert(
                *link,
                Known {
                    endpoint,
                    slot: device.slot,
                },
            );
        }
        let mut orphans = Vec::new();
        for (address, entry) in addresses {
            match by_link.get_mut(&LinkIndex(entry.ifindex)) {
                Some(known) => known.endpoint.addresses.push(*address),
                None => orphans.push(*address),
            }
        }
        let mut registry = Self::default();
        for (_, mut known) in by_link {
            known.endpoint.addresses.sort();
            // Two devices of one endpoint: it was being moved. The later device is the new one.
            if let Some(older) = registry.by_id.insert(known.endpoint.id, known) {
                orphans.extend(older.endpoint.addresses);
            }
        }
        (registry, orphans)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Known> {
        self.by_id.values()
    }

    pub(crate) fn get(&self, id: EndpointId) -> Option<&Known> {
        self.by_id.get(&id)
    }

    pub(crate) fn insert(&mut self, known: Known) {
        self.by_id.insert(known.endpoint.id, known);
    }

    pub(crate) fn remove(&mut self, id: EndpointId) -> Option<Known> {
        self.by_id.remove(&id)
    }

    /// Slots and devices in use, to tell strays in the maps.
    pub(crate) fn links(&self) -> BTreeSet<LinkIndex> {
        self.iter().map(|known| known.endpoint.link).collect()
    }

    /// The endpoint that stands in the way of this one, with the reason.
    pub(crate) fn conflict(&self, wanted: &Endpoint) -> Option<(EndpointId, Error)> {
        for known in self.iter().filter(|known| known.endpoint.id != wanted.id) {
            let owner = known.endpoint.id;
            if known.endpoint.link == wanted.link {
                let ifindex = wanted.link.0;
                return Some((
                    owner,
                    Error::DeviceTaken {
                        ifindex,
                        wanted_by: wanted.id,
                        owner,
                    },
                ));
            }
            let taken = wanted
                .addresses
                .iter()
                .find(|a| known.endpoint.addresses.contains(a));
            if let Some(address) = taken.copied() {
                return Some((
                    owner,
                    Error::AddressTaken {
                        address,
                        wanted_by: wanted.id,
                        owner,
                    },
                ));
            }
        }
        None
    }

    /// The slot for an endpoint: its own if it has one, else the lowest free one.
    pub(crate) fn slot_for(&self, id: EndpointId) -> Option<u32> {
        if let Some(known) = self.get(id) {
            return Some(known.slot);
        }
        let used: BTreeSet<u32> = self.iter().map(|known| known.slot).collect();
        (0..MAX_ENDPOINTS).find(|slot| !used.contains(slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(id: u32, link: u32, address: &str) -> Endpoint {
        Endpoint {
            id: EndpointId(id),
            link: LinkIndex(link),
            host_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            pod_mac: MacAddr([2, 0, 0, 0, 0, 2]),
            addresses: vec![address.parse().expect("an address")],
            mtu: 1500,
        }
    }

    fn device(id: u32, slot: u32) -> DeviceEntry {
        DeviceEntry {
            endpoint_id: id,
            slot,
            mtu: 1500,
            ..DeviceEntry::default()
        }
    }

    #[test]
    fn endpoints_are_rebuilt_from_maps_and_strays_are_named() {
        let v4: IpAddr = "10.0.0.1".parse().expect("an address");
        let v6: IpAddr = "fd00::1".parse().expect("an address");
        let stray: IpAddr = "10.0.0.9".parse().expect("an address");
        let entry = |ifindex| AddressEntry {
            ifindex,
            ..AddressEntry::default()
        };
        let (registry, orphans) = Registry::from_maps(
            &[(LinkIndex(7), device(1, 4))],
            &[(v6, entry(7)), (stray, entry(8)), (v4, entry(7))],
        );
        let known = registry.get(EndpointId(1)).expect("it is there");
        assert_eq!(known.endpoint.addresses, [v4, v6]);
        assert_eq!(known.slot, 4);
        assert_eq!(orphans, [stray]);
    }

    #[test]
    fn slots_are_kept_by_their_endpoint_and_reused_when_free() {
        let mut registry = Registry::default();
        for (id, slot) in [(10, 0), (11, 1), (12, 2)] {
            let endpoint = endpoint(id, id, &format!("10.0.0.{id}"));
            registry.insert(Known { endpoint, slot });
        }
        assert_eq!(registry.slot_for(EndpointId(11)), Some(1));
        assert_eq!(registry.slot_for(EndpointId(99)), Some(3));
        registry.remove(EndpointId(11));
        assert_eq!(registry.slot_for(EndpointId(99)), Some(1));
    }

    #[test]
    fn a_full_node_has_no_slot_left() {
        let mut registry = Registry::default();
        for id in 0..MAX_ENDPOINTS {
            let endpoint = endpoint(id, id + 2, "10.0.0.1");
            registry.insert(Known { endpoint, slot: id });
        }
        assert_eq!(registry.slot_for(EndpointId(MAX_ENDPOINTS)), None);
    }

    #[test]
    fn conflicts_name_what_is_shared_and_an_endpoint_never_conflicts_with_itself() {
        let mut registry = Registry::default();
        registry.insert(Known {
            endpoint: endpoint(1, 7, "10.0.0.1"),
            slot: 0,
        });
        assert!(registry.conflict(&endpoint(1, 8, "10.0.0.1")).is_none());
        assert!(registry.conflict(&endpoint(2, 8, "10.0.0.2")).is_none());
        let (owner, error) = registry
            .conflict(&endpoint(2, 8, "10.0.0.1"))
            .expect("one address");
        assert_eq!(owner, EndpointId(1));
        assert!(matches!(error, Error::AddressTaken { .. }), "{error}");
        let (_, error) = registry
            .conflict(&endpoint(2, 7, "10.0.0.2"))
            .expect("one device");
        assert!(matches!(error, Error::DeviceTaken { .. }), "{error}");
    }
}
