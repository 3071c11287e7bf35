// SPDX-License-Identifier: Apache-2.0
//! Addresses that Causeway holds for pods, and what else is served at them.

use std::{collections::BTreeSet, net::IpAddr};

use bpf_abi::nat::{ServedPort, V6};

use super::{Gateway, widen};
use crate::Error;

/// Something that is served at a held address, by this node or by whom its kernel translates it to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// Protocol number: of TCP or UDP.
    pub protocol: u8,
    /// The port.
    pub port: u16,
}

impl Gateway {
    /// Makes the addresses that nobody but pods has exactly these: packets to them that belong to no
    /// mapping are refused, since the kernel would answer that nobody is there. It answers echo
    /// requests, and [services](Self::sync_served).
    ///
    /// # Errors
    /// When there are more than [`bpf_abi::nat::MAX_HELD`], or the map cannot be written.
    pub fn sync_held(&mut self, wanted: impl Iterator<Item = IpAddr>) -> Result<(), Error> {
        let wanted: BTreeSet<V6> = wanted.map(widen).collect();
        self.add_held(&wanted)?;
        let gone: Vec<V6> = self.held.difference(&wanted).copied().collect();
        for gone in gone {
            self.tables.remove_held(gone)?;
            self.held.remove(&gone);
        }
        Ok(())
    }

    /// The same for those that will be such addresses; none stops being one.
    ///
    /// # Errors
    /// As [`Self::sync_held`].
    pub fn guard(&mut self, coming: impl Iterator<Item = IpAddr>) -> Result<(), Error> {
        self.add_held(&coming.map(widen).collect())
    }

    fn add_held(&mut self, wanted: &BTreeSet<V6>) -> Result<(), Error> {
        for address in wanted {
            if !self.held.contains(address) {
                self.tables.set_held(*address)?;
                self.held.insert(*address);
            }
        }
        Ok(())
    }

    /// Makes what is served at held addresses exactly this: its packets are the kernel's, but for those
    /// of a mapping.
    ///
    /// # Errors
    /// When there are more than [`bpf_abi::nat::MAX_SERVED`], or the map cannot be written.
    pub fn sync_served(
        &mut self,
        wanted: impl Iterator<Item = (IpAddr, Service)>,
    ) -> Result<(), Error> {
        let wanted: BTreeSet<(V6, Service)> = wanted
            .map(|(address, service)| (widen(address), service))
            .collect();
        let gone: Vec<(V6, Service)> = self.served.difference(&wanted).copied().collect();
        for gone in gone {
            self.tables.remove_served(port_of(gone))?;
            self.served.remove(&gone);
        }
        for served in wanted {
            if !self.served.contains(&served) {
                self.tables.set_served(port_of(served))?;
                self.served.insert(served);
            }
        }
        Ok(())
    }
}

fn port_of((address, service): (V6, Service)) -> ServedPort {
    ServedPort {
        address,
        port: service.port.to_be(),
        protocol: service.protocol,
        reserved: 0,
    }
}

/// What a table says is served.
pub(super) fn service(served: ServedPort) -> (V6, Service) {
    let service = Service {
        protocol: served.protocol,
        port: u16::from_be(served.port),
    };
    (served.address, service)
}
