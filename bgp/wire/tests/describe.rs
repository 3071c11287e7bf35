// SPDX-License-Identifier: Apache-2.0
//! What `causeway bgp decode` prints, as text and as JSON.

use bgp_wire::describe::{describe, parse_hex};
use bgp_wire::{PeerKind, SessionContext};
use router_types::Family;
use serde_json::{Value, json};

const MARKER: &str = "ffffffffffffffffffffffffffffffff";

fn text(hex: &str) -> String {
    describe(&parse_hex(hex).unwrap(), None).to_string()
}

fn value(hex: &str) -> Value {
    serde_json::to_value(describe(&parse_hex(hex).unwrap(), None)).unwrap()
}

#[test]
fn an_open_is_told_with_its_capabilities() {
    let hex = format!(
        "{MARKER} 002f 01 04 fde8 005a c0000201 12 0210 010400010001 4104fa56ea01 0200 4d00"
    );
    assert_eq!(
        text(&hex),
        "     0  OPEN version 4 AS 4200000001 hold time 90 s router ID 192.0.2.1
        capability multiprotocol (1) ipv4/unicast
        capability four-octet-as (65) 4200000001
        capability route-refresh (2)
        capability link-local-next-hop (77)
"
    );
}

#[test]
fn an_update_is_told_with_its_faults() {
    // A good route whose COMMUNITIES have three octets.
    let hex = format!(
        "{MARKER} 0035 02 0000 001a 40010100 400206 0201 0000fde9 400304c0000201 c00803 000100 18c63364"
    );
    assert_eq!(
        text(&hex),
        "     0  UPDATE 1 announced, 0 withdrawn
        read with four-octet AS numbers, no path identifiers
        announced 198.51.100.0/24 via 192.0.2.1
        ORIGIN (1) well-known transitive: igp
        AS_PATH (2) well-known transitive: 65001
        NEXT_HOP (3) well-known transitive: 192.0.2.1
        COMMUNITIES (8) optional transitive: 000100
        ! COMMUNITIES: length 3, expected a multiple of 4, not 0 -> treat-as-withdraw (RFC 7606 §7.8)
"
    );
    let message = &value(&hex)["messages"][0];
    assert_eq!(message["type"], "update");
    assert_eq!(message["treatment"], "treat-as-withdraw");
    assert_eq!(
        message["announced"],
        json!([{ "prefix": "198.51.100.0/24", "nextHop": "192.0.2.1" }])
    );
    assert_eq!(message["faults"][0]["attribute"], 8);
    assert_eq!(message["faults"][0]["rule"], "RFC 7606 §7.8");
}

#[test]
fn two_octet_paths_are_recognised() {
    let hex =
        format!("{MARKER} 002f 02 0000 0014 40010100 40020602025ba0fde9 400304c0000201 18c63364");
    let hex = hex
        .replace(" 0015 ", " 0014 ")
        .replace("0030 02", "002f 02");
    assert!(
        text(&hex).contains("two-octet AS numbers, no path identifiers"),
        "{}",
        text(&hex)
    );
    assert!(text(&hex).contains("23456 65001"), "{}", text(&hex));
}

#[test]
fn bytes_that_are_no_message_are_told_with_their_offset() {
    let keepalive = format!("{MARKER} 0013 04");
    let report = value(&format!("{keepalive} dead {keepalive} {MARKER} 0017"));
    assert_eq!(report["messages"][0]["offset"], 0);
    assert_eq!(report["messages"][1]["offset"], 21);
    assert_eq!(report["problems"][0]["offset"], 19);
    assert_eq!(report["problems"][0]["notification"]["subcode"], 1);
    assert_eq!(report["problems"][1]["offset"], 40);
    assert_eq!(report["problems"][1]["text"], "incomplete: 18 of 23 octets");
}

#[test]
fn a_notification_is_told_with_what_it_means() {
    let text = text(&format!("{MARKER} 001b 03 06 02 05 68656c6c6f"));
    assert_eq!(
        text,
        "     0  NOTIFICATION Cease / Administrative Shutdown (6/2)
        An operator shut the session down.
        message: \"hello\"
"
    );
}

#[test]
fn a_given_session_decides_how_an_update_is_read() {
    let context = SessionContext::plain(PeerKind::External, &[Family::IPV4_UNICAST]);
    let hex = format!(
        "{MARKER} 0030 02 0000 0015 40010100 4002 00 400304c0000201 400504 00000064 18c63364"
    );
    let hex = hex
        .replace(" 0017 ", " 0015 ")
        .replace("0032 02", "0030 02");
    let report = describe(&parse_hex(&hex).unwrap(), Some(&context)).to_string();
    assert!(
        report.contains("LOCAL_PREF: is not for other ASes to send -> attribute-discard"),
        "{report}"
    );
    assert!(!report.contains("read with"), "{report}");
}

#[test]
fn a_path_is_told_even_if_it_is_refused() {
    let hex = format!(
        "{MARKER} 0035 02 0000 001a 40010100 40020c 02010000fde9 01010000fdea 400304c0000201 18c63364"
    );
    let text = text(&hex);
    assert!(
        text.contains("AS_PATH (2) well-known transitive: 65001 {65002}"),
        "{text}"
    );
    assert!(
        text.contains("contains an AS set -> treat-as-withdraw (RFC 9774 §3)"),
        "{text}"
    );
}
