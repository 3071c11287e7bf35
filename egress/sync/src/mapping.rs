// SPDX-License-Identifier: Apache-2.0
//! A NAT mapping as one node tells it another.

use std::net::IpAddr;

use crate::name::Rule;

/// Addresses of two families in one mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("addresses of both families in one mapping")]
pub struct MixedFamilies;

/// An address and a port (or the identifier of an ICMP query; 0 where a protocol has neither).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The address.
    pub address: IpAddr,
    /// The port, in the byte order of the host.
    pub port: u16,
}

impl Endpoint {
    /// An address and a port.
    pub const fn new(address: IpAddr, port: u16) -> Endpoint {
        Endpoint { address, port }
    }
}

/// Which connection a mapping is of: family, protocol, and both ends as the pod sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    protocol: u8,
    pod: Endpoint,
    remote: Endpoint,
}

impl Key {
    /// Takes the number of the protocol (IANA) and both ends.
    ///
    /// # Errors
    /// The ends are of two families.
    pub const fn new(protocol: u8, pod: Endpoint, remote: Endpoint) -> Result<Key, MixedFamilies> {
        if pod.address.is_ipv4() != remote.address.is_ipv4() {
            return Err(MixedFamilies);
        }
        Ok(Key {
            protocol,
            pod,
            remote,
        })
    }

    /// The number of the protocol (IANA): 6 is TCP.
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }

    /// The pod's end.
    pub const fn pod(&self) -> Endpoint {
        self.pod
    }

    /// The end outside of the cluster.
    pub const fn remote(&self) -> Endpoint {
        self.remote
    }

    /// Whether the addresses are IPv4; IPv6 if not.
    pub const fn is_ipv4(&self) -> bool {
        self.pod.address.is_ipv4()
    }
}

/// One mapping: what packets of a connection become, and how far the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mapping {
    /// The rule that made it.
    pub rule: Rule,
    key: Key,
    egress: Endpoint,
    /// How far the connection is in the direction of the remote end. Opaque here: bits of the data
    /// plane.
    pub state_out: u8,
    /// The same in the direction of the pod.
    pub state_in: u8,
    /// Where the tunnel to the pod's node ends, of either family; the unspecified address for pods that
    /// are reached without one.
    pub node: IpAddr,
    /// Milliseconds since the mapping was made, by the teller's clock. No point in time, since
    /// clocks of nodes differ.
    pub age_ms: u64,
    /// Milliseconds since the last packet, likewise.
    pub idle_ms: u64,
}

impl Mapping {
    /// A mapping of which only the ends are known yet: no state, age or idle time.
    ///
    /// # Errors
    /// The egress address is of another family than the key.
    pub const fn new(
        rule: Rule,
        key: Key,
        egress: Endpoint,
        node: IpAddr,
    ) -> Result<Mapping, MixedFamilies> {
        if key.is_ipv4() != egress.address.is_ipv4() {
            return Err(MixedFamilies);
        }
        Ok(Mapping {
            rule,
            key,
            egress,
            state_out: 0,
            state_in: 0,
            node,
            age_ms: 0,
            idle_ms: 0,
        })
    }

    /// Which connection it is of.
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// The address and port that the pod's become.
    pub const fn egress(&self) -> Endpoint {
        self.egress
    }
}

/// What happened to a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new, or is different: the whole of it.
    Set(Mapping),
    /// It is gone.
    Remove {
        /// The rule it was of: a key may come back under another rule, from another holder.
        rule: Rule,
        /// Its key.
        key: Key,
    },
}

impl Change {
    /// The rule that is concerned.
    pub const fn rule(&self) -> Rule {
        match self {
            Change::Set(mapping) => mapping.rule,
            Change::Remove { rule, .. } => *rule,
        }
    }

    /// The key that is concerned.
    pub const fn key(&self) -> &Key {
        match self {
            Change::Set(mapping) => mapping.key(),
            Change::Remove { key, .. } => key,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_not_mixed() {
        let v4 = Endpoint::new([10, 0, 0, 1].into(), 1);
        let v6 = Endpoint::new([0xfd00, 0, 0, 0, 0, 0, 0, 1].into(), 1);
        assert_eq!(Key::new(6, v4, v6), Err(MixedFamilies));
        let key = Key::new(6, v4, v4).unwrap();
        let rule = Rule::new(1).unwrap();
        assert_eq!(
            Mapping::new(rule, key, v6, v4.address),
            Err(MixedFamilies),
            "NAT64 is not done here"
        );
        assert!(
            Mapping::new(rule, key, v4, v6.address).is_ok(),
            "the tunnel has its own family"
        );
    }
}
