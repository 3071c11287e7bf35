// SPDX-License-Identifier: Apache-2.0
//! Routes of VPNs and memberships of route targets in whole messages: there and back, and what is
//! done about broken ones (RFC 7606 §5.3, §7.11).

use bgp_wire::{
    AsPath, ErrorKind, FamilyContext, Fault, Finding, Label, NlriError, Origin, PathAttributes,
    PathNextHop, PeerKind, RouteDistinguisher, RouteTargetPrefix, SessionContext, Treatment,
    Update, UpdateView, VpnEntry, VpnPrefix, announce_with, frame, withdraw_with,
};
use proptest::collection::vec;
use proptest::prelude::*;
use router_types::{Asn, Family, IpNet, Ipv4Net, Ipv6Net};

const ALL: [Family; 3] = [Family::VPNV4, Family::VPNV6, Family::ROUTE_TARGET];

fn context() -> SessionContext {
    SessionContext::plain(PeerKind::Internal, &ALL)
}

fn attributes() -> Vec<u8> {
    let mut bytes = Vec::new();
    PathAttributes {
        origin: Some(Origin::Igp),
        as_path: Some(AsPath::from_sequence([Asn(65001)])),
        local_pref: Some(100),
        ..PathAttributes::default()
    }
    .encode(true, &mut bytes);
    bytes
}

fn entries(v6: bool, add_path: bool) -> impl Strategy<Value = Vec<VpnEntry>> {
    let prefix = (any::<u128>(), 0..=128u8).prop_map(move |(address, bits)| {
        let net: IpNet = if v6 {
            Ipv6Net::new(address.into(), bits).unwrap().into()
        } else {
            Ipv4Net::new((address as u32).into(), bits % 33)
                .unwrap()
                .into()
        };
        net.trunc()
    });
    let entry = (any::<u32>(), any::<u32>(), any::<[u8; 8]>(), prefix);
    let entry = entry.prop_map(move |(id, label, rd, prefix)| VpnEntry {
        path_id: add_path.then_some(id),
        label: Label::new(label),
        destination: VpnPrefix {
            rd: RouteDistinguisher(rd),
            prefix,
        },
    });
    vec(entry, 1..700)
}

fn hop(v6: bool, local: bool) -> PathNextHop {
    if v6 {
        PathNextHop::V6 {
            global: "2001:db8::1".parse().unwrap(),
            link_local: local.then(|| "fe80::1".parse().unwrap()),
        }
    } else {
        PathNextHop::V4([192, 0, 2, 1].into())
    }
}

fn bodies(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut list = Vec::new();
    while let Some(frame) = frame::next(bytes, frame::MAX_LEN).expect("own message") {
        list.push(frame.body);
        bytes = &bytes[frame.len..];
    }
    list
}

fn there_and_back(
    v6: bool,
    hop_v6: bool,
    local: bool,
    add_path: bool,
    entries: &[VpnEntry],
) -> Result<(), TestCaseError> {
    let mut family = FamilyContext::plain(if v6 { Family::VPNV6 } else { Family::VPNV4 });
    (family.add_path_send, family.add_path_receive) = (add_path, add_path);
    family.extended_next_hop = true;
    let mut context = context();
    context.families = vec![family];
    let (encoded, hop) = (attributes(), hop(v6 || hop_v6, local));
    let mut bytes = Vec::new();
    let mut left = entries;
    let fill = |out: &mut Vec<u8>, end: usize| {
        while let [next, rest @ ..] = left
            && out.len() + next.encoded_len(add_path) <= end
        {
            next.encode(add_path, out);
            left = rest;
        }
        !left.is_empty()
    };
    announce_with(&mut bytes, &family, frame::MAX_LEN, &encoded, hop, fill).unwrap();
    let announcements = bodies(&bytes).len();
    let mut left = entries;
    withdraw_with(&mut bytes, &family, frame::MAX_LEN, |out, end| {
        while let [next, rest @ ..] = left
            && out.len() + next.encoded_len(add_path) <= end
        {
            next.encode_withdrawn(add_path, out);
            left = rest;
        }
        !left.is_empty()
    });
    let (mut announced, mut withdrawn) = (Vec::new(), Vec::new());
    for (at, body) in bodies(&bytes).into_iter().enumerate() {
        let view = UpdateView::split(body).unwrap();
        let mut canonical = Vec::new();
        let update = Update::parse(&view, &context, &mut canonical);
        let decoded = PathAttributes::decode(&canonical, &context);
        prop_assert_eq!(update.faults(&decoded), []);
        prop_assert_eq!(update.end_of_rib(), None);
        if at < announcements {
            let reach = update.mp_announced.expect("announces");
            prop_assert_eq!(reach.next_hop, hop);
            prop_assert_eq!(&canonical, &encoded);
            announced.extend(reach.nlri.vpn());
        } else {
            withdrawn.extend(update.mp_withdrawn.expect("withdraws").vpn());
        }
    }
    prop_assert_eq!(&announced[..], entries);
    let gone = |entry: &VpnEntry| (entry.path_id, entry.destination);
    prop_assert!(withdrawn.iter().map(gone).eq(entries.iter().map(gone)));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn vpnv4_routes_read_back(entries in entries(false, false), hop_v6: bool) {
        there_and_back(false, hop_v6, false, false, &entries)?;
    }

    #[test]
    fn vpnv6_routes_with_path_identifiers_read_back(entries in entries(true, true), local: bool) {
        there_and_back(true, true, local, true, &entries)?;
    }

    /// Whatever stands where, nothing panics, and what is taken is whole.
    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in vec(any::<u8>(), 0..80), family in prop::sample::select(ALL.to_vec()),
    ) {
        if let Ok(nlri) = bgp_wire::Nlri::parse(family, false, &bytes) {
            prop_assert_eq!(nlri.destinations().count(), nlri.count());
        }
    }
}

/// An UPDATE with an MP attribute of these octets after the family.
fn judged(family: Family, code: u8, value: &[u8]) -> Vec<Fault> {
    let mut mp = vec![0, family.afi.0 as u8, family.safi.0];
    mp.extend_from_slice(value);
    let mut list = vec![0x90, code, 0, mp.len() as u8];
    list.append(&mut mp);
    list.extend(attributes());
    let mut body = vec![0, 0, 0, list.len() as u8];
    body.append(&mut list);
    let view = UpdateView::split(&body).unwrap();
    let mut canonical = Vec::new();
    let update = Update::parse(&view, &context(), &mut canonical);
    update.faults(&PathAttributes::decode(&canonical, &context()))
}

/// The next hop field of a VPNv4 route, and one route.
const HOP: [u8; 14] = [12, 0, 0, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1, 0];
const ROUTE: [u8; 14] = [104, 0, 1, 1, 0, 0, 0xfd, 0xe8, 0, 0, 0, 100, 10, 1];

#[test]
fn broken_routes_of_vpns_disable_the_family() {
    let good = [&HOP[..], &ROUTE].concat();
    assert_eq!(judged(Family::VPNV4, 14, &good), []);
    let disables = |family, code, value: &[u8], finding| {
        let faults = judged(family, code, value);
        let [fault] = &faults[..] else {
            panic!("{faults:?}");
        };
        assert_eq!(fault.finding, finding);
        let Treatment::DisableFamily {
            family: disabled,
            notification,
        } = &fault.treatment
        else {
            panic!("{fault:?}");
        };
        assert_eq!(*disabled, family);
        assert_eq!(notification.kind, ErrorKind::OPTIONAL_ATTRIBUTE);
    };
    let nlri = |error| Finding::Nlri(error);
    // Cut short, too short for a distinguisher, longer than an address.
    let cut = [&HOP[..], &ROUTE[..13]].concat();
    let truncated = NlriError::Truncated { offset: 0 };
    disables(Family::VPNV4, 14, &cut, nlri(truncated));
    let short = [&HOP[..], &[87], &ROUTE[1..12]].concat();
    let too_short = NlriError::PrefixTooShort { offset: 0, len: 87 };
    disables(Family::VPNV4, 14, &short, nlri(too_short));
    let long = [&HOP[..], &[121], &[0; 16]].concat();
    let too_long = NlriError::PrefixTooLong {
        offset: 0,
        len: 121,
    };
    disables(Family::VPNV4, 14, &long, nlri(too_long));
    // Next hops without distinguisher, and of IPv6 where that was not agreed on.
    for hop in [4, 16, 24, 48, 0, 13] {
        let mut value = vec![hop];
        value.extend(vec![1; hop.into()]);
        value.push(0);
        value.extend(ROUTE);
        let found = Finding::NextHopLength {
            family: Family::VPNV4,
            found: hop.into(),
        };
        disables(Family::VPNV4, 14, &value, found);
    }
    let many = NlriError::PrefixTooLong { offset: 0, len: 97 };
    let target = [&[4, 192, 0, 2, 1, 0, 97][..], &[0; 13]].concat();
    disables(Family::ROUTE_TARGET, 14, &target, nlri(many));
}

#[test]
fn next_hops_no_packet_can_be_sent_to_withdraw() {
    let mut loopback = HOP;
    loopback[9] = 127;
    let faults = judged(Family::VPNV4, 14, &[&loopback[..], &ROUTE].concat());
    assert_eq!(faults[0].treatment, Treatment::TreatAsWithdraw);
    // What the distinguisher of a next hop says is nothing (RFC 4364 §4.3.2: it is zero).
    let mut odd = HOP;
    odd[2] = 7;
    assert_eq!(judged(Family::VPNV4, 14, &[&odd[..], &ROUTE].concat()), []);
}

#[test]
fn memberships_have_next_hops_of_either_family() {
    let target = RouteTargetPrefix::new(Asn(65001), "rt:65000:100".parse().unwrap());
    for hop in [hop(false, false), hop(true, false)] {
        let family = FamilyContext::plain(Family::ROUTE_TARGET);
        let mut bytes = Vec::new();
        let fill = |out: &mut Vec<u8>, _| {
            target.encode(out);
            false
        };
        announce_with(
            &mut bytes,
            &family,
            frame::MAX_LEN,
            &attributes(),
            hop,
            fill,
        )
        .unwrap();
        let view = UpdateView::split(bodies(&bytes)[0]).unwrap();
        let context = context();
        let update = Update::parse(&view, &context, &mut Vec::new());
        let reach = update.mp_announced.unwrap();
        assert_eq!(reach.next_hop, hop);
        assert!(
            reach
                .nlri
                .route_targets()
                .map(|entry| entry.target)
                .eq([target])
        );
    }
}
