// SPDX-License-Identifier: Apache-2.0
//! The default routes of the kernel that are not ours, as facts about the node.

use std::collections::BTreeMap;

use bgp_config::{DefaultGateway, DefaultRoute};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use router_netlink::{KernelRoute, Netlink, Protocol, RouteFilter, RouteKind};
use router_types::{LinkIndex, NextHop, RouteKey, TableId};

use crate::routes::Routes;

/// Whether a route is a default route of the table whose gateways may be peers.
pub fn is_default(key: &RouteKey) -> bool {
    key.table == TableId::MAIN && key.prefix.prefix_len() == 0
}

/// The default routes of the main table that the daemon did not write.
pub async fn default_routes(
    routes: &Routes,
    netlink: &mut Netlink,
    names: &BTreeMap<LinkIndex, String>,
) -> anyhow::Result<Vec<DefaultRoute>> {
    let defaults = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
    let rivals = routes.ask(move |view| {
        let explain = |prefix| {
            let table = TableId::MAIN;
            view.rib.explain(&RouteKey { table, prefix }).rivals
        };
        defaults
            .map(explain)
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
    });
    let mut found = Vec::new();
    let mut has_advertised = false;
    for rival in rivals.await.unwrap_or_default() {
        has_advertised |= rival.route.protocol == Protocol::RA.to_string();
        found.push(DefaultRoute {
            metric: rival.route.metric,
            is_learned_by_bgp: rival.route.protocol == Protocol::BGP.to_string(),
            gateways: gateways(&rival.route.next_hops, names),
        });
    }
    if has_advertised {
        // Default routes of several advertising routers differ in nothing but the gateway: by
        // table, prefix and metric they are one.
        let filter = RouteFilter {
            table: Some(TableId::MAIN),
            protocol: Some(Protocol::RA),
        };
        let listed = netlink.routes(filter)?.into_iter();
        found.extend(listed.filter(is_way_out).map(|route| {
            let hops: Vec<NextHop> = route.next_hops.iter().map(|hop| hop.next_hop).collect();
            DefaultRoute {
                metric: route.metric,
                is_learned_by_bgp: false,
                gateways: gateways(&hops, names),
            }
        }));
    }
    Ok(found)
}

fn is_way_out(route: &KernelRoute) -> bool {
    is_default(&route.key) && route.kind == RouteKind::Unicast
}

fn gateways(hops: &[NextHop], names: &BTreeMap<LinkIndex, String>) -> Vec<DefaultGateway> {
    let gateway = |hop: &NextHop| {
        Some(DefaultGateway {
            address: hop.via?,
            interface: names.get(&hop.link?)?.clone(),
        })
    };
    hops.iter().filter_map(gateway).collect()
}
