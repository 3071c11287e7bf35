// SPDX-License-Identifier: Apache-2.0
//! Every metric there is. Whoever exports one finds it here by its name, and a test compares the
//! guide's page with it, so that the page is complete.

use prometheus::core::Collector;
use prometheus::{Opts, Registry};

/// What a metric does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// It goes up and down.
    Gauge,
    /// It only goes up, until the daemon starts again.
    Counter,
    /// It counts durations by how long they were.
    Histogram,
}

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "whoever exports it knows; the guide does not")
    )]
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

const fn metric(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind,
        labels,
        help,
    }
}

/// A peer, by our names.
const PEER: &[&str] = &["instance", "peer"];
/// A family of a peer.
const FAMILY: &[&str] = &["instance", "peer", "afi", "safi"];
/// What counts messages in both directions.
const DIRECTION: &[&str] = &["instance", "peer", "direction"];
/// The labels of both generations of Cilium.
const CILIUM_PEER: &[&str] = &[
    "instance_name",
    "local_asn",
    "vrouter",
    "neighbor",
    "neighbor_asn",
];
const CILIUM_FAMILY: &[&str] = &[
    "instance_name",
    "local_asn",
    "vrouter",
    "neighbor",
    "neighbor_asn",
    "afi",
    "safi",
];
/// An egress policy, `kind/name`.
const EGRESS: &[&str] = &["policy"];
const BFD: &[&str] = &["peer", "interface", "hops"];

use Kind::{Counter, Gauge, Histogram};

/// All metrics, in the order of the guide.
#[rustfmt::skip]
pub const ALL: &[Metric] = &[
    metric("cilium_bgp_control_plane_session_state", Gauge, CILIUM_PEER, "1 when the session is established, else 0"),
    metric("cilium_bgp_control_plane_advertised_routes", Gauge, CILIUM_FAMILY, "Routes sent to the neighbor"),
    metric("cilium_bgp_control_plane_received_routes", Gauge, CILIUM_FAMILY, "Routes the neighbor has sent and not withdrawn"),
    metric("causeway_bgp_session_state", Gauge, PEER, "State of the session: 0 Idle, 1 Connect, 2 Active, 3 OpenSent, 4 OpenConfirm, 5 Established"),
    metric("causeway_bgp_session_up_seconds", Gauge, PEER, "How long the session is established; 0 while it is not"),
    metric("causeway_bgp_session_hold_time_seconds", Gauge, PEER, "Hold time agreed on; 0 while the session is not established"),
    metric("causeway_bgp_sessions_established_total", Counter, PEER, "Times the session came up since the daemon started"),
    metric("causeway_bgp_session_flaps_total", Counter, PEER, "Times the session went down after it had been established"),
    metric("causeway_bgp_connect_attempts_total", Counter, PEER, "Attempts to connect to the peer"),
    metric("causeway_bgp_calls_refused_total", Counter, PEER, "Connections of the peer that were refused"),
    metric("causeway_bgp_strangers_refused_total", Counter, &["instance"], "Connections of addresses that are no peers"),
    metric("causeway_bgp_messages_total", Counter, &["instance", "peer", "direction", "type"], "BGP messages by type and direction"),
    metric("causeway_bgp_message_bytes_total", Counter, DIRECTION, "Bytes of BGP messages by direction"),
    metric("causeway_bgp_notifications_total", Counter, &["instance", "peer", "direction", "code", "subcode"], "NOTIFICATION messages by direction, error code and subcode (RFC 4271 §4.5)"),
    metric("causeway_bgp_attribute_errors_total", Counter, &["instance", "peer", "attribute", "treatment"], "Malformed path attributes by treatment (RFC 7606)"),
    metric("causeway_bgp_accepted_routes", Gauge, FAMILY, "Received routes that the import policy took"),
    metric("causeway_bgp_rejected_routes", Gauge, FAMILY, "Received routes that are not considered: by policy, as loops, beyond maxRoutes"),
    metric("causeway_bgp_stale_routes", Gauge, FAMILY, "Routes kept from a session that is gone, until the peer is back (RFC 4724, RFC 9494)"),
    metric("causeway_bgp_held_routes", Gauge, FAMILY, "Routes not sent because export.maxRoutes is reached"),
    metric("causeway_bgp_initial_sync_seconds", Gauge, FAMILY, "How long after the session came up the peer had sent all its routes (End-of-RIB); absent before"),
    metric("causeway_bgp_graceful_restart", Gauge, &["instance", "peer", "mode"], "1 when the session agreed on it: restart (RFC 4724), notification (RFC 8538), long-lived (RFC 9494)"),
    metric("causeway_bgp_send_queue_bytes", Gauge, PEER, "Bytes of messages that wait for the peer to read"),
    metric("causeway_bgp_send_queue_destinations", Gauge, PEER, "Destinations whose state the peer has yet to be told, beyond those bytes"),
    metric("causeway_bgp_rib", Gauge, &["instance", "what"], "Sizes of the tables of an instance"),
    metric("causeway_drain_phase", Gauge, &[], "0 in service, 1 announcing GRACEFUL_SHUTDOWN, 2 withdrawn"),
    metric("causeway_bfd_process_up", Gauge, &[], "1 when causeway-bfdd, which runs BFD sessions, is there"),
    metric("causeway_bfd_session_state", Gauge, BFD, "State of the session: 0 AdminDown, 1 Down, 2 Init, 3 Up"),
    metric("causeway_bfd_session_transitions_total", Counter, &["peer", "interface", "hops", "to"], "Times the session came up, or went from up to something else"),
    metric("causeway_bfd_packets_total", Counter, &["peer", "interface", "hops", "direction"], "Control packets by direction"),
    metric("causeway_bfd_echo_packets_total", Counter, &["peer", "interface", "hops", "what"], "Echo packets: ours by sent, returned and lost, the peer's by reflected (by causeway-bfdd, not the kernel)"),
    metric("causeway_bfd_echo_state", Gauge, BFD, "Our echo packets: 0 off, 1 waiting for the session, 2 refused by the peer, 3 unreturned, 4 returning"),
    metric("causeway_bfd_echo_round_trip_seconds", Gauge, BFD, "How long our last echo packet took, while they come back"),
    metric("causeway_bfd_send_failures_total", Counter, BFD, "Control packets that could not be sent"),
    metric("causeway_bfd_dropped_packets_total", Counter, &["reason"], "Received packets that were discarded, by reason"),
    metric("causeway_bfd_timers_total", Counter, &["late_us"], "Timers served, by how many microseconds late at most"),
    metric("causeway_fib_routes", Gauge, &["state"], "Routes of this daemon by state"),
    metric("causeway_fib_repaired_total", Counter, &[], "Routes found missing or different in the kernel, and written again"),
    metric("causeway_fib_convergence_seconds", Histogram, &[], "Time from a change of best paths until the kernel has it"),
    metric("causeway_pods", Gauge, &[], "Pod interfaces on this node"),
    metric("causeway_pod_addresses", Gauge, &["pool", "state"], "Pod addresses by pool and state"),
    metric("causeway_pod_packets_total", Counter, &["direction"], "Packets of all pods of this node; tx left a pod"),
    metric("causeway_drop_packets_total", Counter, &["reason"], "Refused packets by reason"),
    metric("causeway_bpf_map_entries", Gauge, &["map", "what"], "Entries of a map, and how many it can hold"),
    metric("causeway_egress_policy_pods", Gauge, &["policy", "which"], "Pods of this node that a policy selects, or may select: their labels are not known"),
    metric("causeway_egress_policy_gateways", Gauge, &["policy", "which"], "Gateways of a policy that concerns this node: those that are healthy, and those that are active"),
    metric("causeway_egress_failovers_total", Counter, EGRESS, "Times this node saw another node become the gateway of one of the policy's rules"),
    metric("causeway_egress_connections", Gauge, EGRESS, "Connections this node is the gateway of"),
    metric("causeway_egress_connections_opened_total", Counter, EGRESS, "Connections that began at this gateway"),
    metric("causeway_egress_packets_total", Counter, &["policy", "direction"], "Packets through this gateway; out left the cluster, back are answers"),
    metric("causeway_egress_bytes_total", Counter, &["policy", "direction"], "Bytes through this gateway; out left the cluster, back are answers"),
    metric("causeway_egress_policy_refused_packets_total", Counter, &["policy", "reason"], "Packets of a policy that this gateway refused, by reason"),
    metric("causeway_egress_refused_packets_total", Counter, &["reason"], "Packets this gateway refused, of all policies and of none, by reason"),
    metric("causeway_egress_policy_address", Gauge, &["policy", "address"], "Always 1: an address this gateway gives to what a policy sends, to join the policy with what is said by address"),
    metric("causeway_egress_refused_sources", Gauge, &[], "Addresses of pods of this node that have a destination to which everything is dropped: there is no gateway, or labels are not known"),
    metric("causeway_egress_max_connections", Gauge, &[], "Connections of each family this gateway can hold; 0 where it is none"),
    metric("causeway_egress_ports", Gauge, &["address"], "Ports that connections may get of an address of this gateway, for each protocol and destination"),
    metric("causeway_egress_ports_used", Gauge, &["address", "protocol"], "Ports of an address of this gateway that have connections, to whatever destinations"),
    metric("causeway_store_reached", Gauge, &[], "1 when etcd answers; absent where store.endpoints is not set"),
    metric("causeway_config_stale", Gauge, &["file"], "1 for a file whose newest version is broken, so that an older one is in force"),
    metric("causeway_build_info", Gauge, &["version"], "Always 1"),
    metric("causeway_start_time_seconds", Gauge, &[], "When the daemon started, Unix time"),
];

/// What the catalogue says of a name.
pub fn of(name: &str) -> prometheus::Result<&'static Metric> {
    let found = ALL.iter().find(|metric| metric.name == name);
    found.ok_or_else(|| prometheus::Error::Msg(format!("{name} is not in the catalogue")))
}

/// Makes a family of gauges or counters and puts it into the registry.
pub fn family<T: Collector + Clone + 'static>(
    registry: &Registry,
    make: impl FnOnce(Opts, &[&str]) -> prometheus::Result<T>,
    name: &str,
) -> prometheus::Result<T> {
    let metric = of(name)?;
    let family = make(Opts::new(metric.name, metric.help), metric.labels)?;
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    const BEGIN: &str = "<!-- metrics -->\n";
    const END: &str = "<!-- end -->\n";

    /// `docs/guide/src/metrics.md` has every metric, its labels and its words. `UPDATE_GOLDEN=1`
    /// rewrites the table.
    #[test]
    fn the_page_of_the_guide_lists_every_metric() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let path = root.join("docs/guide/src/metrics.md");
        let page = fs::read_to_string(&path).unwrap();
        let (before, rest) = page.split_once(BEGIN).unwrap();
        let (table, after) = rest.split_once(END).unwrap();
        let mut wanted =
            String::from("\n| Metric | Kind | Labels | What it says |\n|---|---|---|---|\n");
        for metric in ALL {
            let kind = match metric.kind {
                Kind::Gauge => "gauge",
                Kind::Counter => "counter",
                Kind::Histogram => "histogram",
            };
            let labels: Vec<String> = metric.labels.iter().map(|l| format!("`{l}`")).collect();
            let (name, labels, help) = (metric.name, labels.join(", "), metric.help);
            wanted += &format!("| `{name}` | {kind} | {labels} | {help} |\n");
        }
        wanted += "\n";
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
            return;
        }
        assert_eq!(table, wanted, "UPDATE_GOLDEN=1 rewrites {}", path.display());
    }

    /// <https://prometheus.io/docs/practices/naming/>
    #[test]
    fn names_are_as_prometheus_has_them() {
        let mut names = BTreeSet::new();
        for metric in ALL {
            let name = metric.name;
            assert!(names.insert(name), "{name} is there twice");
            let snake = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(name.chars().all(snake), "{name}");
            assert_eq!(
                name.ends_with("_total"),
                metric.kind == Kind::Counter,
                "{name}"
            );
            assert!(!metric.help.ends_with('.'), "{name}: {}", metric.help);
        }
    }
}
