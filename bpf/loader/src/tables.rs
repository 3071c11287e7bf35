// SPDX-License-Identifier: Apache-2.0
//! The maps, typed.

use std::net::IpAddr;

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues},
    util::nr_cpus,
};
use bpf_abi::{
    AddressEntry, DeviceEntry, DropCounter, DropKey, DropReason, EndpointCounters, MAX_ADDRESSES,
    MAX_ENDPOINTS, Plain, map_names,
};
use router_types::LinkIndex;

use crate::{DropCount, Error, OpenError, status::EndpointTraffic};

/// Lets a shared type cross aya's boundary: `Plain` promises what `Pod` asks for.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes<T>(pub(crate) T);

// SAFETY: `Plain` types are `repr(C)` without padding and have a value for every bit pattern, and
// the wrapper is transparent.
unsafe impl<T: Plain> Pod for Bytes<T> {}

/// Every map of the data plane.
pub(crate) struct Tables {
    endpoints_v4: HashMap<MapData, [u8; 4], Bytes<AddressEntry>>,
    endpoints_v6: HashMap<MapData, [u8; 16], Bytes<AddressEntry>>,
    devices: HashMap<MapData, u32, Bytes<DeviceEntry>>,
    counters: PerCpuArray<MapData, Bytes<EndpointCounters>>,
    endpoint_drops: PerCpuHashMap<MapData, Bytes<DropKey>, Bytes<DropCounter>>,
    drops: PerCpuArray<MapData, Bytes<DropCounter>>,
    route_generation: Array<MapData, u64>,
    owner: Array<MapData, u64>,
}

impl Tables {
    /// Takes the maps out of the loaded object.
    pub(crate) fn take(ebpf: &mut Ebpf) -> Result<Self, OpenError> {
        let mut take = |name: &'static str| {
            ebpf.take_map(name)
                .ok_or(OpenError::MissingPart { kind: "map", name })
        };
        Ok(Self {
            endpoints_v4: typed(take(map_names::ENDPOINTS_V4)?)?,
            endpoints_v6: typed(take(map_names::ENDPOINTS_V6)?)?,
            devices: typed(take(map_names::DEVICES)?)?,
            counters: typed(take(map_names::COUNTERS)?)?,
            endpoint_drops: typed(take(map_names::ENDPOINT_DROPS)?)?,
            drops: typed(take(map_names::DROPS)?)?,
            route_generation: typed(take(map_names::ROUTE_GENERATION)?)?,
            owner: typed(take(map_names::OWNER)?)?,
        })
    }

    /// Cookie of the network namespace these maps belong to; zero in fresh maps.
    pub(crate) fn owner(&self) -> Result<u64, Error> {
        self.owner
            .get(&0, 0)
            .map_err(failed("read", map_names::OWNER))
    }

    pub(crate) fn set_owner(&mut self, cookie: u64) -> Result<(), Error> {
        self.owner
            .set(0, cookie, 0)
            .map_err(failed("write", map_names::OWNER))
    }

    /// Makes every cached route stale.
    pub(crate) fn raise_route_generation(&mut self) -> Result<(), Error> {
        let name = map_names::ROUTE_GENERATION;
        let generation = self
            .route_generation
            .get(&0, 0)
            .map_err(failed("read", name))?;
        self.route_generation
            .set(0, generation.wrapping_add(1), 0)
            .map_err(failed("write", name))
    }

    pub(crate) fn devices(&self) -> Result<Vec<(LinkIndex, DeviceEntry)>, Error> {
        self.devices
            .iter()
            .map(|entry| entry.map(|(link, Bytes(device))| (LinkIndex(link), device)))
            .collect::<Result<_, _>>()
            .map_err(failed("read", map_names::DEVICES))
    }

    pub(crate) fn set_device(&mut self, link: LinkIndex, device: DeviceEntry) -> Result<(), Error> {
        self.devices
            .insert(link.0, Bytes(device), 0)
            .map_err(insert_failed(map_names::DEVICES, MAX_ENDPOINTS))
    }

    pub(crate) fn remove_device(&mut self, link: LinkIndex) -> Result<(), Error> {
        gone_is_fine(self.devices.remove(&link.0), map_names::DEVICES)
    }

    pub(crate) fn addresses(&self) -> Result<Vec<(IpAddr, AddressEntry)>, Error> {
        let v4 = self.endpoints_v4.iter().map(|entry| {
            entry
                .map(|(address, Bytes(entry))| (IpAddr::from(address), entry))
                .map_err(failed("read", map_names::ENDPOINTS_V4))
        });
        let v6 = self.endpoints_v6.iter().map(|entry| {
            entry
                .map(|(address, Bytes(entry))| (IpAddr::from(address), entry))
                .map_err(failed("read", map_names::ENDPOINTS_V6))
        });
        v4.chain(v6).collect()
    }

    pub(crate) fn set_address(
        &mut self,
        address: IpAddr,
        entry: AddressEntry,
    ) -> Result<(), Error> {
        match address {
            IpAddr::V4(v4) => self
                .endpoints_v4
                .insert(v4.octets(), Bytes(entry), 0)
                .map_err(insert_failed(map_names::ENDPOINTS_V4, MAX_ADDRESSES)),
            IpAddr::V6(v6) => self
                .endpoints_v6
                .insert(v6.octets(), Bytes(entry), 0)
                .map_err(insert_failed(map_names::ENDPOINTS_V6, MAX_ADDRESSES)),
        }
    }

    pub(crate) fn remove_address(&mut self, address: IpAddr) -> Result<(), Error> {
        match address {
            IpAddr::V4(v4) => gone_is_fine(
                self.endpoints_v4.remove(&v4.octets()),
                map_names::ENDPOINTS_V4,
            ),
            IpAddr::V6(v6) => gone_is_fine(
                self.endpoints_v6.remove(&v6.octets()),
                map_names::ENDPOINTS_V6,
            ),
        }
    }

    /// Traffic of a slot, summed over the CPUs.
    pub(crate) fn traffic(&self, slot: u32) -> Result<EndpointTraffic, Error> {
        let per_cpu = self
            .counters
            .get(&slot, 0)
            .map_err(failed("read", map_names::COUNTERS))?;
        let mut traffic = EndpointTraffic::default();
        for Bytes(counters) in per_cpu.iter() {
            traffic.tx_packets += counters.tx_packets;
            traffic.tx_bytes += counters.tx_bytes;
            traffic.rx_packets += counters.rx_packets;
            traffic.rx_bytes += counters.rx_bytes;
            traffic.tx_kernel_packets += counters.tx_kernel_packets;
        }
        for reason in DropReason::ALL {
            let key = Bytes(DropKey {
                slot,
                reason: u32::from(reason.number()),
            });
            match self.endpoint_drops.get(&key, 0) {
                Ok(per_cpu) => traffic.drops.push(sum(*reason, &per_cpu)),
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(failed("read", map_names::ENDPOINT_DROPS)(error)),
            }
        }
        Ok(traffic)
    }

    /// Forgets the traffic of a slot.
    pub(crate) fn clear_traffic(&mut self, slot: u32) -> Result<(), Error> {
        let zero = vec![Bytes(EndpointCounters::default()); cpus()?];
        let zero = PerCpuValues::try_from(zero).map_err(|source| Error::Map {
            action: "write",
            map: map_names::COUNTERS,
            source: source.into(),
        })?;
        self.counters
            .set(slot, zero, 0)
            .map_err(failed("write", map_names::COUNTERS))?;
        for reason in DropReason::ALL {
            let key = Bytes(DropKey {
                slot,
                reason: u32::from(reason.number()),
            });
            gone_is_fine(self.endpoint_drops.remove(&key), map_names::ENDPOINT_DROPS)?;
        }
        Ok(())
    }

    /// Drops of the whole node, every reason.
    pub(crate) fn drops(&self) -> Result<Vec<DropCount>, Error> {
        DropReason::ALL
            .iter()
            .map(|reason| {
                let per_cpu = self
                    .drops
                    .get(&u32::from(reason.number()), 0)
                    .map_err(failed("read", map_names::DROPS))?;
                Ok(sum(*reason, &per_cpu))
            })
            .collect()
    }

    /// Entries of a hash by name; `None` for arrays and unknown names.
    pub(crate) fn entries(&self, name: &str) -> Result<Option<u32>, Error> {
        let count = match name {
            map_names::ENDPOINTS_V4 => count(self.endpoints_v4.keys(), map_names::ENDPOINTS_V4)?,
            map_names::ENDPOINTS_V6 => count(self.endpoints_v6.keys(), map_names::ENDPOINTS_V6)?,
            map_names::DEVICES => count(self.devices.keys(), map_names::DEVICES)?,
            map_names::ENDPOINT_DROPS => {
                count(self.endpoint_drops.keys(), map_names::ENDPOINT_DROPS)?
            }
            _ => return Ok(None),
        };
        Ok(Some(count))
    }
}

pub(crate) fn typed<T>(map: Map) -> Result<T, OpenError>
where
    T: TryFrom<Map, Error = MapError>,
{
    T::try_from(map).map_err(|error| OpenError::Load(error.into()))
}

pub(crate) fn sum(reason: DropReason, per_cpu: &PerCpuValues<Bytes<DropCounter>>) -> DropCount {
    let packets = per_cpu.iter().map(|Bytes(counter)| counter.packets).sum();
    let bytes = per_cpu.iter().map(|Bytes(counter)| counter.bytes).sum();
    DropCount {
        reason,
        packets,
        bytes,
    }
}

fn count<K>(
    keys: impl Iterator<Item = Result<K, MapError>>,
    map: &'static str,
) -> Result<u32, Error> {
    let mut entries = 0;
    for key in keys {
        key.map_err(failed("read", map))?;
        entries += 1;
    }
    Ok(entries)
}

pub(crate) fn cpus() -> Result<usize, Error> {
    nr_cpus().map_err(|(what, source)| Error::Map {
        action: what,
        map: map_names::COUNTERS,
        source: source.into(),
    })
}

pub(crate) fn failed(action: &'static str, map: &'static str) -> impl Fn(MapError) -> Error {
    move |source| Error::Map {
        action,
        map,
        source: source.into(),
    }
}

pub(crate) fn insert_failed(map: &'static str, max: u32) -> impl Fn(MapError) -> Error {
    move |source| match &source {
        MapError::SyscallError(error) if error.io_error.raw_os_error() == Some(libc::E2BIG) => {
            Error::MapFull { map, max }
        }
        _ => Error::Map {
            action: "write",
            map,
            source: source.into(),
        },
    }
}

pub(crate) fn gone_is_fine(result: Result<(), MapError>, map: &'static str) -> Result<(), Error> {
    match result {
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(())
        }
        Err(MapError::KeyNotFound) | Ok(()) => Ok(()),
        Err(error) => Err(failed("remove from", map)(error)),
    }
}
