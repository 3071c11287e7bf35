// SPDX-License-Identifier: Apache-2.0
//! Keys of the families whose destinations are more than a prefix.

use std::net::{Ipv4Addr, Ipv6Addr};

use bgp_wire::{Destination, Label, RouteDistinguisher, RouteTargetPrefix, VpnPrefix};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Key, SPREAD, V4, V6, fold};

/// Bits of label and route distinguisher, which stand in front of the prefix (RFC 8277 §2.2).
const FRONT_BITS: u8 = 24 + 64;

/// An IPv4 prefix of a VPN, host bits zero. Octets, so that it is thirteen bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::rib) struct VpnV4 {
    rd: [u8; 8],
    address: [u8; 4],
    bits: u8,
}

/// An IPv6 prefix of a VPN, host bits zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::rib) struct VpnV6 {
    rd: [u8; 8],
    inner: V6,
}

/// Takes length, label and distinguisher off the front, and returns bits and distinguisher.
#[inline]
fn take_front<'a>(bytes: &mut &'a [u8]) -> Option<(u8, [u8; 8], &'a [u8])> {
    let (&[bits, _, _, _, rd @ ..], rest) = bytes.split_first_chunk::<12>()?;
    let bits = bits.checked_sub(FRONT_BITS)?;
    let (address, tail) = rest.split_at_checked(usize::from(bits).div_ceil(8))?;
    *bytes = tail;
    Some((bits, rd, address))
}

#[inline]
fn put_front(bits: u8, rd: [u8; 8], out: &mut Vec<u8>) {
    out.push(FRONT_BITS + bits);
    out.extend_from_slice(&Label::WITHDRAWN);
    out.extend_from_slice(&rd);
}

impl Key for VpnV4 {
    const ZERO: VpnV4 = VpnV4 {
        rd: [0; 8],
        address: [0; 4],
        bits: 0,
    };

    #[inline]
    fn hash(self, seed: u64) -> u64 {
        let address = u64::from(u32::from_be_bytes(self.address)) << 8 | u64::from(self.bits);
        fold(
            fold(u64::from_be_bytes(self.rd) ^ seed, SPREAD) ^ address,
            SPREAD,
        )
    }

    #[inline]
    fn take(bytes: &mut &[u8]) -> Option<VpnV4> {
        let (bits, rd, octets) = take_front(bytes)?;
        let mut wide = [0; 4];
        wide.get_mut(..octets.len())?.copy_from_slice(octets);
        let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
        let address = (u32::from_be_bytes(wide) & mask).to_be_bytes();
        Some(VpnV4 { rd, address, bits })
    }

    #[inline]
    fn put(self, out: &mut Vec<u8>) {
        put_front(self.bits, self.rd, out);
        let octets = usize::from(self.bits).div_ceil(8);
        out.extend_from_slice(&self.address[..octets.min(4)]);
    }

    fn prefix(self) -> IpNet {
        let net = Ipv4Net::new(Ipv4Addr::from(self.address), self.bits);
        IpNet::V4(net.expect("made from a prefix"))
    }

    fn destination(self) -> Destination {
        Destination::Vpn(VpnPrefix {
            rd: RouteDistinguisher(self.rd),
            prefix: self.prefix(),
        })
    }
}

impl Key for VpnV6 {
    const ZERO: VpnV6 = VpnV6 {
        rd: [0; 8],
        inner: V6::ZERO,
    };

    #[inline]
    fn hash(self, seed: u64) -> u64 {
        self.inner
            .hash(fold(u64::from_be_bytes(self.rd) ^ seed, SPREAD))
    }

    #[inline]
    fn take(bytes: &mut &[u8]) -> Option<VpnV6> {
        let (bits, rd, octets) = take_front(bytes)?;
        let inner = V6::cut(bits, octets)?;
        Some(VpnV6 { rd, inner })
    }

    #[inline]
    fn put(self, out: &mut Vec<u8>) {
        put_front(self.inner.bits, self.rd, out);
        let octets = usize::from(self.inner.bits).div_ceil(8);
        out.extend_from_slice(&self.inner.address[..octets.min(16)]);
    }

    fn prefix(self) -> IpNet {
        let net = Ipv6Net::new(Ipv6Addr::from(self.inner.address), self.inner.bits);
        IpNet::V6(net.expect("made from a prefix"))
    }

    fn destination(self) -> Destination {
        Destination::Vpn(VpnPrefix {
            rd: RouteDistinguisher(self.rd),
            prefix: self.prefix(),
        })
    }
}

impl Key for RouteTargetPrefix {
    const ZERO: RouteTargetPrefix = RouteTargetPrefix::DEFAULT;

    fn hash(self, seed: u64) -> u64 {
        let [a, b, c, d, target @ ..] = self.octets();
        let front = u64::from(u32::from_be_bytes([a, b, c, d])) << 8
            | u64::from(RouteTargetPrefix::bits(&self));
        fold(
            fold(front ^ seed, SPREAD) ^ u64::from_be_bytes(target),
            SPREAD,
        )
    }

    fn take(bytes: &mut &[u8]) -> Option<RouteTargetPrefix> {
        let (&bits, rest) = bytes.split_first()?;
        let (octets, tail) = rest.split_at_checked(usize::from(bits).div_ceil(8))?;
        *bytes = tail;
        RouteTargetPrefix::from_bits(bits, octets)
    }

    fn put(self, out: &mut Vec<u8>) {
        self.encode(out);
    }

    /// There is none; policies see the default route.
    fn prefix(self) -> IpNet {
        IpNet::V4(V4::ZERO.into())
    }

    fn destination(self) -> Destination {
        Destination::RouteTarget(self)
    }
}

impl TryFrom<&VpnPrefix> for VpnV4 {
    type Error = ();

    fn try_from(vpn: &VpnPrefix) -> Result<VpnV4, ()> {
        let IpNet::V4(net) = vpn.prefix else {
            return Err(());
        };
        Ok(VpnV4 {
            rd: vpn.rd.0,
            address: net.network().octets(),
            bits: net.prefix_len(),
        })
    }
}

impl TryFrom<&VpnPrefix> for VpnV6 {
    type Error = ();

    fn try_from(vpn: &VpnPrefix) -> Result<VpnV6, ()> {
        let IpNet::V6(net) = vpn.prefix else {
            return Err(());
        };
        Ok(VpnV6 {
            rd: vpn.rd.0,
            inner: net.into(),
        })
    }
}
