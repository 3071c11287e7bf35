// SPDX-License-Identifier: Apache-2.0
//! Regular expressions of the schemas, in the syntax both the API server and the `regex` crate read.

use crate::kinds::WellKnownCommunity;

const U8: &str = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
const U16: &str =
    "(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3}|0)";
const U32: &str = "(429496729[0-5]|42949672[0-8][0-9]|4294967[01][0-9]{2}|429496[0-6][0-9]{3}|42949[0-5][0-9]{4}|\
4294[0-8][0-9]{5}|429[0-3][0-9]{6}|42[0-8][0-9]{7}|4[01][0-9]{8}|[1-3][0-9]{9}|[1-9][0-9]{0,8}|0)";
/// The characters of an IPv6 address, at least two colons; [`crate::rules`] reads it exactly.
const IPV6: &str = "[0-9a-fA-F]{0,4}:[0-9a-fA-F:]*:[0-9a-fA-F:.]*";

/// An IPv4 address.
pub(crate) fn ipv4() -> String {
    format!("^{U8}(\\.{U8}){{3}}$")
}

/// An IPv4 address, or an IPv6 address with or without a zone.
pub(crate) fn peer_address() -> String {
    format!("^({U8}(\\.{U8}){{3}}|{IPV6}(%[0-9a-zA-Z_.~-]+)?)$")
}

/// A prefix of either family.
pub(crate) fn cidr() -> String {
    format!("^({U8}(\\.{U8}){{3}}/(3[0-2]|[12]?[0-9])|{IPV6}/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))$")
}

/// A community of RFC 1997: two halves or one number.
pub(crate) fn standard_community() -> String {
    format!("^({U16}:{U16}|{U32})$")
}

/// A community of RFC 8092.
pub(crate) fn large_community() -> String {
    format!("^{U32}:{U32}:{U32}$")
}

/// An address of either family.
pub(crate) fn address() -> String {
    format!("^({U8}(\\.{U8}){{3}}|{IPV6})$")
}

/// An address or a prefix of either family.
pub(crate) fn address_or_cidr() -> String {
    format!(
        "^({U8}(\\.{U8}){{3}}(/(3[0-2]|[12]?[0-9]))?|{IPV6}(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?)$"
    )
}

/// An AS number or a range of them.
pub(crate) fn asn_range() -> String {
    format!("^{U32}(-{U32})?$")
}

/// The names of well-known communities, as alternatives.
fn community_names() -> String {
    let names = WellKnownCommunity::ALL.map(WellKnownCommunity::name);
    format!("graceful-shutdown|{}", names.join("|"))
}

/// A community of RFC 1997: two halves, one number or a name.
pub(crate) fn named_community() -> String {
    format!("^({U16}:{U16}|{U32}|{})$", community_names())
}

/// Communities of RFC 1997, with ranges and wildcards.
pub(crate) fn standard_community_pattern() -> String {
    let half = format!("(\\*|{U16}(-{U16})?)");
    format!("^({half}:{half}|{U32}|{})$", community_names())
}

/// Communities of RFC 8092, with ranges and wildcards.
pub(crate) fn large_community_pattern() -> String {
    let part = format!("(\\*|{U32}(-{U32})?)");
    format!("^{part}:{part}:{part}$")
}

/// A community of RFC 4360: a route target or route origin of any layout, or its octets.
pub(crate) fn extended_community() -> String {
    let narrow = format!("({U8}(\\.{U8}){{3}}|{U32}L?):{U16}");
    format!("^((rt|soo):({U16}:{U32}|{narrow})|0x[0-9a-fA-F]{{16}})$")
}

/// A route target of RFC 4360.
pub(crate) fn route_target() -> String {
    let narrow = format!("({U8}(\\.{U8}){{3}}|{U32}L?):{U16}");
    format!("^rt:({U16}:{U32}|{narrow})$")
}

/// Communities of RFC 4360, with ranges and wildcards, or by their first octets.
pub(crate) fn extended_community_pattern() -> String {
    let number = format!("(\\*|{U32}(-{U32})?)");
    let octets = "0x([0-9a-fA-F]{2}){0,7}\\*|0x[0-9a-fA-F]{16}";
    format!("^((rt|soo):({U8}(\\.{U8}){{3}}|{number}):{number}|{octets})$")
}

/// What a pattern allows, in words.
pub(crate) fn in_words(pattern: &str) -> Option<&'static str> {
    let table = [
        (ipv4(), "an IPv4 address such as 192.0.2.1"),
        (
            peer_address(),
            "an IPv4 or IPv6 address such as 192.0.2.1, 2001:db8::1 or fe80::1%eth0",
        ),
        (cidr(), "a prefix such as 192.0.2.0/24 or 2001:db8::/32"),
        (
            standard_community(),
            "two numbers of 0 to 65535 such as 65000:100, or one of 0 to 4294967295",
        ),
        (
            large_community(),
            "three numbers of 0 to 4294967295 such as 65000:1:2",
        ),
        (address(), "an address such as 192.0.2.1 or 2001:db8::1"),
        (
            address_or_cidr(),
            "an address or a prefix such as 192.0.2.1 or 192.0.2.0/24",
        ),
        (
            asn_range(),
            "an AS number such as 65001, or a range of them such as 64512-65534",
        ),
        (
            named_community(),
            "two numbers of 0 to 65535 such as 65000:100, or a well-known name such as no-export",
        ),
        (
            standard_community_pattern(),
            "two numbers, ranges or * such as 65000:100, 65000:100-199 or 65000:*, or a well-known name such as no-export",
        ),
        (
            large_community_pattern(),
            "three numbers, ranges or * such as 65000:1:*",
        ),
        (
            route_target(),
            "rt: with an AS number or address and a number such as rt:65000:100",
        ),
        (
            extended_community(),
            "rt: or soo: with an AS number or address and a number such as rt:65000:100, or 0x and 16 hexadecimal digits",
        ),
        (
            extended_community_pattern(),
            "rt: or soo: with an AS number or address and a number, ranges or * such as rt:65000:*, or the first octets such as 0x4004*",
        ),
    ];
    table
        .iter()
        .find(|(known, _)| known == pattern)
        .map(|(_, words)| *words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_accept_what_they_say_and_nothing_more() {
        let yes_no: [(String, &[&str], &[&str]); 13] = [
            (
                ipv4(),
                &["0.0.0.0", "255.255.255.255"],
                &["1.2.3", "256.1.1.1", "01.1.1.1", "::"],
            ),
            (
                peer_address(),
                &[
                    "10.0.0.1",
                    "::",
                    "fd00::1",
                    "fe80::1%eth0.100",
                    "::ffff:1.2.3.4",
                ],
                &[
                    "10.0.0.1%eth0",
                    "10.0.0.1/24",
                    "host",
                    "fe80::1%",
                    "1:2",
                    "",
                ],
            ),
            (
                cidr(),
                &["0.0.0.0/0", "10.0.0.0/32", "::/0", "fd00::/128"],
                &["10.0.0.0/33", "::/129", "::"],
            ),
            (
                standard_community(),
                &["0:0", "65535:65535", "4294967295", "0"],
                &["65536:0", "1:65536", "4294967296", "1:2:3", "a:b", "01:1"],
            ),
            (
                large_community(),
                &["0:0:0", "4294967295:4294967295:4294967295"],
                &["4294967296:0:0", "1:2", "1:2:3:4"],
            ),
            (address(), &["10.0.0.1", "::1"], &["10.0.0.0/8", "host"]),
            (
                address_or_cidr(),
                &["10.0.0.1", "10.0.0.0/8", "fd00::/8", "fd00::1"],
                &["10.0.0.0/33", "10.0.0"],
            ),
            (
                asn_range(),
                &["0", "64512-65534", "4294967295"],
                &["4294967296", "AS1", "1-", "-1"],
            ),
            (
                named_community(),
                &["65000:1", "no-export", "graceful-shutdown", "planned-shut"],
                &["65000:*", "no-exports", ""],
            ),
            (
                standard_community_pattern(),
                &["65000:*", "*:*", "1:2-3", "no-peer", "7"],
                &["65536:*", "*", "1:-2", "1:2-"],
            ),
            (
                extended_community(),
                &[
                    "rt:65000:4294967295",
                    "rt:65000L:1",
                    "soo:192.0.2.1:65535",
                    "rt:4200000001:1",
                    "0x030b000000000064",
                ],
                &[
                    "rt:4200000001:65536",
                    "rt:192.0.2.1:65536",
                    "rt:65000:*",
                    "0x12",
                ],
            ),
            (
                route_target(),
                &["rt:65000:4294967295", "rt:192.0.2.1:65535", "rt:65000L:1"],
                &[
                    "65000:1",
                    "soo:65000:1",
                    "rt:4200000001:65536",
                    "rt:65000:*",
                ],
            ),
            (
                extended_community_pattern(),
                &[
                    "rt:65000:*",
                    "soo:*:1-2",
                    "rt:192.0.2.1:*",
                    "0x4004*",
                    "0x*",
                ],
                &["rt:*", "0x4*", "0x4004", "xx:1:2"],
            ),
        ];
        for (pattern, yes, no) in yes_no {
            let regex = regex::Regex::new(&pattern).unwrap();
            yes.iter()
                .for_each(|text| assert!(regex.is_match(text), "{text}"));
            no.iter()
                .for_each(|text| assert!(!regex.is_match(text), "{text}"));
            assert!(in_words(&pattern).is_some());
        }
    }

    #[test]
    fn numbers_up_to_32_bits_match_and_no_others() {
        let regex = regex::Regex::new(&standard_community()).unwrap();
        for shift in 0..34 {
            for near in [-1i64, 0, 1] {
                let number = (1i64 << shift) + near;
                let is_ours = u32::try_from(number).is_ok();
                assert_eq!(regex.is_match(&number.to_string()), is_ours, "{number}");
            }
        }
    }
}
