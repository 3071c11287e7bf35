// SPDX-License-Identifier: Apache-2.0
//! What the kernel says about a device of the calling thread's network namespace.

use std::{
    ffi::CStr,
    io, mem,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use router_types::LinkIndex;

use crate::{AttachError, MacAddr};

/// A device that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) mac: MacAddr,
    /// `ARPHRD_*` number.
    pub(crate) hardware_type: u16,
}

impl Device {
    /// Looks a device up by its index.
    pub(crate) fn find(link: LinkIndex) -> Result<Self, AttachError> {
        let name = name_of(link).ok_or(AttachError::NoDevice { ifindex: link.0 })?;
        let (hardware_type, mac) = hardware_address(&name).map_err(|source| {
            if source.raw_os_error() == Some(libc::ENODEV) {
                AttachError::NoDevice { ifindex: link.0 }
            } else {
                AttachError::Query {
                    what: "the hardware address",
                    name: name.clone(),
                    source,
                }
            }
        })?;
        Ok(Self {
            name,
            mac,
            hardware_type,
        })
    }

    /// Refuses devices that carry no Ethernet frames.
    pub(crate) fn require_ethernet(&self) -> Result<(), AttachError> {
        match self.hardware_type {
            libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => Ok(()),
            hardware_type => Err(AttachError::NotEthernet {
                name: self.name.clone(),
                hardware_type,
            }),
        }
    }

    /// Refuses a device that is not the one the caller means.
    pub(crate) fn require_mac(
        &self,
        link: LinkIndex,
        expected: MacAddr,
    ) -> Result<(), AttachError> {
        if self.mac == expected {
            return Ok(());
        }
        Err(AttachError::OtherDevice {
            ifindex: link.0,
            name: self.name.clone(),
            found: self.mac,
            expected,
        })
    }
}

/// Name of the device with this index, if there is one.
pub(crate) fn name_of(link: LinkIndex) -> Option<String> {
    let mut buffer = [0 as libc::c_char; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size the call requires.
    let found = unsafe { libc::if_indextoname(link.0, buffer.as_mut_ptr()) };
    if found.is_null() {
        return None;
    }
    // SAFETY: on success the call wrote a string with its terminating zero.
    let name = unsafe { CStr::from_ptr(buffer.as_ptr()) };
    name.to_str().ok().map(str::to_owned)
}

/// `SO_NETNS_COOKIE` of the calling thread's network namespace: a number no other namespace gets
/// until the machine restarts. Zero where the kernel is too old to tell (before 5.14).
pub(crate) fn netns_cookie() -> io::Result<u64> {
    let socket = datagram_socket()?;
    let mut cookie = 0_u64;
    let mut length = mem::size_of::<u64>() as libc::socklen_t;
    // SAFETY: the pointers describe live local values of the right size.
    let code = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &mut length,
        )
    };
    if code == 0 {
        return Ok(cookie);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ENOPROTOOPT) {
        Ok(0)
    } else {
        Err(error)
    }
}

fn hardware_address(name: &str) -> io::Result<(u16, MacAddr)> {
    let socket = datagram_socket()?;
    // SAFETY: plain numbers; all zero is a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request
        .ifr_name
        .iter_mut()
        .zip(name.bytes())
        .take(libc::IF_NAMESIZE - 1)
    {
        *to = from as libc::c_char;
    }
    // SAFETY: the kernel fills the request it is given.
    let code = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &mut request) };
    if code != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the member this call fills; every bit pattern is a value.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    let mut mac = [0; 6];
    for (to, from) in mac.iter_mut().zip(address.sa_data) {
        *to = from as u8;
    }
    Ok((address.sa_family, MacAddr(mac)))
}

fn datagram_socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor this call made, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_is_found_and_unknown_indexes_are_not() {
        let device = Device::find(LinkIndex(1)).expect("every namespace has a loopback device");
        assert_eq!(device.name, "lo");
        assert_eq!(device.hardware_type, libc::ARPHRD_LOOPBACK);
        assert_eq!(device.mac, MacAddr([0; 6]));
        let other = device
            .require_mac(LinkIndex(1), MacAddr([2, 0, 0, 0, 0, 1]))
            .unwrap_err();
        assert!(other.to_string().contains("replaced"), "{other}");
        let gone = Device::find(LinkIndex(0x7fff_fff0)).unwrap_err();
        assert!(matches!(gone, AttachError::NoDevice { .. }), "{gone}");
    }

    #[test]
    fn the_namespace_has_a_cookie_that_stays() {
        let first = netns_cookie().expect("a socket can be made");
        assert_eq!(first, netns_cookie().expect("a socket can be made"));
    }
}
