// SPDX-License-Identifier: Apache-2.0
//! Handing out addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use thiserror::Error;

use crate::endpoint::EndpointId;
use crate::pool::{Pool, PoolError};

/// An address family, for addresses rather than routes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, in the order in which addresses of an endpoint are listed.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Family {
        if address.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        }
    }

    fn of_net(net: IpNet) -> Family {
        Family::of(net.network())
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// Who holds which address of the node's pod CIDRs.
///
/// Addresses are handed out lowest first, so that a node's addresses stay few and readable.
/// One that was released is *cooling* for a while: other hosts may still send to its former
/// holder. Cooling ones go out only when nothing else is left, the longest released first.
///
/// CIDRs may change at any time. Addresses held outside the present ones stay with their holders
/// until released ([`Ipam::stranded`]).
#[derive(Debug)]
pub struct Ipam {
    pools: Vec<Pool>,
    held: BTreeMap<IpAddr, EndpointId>,
    /// By address: the place in the order of releases, and when the cooling ends.
    cooling: BTreeMap<IpAddr, (u64, Instant)>,
    releases: u64,
    cool_down: Duration,
    /// Addresses in use on the node by something else, and by what. Not only those of the pools:
    /// the pools may change.
    occupied: BTreeMap<IpAddr, String>,
}

/// Why no address was handed out.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum AllocateError {
    /// There is no pod CIDR of this family.
    #[error("the node has no {0} pod CIDR")]
    NoPool(Family),
    /// Every usable address is taken.
    #[error(
        "no {family} address is left: {held} of {usable} usable addresses of {cidrs} are held by \
         pods and {occupied} are in use by something else on the node"
    )]
    Exhausted {
        /// Of this family.
        family: Family,
        /// Held by endpoints.
        held: u128,
        /// Usable addresses of all CIDRs of the family.
        usable: u128,
        /// The CIDRs.
        cidrs: String,
        /// Used by something else.
        occupied: usize,
    },
    /// An address asked for lies in no pod CIDR.
    #[error("{0} is in none of the node's pod CIDRs ({1})")]
    Outside(IpAddr, String),
    /// An address asked for is the network's, the gateway's or the broadcast address.
    #[error("{0} is reserved in {1}: network, gateway and broadcast addresses are not for pods")]
    Reserved(IpAddr, IpNet),
    /// An address asked for is another endpoint's.
    #[error("{0} is held by endpoint {1}")]
    Held(IpAddr, EndpointId),
    /// An address asked for is in use on the node by something else.
    #[error("{0} is in use on this node: {1}")]
    Occupied(IpAddr, String),
}

/// How full a pod CIDR is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolUsage {
    /// The pod CIDR.
    pub cidr: IpNet,
    /// How many addresses can be handed out in all.
    pub usable: u128,
    /// Held by endpoints.
    pub held: usize,
    /// Released recently.
    pub cooling: usize,
    /// In use on the node by something else, and by what.
    pub occupied: Vec<(IpAddr, String)>,
}

impl Ipam {
    /// An address manager for these pod CIDRs, of either family and any number.
    ///
    /// `cool_down` is how long a released address is avoided. Raising it costs nothing but
    /// neatness; 0 hands an address on at once.
    ///
    /// # Errors
    ///
    /// [`PoolError`] when CIDRs overlap or are not fit for pods.
    pub fn new(cidrs: &[IpNet], cool_down: Duration) -> Result<Ipam, PoolError> {
        Ok(Ipam {
            pools: Pool::list(cidrs)?,
            held: BTreeMap::new(),
            cooling: BTreeMap::new(),
            releases: 0,
            cool_down,
            occupied: BTreeMap::new(),
        })
    }

    /// Replaces the pod CIDRs. Held addresses stay held.
    ///
    /// # Errors
    ///
    /// [`PoolError`], and then nothing has changed.
    pub fn set_cidrs(&mut self, cidrs: &[IpNet]) -> Result<(), PoolError> {
        self.pools = Pool::list(cidrs)?;
        let pools = &self.pools;
        self.cooling
            .retain(|address, _| pools.iter().any(|p| p.offers(*address)));
        Ok(())
    }

    /// The pod CIDRs.
    pub fn cidrs(&self) -> impl Iterator<Item = IpNet> {
        self.pools.iter().map(Pool::cidr)
    }

    /// Whether there is a pod CIDR of the family.
    pub fn serves(&self, family: Family) -> bool {
        self.pools_of(family).next().is_some()
    }

    /// States which addresses are in use on the node by something other than its endpoints, with
    /// a few words on what. Those are not handed out. Replaces what was stated before.
    pub fn set_occupied(&mut self, occupied: impl IntoIterator<Item = (IpAddr, String)>) {
        self.occupied = occupied.into_iter().collect();
    }

    /// Hands out the lowest free address of a family.
    ///
    /// # Errors
    ///
    /// [`AllocateError::NoPool`] or [`AllocateError::Exhausted`].
    pub fn allocate(
        &mut self,
        family: Family,
        owner: EndpointId,
        now: Instant,
    ) -> Result<IpAddr, AllocateError> {
        self.cooling.retain(|_, (_, until)| *until > now);
        if !self.serves(family) {
            return Err(AllocateError::NoPool(family));
        }
        let is_free = |a: &IpAddr| !self.held.contains_key(a) && !self.occupied.contains_key(a);
        let fresh = self
            .pools_of(family)
            .flat_map(Pool::addresses)
            .find(|a| is_free(a) && !self.cooling.contains_key(a));
        let address = fresh.or_else(|| {
            self.cooling
                .iter()
                .filter(|(a, _)| Family::of(**a) == family && is_free(a))
                .min_by_key(|(_, (order, _))| *order)
                .map(|(a, _)| *a)
        });
        let Some(address) = address else {
            return Err(self.exhausted(family));
        };
        self.hold(address, owner);
        Ok(address)
    }

    /// Hands out one certain address.
    ///
    /// # Errors
    ///
    /// [`AllocateError`] saying why that address cannot be had.
    pub fn allocate_requested(
        &mut self,
        address: IpAddr,
        owner: EndpointId,
    ) -> Result<(), AllocateError> {
        let Some(pool) = self.pools.iter().find(|p| p.cidr().contains(&address)) else {
            return Err(AllocateError::Outside(
                address,
                self.cidr_list(Family::of(address)),
            ));
        };
        if !pool.offers(address) {
            return Err(AllocateError::Reserved(address, pool.cidr()));
        }
        if let Some(holder) = self.held.get(&address) {
            return Err(AllocateError::Held(address, *holder));
        }
        if let Some(by) = self.occupied.get(&address) {
            return Err(AllocateError::Occupied(address, by.clone()));
        }
        self.hold(address, owner);
        Ok(())
    }

    /// Notes an address that was handed out by an earlier run, wherever it lies.
    ///
    /// # Errors
    ///
    /// The endpoint that holds it already.
    pub fn restore(&mut self, address: IpAddr, owner: EndpointId) -> Result<(), EndpointId> {
        match self.held.get(&address) {
            Some(holder) if *holder != owner => Err(*holder),
            _ => {
                self.hold(address, owner);
                Ok(())
            }
        }
    }

    /// Takes an address back and lets it cool. Does nothing for an address nobody holds.
    pub fn release(&mut self, address: IpAddr, now: Instant) {
        if self.held.remove(&address).is_none() {
            return;
        }
        self.cool(address, now);
    }

    /// Takes back an address its holder was never told of; it needs no cooling.
    pub(crate) fn forget(&mut self, address: IpAddr) {
        self.held.remove(&address);
    }

    /// Lets an address cool that nobody holds, as after a reboot.
    pub fn cool(&mut self, address: IpAddr, now: Instant) {
        if self.pools.iter().any(|p| p.offers(address)) {
            self.releases += 1;
            self.cooling
                .insert(address, (self.releases, now + self.cool_down));
        }
    }

    /// Who holds an address.
    pub fn holder(&self, address: IpAddr) -> Option<EndpointId> {
        self.held.get(&address).copied()
    }

    #[cfg(test)]
    pub(crate) fn held_count(&self) -> usize {
        self.held.len()
    }

    /// How full each pod CIDR is, in the order they were given.
    pub fn usage(&self, now: Instant) -> Vec<PoolUsage> {
        self.pools
            .iter()
            .map(|pool| PoolUsage {
                cidr: pool.cidr(),
                usable: pool.usable(),
                held: self.held.keys().filter(|a| pool.offers(**a)).count(),
                cooling: self
                    .cooling
                    .iter()
                    .filter(|(a, (_, until))| pool.offers(**a) && *until > now)
                    .count(),
                occupied: self
                    .occupied
                    .iter()
                    .filter(|(a, _)| pool.offers(**a) && !self.held.contains_key(*a))
                    .map(|(a, by)| (*a, by.clone()))
                    .collect(),
            })
            .collect()
    }

    /// Addresses held by endpoints though no present pod CIDR offers them.
    pub fn stranded(&self) -> impl Iterator<Item = (IpAddr, EndpointId)> {
        self.held
            .iter()
            .filter(|(a, _)| !self.pools.iter().any(|p| p.offers(**a)))
            .map(|(a, id)| (*a, *id))
    }

    /// Whether an ADD for this family would find an address.
    ///
    /// # Errors
    ///
    /// The error that ADD would meet.
    pub fn has_room(&self, family: Family) -> Result<(), AllocateError> {
        let mut addresses = self.pools_of(family).flat_map(Pool::addresses);
        if !self.serves(family) {
            Err(AllocateError::NoPool(family))
        } else if addresses.any(|a| !self.held.contains_key(&a) && !self.occupied.contains_key(&a))
        {
            Ok(())
        } else {
            Err(self.exhausted(family))
        }
    }

    fn hold(&mut self, address: IpAddr, owner: EndpointId) {
        self.cooling.remove(&address);
        self.held.insert(address, owner);
    }

    fn pools_of(&self, family: Family) -> impl Iterator<Item = &Pool> {
        self.pools
            .iter()
            .filter(move |p| Family::of_net(p.cidr()) == family)
    }

    fn cidr_list(&self, family: Family) -> String {
        let list: BTreeSet<String> = self
            .pools_of(family)
            .map(|p| p.cidr().to_string())
            .collect();
        if list.is_empty() {
            format!("no {family} pod CIDR is set")
        } else {
            list.into_iter().collect::<Vec<_>>().join(", ")
        }
    }

    fn exhausted(&self, family: Family) -> AllocateError {
        let is_ours = |a: &IpAddr| self.pools_of(family).any(|p| p.offers(*a));
        AllocateError::Exhausted {
            family,
            held: self.held.keys().filter(|a| is_ours(a)).count() as u128,
            usable: self
                .pools_of(family)
                .map(Pool::usable)
                .fold(0, u128::saturating_add),
            cidrs: self.cidr_list(family),
            occupied: self
                .occupied
                .keys()
                .filter(|a| is_ours(a) && !self.held.contains_key(*a))
                .count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOL_DOWN: Duration = Duration::from_secs(60);

    fn ipam(cidrs: &[&str]) -> Ipam {
        let cidrs: Vec<IpNet> = cidrs.iter().map(|c| c.parse().unwrap()).collect();
        Ipam::new(&cidrs, COOL_DOWN).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn lowest_first_and_released_ones_last() {
        let mut ipam = ipam(&["10.1.0.0/29"]);
        let now = Instant::now();
        let next = |ipam: &mut Ipam, now| ipam.allocate(Family::V4, EndpointId(1), now);
        assert_eq!(next(&mut ipam, now), Ok(ip("10.1.0.2")));
        assert_eq!(next(&mut ipam, now), Ok(ip("10.1.0.3")));
        ipam.release(ip("10.1.0.3"), now);
        ipam.release(ip("10.1.0.2"), now);
        assert_eq!(next(&mut ipam, now), Ok(ip("10.1.0.4")));
        assert_eq!(next(&mut ipam, now), Ok(ip("10.1.0.5")));
        assert_eq!(next(&mut ipam, now), Ok(ip("10.1.0.6")));
        // Only cooling ones are left: the longest released goes first.
        assert_eq!(next(&mut ipam, now), Ok(ip("10.1.0.3")));
        assert_eq!(next(&mut ipam, now), Ok(ip("10.1.0.2")));
        assert!(next(&mut ipam, now).is_err());
    }

    #[test]
    fn a_cooled_address_is_as_good_as_new() {
        let mut ipam = ipam(&["10.1.0.0/29"]);
        let now = Instant::now();
        let first = ipam.allocate(Family::V4, EndpointId(1), now).unwrap();
        ipam.release(first, now);
        let second = ipam
            .allocate(Family::V4, EndpointId(2), now + COOL_DOWN / 2)
            .unwrap();
        let third = ipam
            .allocate(Family::V4, EndpointId(3), now + COOL_DOWN)
            .unwrap();
        assert_ne!(second, first);
        assert_eq!(third, first);
    }

    #[test]
    fn exhaustion_says_how_many_of_what() {
        let mut ipam = ipam(&["10.1.0.0/30", "10.2.0.0/30", "fd00::/64"]);
        let now = Instant::now();
        ipam.set_occupied([(ip("10.2.0.2"), "address of eth0".to_owned())]);
        ipam.allocate(Family::V4, EndpointId(1), now).unwrap();
        let error = ipam.allocate(Family::V4, EndpointId(2), now).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no IPv4 address is left: 1 of 2 usable addresses of 10.1.0.0/30, 10.2.0.0/30 are \
             held by pods and 1 are in use by something else on the node"
        );
        assert_eq!(ipam.has_room(Family::V4), Err(error));
        assert_eq!(ipam.has_room(Family::V6), Ok(()));
    }

    #[test]
    fn requested_addresses_are_given_or_refused_with_the_reason() {
        let mut ipam = ipam(&["10.1.0.0/24"]);
        ipam.set_occupied([(ip("10.1.0.9"), "address of eth0".to_owned())]);
        let mut ask = |a: &str, id| ipam.allocate_requested(ip(a), EndpointId(id));
        assert_eq!(ask("10.1.0.77", 1), Ok(()));
        assert_eq!(
            ask("10.1.0.77", 2),
            Err(AllocateError::Held(ip("10.1.0.77"), EndpointId(1)))
        );
        assert!(matches!(
            ask("10.1.0.1", 2),
            Err(AllocateError::Reserved(..))
        ));
        assert!(matches!(
            ask("10.1.0.255", 2),
            Err(AllocateError::Reserved(..))
        ));
        assert!(matches!(
            ask("10.9.0.1", 2),
            Err(AllocateError::Outside(..))
        ));
        assert!(matches!(ask("fd00::2", 2), Err(AllocateError::Outside(..))));
        assert!(matches!(
            ask("10.1.0.9", 2),
            Err(AllocateError::Occupied(..))
        ));
    }

    #[test]
    fn changed_cidrs_leave_holders_alone() {
        let mut ipam = ipam(&["10.1.0.0/24"]);
        let now = Instant::now();
        let old = ipam.allocate(Family::V4, EndpointId(1), now).unwrap();
        ipam.set_cidrs(&["10.2.0.0/24".parse().unwrap()]).unwrap();
        assert_eq!(ipam.stranded().collect::<Vec<_>>(), [(old, EndpointId(1))]);
        assert_eq!(
            ipam.allocate(Family::V4, EndpointId(2), now),
            Ok(ip("10.2.0.2"))
        );
        ipam.release(old, now);
        assert_eq!(ipam.stranded().count(), 0);
        assert_eq!(ipam.usage(now)[0].cooling, 0);
        // An unusable list changes nothing.
        let bad = [
            "10.3.0.0/24".parse().unwrap(),
            "10.3.0.0/25".parse().unwrap(),
        ];
        assert!(ipam.set_cidrs(&bad).is_err());
        assert_eq!(
            ipam.cidrs().collect::<Vec<_>>(),
            ["10.2.0.0/24".parse::<IpNet>().unwrap()]
        );
    }
}
