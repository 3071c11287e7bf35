// SPDX-License-Identifier: Apache-2.0
//! What BFD sessions count.

use std::time::Duration;

use bgp_bfd::profile::Hops;
use bgp_bfd::session::EchoState;
use bgp_bfd::wire::State;
use bgp_bfdd::protocol::LATENESS_US;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Registry};

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
    let echoes = family(
        registry,
        IntCounterVec::new,
        "causeway_bfd_echo_packets_total",
    )?;
    let echo_state = family(registry, IntGaugeVec::new, "causeway_bfd_echo_state")?;
    let round_trip = family(
        registry,
        GaugeVec::new,
        "causeway_bfd_echo_round_trip_seconds",
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
        let number = match one.status.echo_state {
            EchoState::Off => 0,
            EchoState::Waiting => 1,
            EchoState::Refused => 2,
            EchoState::Unreturned => 3,
            EchoState::Returning => 4,
        };
        echo_state.with_label_values(&labels).set(gauge(number));
        if let Some(echo) = one.status.echo.filter(|echo| echo.returning) {
            let took = Duration::from_micros(echo.round_trip_us);
            round_trip
                .with_label_values(&labels)
                .set(took.as_secs_f64());
        }
        send_failures
            .with_label_values(&labels)
            .inc_by(one.send_failures);
        for (family, label, count) in [
            (&transitions, "up", one.status.up_count),
            (&transitions, "down", one.status.down_count),
            (&packets, "in", one.status.packets_in),
            (&packets, "out", one.status.packets_out),
            (&echoes, "sent", one.status.echoes_out),
            (&echoes, "returned", one.status.echoes_in),
            (&echoes, "lost", one.status.echoes_lost),
            (&echoes, "reflected", one.echoes_reflected),
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
