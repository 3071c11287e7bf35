// SPDX-License-Identifier: Apache-2.0
//! A pod CIDR as a row of usable addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use thiserror::Error;

/// The usable addresses of one pod CIDR.
///
/// Left out are the network address (RFC 4291 §2.6.1 makes IPv6's the subnet-router anycast
/// address), the one after it, which by custom is the gateway and stays free for the node's own
/// use, and IPv4's broadcast address. A CIDR of one or two addresses has no room for any of them
/// and is usable whole, after the model of RFC 3021.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pool {
    cidr: IpNet,
    first: u128,
    last: u128,
}

/// Why a list of pod CIDRs is refused.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum PoolError {
    /// Two of them share addresses.
    #[error(
        "pod CIDRs {0} and {1} overlap: an address of both could be handed out twice; remove one"
    )]
    Overlap(IpNet, IpNet),
    /// Addresses no pod can have.
    #[error(
        "pod CIDR {0} holds {1} addresses, which no pod can have; choose a private or routed prefix"
    )]
    NotForPods(IpNet, &'static str),
}

impl Pool {
    /// The pool of one CIDR; host bits are ignored.
    ///
    /// # Errors
    ///
    /// [`PoolError::NotForPods`] for multicast, loopback, link-local and unspecified prefixes.
    pub fn new(cidr: IpNet) -> Result<Pool, PoolError> {
        let cidr = cidr.trunc();
        if let Some(kind) = unfit(cidr.network()) {
            return Err(PoolError::NotForPods(cidr, kind));
        }
        let (mut first, mut last) = (number(cidr.network()), number(cidr.broadcast()));
        if last - first > 1 {
            first += 2;
            if matches!(cidr, IpNet::V4(_)) {
                last -= 1;
            }
        }
        Ok(Pool { cidr, first, last })
    }

    /// Pools for a list of CIDRs. One given twice counts once.
    ///
    /// # Errors
    ///
    /// [`PoolError::Overlap`] when two different ones share addresses; else as [`Pool::new`].
    pub fn list(cidrs: &[IpNet]) -> Result<Vec<Pool>, PoolError> {
        let mut pools: Vec<Pool> = Vec::with_capacity(cidrs.len());
        for cidr in cidrs {
            let pool = Pool::new(*cidr)?;
            match pools.iter().find(|p| p.overlaps(&pool)) {
                Some(same) if same.cidr == pool.cidr => {}
                Some(other) => return Err(PoolError::Overlap(other.cidr, pool.cidr)),
                None => pools.push(pool),
            }
        }
        Ok(pools)
    }

    /// The CIDR, host bits zero.
    pub fn cidr(&self) -> IpNet {
        self.cidr
    }

    /// How many addresses can be handed out.
    pub fn usable(&self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }

    /// Whether an address is of the CIDR and may be handed out.
    pub fn offers(&self, address: IpAddr) -> bool {
        self.cidr.contains(&address) && (self.first..=self.last).contains(&number(address))
    }

    /// The usable addresses, lowest first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let is_v4 = matches!(self.cidr, IpNet::V4(_));
        (self.first..=self.last).map(move |n| address(n, is_v4))
    }

    fn overlaps(&self, other: &Pool) -> bool {
        self.cidr.contains(&other.cidr) || other.cidr.contains(&self.cidr)
    }
}

fn unfit(network: IpAddr) -> Option<&'static str> {
    let link_local = match network {
        IpAddr::V4(a) => a.is_link_local(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    };
    match network {
        a if a.is_multicast() => Some("multicast"),
        a if a.is_loopback() => Some("loopback"),
        a if a.is_unspecified() => Some("unspecified"),
        _ if link_local => Some("link-local"),
        _ => None,
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    }
}

fn address(number: u128, is_v4: bool) -> IpAddr {
    if is_v4 {
        let bits = u32::try_from(number).expect("an IPv4 pool has 32-bit bounds");
        IpAddr::V4(Ipv4Addr::from_bits(bits))
    } else {
        IpAddr::V6(Ipv6Addr::from_bits(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(cidr: &str) -> Pool {
        Pool::new(cidr.parse().unwrap()).unwrap()
    }

    fn all(cidr: &str) -> Vec<String> {
        pool(cidr).addresses().map(|a| a.to_string()).collect()
    }

    #[test]
    fn network_gateway_and_broadcast_stay_out() {
        assert_eq!(
            all("10.1.0.9/29"),
            [
                "10.1.0.10",
                "10.1.0.11",
                "10.1.0.12",
                "10.1.0.13",
                "10.1.0.14"
            ]
        );
        assert_eq!(all("fd00::/126"), ["fd00::2", "fd00::3"]);
        assert_eq!(all("10.1.0.0/30"), ["10.1.0.2"]);
        assert!(!pool("10.1.0.0/24").offers("10.1.0.1".parse().unwrap()));
        assert!(!pool("10.1.0.0/24").offers("10.1.0.255".parse().unwrap()));
        assert!(!pool("10.1.0.0/24").offers("10.1.1.2".parse().unwrap()));
    }

    #[test]
    fn tiny_cidrs_are_usable_whole() {
        assert_eq!(all("10.1.0.4/31"), ["10.1.0.4", "10.1.0.5"]);
        assert_eq!(all("10.1.0.4/32"), ["10.1.0.4"]);
        assert_eq!(all("fd00::4/128"), ["fd00::4"]);
    }

    #[test]
    fn sizes_do_not_overflow() {
        assert_eq!(pool("10.0.0.0/8").usable(), (1 << 24) - 3);
        assert_eq!(pool("fd00::/64").usable(), (1 << 64) - 2);
    }

    #[test]
    fn overlaps_and_unfit_prefixes_are_refused() {
        let list = |text: &[&str]| {
            Pool::list(&text.iter().map(|c| c.parse().unwrap()).collect::<Vec<_>>())
        };
        assert!(matches!(
            list(&["10.0.0.0/8", "10.1.0.0/16"]),
            Err(PoolError::Overlap(..))
        ));
        assert_eq!(
            list(&["10.1.0.0/16", "10.1.0.0/16", "fd00::/64"])
                .unwrap()
                .len(),
            2
        );
        for cidr in [
            "224.0.0.0/8",
            "127.0.0.0/16",
            "169.254.0.0/24",
            "fe80::/64",
            "::/0",
        ] {
            assert!(
                matches!(list(&[cidr]), Err(PoolError::NotForPods(..))),
                "{cidr}"
            );
        }
    }
}
