// SPDX-License-Identifier: Apache-2.0
//! UPDATE as received: cut into its parts without copying, with the verdict of RFC 7606.
//!
//! Reading goes in two steps, so that a speaker that has seen a set of attributes before need not
//! decode it again:
//!
//! 1. [`Update::parse`] finds prefixes and next hops and writes the other attributes in canonical
//!    order into a buffer of the caller, who looks these bytes up.
//! 2. Only for bytes not seen before, [`PathAttributes::decode`](crate::PathAttributes::decode).
//!    The result may be kept with the bytes: it depends on nothing else but the session.
//!
//! [`Update::faults`] then joins what both steps found with what only shows in both together.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use router_types::{Afi, Family, Safi};

use crate::attribute::{AttributeClass, AttributeCode, RawAttribute, RawAttributes};
use crate::context::{FamilyContext, SessionContext};
use crate::cursor::Cursor;
use crate::fault::{Fault, Finding, Treatment};
use crate::next_hop::PathNextHop;
use crate::nlri::{Nlri, NlriError};
use crate::notification::{ErrorKind, Notification};
use crate::path::DecodedAttributes;

/// The three fields of an UPDATE's body (RFC 4271 §4.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UpdateView<'a> {
    /// IPv4 prefixes no longer reachable.
    pub withdrawn: &'a [u8],
    /// Path attributes.
    pub attributes: &'a [u8],
    /// IPv4 prefixes the attributes apply to.
    pub announced: &'a [u8],
}

impl<'a> UpdateView<'a> {
    /// Cuts the body of an UPDATE.
    ///
    /// # Errors
    ///
    /// The lengths contradict the message, and the session ends (RFC 4271 §6.3).
    pub fn split(body: &'a [u8]) -> Result<Self, Notification> {
        Self::try_split(body).ok_or_else(|| Notification::new(ErrorKind::MALFORMED_ATTRIBUTE_LIST))
    }

    fn try_split(body: &'a [u8]) -> Option<Self> {
        let mut cursor = Cursor::new(body);
        let len = cursor.u16()?;
        let withdrawn = cursor.take(len.into())?;
        let len = cursor.u16()?;
        let attributes = cursor.take(len.into())?;
        Some(UpdateView {
            withdrawn,
            attributes,
            announced: cursor.rest(),
        })
    }
}

/// What MP_REACH_NLRI carries (RFC 4760 §3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MpReach<'a> {
    /// Where the prefixes lead.
    pub next_hop: PathNextHop,
    /// The prefixes.
    pub nlri: Nlri<'a>,
}

/// An UPDATE with its prefixes found and checked.
///
/// After a fault that ends the session or disables the family the lists concerned are empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Update<'a> {
    /// IPv4 unicast prefixes of the withdrawn routes field.
    pub withdrawn: Nlri<'a>,
    /// IPv4 unicast prefixes of the NLRI field. Their next hop is `next_hop`.
    pub announced: Nlri<'a>,
    /// NEXT_HOP, if it is there and well-formed. Only `announced` is concerned by it.
    pub next_hop: Option<Ipv4Addr>,
    /// Prefixes with their next hop from MP_REACH_NLRI, if of a negotiated family.
    pub mp_announced: Option<MpReach<'a>>,
    /// Prefixes of MP_UNREACH_NLRI, if of a negotiated family.
    pub mp_withdrawn: Option<Nlri<'a>>,
    /// What was found wrong, except in the attributes handed to the second step.
    pub faults: Vec<Fault>,
    shape: Shape,
}

/// Facts about the message that the judgement of the whole needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Shape {
    has_next_hop: bool,
    /// MP_REACH_NLRI is there, of whatever family.
    has_mp_reach: bool,
    /// MP_UNREACH_NLRI is there, of whatever family.
    mp_unreach: Option<Family>,
    /// Some attribute besides MP_UNREACH_NLRI is there.
    has_other: bool,
    is_empty: bool,
}

impl<'a> Update<'a> {
    /// Finds the prefixes, and appends the path attributes without NEXT_HOP, MP_REACH_NLRI and
    /// MP_UNREACH_NLRI to `canonical`.
    ///
    /// Canonical means: ascending types, no duplicates, the shortest form of each length. Equal
    /// bytes are equal attributes; the reverse holds for peers that write lists in one order.
    pub fn parse(view: &UpdateView<'a>, context: &SessionContext, canonical: &mut Vec<u8>) -> Self {
        let v4 = Family::IPV4_UNICAST;
        let mut update = Update {
            withdrawn: Nlri::empty(v4),
            announced: Nlri::empty(v4),
            next_hop: None,
            mp_announced: None,
            mp_withdrawn: None,
            faults: Vec::new(),
            shape: Shape {
                is_empty: view.withdrawn.is_empty()
                    && view.attributes.is_empty()
                    && view.announced.is_empty(),
                ..Shape::default()
            },
        };
        update.withdrawn = update.ipv4_field(view.withdrawn, context);
        update.announced = update.ipv4_field(view.announced, context);
        update.walk(view.attributes, context, canonical);
        if !update.announced.is_empty() {
            update.check_next_hop();
        }
        update
    }

    /// Whether anything is announced, so that the attributes matter.
    pub fn has_announcements(&self) -> bool {
        !self.announced.is_empty() || self.mp_announced.is_some()
    }

    /// The family whose End-of-RIB the message is (RFC 4724 §2).
    pub fn end_of_rib(&self) -> Option<Family> {
        if self.shape.is_empty {
            return Some(Family::IPV4_UNICAST);
        }
        let only_mp_unreach = !self.shape.has_other
            && !self.shape.has_mp_reach
            && self.withdrawn.is_empty()
            && self.announced.is_empty()
            && self.faults.is_empty();
        let empty = self.mp_withdrawn.is_some_and(|nlri| nlri.is_empty());
        self.shape.mp_unreach.filter(|_| only_mp_unreach && empty)
    }

    /// Whether nothing is wrong with the message if [`PathAttributes::are_canonical`] says so of its
    /// attributes, or if it has none to say it of and announces nothing.
    ///
    /// [`PathAttributes::are_canonical`]: crate::PathAttributes::are_canonical
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty() && (self.announced.is_empty() || self.shape.has_next_hop)
    }

    /// Everything wrong with the message: what [`Update::parse`] found, what decoding its
    /// attributes found, mandatory attributes that are missing, and errors in a message whose
    /// announcements may have been lost (RFC 7606 §5.2). Empty, and not allocated, for a good
    /// message; [`Fault::strongest`] says what to do.
    pub fn faults(&self, decoded: &DecodedAttributes) -> Vec<Fault> {
        let mut faults = self.faults.clone();
        faults.extend_from_slice(&decoded.faults);
        if self.has_announcements() {
            let attributes = &decoded.attributes;
            for (code, present) in [
                (AttributeCode::ORIGIN, attributes.origin.is_some()),
                (AttributeCode::AS_PATH, attributes.as_path.is_some()),
                (
                    AttributeCode::NEXT_HOP,
                    self.announced.is_empty() || self.shape.has_next_hop,
                ),
            ] {
                if !present && !faults.iter().any(|f| f.attribute == Some(code)) {
                    faults.push(Fault {
                        attribute: Some(code),
                        finding: Finding::Missing,
                        treatment: Treatment::TreatAsWithdraw,
                        rule: "RFC 7606 §3 d",
                    });
                }
            }
        }
        let has_reach = !self.announced.is_empty() || self.shape.has_mp_reach;
        let serious = Fault::strongest(&faults).is_some_and(|t| t.severity() > 0);
        if serious && !has_reach && self.shape.has_other {
            let kind = ErrorKind::MALFORMED_ATTRIBUTE_LIST;
            faults.push(Fault {
                attribute: None,
                finding: Finding::NoRoutes,
                treatment: Treatment::SessionReset(Notification::new(kind)),
                rule: "RFC 7606 §5.2",
            });
        }
        faults
    }

    /// Reads the withdrawn routes or NLRI field.
    fn ipv4_field(&mut self, bytes: &'a [u8], context: &SessionContext) -> Nlri<'a> {
        let family = Family::IPV4_UNICAST;
        let nothing = Nlri::empty(family);
        if bytes.is_empty() {
            return nothing;
        }
        let Some(agreed) = context.family(family) else {
            self.fault(
                None,
                Finding::FamilyNotNegotiated(family),
                Treatment::AttributeDiscard,
                "RFC 4760 §8",
            );
            return nothing;
        };
        Nlri::parse(family, agreed.add_path_receive, bytes).unwrap_or_else(|error| {
            let reset = Notification::new(ErrorKind::INVALID_NETWORK_FIELD);
            self.fault(
                None,
                Finding::Nlri(error),
                Treatment::SessionReset(reset),
                "RFC 7606 §5.3",
            );
            nothing
        })
    }

    fn walk(&mut self, bytes: &'a [u8], context: &SessionContext, canonical: &mut Vec<u8>) {
        let mut seen = [false; 256];
        let mut last = AttributeCode(0);
        let mut sorted = true;
        let start = canonical.len();
        for item in RawAttributes::new(bytes) {
            let raw = match item {
                Ok(raw) => raw,
                Err(overrun) => {
                    // RFC 7606 §4: the total length is relied upon, the rest is unreadable.
                    let finding = Finding::Overrun {
                        offset: overrun.offset,
                    };
                    self.shape.has_other = true;
                    self.fault(
                        overrun.code,
                        finding,
                        Treatment::TreatAsWithdraw,
                        "RFC 7606 §4",
                    );
                    break;
                }
            };
            self.shape.has_other |= raw.code != AttributeCode::MP_UNREACH_NLRI;
            if core::mem::replace(&mut seen[usize::from(raw.code.0)], true) {
                self.duplicate(raw.code);
                continue;
            }
            match raw.code {
                AttributeCode::NEXT_HOP => self.read_next_hop(&raw),
                AttributeCode::MP_REACH_NLRI => self.read_mp_reach(&raw, context),
                AttributeCode::MP_UNREACH_NLRI => self.read_mp_unreach(&raw, context),
                code => {
                    sorted &= last < code;
                    last = code;
                    raw.encode(canonical);
                }
            }
        }
        if !sorted {
            sort(canonical, start);
        }
    }

    fn duplicate(&mut self, code: AttributeCode) {
        let (treatment, rule) = match code {
            AttributeCode::MP_REACH_NLRI | AttributeCode::MP_UNREACH_NLRI => {
                let reset = Notification::new(ErrorKind::MALFORMED_ATTRIBUTE_LIST);
                (Treatment::SessionReset(reset), "RFC 7606 §3 g")
            }
            _ => (Treatment::AttributeDiscard, "RFC 7606 §3 g"),
        };
        self.fault(Some(code), Finding::Duplicate, treatment, rule);
    }

    fn read_next_hop(&mut self, raw: &RawAttribute<'a>) {
        self.shape.has_next_hop = true;
        // RFC 4760 §3: without prefixes in the NLRI field it is ignored, whatever it says.
        if self.announced.is_empty() {
            return;
        }
        let code = Some(raw.code);
        let withdraw = Treatment::TreatAsWithdraw;
        if !AttributeClass::WellKnown.fits(raw.flags) {
            self.fault(code, Finding::Flags(raw.flags), withdraw, "RFC 7606 §3 c");
        } else if let Ok(octets) = <[u8; 4]>::try_from(raw.value) {
            self.next_hop = Some(octets.into());
        } else {
            let finding = Finding::Length {
                found: raw.value.len(),
                expected: "4",
            };
            self.fault(code, finding, withdraw, "RFC 7606 §7.3");
        }
    }

    fn check_next_hop(&mut self) {
        let Some(address) = self.next_hop.map(PathNextHop::V4) else {
            return;
        };
        if !address.is_host() {
            let code = Some(AttributeCode::NEXT_HOP);
            let finding = Finding::NextHop(address);
            self.fault(code, finding, Treatment::TreatAsWithdraw, "RFC 4271 §6.3");
        }
    }

    fn read_mp_reach(&mut self, raw: &RawAttribute<'a>, context: &SessionContext) {
        self.shape.has_mp_reach = true;
        self.check_mp_flags(raw);
        let mut cursor = Cursor::new(raw.value);
        let parts = read_family(&mut cursor).and_then(|family| {
            let len = cursor.u8()?;
            let next_hop = cursor.take(len.into())?;
            let _reserved = cursor.u8()?;
            Some((family, next_hop))
        });
        let Some((family, next_hop)) = parts else {
            self.unreadable(raw, "at least 5 and the next hop");
            return;
        };
        let Some(agreed) = self.negotiated(raw, family, context) else {
            return;
        };
        let decoded = PathNextHop::decode_for(family, next_hop)
            .filter(|hop| hop.fits(family, agreed.extended_next_hop));
        let Some(decoded) = decoded else {
            let finding = Finding::NextHopLength {
                family,
                found: next_hop.len(),
            };
            self.disable(raw, family, finding, "RFC 7606 §7.11");
            return;
        };
        match Nlri::parse(family, agreed.add_path_receive, cursor.rest()) {
            Ok(nlri) => {
                if !decoded.is_host() {
                    let finding = Finding::NextHop(decoded);
                    let withdraw = Treatment::TreatAsWithdraw;
                    self.fault(Some(raw.code), finding, withdraw, "RFC 4271 §6.3");
                }
                self.mp_announced = Some(MpReach {
                    next_hop: decoded,
                    nlri,
                });
            }
            Err(error) => self.bad_prefixes(raw, family, error),
        }
    }

    fn read_mp_unreach(&mut self, raw: &RawAttribute<'a>, context: &SessionContext) {
        self.check_mp_flags(raw);
        let mut cursor = Cursor::new(raw.value);
        let Some(family) = read_family(&mut cursor) else {
            self.unreadable(raw, "at least 3");
            return;
        };
        self.shape.mp_unreach = Some(family);
        let Some(agreed) = self.negotiated(raw, family, context) else {
            return;
        };
        match Nlri::parse(family, agreed.add_path_receive, cursor.rest()) {
            Ok(nlri) => self.mp_withdrawn = Some(nlri),
            Err(error) => self.bad_prefixes(raw, family, error),
        }
    }

    fn check_mp_flags(&mut self, raw: &RawAttribute<'a>) {
        if !AttributeClass::OptionalNonTransitive.fits(raw.flags) {
            let finding = Finding::Flags(raw.flags);
            self.fault(
                Some(raw.code),
                finding,
                Treatment::TreatAsWithdraw,
                "RFC 7606 §3 c",
            );
        }
    }

    fn negotiated<'c>(
        &mut self,
        raw: &RawAttribute<'a>,
        family: Family,
        context: &'c SessionContext,
    ) -> Option<&'c FamilyContext> {
        let agreed = context.family(family);
        if agreed.is_none() {
            let finding = Finding::FamilyNotNegotiated(family);
            self.fault(
                Some(raw.code),
                finding,
                Treatment::AttributeDiscard,
                "RFC 4760 §8",
            );
        }
        agreed
    }

    /// Too short to find the prefixes, even the family.
    fn unreadable(&mut self, raw: &RawAttribute<'a>, expected: &'static str) {
        let finding = Finding::Length {
            found: raw.value.len(),
            expected,
        };
        let reset = Treatment::SessionReset(optional_attribute_error(raw));
        self.fault(Some(raw.code), finding, reset, "RFC 7606 §3 j");
    }

    fn bad_prefixes(&mut self, raw: &RawAttribute<'a>, family: Family, error: NlriError) {
        self.disable(raw, family, Finding::Nlri(error), "RFC 7606 §5.3");
    }

    fn disable(
        &mut self,
        raw: &RawAttribute<'a>,
        family: Family,
        finding: Finding,
        rule: &'static str,
    ) {
        let notification = optional_attribute_error(raw);
        let treatment = Treatment::DisableFamily {
            family,
            notification,
        };
        self.fault(Some(raw.code), finding, treatment, rule);
    }

    fn fault(
        &mut self,
        attribute: Option<AttributeCode>,
        finding: Finding,
        treatment: Treatment,
        rule: &'static str,
    ) {
        self.faults.push(Fault {
            attribute,
            finding,
            treatment,
            rule,
        });
    }
}

fn read_family(cursor: &mut Cursor<'_>) -> Option<Family> {
    Some(Family {
        afi: Afi(cursor.u16()?),
        safi: Safi(cursor.u8()?),
    })
}

/// RFC 4271 §6.3: the data is the attribute as received.
fn optional_attribute_error(raw: &RawAttribute<'_>) -> Notification {
    let mut data = Vec::new();
    raw.encode(&mut data);
    Notification::with_data(ErrorKind::OPTIONAL_ATTRIBUTE, data)
}

/// Sorts whole attributes, from `start` on, by type. Rare: nearly every speaker sends them sorted.
fn sort(canonical: &mut Vec<u8>, start: usize) {
    let unsorted = canonical.split_off(start);
    let mut list: Vec<RawAttribute<'_>> = RawAttributes::new(&unsorted).flatten().collect();
    list.sort_by_key(|raw| raw.code);
    list.iter().for_each(|raw| raw.encode(canonical));
}
