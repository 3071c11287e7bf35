// SPDX-License-Identifier: Apache-2.0
//! An UPDATE in words.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::Serialize;

use super::{FaultReport, fault_report, hex};
use crate::as_path::AsPath;
use crate::attribute::{AttributeCode, AttributeFlags, RawAttribute, RawAttributes};
use crate::context::SessionContext;
use crate::fault::Fault;
use crate::nlri::Nlri;
use crate::path::{DecodedAttributes, PathAttributes};
use crate::update::{Update, UpdateView};

/// What an UPDATE says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateReport {
    /// How it was read, where that had to be guessed.
    pub assumed: Option<&'static str>,
    /// The family whose End-of-RIB it is.
    pub end_of_rib: Option<String>,
    /// Prefixes no longer reachable.
    pub withdrawn: Vec<String>,
    /// Prefixes announced.
    pub announced: Vec<RouteReport>,
    /// All attributes as they stand in the message.
    pub attributes: Vec<AttributeReport>,
    /// What is wrong, and what is done about it.
    pub faults: Vec<FaultReport>,
    /// What is done on the whole; `None` if the message is accepted as it is.
    pub treatment: Option<&'static str>,
    /// Weight of the faults, to compare guesses.
    #[serde(skip)]
    pub(super) severity: usize,
}

/// One announced prefix.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteReport {
    /// The prefix, with its path identifier if it has one.
    pub prefix: String,
    /// Where it leads, if the message says so.
    pub next_hop: Option<String>,
}

/// One attribute as it stands in the message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AttributeReport {
    /// Its code.
    pub code: u8,
    /// Its name.
    pub name: String,
    /// Its flags in words.
    pub flags: String,
    /// Octets of the value.
    pub length: usize,
    /// The value in words, in hexadecimal where it cannot be read.
    pub value: String,
}

pub(super) fn report(
    view: &UpdateView<'_>,
    context: &SessionContext,
    assumed: Option<&'static str>,
) -> UpdateReport {
    let mut canonical = Vec::new();
    let update = Update::parse(view, context, &mut canonical);
    let decoded = PathAttributes::decode(&canonical, context);
    let faults = update.faults(&decoded);
    let strongest = Fault::strongest(&faults);
    let withdrawn = [Some(update.withdrawn), update.mp_withdrawn]
        .into_iter()
        .flatten()
        .flat_map(texts);
    let next_hop = update.next_hop.map(|a| a.to_string());
    let mut announced = routes(update.announced, next_hop);
    if let Some(mp) = update.mp_announced {
        announced.extend(routes(mp.nlri, Some(mp.next_hop.to_string())));
    }
    let attributes = RawAttributes::new(view.attributes).flatten();
    UpdateReport {
        assumed: assumed.filter(|_| !view.attributes.is_empty()),
        end_of_rib: update.end_of_rib().map(|f| f.to_string()),
        withdrawn: withdrawn.collect(),
        announced,
        attributes: attributes
            .map(|raw| attribute_report(&raw, &update, context))
            .collect(),
        treatment: strongest.map(|t| t.name()),
        severity: faults
            .iter()
            .map(|f| 1 << (8 * f.treatment.severity()))
            .sum(),
        faults: faults.iter().map(fault_report).collect(),
    }
}

fn routes(nlri: Nlri<'_>, next_hop: Option<String>) -> Vec<RouteReport> {
    let report = |prefix: String| RouteReport {
        prefix,
        next_hop: next_hop.clone(),
    };
    texts(nlri).into_iter().map(report).collect()
}

/// Each destination with its label and path identifier, where it has them.
fn texts(nlri: Nlri<'_>) -> Vec<String> {
    let mut labels = nlri.vpn().map(|entry| entry.label);
    nlri.destinations()
        .map(|(path_id, destination)| {
            let mut text = destination.to_string();
            if let Some(label) = labels.next() {
                text += &format!(" label {label}");
            }
            if let Some(id) = path_id {
                text += &format!(" path {id}");
            }
            text
        })
        .collect()
}

fn attribute_report(
    raw: &RawAttribute<'_>,
    update: &Update<'_>,
    context: &SessionContext,
) -> AttributeReport {
    let value = match raw.code {
        AttributeCode::NEXT_HOP => <[u8; 4]>::try_from(raw.value)
            .ok()
            .map(|octets| core::net::Ipv4Addr::from(octets).to_string()),
        AttributeCode::MP_REACH_NLRI => update
            .mp_announced
            .map(|mp| format!("{}, {} prefixes", mp.nlri.family(), mp.nlri.count())),
        AttributeCode::MP_UNREACH_NLRI => update
            .mp_withdrawn
            .map(|nlri| format!("{}, {} prefixes", nlri.family(), nlri.count())),
        // Paths are told also where their contents are objected to.
        AttributeCode::AS_PATH => as_path(raw.value, context.four_octet_as),
        AttributeCode::AS4_PATH => as_path(raw.value, true),
        AttributeCode::AS4_AGGREGATOR => <[u8; 8]>::try_from(raw.value).ok().map(|octets| {
            let [a, b, c, d, id @ ..] = octets;
            format!(
                "AS {} {}",
                u32::from_be_bytes([a, b, c, d]),
                core::net::Ipv4Addr::from(id)
            )
        }),
        _ => alone(raw, context),
    };
    AttributeReport {
        code: raw.code.0,
        name: raw.code.to_string(),
        flags: flags(raw.flags),
        length: raw.value.len(),
        value: value.unwrap_or_else(|| hex::write(raw.value)),
    }
}

fn as_path(value: &[u8], four_octet_as: bool) -> Option<String> {
    AsPath::decode(value, four_octet_as)
        .ok()
        .map(|path| path.to_string())
}

/// The value of an attribute read by itself; `None` if it is not readable or not known.
fn alone(raw: &RawAttribute<'_>, context: &SessionContext) -> Option<String> {
    let mut bytes = Vec::new();
    raw.encode(&mut bytes);
    let DecodedAttributes {
        attributes: a,
        faults,
    } = PathAttributes::decode(&bytes, context);
    if !faults.is_empty() {
        return None;
    }
    match raw.code {
        AttributeCode::ORIGIN => a.origin.map(|o| o.to_string()),
        AttributeCode::MULTI_EXIT_DISC => a.med.map(|n| n.to_string()),
        AttributeCode::LOCAL_PREF => a.local_pref.map(|n| n.to_string()),
        AttributeCode::ATOMIC_AGGREGATE => Some(String::new()),
        AttributeCode::AGGREGATOR => a
            .aggregator
            .map(|a| format!("AS {} {}", a.asn, a.router_id)),
        AttributeCode::COMMUNITIES => Some(words(&a.communities)),
        AttributeCode::ORIGINATOR_ID => a.originator_id.map(|id| id.to_string()),
        AttributeCode::CLUSTER_LIST => Some(words(&a.cluster_list)),
        AttributeCode::EXTENDED_COMMUNITIES => Some(words(&a.extended_communities)),
        AttributeCode::LARGE_COMMUNITIES => Some(words(&a.large_communities)),
        AttributeCode::ONLY_TO_CUSTOMER => a.only_to_customer.map(|asn| format!("AS {asn}")),
        _ => None,
    }
}

fn words<T: ToString>(items: &[T]) -> String {
    let list: Vec<String> = items.iter().map(T::to_string).collect();
    list.join(" ")
}

fn flags(flags: AttributeFlags) -> String {
    let mut list = Vec::new();
    list.push(if flags.contains(AttributeFlags::OPTIONAL) {
        "optional"
    } else {
        "well-known"
    });
    if flags.contains(AttributeFlags::TRANSITIVE) {
        list.push("transitive");
    }
    if flags.contains(AttributeFlags::PARTIAL) {
        list.push("partial");
    }
    list.join(" ")
}
