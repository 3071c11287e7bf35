// SPDX-License-Identifier: Apache-2.0
//! What the egress part counts. Nothing is said where egress is off.

use std::collections::BTreeMap;
use std::sync::Arc;

use bpf_loader::Gateway;
use egress_core::PolicyId;
use prometheus::{IntCounterVec, IntGaugeVec, Registry};

use super::catalog::family;
use super::gauge;
use crate::egress::{EgressSource, EgressView, RuleReport};
use crate::run::Parts;

/// The metrics of egress, if it is on.
pub(super) async fn egress(parts: &Parts, registry: &Registry) -> prometheus::Result<()> {
    let Some(source) = &parts.egress else {
        return Ok(());
    };
    match look(Arc::clone(source)).await {
        Ok(view) => {
            fill(&view, registry)?;
            let most = family(
                registry,
                IntGaugeVec::new,
                "causeway_egress_max_connections",
            )?;
            let capacity = Gateway::capacity(&parts.effective.settings.pin_root);
            most.with_label_values::<&str>(&[])
                .set(capacity.unwrap_or(0).into());
            Ok(())
        }
        Err(error) => {
            tracing::warn!(%error, "egress cannot be looked at for the metrics");
            Ok(())
        }
    }
}

/// Looks at egress without holding up the others: the kernel is asked.
async fn look(source: Arc<dyn EgressSource>) -> anyhow::Result<EgressView> {
    tokio::task::spawn_blocking(move || source.view()).await?
}

fn fill(view: &EgressView, registry: &Registry) -> prometheus::Result<()> {
    policies(view, registry)?;
    rules(view, registry)?;
    ports(view, registry)?;
    let sources = family(
        registry,
        IntGaugeVec::new,
        "causeway_egress_refused_sources",
    )?;
    sources
        .with_label_values::<&str>(&[])
        .set(gauge(view.refused_sources().len() as u64));
    let refused = family(
        registry,
        IntCounterVec::new,
        "causeway_egress_refused_packets_total",
    )?;
    for count in &view.refusals {
        refused
            .with_label_values(&[count.reason.name()])
            .inc_by(count.packets);
    }
    Ok(())
}

fn policies(view: &EgressView, registry: &Registry) -> prometheus::Result<()> {
    let gateways = family(
        registry,
        IntGaugeVec::new,
        "causeway_egress_policy_gateways",
    )?;
    let pods = family(registry, IntGaugeVec::new, "causeway_egress_policy_pods")?;
    let failovers = family(
        registry,
        IntCounterVec::new,
        "causeway_egress_failovers_total",
    )?;
    for (id, state) in &view.desired.policies {
        let policy = id.to_string();
        for (which, nodes) in [
            ("active", &state.active_gateways),
            ("healthy", &state.healthy_gateways),
        ] {
            gateways
                .with_label_values(&[policy.as_str(), which])
                .set(gauge(nodes.len() as u64));
        }
        for (which, selected) in [("selected", &state.pods), ("undecided", &state.undecided)] {
            pods.with_label_values(&[policy.as_str(), which])
                .set(gauge(selected.len() as u64));
        }
    }
    for (id, count) in &view.failovers {
        failovers
            .with_label_values(&[id.to_string()])
            .inc_by(*count);
    }
    Ok(())
}

fn rules(view: &EgressView, registry: &Registry) -> prometheus::Result<()> {
    let connections = family(registry, IntGaugeVec::new, "causeway_egress_connections")?;
    let counters = |name| family(registry, IntCounterVec::new, name);
    let opened = counters("causeway_egress_connections_opened_total")?;
    let packets = counters("causeway_egress_packets_total")?;
    let bytes = counters("causeway_egress_bytes_total")?;
    let refused = counters("causeway_egress_policy_refused_packets_total")?;
    let mut by_policy: BTreeMap<&PolicyId, Vec<&RuleReport>> = BTreeMap::new();
    for (number, report) in &view.rules {
        // The data plane may still have rules that have just gone.
        if let Some(rule) = view.desired.gateway.get(number) {
            by_policy.entry(&rule.key.policy).or_default().push(report);
        }
    }
    for (id, reports) in by_policy {
        let policy = id.to_string();
        let sum = |of: fn(&RuleReport) -> u64| reports.iter().map(|one| of(one)).sum::<u64>();
        connections
            .with_label_values(&[policy.as_str()])
            .set(gauge(sum(|one| one.connections)));
        opened
            .with_label_values(&[policy.as_str()])
            .inc_by(sum(|one| one.traffic.opened));
        for (family, direction, count) in [
            (&packets, "out", sum(|one| one.traffic.out_packets)),
            (&packets, "back", sum(|one| one.traffic.back_packets)),
            (&bytes, "out", sum(|one| one.traffic.out_bytes)),
            (&bytes, "back", sum(|one| one.traffic.back_bytes)),
        ] {
            family
                .with_label_values(&[policy.as_str(), direction])
                .inc_by(count);
        }
        for count in reports.iter().flat_map(|one| &one.refusals) {
            refused
                .with_label_values(&[policy.as_str(), count.reason.name()])
                .inc_by(count.packets);
        }
    }
    Ok(())
}

fn ports(view: &EgressView, registry: &Registry) -> prometheus::Result<()> {
    let available = family(registry, IntGaugeVec::new, "causeway_egress_ports")?;
    let used = family(registry, IntGaugeVec::new, "causeway_egress_ports_used")?;
    let addresses = family(registry, IntGaugeVec::new, "causeway_egress_policy_address")?;
    for rule in view.desired.gateway.values() {
        for address in rule.addresses() {
            addresses
                .with_label_values(&[rule.key.policy.to_string(), address.to_string()])
                .set(1);
        }
    }
    for (address, count) in view.ports() {
        available
            .with_label_values(&[address.to_string()])
            .set(gauge(count));
    }
    for ((address, protocol), count) in &view.ports_used {
        let protocol = crate::grpc::protocol_name(*protocol);
        used.with_label_values(&[address.to_string().as_str(), protocol])
            .set(gauge(*count));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;
    use crate::egress::testing;

    #[test]
    fn each_policy_address_and_reason_has_its_numbers() {
        let registry = Registry::new();
        fill(&testing::view(), &registry).unwrap();
        let text = TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        for line in [
            r#"causeway_egress_connections{policy="EgressGatewayPolicy/web"} 3"#,
            r#"causeway_egress_connections_opened_total{policy="EgressGatewayPolicy/web"} 40"#,
            r#"causeway_egress_packets_total{direction="out",policy="EgressGatewayPolicy/web"} 1000"#,
            r#"causeway_egress_bytes_total{direction="back",policy="EgressGatewayPolicy/web"} 900000"#,
            r#"causeway_egress_policy_refused_packets_total{policy="EgressGatewayPolicy/web",reason="nat-ports-exhausted"} 7"#,
            r#"causeway_egress_refused_packets_total{reason="nat-unknown-node"} 2"#,
            r#"causeway_egress_ports{address="198.51.100.7"} 64512"#,
            r#"causeway_egress_ports_used{address="198.51.100.7",protocol="tcp"} 3"#,
            r#"causeway_egress_policy_address{address="198.51.100.7",policy="EgressGatewayPolicy/web"} 1"#,
            r#"causeway_egress_refused_sources 2"#,
            r#"causeway_egress_failovers_total{policy="EgressGatewayPolicy/web"} 1"#,
            r#"causeway_egress_policy_gateways{policy="EgressGatewayPolicy/web",which="healthy"} 2"#,
            r#"causeway_egress_policy_pods{policy="EgressGatewayPolicy/web",which="selected"} 1"#,
        ] {
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
    }
}
