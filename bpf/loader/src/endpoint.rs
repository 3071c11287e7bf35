// SPDX-License-Identifier: Apache-2.0
//! A local endpoint, as the caller wants it.

use std::{fmt, net::IpAddr, str::FromStr};

use router_types::LinkIndex;

/// The number of an endpoint, chosen by its owner. It must mean the same endpoint after a restart:
/// counters are found again by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub u32);

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A MAC address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddr {
    type Err = MacAddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || MacAddrParseError(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(refused)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| refused())?;
        }
        if parts.next().is_some() {
            Err(refused())
        } else {
            Ok(Self(octets))
        }
    }
}

/// A text that is no MAC address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a MAC address, write six pairs of hex digits as in 02:00:00:00:00:01")]
pub struct MacAddrParseError(pub String);

/// One pod's attachment: its device, its addresses and who may use them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its number.
    pub id: EndpointId,
    /// Interface index of the host-side device, in the calling thread's network namespace.
    pub link: LinkIndex,
    /// MAC address of the host-side device: the gateway as the pod sees it. Compared with the
    /// device's own, so that a reused interface index is noticed.
    pub host_mac: MacAddr,
    /// MAC address of the device inside the pod.
    pub pod_mac: MacAddr,
    /// Every address the pod may use, of both families. An address belongs to one endpoint.
    pub addresses: Vec<IpAddr>,
    /// Largest IP packet the pod's device takes, in bytes.
    pub mtu: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_are_written_and_read_the_same() {
        let mac = MacAddr([2, 0, 0xab, 1, 0xff, 9]);
        assert_eq!(mac.to_string(), "02:00:ab:01:ff:09");
        assert_eq!("02:00:ab:01:ff:09".parse(), Ok(mac));
        for bad in [
            "",
            "02:00:ab:01:ff",
            "02:00:ab:01:ff:09:00",
            "2:0:ab:1:ff:9",
            "zz:00:00:00:00:00",
        ] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
    }
}
