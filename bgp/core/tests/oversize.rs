// SPDX-License-Identifier: Apache-2.0
//! Routes as long as extended messages allow (RFC 8654): where they do not fit, they are taken back
//! and not left as they were, and nothing that looks at them takes more than its time.

use std::net::Ipv4Addr;
use std::time::Instant;

use bgp_core::config::{
    FamilyConfig, ImportMode, ImportPolicy, InstanceConfig, PeerAddress, PeerConfig, PolicyConfig,
    Transit,
};
use bgp_core::peer::SessionAddresses;
use bgp_core::policy::{Action, Condition, Policy, RouteContext, RouteOrigin, Statement, Verdict};
use bgp_core::rib::{
    PrefixFilter, Rib, RibInput, RouteQuery, RouteTable, SessionFamily, SessionInfo,
};
use bgp_core::routes::{NextHopAddress, RouteChange};
use bgp_wire::{
    AsPath, AttributeCode, AttributeFlags, OpaqueAttribute, Origin, PathAttributes, PeerKind,
    SessionContext, Update, UpdateView, frame,
};
use ipnet::IpNet;
use router_types::{Asn, Family};

const V4: Family = Family::IPV4_UNICAST;

/// A speaker with neighbours of AS 65001 and up, each with messages of this length at most.
fn speaker(max_lens: &[usize], now: Instant) -> Rib {
    let router_id = Ipv4Addr::new(10, 0, 0, 1);
    let mut config = InstanceConfig::new("i".into(), Asn(65000), router_id).unwrap();
    config.transit = Transit::Allowed;
    let name = |number: usize| format!("peer {number}").as_str().into();
    let address = |number: usize| Ipv4Addr::new(10, 0, 0, 10 + number as u8);
    for number in 0..max_lens.len() {
        let family = FamilyConfig {
            import: ImportPolicy {
                mode: ImportMode::All,
            },
            ..FamilyConfig::default()
        };
        let at = PeerAddress::new(address(number).into(), None).unwrap();
        let peer = PeerConfig::new(at)
            .with_families([(V4, family)].into())
            .unwrap();
        config.add_peer(name(number), peer).unwrap();
    }
    let mut rib = Rib::new(config, now);
    rib.handle(RibInput::LocalRoutes(Default::default()), now);
    for (number, max_len) in max_lens.iter().enumerate() {
        let session = SessionInfo {
            peer_asn: Asn(65001 + number as u32),
            peer_router_id: address(number),
            internal: false,
            four_octet_as: true,
            max_len: *max_len,
            families: vec![SessionFamily {
                family: V4,
                extended_next_hop: false,
                graceful: false,
                forwarding_preserved: false,
                add_path_receive: false,
                add_path_send: false,
            }],
            addresses: SessionAddresses {
                local: (router_id, 179).into(),
                remote: (address(number), 179).into(),
                link: None,
                link_ipv4: None,
                link_ipv6: None,
                network: None,
            },
            local_asn: None,
            role: None,
            long_lived: false,
            enhanced_refresh: false,
        };
        let up = RibInput::PeerUp {
            peer: name(number),
            session: Box::new(session),
        };
        rib.handle(up, now);
    }
    rib
}

fn prefix() -> IpNet {
    "198.51.100.0/24".parse().unwrap()
}

/// The first neighbour announces the prefix with an unknown attribute of this length, which is to be
/// passed on.
fn announce(rib: &mut Rib, len: usize, now: Instant) {
    let attributes = PathAttributes {
        origin: Some(Origin::Igp),
        as_path: Some(AsPath::from_sequence([Asn(65001)])),
        opaque: vec![OpaqueAttribute {
            flags: AttributeFlags::OPTIONAL | AttributeFlags::TRANSITIVE,
            code: AttributeCode(99),
            value: vec![7; len],
        }],
        ..PathAttributes::default()
    };
    let mut bytes = Vec::new();
    attributes.encode(true, &mut bytes);
    let changes = vec![RouteChange::Announce {
        family: V4,
        attributes: bytes.into(),
        next_hop: NextHopAddress {
            address: "10.0.0.10".parse().unwrap(),
            link_local: None,
        },
        prefixes: vec![prefix()],
        path_ids: Vec::new(),
    }];
    let routes = RibInput::Routes {
        peer: "peer 0".into(),
        changes: changes.into(),
    };
    rib.handle(routes, now);
}

/// What a neighbour is sent about the prefix: announced with an attribute of this length, or
/// withdrawn.
fn sent(rib: &mut Rib, peer: &str, max_len: usize) -> Vec<Option<usize>> {
    let context = SessionContext::plain(PeerKind::External, &[V4]);
    let mut said = Vec::new();
    while let Some(transmit) = rib.poll_transmit(&peer.into()) {
        let mut rest = &transmit.bytes[..];
        while !rest.is_empty() {
            let frame = frame::next(rest, max_len)
                .expect("a message")
                .expect("whole");
            assert!(frame.len <= max_len);
            let view = UpdateView::split(frame.body).expect("an UPDATE");
            let mut canonical = Vec::new();
            let update = Update::parse(&view, &context, &mut canonical);
            let decoded = PathAttributes::decode(&canonical, &context);
            assert_eq!(update.faults(&decoded), []);
            let opaque = decoded.attributes.opaque.first();
            let len = opaque.map_or(0, |opaque| opaque.value.len());
            said.extend(update.announced.iter().map(|_| Some(len)));
            said.extend(update.withdrawn.iter().map(|_| None));
            rest = &rest[frame.len..];
        }
    }
    said
}

fn advertised(rib: &Rib, peer: &str, now: Instant) -> usize {
    let query = RouteQuery {
        table: RouteTable::Advertised(peer.into()),
        family: V4,
        filter: PrefixFilter::All,
        after: None,
        limit: 10,
    };
    rib.routes(&query, now).routes.len()
}

/// FRRouting/frr#22045: an attribute nearly as long as a message did not fit where it was written
/// again.
#[test]
fn what_does_not_fit_is_withdrawn_where_it_was_announced() {
    let now = Instant::now();
    let mut rib = speaker(&[65535, 4096, 65535], now);
    announce(&mut rib, 100, now);
    assert_eq!(sent(&mut rib, "peer 1", 4096), [Some(100)]);
    assert_eq!(sent(&mut rib, "peer 2", 65535), [Some(100)]);
    // Longer than short messages, and longer than any once the own AS is in front.
    let mut gone = vec![None];
    for (len, in_long) in [(5000, Some(5000)), (65_400, Some(65_400)), (65_500, None)] {
        announce(&mut rib, len, now);
        // Once.
        assert_eq!(sent(&mut rib, "peer 1", 4096), gone, "{len}");
        assert_eq!(sent(&mut rib, "peer 2", 65535), [in_long], "{len}");
        assert_eq!(rib.stats().routes, 1);
        // What is not sent is not said to be.
        let count = |peer: &str| rib.counts(&peer.into())[&V4].advertised;
        let listed = |peer: &str| advertised(&rib, peer, now);
        assert_eq!((count("peer 1"), listed("peer 1")), (0, 0), "{len}");
        let in_long = usize::from(in_long.is_some());
        assert_eq!(
            (count("peer 2"), listed("peer 2")),
            (in_long as u64, in_long)
        );
        gone.clear();
    }
    let why = rib.explain(prefix(), Some(&"peer 1".into()), now);
    let why = why.adverts[0].routes[0]
        .outcome
        .as_ref()
        .expect_err("not sent");
    assert_eq!(why.name(), "too-long");
    announce(&mut rib, 0, now);
    assert_eq!(sent(&mut rib, "peer 1", 4096), [Some(0)]);
    assert_eq!(sent(&mut rib, "peer 2", 65535), [Some(0)]);
    assert_eq!(advertised(&rib, "peer 1", now), 1);
}

/// CVE-2026-49943: BIRD matched paths in an array that was too short for extended messages.
#[test]
fn the_longest_path_there_can_be_is_matched_like_others() {
    // 64 segments of 255 are 65 408 octets.
    let mut path = AsPath::from_sequence((0..64 * 255).map(|n| Asn(64_512 + n % 7)));
    path.prepend(Asn(65001), 1);
    let attributes = PathAttributes {
        origin: Some(Origin::Igp),
        as_path: Some(path),
        ..PathAttributes::default()
    };
    for (pattern, matches) in [
        ("^65001_", true),
        ("_64515_", true),
        ("_64513_64514_64515_64516_64517_64518_64512_", true),
        (
            "^(65001|64512|64513|64514|64515|64516|64517|64518)( (64512|64513|64514|64515|64516|64517|64518))*$",
            true,
        ),
        ("_65009$", false),
    ] {
        let statement = Statement {
            name: "s".into(),
            conditions: vec![Condition::AsPaths(vec![
                pattern.parse().expect("a pattern"),
            ])],
            changes: Vec::new(),
            action: Action::Final(Verdict::Accept),
        };
        let config = PolicyConfig::new("p".into(), vec![statement], Verdict::Reject).unwrap();
        let policy = Policy::compile(&config).expect("it compiles");
        let context = RouteContext {
            family: V4,
            next_hop: None,
            source: RouteOrigin::External,
            learned_from: None,
            peer_asn: Asn(65001),
            local_asn: Asn(65000),
        };
        let decision = policy.judge(&attributes, &context).decide(&prefix());
        assert_eq!(decision.is_accepted(), matches, "{pattern}");
    }
}
