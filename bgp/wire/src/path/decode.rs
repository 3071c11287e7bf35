// SPDX-License-Identifier: Apache-2.0
//! Reading path attributes, with the verdict of RFC 7606 §7 on each.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use router_types::Asn;

use super::{Aggregator, DecodedAttributes, OpaqueAttribute, Origin, PathAttributes};
use crate::as_path::AsPath;
use crate::attribute::{AttributeCode, AttributeFlags, RawAttribute, RawAttributes};
use crate::community::{Community, ExtendedCommunity, LargeCommunity};
use crate::context::{AsSetPolicy, PeerKind, SessionContext};
use crate::cursor::Cursor;
use crate::fault::{Fault, Finding, Treatment};
use crate::notification::{ErrorKind, Notification};

/// A finding with its treatment and rule, before the attribute is known.
type Verdict = (Finding, Treatment, &'static str);

impl PathAttributes {
    /// Reads path attributes, those of [`Update::parse`](crate::Update::parse) or as they stand
    /// in a message. NEXT_HOP, MP_REACH_NLRI and MP_UNREACH_NLRI are passed over.
    ///
    /// The result depends on the bytes and the context alone, so it may be kept for the next
    /// message with the same bytes.
    pub fn decode(bytes: &[u8], context: &SessionContext) -> DecodedAttributes {
        let mut reader = Reader {
            context,
            attributes: PathAttributes::default(),
            as4_path: None,
            as4_aggregator: None,
        };
        let mut faults = Vec::new();
        for item in RawAttributes::new(bytes) {
            match item {
                Ok(raw) => {
                    if let Err((finding, treatment, rule)) = reader.read(&raw) {
                        faults.push(Fault {
                            attribute: Some(raw.code),
                            finding,
                            treatment,
                            rule,
                        });
                    }
                }
                Err(overrun) => faults.push(Fault {
                    attribute: overrun.code,
                    finding: Finding::Overrun {
                        offset: overrun.offset,
                    },
                    treatment: Treatment::TreatAsWithdraw,
                    rule: "RFC 7606 §4",
                }),
            }
        }
        let attributes = reader.finish();
        DecodedAttributes { attributes, faults }
    }
}

/// Reading in progress.
struct Reader<'c> {
    context: &'c SessionContext,
    attributes: PathAttributes,
    as4_path: Option<AsPath>,
    as4_aggregator: Option<Aggregator>,
}

impl Reader<'_> {
    fn read(&mut self, raw: &RawAttribute<'_>) -> Result<(), Verdict> {
        let value = raw.value;
        if let Some(class) = raw.code.class()
            && raw.code.is_decoded()
            && !class.fits(raw.flags)
        {
            return Err(withdraw(Finding::Flags(raw.flags), "RFC 7606 §3 c"));
        }
        let external = self.context.peer == PeerKind::External;
        let out = &mut self.attributes;
        match raw.code {
            AttributeCode::ORIGIN => {
                let [code] = exact(value, "1", withdraw, "RFC 7606 §7.1")?;
                let origin = Origin::from_code(code)
                    .ok_or_else(|| withdraw(Finding::Origin(code), "RFC 7606 §7.1"))?;
                out.origin = Some(origin);
            }
            AttributeCode::AS_PATH => out.as_path = Some(as_path(value, self.context)?),
            AttributeCode::MULTI_EXIT_DISC => {
                let octets = exact(value, "4", withdraw, "RFC 7606 §7.4")?;
                out.med = Some(u32::from_be_bytes(octets));
            }
            AttributeCode::LOCAL_PREF => {
                if external {
                    return Err(discard(Finding::FromExternalPeer, "RFC 7606 §7.5"));
                }
                let octets = exact(value, "4", withdraw, "RFC 7606 §7.5")?;
                out.local_pref = Some(u32::from_be_bytes(octets));
            }
            AttributeCode::ATOMIC_AGGREGATE => {
                let [] = exact(value, "0", discard, "RFC 7606 §7.6")?;
                out.atomic_aggregate = true;
            }
            AttributeCode::AGGREGATOR => {
                let rule = "RFC 7606 §7.7";
                let aggregator = if self.context.four_octet_as {
                    four_octet_aggregator(exact(value, "8", discard, rule)?)
                } else {
                    let [a, b, id @ ..] = exact::<6>(value, "6", discard, rule)?;
                    Aggregator {
                        asn: Asn(u16::from_be_bytes([a, b]).into()),
                        router_id: id.into(),
                    }
                };
                if aggregator.asn.0 == 0 {
                    return Err(discard(Finding::AsZero, "RFC 7607 §2"));
                }
                out.aggregator = Some(aggregator);
            }
            AttributeCode::COMMUNITIES => {
                let list = groups(value, "a multiple of 4, not 0", "RFC 7606 §7.8")?;
                out.communities = set(list.map(|c| Community(u32::from_be_bytes(c))));
            }
            AttributeCode::ORIGINATOR_ID => {
                if external {
                    return Err(discard(Finding::FromExternalPeer, "RFC 7606 §7.9"));
                }
                let octets: [u8; 4] = exact(value, "4", withdraw, "RFC 7606 §7.9")?;
                out.originator_id = Some(octets.into());
            }
            AttributeCode::CLUSTER_LIST => {
                if external {
                    return Err(discard(Finding::FromExternalPeer, "RFC 7606 §7.10"));
                }
                let list = groups::<4>(value, "a multiple of 4, not 0", "RFC 7606 §7.10")?;
                out.cluster_list = list.map(Ipv4Addr::from).collect();
            }
            AttributeCode::EXTENDED_COMMUNITIES => {
                let list = groups(value, "a multiple of 8, not 0", "RFC 7606 §7.14")?;
                out.extended_communities = set(list.map(ExtendedCommunity));
            }
            AttributeCode::AS4_PATH => self.as4_path = Some(as4_path(value, self.context)?),
            AttributeCode::AS4_AGGREGATOR => {
                if self.context.four_octet_as {
                    return Err(discard(Finding::FromFourOctetSpeaker, "RFC 6793 §4.1"));
                }
                let octets = exact(value, "8", discard, "RFC 6793 §6")?;
                let aggregator = four_octet_aggregator(octets);
                if aggregator.asn.0 == 0 {
                    return Err(discard(Finding::AsZero, "RFC 7607 §2"));
                }
                self.as4_aggregator = Some(aggregator);
            }
            AttributeCode::LARGE_COMMUNITIES => {
                let list = groups(value, "a multiple of 12, not 0", "RFC 8092 §6")?;
                out.large_communities = set(list.map(LargeCommunity::from_octets));
            }
            AttributeCode::ONLY_TO_CUSTOMER => {
                let octets = exact(value, "4", withdraw, "RFC 9234 §5")?;
                out.only_to_customer = Some(Asn(u32::from_be_bytes(octets)));
            }
            AttributeCode::PREFIX_SID => {
                if !is_tlv_list(value) {
                    return Err(discard(Finding::InnerLength, "RFC 8669 §6"));
                }
                out.prefix_sid = Some(value.to_vec());
            }
            AttributeCode::NEXT_HOP
            | AttributeCode::MP_REACH_NLRI
            | AttributeCode::MP_UNREACH_NLRI => {}
            code if !raw.flags.contains(AttributeFlags::OPTIONAL) => {
                let mut data = Vec::new();
                RawAttribute { code, ..*raw }.encode(&mut data);
                let kind = ErrorKind::UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE;
                let reset = Treatment::SessionReset(Notification::with_data(kind, data));
                return Err((Finding::UnrecognizedWellKnown, reset, "RFC 4271 §6.3"));
            }
            code => {
                // RFC 4271 §5: transitive ones are handed on as partial, others dropped quietly.
                if raw.flags.contains(AttributeFlags::TRANSITIVE) {
                    let flags = AttributeFlags::OPTIONAL
                        | AttributeFlags::TRANSITIVE
                        | AttributeFlags::PARTIAL;
                    out.opaque.push(OpaqueAttribute {
                        flags,
                        code,
                        value: value.to_vec(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Merges what a two-octet speaker split (RFC 6793 §4.2.3) and puts lists in order.
    fn finish(mut self) -> PathAttributes {
        let out = &mut self.attributes;
        let mut use_as4_path = true;
        if let (Some(aggregator), Some(as4)) = (out.aggregator, self.as4_aggregator) {
            if aggregator.asn == Asn::TRANS {
                out.aggregator = Some(as4);
            } else {
                use_as4_path = false;
            }
        }
        if let (Some(path), Some(as4), true) = (&mut out.as_path, self.as4_path, use_as4_path) {
            *path = core::mem::take(path).merge_as4(as4);
        }
        out.opaque.sort_by_key(|o| o.code);
        self.attributes
    }
}

fn as_path(value: &[u8], context: &SessionContext) -> Result<AsPath, Verdict> {
    let path = AsPath::decode(value, context.four_octet_as)
        .map_err(|e| withdraw(Finding::AsPath(e), "RFC 7606 §7.2"))?;
    if path.has_confederation() && context.peer == PeerKind::External {
        return Err(withdraw(Finding::ForeignConfederation, "RFC 5065 §5"));
    }
    if path.contains(Asn(0)) {
        return Err(withdraw(Finding::AsZero, "RFC 7607 §2"));
    }
    if path.has_set() && context.as_sets == AsSetPolicy::Withdraw {
        return Err(withdraw(Finding::AsSet, "RFC 9774 §3"));
    }
    Ok(path)
}

fn as4_path(value: &[u8], context: &SessionContext) -> Result<AsPath, Verdict> {
    if context.four_octet_as {
        return Err(discard(Finding::FromFourOctetSpeaker, "RFC 6793 §4.1"));
    }
    let mut path =
        AsPath::decode(value, true).map_err(|e| discard(Finding::AsPath(e), "RFC 6793 §6"))?;
    // RFC 6793 §6: confederation segments are dropped, the rest is used.
    path.remove_confederation();
    if path.contains(Asn(0)) {
        return Err(discard(Finding::AsZero, "RFC 7607 §2"));
    }
    if path.has_set() && context.as_sets == AsSetPolicy::Withdraw {
        return Err(withdraw(Finding::AsSet, "RFC 9774 §3"));
    }
    Ok(path)
}

fn withdraw(finding: Finding, rule: &'static str) -> Verdict {
    (finding, Treatment::TreatAsWithdraw, rule)
}

fn discard(finding: Finding, rule: &'static str) -> Verdict {
    (finding, Treatment::AttributeDiscard, rule)
}

fn exact<const N: usize>(
    value: &[u8],
    expected: &'static str,
    verdict: fn(Finding, &'static str) -> Verdict,
    rule: &'static str,
) -> Result<[u8; N], Verdict> {
    <[u8; N]>::try_from(value).map_err(|_| {
        verdict(
            Finding::Length {
                found: value.len(),
                expected,
            },
            rule,
        )
    })
}

/// The value as groups of N octets, at least one.
fn groups<'v, const N: usize>(
    value: &'v [u8],
    expected: &'static str,
    rule: &'static str,
) -> Result<impl Iterator<Item = [u8; N]> + use<'v, N>, Verdict> {
    let (groups, rest) = value.as_chunks::<N>();
    if groups.is_empty() || !rest.is_empty() {
        return Err(withdraw(
            Finding::Length {
                found: value.len(),
                expected,
            },
            rule,
        ));
    }
    Ok(groups.iter().copied())
}

fn set<T: Ord>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut list: Vec<T> = items.collect();
    list.sort_unstable();
    list.dedup();
    list
}

fn four_octet_aggregator([a, b, c, d, id @ ..]: [u8; 8]) -> Aggregator {
    Aggregator {
        asn: Asn(u32::from_be_bytes([a, b, c, d])),
        router_id: id.into(),
    }
}

/// Whether the value is a list of TLVs of one octet type and two octets length (RFC 8669 §3).
fn is_tlv_list(value: &[u8]) -> bool {
    let mut cursor = Cursor::new(value);
    while !cursor.is_empty() {
        let len = cursor.u8().and_then(|_| cursor.u16());
        if len.and_then(|len| cursor.take(len.into())).is_none() {
            return false;
        }
    }
    true
}
