// SPDX-License-Identifier: Apache-2.0
//! What made other BGP speakers crash, hang or end sessions since 2019, octet by octet.
//!
//! Each input was built from the advisory's or the report's description alone. A test of bgp-wire
//! decodes each of them, and one of bgp-io sends it over a session; both include this file.

#[path = "update.rs"]
mod update;

use self::update::body;

/// The AS of the neighbour that sends them.
pub(crate) const ASN: u16 = 65_002;

/// An input.
pub(crate) struct Advisory {
    /// Where it was published.
    pub(crate) id: &'static str,
    /// What it did, to whom.
    pub(crate) harm: &'static str,
    /// The input.
    pub(crate) input: Input,
    /// What it comes to here.
    pub(crate) answer: Answer,
}

/// What is sent.
pub(crate) enum Input {
    /// An OPEN, without its header.
    Open(Vec<u8>),
    /// An UPDATE, without its header, in a session with IPv4 and IPv6 unicast. What it announces, if
    /// anything, is 198.51.100.0/24.
    Update(Vec<u8>),
    /// The same in a session without four-octet AS numbers.
    OldUpdate(Vec<u8>),
    /// Any message, of a type and a body, in a session.
    Message(u8, Vec<u8>),
}

/// What becomes of the session and the route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// The session comes up, or goes on; a route is taken.
    Taken,
    /// The session goes on, and the route counts as withdrawn.
    Withdrawn,
    /// The session goes on, and the message announced nothing that was agreed on.
    Nothing,
    /// The session ends with this NOTIFICATION.
    Reset(u8, u8),
    /// The session ends without a NOTIFICATION: it was one.
    Ends,
}
use Answer::{Ends, Nothing, Reset, Taken, Withdrawn};

const ORIGIN: &[u8] = &[0x40, 1, 1, 0];
const AS_PATH: &[u8] = &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xea];
const NEXT_HOP: &[u8] = &[0x40, 3, 4, 198, 18, 0, 9];
/// 198.51.100.0/24.
const PREFIX: &[u8] = &[24, 198, 51, 100];
/// A whole IPv6 route: 2001:db8::/32 by 2001:db8::1.
const V6_REACH: &[u8] = &[
    0x80, 14, 26, 0, 2, 1, 16, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 32, 0x20,
    1, 0xd, 0xb8,
];

fn open(parameters_len: u8, parameters: &[u8]) -> Input {
    let [high, low] = ASN.to_be_bytes();
    let mut body = vec![4, high, low, 0, 90, 10, 0, 253, 234, parameters_len];
    body.extend_from_slice(parameters);
    Input::Open(body)
}

/// An OPEN with one more capability between those every session has.
fn capability(capability: &[u8]) -> Input {
    let mut all = vec![1, 4, 0, 1, 0, 1];
    all.extend_from_slice(capability);
    all.extend_from_slice(&[65, 4, 0, 0, 0xfd, 0xea, 2, 0]);
    let len = all.len() as u8;
    open(len + 2, &[&[2, len][..], &all].concat())
}

/// A route with one attribute more.
fn with(attribute: &[u8]) -> Input {
    Input::Update(body(&[], &[ORIGIN, AS_PATH, NEXT_HOP, attribute], PREFIX))
}

/// A message with attributes and nothing in the NLRI field.
fn only(attributes: &[&[u8]]) -> Input {
    Input::Update(body(&[], attributes, &[]))
}

/// Extended length, for values over 255 octets.
fn long(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![flags | 0x10, code];
    bytes.extend((value.len() as u16).to_be_bytes());
    bytes.extend_from_slice(value);
    bytes
}

fn advisory(id: &'static str, harm: &'static str, input: Input, answer: Answer) -> Advisory {
    Advisory {
        id,
        harm,
        input,
        answer,
    }
}

/// All of them.
pub(crate) fn all() -> Vec<Advisory> {
    let mut all = opens();
    all.extend(attributes());
    all.extend(missing());
    all.extend(families());
    all.extend(others());
    all
}

fn opens() -> Vec<Advisory> {
    vec![
        advisory(
            "CVE-2022-40302",
            "FRR: an OPEN with the extended length of RFC 9072, whose three-octet head was read where \
             two octets were left, failed an assertion or was read beyond its end",
            open(255, &[255, 0]),
            Reset(2, 0),
        ),
        advisory(
            "CVE-2022-40318",
            "FRR: the same with a parameter whose two-octet length lies beyond the end",
            open(255, &[255, 0, 2, 2, 0]),
            Reset(2, 0),
        ),
        advisory(
            "CVE-2022-43681",
            "FRR: an OPEN that ends with the octet of the parameters' length was read beyond its end",
            open(12, &[]),
            Reset(2, 0),
        ),
        advisory(
            "CVE-2022-43681, extended",
            "FRR: an extended OPEN that ends with the word of the parameters' length",
            open(255, &[255, 0, 12]),
            Reset(2, 0),
        ),
        advisory(
            "CVE-2022-36440",
            "FRR: looking for the four-octet AS capability in parameters that run over failed an \
             assertion",
            open(6, &[2, 200, 65, 4, 0, 0]),
            Reset(2, 0),
        ),
        advisory(
            "CVE-2023-31489",
            "FRR: a long-lived graceful restart capability whose last entry is cut was read beyond \
             its end",
            capability(&[71, 9, 0, 1, 1, 0x80, 0, 0, 9, 0, 1]),
            Taken,
        ),
        advisory(
            "CVE-2023-41361",
            "FRR: the length in a software version capability was trusted",
            capability(&[75, 4, 255, b'1', b'.', b'0']),
            Taken,
        ),
        advisory(
            "osrg/gobgp#2730",
            "GoBGP: the same length ran over the slice and ended the daemon",
            capability(&[75, 7, 0x0a, 0, 0, 0, 0, 0, 0]),
            Taken,
        ),
        advisory(
            "CVE-2025-43971",
            "GoBGP: a software version of no octets ended the daemon",
            capability(&[75, 1, 0]),
            Taken,
        ),
        advisory(
            "GHSA-gjrg-jjr3-56cm",
            "GoBGP: a four-octet AS capability of length 0 took its value from the next capability",
            open(10, &[2, 8, 65, 0, 2, 0, 70, 0, 6, 0]),
            Reset(2, 0),
        ),
        advisory(
            "frr 10.5.4, role",
            "FRR: a role capability of length 0 was taken for a role",
            capability(&[9, 0]),
            Taken,
        ),
        advisory(
            "frr 10.5.4, extended next hop",
            "FRR: an extended next hop capability was read before its length was looked at",
            capability(&[5, 5, 0, 1, 0, 1, 0]),
            Taken,
        ),
        advisory(
            "capability without value",
            "several: a parameter with no capability at all",
            open(2, &[2, 0]),
            Taken,
        ),
    ]
}

fn attributes() -> Vec<Advisory> {
    let mut all = vec![
        advisory(
            "CVE-2019-5892",
            "FRR: attribute 255, of an experiment, ended the session of everybody who got it",
            with(&[0xc0, 255, 4, 0, 0, 0, 1]),
            Taken,
        ),
        advisory(
            "CVE-2023-38802",
            "FRR: a corrupted tunnel encapsulation attribute ended the session and not the route",
            with(&[0xc0, 23, 4, 0, 8, 0xff, 0xff]),
            Taken,
        ),
        advisory(
            "CVE-2024-44070",
            "FRR: a tunnel encapsulation sub-TLV longer than what is left was read",
            with(&[0xc0, 23, 6, 0, 8, 0, 2, 4, 200]),
            Taken,
        ),
        advisory(
            "CVE-2023-4481",
            "Junos: a corrupted entropy label attribute (28), passed on by everybody who does not \
             know it, ended sessions",
            with(&[0xe0, 28, 3, 0xff, 0, 0xff]),
            Taken,
        ),
        advisory(
            "CVE-2023-40457",
            "EXOS: a corrupted AS_PATHLIMIT attribute (21) ended sessions",
            with(&[0xe0, 21, 1, 0]),
            Taken,
        ),
        advisory(
            "CVE-2023-40457, 25",
            "EXOS: so did IPv6 address specific extended communities (25)",
            with(&[0xe0, 25, 3, 1, 2, 3]),
            Taken,
        ),
        advisory(
            "CVE-2023-38283",
            "OpenBGPD: an attribute of wrong length, set by somebody far away, ended the session and \
             not the route",
            with(&[0xc0, 16, 5, 0, 2, 0, 1, 0]),
            Withdrawn,
        ),
        advisory(
            "CVE-2023-41359",
            "FRR: AIGP was read beyond its end",
            with(&[0x80, 26, 2, 1, 0]),
            Taken,
        ),
        advisory(
            "CVE-2023-31490",
            "FRR: a sub-TLV of PREFIX_SID longer than what is left was read",
            with(&[0xc0, 40, 5, 5, 0, 2, 1, 200]),
            Taken,
        ),
        advisory(
            "CVE-2024-31948",
            "FRR: a malformed PREFIX_SID ended the daemon",
            with(&[0xc0, 40, 4, 1, 0, 7, 0]),
            Taken,
        ),
        advisory(
            "FRRouting/frr#19336",
            "FRR, Arista, in May 2025 and after: a PREFIX_SID of zeros from another AS ended sessions",
            with(&[0xe0, 40, 7, 0, 0, 0, 0, 0, 0, 0]),
            Taken,
        ),
        advisory(
            "FRRouting/frr#22042",
            "FRR: an SRv6 SID structure that moves 255 bits from bit 128 on wrote over the stack",
            with(&[
                0xc0, 40, 37, 5, 0, 34, 0, 1, 0, 30, 0, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0,
                0, 0, 0, 1, 0, 0, 19, 0, 1, 0, 6, 32, 16, 16, 0, 255, 128,
            ]),
            Taken,
        ),
        advisory(
            "inex 2025-10-28",
            "BIRD 2.0.8: an ONLY_TO_CUSTOMER of 1024 octets was passed on, and ended sessions behind",
            with(&long(0xe0, 35, &[0; 1024])),
            Withdrawn,
        ),
        advisory(
            "CVE-2026-30405",
            "GoBGP: a NEXT_HOP shorter than an address, and without its flag, ended the daemon",
            Input::Update(body(&[], &[ORIGIN, AS_PATH, &[0, 3, 2, 198, 18]], PREFIX)),
            Withdrawn,
        ),
        advisory(
            "osrg/gobgp#3392",
            "GoBGP: an ORIGIN without the transitive flag ended the daemon",
            Input::Update(body(&[], &[&[0, 1, 1, 0], AS_PATH, NEXT_HOP], PREFIX)),
            Withdrawn,
        ),
        advisory(
            "CVE-2026-42285",
            "GoBGP: an attribute that runs over, treated as a withdrawal, ended the daemon",
            with(&[0xc0, 8, 12, 0, 1, 0, 1]),
            Withdrawn,
        ),
        advisory(
            "CVE-2026-41642",
            "GoBGP: an unknown attribute that claims to be well-known ended the daemon",
            with(&[0x40, 99, 1, 0]),
            Reset(3, 2),
        ),
        advisory(
            "GHSA-frrj-87jh-2772",
            "GoBGP: an AS_PATH of no octets ended the daemon",
            Input::Update(body(&[], &[ORIGIN, &[0x40, 2, 0], NEXT_HOP], PREFIX)),
            // RFC 4271 §6.3: a path that does not begin with the neighbour's AS is not taken.
            Withdrawn,
        ),
        advisory(
            "CVE-2026-41643",
            "GoBGP: an AS4_PATH before other attributes moved the index of AS_PATH over the end",
            Input::OldUpdate(body(
                &[],
                &[
                    &[0xc0, 17, 6, 2, 1, 0, 0, 0xfd, 0xea],
                    ORIGIN,
                    &[0x40, 2, 4, 2, 1, 0xfd, 0xea],
                    &[0xc0, 17, 6, 2, 1, 0, 0, 0xfd, 0xea],
                    NEXT_HOP,
                ],
                PREFIX,
            )),
            Taken,
        ),
    ];
    // As many AS numbers as a message of 4096 octets holds.
    let mut path = vec![];
    for _ in 0..3 {
        path.extend([2, 255]);
        path.extend([0, 0, 0xfd, 0xea].repeat(255));
    }
    all.push(advisory(
        "CVE-2026-49943",
        "BIRD: a path of very many AS numbers ran over the stack where a filter matched it",
        Input::Update(body(
            &[],
            &[ORIGIN, &long(0x40, 2, &path), NEXT_HOP],
            PREFIX,
        )),
        Taken,
    ));
    all.push(advisory(
        "FRRouting/frr#22045",
        "FRR: an unknown attribute nearly as long as a message, which did not fit where it was \
         written again, ended the daemon",
        with(&long(0xe0, 99, &[7; 4000])),
        Taken,
    ));
    all
}

fn missing() -> Vec<Advisory> {
    vec![
        advisory(
            "CVE-2023-41358",
            "FRR: prefixes behind attributes of no octets ended the daemon",
            Input::Update(body(&[], &[], PREFIX)),
            Withdrawn,
        ),
        advisory(
            "CVE-2023-46753",
            "FRR: prefixes with one unknown attribute and none of the mandatory ones ended the daemon",
            Input::Update(body(
                &[],
                &[&[0xc0, 31, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]],
                PREFIX,
            )),
            Withdrawn,
        ),
        advisory(
            "CVE-2023-47234",
            "FRR: MP_UNREACH_NLRI with prefixes in the NLRI field and no mandatory attribute ended \
             the daemon",
            Input::Update(body(&[], &[&[0x80, 15, 3, 0, 1, 1]], PREFIX)),
            Withdrawn,
        ),
        advisory(
            "CVE-2023-47235",
            "FRR: with an End-of-RIB in the message, malformed attributes were not withdrawn, and \
             the daemon ended",
            Input::Update(body(
                &[],
                &[&[0x40, 1, 2, 0, 0], AS_PATH, &[0x80, 15, 3, 0, 1, 1]],
                PREFIX,
            )),
            Withdrawn,
        ),
        advisory(
            "FRRouting/frr#22563",
            "FRR: an ORIGIN that runs over, in a message that announces nothing, did not end the \
             session (RFC 7606 §5.2)",
            only(&[&[0x40, 1, 32, 0]]),
            Reset(3, 1),
        ),
    ]
}

fn families() -> Vec<Advisory> {
    vec![
        advisory(
            "CVE-2023-46752",
            "FRR: an MP_REACH_NLRI that ends before its prefixes begin ended the daemon",
            only(&[&[0x80, 14, 5, 0, 2, 1, 16, 0], ORIGIN, AS_PATH]),
            Reset(3, 9),
        ),
        advisory(
            "MP_REACH_NLRI without prefixes",
            "several: the same with a next hop and nothing behind it",
            only(&[
                &[[0x80, 14, 21].as_slice(), &V6_REACH[3..24]].concat(),
                ORIGIN,
                AS_PATH,
            ]),
            Nothing,
        ),
        advisory(
            "CVE-2023-41909",
            "FRR: flow specifications without a component ended the daemon",
            only(&[&[0x80, 14, 6, 0, 1, 133, 0, 0, 0], ORIGIN, AS_PATH]),
            Nothing,
        ),
        advisory(
            "CVE-2023-38406",
            "FRR: flow specifications of length 0 ran over",
            only(&[&[0x80, 15, 4, 0, 1, 133, 0]]),
            Nothing,
        ),
        advisory(
            "CVE-2025-43972",
            "GoBGP: flow specifications longer than what is left ended the daemon",
            only(&[
                &[0x80, 14, 8, 0, 1, 133, 0, 0, 0xf0, 0xff, 1],
                ORIGIN,
                AS_PATH,
            ]),
            Nothing,
        ),
        advisory(
            "CVE-2023-38407",
            "FRR: labelled prefixes were read beyond their end",
            only(&[
                &[0x80, 14, 11, 0, 1, 4, 4, 198, 18, 0, 9, 0, 255, 0],
                ORIGIN,
                AS_PATH,
            ]),
            Nothing,
        ),
        advisory(
            "FRRouting/frr#22043",
            "FRR: a prefix with ten labels wrote over the stack where it was logged",
            only(&[
                &[
                    [0x80, 14, 44, 0, 1, 4, 4, 198, 18, 0, 9, 0, 248].as_slice(),
                    &[0; 27],
                    &[0, 0, 1],
                    &[10, 0, 0, 0],
                ]
                .concat()[..],
                ORIGIN,
                AS_PATH,
            ]),
            Nothing,
        ),
    ]
}

fn others() -> Vec<Advisory> {
    let shutdown = |communication: &[u8]| Input::Message(3, [&[6, 2][..], communication].concat());
    vec![
        advisory(
            "CVE-2019-16159",
            "BIRD: a shutdown communication of 128 octets and more wrote over the stack",
            shutdown(&[[255].as_slice(), &[b'x'; 255]].concat()),
            Ends,
        ),
        advisory(
            "CVE-2019-16159, length",
            "BIRD: the same, longer than what is there",
            shutdown(&[200, b'x', b'y']),
            Ends,
        ),
        advisory(
            "CVE-2025-59688",
            "BIRD 3: a NOTIFICATION in an established session ended the daemon",
            Input::Message(3, vec![6, 4]),
            Ends,
        ),
        advisory(
            "CVE-2022-37032",
            "FRR: a CAPABILITY message was read beyond its end",
            Input::Message(6, vec![0, 1, 4]),
            Reset(1, 3),
        ),
        advisory(
            "CVE-2024-31949",
            "FRR: a CAPABILITY message whose length leads nowhere was read forever",
            Input::Message(6, vec![0, 64, 0, 0, 64, 0]),
            Reset(1, 3),
        ),
        advisory(
            "CVE-2023-41360",
            "FRR: a ROUTE-REFRESH with filters that end early was read beyond its end",
            Input::Message(5, vec![0, 1, 0, 1, 1]),
            Nothing,
        ),
        advisory(
            "FRRouting/frr#22828",
            "FRR: a malformed filter in ROUTE-REFRESH left a pointer to nothing behind",
            Input::Message(
                5,
                vec![0, 1, 0, 1, 1, 64, 0, 9, 0x80, 0, 0, 0, 1, 8, 32, 200, 10],
            ),
            Nothing,
        ),
    ]
}
