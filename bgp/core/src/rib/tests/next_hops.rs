// SPDX-License-Identifier: Apache-2.0
//! Which next hops neighbours are sent.

use super::*;

#[test]
fn another_next_hop_is_announced_live() {
    let now = Instant::now();
    let mut rib = Rib::new(all(&["a"]), now);
    rib.handle(
        local(&[("10.1.0.0/24", &["a"]), ("10.2.0.0/24", &["a"])]),
        now,
    );
    up(&mut rib, "a", 10, 65002, now);
    sent(&mut rib, "a");
    let mut next = all(&["a"]);
    let mut changed = InstanceConfig::new("i".into(), Asn(65001), next.router_id()).unwrap();
    let mut families = next.peers()[&PeerName::from("a")].families().clone();
    let family = families.get_mut(&Family::IPV4_UNICAST).unwrap();
    family.next_hop = Some("10.0.0.99".parse().unwrap());
    let peer = next.peers()[&PeerName::from("a")]
        .clone()
        .with_families(families)
        .unwrap();
    changed.add_peer("a".into(), peer).unwrap();
    next = changed;
    rib.handle(RibInput::Configure(Box::new(next)), now);
    assert_eq!(sent(&mut rib, "a").0, ["10.1.0.0/24", "10.2.0.0/24"]);
    let query = RouteQuery {
        table: RouteTable::Advertised("a".into()),
        family: Family::IPV4_UNICAST,
        filter: PrefixFilter::All,
        after: None,
        limit: 10,
    };
    let page = rib.routes(&query, now);
    assert!(
        page.routes
            .iter()
            .all(|r| r.next_hop == Some("10.0.0.99".parse().unwrap()))
    );
}

#[test]
fn next_hops_fit_the_family_and_the_session() {
    let now = Instant::now();
    type Ip = Option<&'static str>;
    let cases: [(&str, bool, Ip, Ip, Ip, Ip); 6] = [
        // local end, RFC 8950, the link's IPv4 and IPv6, next hop for IPv4 and for IPv6
        (
            "10.0.0.1",
            false,
            None,
            Some("fd00::1"),
            Some("10.0.0.1"),
            Some("fd00::1"),
        ),
        ("10.0.0.1", true, None, None, Some("10.0.0.1"), None),
        (
            "fd00::1",
            true,
            Some("10.0.0.1"),
            None,
            Some("fd00::1"),
            Some("fd00::1"),
        ),
        (
            "fd00::1",
            false,
            Some("10.0.0.1"),
            None,
            Some("10.0.0.1"),
            Some("fd00::1"),
        ),
        ("fd00::1", false, None, None, None, Some("fd00::1")),
        (
            "fe80::1",
            true,
            None,
            Some("fd00::1"),
            Some("fd00::1"),
            Some("fd00::1"),
        ),
    ];
    for (end, extended, link_ipv4, link_ipv6, for_v4, for_v6) in cases {
        let mut rib = Rib::new(all(&["a"]), now);
        rib.handle(
            local(&[("10.1.0.0/24", &["a"]), ("fd00:1::/64", &["a"])]),
            now,
        );
        let mut info = session(10, 65002);
        info.families[0].extended_next_hop = extended;
        info.addresses.local = std::net::SocketAddr::new(end.parse().unwrap(), 179);
        info.addresses.link_ipv4 = link_ipv4.map(|ip| ip.parse().unwrap());
        info.addresses.link_ipv6 = link_ipv6.map(|ip| ip.parse().unwrap());
        rib.handle(
            RibInput::PeerUp {
                peer: "a".into(),
                session: info,
            },
            now,
        );
        while rib.poll_transmit(&"a".into()).is_some() {}
        for (family, wanted) in [
            (Family::IPV4_UNICAST, for_v4),
            (Family::IPV6_UNICAST, for_v6),
        ] {
            let query = RouteQuery {
                table: RouteTable::Advertised("a".into()),
                family,
                filter: PrefixFilter::All,
                after: None,
                limit: 10,
            };
            let routes = rib.routes(&query, now).routes;
            let found = routes
                .first()
                .and_then(|route| route.next_hop)
                .map(|ip| ip.to_string());
            assert_eq!(found.as_deref(), wanted, "{end} {extended} {family}");
        }
    }
}
