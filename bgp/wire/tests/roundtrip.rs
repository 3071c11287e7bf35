// SPDX-License-Identifier: Apache-2.0
//! Values to bytes and back, for random values and for bytes from the documents.

#[allow(dead_code, reason = "other tests use the rest")]
mod generate;

use bgp_wire::{
    AsPath, AsSetPolicy, Capability, ErrorKind, FamilyContext, Open, PackError, PathAttributes,
    PathNextHop, PeerKind, SessionContext, Update, UpdateView, announce, end_of_rib, frame,
    withdraw,
};
use generate::{Announcement, announcement, attributes, entry, open};
use proptest::collection::vec;
use proptest::prelude::*;
use router_types::{Afi, Asn, Family};

fn context(families: Vec<FamilyContext>, four_octet_as: bool) -> SessionContext {
    SessionContext {
        peer: PeerKind::Confederation,
        four_octet_as,
        extended_messages: false,
        as_sets: AsSetPolicy::Accept,
        families,
    }
}

fn bodies(mut bytes: &[u8], max_len: usize) -> Vec<&[u8]> {
    let mut list = Vec::new();
    while !bytes.is_empty() {
        let frame = frame::next(bytes, max_len)
            .expect("own message")
            .expect("whole message");
        list.push(frame.body);
        bytes = &bytes[frame.len..];
    }
    list
}

proptest! {
    #[test]
    fn announcements_read_back(a in announcement()) {
        let Announcement { family, attributes, next_hop, entries } = a;
        let context = context(vec![family], true);
        let mut encoded = Vec::new();
        attributes.encode(true, &mut encoded);
        let mut bytes = Vec::new();
        announce(&mut bytes, &family, frame::MAX_LEN, &encoded, next_hop, entries.clone()).unwrap();
        let mut read = Vec::new();
        for body in bodies(&bytes, frame::MAX_LEN) {
            let mut canonical = Vec::new();
            let view = UpdateView::split(body).unwrap();
            let update = Update::parse(&view, &context, &mut canonical);
            let decoded = PathAttributes::decode(&canonical, &context);
            prop_assert_eq!(update.faults(&decoded), []);
            prop_assert_eq!(&canonical, &encoded);
            prop_assert_eq!(&decoded.attributes, &attributes);
            match (update.mp_announced, update.next_hop) {
                (Some(mp), None) => {
                    prop_assert_eq!(mp.next_hop, next_hop);
                    read.extend(mp.nlri);
                }
                (None, Some(hop)) => {
                    prop_assert_eq!(PathNextHop::V4(hop), next_hop);
                    read.extend(update.announced);
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
        prop_assert_eq!(read, entries);
    }

    /// A two-octet speaker carries everything but the members of confederations.
    #[test]
    fn two_octet_speakers_lose_nothing(attributes in attributes()) {
        let mut attributes = attributes;
        attributes.as_path.as_mut().unwrap().remove_confederation();
        let context = context(Vec::new(), false);
        let mut encoded = Vec::new();
        attributes.encode(false, &mut encoded);
        let decoded = PathAttributes::decode(&encoded, &context);
        prop_assert_eq!(decoded.faults, []);
        prop_assert_eq!(decoded.attributes, attributes);
    }

    #[test]
    fn withdrawals_read_back(
        v4 in vec(entry(Afi::IPV4, false), 0..2000),
        v6 in vec(entry(Afi::IPV6, true), 0..1000),
    ) {
        let mut ipv6 = FamilyContext::plain(Family::IPV6_UNICAST);
        (ipv6.add_path_send, ipv6.add_path_receive) = (true, true);
        let ipv4 = FamilyContext::plain(Family::IPV4_UNICAST);
        let context = context(vec![ipv4, ipv6], true);
        let mut bytes = Vec::new();
        withdraw(&mut bytes, &ipv4, frame::MAX_LEN, v4.clone());
        withdraw(&mut bytes, &ipv6, frame::MAX_LEN, v6.clone());
        let (mut read_v4, mut read_v6) = (Vec::new(), Vec::new());
        for body in bodies(&bytes, frame::MAX_LEN) {
            let view = UpdateView::split(body).unwrap();
            let update = Update::parse(&view, &context, &mut Vec::new());
            prop_assert_eq!(&update.faults, &[]);
            read_v4.extend(update.withdrawn);
            read_v6.extend(update.mp_withdrawn.into_iter().flatten());
        }
        prop_assert_eq!(read_v4, v4);
        prop_assert_eq!(read_v6, v6);
    }

    #[test]
    fn opens_read_back(open in open()) {
        let mut bytes = Vec::new();
        open.encode(&mut bytes);
        let frame = frame::next(&bytes, frame::MAX_LEN).unwrap().unwrap();
        prop_assert_eq!(Open::decode(frame.body).unwrap(), open);
    }
}

#[test]
fn messages_are_filled_to_the_limit() {
    let family = FamilyContext::plain(Family::IPV4_UNICAST);
    let attributes = PathAttributes {
        origin: Some(bgp_wire::Origin::Igp),
        as_path: Some(AsPath::from_sequence([Asn(65001)])),
        ..PathAttributes::default()
    };
    let mut encoded = Vec::new();
    attributes.encode(true, &mut encoded);
    let entries = (0..10_000u32).map(|n| {
        let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 | n << 8);
        bgp_wire::NlriEntry::new(router_types::Ipv4Net::new(address, 24).unwrap())
    });
    let hop = PathNextHop::V4([192, 0, 2, 1].into());
    for max_len in [frame::MAX_LEN, frame::MAX_EXTENDED_LEN] {
        let mut bytes = Vec::new();
        let messages =
            announce(&mut bytes, &family, max_len, &encoded, hop, entries.clone()).unwrap();
        let overhead = 19 + 4 + encoded.len() + 7;
        assert_eq!(messages, 10_000usize.div_ceil((max_len - overhead) / 4));
        let first = frame::next(&bytes, max_len).unwrap().unwrap();
        assert!(
            max_len - first.len < 4 || messages == 1,
            "{} of {max_len}",
            first.len
        );
    }
    let long = vec![0; 4096];
    let mut bytes = Vec::new();
    assert!(announce(&mut bytes, &family, frame::MAX_LEN, &long, hop, entries).is_err());
    assert_eq!(bytes, []);
}

#[test]
fn a_next_hop_of_a_family_that_was_not_negotiated_is_refused() {
    let v6_hop = PathNextHop::V6 {
        global: "2001:db8::1".parse().unwrap(),
        link_local: None,
    };
    let v4_hop = PathNextHop::V4([192, 0, 2, 1].into());
    for (family, hop) in [
        (Family::IPV4_UNICAST, v6_hop),
        (Family::IPV6_UNICAST, v4_hop),
    ] {
        let mut bytes = Vec::new();
        let context = FamilyContext::plain(family);
        let refused = announce(&mut bytes, &context, frame::MAX_LEN, &[], hop, []);
        assert_eq!(refused, Err(PackError::NextHopFamily(family)));
    }
}

#[test]
fn end_of_rib_is_recognised_per_family() {
    let families = [Family::IPV4_UNICAST, Family::IPV6_UNICAST];
    let context = context(families.map(FamilyContext::plain).to_vec(), true);
    for (family, octets) in families.into_iter().zip([23, 29]) {
        let mut bytes = Vec::new();
        end_of_rib(&mut bytes, family);
        assert_eq!(bytes.len(), octets);
        let view = UpdateView::split(&bytes[frame::HEADER_LEN..]).unwrap();
        let update = Update::parse(&view, &context, &mut Vec::new());
        assert_eq!(update.end_of_rib(), Some(family));
    }
    let view = UpdateView {
        withdrawn: &[8, 10],
        attributes: &[],
        announced: &[],
    };
    assert_eq!(
        Update::parse(&view, &context, &mut Vec::new()).end_of_rib(),
        None
    );
}

/// AS 65000, hold time 90, 192.0.2.1.
const FIXED: [u8; 9] = [4, 0xfd, 0xe8, 0, 90, 192, 0, 2, 1];

fn open_with(parameters: &[u8]) -> Result<Open, ErrorKind> {
    Open::decode(&[&FIXED, parameters].concat()).map_err(|n| n.kind)
}

#[test]
fn both_styles_of_capabilities_and_extended_lengths_mean_the_same() {
    let one = [10, 2, 8, 2, 0, 65, 4, 0, 0, 0xfd, 0xe8];
    let many = [12, 2, 2, 2, 0, 2, 6, 65, 4, 0, 0, 0xfd, 0xe8];
    let extended = [255, 255, 0, 11, 2, 0, 8, 2, 0, 65, 4, 0, 0, 0xfd, 0xe8];
    let open = open_with(&one).unwrap();
    assert_eq!(
        open.capabilities,
        [
            Capability::RouteRefresh,
            Capability::FourOctetAs(Asn(65000))
        ]
    );
    assert_eq!(open_with(&many).unwrap(), open);
    assert_eq!(open_with(&extended).unwrap(), open);
    let mut bytes = Vec::new();
    open.encode(&mut bytes);
    assert_eq!(bytes[frame::HEADER_LEN..], [&FIXED[..], &one].concat());
}

#[test]
fn a_broken_open_is_answered_as_rfc_4271_says() {
    assert_eq!(open_with(&[0]).unwrap().families(), [Family::IPV4_UNICAST]);
    for (parameters, kind) in [
        (&[][..], ErrorKind::OPEN),
        (&[1], ErrorKind::OPEN),
        (&[0, 0], ErrorKind::OPEN),
        (&[2, 2, 1], ErrorKind::OPEN),
        (&[3, 2, 1, 2], ErrorKind::OPEN),
        (&[4, 2, 2, 2, 1], ErrorKind::OPEN),
        (&[255, 255, 0], ErrorKind::OPEN),
        (&[255, 255, 0, 2, 2, 0], ErrorKind::OPEN),
        (&[5, 2, 3, 65, 1, 0], ErrorKind::OPEN),
        (&[2, 1, 0], ErrorKind::UNSUPPORTED_OPTIONAL_PARAMETER),
        (&[8, 2, 6, 65, 4, 0, 0, 0, 0], ErrorKind::BAD_PEER_AS),
    ] {
        assert_eq!(open_with(parameters), Err(kind), "{parameters:?}");
    }
    let changed = |at: usize, value: &[u8]| {
        let mut body = [&FIXED[..], &[0]].concat();
        body[at..at + value.len()].copy_from_slice(value);
        Open::decode(&body).unwrap_err()
    };
    let version = changed(0, &[3]);
    assert_eq!(
        (version.kind, &version.data[..]),
        (ErrorKind::UNSUPPORTED_VERSION, &[0, 4][..])
    );
    assert_eq!(changed(1, &[0, 0]).kind, ErrorKind::BAD_PEER_AS);
    assert_eq!(changed(3, &[0, 2]).kind, ErrorKind::UNACCEPTABLE_HOLD_TIME);
    assert_eq!(changed(5, &[0; 4]).kind, ErrorKind::BAD_BGP_IDENTIFIER);
}

#[test]
fn many_capabilities_need_the_extended_length() {
    let unknown = |code| Capability::Unknown {
        code,
        data: vec![7; 60],
    };
    let open = Open {
        asn: Asn(4_200_000_001),
        hold_time_s: 90,
        router_id: [10, 0, 0, 1].into(),
        capabilities: [Capability::FourOctetAs(Asn(4_200_000_001))]
            .into_iter()
            .chain((200..210).map(unknown))
            .collect(),
    };
    let mut bytes = Vec::new();
    open.encode(&mut bytes);
    assert_eq!(bytes[20..22], Asn::TRANS.to_two_octet().to_be_bytes());
    assert_eq!(bytes[28..30], [255, 255]);
    assert_eq!(Open::decode(&bytes[frame::HEADER_LEN..]).unwrap(), open);
}

/// RFC 6793 §4.2.3: the leading part of AS_PATH in front of AS4_PATH.
#[test]
fn paths_of_two_octet_speakers_are_merged() {
    let path = |bytes: &[u8], wide| AsPath::decode(bytes, wide).unwrap();
    let old = path(&[2, 4, 0, 1, 0, 2, 0x5b, 0xa0, 0x5b, 0xa0], false);
    let new = path(&[2, 2, 0, 3, 0, 0, 0, 4, 0, 0], true);
    assert_eq!(
        old.clone().merge_as4(new.clone()).to_string(),
        "1 2 196608 262144"
    );
    assert_eq!(
        new.clone().merge_as4(old.clone()),
        new,
        "a longer AS4_PATH is ignored"
    );
    let set = path(&[2, 1, 0, 9, 1, 2, 0, 1, 0, 2], false);
    let merged = set.merge_as4(path(&[1, 1, 0, 3, 0, 0], true));
    assert_eq!(merged.to_string(), "9 {196608}");
}

#[test]
fn prepending_opens_a_segment_when_the_first_is_full_or_a_set() {
    let mut path = AsPath::from_sequence((0..254).map(|n| Asn(n + 1)));
    path.prepend(Asn(65000), 3);
    assert_eq!(path.hop_count(), 257);
    assert_eq!(path.segments.len(), 2);
    assert_eq!(path.neighbour(), Some(Asn(65000)));
    let mut set = AsPath::decode(&[3, 1, 0, 8, 1, 1, 0, 9], false).unwrap();
    set.prepend(Asn(7), 1);
    assert_eq!(set.to_string(), "7 {9}");
}
