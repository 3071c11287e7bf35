// SPDX-License-Identifier: Apache-2.0
//! One test per rule of the programs.

use std::net::IpAddr;

use bpf_abi::DropReason;

use super::{
    Node, POD_1_MAC, POD_2_MAC, Verdict,
    frames::{Frame, arp, checksum},
};
use crate::{MacAddr, Role};

fn address(text: &str) -> IpAddr {
    text.parse().expect("address")
}

/// From pod 1, rightly addressed to the gateway.
fn frame_from_pod(node: &Node, source: &str, destination: &str) -> Frame {
    Frame::new(
        POD_1_MAC,
        node.pod_1.host_mac,
        address(source),
        address(destination),
    )
}

fn frame_v4(node: &Node, destination: &str) -> Frame {
    frame_from_pod(node, "10.244.0.1", destination)
}

fn frame_v6(node: &Node, destination: &str) -> Frame {
    frame_from_pod(node, "fd00:10:244::1", destination)
}

/// From the fabric, rightly addressed to this node.
fn frame_from_fabric(node: &Node, source: &str, destination: &str) -> Frame {
    let own = crate::device::Device::find(node.fabric)
        .expect("device")
        .mac;
    Frame::new(
        MacAddr([2, 9, 9, 9, 9, 9]),
        own,
        address(source),
        address(destination),
    )
}

fn refused(node: &mut Node, frame: &[u8], reason: DropReason) {
    let before = (node.drops(reason), node.all_drops());
    let link = node.pod_1.link;
    let answer = node.answer(Role::FromPod, link, frame);
    assert_eq!(answer.verdict, Verdict::Refused, "{reason}: {frame:02x?}");
    assert_eq!(node.drops(reason), before.0 + 1, "{reason} is counted");
    assert_eq!(node.all_drops(), before.1 + 1, "{reason} alone is counted");
}

/// Counted under a reason and handed to the kernel, which answers.
fn answered(node: &mut Node, frame: &[u8], reason: DropReason) {
    let before = node.drops(reason);
    let link = node.pod_1.link;
    let answer = node.answer(Role::FromPod, link, frame);
    assert_eq!(answer.verdict, Verdict::ToKernel, "{reason}");
    assert_eq!(
        answer.frame, frame,
        "the kernel gets the frame as it was sent"
    );
    assert_eq!(node.drops(reason), before + 1, "{reason} is counted");
}

fn to_kernel(node: &mut Node, frame: &[u8]) {
    let before = node.all_drops();
    let link = node.pod_1.link;
    let answer = node.answer(Role::FromPod, link, frame);
    assert_eq!(answer.verdict, Verdict::ToKernel, "{frame:02x?}");
    assert_eq!(answer.frame, frame);
    assert_eq!(node.all_drops(), before);
}

fn forwarded(node: &mut Node, frame: &[u8]) -> Vec<u8> {
    let before = node.all_drops();
    let link = node.pod_1.link;
    let answer = node.answer(Role::FromPod, link, frame);
    assert_eq!(answer.verdict, Verdict::Redirected, "{frame:02x?}");
    assert_eq!(node.all_drops(), before);
    answer.frame
}

/// TTL one less, a right checksum, the rest as it was; MAC addresses as given.
fn assert_rewritten(sent: &[u8], got: &[u8], macs: Option<(MacAddr, MacAddr)>) {
    let mut expected = sent.to_vec();
    if let Some((destination, source)) = macs {
        expected[..6].copy_from_slice(&destination.0);
        expected[6..12].copy_from_slice(&source.0);
    }
    if expected[12..14] == [0x08, 0x00] {
        expected[22] -= 1;
        expected[24..26].fill(0);
        let sum = checksum(&expected[14..34]);
        expected[24..26].copy_from_slice(&sum.to_be_bytes());
    } else {
        expected[21] -= 1;
    }
    assert_eq!(got, expected);
}

#[test]
fn a_packet_for_another_local_pod_goes_there_with_its_mac_and_a_lower_ttl() {
    /// Packets and bytes sent and received of both pods.
    fn traffic(node: &Node) -> [[u64; 4]; 2] {
        let states = node.datapath.endpoints().expect("endpoints");
        let [one, two] = &states[..] else {
            panic!("two endpoints: {states:?}")
        };
        assert_eq!(one.traffic.tx_kernel_packets, 0);
        assert!(one.attached && two.attached);
        [one, two].map(|pod| {
            let of = &pod.traffic;
            [of.tx_packets, of.tx_bytes, of.rx_packets, of.rx_bytes]
        })
    }
    Node::run(|node| {
        // The kernel says things of its own on a device that is new (MLD, RFC 3810), which count as
        // well; a round of which it has no part shows what ours are.
        const ROUNDS: u32 = 100;
        let is_exact = (0..ROUNDS).any(|_| {
            let before = traffic(node);
            let mut bytes = 0;
            for frame in [
                frame_v4(node, "10.244.0.2"),
                frame_v6(node, "fd00:10:244::2"),
            ] {
                let sent = frame.bytes();
                let got = forwarded(node, &sent);
                assert_rewritten(&sent, &got, Some((POD_2_MAC, node.pod_2.host_mac)));
                bytes += sent.len() as u64;
            }
            let after = traffic(node);
            let more = |pod: usize| {
                let counted = after[pod].iter().zip(before[pod]);
                counted
                    .map(|(after, before)| after - before)
                    .collect::<Vec<_>>()
            };
            more(0) == [2, bytes, 0, 0] && more(1) == [0, 0, 2, bytes]
        });
        assert!(is_exact, "{:?} after {ROUNDS} rounds", traffic(node));
    });
}

#[test]
fn a_packet_for_the_fabric_leaves_by_the_routing_table() {
    Node::run(|node| {
        for frame in [
            frame_v4(node, "198.51.100.7"),
            frame_v6(node, "2001:db8:1::7"),
            // On the link itself, and IPv4 by an IPv6 neighbour (RFC 8950).
            frame_v4(node, "192.0.2.77"),
            frame_v6(node, "2001:db8::77"),
            frame_v4(node, "198.51.101.7"),
        ] {
            let sent = frame.bytes();
            // The second answer comes from the route cache.
            for _ in 0..2 {
                let got = forwarded(node, &sent);
                assert_rewritten(&sent, &got, None);
            }
        }
    });
}

#[test]
fn a_packet_for_the_node_itself_goes_to_the_kernel() {
    Node::run(|node| {
        for frame in [frame_v4(node, "192.0.2.1"), frame_v6(node, "2001:db8::1")] {
            to_kernel(node, &frame.bytes());
            // A TTL of one is enough for the node itself.
            to_kernel(node, &Frame { ttl: 1, ..frame }.bytes());
        }
        // No route at all: the kernel answers.
        to_kernel(node, &frame_v4(node, "100.64.0.1").bytes());
        to_kernel(node, &frame_v6(node, "3fff::1").bytes());
    });
}

#[test]
fn a_foreign_source_address_is_refused() {
    Node::run(|node| {
        for frame in [
            frame_from_pod(node, "10.244.0.2", "192.0.2.1"),
            frame_from_pod(node, "10.244.0.99", "10.244.0.2"),
            frame_from_pod(node, "0.0.0.0", "255.255.255.255"),
            frame_from_pod(node, "127.0.0.1", "10.244.0.2"),
            frame_from_pod(node, "169.254.1.1", "10.244.0.2"),
            frame_from_pod(node, "fd00:10:244::2", "2001:db8::1"),
            frame_from_pod(node, "::1", "2001:db8::1"),
            frame_from_pod(node, "ff02::1", "2001:db8::1"),
            frame_from_pod(node, "::ffff:10.244.0.1", "2001:db8::1"),
        ] {
            refused(node, &frame.bytes(), DropReason::SpoofedAddress);
        }
        let traffic = &node.datapath.counters().expect("counters")[0].1;
        assert_eq!(traffic.tx_packets, 0, "what is refused was not sent");
        let [drop] = &traffic.drops[..] else {
            panic!("one reason: {:?}", traffic.drops)
        };
        assert_eq!((drop.reason, drop.packets), (DropReason::SpoofedAddress, 9));
    });
}

#[test]
fn a_foreign_mac_address_is_refused() {
    Node::run(|node| {
        for destination in ["10.244.0.2", "192.0.2.1", "198.51.100.7"] {
            let frame = Frame {
                source_mac: POD_2_MAC,
                ..frame_v4(node, destination)
            };
            refused(node, &frame.bytes(), DropReason::SpoofedMac);
            let frame = Frame {
                destination_mac: POD_2_MAC,
                ..frame_v4(node, destination)
            };
            refused(node, &frame.bytes(), DropReason::ForeignMac);
        }
        let frame = Frame {
            source_mac: POD_2_MAC,
            ..frame_v6(node, "fd00:10:244::2")
        };
        refused(node, &frame.bytes(), DropReason::SpoofedMac);
        let frame = Frame {
            source_mac: POD_2_MAC,
            ..frame_from_pod(node, "fe80::2", "fe80::1")
        };
        refused(node, &frame.bytes(), DropReason::SpoofedMac);
    });
}

#[test]
fn a_used_up_ttl_is_counted_and_left_to_the_kernel_to_answer() {
    Node::run(|node| {
        for destination in ["10.244.0.2", "198.51.100.7"] {
            for ttl in [0, 1] {
                let frame = Frame {
                    ttl,
                    ..frame_v4(node, destination)
                };
                answered(node, &frame.bytes(), DropReason::TtlExceeded);
            }
        }
        for destination in ["fd00:10:244::2", "2001:db8:1::7"] {
            for ttl in [0, 1] {
                let frame = Frame {
                    ttl,
                    ..frame_v6(node, destination)
                };
                answered(node, &frame.bytes(), DropReason::TtlExceeded);
            }
        }
    });
}

#[test]
fn a_packet_that_does_not_fit_is_counted_and_left_to_the_kernel_to_answer() {
    Node::run(|node| {
        // Pod 2 takes 1400 bytes, the fabric 1500, one route 1300.
        for (frame, fits, too_big) in [
            (frame_v4(node, "10.244.0.2"), 1400 - 28, 1401 - 28),
            (frame_v6(node, "fd00:10:244::2"), 1400 - 48, 1401 - 48),
            (frame_v4(node, "198.51.100.7"), 1500 - 28, 1501 - 28),
            (frame_v6(node, "2001:db8:1::7"), 1500 - 48, 1501 - 48),
            (frame_v4(node, "198.51.102.7"), 1300 - 28, 1301 - 28),
        ] {
            forwarded(
                node,
                &Frame {
                    payload_bytes: fits,
                    ..frame.clone()
                }
                .bytes(),
            );
            let big = Frame {
                payload_bytes: too_big,
                ..frame
            }
            .bytes();
            answered(node, &big, DropReason::TooBig);
        }
        // Without the don't-fragment bit the kernel fragments, and nothing is refused.
        let frame = Frame {
            payload_bytes: 1400,
            dont_fragment: false,
            ..frame_v4(node, "10.244.0.2")
        };
        to_kernel(node, &frame.bytes());
    });
}

#[test]
fn a_gso_frame_is_measured_by_its_segments() {
    Node::run(|node| {
        let link = node.pod_1.link;
        let mut tcp = vec![0; 32 + 3000];
        tcp[12] = 0x80;
        let frame = Frame {
            protocol: 6,
            transport: Some(tcp),
            ..frame_v4(node, "10.244.0.2")
        }
        .bytes();
        // 20 bytes of IP and 32 of TCP before each segment, 1400 fit.
        let fits = node.answer_gso(Role::FromPod, link, &frame, 1400 - 52);
        assert_eq!(fits.verdict, Verdict::Redirected);
        let too_big = node.answer_gso(Role::FromPod, link, &frame, 1401 - 52);
        assert_eq!(too_big.verdict, Verdict::ToKernel);
        assert_eq!(node.drops(DropReason::TooBig), 1);
        let udp = Frame {
            payload_bytes: 3000,
            ..frame_v6(node, "fd00:10:244::2")
        }
        .bytes();
        assert_eq!(
            node.answer_gso(Role::FromPod, link, &udp, 1352).verdict,
            Verdict::Redirected
        );
        assert_eq!(
            node.answer_gso(Role::FromPod, link, &udp, 1353).verdict,
            Verdict::ToKernel
        );
    });
}

#[test]
fn routes_that_say_no_are_counted_and_answered_or_silent() {
    Node::run(|node| {
        for (net, reason) in [(2, DropReason::Unreachable), (3, DropReason::Prohibited)] {
            answered(
                node,
                &frame_v4(node, &format!("203.0.{net}.9")).bytes(),
                reason,
            );
            answered(
                node,
                &frame_v6(node, &format!("2001:db8:bad{net}::9")).bytes(),
                reason,
            );
        }
        refused(
            node,
            &frame_v4(node, "203.0.1.9").bytes(),
            DropReason::Blackhole,
        );
        refused(
            node,
            &frame_v6(node, "2001:db8:bad1::9").bytes(),
            DropReason::Blackhole,
        );
    });
}

#[test]
fn a_changed_route_is_effective_at_once_when_told() {
    Node::run(|node| {
        let frame = frame_v4(node, "198.51.100.7").bytes();
        forwarded(node, &frame);
        super::ip("route replace blackhole 198.51.100.0/24");
        node.datapath.routes_changed().expect("told");
        refused(node, &frame, DropReason::Blackhole);
    });
}

#[test]
fn a_changed_route_is_effective_soon_when_nobody_tells() {
    Node::run(|node| {
        let frame = frame_v4(node, "198.51.100.7").bytes();
        forwarded(node, &frame);
        super::ip("route replace blackhole 198.51.100.0/24");
        let link = node.pod_1.link;
        let limit = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while node.answer(Role::FromPod, link, &frame).verdict != Verdict::Refused {
            assert!(
                std::time::Instant::now() < limit,
                "the cache outlives its time"
            );
            std::thread::yield_now();
        }
    });
}

#[test]
fn multicast_and_link_local_stay_on_the_link() {
    Node::run(|node| {
        for destination in ["224.0.0.251", "239.1.2.3", "255.255.255.255"] {
            refused(
                node,
                &frame_v4(node, destination).bytes(),
                DropReason::Multicast,
            );
        }
        refused(
            node,
            &frame_v6(node, "ff02::fb").bytes(),
            DropReason::Multicast,
        );
        refused(
            node,
            &frame_v6(node, "fe80::1").bytes(),
            DropReason::LinkLocal,
        );
        let link_local = frame_from_pod(node, "fe80::2", "fd00:10:244::2");
        refused(node, &link_local.bytes(), DropReason::LinkLocal);
        let icmp = |source: &str, destination: &str, kind: u8| {
            Frame {
                protocol: 58,
                transport: Some(vec![kind, 0, 0, 0, 0, 0, 0, 0]),
                ..frame_from_pod(node, source, destination)
            }
            .bytes()
        };
        let accepted = [
            icmp("::", "ff02::1:ff00:1", 135),
            icmp("fe80::2", "ff02::1:ff00:1", 135),
            icmp("fe80::2", "fe80::1", 136),
            icmp("fd00:10:244::1", "fe80::1", 136),
            icmp("fd00:10:244::1", "ff02::1:ff00:1", 135),
            icmp("fe80::2", "fe80::1", 128),
        ];
        let multicast = [icmp("fe80::2", "ff02::2", 133), icmp("::", "ff02::16", 143)];
        let elsewhere = [
            icmp("fe80::2", "2001:db8::1", 135),
            icmp("fe80::2", "2001:db8::1", 128),
            icmp("fe80::2", "fe80::1", 134),
        ];
        for frame in accepted {
            to_kernel(node, &frame);
        }
        for frame in multicast {
            refused(node, &frame, DropReason::Multicast);
        }
        for frame in elsewhere {
            refused(node, &frame, DropReason::LinkLocal);
        }
    });
}

#[test]
fn arp_is_tolerated_from_its_owner_only() {
    Node::run(|node| {
        let own = "10.244.0.1".parse().expect("address");
        let probe = "0.0.0.0".parse().expect("address");
        let other = "10.244.0.2".parse().expect("address");
        to_kernel(node, &arp(POD_1_MAC, POD_1_MAC, own));
        to_kernel(node, &arp(POD_1_MAC, POD_1_MAC, probe));
        refused(
            node,
            &arp(POD_1_MAC, POD_1_MAC, other),
            DropReason::SpoofedArp,
        );
        refused(
            node,
            &arp(POD_1_MAC, POD_2_MAC, own),
            DropReason::SpoofedArp,
        );
        refused(
            node,
            &arp(POD_2_MAC, POD_1_MAC, own),
            DropReason::SpoofedArp,
        );
        let mut shape = arp(POD_1_MAC, POD_1_MAC, own);
        shape[18] = 8;
        refused(node, &shape, DropReason::MalformedHeader);
        let whole = arp(POD_1_MAC, POD_1_MAC, own);
        for length in 14..whole.len() {
            refused(node, &whole[..length], DropReason::Truncated);
        }
    });
}

#[test]
fn other_ethertypes_and_vlan_tags_are_refused() {
    Node::run(|node| {
        let plain = frame_v4(node, "10.244.0.2").bytes();
        for tag in [[0x81, 0x00], [0x88, 0xa8]] {
            let mut tagged = plain[..12].to_vec();
            tagged.extend(tag);
            tagged.extend([0, 7]);
            tagged.extend(&plain[12..]);
            refused(node, &tagged, DropReason::VlanTagged);
        }
        for ethertype in [[0x88, 0x47], [0x88, 0xcc], [0x00, 0x10], [0xff, 0xff]] {
            let mut frame = plain.clone();
            frame[12..14].copy_from_slice(&ethertype);
            refused(node, &frame, DropReason::UnsupportedEthertype);
        }
    });
}

#[test]
fn options_and_hop_by_hop_headers_are_left_to_the_kernel() {
    Node::run(|node| {
        // Router alert (RFC 2113), then an end of options.
        let options = vec![0x94, 4, 0, 0];
        let frame = Frame {
            extension: options,
            ..frame_v4(node, "10.244.0.2")
        };
        to_kernel(node, &frame.bytes());
        let hop_by_hop = vec![17, 0, 5, 2, 0, 0, 1, 0];
        let frame = Frame {
            extension: hop_by_hop,
            protocol: 0,
            ..frame_v6(node, "fd00:10:244::2")
        };
        to_kernel(node, &frame.bytes());
    });
}

#[test]
fn fragments_and_other_extension_headers_are_forwarded() {
    Node::run(|node| {
        let mut fragment = frame_v4(node, "10.244.0.2").bytes();
        // Offset 185 (times eight), last fragment.
        fragment[20..22].copy_from_slice(&[0x00, 0xb9]);
        fragment[24..26].fill(0);
        let sum = checksum(&fragment[14..34]);
        fragment[24..26].copy_from_slice(&sum.to_be_bytes());
        let got = forwarded(node, &fragment);
        assert_rewritten(&fragment, &got, Some((POD_2_MAC, node.pod_2.host_mac)));
        for (protocol, extension) in [
            (44, vec![17, 0, 0, 1, 0, 0, 0, 9]),
            (60, vec![17, 0, 1, 4, 0, 0, 0, 0]),
            (43, vec![17, 0, 4, 0, 0, 0, 0, 0]),
            (59, vec![]),
        ] {
            let frame = Frame {
                protocol,
                extension,
                ..frame_v6(node, "fd00:10:244::2")
            };
            let sent = frame.bytes();
            let got = forwarded(node, &sent);
            assert_rewritten(&sent, &got, Some((POD_2_MAC, node.pod_2.host_mac)));
        }
    });
}

#[test]
fn a_frame_cut_at_any_byte_is_refused_or_delivered_whole() {
    Node::run(|node| {
        let fabric = node.fabric;
        for frame in [
            frame_v4(node, "10.244.0.2"),
            frame_v6(node, "fd00:10:244::2"),
        ] {
            let whole = frame.bytes();
            // A test run refuses IP frames shorter than the IP header; those are sent for real in
            // tests/bpf.
            let header = if frame.source.is_ipv4() {
                14 + 20
            } else {
                14 + 40
            };
            for length in header..whole.len() {
                refused(node, &whole[..length], DropReason::Truncated);
            }
            // Ethernet pads short frames; what is behind the packet is no error.
            let mut padded = whole.clone();
            padded.extend([0; 46]);
            forwarded(node, &padded);
        }
        let from_fabric = frame_from_fabric(node, "198.51.100.7", "10.244.0.2").bytes();
        for length in 14 + 20..from_fabric.len() {
            let answer = node.answer(Role::FromFabric, fabric, &from_fabric[..length]);
            assert_eq!(answer.verdict, Verdict::ToKernel, "{length}");
        }
    });
}

#[test]
fn contradicting_headers_are_refused() {
    Node::run(|node| {
        let v4 = frame_v4(node, "10.244.0.2").bytes();
        let v6 = frame_v6(node, "fd00:10:244::2").bytes();
        for (at, value) in [(14, 0x55), (14, 0x65), (14, 0x44), (14, 0x40)] {
            let mut frame = v4.clone();
            frame[at] = value;
            refused(node, &frame, DropReason::MalformedHeader);
        }
        let mut short = v4.clone();
        short[16..18].copy_from_slice(&19_u16.to_be_bytes());
        refused(node, &short, DropReason::MalformedHeader);
        let mut long = v4.clone();
        long[16..18].copy_from_slice(&0xffff_u16.to_be_bytes());
        refused(node, &long, DropReason::Truncated);
        let mut version = v6.clone();
        version[14] = 0x40;
        refused(node, &version, DropReason::MalformedHeader);
        let mut long = v6.clone();
        long[18..20].copy_from_slice(&0xffff_u16.to_be_bytes());
        refused(node, &long, DropReason::Truncated);
    });
}

#[test]
fn every_corrupted_byte_gets_a_verdict() {
    Node::run(|node| {
        let (pod, fabric) = (node.pod_1.link, node.fabric);
        for frame in [
            frame_v4(node, "10.244.0.2"),
            frame_v6(node, "2001:db8:1::7"),
        ] {
            let whole = frame.bytes();
            for at in 0..whole.len() {
                for flip in [0x01, 0x10, 0x80, 0xff] {
                    let mut frame = whole.clone();
                    frame[at] ^= flip;
                    // `answer` panics on any return code that is no verdict.
                    node.answer(Role::FromPod, pod, &frame);
                    node.answer(Role::FromFabric, fabric, &frame);
                }
            }
        }
    });
}

#[test]
fn a_device_without_an_endpoint_is_refused() {
    Node::run(|node| {
        let id = node.pod_1.id;
        node.datapath.remove_endpoint(id).expect("removed");
        refused(
            node,
            &frame_v4(node, "10.244.0.2").bytes(),
            DropReason::UnknownDevice,
        );
        refused(
            node,
            &frame_v6(node, "fd00:10:244::2").bytes(),
            DropReason::UnknownDevice,
        );
        let own = "10.244.0.1".parse().expect("address");
        refused(
            node,
            &arp(POD_1_MAC, POD_1_MAC, own),
            DropReason::UnknownDevice,
        );
    });
}

#[test]
fn from_the_fabric_a_packet_for_a_pod_goes_there_and_all_else_to_the_kernel() {
    Node::run(|node| {
        let fabric = node.fabric;
        for frame in [
            frame_from_fabric(node, "198.51.100.7", "10.244.0.2"),
            frame_from_fabric(node, "2001:db8:1::7", "fd00:10:244::2"),
        ] {
            let sent = frame.bytes();
            let answer = node.answer(Role::FromFabric, fabric, &sent);
            assert_eq!(answer.verdict, Verdict::Redirected);
            assert_rewritten(&sent, &answer.frame, Some((POD_2_MAC, node.pod_2.host_mac)));
            let expired = Frame {
                ttl: 1,
                ..frame.clone()
            }
            .bytes();
            let answer = node.answer(Role::FromFabric, fabric, &expired);
            assert_eq!((answer.verdict, answer.frame), (Verdict::ToKernel, expired));
            let big = Frame {
                payload_bytes: 1401,
                ..frame.clone()
            }
            .bytes();
            assert_eq!(
                node.answer(Role::FromFabric, fabric, &big).verdict,
                Verdict::ToKernel
            );
            let others = Frame {
                destination_mac: MacAddr([2, 7, 7, 7, 7, 7]),
                ..frame
            }
            .bytes();
            assert_eq!(
                node.answer(Role::FromFabric, fabric, &others).verdict,
                Verdict::ToKernel
            );
        }
        assert_eq!(node.drops(DropReason::TtlExceeded), 2);
        assert_eq!(node.drops(DropReason::TooBig), 2);
        let two = &node.datapath.counters().expect("counters")[1].1;
        assert_eq!((two.rx_packets, two.drops.len()), (2, 2));
        for destination in ["192.0.2.1", "10.244.0.9"] {
            let frame = frame_from_fabric(node, "198.51.100.7", destination).bytes();
            assert_eq!(
                node.answer(Role::FromFabric, fabric, &frame).verdict,
                Verdict::ToKernel
            );
        }
        let mut other = frame_from_fabric(node, "198.51.100.7", "10.244.0.2").bytes();
        other[12..14].copy_from_slice(&[0x88, 0xcc]);
        assert_eq!(
            node.answer(Role::FromFabric, fabric, &other).verdict,
            Verdict::ToKernel
        );
    });
}

#[test]
fn what_the_kernel_delivers_is_counted_too() {
    Node::run(|node| {
        let frame = frame_from_fabric(node, "192.0.2.1", "10.244.0.1").bytes();
        let link = node.pod_1.link;
        // Without IPv6 the host's kernel has nothing of its own to say to the pod.
        super::sysctl("net/ipv6/conf/pod1/disable_ipv6", "1");
        let before = node.datapath.counters().expect("counters").remove(0).1;
        let answer = node.answer(Role::ToPod, link, &frame);
        assert_eq!((answer.verdict, &answer.frame), (Verdict::ToKernel, &frame));
        let one = &node.datapath.counters().expect("counters")[0].1;
        let counted = (
            one.rx_packets - before.rx_packets,
            one.rx_bytes - before.rx_bytes,
        );
        assert_eq!(counted, (1, frame.len() as u64));
    });
}

#[test]
fn a_cached_flow_is_believed_no_longer_than_its_sender() {
    Node::run(|node| {
        for (frame, other) in [
            (frame_v4(node, "198.51.100.7"), "10.244.0.2"),
            (frame_v6(node, "2001:db8:1::7"), "fd00:10:244::2"),
        ] {
            forwarded(node, &frame.bytes());
            let foreign = Frame {
                source_mac: POD_2_MAC,
                ..frame.clone()
            };
            refused(node, &foreign.bytes(), DropReason::SpoofedMac);
            let foreign = Frame {
                destination_mac: POD_2_MAC,
                ..frame.clone()
            };
            refused(node, &foreign.bytes(), DropReason::ForeignMac);
            let foreign = Frame {
                source: address(other),
                ..frame.clone()
            };
            refused(node, &foreign.bytes(), DropReason::SpoofedAddress);
            // The same flow at another pod's device.
            let elsewhere = node.pod_2.link;
            let answer = node.answer(Role::FromPod, elsewhere, &frame.bytes());
            assert_eq!(answer.verdict, Verdict::Refused);
        }
        let frame = frame_v4(node, "198.51.100.7").bytes();
        forwarded(node, &frame);
        // What was the fabric's becomes a local endpoint.
        let mut two = node.pod_2.clone();
        two.addresses.push(address("198.51.100.7"));
        node.datapath.set_endpoint(&two).expect("changed");
        let got = forwarded(node, &frame);
        assert_rewritten(&frame, &got, Some((POD_2_MAC, node.pod_2.host_mac)));
        node.datapath.remove_endpoint(two.id).expect("removed");
        forwarded(node, &frame);
        let one = node.pod_1.id;
        node.datapath.remove_endpoint(one).expect("removed");
        refused(node, &frame, DropReason::UnknownDevice);
    });
}
