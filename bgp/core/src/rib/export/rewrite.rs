// SPDX-License-Identifier: Apache-2.0
//! Attributes of a learned route as they are passed on (RFC 4271 §5.1, §9.2; RFC 4456 §8).
//!
//! Nearly always done on the bytes: attributes are copied, left out or put in between, and nothing
//! is decoded.

use std::net::Ipv4Addr;

use bgp_wire::{AttributeCode, AttributeFlags, PathAttributes, RawAttribute, RawAttributes};
use router_types::Asn;

use super::Target;
use crate::rib::attributes::decode;

/// The segment kinds AS_SEQUENCE, AS_CONFED_SEQUENCE and AS_CONFED_SET (RFC 4271 §4.3 b, RFC 5065
/// §3).
const SEQUENCE: u8 = 2;
const CONFED_SEQUENCE: u8 = 3;
const CONFED_SET: u8 = 4;

/// Most octets that are put in between: an AS_PATH with the own AS, or LOCAL_PREF.
const ADDED: usize = 16;

/// LOCAL_PREF of routes that came without (RFC 4271 §5.1.5 leaves it to the speaker).
const LOCAL_PREF: [u8; 4] = 100u32.to_be_bytes();

/// What reflection adds (RFC 4456 §8).
#[derive(Clone, Copy, Debug)]
pub(super) struct Reflected {
    /// Who brought the route into the AS, where the route does not say so yet.
    pub(super) originator: Ipv4Addr,
    /// This reflector's cluster.
    pub(super) cluster: Ipv4Addr,
}

impl Reflected {
    pub(super) fn mark(self, attributes: &mut PathAttributes) {
        attributes.originator_id.get_or_insert(self.originator);
        attributes.cluster_list.insert(0, self.cluster);
    }
}

/// Appends the attributes, in canonical form, as a neighbour is sent them.
pub(super) fn pass_on(
    bytes: &[u8],
    target: Target,
    four_octet_as: bool,
    local_asn: Asn,
    reflected: Option<Reflected>,
    out: &mut Vec<u8>,
) {
    if four_octet_as && reflected.is_none() {
        out.reserve(bytes.len() + ADDED);
        rewrite(bytes, target, local_asn, out);
        return;
    }
    let mut wide = Vec::with_capacity(bytes.len() + ADDED);
    rewrite(bytes, target, local_asn, &mut wide);
    let mut attributes = decode(&wide);
    if let Some(reflected) = reflected {
        reflected.mark(&mut attributes);
    }
    attributes.encode(four_octet_as, out);
}

fn rewrite(bytes: &[u8], target: Target, local_asn: Asn, out: &mut Vec<u8>) {
    let external = target == Target::External;
    let mut local_pref_due = !external;
    for attribute in RawAttributes::new(bytes).flatten() {
        // Attributes come in ascending order, and go out so.
        if local_pref_due && attribute.code >= AttributeCode::LOCAL_PREF {
            local_pref_due = false;
            if attribute.code != AttributeCode::LOCAL_PREF {
                default_local_pref(out);
            }
        }
        match attribute.code {
            AttributeCode::AS_PATH if external => prepend(attribute.value, local_asn, out),
            code if external && stays_inside(code) => {}
            _ => attribute.encode(out),
        }
    }
    if local_pref_due {
        default_local_pref(out);
    }
}

/// Whether neighbours are sent the same for one as for the other, both in canonical form. Decided at
/// the first difference, and nothing is written: what changes mostly changes visibly.
pub(super) fn is_passed_on_alike(a: &[u8], b: &[u8], target: Target) -> bool {
    let external = target == Target::External;
    let others = |bytes| {
        let all = RawAttributes::new(bytes).flatten();
        let passed = all.filter(move |attribute| {
            attribute.code != AttributeCode::LOCAL_PREF
                && !(external && stays_inside(attribute.code))
        });
        passed.map(move |attribute| match attribute.code {
            AttributeCode::AS_PATH if external => RawAttribute {
                value: outside(attribute.value),
                ..attribute
            },
            _ => attribute,
        })
    };
    let local_pref = |bytes| {
        let mut all = RawAttributes::new(bytes).flatten();
        let found = all.find(|attribute| attribute.code == AttributeCode::LOCAL_PREF);
        found.map_or(&LOCAL_PREF[..], |attribute| attribute.value)
    };
    others(a).eq(others(b)) && (external || local_pref(a) == local_pref(b))
}

/// Whether an attribute does not leave the AS. RFC 4271 §5.1.4: MED goes to the neighbour AS and no
/// further. RFC 4456 §8: nor do the attributes of reflection.
fn stays_inside(code: AttributeCode) -> bool {
    matches!(
        code,
        AttributeCode::MULTI_EXIT_DISC
            | AttributeCode::LOCAL_PREF
            | AttributeCode::ORIGINATOR_ID
            | AttributeCode::CLUSTER_LIST
    )
}

/// An AS_PATH as it leaves the confederation (RFC 5065 §4.1): what was inside stays there.
fn outside(path: &[u8]) -> &[u8] {
    let mut path = path;
    while let Some((&[CONFED_SEQUENCE | CONFED_SET, count], rest)) = path.split_first_chunk::<2>() {
        path = rest.get(usize::from(count) * 4..).unwrap_or(&[]);
    }
    path
}

/// Writes an AS_PATH with the own AS in front (RFC 4271 §5.1.2 b).
fn prepend(path: &[u8], local_asn: Asn, out: &mut Vec<u8>) {
    let path = outside(path);
    let (count, rest) = match path.split_first_chunk::<2>() {
        Some((&[SEQUENCE, count], rest)) if count < u8::MAX => (count + 1, rest),
        Some(_) | None => (1, path),
    };
    let len = 2 + 4 + rest.len();
    let flags = AttributeFlags::TRANSITIVE;
    match u8::try_from(len) {
        Ok(len) => out.extend_from_slice(&[flags.bits(), AttributeCode::AS_PATH.0, len]),
        Err(_) => {
            let flags = flags | AttributeFlags::EXTENDED_LENGTH;
            out.extend_from_slice(&[flags.bits(), AttributeCode::AS_PATH.0]);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(&[SEQUENCE, count]);
    out.extend_from_slice(&local_asn.0.to_be_bytes());
    out.extend_from_slice(rest);
}

/// RFC 4271 §5.1.5: to internal neighbours always.
fn default_local_pref(out: &mut Vec<u8>) {
    RawAttribute {
        flags: AttributeFlags::TRANSITIVE,
        code: AttributeCode::LOCAL_PREF,
        value: &LOCAL_PREF,
    }
    .encode(out);
}

#[cfg(test)]
mod tests {
    use bgp_wire::{AsPath, Segment, SegmentKind};
    use proptest::prelude::*;

    use super::*;

    fn path() -> impl Strategy<Value = AsPath> {
        let kind = prop_oneof![
            8 => Just(SegmentKind::Sequence),
            1 => Just(SegmentKind::Set),
        ];
        let len = prop_oneof![20 => 1usize..6, 1 => 254usize..256];
        let segment = (kind, len, 1u32..70_000).prop_map(|(kind, len, asn)| Segment {
            kind,
            asns: vec![Asn(asn); len],
        });
        prop::collection::vec(segment, 0..3).prop_map(|segments| AsPath { segments })
    }

    fn attributes() -> impl Strategy<Value = PathAttributes> {
        let ids = prop::collection::vec(any::<u32>().prop_map(Ipv4Addr::from_bits), 0..3);
        let communities = prop::collection::btree_set(any::<u32>(), 0..3);
        (
            path(),
            any::<Option<u32>>(),
            any::<Option<u32>>(),
            any::<bool>(),
            ids,
            communities,
        )
            .prop_map(
                |(path, med, local_pref, atomic, ids, communities)| PathAttributes {
                    origin: Some(bgp_wire::Origin::Igp),
                    as_path: Some(path),
                    med,
                    local_pref,
                    atomic_aggregate: atomic,
                    originator_id: ids.first().copied(),
                    cluster_list: ids,
                    communities: communities.into_iter().map(bgp_wire::Community).collect(),
                    ..PathAttributes::default()
                },
            )
    }

    proptest! {
        #[test]
        fn bytes_say_what_decoding_changing_and_encoding_would(
            attributes in attributes(), external: bool, four_octet_as: bool, reflect: bool,
        ) {
            let mut bytes = Vec::new();
            attributes.encode(true, &mut bytes);
            let target = if external { Target::External } else { Target::Internal { client: true } };
            let reflected = (reflect && !external).then_some(Reflected {
                originator: Ipv4Addr::new(10, 0, 0, 9),
                cluster: Ipv4Addr::new(10, 0, 0, 1),
            });
            let mut out = Vec::new();
            pass_on(&bytes, target, four_octet_as, Asn(65_001), reflected, &mut out);

            let mut expected = attributes;
            if external {
                expected.med = None;
                expected.local_pref = None;
                expected.originator_id = None;
                expected.cluster_list.clear();
                expected.as_path.get_or_insert_default().prepend(Asn(65_001), 1);
            } else {
                expected.local_pref.get_or_insert(100);
            }
            if reflected.is_some() {
                expected.originator_id.get_or_insert(Ipv4Addr::new(10, 0, 0, 9));
                expected.cluster_list.insert(0, Ipv4Addr::new(10, 0, 0, 1));
            }
            let mut wanted = Vec::new();
            expected.encode(four_octet_as, &mut wanted);
            prop_assert_eq!(out, wanted);
        }

        #[test]
        fn what_goes_alike_is_told_without_writing_it(
            one in attributes(), other in attributes(), external: bool, mixed in 0u8..64,
        ) {
            // Mostly alike, so that both answers come.
            let mut two = one.clone();
            if mixed & 1 != 0 { two.med = other.med }
            if mixed & 2 != 0 { two.local_pref = other.local_pref.filter(|_| mixed & 4 == 0).or(Some(100)) }
            if mixed & 8 != 0 { two.cluster_list = other.cluster_list }
            if mixed & 48 == 48 { two.as_path = other.as_path }
            let target = if external { Target::External } else { Target::Internal { client: true } };
            let canonical = |attributes: &PathAttributes| {
                let mut bytes = Vec::new();
                attributes.encode(true, &mut bytes);
                bytes
            };
            let sent = |bytes: &[u8]| {
                let mut out = Vec::new();
                pass_on(bytes, target, true, Asn(65_001), None, &mut out);
                out
            };
            let (a, b) = (canonical(&one), canonical(&two));
            prop_assert_eq!(is_passed_on_alike(&a, &b, target), sent(&a) == sent(&b));
        }
    }
}
