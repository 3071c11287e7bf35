// SPDX-License-Identifier: Apache-2.0
//! Writing path attributes in canonical order: ascending types, shortest lengths.

use alloc::vec::Vec;

use super::PathAttributes;
use crate::attribute::{AttributeCode, AttributeFlags, RawAttribute};

/// Octets that hold most attributes' values.
const USUAL_VALUE: usize = 64;

impl PathAttributes {
    /// Appends the attributes for a session with four-octet AS numbers, or with two: then
    /// AS4_PATH and AS4_AGGREGATOR follow where a number does not fit (RFC 6793 §4.2.2).
    ///
    /// The bytes are what [`Update::parse`](crate::Update::parse) gives on the other side and
    /// what [`announce`](crate::announce) takes.
    pub fn encode(&self, four_octet_as: bool, out: &mut Vec<u8>) {
        let mut value = Vec::with_capacity(USUAL_VALUE);
        if let Some(origin) = self.origin {
            push(out, AttributeCode::ORIGIN, &[origin as u8]);
        }
        if let Some(path) = &self.as_path {
            path.encode(four_octet_as, &mut value);
            push(out, AttributeCode::AS_PATH, &value);
        }
        if let Some(med) = self.med {
            push(out, AttributeCode::MULTI_EXIT_DISC, &med.to_be_bytes());
        }
        if let Some(local_pref) = self.local_pref {
            push(out, AttributeCode::LOCAL_PREF, &local_pref.to_be_bytes());
        }
        if self.atomic_aggregate {
            push(out, AttributeCode::ATOMIC_AGGREGATE, &[]);
        }
        if let Some(aggregator) = self.aggregator {
            value.clear();
            if four_octet_as {
                value.extend_from_slice(&aggregator.asn.0.to_be_bytes());
            } else {
                value.extend_from_slice(&aggregator.asn.to_two_octet().to_be_bytes());
            }
            value.extend_from_slice(&aggregator.router_id.octets());
            push(out, AttributeCode::AGGREGATOR, &value);
        }
        let communities = self.communities.iter().map(|c| c.0.to_be_bytes());
        push_list(out, AttributeCode::COMMUNITIES, communities, &mut value);
        if let Some(originator_id) = self.originator_id {
            push(out, AttributeCode::ORIGINATOR_ID, &originator_id.octets());
        }
        let clusters = self.cluster_list.iter().map(|id| id.octets());
        push_list(out, AttributeCode::CLUSTER_LIST, clusters, &mut value);
        // Attributes this speaker does not read keep their place among those it does.
        let mut opaque = self.opaque.iter().peekable();
        let mut push_opaque_below = |limit: AttributeCode, out: &mut Vec<u8>| {
            while let Some(next) = opaque.next_if(|o| o.code < limit) {
                next.raw().encode(out);
            }
        };
        push_opaque_below(AttributeCode::EXTENDED_COMMUNITIES, out);
        let extended = self.extended_communities.iter().map(|c| c.0);
        push_list(
            out,
            AttributeCode::EXTENDED_COMMUNITIES,
            extended,
            &mut value,
        );
        if !four_octet_as {
            self.push_as4(out, &mut value);
        }
        push_opaque_below(AttributeCode::LARGE_COMMUNITIES, out);
        let large = self.large_communities.iter().map(|c| c.octets());
        push_list(out, AttributeCode::LARGE_COMMUNITIES, large, &mut value);
        push_opaque_below(AttributeCode::ONLY_TO_CUSTOMER, out);
        if let Some(asn) = self.only_to_customer {
            push(out, AttributeCode::ONLY_TO_CUSTOMER, &asn.0.to_be_bytes());
        }
        push_opaque_below(AttributeCode::PREFIX_SID, out);
        if let Some(prefix_sid) = &self.prefix_sid {
            push(out, AttributeCode::PREFIX_SID, prefix_sid);
        }
        for rest in opaque {
            rest.raw().encode(out);
        }
    }

    fn push_as4(&self, out: &mut Vec<u8>, value: &mut Vec<u8>) {
        if let Some(path) = &self.as_path {
            let mut path = path.clone();
            path.remove_confederation();
            let fits = path.iter().all(|asn| asn.is_two_octet());
            if !fits {
                value.clear();
                path.encode(true, value);
                push(out, AttributeCode::AS4_PATH, value);
            }
        }
        if let Some(aggregator) = self.aggregator
            && !aggregator.asn.is_two_octet()
        {
            value.clear();
            value.extend_from_slice(&aggregator.asn.0.to_be_bytes());
            value.extend_from_slice(&aggregator.router_id.octets());
            push(out, AttributeCode::AS4_AGGREGATOR, value);
        }
    }
}

/// Appends a known attribute with the flags of its class.
fn push(out: &mut Vec<u8>, code: AttributeCode, value: &[u8]) {
    let flags = code
        .class()
        .map_or(AttributeFlags::OPTIONAL, |class| class.flags());
    RawAttribute { flags, code, value }.encode(out);
}

/// Appends an attribute whose value is a list; none for an empty list.
fn push_list<const N: usize>(
    out: &mut Vec<u8>,
    code: AttributeCode,
    items: impl Iterator<Item = [u8; N]>,
    value: &mut Vec<u8>,
) {
    value.clear();
    items.for_each(|item| value.extend_from_slice(&item));
    if !value.is_empty() {
        push(out, code, value);
    }
}
