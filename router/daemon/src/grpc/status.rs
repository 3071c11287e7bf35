// SPDX-License-Identifier: Apache-2.0
//! The health of the node in one answer.

use router_api::v1alpha1 as api;
use tonic::{Request, Response, Status};

use super::unix_ns;
use crate::health;
use crate::run::Parts;

pub struct Service(pub Parts);

#[tonic::async_trait]
impl api::status_server::Status for Service {
    async fn get_status(
        &self,
        _: Request<api::GetStatusRequest>,
    ) -> Result<Response<api::GetStatusResponse>, Status> {
        let report = health::look(&self.0).await;
        Ok(Response::new(api::GetStatusResponse {
            node: self.0.effective.settings.node_name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_unix_ns: unix_ns(self.0.started),
            pid: std::process::id(),
            health: report.worst().into(),
            components: report.components,
            issues: report.issues,
        }))
    }
}
