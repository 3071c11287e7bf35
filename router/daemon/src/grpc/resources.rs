// SPDX-License-Identifier: Apache-2.0
//! Resources, their conditions, and what is wrong with files.

use std::collections::BTreeMap;

use bgp_config::node_config_status;
use egress_config::policy_status;
use egress_core::{PolicyState, states_of};
use router_api::v1alpha1 as api;
use router_resources::ObjectKey;
use router_resources::condition::{Condition, ConditionStatus};
use router_resources::object::Kind;
use tonic::{Request, Response, Status};

use super::{bgp, system_ns};
use crate::intent::lock;
use crate::run::Parts;

pub struct Service(pub Parts);

#[tonic::async_trait]
impl api::resources_server::Resources for Service {
    async fn list_resources(
        &self,
        request: Request<api::ListResourcesRequest>,
    ) -> Result<Response<api::ListResourcesResponse>, Status> {
        let wanted = request.into_inner();
        let matches_kind =
            |kind: &str| wanted.kind.is_empty() || wanted.kind.eq_ignore_ascii_case(kind);
        let matches = |kind: &str, namespace: &str, name: &str| {
            matches_kind(kind)
                && (wanted.namespace.is_empty() || wanted.namespace == namespace)
                && (wanted.name.is_empty() || wanted.name == name)
        };
        let sessions = bgp::session_statuses(&self.0).await;
        let policies = match egress_kinds().any(|kind| matches_kind(kind.name())) {
            true => policy_states(&self.0).await,
            false => BTreeMap::new(),
        };
        let state = lock(&self.0.state);
        let snapshot = state.store.snapshot();
        let files = state.store.files();
        let mut resources: Vec<api::Resource> = Vec::new();
        for status in state.store.statuses() {
            let namespace = status.key.namespace.clone().unwrap_or_default();
            if !matches(status.key.kind.name(), &namespace, &status.key.name) {
                continue;
            }
            let stored = snapshot.get(&status.key).filter(|_| status.in_force);
            resources.push(api::Resource {
                api_version: status.api_version.to_owned(),
                kind: status.key.kind.name().to_owned(),
                namespace,
                name: status.key.name.clone(),
                source: Some(api::ResourceSource {
                    kind: "file".to_owned(),
                    path: status.source.file.display().to_string(),
                    document: u32::try_from(status.source.document).unwrap_or(u32::MAX),
                    line: u32::try_from(status.source.line).unwrap_or(u32::MAX),
                }),
                conditions: status.conditions.iter().map(condition).collect(),
                generation: status.generation,
                object_json: stored
                    .map(|stored| {
                        let mut object = stored.object.to_redacted_json();
                        if let Some(policy) = policies.get(&status.key) {
                            let status = policy_status(policy, &status.conditions);
                            object["status"] = serde_json::json!(status);
                        }
                        object.to_string()
                    })
                    .unwrap_or_default(),
                last_good: files
                    .iter()
                    .any(|file| file.path == status.source.file && file.is_stale),
            });
        }
        // What the daemon itself writes: the outcome for this node.
        let name = &self.0.effective.settings.node_name;
        if let Some(node_config) = &state.compiled.node_config
            && matches(Kind::NodeConfig.name(), "", name)
        {
            let status = node_config_status(&state.compiled, &sessions);
            resources.push(api::Resource {
                api_version: "cilium.io/v2".to_owned(),
                kind: Kind::NodeConfig.name().to_owned(),
                name: name.clone(),
                source: Some(api::ResourceSource {
                    kind: "causeway".to_owned(),
                    ..Default::default()
                }),
                conditions: status.conditions.iter().map(condition).collect(),
                generation: 1,
                object_json: serde_json::json!({
                    "apiVersion": "cilium.io/v2",
                    "kind": Kind::NodeConfig.name(),
                    "metadata": { "name": name },
                    "spec": node_config.spec,
                    "status": status,
                })
                .to_string(),
                ..Default::default()
            });
        }
        let diagnostics = files
            .iter()
            .flat_map(|file| &file.diagnostics)
            .map(|finding| api::Diagnostic {
                severity: if finding.is_error() {
                    "error"
                } else {
                    "warning"
                }
                .to_owned(),
                path: finding.file.display().to_string(),
                document: number(finding.document),
                line: number(finding.place.as_ref().map(|place| place.line)),
                column: number(finding.place.as_ref().map(|place| place.column)),
                field: finding.field.clone(),
                message: finding.message.clone(),
                hint: finding.help.clone().unwrap_or_default(),
            })
            .collect();
        Ok(Response::new(api::ListResourcesResponse {
            node: name.clone(),
            resources,
            diagnostics,
        }))
    }
}

/// The kinds of egress policies.
fn egress_kinds() -> impl Iterator<Item = Kind> {
    [Kind::EgressPolicy, Kind::CiliumEgressPolicy].into_iter()
}

/// How egress policies stand; nothing where egress is off, or does not say.
async fn policy_states(parts: &Parts) -> BTreeMap<ObjectKey, PolicyState> {
    let Some(source) = parts.egress.clone() else {
        return BTreeMap::new();
    };
    // The kernel may take its time, and many policies theirs.
    let asked = tokio::task::spawn_blocking(move || {
        let view = source.view()?;
        let states = states_of(&view.world, &view.claims, &view.desired);
        let states = states.into_iter();
        Ok(states
            .map(|(id, state)| (egress_config::key(&id), state))
            .collect())
    });
    match asked.await.map_err(anyhow::Error::from).flatten() {
        Ok(states) => states,
        Err(error) => {
            tracing::warn!("how egress policies stand is not known: {error:#}");
            BTreeMap::new()
        }
    }
}

fn number(number: Option<usize>) -> u32 {
    number.map_or(0, |number| u32::try_from(number).unwrap_or(u32::MAX))
}

fn condition(condition: &Condition) -> api::Condition {
    api::Condition {
        r#type: condition.condition_type.clone(),
        status: match condition.status {
            ConditionStatus::True => "True",
            ConditionStatus::False => "False",
            ConditionStatus::Unknown => "Unknown",
        }
        .to_owned(),
        reason: condition.reason.clone(),
        message: condition.message.clone(),
        observed_generation: condition.observed_generation.unwrap_or_default(),
        last_transition_unix_ns: system_ns(condition.last_transition_time.to_system_time()),
    }
}
