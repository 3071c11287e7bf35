// SPDX-License-Identifier: Apache-2.0
//! Our messages as two independent decoders read them: bgpkit-parser, and tshark where it is
//! installed.

#[allow(dead_code, reason = "other tests use the rest")]
mod generate;

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::process::Command;

use bgp_wire::{
    ErrorKind, FamilyContext, Label, NlriEntry, Notification, PathAttributes, PathNextHop,
    RefreshKind, RouteRefresh, RouteTargetPrefix, SegmentKind, VpnEntry, VpnPrefix, announce,
    announce_with, end_of_rib, frame, withdraw, withdraw_with,
};
use bgpkit_parser::models::{
    AsPathSegment, AsnLength, AttributeValue, BgpMessage, Community, NetworkPrefix, NextHopAddress,
    Origin,
};
use generate::{Announcement, announcement, entry, open};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use router_types::{Afi, Asn, Family};

fn bgpkit(bytes: &[u8], add_path: bool) -> Vec<BgpMessage> {
    messages(bytes)
        .map(|message| {
            let mut data = message.to_vec().into();
            bgpkit_parser::parser::bgp::messages::parse_bgp_message(
                &mut data,
                add_path,
                &AsnLength::Bits32,
            )
            .expect("bgpkit reads our message")
        })
        .collect()
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let frame = frame::next(bytes, frame::MAX_EXTENDED_LEN).expect("own message")?;
        let (message, rest) = bytes.split_at(frame.len);
        bytes = rest;
        Some(message)
    })
}

/// Both decoders guess from zero octets that path identifiers are in use; the default route has
/// one, and is left out where they are not.
fn unambiguous(entry: &NlriEntry) -> bool {
    entry.path_id.is_some() || entry.prefix.prefix_len() > 0
}

fn encode(a: &Announcement) -> Vec<u8> {
    let mut attributes = Vec::new();
    a.attributes.encode(true, &mut attributes);
    let mut bytes = Vec::new();
    let entries = a.entries.iter().copied();
    announce(
        &mut bytes,
        &a.family,
        frame::MAX_LEN,
        &attributes,
        a.next_hop,
        entries,
    )
    .unwrap();
    bytes
}

fn entries(prefixes: &[NetworkPrefix]) -> impl Iterator<Item = NlriEntry> + '_ {
    prefixes.iter().map(|p| NlriEntry {
        path_id: p.path_id,
        prefix: p.prefix,
    })
}

/// Takes from `expected` what one attribute says; in the end nothing may be left.
fn compare(value: &AttributeValue, expected: &mut PathAttributes) {
    match value {
        AttributeValue::Origin(origin) => {
            let ours = expected.origin.take().expect("ORIGIN");
            let theirs = match origin {
                Origin::IGP => bgp_wire::Origin::Igp,
                Origin::EGP => bgp_wire::Origin::Egp,
                Origin::INCOMPLETE => bgp_wire::Origin::Incomplete,
            };
            assert_eq!(ours, theirs);
        }
        AttributeValue::AsPath(path) => {
            let ours = expected.as_path.take().expect("AS_PATH");
            let theirs: Vec<(SegmentKind, Vec<u32>)> = path
                .iter_segments()
                .map(|segment| {
                    let (kind, asns) = match segment {
                        AsPathSegment::AsSequence(asns) => (SegmentKind::Sequence, asns),
                        AsPathSegment::AsSet(asns) => (SegmentKind::Set, asns),
                        AsPathSegment::ConfedSequence(asns) => (SegmentKind::ConfedSequence, asns),
                        AsPathSegment::ConfedSet(asns) => (SegmentKind::ConfedSet, asns),
                    };
                    (kind, asns.iter().map(u32::from).collect())
                })
                .collect();
            let ours: Vec<_> = ours
                .segments
                .iter()
                .map(|s| (s.kind, s.asns.iter().map(|a| a.0).collect::<Vec<_>>()))
                .collect();
            assert_eq!(ours, theirs);
        }
        AttributeValue::MultiExitDiscriminator(med) => assert_eq!(expected.med.take(), Some(*med)),
        AttributeValue::LocalPreference(n) => assert_eq!(expected.local_pref.take(), Some(*n)),
        AttributeValue::AtomicAggregate => {
            assert!(std::mem::take(&mut expected.atomic_aggregate));
        }
        AttributeValue::Aggregator { asn, id } => {
            let ours = expected.aggregator.take().expect("AGGREGATOR");
            assert_eq!((ours.asn.0, ours.router_id), (u32::from(asn), *id));
        }
        AttributeValue::Communities(list) => {
            let theirs: BTreeSet<u32> = list
                .iter()
                .map(|c| match c {
                    Community::NoExport => bgp_wire::Community::NO_EXPORT.0,
                    Community::NoAdvertise => bgp_wire::Community::NO_ADVERTISE.0,
                    Community::NoExportSubConfed => bgp_wire::Community::NO_EXPORT_SUBCONFED.0,
                    Community::Custom(asn, low) => u32::from(asn) << 16 | u32::from(*low),
                })
                .collect();
            let ours = std::mem::take(&mut expected.communities);
            assert_eq!(
                ours.into_iter().map(|c| c.0).collect::<BTreeSet<_>>(),
                theirs
            );
        }
        AttributeValue::LargeCommunities(list) => {
            let theirs: BTreeSet<_> = list
                .iter()
                .map(|c| (c.global_admin, c.local_data))
                .collect();
            let ours = std::mem::take(&mut expected.large_communities);
            let ours: BTreeSet<_> = ours
                .iter()
                .map(|c| (c.global, [c.local_1, c.local_2]))
                .collect();
            assert_eq!(ours, theirs);
        }
        AttributeValue::ExtendedCommunities(list) => {
            let ours = std::mem::take(&mut expected.extended_communities);
            assert_eq!(ours.len(), list.len());
        }
        AttributeValue::OriginatorId(id) => assert_eq!(expected.originator_id.take(), Some(*id)),
        AttributeValue::Clusters(list) => {
            let ours = std::mem::take(&mut expected.cluster_list);
            assert_eq!(&ours.into_iter().map(u32::from).collect::<Vec<_>>(), list);
        }
        AttributeValue::OnlyToCustomer(asn) => {
            assert_eq!(
                expected.only_to_customer.take().map(|a| a.0),
                Some(u32::from(asn))
            );
        }
        AttributeValue::NextHop(_) | AttributeValue::MpReachNlri(_) => {}
        other => panic!("not sent: {other:?}"),
    }
}

proptest! {
    #[test]
    fn bgpkit_reads_announcements_as_we_mean_them(a in announcement()) {
        let mut a = a;
        a.entries.retain(unambiguous);
        let mut read = Vec::new();
        for message in bgpkit(&encode(&a), a.family.add_path_send) {
            let BgpMessage::Update(update) = message else {
                panic!("{message:?}");
            };
            prop_assert!(!update.attributes.has_validation_warnings());
            let mut expected = a.attributes.clone();
            for attribute in update.attributes.iter() {
                compare(attribute, &mut expected);
            }
            prop_assert_eq!(expected, PathAttributes::default());
            match update.attributes.get_reachable_nlri() {
                Some(nlri) => {
                    let hop = match nlri.next_hop.expect("a next hop") {
                        NextHopAddress::Ipv6(global) => PathNextHop::V6 { global, link_local: None },
                        NextHopAddress::Ipv6LinkLocal(global, local) => {
                            PathNextHop::V6 { global, link_local: Some(local) }
                        }
                        other => panic!("{other:?}"),
                    };
                    prop_assert_eq!(hop, a.next_hop);
                    read.extend(entries(&nlri.prefixes));
                }
                None => {
                    let hop = update.attributes.next_hop();
                    prop_assert_eq!(hop, Some(a.next_hop.address()));
                    read.extend(entries(&update.announced_prefixes));
                }
            }
        }
        prop_assert_eq!(read, a.entries);
    }

    #[test]
    fn bgpkit_reads_withdrawals_as_we_mean_them(
        v4 in vec(entry(Afi::IPV4, false), 1..1500),
        v6 in vec(entry(Afi::IPV6, false), 1..500),
    ) {
        for (family, expected) in [(Family::IPV4_UNICAST, v4), (Family::IPV6_UNICAST, v6)] {
            let family = FamilyContext::plain(family);
            let expected: Vec<_> = expected.into_iter().filter(unambiguous).collect();
            let mut bytes = Vec::new();
            withdraw(&mut bytes, &family, frame::MAX_LEN, expected.clone());
            let mut read = Vec::new();
            for message in bgpkit(&bytes, false) {
                let BgpMessage::Update(update) = message else {
                    panic!("{message:?}");
                };
                read.extend(entries(&update.withdrawn_prefixes));
                if let Some(nlri) = update.attributes.get_unreachable_nlri() {
                    read.extend(entries(&nlri.prefixes));
                }
            }
            prop_assert_eq!(read, expected);
        }
    }

    #[test]
    fn bgpkit_reads_opens_as_we_mean_them(open in open()) {
        let mut bytes = Vec::new();
        open.encode(&mut bytes);
        let [BgpMessage::Open(read)] = &bgpkit(&bytes, false)[..] else {
            panic!("no OPEN");
        };
        prop_assert_eq!(u32::from(read.asn), u32::from(open.asn.to_two_octet()));
        prop_assert_eq!(read.hold_time, open.hold_time_s);
        prop_assert_eq!(read.bgp_identifier, open.router_id);
        let codes: Vec<u8> = read
            .opt_params
            .iter()
            .flat_map(|p| match &p.param_value {
                bgpkit_parser::models::ParamValue::Capacities(list) => list.clone(),
                other => panic!("{other:?}"),
            })
            .map(|c| c.ty.into())
            .collect();
        prop_assert_eq!(codes, open.capabilities.iter().map(|c| c.code()).collect::<Vec<_>>());
    }
}

/// A conversation as a capture file: classic pcap of raw IPv4 with one TCP segment per message.
fn pcap(conversation: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4u32, 0x0002_0004, 0, 0, 0x4_0000, 101] {
        file.extend_from_slice(&word.to_be_bytes());
    }
    let mut sequence = 1u32;
    for (index, message) in messages(conversation).enumerate() {
        let len = message.len() + 40;
        for word in [index as u32, 0, len as u32, len as u32] {
            file.extend_from_slice(&word.to_be_bytes());
        }
        file.extend_from_slice(&[0x45, 0]);
        file.extend_from_slice(&(len as u16).to_be_bytes());
        file.extend_from_slice(&[0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        file.extend_from_slice(&[0xc0, 0, 0, 179]);
        file.extend_from_slice(&sequence.to_be_bytes());
        file.extend_from_slice(&[0, 0, 0, 1, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
        file.extend_from_slice(message);
        sequence = sequence.wrapping_add(message.len() as u32);
    }
    file
}

/// Everything tshark has to say against a conversation, and the prefixes it finds.
fn tshark(name: &str, conversation: &[u8]) -> Option<(String, String)> {
    let path = std::env::temp_dir().join(format!("bgp-wire-{}-{name}.pcap", std::process::id()));
    fs::write(&path, pcap(conversation)).expect("the temporary folder takes a file");
    let run = |arguments: &[&str]| {
        let options = ["-o", "bgp.asn_len:4 octet", "-n", "-r"];
        Command::new("tshark")
            .args(options)
            .arg(&path)
            .args(arguments)
            .output()
    };
    let complaints = "_ws.malformed || (bgp && _ws.expert.group == \"Malformed\") \
                      || (bgp && _ws.expert.group == \"Protocol\")";
    let result = run(&["-Y", complaints, "-V", "-O", "bgp"])
        .ok()
        .map(|output| {
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            let fields = [
                "-T",
                "fields",
                "-E",
                "occurrence=a",
                "-e",
                "bgp.nlri_prefix",
            ];
            let more = [
                "-e",
                "bgp.mp_reach_nlri_ipv4_prefix",
                "-e",
                "bgp.mp_reach_nlri_ipv6_prefix",
            ];
            let fields = run(&[&fields[..], &more].concat()).expect("tshark ran before");
            assert!(
                fields.status.success(),
                "{}",
                String::from_utf8_lossy(&fields.stderr)
            );
            (
                String::from_utf8_lossy(&output.stdout).into(),
                String::from_utf8_lossy(&fields.stdout).into(),
            )
        });
    fs::remove_file(&path).expect("the file was just written");
    if result.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "tshark is missing: cargo xtask setup installs it"
        );
        eprintln!("skipped: no tshark");
    }
    result
}

#[test]
fn tshark_has_nothing_against_our_messages() {
    let mut runner = TestRunner::deterministic();
    let mut conversation = Vec::new();
    let mut expected: Vec<IpAddr> = Vec::new();
    for _ in 0..60 {
        open()
            .new_tree(&mut runner)
            .unwrap()
            .current()
            .encode(&mut conversation);
    }
    frame::encode_keepalive(&mut conversation);
    for family in [Family::IPV4_UNICAST, Family::IPV6_UNICAST] {
        for kind in [RefreshKind::Request, RefreshKind::Begin, RefreshKind::End] {
            RouteRefresh { family, kind }.encode(&mut conversation);
        }
        end_of_rib(&mut conversation, family);
    }
    for _ in 0..150 {
        let mut a = announcement().new_tree(&mut runner).unwrap().current();
        a.family.add_path_send = false;
        a.entries.iter_mut().for_each(|e| e.path_id = None);
        a.entries.retain(unambiguous);
        conversation.extend(encode(&a));
        expected.extend(a.entries.iter().map(|e| e.prefix.addr()));
    }
    for (afi, family) in [
        (Afi::IPV4, Family::IPV4_UNICAST),
        (Afi::IPV6, Family::IPV6_UNICAST),
    ] {
        let list = vec(entry(afi, false), 300)
            .new_tree(&mut runner)
            .unwrap()
            .current();
        withdraw(
            &mut conversation,
            &FamilyContext::plain(family),
            frame::MAX_LEN,
            list,
        );
    }
    Notification::with_communication(ErrorKind::ADMINISTRATIVE_SHUTDOWN, "until four")
        .encode(&mut conversation);
    Notification::new(ErrorKind::HOLD_TIMER_EXPIRED).encode(&mut conversation);

    let Some((complaints, fields)) = tshark("valid", &conversation) else {
        return;
    };
    assert_eq!(complaints, "");
    let found: Vec<IpAddr> = fields
        .split([',', '\t', '\n'])
        .filter_map(|text| text.parse().ok())
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn tshark_has_nothing_against_routes_of_vpns() {
    let mut conversation = Vec::new();
    frame::encode_keepalive(&mut conversation);
    vpns(&mut conversation);
    let Some((complaints, fields)) = tshark("vpns", &conversation) else {
        return;
    };
    assert_eq!(complaints, "");
    assert!(fields.contains("10.1.0.0"), "{fields}");
}

/// Routes of VPNs and memberships, announced and withdrawn.
fn vpns(conversation: &mut Vec<u8>) {
    let mut attributes = Vec::new();
    PathAttributes {
        origin: Some(bgp_wire::Origin::Igp),
        as_path: Some(bgp_wire::AsPath::default()),
        local_pref: Some(100),
        extended_communities: vec!["rt:65000:100".parse().unwrap()],
        ..PathAttributes::default()
    }
    .encode(true, &mut attributes);
    let v4 = PathNextHop::V4([192, 0, 2, 1].into());
    let v6 = PathNextHop::V6 {
        global: "2001:db8::1".parse().unwrap(),
        link_local: None,
    };
    let vpn = |rd: &str, prefix: &str| VpnEntry {
        path_id: None,
        label: Label::new(100),
        destination: VpnPrefix {
            rd: rd.parse().unwrap(),
            prefix: prefix.parse().unwrap(),
        },
    };
    for (family, hop, entry) in [
        (Family::VPNV4, v4, vpn("65000:1", "10.1.0.0/16")),
        (Family::VPNV4, v4, vpn("192.0.2.1:1", "0.0.0.0/0")),
        (Family::VPNV6, v6, vpn("4200000001:1", "2001:db8::/32")),
    ] {
        let family = FamilyContext::plain(family);
        let fill = |out: &mut Vec<u8>, _| {
            entry.encode(false, out);
            false
        };
        announce_with(
            conversation,
            &family,
            frame::MAX_LEN,
            &attributes,
            hop,
            fill,
        )
        .unwrap();
        withdraw_with(conversation, &family, frame::MAX_LEN, |out, _| {
            entry.encode_withdrawn(false, out);
            false
        });
        end_of_rib(conversation, family.family);
    }
    let family = FamilyContext::plain(Family::ROUTE_TARGET);
    let target = RouteTargetPrefix::new(Asn(65001), "rt:65000:100".parse().unwrap());
    for target in [RouteTargetPrefix::DEFAULT, target] {
        let fill = |out: &mut Vec<u8>, _| {
            target.encode(out);
            false
        };
        announce_with(conversation, &family, frame::MAX_LEN, &attributes, v4, fill).unwrap();
        withdraw_with(conversation, &family, frame::MAX_LEN, fill);
    }
}

/// The check above would notice: a broken message makes tshark complain.
#[test]
fn tshark_complains_about_a_broken_message() {
    let mut conversation = Vec::new();
    open()
        .new_tree(&mut TestRunner::deterministic())
        .unwrap()
        .current()
        .encode(&mut conversation);
    let len = conversation.len() as u16;
    conversation[28] = 7;
    conversation[16..18].copy_from_slice(&len.to_be_bytes());
    let mut update = Vec::new();
    end_of_rib(&mut update, Family::IPV4_UNICAST);
    update[22] = 9;
    conversation.extend(update);
    if let Some((complaints, _)) = tshark("broken", &conversation) {
        assert_ne!(complaints, "");
    }
}
