// SPDX-License-Identifier: Apache-2.0
//! What BFD sessions count.

use bgp_bfd::profile::Hops;
use bgp_bfd::wire::State;
use bgp_bfdd::protocol::LATENESS_US;
use prometheus::{IntCounterVec, IntGaugeVec, Registry};

use super::catalog::family;
use super::gauge;
use crate::run::Parts;

/// The metrics of all sessions; none where the process is not there.
pub(super) async fn bfd(parts: &Parts, registry: &Registry) -> prometheus::Result<()> {
    let connected = matches!(
        *parts.bfd.connection().borrow(),
        bgp_bfdd::client::Connection::Connected { .. }
    );
    let up = family(registry, IntGaugeVec::new, "causeway_bfd_process_up")?;
    up.with_label_values::<&str>(&[]).set(i64::from(connected));
    if !connected {
        return Ok(());
    }
    // It ends just now: the next scrape says so.
    let Ok(report) = parts.bfd.report().await else {
        return Ok(());
    };
    let state = family(registry, IntGaugeVec::new, "causeway_bfd_session_state")?;
    let transitions = family(
        registry,
        IntCounterVec::new,
        "causeway_bfd_session_transitions_total",
    )?;
    let packets = family(registry, IntCounterVec::new, "causeway_bfd_packets_total")?;
    let send_failures = family(
        registry,
        IntCounterVec::new,
        "causeway_bfd_send_failures_total",
    )?;
    let drops = family(
        registry,
        IntCounterVec::new,
        "causeway_bfd_dropped_packets_total",
    )?;
    let late = family(registry, IntCounterVec::new, "causeway_bfd_timers_total")?;
    for one in &report.sessions {
        let peer = one.key.peer.to_string();
        let interface = one.key.interface.as_deref().unwrap_or_default();
        let hops = match one.key.hops {
            Hops::Single => "single",
            Hops::Multi => "multi",
        };
        let labels = [peer.as_str(), interface, hops];
        let number = match one.status.state {
            State::AdminDown => 0,
            State::Down => 1,
            State::Init => 2,
            State::Up => 3,
        };
        state.with_label_values(&labels).set(gauge(number));
        send_failures
            .with_label_values(&labels)
            .inc_by(one.send_failures);
        for (family, label, count) in [
            (&transitions, "up", one.status.up_count),
            (&transitions, "down", one.status.down_count),
            (&packets, "in", one.status.packets_in),
            (&packets, "out", one.status.packets_out),
        ] {
            family
                .with_label_values(&[peer.as_str(), interface, hops, label])
                .inc_by(count);
        }
        for (reason, count) in &one.drops {
            drops.with_label_values(&[reason.as_str()]).inc_by(*count);
        }
    }
    for (reason, count) in &report.drops {
        drops.with_label_values(&[reason.as_str()]).inc_by(*count);
    }
    let bounds = LATENESS_US.iter().map(u64::to_string);
    for (bound, count) in bounds.chain(["more".to_owned()]).zip(report.lateness) {
        late.with_label_values(&[bound.as_str()]).inc_by(count);
    }
    Ok(())
}
