// SPDX-License-Identifier: Apache-2.0
//! The settings in force.

use router_api::v1alpha1 as api;
use router_resources::settings::Origin;
use tonic::{Request, Response, Status};

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
}
