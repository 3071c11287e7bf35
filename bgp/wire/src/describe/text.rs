// SPDX-License-Identifier: Apache-2.0
//! Reports as lines of text.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::{Content, FaultReport, MessageReport, NotificationReport, Report, UpdateReport, hex};
use crate::capability::Capability;

impl fmt::Display for Report {
    /// Messages and problems by offset, a line each with details indented.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut problems = self.problems.iter().peekable();
        for message in &self.messages {
            while let Some(problem) = problems.next_if(|p| p.offset < message.offset) {
                writeln!(f, "{:>6}  no message: {}", problem.offset, problem.text)?;
            }
            write!(f, "{message}")?;
        }
        for problem in problems {
            writeln!(f, "{:>6}  no message: {}", problem.offset, problem.text)?;
            if let Some(notification) = &problem.notification {
                writeln!(f, "        {}", notification.meaning)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for MessageReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6}  ", self.offset)?;
        match &self.content {
            Content::Open(open) => {
                writeln!(
                    f,
                    "OPEN version {} AS {} hold time {} s router ID {}",
                    open.version, open.asn, open.hold_time_seconds, open.router_id
                )?;
                for c in &open.capabilities {
                    let line = format!("capability {} ({}) {}", c.name, c.code, c.value);
                    writeln!(f, "        {}", line.trim_end())?;
                }
                Ok(())
            }
            Content::Update(update) => write_update(f, update),
            Content::Notification(n) => {
                write!(f, "NOTIFICATION ")?;
                write_notification(f, n)
            }
            Content::Keepalive => writeln!(f, "KEEPALIVE"),
            Content::RouteRefresh(r) => writeln!(f, "ROUTE-REFRESH {} {}", r.kind, r.family),
            Content::Malformed { kind, notification } => {
                write!(f, "malformed {kind}, answered with ")?;
                write_notification(f, notification)
            }
        }
    }
}

impl fmt::Display for FaultReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} -> {} ({})",
            self.name, self.finding, self.treatment, self.rule
        )
    }
}

/// The value of a capability in words.
pub fn capability_value(capability: &Capability) -> String {
    match capability {
        Capability::Multiprotocol(family) => family.to_string(),
        Capability::RouteRefresh
        | Capability::ExtendedMessages
        | Capability::EnhancedRouteRefresh => String::new(),
        Capability::ExtendedNextHop(list) => join(
            list.iter()
                .map(|e| format!("{} by AFI {}", e.family, e.next_hop.0)),
        ),
        Capability::Role(role) => role.to_string(),
        Capability::GracefulRestart(value) => {
            let mut words = Vec::new();
            words.push(format!("{} s", value.restart_time_s));
            if value.restarted {
                words.push("restarted".to_string());
            }
            if value.notification {
                words.push("notification".to_string());
            }
            words.extend(value.families.iter().map(|f| {
                let kept = if f.forwarding_preserved {
                    " forwarding preserved"
                } else {
                    ""
                };
                format!("{}{kept}", f.family)
            }));
            join(words.into_iter())
        }
        Capability::FourOctetAs(asn) => asn.to_string(),
        Capability::AddPath(list) => join(list.iter().map(|e| {
            let mode = match (e.receive, e.send) {
                (true, true) => "both",
                (true, false) => "receive",
                (false, true) => "send",
                (false, false) => "none",
            };
            format!("{} {mode}", e.family)
        })),
        Capability::LongLivedGracefulRestart(list) => join(list.iter().map(|e| {
            let kept = if e.forwarding_preserved {
                " forwarding preserved"
            } else {
                ""
            };
            format!("{} {} s{kept}", e.family, e.stale_time_s)
        })),
        Capability::Fqdn { host, domain } if domain.is_empty() => printable(host),
        Capability::Fqdn { host, domain } => {
            format!("{}.{}", printable(host), printable(domain))
        }
        Capability::SoftwareVersion(version) => printable(version),
        Capability::Unknown { data, .. } => hex::write(data),
    }
}

fn write_update(f: &mut fmt::Formatter<'_>, update: &UpdateReport) -> fmt::Result {
    match &update.end_of_rib {
        Some(family) => writeln!(f, "UPDATE End-of-RIB {family}")?,
        None => writeln!(
            f,
            "UPDATE {} announced, {} withdrawn",
            update.announced.len(),
            update.withdrawn.len()
        )?,
    }
    if let Some(assumed) = update.assumed {
        writeln!(f, "        read with {assumed}")?;
    }
    for prefix in &update.withdrawn {
        writeln!(f, "        withdrawn {prefix}")?;
    }
    for route in &update.announced {
        match &route.next_hop {
            Some(next_hop) => writeln!(f, "        announced {} via {next_hop}", route.prefix)?,
            None => writeln!(f, "        announced {}", route.prefix)?,
        }
    }
    for a in &update.attributes {
        let line = format!("{} ({}) {}: {}", a.name, a.code, a.flags, a.value);
        writeln!(f, "        {}", line.trim_end_matches([':', ' ']))?;
    }
    for fault in &update.faults {
        writeln!(f, "        ! {fault}")?;
        if let Some(notification) = &fault.notification {
            writeln!(f, "          would send {}", notification.name)?;
        }
    }
    Ok(())
}

fn write_notification(f: &mut fmt::Formatter<'_>, n: &NotificationReport) -> fmt::Result {
    writeln!(f, "{}", n.name)?;
    writeln!(f, "        {}", n.meaning)?;
    if let Some(text) = &n.communication {
        writeln!(f, "        message: \"{text}\"")?;
    } else if let Some(detail) = &n.detail {
        writeln!(f, "        {detail}")?;
    } else if !n.data.is_empty() {
        writeln!(f, "        data {}", n.data)?;
    }
    Ok(())
}

fn join(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(", ")
}

/// A peer's text without control characters.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}
