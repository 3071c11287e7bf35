// SPDX-License-Identifier: Apache-2.0
//! Addresses out of pools.

use std::collections::BTreeSet;
use std::net::IpAddr;

use egress_core::PolicyId;
use ipnet::IpNet;
use router_resources::kinds::{AddressPool, MAX_POOL_ADDRESSES};

/// All addresses of a pool, in the order of its prefixes; at most [`MAX_POOL_ADDRESSES`].
pub(crate) fn all(pool: &AddressPool) -> Vec<IpAddr> {
    // Every address of a prefix, with those `hosts` leaves out.
    let addresses = |prefix: IpNet| {
        let prefix = prefix.trunc();
        let count = 1u128.checked_shl(u32::from(prefix.max_prefix_len() - prefix.prefix_len()));
        let count = count.unwrap_or(u128::MAX).min(MAX_POOL_ADDRESSES);
        (0..count).map(move |offset| match prefix.addr() {
            // The count is small and the prefix aligned, so that nothing is lost or carried over.
            IpAddr::V4(first) => IpAddr::from((u32::from(first) | offset as u32).to_be_bytes()),
            IpAddr::V6(first) => IpAddr::from((u128::from(first) | offset).to_be_bytes()),
        })
    };
    let all = pool.prefixes().flat_map(addresses);
    all.take(MAX_POOL_ADDRESSES as usize).collect()
}

/// The addresses of a pool that come in pairs: where it has both families, as many of each as the
/// smaller one has. Who is given one of a family is given one of the other.
pub(crate) fn pairs(pool: &AddressPool) -> Vec<IpAddr> {
    let all = all(pool);
    let v4 = all.iter().filter(|address| address.is_ipv4()).count();
    let v6 = all.len() - v4;
    let most = if v4 == 0 || v6 == 0 {
        all.len()
    } else {
        v4.min(v6)
    };
    let (mut v4, mut v6) = (0, 0);
    let is_paired = |address: &IpAddr| {
        let count = if address.is_ipv4() { &mut v4 } else { &mut v6 };
        *count += 1;
        *count <= most
    };
    all.into_iter().filter(is_paired).collect()
}

/// What one policy draws.
pub(crate) struct Draw {
    /// One address of each family of the pool.
    pub(crate) addresses: Vec<IpAddr>,
    /// Whether somebody else has one of them, since all of its family are taken.
    pub(crate) is_exhausted: bool,
}

/// Draws one address of each family for a policy: of those not taken, the one of the highest
/// weight; where all are taken, of all.
pub(crate) fn draw(pool: &AddressPool, policy: &PolicyId, taken: &BTreeSet<IpAddr>) -> Draw {
    let all = all(pool);
    let mut draw = Draw {
        addresses: Vec::new(),
        is_exhausted: false,
    };
    for is_ipv4 in [true, false] {
        let of_family = || all.iter().filter(|a| a.is_ipv4() == is_ipv4);
        let best = |address: &&IpAddr| (weight(policy, **address), **address);
        let free = of_family().filter(|address| !taken.contains(address));
        if let Some(address) = free.max_by_key(best) {
            draw.addresses.push(*address);
        } else if let Some(address) = of_family().max_by_key(best) {
            draw.addresses.push(*address);
            draw.is_exhausted = true;
        }
    }
    draw
}

/// The weight of a pair: FNV-1a of 64 bits, and the finish of SplitMix64, since FNV alone hardly
/// moves the high bits for a change in the last octets.
fn weight(policy: &PolicyId, address: IpAddr) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let text = format!("{policy}\0{address}");
    for octet in text.bytes() {
        hash = (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use egress_core::PolicyKind;
    use router_resources::kinds::PoolAssignment;

    use super::*;

    fn pool(cidrs: &[&str]) -> AddressPool {
        AddressPool {
            cidrs: cidrs.iter().map(|c| c.to_string()).collect(),
            assign: PoolAssignment::Policy,
        }
    }

    fn policy(name: &str) -> PolicyId {
        PolicyId {
            kind: PolicyKind::Causeway,
            name: name.into(),
        }
    }

    #[test]
    fn all_addresses_of_a_prefix_are_used() {
        let found: Vec<String> = all(&pool(&["192.0.2.4/30", "2001:db8::8/127", "192.0.2.1/32"]))
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            found,
            [
                "192.0.2.4",
                "192.0.2.5",
                "192.0.2.6",
                "192.0.2.7",
                "2001:db8::8",
                "2001:db8::9",
                "192.0.2.1"
            ]
        );
    }

    #[test]
    fn nobody_is_left_without_a_family_the_pool_has() {
        let counts = |cidrs: &[&str]| {
            let pairs = pairs(&pool(cidrs));
            let v4 = pairs.iter().filter(|address| address.is_ipv4()).count();
            (v4, pairs.len() - v4)
        };
        assert_eq!(counts(&["192.0.2.0/27", "2001:db8::/121"]), (32, 32));
        assert_eq!(counts(&["2001:db8::/126", "192.0.2.0/27"]), (4, 4));
        assert_eq!(counts(&["192.0.2.0/27"]), (32, 0));
        assert_eq!(counts(&["2001:db8::/121"]), (0, 128));
    }

    #[test]
    fn a_pool_the_rules_refuse_costs_no_more_than_the_most() {
        for cidr in ["0.0.0.0/0", "::/0", "2001:db8::/64"] {
            assert_eq!(all(&pool(&[cidr])).len() as u128, MAX_POOL_ADDRESSES);
        }
    }

    #[test]
    fn a_draw_is_the_same_every_time_and_spread_over_the_pool() {
        let pool = pool(&["192.0.2.0/24", "2001:db8::/124"]);
        let none = BTreeSet::new();
        let mut drawn = BTreeSet::new();
        for n in 0..64 {
            let id = policy(&format!("p{n}"));
            let first = draw(&pool, &id, &none);
            assert_eq!(first.addresses, draw(&pool, &id, &none).addresses);
            assert!(first.addresses[0].is_ipv4() && first.addresses[1].is_ipv6());
            drawn.insert(first.addresses[0]);
        }
        // Of 64 draws out of 256, 57 differ on average.
        assert!(drawn.len() > 48, "{}", drawn.len());
    }

    #[test]
    fn an_address_that_is_not_drawn_can_go_without_a_change() {
        let (whole, none) = (pool(&["192.0.2.0/28"]), BTreeSet::new());
        let drawn = draw(&whole, &policy("a"), &none).addresses;
        for other in all(&whole).iter().filter(|other| **other != drawn[0]) {
            let taken = BTreeSet::from([*other]);
            assert_eq!(draw(&whole, &policy("a"), &taken).addresses, drawn);
        }
    }

    #[test]
    fn policies_draw_different_addresses_until_there_are_none() {
        let pool = pool(&["192.0.2.0/30"]);
        let mut taken = BTreeSet::new();
        for n in 0..4 {
            let draw = draw(&pool, &policy(&format!("p{n}")), &taken);
            assert!(!draw.is_exhausted);
            assert!(taken.insert(draw.addresses[0]));
        }
        let draw = draw(&pool, &policy("p4"), &taken);
        assert!(draw.is_exhausted);
        assert_eq!(draw.addresses.len(), 1);
    }
}
