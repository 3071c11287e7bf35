// SPDX-License-Identifier: Apache-2.0
//! Attributes that need no decoding are what decoding makes of them.

#[allow(dead_code, reason = "other tests use the rest")]
mod generate;

use bgp_wire::{
    AsPath, AsSetPolicy, Community, LargeCommunity, Origin, PathAttributes, PeerKind,
    SessionContext, Update, UpdateView,
};
use generate::attributes;
use proptest::prelude::*;
use proptest::sample::Index;
use router_types::Asn;

fn context(peer: PeerKind) -> SessionContext {
    SessionContext {
        peer,
        four_octet_as: true,
        extended_messages: true,
        as_sets: AsSetPolicy::Withdraw,
        families: Vec::new(),
    }
}

/// As a message with these attributes and no prefixes is read.
fn parse(attributes: &[u8], context: &SessionContext) -> Vec<u8> {
    let view = UpdateView {
        withdrawn: &[],
        attributes,
        announced: &[],
    };
    let mut canonical = Vec::new();
    Update::parse(&view, context, &mut canonical);
    canonical
}

/// What most attributes of the Internet's table look like.
fn ordinary() -> PathAttributes {
    PathAttributes {
        origin: Some(Origin::Igp),
        as_path: Some(AsPath::from_sequence([65001, 3356, 13335].map(Asn))),
        med: Some(20),
        communities: vec![Community(1), Community(7)],
        large_communities: vec![LargeCommunity::from_octets([3; 12])],
        ..PathAttributes::default()
    }
}

fn encoded(attributes: &PathAttributes) -> Vec<u8> {
    let mut bytes = Vec::new();
    attributes.encode(true, &mut bytes);
    bytes
}

proptest! {
    #[test]
    fn what_needs_no_decoding_is_what_decoding_makes_of_it(
        attributes in prop_oneof![attributes(), Just(ordinary())],
        change in proptest::option::of((any::<Index>(), any::<u8>())),
        internal in any::<bool>(),
    ) {
        let context = context(if internal { PeerKind::Internal } else { PeerKind::External });
        let mut bytes = encoded(&attributes);
        if let Some((at, octet)) = change {
            let at = at.index(bytes.len());
            bytes[at] = octet;
        }
        for bytes in [parse(&bytes, &context), bytes] {
            if PathAttributes::are_canonical(&bytes, &context) {
                let decoded = PathAttributes::decode(&bytes, &context);
                prop_assert_eq!(decoded.faults, []);
                prop_assert!(decoded.attributes.origin.is_some());
                prop_assert!(decoded.attributes.as_path.is_some());
                prop_assert_eq!(encoded(&decoded.attributes), bytes);
            }
        }
    }
}

#[test]
fn ordinary_attributes_need_no_decoding() {
    let external = context(PeerKind::External);
    assert!(PathAttributes::are_canonical(
        &encoded(&ordinary()),
        &external
    ));
    let reflected = PathAttributes {
        local_pref: Some(100),
        ..ordinary()
    };
    let bytes = encoded(&reflected);
    assert!(PathAttributes::are_canonical(
        &bytes,
        &context(PeerKind::Internal)
    ));
    assert!(
        !PathAttributes::are_canonical(&bytes, &external),
        "LOCAL_PREF from outside"
    );
    let narrow = SessionContext {
        four_octet_as: false,
        ..external.clone()
    };
    assert!(!PathAttributes::are_canonical(
        &encoded(&ordinary()),
        &narrow
    ));
}

#[test]
fn what_decoding_would_change_is_decoded() {
    let context = context(PeerKind::External);
    let with = |change: &dyn Fn(&mut PathAttributes)| {
        let mut attributes = ordinary();
        change(&mut attributes);
        encoded(&attributes)
    };
    let cases = [
        ("no ORIGIN", with(&|a| a.origin = None)),
        ("no AS_PATH", with(&|a| a.as_path = None)),
        (
            "AS 0",
            with(&|a| a.as_path = Some(AsPath::from_sequence([Asn(5), Asn(0)]))),
        ),
        (
            "communities out of order",
            with(&|a| a.communities.reverse()),
        ),
        (
            "a community twice",
            with(&|a| a.communities = vec![Community(7), Community(7)]),
        ),
        (
            "an AS_SET",
            with(&|a| a.as_path = Some(AsPath::decode(&[1, 1, 0, 9], false).unwrap())),
        ),
    ];
    for (name, bytes) in cases {
        assert!(!PathAttributes::are_canonical(&bytes, &context), "{name}");
    }
    let good = encoded(&ordinary());
    // An origin that there is not, the partial bit, a length of two octets where one does.
    for (at, octet) in [(3, 3), (0, 0x60), (0, 0x50)] {
        let mut bytes = good.clone();
        bytes[at] = octet;
        assert!(
            !PathAttributes::are_canonical(&bytes, &context),
            "octet {at} {octet:#x}"
        );
    }
}
