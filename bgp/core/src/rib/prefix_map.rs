// SPDX-License-Identifier: Apache-2.0
//! An ordered map by prefix, dense in memory: IPv4 keys take five bytes, IPv6 keys seventeen.

use std::collections::BTreeMap;
use std::ops::Bound;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use router_types::Family;

/// Values by prefix, both families. Iterates in the order of prefixes, IPv4 first.
#[derive(Clone, Debug)]
pub(super) struct PrefixMap<V> {
    v4: BTreeMap<Ipv4Net, V>,
    v6: BTreeMap<Ipv6Net, V>,
}

impl<V> Default for PrefixMap<V> {
    fn default() -> Self {
        PrefixMap {
            v4: BTreeMap::new(),
            v6: BTreeMap::new(),
        }
    }
}

impl<V> PrefixMap<V> {
    pub(super) fn get(&self, prefix: &IpNet) -> Option<&V> {
        match prefix {
            IpNet::V4(net) => self.v4.get(net),
            IpNet::V6(net) => self.v6.get(net),
        }
    }

    pub(super) fn get_mut(&mut self, prefix: &IpNet) -> Option<&mut V> {
        match prefix {
            IpNet::V4(net) => self.v4.get_mut(net),
            IpNet::V6(net) => self.v6.get_mut(net),
        }
    }

    pub(super) fn insert(&mut self, prefix: IpNet, value: V) -> Option<V> {
        match prefix {
            IpNet::V4(net) => self.v4.insert(net, value),
            IpNet::V6(net) => self.v6.insert(net, value),
        }
    }

    pub(super) fn remove(&mut self, prefix: &IpNet) -> Option<V> {
        match prefix {
            IpNet::V4(net) => self.v4.remove(net),
            IpNet::V6(net) => self.v6.remove(net),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    pub(super) fn len_of(&self, family: Family) -> usize {
        if family == Family::IPV6_UNICAST {
            self.v6.len()
        } else {
            self.v4.len()
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (IpNet, &V)> {
        let v4 = self.v4.iter().map(|(net, v)| (IpNet::V4(*net), v));
        v4.chain(self.v6.iter().map(|(net, v)| (IpNet::V6(*net), v)))
    }

    /// Keeps what the function says, of one family or of both.
    pub(super) fn retain(
        &mut self,
        family: Option<Family>,
        mut keep: impl FnMut(IpNet, &mut V) -> bool,
    ) {
        if family.is_none_or(|family| family == Family::IPV4_UNICAST) {
            self.v4.retain(|net, v| keep(IpNet::V4(*net), v));
        }
        if family.is_none_or(|family| family == Family::IPV6_UNICAST) {
            self.v6.retain(|net, v| keep(IpNet::V6(*net), v));
        }
    }

    /// The entries of a family that follow a prefix, or all of them.
    pub(super) fn after<'a>(
        &'a self,
        family: Family,
        after: Option<IpNet>,
    ) -> Box<dyn Iterator<Item = (IpNet, &'a V)> + 'a> {
        if family == Family::IPV6_UNICAST {
            let from = match after {
                Some(IpNet::V6(net)) => Bound::Excluded(net),
                Some(IpNet::V4(_)) | None => Bound::Unbounded,
            };
            let range = self.v6.range((from, Bound::Unbounded));
            Box::new(range.map(|(net, v)| (IpNet::V6(*net), v)))
        } else {
            let from = match after {
                Some(IpNet::V4(net)) => Bound::Excluded(net),
                Some(IpNet::V6(_)) | None => Bound::Unbounded,
            };
            let range = self.v4.range((from, Bound::Unbounded));
            Box::new(range.map(|(net, v)| (IpNet::V4(*net), v)))
        }
    }
}
