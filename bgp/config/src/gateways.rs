// SPDX-License-Identifier: Apache-2.0
//! Which gateways of the kernel's default routes may be peers.

use std::collections::BTreeSet;

use crate::facts::{DefaultGateway, NodeFacts};

/// A default route of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// Its metric: the lowest is used.
    pub metric: u32,
    /// Whether a BGP speaker wrote it, whichever.
    pub is_learned_by_bgp: bool,
    /// Its gateways.
    pub gateways: Vec<DefaultGateway>,
}

impl NodeFacts {
    /// Chooses, by family, the gateways of the routes of the lowest metric among those that have
    /// one on a link that is up. Routes of BGP speakers do not count, or a session would choose its
    /// own peer.
    pub fn set_default_routes(&mut self, routes: &[DefaultRoute]) {
        let mut chosen = BTreeSet::new();
        for is_ipv4 in [true, false] {
            let is_usable = |gateway: &&DefaultGateway| {
                let link = self.interfaces.get(&gateway.interface);
                gateway.address.is_ipv4() == is_ipv4 && link.is_some_and(|link| link.is_up())
            };
            let usable: Vec<(u32, &DefaultGateway)> = routes
                .iter()
                .filter(|route| !route.is_learned_by_bgp)
                .flat_map(|route| {
                    let gateways = route.gateways.iter().filter(is_usable);
                    gateways.map(|gateway| (route.metric, gateway))
                })
                .collect();
            let lowest = usable.iter().map(|(metric, _)| *metric).min();
            let best = usable.iter().filter(|(metric, _)| Some(*metric) == lowest);
            chosen.extend(best.map(|(_, gateway)| (*gateway).clone()));
        }
        self.default_gateways = chosen.into_iter().collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{InterfaceFacts, OperState};

    fn node() -> NodeFacts {
        let link = |oper_state| InterfaceFacts {
            is_admin_up: true,
            oper_state,
            addresses: Vec::new(),
        };
        let mut facts = NodeFacts::default();
        let links = [
            ("eth0", OperState::Up),
            ("eth1", OperState::Up),
            ("cut", OperState::Down),
        ];
        for (name, state) in links {
            facts.interfaces.insert(name.to_owned(), link(state));
        }
        facts
    }

    fn route(metric: u32, gateways: &[(&str, &str)]) -> DefaultRoute {
        let gateway = |(address, interface): &(&str, &str)| DefaultGateway {
            address: address.parse().unwrap(),
            interface: (*interface).to_owned(),
        };
        DefaultRoute {
            metric,
            is_learned_by_bgp: false,
            gateways: gateways.iter().map(gateway).collect(),
        }
    }

    fn chosen(routes: &[DefaultRoute]) -> Vec<String> {
        let mut facts = node();
        facts.set_default_routes(routes);
        let gateways = facts.default_gateways.iter();
        gateways
            .map(|g| format!("{}%{}", g.address, g.interface))
            .collect()
    }

    #[test]
    fn all_gateways_of_the_lowest_metric_are_chosen_by_family() {
        let routes = [
            route(100, &[("10.0.0.1", "eth0"), ("10.0.1.1", "eth1")]),
            route(200, &[("10.0.2.1", "eth1")]),
            route(1024, &[("fe80::1", "eth0")]),
            route(1024, &[("fe80::2", "eth1")]),
        ];
        let all = [
            "10.0.0.1%eth0",
            "10.0.1.1%eth1",
            "fe80::1%eth0",
            "fe80::2%eth1",
        ];
        assert_eq!(chosen(&routes), all);
    }

    #[test]
    fn a_gateway_behind_a_link_that_is_down_gives_way_to_the_next_metric() {
        let routes = [
            route(0, &[("10.0.0.1", "cut")]),
            route(50, &[("10.0.1.1", "eth1"), ("10.0.9.1", "gone")]),
        ];
        assert_eq!(chosen(&routes), ["10.0.1.1%eth1"]);
    }

    #[test]
    fn what_bgp_learned_is_no_gateway() {
        let learned = DefaultRoute {
            is_learned_by_bgp: true,
            ..route(20, &[("10.0.0.1", "eth0")])
        };
        assert_eq!(chosen(std::slice::from_ref(&learned)), [""; 0]);
        let routes = [learned, route(100, &[("10.0.1.1", "eth1")])];
        assert_eq!(chosen(&routes), ["10.0.1.1%eth1"]);
    }
}
