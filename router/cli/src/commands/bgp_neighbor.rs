// SPDX-License-Identifier: Apache-2.0
//! `causeway bgp neighbor`: one session in full.

use router_api::Connection;
use router_api::v1alpha1::{
    BgpPeer, Capability, ListPeersRequest, MessageCounters, NotificationRecord, SessionState,
};
use tonic::Code;

use super::bgp_peers::{hex, peer_json, state_tone, state_word};
use crate::args::NeighborArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Cell, Page, View, age, go_duration};
use crate::suggest::nearest;

/// Changes of state in the table; a session that flaps has many.
const HISTORY_SHOWN: usize = 10;

pub(crate) async fn fetch(
    connection: &Connection,
    args: &NeighborArgs,
    now_unix_ns: i64,
) -> Result<View, Failure> {
    let peer = find(connection, &args.peer).await?;
    Ok(view(&peer, now_unix_ns))
}

/// The one peer that `name` means: its name, `instance/name`, or its address.
///
/// The whole list is asked for, so that a name which is not there can be answered by a near one.
pub(crate) async fn find(connection: &Connection, name: &str) -> Result<BgpPeer, Failure> {
    let answer = connection
        .bgp()
        .list_peers(ListPeersRequest::default())
        .await;
    let answer = answer.map_err(|s| match s.code() {
        Code::NotFound => no_such_peer(name, &[]),
        _ => Failure::from_status("cannot list the peers", &s),
    })?;
    let mut peers = answer.into_inner().peers;
    let is_meant = |peer: &BgpPeer| {
        peer.name == name
            || peer.peer_address == name
            || name.split_once('/') == Some((&peer.instance, &peer.name))
    };
    let meant: Vec<usize> = peers
        .iter()
        .enumerate()
        .filter(|(_, p)| is_meant(p))
        .map(|(index, _)| index)
        .collect();
    match meant[..] {
        [index] => Ok(peers.swap_remove(index)),
        [] => Err(no_such_peer(name, &peers)),
        _ => {
            let names = meant
                .iter()
                .map(|&i| format!("{}/{}", peers[i].instance, peers[i].name));
            Err(
                Failure::usage(format!("several peers are called {name}")).fix(format!(
                    "write one of {}",
                    names.collect::<Vec<_>>().join(", ")
                )),
            )
        }
    }
}

fn no_such_peer(name: &str, peers: &[BgpPeer]) -> Failure {
    let known = peers
        .iter()
        .flat_map(|p| [p.name.as_str(), p.peer_address.as_str()]);
    let fix = match nearest(name, known) {
        Some(near) => format!("did you mean {near}? `causeway bgp peers` lists all"),
        None => "`causeway bgp peers -o wide` lists the names".to_owned(),
    };
    Failure::new("CW0002", Exit::NotFound, format!("no BGP peer {name}")).fix(fix)
}

/// The page of a peer.
pub fn view(peer: &BgpPeer, now_unix_ns: i64) -> View {
    let mut page = Page::new("BGPPeer", format!("{}/{}", peer.instance, peer.name));
    page.set_json(peer_json(peer));
    page.lines.push(vec![
        Cell::strong(format!("Peer {}/{} ", peer.instance, peer.name)),
        Cell::plain(format!("at {}: ", peer.peer_address)),
        Cell::toned(
            state_tone(peer.session_state()),
            state_word(peer.session_state()),
        ),
        Cell::plain(format!(
            " for {}",
            age(peer.state_since_unix_ns, now_unix_ns)
        )),
    ]);
    page.field(
        "why",
        Cell::toned(state_tone(peer.session_state()), peer.down_reason.as_str()),
    );
    page.field("what to do", peer.down_hint.as_str());
    session(&mut page, peer);
    families(&mut page, peer);
    page.heading("Capabilities");
    capabilities(&mut page, "sent", &peer.local_capabilities);
    capabilities(&mut page, "received", &peer.remote_capabilities);
    page.heading("Messages");
    counters(
        &mut page,
        peer.sent.unwrap_or_default(),
        peer.received.unwrap_or_default(),
    );
    for e in &peer.attribute_errors {
        page.field(
            "malformed attribute",
            format!("{}: {}, {}", e.attribute, e.count, e.treatment),
        );
    }
    page.heading("Notifications");
    let notifications = [
        ("last sent", &peer.last_notification_sent),
        ("last received", &peer.last_notification_received),
    ];
    for (label, notification) in notifications {
        match notification {
            Some(n) => page.field(label, notification_text(n, now_unix_ns)),
            None => page.field(label, "none"),
        }
    }
    history(&mut page, peer, now_unix_ns);
    page.into()
}

fn session(page: &mut Page, peer: &BgpPeer) {
    page.heading("Session");
    let peer_asn = match (peer.peer_asn, peer.configured_peer_asn) {
        (0, 0) => "any (none seen yet)".to_owned(),
        (seen, 0) => format!("{seen} (any is taken)"),
        (seen, configured) if seen != configured => format!("{seen} (configured: {configured})"),
        (seen, _) => seen.to_string(),
    };
    page.field("local AS", peer.local_asn);
    page.field("peer AS", peer_asn);
    if peer.session_state() == SessionState::Established {
        page.field("up for", go_duration(peer.uptime_ns));
    }
    page.field("times established", peer.established_count);
    page.field("local end", peer.local_endpoint.as_str());
    page.field(
        "peer end",
        format!("{} port {}", peer.peer_address, peer.peer_port),
    );
    page.field("interface", peer.interface.as_str());
    page.field("local router id", peer.local_router_id.as_str());
    page.field("peer router id", peer.peer_router_id.as_str());
    page.field("connects", peer.connect_mode.as_str());
    page.field("TTL", peer.ttl);
    page.field("TCP MD5 password", if peer.md5 { "set" } else { "none" });
    let timers = peer.timers.unwrap_or_default();
    let timer = |configured: u32, applied: u32| match applied {
        0 => format!("{configured}s configured"),
        _ => format!("{applied}s ({configured}s configured)"),
    };
    page.field(
        "hold time",
        timer(timers.configured_hold_s, timers.applied_hold_s),
    );
    page.field(
        "keepalive",
        timer(timers.configured_keepalive_s, timers.applied_keepalive_s),
    );
    page.field("connect retry", format!("{}s", timers.connect_retry_s));
    if let Some(restart) = &peer.graceful_restart {
        let side = |on: bool, seconds: u32| match on {
            true => format!("{seconds}s"),
            false => "off".to_owned(),
        };
        let ours = side(restart.enabled, restart.restart_time_s);
        let theirs = side(restart.peer_enabled, restart.peer_restart_time_s);
        page.field(
            "graceful restart",
            format!("ours {ours}, the peer's {theirs}"),
        );
        page.field("", restart.note.as_str());
    }
}

fn families(page: &mut Page, peer: &BgpPeer) {
    page.heading("Families");
    for f in &peer.families {
        let offered = if f.negotiated { "" } else { ", not negotiated" };
        let end = match f.negotiated && f.end_of_rib_received {
            true => ", end-of-rib received",
            false => "",
        };
        page.field(
            &format!("{}/{}", f.afi, f.safi),
            format!(
                "received {}, accepted {}, advertised {}{offered}{end}",
                f.received, f.accepted, f.advertised
            ),
        );
        let limit = match f.import_limit {
            0 => String::new(),
            limit => format!(", at most {limit} routes"),
        };
        page.field("", format!("import: {}{limit}", f.import_policy));
        match (f.export_limit, f.held) {
            (0, _) => {}
            (limit, 0) => page.field("", format!("export: at most {limit} routes")),
            (limit, held) => page.field(
                "",
                format!("export: at most {limit} routes, {held} more wait"),
            ),
        }
    }
}

fn capabilities(page: &mut Page, label: &str, capabilities: &[Capability]) {
    let texts = capabilities.iter().map(|c| match c.value.as_str() {
        "" => c.name.clone(),
        value => format!("{} {value}", c.name),
    });
    let text = texts.collect::<Vec<_>>().join(", ");
    page.field(
        label,
        if text.is_empty() {
            "none".to_owned()
        } else {
            text
        },
    );
}

fn counters(page: &mut Page, sent: MessageCounters, received: MessageCounters) {
    let line = |c: MessageCounters| {
        format!(
            "open {}, update {}, keepalive {}, notification {}, route-refresh {}; {} bytes",
            c.open, c.update, c.keepalive, c.notification, c.route_refresh, c.bytes
        )
    };
    page.field("sent", line(sent));
    page.field("received", line(received));
}

/// The latest changes of state; the older ones in `-o wide`.
fn history(page: &mut Page, peer: &BgpPeer, now_unix_ns: i64) {
    if peer.history.is_empty() {
        return;
    }
    page.heading("History");
    for change in &peer.history {
        let (from, to) = (state_word(change.from()), state_word(change.to()));
        page.field(
            &format!("{} ago", age(change.at_unix_ns, now_unix_ns)),
            format!("{from} -> {to}: {}", change.reason),
        );
    }
    let older = peer.history.len().saturating_sub(HISTORY_SHOWN);
    page.wide_lines = page.lines.split_off(page.lines.len() - older);
    if older > 0 {
        page.notes
            .push(format!("{older} older changes of state are in -o wide"));
    }
}

fn notification_text(n: &NotificationRecord, now_unix_ns: i64) -> String {
    let mut text = format!("{} ({}/{})", n.name, n.code, n.subcode);
    if n.at_unix_ns != 0 {
        text.push_str(&format!(", {} ago", age(n.at_unix_ns, now_unix_ns)));
    }
    if !n.text.is_empty() {
        text.push_str(&format!(": {}", n.text));
    }
    if !n.data.is_empty() {
        text.push_str(&format!(" [data {}]", hex(&n.data)));
    }
    text
}
