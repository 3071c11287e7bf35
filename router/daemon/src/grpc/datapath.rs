// SPDX-License-Identifier: Apache-2.0
//! Programs, maps and counters of the data plane.

use std::collections::BTreeMap;

use router_api::v1alpha1 as api;
use router_netlink::Netlink;
use tonic::{Request, Response, Status};

use crate::intent::lock;
use crate::run::Parts;

pub struct Service(pub Parts);

#[tonic::async_trait]
impl api::datapath_server::Datapath for Service {
    async fn get_datapath(
        &self,
        _: Request<api::GetDatapathRequest>,
    ) -> Result<Response<api::GetDatapathResponse>, Status> {
        let node = self.0.effective.settings.node_name.clone();
        let datapath = match &self.0.datapath {
            Ok(datapath) => datapath,
            Err(why) => {
                let error = why.to_string();
                return Ok(Response::new(api::GetDatapathResponse {
                    node,
                    error,
                    ..Default::default()
                }));
            }
        };
        let pods: BTreeMap<u32, _> = match &self.0.pods {
            Some(pods) => pods
                .list()
                .await
                .map_err(|failure| Status::unavailable(failure.to_string()))?
                .into_iter()
                .map(|view| (view.endpoint.id.0, view.endpoint))
                .collect(),
            None => BTreeMap::new(),
        };
        let names: BTreeMap<_, _> = Netlink::open()
            .and_then(|mut netlink| netlink.links())
            .map_err(|error| Status::internal(error.to_string()))?
            .into_iter()
            .map(|link| (link.index, link.name))
            .collect();
        let failed = |error: bpf_loader::Error| Status::internal(error.to_string());
        let datapath = lock(datapath);
        let status = datapath.status().map_err(failed)?;
        let endpoints = datapath.endpoints().map_err(failed)?;
        let drops = datapath.drops().map_err(failed)?;
        Ok(Response::new(api::GetDatapathResponse {
            node,
            hook_kind: status.hook.to_string(),
            pin_path: status.pin_path.display().to_string(),
            adopted: status.adopted,
            hooks: status
                .attached
                .iter()
                .map(|hook| api::Hook {
                    device: names.get(&hook.link).cloned().unwrap_or_default(),
                    ifindex: hook.link.0,
                    role: hook.role.to_string().replace('_', "-"),
                    kind: hook.hook.to_string(),
                    program_id: hook.program_id,
                })
                .collect(),
            programs: status
                .program_ids
                .iter()
                .map(|(role, id)| api::BpfProgram {
                    name: role.to_string(),
                    id: *id,
                })
                .collect(),
            maps: status
                .maps
                .iter()
                .map(|map| api::BpfMap {
                    name: map.name.to_owned(),
                    id: map.map_id,
                    entries: map.entries.map(u64::from),
                    max_entries: u64::from(map.max_entries),
                })
                .collect(),
            endpoints: endpoints
                .iter()
                .map(|state| {
                    let pod = pods.get(&state.endpoint.id.0);
                    let named = pod.and_then(|pod| pod.pod.clone()).unwrap_or_default();
                    api::EndpointTraffic {
                        endpoint_id: state.endpoint.id.0,
                        device: names.get(&state.endpoint.link).cloned().unwrap_or_default(),
                        namespace: named.namespace,
                        pod: named.name,
                        addresses: state
                            .endpoint
                            .addresses
                            .iter()
                            .map(ToString::to_string)
                            .collect(),
                        tx_packets: state.traffic.tx_packets,
                        tx_bytes: state.traffic.tx_bytes,
                        rx_packets: state.traffic.rx_packets,
                        rx_bytes: state.traffic.rx_bytes,
                        drops: state.traffic.drops.iter().map(drop_count).collect(),
                        attached: state.attached,
                    }
                })
                .collect(),
            drops: drops
                .iter()
                .filter(|drop| drop.packets > 0)
                .map(drop_count)
                .collect(),
            error: String::new(),
        }))
    }
}

fn drop_count(drop: &bpf_loader::DropCount) -> api::DropCount {
    api::DropCount {
        reason: drop.reason.name().to_owned(),
        description: drop.reason.description().to_owned(),
        packets: drop.packets,
        bytes: drop.bytes,
        answered: drop.reason.is_answered(),
    }
}
