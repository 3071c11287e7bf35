// SPDX-License-Identifier: Apache-2.0
//! The packet sockets that are open, and what the kernel forwards.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::Sender;

use crate::link_socket::{Family, LinkSocket};

/// A device, by its index, and a family.
pub(crate) type Place = (u32, Family);

/// Packet sockets by place.
#[derive(Debug)]
pub(crate) struct Links {
    sockets: BTreeMap<Place, LinkSocket>,
    /// To close one the kernel waits for all processors, tens of milliseconds: others do that.
    closing: Sender<LinkSocket>,
}

impl Links {
    pub(crate) fn new(closing: Sender<LinkSocket>) -> Links {
        Links {
            sockets: BTreeMap::new(),
            closing,
        }
    }

    pub(crate) fn get(&self, place: Place) -> Option<&LinkSocket> {
        self.sockets.get(&place)
    }

    /// All of them, in order.
    pub(crate) fn places(&self) -> Vec<Place> {
        self.sockets.keys().copied().collect()
    }

    /// All of them, in the same order.
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.values().map(LinkSocket::as_fd)
    }

    /// Opens the one at a place where it is not open.
    ///
    /// # Errors
    /// As [`LinkSocket::open`].
    pub(crate) fn open(&mut self, (interface, family): Place) -> std::io::Result<()> {
        if let Entry::Vacant(place) = self.sockets.entry((interface, family)) {
            place.insert(LinkSocket::open(interface, family)?);
        }
        Ok(())
    }

    /// Closes all but these.
    pub(crate) fn retain(&mut self, needed: &BTreeSet<Place>) {
        for (_, socket) in self
            .sockets
            .extract_if(.., |place, _| !needed.contains(place))
        {
            // Where nobody closes it for us, this does when it drops the error.
            let _ = self.closing.send(socket);
        }
    }
}

/// Whether the kernel forwards packets that come over a device, back over it included.
pub(crate) fn forwards((interface, family): Place) -> bool {
    let is_on = |path: &str| {
        let text = std::fs::read_to_string(path);
        text.is_ok_and(|text| text.trim() != "0")
    };
    let is_on_for_device = |family: &str, setting: &str| {
        nix::net::if_::if_indextoname(interface).is_ok_and(|name| {
            let name = name.to_string_lossy();
            is_on(&format!("/proc/sys/net/{family}/conf/{name}/{setting}"))
        })
    };
    match family {
        Family::V4 => is_on_for_device("ipv4", "forwarding"),
        // `forwarding` of a device says whether the kernel acts as a host there: it forwards all
        // the same. `force_forwarding` came with Linux 6.17.
        Family::V6 => {
            is_on("/proc/sys/net/ipv6/conf/all/forwarding")
                || is_on_for_device("ipv6", "force_forwarding")
        }
    }
}

/// Addresses of this node that are on no link: those of its loopback device that are not the
/// host's own business.
///
/// # Errors
/// When the kernel does not list its addresses.
pub(crate) fn loopback_addresses() -> std::io::Result<Vec<IpAddr>> {
    use nix::net::if_::InterfaceFlags;
    let all = nix::ifaddrs::getifaddrs()?;
    Ok(all
        .filter(|one| one.flags.contains(InterfaceFlags::IFF_LOOPBACK))
        .filter_map(|one| {
            let address = one.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
        })
        .filter(|address| match address {
            IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
            IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
        })
        .collect())
}
