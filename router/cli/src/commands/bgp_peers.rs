// SPDX-License-Identifier: Apache-2.0
//! `causeway bgp peers`: the columns of `cilium bgp peers`, a line for each family.

use router_api::Connection;
use router_api::v1alpha1::{
    BgpPeer, Capability, ListPeersRequest, ListPeersResponse, MessageCounters, NotificationRecord,
    SessionState,
};
use serde_json::{Map, Value, json};

use crate::args::PeerArgs;
use crate::failure::Failure;
use crate::output::{Cell, Column, Item, Listing, Tone, View, go_duration, rfc3339};

const COLUMNS: [Column; 13] = [
    Column::new("Node"),
    Column::new("Local AS"),
    Column::new("Peer AS"),
    Column::new("Peer Address"),
    Column::new("Session State"),
    Column::new("Uptime"),
    Column::new("Family"),
    Column::new("Received"),
    Column::new("Advertised"),
    Column::new("Accepted").wide(),
    Column::new("Instance").wide(),
    Column::new("Name").wide(),
    Column::new("Reason").wide().prose(),
];

pub(crate) async fn fetch(connection: &Connection, args: &PeerArgs) -> Result<View, Failure> {
    let request = ListPeersRequest {
        instance: args.instance.clone().unwrap_or_default(),
        peer: String::new(),
    };
    let answer = connection.bgp().list_peers(request).await;
    let answer = answer.map_err(|s| Failure::from_status("cannot list the peers", &s))?;
    Ok(view(&answer.into_inner()))
}

/// The listing of an answer.
pub fn view(answer: &ListPeersResponse) -> View {
    let down = answer.peers.iter().filter(|p| !p.down_reason.is_empty());
    let notes = down.map(|peer| {
        let hint = match peer.down_hint.as_str() {
            "" => String::new(),
            hint => format!(": {hint}"),
        };
        format!(
            "{}/{} is {}: {}{hint} (see `causeway bgp neighbor {}`)",
            peer.instance,
            peer.name,
            state_word(peer.session_state()),
            peer.down_reason,
            peer.name,
        )
    });
    let mut fields = Map::new();
    fields.insert("node".to_owned(), answer.node.clone().into());
    Listing {
        kind: "BGPPeerList",
        fields,
        columns: COLUMNS.to_vec(),
        items: answer
            .peers
            .iter()
            .map(|peer| item(&answer.node, peer))
            .collect(),
        empty: "no BGP peers are configured for this node (see `causeway resources`)".to_owned(),
        notes: notes.collect(),
    }
    .into()
}

fn item(node: &str, peer: &BgpPeer) -> Item {
    let state = Cell::toned(
        state_tone(peer.session_state()),
        state_word(peer.session_state()),
    );
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    for family in &peer.families {
        // The session stands in the first of its lines only.
        let mut row = if rows.is_empty() {
            session_cells(node, peer, state.clone())
        } else {
            vec![Cell::default(); 6]
        };
        row.extend([
            format!("{}/{}", family.afi, family.safi).into(),
            family.received.into(),
            family.advertised.into(),
            family.accepted.into(),
        ]);
        row.extend(name_cells(peer, rows.is_empty()));
        rows.push(row);
    }
    if rows.is_empty() {
        let mut row = session_cells(node, peer, state);
        row.extend(vec![Cell::default(); 4]);
        row.extend(name_cells(peer, true));
        rows.push(row);
    }
    Item {
        name: format!("{}/{}", peer.instance, peer.name),
        json: peer_json(peer),
        rows,
    }
}

fn session_cells(node: &str, peer: &BgpPeer, state: Cell) -> Vec<Cell> {
    vec![
        node.into(),
        peer.local_asn.into(),
        peer.peer_asn.into(),
        peer.peer_address.as_str().into(),
        state,
        go_duration(peer.uptime_ns).into(),
    ]
}

fn name_cells(peer: &BgpPeer, first: bool) -> Vec<Cell> {
    match first {
        true => vec![
            peer.instance.as_str().into(),
            peer.name.as_str().into(),
            peer.down_reason.as_str().into(),
        ],
        false => vec![Cell::default(); 3],
    }
}

/// RFC 4271's state as `cilium bgp peers` spells it.
pub(crate) fn state_word(state: SessionState) -> &'static str {
    match state {
        SessionState::Unspecified => "unknown",
        SessionState::Idle => "idle",
        SessionState::Connect => "connect",
        SessionState::Active => "active",
        SessionState::OpenSent => "open_sent",
        SessionState::OpenConfirm => "open_confirm",
        SessionState::Established => "established",
    }
}

pub(crate) fn state_tone(state: SessionState) -> Tone {
    match state {
        SessionState::Established => Tone::Good,
        SessionState::Idle | SessionState::Unspecified => Tone::Bad,
        SessionState::Connect
        | SessionState::Active
        | SessionState::OpenSent
        | SessionState::OpenConfirm => Tone::Notice,
    }
}

/// The fields of Cilium's `BgpPeer` under their names, then ours in the same style.
pub(crate) fn peer_json(peer: &BgpPeer) -> Value {
    let timers = peer.timers.unwrap_or_default();
    let restart = peer.graceful_restart.clone().unwrap_or_default();
    let families = peer.families.iter().map(|f| {
        json!({
            "afi": f.afi, "safi": f.safi,
            "received": f.received, "accepted": f.accepted, "advertised": f.advertised,
            "held": f.held, "export-limit": f.export_limit, "import-limit": f.import_limit,
            "negotiated": f.negotiated, "end-of-rib-received": f.end_of_rib_received,
            "import-policy": f.import_policy,
        })
    });
    let history = peer.history.iter().map(|change| {
        json!({
            "time": rfc3339(change.at_unix_ns),
            "from": state_word(change.from()),
            "to": state_word(change.to()),
            "reason": change.reason,
        })
    });
    let attribute_errors = peer
        .attribute_errors
        .iter()
        .map(|e| json!({"attribute": e.attribute, "treatment": e.treatment, "count": e.count}));
    json!({
        "local-asn": peer.local_asn,
        "peer-asn": peer.peer_asn,
        "peer-address": peer.peer_address,
        "peer-port": peer.peer_port,
        "session-state": state_word(peer.session_state()),
        "uptime-nanoseconds": peer.uptime_ns,
        "families": families.collect::<Vec<_>>(),
        "connect-retry-time-seconds": timers.connect_retry_s,
        "configured-hold-time-seconds": timers.configured_hold_s,
        "configured-keep-alive-time-seconds": timers.configured_keepalive_s,
        "applied-hold-time-seconds": timers.applied_hold_s,
        "applied-keep-alive-time-seconds": timers.applied_keepalive_s,
        "ebgp-multihop-ttl": peer.ttl,
        "tcp-password-enabled": peer.md5,
        "graceful-restart": {
            "enabled": restart.enabled,
            "restart-time-seconds": restart.restart_time_s,
            "peer-enabled": restart.peer_enabled,
            "peer-restart-time-seconds": restart.peer_restart_time_s,
            "note": restart.note,
        },
        "local-capabilities": capabilities_json(&peer.local_capabilities),
        "remote-capabilities": capabilities_json(&peer.remote_capabilities),
        "instance": peer.instance,
        "name": peer.name,
        "configured-peer-asn": peer.configured_peer_asn,
        "state-since": rfc3339(peer.state_since_unix_ns),
        "down-reason": peer.down_reason,
        "down-hint": peer.down_hint,
        "local-endpoint": peer.local_endpoint,
        "local-router-id": peer.local_router_id,
        "peer-router-id": peer.peer_router_id,
        "interface": peer.interface,
        "connect-mode": peer.connect_mode,
        "established-count": peer.established_count,
        "sent": counters_json(peer.sent.as_ref()),
        "received": counters_json(peer.received.as_ref()),
        "last-notification-sent": notification_json(peer.last_notification_sent.as_ref()),
        "last-notification-received": notification_json(peer.last_notification_received.as_ref()),
        "attribute-errors": attribute_errors.collect::<Vec<_>>(),
        "history": history.collect::<Vec<_>>(),
    })
}

fn capabilities_json(capabilities: &[Capability]) -> Value {
    let one = |c: &Capability| json!({"code": c.code, "name": c.name, "value": c.value});
    capabilities.iter().map(one).collect()
}

fn counters_json(counters: Option<&MessageCounters>) -> Value {
    let c = counters.copied().unwrap_or_default();
    json!({
        "open": c.open, "update": c.update, "notification": c.notification,
        "keepalive": c.keepalive, "route-refresh": c.route_refresh, "bytes": c.bytes,
    })
}

fn notification_json(notification: Option<&NotificationRecord>) -> Value {
    notification.map_or(Value::Null, |n| {
        json!({
            "code": n.code, "subcode": n.subcode, "name": n.name, "text": n.text,
            "data": hex(&n.data), "time": rfc3339(n.at_unix_ns),
        })
    })
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
