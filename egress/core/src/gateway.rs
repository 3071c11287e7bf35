// SPDX-License-Identifier: Apache-2.0
//! What a gateway needs to know of a rule: addresses, device, ports and times.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::desired::Life;
use crate::finding::{Family, Finding, Missing};
use crate::rule::{Exit, RuleKey, held_sets};
use crate::world::{Addresses, Interface, Policy, PortRange, Timeouts};

/// How many addresses of a family a rule can have: 8, the size of the list in the data plane.
pub const MAX_ADDRESSES: usize = 8;

/// A rule at its gateway. Packets of a family it has no address of are dropped and counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayRule {
    /// The rule.
    pub key: RuleKey,
    /// The addresses IPv4 packets get, 0 to [`MAX_ADDRESSES`].
    pub v4: Vec<Ipv4Addr>,
    /// The addresses IPv6 packets get, 0 to [`MAX_ADDRESSES`].
    pub v6: Vec<Ipv6Addr>,
    /// The kernel's number of the device packets leave by; the routing table decides where there
    /// is none.
    pub output: Option<u32>,
    /// The ports connections may get.
    pub ports: PortRange,
    /// Whether a UDP socket keeps one mapping whomever it sends to (RFC 4787 §4.1).
    pub is_udp_endpoint_independent: bool,
    /// How long idle mappings live.
    pub timeouts: Timeouts,
    /// Whether the gateway must put the addresses on and announce them. A rule that moves away
    /// leaves the list at once, and its addresses with it.
    pub is_held: bool,
    /// How long connections go on when new ones may not begin any more, as in
    /// [`crate::Limits::drain`].
    pub drain: Option<Duration>,
    /// Whether new connections may begin.
    pub life: Life,
}

/// Makes the rule of this node as the gateway; none if the policy has no such way out.
pub(crate) fn resolve(
    context: &Context<'_>,
    policy: &Policy,
    key: &RuleKey,
    life: Life,
    findings: &mut BTreeSet<Finding>,
) -> Option<GatewayRule> {
    let group = policy.groups.get(usize::try_from(key.group).ok()?)?;
    let mut lookup = Lookup {
        context,
        policy,
        key,
        findings,
        v4: Vec::new(),
        v6: Vec::new(),
        output: None,
    };
    let is_held = match (&group.addresses, &key.exit) {
        (Addresses::DefaultRoute, Exit::Node(_)) => {
            lookup.default_route();
            false
        }
        (Addresses::Interface(name), Exit::Node(_)) => {
            lookup.interface(name);
            false
        }
        (Addresses::OnDevice(address), Exit::Node(_)) => {
            lookup.on_device(*address);
            false
        }
        (
            Addresses::Held {
                addresses,
                affinity,
                interface,
            },
            Exit::Shared | Exit::Address(_),
        ) => {
            let exit = key.as_ref().exit;
            let mut sets = held_sets(addresses, *affinity).into_iter();
            let set = sets.find(|set| set.exit == exit)?;
            lookup.held(&set.v4, &set.v6, interface.as_deref());
            true
        }
        (
            Addresses::DefaultRoute | Addresses::Interface(_) | Addresses::OnDevice(_),
            Exit::Shared | Exit::Address(_),
        )
        | (Addresses::Held { .. }, Exit::Node(_)) => return None,
    };
    let (v4, v6, output) = (lookup.v4, lookup.v6, lookup.output);
    Some(GatewayRule {
        key: key.clone(),
        v4,
        v6,
        output,
        ports: policy.limits.ports,
        is_udp_endpoint_independent: policy.limits.is_udp_endpoint_independent,
        timeouts: policy.limits.timeouts,
        is_held,
        drain: policy.limits.drain,
        life,
    })
}

/// The addresses of a rule, on the way to be found.
struct Lookup<'a> {
    context: &'a Context<'a>,
    policy: &'a Policy,
    key: &'a RuleKey,
    findings: &'a mut BTreeSet<Finding>,
    v4: Vec<Ipv4Addr>,
    v6: Vec<Ipv6Addr>,
    output: Option<u32>,
}

impl<'a> Lookup<'a> {
    /// The first address of each family of the device with that family's default route. Packets
    /// leave by it if it is one device; if there are two, the routing table tells them apart.
    fn default_route(&mut self) {
        let interfaces = &self.context.world.interfaces;
        let v4 = interfaces
            .iter()
            .find(|(_, device)| device.has_default_route_v4);
        let v6 = interfaces
            .iter()
            .find(|(_, device)| device.has_default_route_v6);
        for (device, family) in [(v4, Family::V4), (v6, Family::V6)] {
            match device {
                None => self.missing(family, Missing::DefaultRoute),
                Some((name, device)) => self.first_of(name, device, family),
            }
        }
        self.output = match (v4, v6) {
            (Some((v4, device)), Some((v6, _))) if v4 == v6 => Some(device.index),
            (Some(_), Some(_)) | (None, None) => None,
            (Some((_, device)), None) | (None, Some((_, device))) => Some(device.index),
        };
    }

    /// The first address of each family of a device.
    fn interface(&mut self, name: &str) {
        let Some(device) = self.device(name) else {
            return;
        };
        for family in [Family::V4, Family::V6] {
            self.first_of(name, device, family);
        }
    }

    /// An address that is there. Packets leave by its device, unless that is the loopback, which
    /// leads nowhere: there the routing table decides.
    fn on_device(&mut self, address: IpAddr) {
        let mut devices = self.context.world.interfaces.iter();
        match devices.find(|(_, device)| device.addresses.contains(&address)) {
            None => self.missing(Family::of(address), Missing::Address(address)),
            Some((name, device)) => {
                if name != "lo" {
                    self.leave_by(name, device);
                }
                self.put(address);
            }
        }
    }

    /// Held addresses, but those an older policy has.
    fn held(&mut self, v4: &[Ipv4Addr], v6: &[Ipv6Addr], interface: Option<&str>) {
        if let Some(name) = interface
            && self.device(name).is_none()
        {
            return;
        }
        let (context, policy, group) = (self.context, &self.policy.id, self.key.group);
        let mine = |address: &IpAddr| context.other_owner(*address, policy, group).is_none();
        let v4: Vec<_> = v4.iter().copied().map(IpAddr::V4).filter(mine).collect();
        let v6: Vec<_> = v6.iter().copied().map(IpAddr::V6).filter(mine).collect();
        for (family, addresses) in [(Family::V4, v4), (Family::V6, v6)] {
            if addresses.len() > MAX_ADDRESSES {
                self.findings.insert(Finding::TooManyAddresses {
                    policy: policy.clone(),
                    group,
                    family,
                    given: addresses.len(),
                    limit: MAX_ADDRESSES,
                });
            }
            for address in addresses.into_iter().take(MAX_ADDRESSES) {
                self.put(address);
            }
        }
    }

    /// The device of this name, by which packets leave.
    fn device(&mut self, name: &str) -> Option<&'a Interface> {
        let device = self.context.world.interfaces.get(name);
        match device {
            Some(device) => self.leave_by(name, device),
            None => {
                for family in [Family::V4, Family::V6] {
                    self.missing(family, Missing::Interface(name.to_owned()));
                }
            }
        }
        device
    }

    fn leave_by(&mut self, name: &str, device: &Interface) {
        self.output = Some(device.index);
        if !device.is_up {
            self.findings.insert(Finding::InterfaceDown {
                policy: self.policy.id.clone(),
                node: self.context.world.node.clone(),
                interface: name.to_owned(),
            });
        }
    }

    fn first_of(&mut self, name: &str, device: &Interface, family: Family) {
        let mut addresses = device.addresses.iter();
        match addresses.find(|address| Family::of(**address) == family) {
            Some(address) => self.put(*address),
            None => self.missing(family, Missing::AddressOn(name.to_owned())),
        }
    }

    fn put(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.v4.push(address),
            IpAddr::V6(address) => self.v6.push(address),
        }
    }

    /// Reports what is missing, if the policy has destinations that need it.
    fn missing(&mut self, family: Family, missing: Missing) {
        let mut destinations = self.policy.destinations.iter();
        if destinations.any(|net| Family::of_net(*net) == family) {
            self.findings.insert(Finding::GatewayWithout {
                policy: self.policy.id.clone(),
                group: self.key.group,
                node: self.context.world.node.clone(),
                family,
                missing,
            });
        }
    }
}

impl GatewayRule {
    /// All its addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.v4.iter().copied().map(IpAddr::V4);
        v4.chain(self.v6.iter().copied().map(IpAddr::V6))
    }
}
