// SPDX-License-Identifier: Apache-2.0
//! The settings in force, and what other resources would change.

use std::time::SystemTime;

use bgp_config::{Difference, NodeFacts, compile, diff};
use bgp_core::config::Effect;
use router_api::v1alpha1 as api;
use router_resources::settings::Origin;
use router_resources::{FileContent, FileEvent, Store};
use tonic::{Request, Response, Status};

use crate::intent::lock;
use crate::run::Parts;

pub struct Service(pub Parts);

#[tonic::async_trait]
impl api::config_server::Config for Service {
    async fn show_config(
        &self,
        _: Request<api::ShowConfigRequest>,
    ) -> Result<Response<api::ShowConfigResponse>, Status> {
        let effective = &self.0.effective;
        let settings: Vec<api::Setting> = effective
            .list
            .iter()
            .map(|setting| {
                let (origin, origin_detail) = match &setting.origin {
                    Origin::Default => ("default", String::new()),
                    Origin::File(path, line) => ("file", format!("{}:{line}", path.display())),
                    Origin::Environment(name) => ("environment", name.clone()),
                    Origin::Flag => ("flag", String::new()),
                };
                api::Setting {
                    key: setting.path.clone(),
                    // JSON is YAML.
                    value: setting.value.to_string(),
                    origin: origin.to_owned(),
                    origin_detail,
                }
            })
            .collect();
        let yaml = effective.to_yaml();
        let node = effective.settings.node_name.clone();
        Ok(Response::new(api::ShowConfigResponse {
            node,
            settings,
            yaml,
        }))
    }

    async fn diff_config(
        &self,
        request: Request<api::DiffConfigRequest>,
    ) -> Result<Response<api::DiffConfigResponse>, Status> {
        let request = request.into_inner();
        let settings = &self.0.effective.settings;
        let (mut store, before, interfaces) = {
            let state = lock(&self.0.state);
            let interfaces = state.facts.interfaces.clone();
            let store = state.store.clone();
            (store, state.compiled.instances.clone(), interfaces)
        };
        if request.replaces_all {
            store = Store::new();
        }
        let events = request.files.into_iter().map(|file| FileEvent {
            path: settings.resources_directory.join(file.name),
            content: FileContent::Bytes(file.content),
        });
        #[expect(clippy::disallowed_methods, reason = "for people to read")]
        let now = SystemTime::now();
        let change = store.apply(events.collect(), now);
        let snapshot = store.snapshot();
        let facts = NodeFacts::gather(
            &settings.node_name,
            &settings.node_addresses,
            &settings.pod_cidrs,
            &snapshot,
            interfaces,
        );
        let options = bgp_config::Options {
            secrets_namespace: settings.bgp_secrets_namespace.clone(),
            ..Default::default()
        };
        let after = compile(&snapshot, &facts, &options).instances;
        let errors = change.diagnostics.iter().filter(|found| found.is_error());
        Ok(Response::new(api::DiffConfigResponse {
            differences: diff(&before, &after).iter().map(difference).collect(),
            errors: errors.map(ToString::to_string).collect(),
        }))
    }
}

fn difference(difference: &Difference) -> api::SessionDifference {
    api::SessionDifference {
        instance: difference.instance.0.clone(),
        peer: difference
            .peer
            .as_ref()
            .map_or_else(String::new, |peer| peer.0.to_string()),
        what: difference.what.to_owned(),
        effect: match difference.effect {
            Effect::Live => "live",
            Effect::NextSession => "next-session",
            Effect::RouteRefresh => "route-refresh",
            Effect::SessionReset => "session-reset",
            Effect::SessionAdded => "session-added",
            Effect::SessionRemoved => "session-removed",
        }
        .to_owned(),
        ends_sessions: difference.ends_sessions(),
    }
}
