// SPDX-License-Identifier: Apache-2.0
//! Prometheus metrics and health checks over HTTP, made at each scrape from what the subsystems
//! say.
//!
//! Names that begin with `cilium_` are Cilium's, with the labels of both of its generations, so
//! that dashboards go on working. Ours begin with `causeway_`.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{IntCounterVec, IntGaugeVec, Registry, TextEncoder};
use router_api::v1alpha1 as api;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use self::catalog::family;
use crate::health;
use crate::intent::lock;
use crate::run::Parts;

mod bfd;
mod bgp;
mod catalog;
mod egress;

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

/// The metric of how long routes take to the kernel, which is measured where they go.
///
/// # Errors
/// When it is not in the catalogue.
pub fn convergence() -> prometheus::Result<&'static catalog::Metric> {
    catalog::of("causeway_fib_convergence_seconds")
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
    bgp::bgp(parts, &registry).await?;
    process(parts, &registry)?;
    routes(parts, &registry).await?;
    pods(parts, &registry).await?;
    datapath(parts, &registry)?;
    egress::egress(parts, &registry).await?;
    store(parts, &registry)?;
    resources(parts, &registry)?;
    TextEncoder::new().encode_to_string(&registry.gather())
}

fn store(parts: &Parts, registry: &Registry) -> prometheus::Result<()> {
    let Some(store) = &parts.store else {
        return Ok(());
    };
    let reached = family(registry, IntGaugeVec::new, "causeway_store_reached")?;
    let is_reached = store.status().endpoint.is_some();
    reached
        .with_label_values::<&str>(&[])
        .set(is_reached.into());
    Ok(())
}

fn process(parts: &Parts, registry: &Registry) -> prometheus::Result<()> {
    let info = family(registry, IntGaugeVec::new, "causeway_build_info")?;
    info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    #[expect(clippy::disallowed_methods, reason = "for people to read")]
    let now = SystemTime::now();
    let started = now - parts.started.elapsed();
    let started = started.duration_since(UNIX_EPOCH).unwrap_or_default();
    let start = family(registry, IntGaugeVec::new, "causeway_start_time_seconds")?;
    start
        .with_label_values::<&str>(&[])
        .set(gauge(started.as_secs()));
    Ok(())
}

async fn routes(parts: &Parts, registry: &Registry) -> prometheus::Result<()> {
    registry.register(Box::new(parts.routes.convergence().clone()))?;
    let repaired = family(registry, IntCounterVec::new, "causeway_fib_repaired_total")?;
    let family = family(registry, IntGaugeVec::new, "causeway_fib_routes")?;
    if let Some(summary) = parts.routes.ask(|view| view.reconciler.summary()).await {
        for (state, value) in [
            ("wanted", summary.wanted),
            ("installed", summary.applied),
            ("failed", summary.failed),
            ("stale", summary.stale),
        ] {
            family.with_label_values(&[state]).set(gauge(value as u64));
        }
        repaired
            .with_label_values::<&str>(&[])
            .inc_by(summary.repaired);
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
    let count = family(registry, IntGaugeVec::new, "causeway_pods")?;
    count
        .with_label_values::<&str>(&[])
        .set(gauge(status.endpoints as u64));
    let addresses = family(registry, IntGaugeVec::new, "causeway_pod_addresses")?;
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
    let drops = family(registry, IntCounterVec::new, "causeway_drop_packets_total")?;
    let traffic = family(registry, IntCounterVec::new, "causeway_pod_packets_total")?;
    let pressure = family(registry, IntGaugeVec::new, "causeway_bpf_map_entries")?;
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
    let stale = family(registry, IntGaugeVec::new, "causeway_config_stale")?;
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
