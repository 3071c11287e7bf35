// SPDX-License-Identifier: Apache-2.0
//! Prometheus metrics and health checks over HTTP, made at each scrape from what the subsystems
//! say.
//!
//! Names that begin with `cilium_` are Cilium's, with the labels of both of its generations, so
//! that dashboards go on working. Ours begin with `causeway_`.

use anyhow::Context;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::core::Collector;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};
use router_api::v1alpha1 as api;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::grpc::bgp_peers;
use crate::health;
use crate::intent::lock;
use crate::run::Parts;

mod bfd;

/// Serves `/metrics`, `/livez`, `/readyz` and `/healthz` where the settings say, if anywhere.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(parts: Parts) -> anyhow::Result<JoinHandle<()>> {
    let Some(address) = parts.effective.settings.metrics_address else {
        return Ok(tokio::spawn(async {}));
    };
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("metrics address {address}: set metricsAddress to another one, or to \"off\"")
    })?;
    let app = axum::Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(async || "ready\n"))
        .route("/healthz", get(healthz))
        .with_state(parts);
    Ok(tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "metrics have ended");
        }
    }))
}

async fn healthz(State(parts): State<Parts>) -> Response {
    let report = health::look(&parts).await;
    let code = match report.worst() {
        api::Health::Error => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    };
    let mut text = String::new();
    for component in &report.components {
        text.push_str(&format!("{}: {}\n", component.name, component.message));
    }
    for issue in &report.issues {
        text.push_str(&format!(
            "! {} {}: {}\n",
            issue.component, issue.object, issue.message
        ));
    }
    (code, text).into_response()
}

async fn metrics(State(parts): State<Parts>) -> Response {
    match render(&parts).await {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn render(parts: &Parts) -> prometheus::Result<String> {
    let registry = Registry::new();
    bfd::bfd(parts, &registry).await?;
    bgp(parts, &registry).await?;
    routes(parts, &registry).await?;
    pods(parts, &registry).await?;
    datapath(parts, &registry)?;
    resources(parts, &registry)?;
    TextEncoder::new().encode_to_string(&registry.gather())
}

/// Makes a family of gauges or counters and puts it into the registry.
fn family<T: Collector + Clone + 'static>(
    registry: &Registry,
    make: impl FnOnce(Opts, &[&str]) -> prometheus::Result<T>,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<T> {
    let family = make(Opts::new(name, help), labels)?;
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

async fn bgp(parts: &Parts, registry: &Registry) -> prometheus::Result<()> {
    let peer = [
        "instance_name",
        "local_asn",
        "vrouter",
        "neighbor",
        "neighbor_asn",
    ];
    let peer_family = [
        "instance_name",
        "local_asn",
        "vrouter",
        "neighbor",
        "neighbor_asn",
        "afi",
        "safi",
    ];
    let state = family(
        registry,
        IntGaugeVec::new,
        "cilium_bgp_control_plane_session_state",
        "1 when the session is established, else 0",
        &peer,
    )?;
    let advertised = family(
        registry,
        IntGaugeVec::new,
        "cilium_bgp_control_plane_advertised_routes",
        "Routes sent to the neighbor",
        &peer_family,
    )?;
    let received = family(
        registry,
        IntGaugeVec::new,
        "cilium_bgp_control_plane_received_routes",
        "Routes the neighbor has sent and not withdrawn",
        &peer_family,
    )?;
    let accepted = family(
        registry,
        IntGaugeVec::new,
        "causeway_bgp_accepted_routes",
        "Received routes that the import policy took",
        &["instance", "peer", "afi", "safi"],
    )?;
    let established = family(
        registry,
        IntCounterVec::new,
        "causeway_bgp_sessions_established_total",
        "Times the session came up since the daemon started",
        &["instance", "peer"],
    )?;
    let messages = family(
        registry,
        IntCounterVec::new,
        "causeway_bgp_messages_total",
        "BGP messages by type and direction",
        &["instance", "peer", "direction", "type"],
    )?;
    let errors = family(
        registry,
        IntCounterVec::new,
        "causeway_bgp_attribute_errors_total",
        "Malformed path attributes by treatment (RFC 7606)",
        &["instance", "peer", "attribute", "treatment"],
    )?;
    for one in bgp_peers(parts).await {
        let local = one.local_asn.to_string();
        let asn = one.peer_asn.to_string();
        let neighbor = if one.peer_address.contains(':') {
            format!("[{}]:{}", one.peer_address, one.peer_port)
        } else {
            format!("{}:{}", one.peer_address, one.peer_port)
        };
        let labels = [one.instance.as_str(), &local, &local, &neighbor, &asn];
        let up = one.session_state() == api::SessionState::Established;
        state.with_label_values(&labels).set(i64::from(up));
        for counts in &one.families {
            let labels = [
                one.instance.as_str(),
                &local,
                &local,
                &neighbor,
                &asn,
                &counts.afi,
                &counts.safi,
            ];
            advertised
                .with_label_values(&labels)
                .set(gauge(counts.advertised));
            received
                .with_label_values(&labels)
                .set(gauge(counts.received));
            accepted
                .with_label_values(&[&one.instance, &one.name, &counts.afi, &counts.safi])
                .set(gauge(counts.accepted));
        }
        let ours = [one.instance.as_str(), &one.name];
        established
            .with_label_values(&ours)
            .inc_by(one.established_count);
        for (direction, counts) in [("sent", &one.sent), ("received", &one.received)] {
            let Some(counts) = counts else { continue };
            for (kind, count) in [
                ("open", counts.open),
                ("update", counts.update),
                ("notification", counts.notification),
                ("keepalive", counts.keepalive),
                ("route-refresh", counts.route_refresh),
            ] {
                let labels = [one.instance.as_str(), &one.name, direction, kind];
                messages.with_label_values(&labels).inc_by(count);
            }
        }
        for error in &one.attribute_errors {
            let labels = [
                one.instance.as_str(),
                &one.name,
                &error.attribute,
                &error.treatment,
            ];
            errors.with_label_values(&labels).inc_by(error.count);
        }
    }
    let rib = family(
        registry,
        IntGaugeVec::new,
        "causeway_bgp_rib",
        "Sizes of the tables of an instance",
        &["instance", "what"],
    )?;
    for instance in parts.speaker.snapshot().await {
        let stats = instance.rib;
        for (what, value) in [
            ("destinations", stats.destinations),
            ("routes", stats.routes),
            ("rejected", stats.rejected),
            ("attribute_sets", stats.attribute_sets),
            ("memory_bytes", stats.memory_bytes),
        ] {
            rib.with_label_values(&[instance.config.name().0.as_str(), what])
                .set(gauge(value as u64));
        }
    }
    Ok(())
}

async fn routes(parts: &Parts, registry: &Registry) -> prometheus::Result<()> {
    let family = family(
        registry,
        IntGaugeVec::new,
        "causeway_fib_routes",
        "Routes of this daemon by state",
        &["state"],
    )?;
    if let Some(summary) = parts.routes.ask(|view| view.reconciler.summary()).await {
        for (state, value) in [
            ("wanted", summary.wanted),
            ("installed", summary.applied),
            ("failed", summary.failed),
            ("stale", summary.stale),
        ] {
            family.with_label_values(&[state]).set(gauge(value as u64));
        }
    }
    Ok(())
}

async fn pods(parts: &Parts, registry: &Registry) -> prometheus::Result<()> {
    let Some(pods) = &parts.pods else {
        return Ok(());
    };
    let Ok(status) = pods.status().await else {
        return Ok(());
    };
    let count = family(
        registry,
        IntGaugeVec::new,
        "causeway_pods",
        "Pod interfaces on this node",
        &[],
    )?;
    count
        .with_label_values::<&str>(&[])
        .set(gauge(status.endpoints as u64));
    let addresses = family(
        registry,
        IntGaugeVec::new,
        "causeway_pod_addresses",
        "Pod addresses by pool and state",
        &["pool", "state"],
    )?;
    for pool in &status.pools {
        let cidr = pool.cidr.to_string();
        let all = i64::try_from(pool.usable).unwrap_or(i64::MAX);
        addresses
            .with_label_values(&[cidr.as_str(), "usable"])
            .set(all);
        addresses
            .with_label_values(&[cidr.as_str(), "held"])
            .set(gauge(pool.held as u64));
    }
    Ok(())
}

fn datapath(parts: &Parts, registry: &Registry) -> prometheus::Result<()> {
    let Ok(datapath) = &parts.datapath else {
        return Ok(());
    };
    let drops = family(
        registry,
        IntCounterVec::new,
        "causeway_drop_packets_total",
        "Refused packets by reason",
        &["reason"],
    )?;
    let traffic = family(
        registry,
        IntCounterVec::new,
        "causeway_pod_packets_total",
        "Packets of all pods of this node; tx left a pod",
        &["direction"],
    )?;
    let pressure = family(
        registry,
        IntGaugeVec::new,
        "causeway_bpf_map_entries",
        "Entries of a map, and how many it can hold",
        &["map", "what"],
    )?;
    let datapath = lock(datapath);
    for drop in datapath.drops().unwrap_or_default() {
        drops
            .with_label_values(&[drop.reason.name()])
            .inc_by(drop.packets);
    }
    for (_, counts) in datapath.counters().unwrap_or_default() {
        traffic.with_label_values(&["tx"]).inc_by(counts.tx_packets);
        traffic.with_label_values(&["rx"]).inc_by(counts.rx_packets);
    }
    if let Ok(status) = datapath.status() {
        for map in &status.maps {
            let Some(entries) = map.entries else { continue };
            pressure
                .with_label_values(&[map.name, "used"])
                .set(i64::from(entries));
            pressure
                .with_label_values(&[map.name, "max"])
                .set(i64::from(map.max_entries));
        }
    }
    Ok(())
}

fn resources(parts: &Parts, registry: &Registry) -> prometheus::Result<()> {
    let stale = family(
        registry,
        IntGaugeVec::new,
        "causeway_config_stale",
        "1 for a file whose newest version is broken, so that an older one is in force",
        &["file"],
    )?;
    for file in lock(&parts.state).store.files() {
        let name = file.path.display().to_string();
        stale
            .with_label_values(&[name.as_str()])
            .set(i64::from(file.is_stale));
    }
    Ok(())
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
