// SPDX-License-Identifier: Apache-2.0
//! Messages in words, for people and as values to serialise: what `causeway bgp decode` shows.
//!
//! Every structure here serialises to a JSON object with stable camel-case names, and the whole
//! [`Report`] prints as text.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use router_types::{Afi, Family, Safi};
use serde::Serialize;

use crate::context::{AsSetPolicy, FamilyContext, PeerKind, SessionContext};
use crate::fault::Fault;
use crate::frame::{self, Frame};
use crate::message::Message;
use crate::notification::Notification;
use crate::open::{Open, VERSION};
use crate::refresh::{RefreshKind, RouteRefresh};
use crate::update::UpdateView;

mod hex;
mod text;

pub use text::capability_value;
mod update;

pub use hex::{HexError, parse_hex};
pub use update::{AttributeReport, RouteReport, UpdateReport};

/// What a run of bytes holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The messages, in order.
    pub messages: Vec<MessageReport>,
    /// Places that are no message.
    pub problems: Vec<Problem>,
}

/// Bytes that are no message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Where, counted from the first byte.
    pub offset: usize,
    /// What is wrong there.
    pub text: String,
    /// What a speaker would answer; `None` for a message that is merely incomplete.
    pub notification: Option<NotificationReport>,
}

/// One message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageReport {
    /// Where it starts.
    pub offset: usize,
    /// Its length with the header.
    pub length: usize,
    /// What it says.
    #[serde(flatten)]
    pub content: Content,
}

/// What a message says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Content {
    /// An OPEN.
    Open(OpenReport),
    /// An UPDATE.
    Update(UpdateReport),
    /// A NOTIFICATION.
    Notification(NotificationReport),
    /// A KEEPALIVE.
    Keepalive,
    /// A ROUTE-REFRESH.
    RouteRefresh(RefreshReport),
    /// A message that ends the session.
    Malformed {
        /// Its type by the header.
        kind: String,
        /// What a speaker would answer.
        notification: NotificationReport,
    },
}

/// What an OPEN says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenReport {
    /// Protocol version.
    pub version: u8,
    /// The sender's AS.
    pub asn: u32,
    /// Proposed hold time in seconds.
    pub hold_time_seconds: u16,
    /// BGP identifier.
    pub router_id: String,
    /// Capabilities in order.
    pub capabilities: Vec<CapabilityReport>,
}

/// One capability.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CapabilityReport {
    /// Its code.
    pub code: u8,
    /// Its name, `unknown` if it has none.
    pub name: &'static str,
    /// Its value in words, empty if it has none.
    pub value: String,
}

/// Why a session ends.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NotificationReport {
    /// Error code.
    pub code: u8,
    /// Error subcode.
    pub subcode: u8,
    /// Both in words.
    pub name: String,
    /// What it means to an operator.
    pub meaning: &'static str,
    /// The other operator's message.
    pub communication: Option<String>,
    /// What the data says, in words.
    pub detail: Option<String>,
    /// The data in hexadecimal.
    pub data: String,
}

/// What a ROUTE-REFRESH says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RefreshReport {
    /// The family.
    pub family: String,
    /// `request`, `begin`, `end`, or `ignored` for a subtype that is not known.
    pub kind: &'static str,
}

/// One error with its treatment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultReport {
    /// Code of the attribute concerned.
    pub attribute: Option<u8>,
    /// Its name, or `UPDATE`.
    pub name: String,
    /// What was found.
    pub finding: String,
    /// The treatment's name in RFC 7606 §2.
    pub treatment: &'static str,
    /// The rule.
    pub rule: &'static str,
    /// What is sent if the session ends because of it.
    pub notification: Option<NotificationReport>,
}

/// Describes concatenated messages.
///
/// After bytes that are no message it goes on at the next marker. Without a `context`, which an
/// UPDATE needs to be read rightly, each is read with the first guess that leaves the fewest
/// errors, and says which guess that was.
pub fn describe(bytes: &[u8], context: Option<&SessionContext>) -> Report {
    let mut report = Report {
        messages: Vec::new(),
        problems: Vec::new(),
    };
    let mut offset = 0;
    while offset < bytes.len() {
        let rest = &bytes[offset..];
        match frame::next(rest, frame::MAX_EXTENDED_LEN) {
            Ok(Some(frame)) => {
                let content = content(&frame, context);
                report.messages.push(MessageReport {
                    offset,
                    length: frame.len,
                    content,
                });
                offset += frame.len;
                continue;
            }
            Ok(None) => {
                let text = incomplete(rest);
                report.problems.push(Problem {
                    offset,
                    text,
                    notification: None,
                });
            }
            Err(notification) => report.problems.push(Problem {
                offset,
                text: notification.kind.to_string(),
                notification: Some(notification_report(&notification)),
            }),
        }
        match next_marker(bytes, offset + 1) {
            Some(next) => offset = next,
            None => break,
        }
    }
    report
}

fn content(frame: &Frame<'_>, context: Option<&SessionContext>) -> Content {
    match Message::decode(frame) {
        Ok(Message::Open(open)) => Content::Open(open_report(&open)),
        Ok(Message::Update(view)) => Content::Update(best_update(&view, context)),
        Ok(Message::Notification(n)) => Content::Notification(notification_report(&n)),
        Ok(Message::Keepalive) => Content::Keepalive,
        Ok(Message::RouteRefresh(refresh)) => {
            Content::RouteRefresh(refresh_report(refresh, frame.body))
        }
        Err(notification) => Content::Malformed {
            kind: frame.kind.to_string(),
            notification: notification_report(&notification),
        },
    }
}

fn best_update(view: &UpdateView<'_>, context: Option<&SessionContext>) -> UpdateReport {
    if let Some(context) = context {
        return update::report(view, context, None);
    }
    let mut best: Option<UpdateReport> = None;
    for (four_octet_as, add_path, guess) in [
        (true, false, "four-octet AS numbers, no path identifiers"),
        (false, false, "two-octet AS numbers, no path identifiers"),
        (true, true, "four-octet AS numbers, path identifiers"),
        (false, true, "two-octet AS numbers, path identifiers"),
    ] {
        let report = update::report(view, &guessed(four_octet_as, add_path), Some(guess));
        if best.as_ref().is_none_or(|b| report.severity < b.severity) {
            best = Some(report);
        }
        if best.as_ref().is_some_and(|b| b.severity == 0) {
            break;
        }
    }
    best.unwrap_or_else(|| update::report(view, &guessed(true, false), None))
}

/// A session between the same AS, on which every attribute may come, with all families whose
/// prefixes can be read.
fn guessed(four_octet_as: bool, add_path: bool) -> SessionContext {
    let families = [Afi::IPV4, Afi::IPV6].into_iter().flat_map(|afi| {
        [Safi::UNICAST, Safi::MULTICAST].map(|safi| FamilyContext {
            family: Family { afi, safi },
            add_path_receive: add_path,
            add_path_send: add_path,
            extended_next_hop: true,
        })
    });
    SessionContext {
        peer: PeerKind::Internal,
        four_octet_as,
        extended_messages: true,
        as_sets: AsSetPolicy::Withdraw,
        families: families.collect(),
    }
}

fn open_report(open: &Open) -> OpenReport {
    let capabilities = open.capabilities.iter().map(|capability| CapabilityReport {
        code: capability.code(),
        name: crate::Capability::name_of(capability.code()).unwrap_or("unknown"),
        value: text::capability_value(capability),
    });
    OpenReport {
        version: VERSION,
        asn: open.asn.0,
        hold_time_seconds: open.hold_time_s,
        router_id: open.router_id.to_string(),
        capabilities: capabilities.collect(),
    }
}

fn notification_report(notification: &Notification) -> NotificationReport {
    NotificationReport {
        code: notification.kind.code,
        subcode: notification.kind.subcode,
        name: notification.kind.to_string(),
        meaning: notification.kind.meaning(),
        communication: notification.communication(),
        detail: notification.detail(),
        data: hex::write(&notification.data),
    }
}

fn refresh_report(refresh: Option<RouteRefresh>, body: &[u8]) -> RefreshReport {
    match refresh {
        Some(RouteRefresh { family, kind }) => RefreshReport {
            family: family.to_string(),
            kind: match kind {
                RefreshKind::Request => "request",
                RefreshKind::Begin => "begin",
                RefreshKind::End => "end",
            },
        },
        None => {
            let family = match body {
                &[high, low, _, safi, ..] => {
                    let afi = Afi(u16::from_be_bytes([high, low]));
                    Family {
                        afi,
                        safi: Safi(safi),
                    }
                    .to_string()
                }
                _ => String::new(),
            };
            RefreshReport {
                family,
                kind: "ignored",
            }
        }
    }
}

fn fault_report(fault: &Fault) -> FaultReport {
    FaultReport {
        attribute: fault.attribute.map(|code| code.0),
        name: fault
            .attribute
            .map_or_else(|| "UPDATE".to_owned(), |code| code.to_string()),
        finding: fault.finding.to_string(),
        treatment: fault.treatment.name(),
        rule: fault.rule,
        notification: fault.treatment.notification().map(notification_report),
    }
}

fn incomplete(rest: &[u8]) -> String {
    match rest.get(16..18) {
        Some(&[high, low]) => {
            let len = u16::from_be_bytes([high, low]);
            format!("incomplete: {} of {len} octets", rest.len())
        }
        _ => format!("incomplete header: {} octets", rest.len()),
    }
}

fn next_marker(bytes: &[u8], from: usize) -> Option<usize> {
    let found = bytes
        .get(from..)?
        .windows(16)
        .position(|w| w.iter().all(|&b| b == 0xff))?;
    Some(from + found)
}
