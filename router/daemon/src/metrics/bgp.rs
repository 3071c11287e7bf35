// SPDX-License-Identifier: Apache-2.0
//! Sessions and tables of the BGP instances.

use bgp_core::fsm::State;
use bgp_core::peer::PeerSnapshot;
use bgp_io::PeerReport;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Registry};
use router_api::v1alpha1 as api;

use super::catalog::family;
use super::gauge;
use crate::grpc::{bgp_peers, family_names};
use crate::run::Parts;

/// The metrics of all instances.
pub(super) async fn bgp(parts: &Parts, registry: &Registry) -> prometheus::Result<()> {
    let sessions = Sessions::new(registry)?;
    let routes = Routes::new(registry)?;
    let gauges = |name| family(registry, IntGaugeVec::new, name);
    let counters = |name| family(registry, IntCounterVec::new, name);
    let (rib, strangers) = (
        gauges("causeway_bgp_rib")?,
        counters("causeway_bgp_strangers_refused_total")?,
    );
    for instance in parts.speaker.snapshot().await {
        let name = instance.config.name().0.as_str();
        for report in &instance.peers {
            let labels = [name, &*report.session.name.0];
            sessions.fill(&labels, report);
            routes.fill(&labels, report);
        }
        strangers
            .with_label_values(&[name])
            .inc_by(instance.strangers);
        let stats = instance.rib;
        for (what, value) in [
            ("destinations", stats.destinations),
            ("routes", stats.routes),
            ("rejected", stats.rejected),
            ("attribute_sets", stats.attribute_sets),
            ("next_hops", stats.next_hops),
            ("local_routes", stats.local_routes),
            ("update_groups", stats.update_groups),
            ("changes_waiting", stats.changes_waiting),
            ("memory_bytes", stats.memory_bytes),
        ] {
            rib.with_label_values(&[name, what])
                .set(gauge(value as u64));
        }
    }
    cilium(parts, registry).await?;
    let phase = match parts.drain.asked() {
        None => 0,
        Some(asked) if !asked.withdrawn => 1,
        Some(_) => 2,
    };
    gauges("causeway_drain_phase")?
        .with_label_values::<&str>(&[])
        .set(phase);
    Ok(())
}

/// By Cilium's names, for all peers that are configured, run or not.
async fn cilium(parts: &Parts, registry: &Registry) -> prometheus::Result<()> {
    let gauges = |name| family(registry, IntGaugeVec::new, name);
    let state = gauges("cilium_bgp_control_plane_session_state")?;
    let advertised = gauges("cilium_bgp_control_plane_advertised_routes")?;
    let received = gauges("cilium_bgp_control_plane_received_routes")?;
    for one in bgp_peers(parts).await {
        let local = one.local_asn.to_string();
        let asn = one.peer_asn.to_string();
        let neighbor = if one.peer_address.contains(':') {
            format!("[{}]:{}", one.peer_address, one.peer_port)
        } else {
            format!("{}:{}", one.peer_address, one.peer_port)
        };
        let peer = [one.instance.as_str(), &local, &local, &neighbor, &asn];
        let up = one.session_state() == api::SessionState::Established;
        state.with_label_values(&peer).set(i64::from(up));
        for counts in &one.families {
            let [instance, local, vrouter, neighbor, asn] = peer;
            let labels = [
                instance,
                local,
                vrouter,
                neighbor,
                asn,
                &counts.afi,
                &counts.safi,
            ];
            advertised
                .with_label_values(&labels)
                .set(gauge(counts.advertised));
            received
                .with_label_values(&labels)
                .set(gauge(counts.received));
        }
    }
    Ok(())
}

/// What is said of each session.
struct Sessions {
    state: IntGaugeVec,
    up: GaugeVec,
    hold_time: IntGaugeVec,
    established: IntCounterVec,
    flaps: IntCounterVec,
    attempts: IntCounterVec,
    refused: IntCounterVec,
    messages: IntCounterVec,
    bytes: IntCounterVec,
    notifications: IntCounterVec,
    attribute_errors: IntCounterVec,
    graceful_restart: IntGaugeVec,
    queue_bytes: IntGaugeVec,
    queue_destinations: IntGaugeVec,
}

impl Sessions {
    fn new(registry: &Registry) -> prometheus::Result<Sessions> {
        let gauges = |name| family(registry, IntGaugeVec::new, name);
        let counters = |name| family(registry, IntCounterVec::new, name);
        Ok(Sessions {
            state: gauges("causeway_bgp_session_state")?,
            up: family(registry, GaugeVec::new, "causeway_bgp_session_up_seconds")?,
            hold_time: gauges("causeway_bgp_session_hold_time_seconds")?,
            established: counters("causeway_bgp_sessions_established_total")?,
            flaps: counters("causeway_bgp_session_flaps_total")?,
            attempts: counters("causeway_bgp_connect_attempts_total")?,
            refused: counters("causeway_bgp_calls_refused_total")?,
            messages: counters("causeway_bgp_messages_total")?,
            bytes: counters("causeway_bgp_message_bytes_total")?,
            notifications: counters("causeway_bgp_notifications_total")?,
            attribute_errors: counters("causeway_bgp_attribute_errors_total")?,
            graceful_restart: gauges("causeway_bgp_graceful_restart")?,
            queue_bytes: gauges("causeway_bgp_send_queue_bytes")?,
            queue_destinations: gauges("causeway_bgp_send_queue_destinations")?,
        })
    }

    fn fill(&self, peer: &[&str; 2], report: &PeerReport) {
        let session = &report.session;
        let counters = &session.counters;
        let state = match session.state {
            State::Idle => 0,
            State::Connect => 1,
            State::Active => 2,
            State::OpenSent => 3,
            State::OpenConfirm => 4,
            State::Established => 5,
        };
        self.state.with_label_values(peer).set(state);
        let up = session
            .established_at
            .map_or(0.0, |at| at.elapsed().as_secs_f64());
        self.up.with_label_values(peer).set(up);
        let hold = session.timers.hold_s.unwrap_or(0);
        self.hold_time.with_label_values(peer).set(hold.into());
        for (family, count) in [
            (&self.established, counters.established),
            (&self.flaps, counters.flaps),
            (&self.attempts, counters.attempts),
            (&self.refused, counters.calls_refused),
        ] {
            family.with_label_values(peer).inc_by(count);
        }
        self.fill_messages(peer, session);
        for ((attribute, treatment), count) in &counters.attribute_errors {
            let attribute = bgp_wire::AttributeCode(*attribute).to_string();
            let labels = [peer[0], peer[1], &attribute, treatment.name()];
            self.attribute_errors
                .with_label_values(&labels)
                .inc_by(*count);
        }
        let agreed = session.negotiated.as_ref();
        for (mode, is_agreed) in [
            (
                "restart",
                agreed.is_some_and(|n| n.graceful_restart.is_some()),
            ),
            (
                "notification",
                agreed.is_some_and(|n| n.notification_restart),
            ),
            (
                "long-lived",
                agreed.is_some_and(|n| !n.long_lived.is_empty()),
            ),
        ] {
            let labels = [peer[0], peer[1], mode];
            let family = &self.graceful_restart;
            family.with_label_values(&labels).set(i64::from(is_agreed));
        }
        let backlog = report.backlog;
        self.queue_bytes
            .with_label_values(peer)
            .set(gauge(backlog.bytes));
        let destinations = self.queue_destinations.with_label_values(peer);
        destinations.set(gauge(backlog.destinations));
    }

    fn fill_messages(&self, peer: &[&str; 2], session: &PeerSnapshot) {
        let counters = &session.counters;
        let sent = ("sent", &counters.sent, &counters.notifications_sent);
        let received = (
            "received",
            &counters.received,
            &counters.notifications_received,
        );
        for (direction, counts, notifications) in [sent, received] {
            for (kind, count) in [
                ("open", counts.open),
                ("update", counts.update),
                ("notification", counts.notification),
                ("keepalive", counts.keepalive),
                ("route-refresh", counts.route_refresh),
            ] {
                let labels = [peer[0], peer[1], direction, kind];
                self.messages.with_label_values(&labels).inc_by(count);
            }
            let bytes = self.bytes.with_label_values(&[peer[0], peer[1], direction]);
            bytes.inc_by(counts.bytes);
            for ((code, subcode), count) in notifications {
                let (code, subcode) = (code.to_string(), subcode.to_string());
                let labels = [peer[0], peer[1], direction, &code, &subcode];
                self.notifications.with_label_values(&labels).inc_by(*count);
            }
        }
    }
}

/// What is said of each family of a session.
struct Routes {
    accepted: IntGaugeVec,
    rejected: IntGaugeVec,
    stale: IntGaugeVec,
    held: IntGaugeVec,
    sync: GaugeVec,
}

impl Routes {
    fn new(registry: &Registry) -> prometheus::Result<Routes> {
        let gauges = |name| family(registry, IntGaugeVec::new, name);
        Ok(Routes {
            accepted: gauges("causeway_bgp_accepted_routes")?,
            rejected: gauges("causeway_bgp_rejected_routes")?,
            stale: gauges("causeway_bgp_stale_routes")?,
            held: gauges("causeway_bgp_held_routes")?,
            sync: family(registry, GaugeVec::new, "causeway_bgp_initial_sync_seconds")?,
        })
    }

    fn fill(&self, peer: &[&str; 2], report: &PeerReport) {
        for (family, counts) in &report.routes {
            let (afi, safi) = family_names(*family);
            let labels = [peer[0], peer[1], &afi, &safi];
            for (gauges, count) in [
                (&self.accepted, counts.accepted),
                (&self.rejected, counts.rejected),
                (&self.stale, counts.stale),
                (&self.held, counts.held),
            ] {
                gauges.with_label_values(&labels).set(gauge(count));
            }
            if let Some(after) = counts.synced_after {
                self.sync
                    .with_label_values(&labels)
                    .set(after.as_secs_f64());
            }
        }
    }
}
