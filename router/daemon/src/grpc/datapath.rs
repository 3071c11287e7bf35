// SPDX-License-Identifier: Apache-2.0
//! Programs, maps and counters of the data plane.

use std::collections::BTreeMap;

use bpf_loader::DropCount;
use router_api::v1alpha1 as api;
use router_netlink::Netlink;
use tonic::{Request, Response, Status};

use super::egress::unreadable;
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
        let at_gateway = self.refused_at_gateway().await?;
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
            drops: together(drops.into_iter().chain(at_gateway))
                .iter()
                .map(drop_count)
                .collect(),
            error: String::new(),
        }))
    }
}

impl Service {
    /// What this node has refused as an egress gateway, of all policies and of none.
    async fn refused_at_gateway(&self) -> Result<Vec<DropCount>, Status> {
        let Some(source) = self.0.egress.clone() else {
            return Ok(Vec::new());
        };
        let view = tokio::task::spawn_blocking(move || source.view())
            .await
            .map_err(|error| Status::internal(error.to_string()))?;
        let view = view.map_err(|error| unreadable(&error))?;
        Ok(view.refusals)
    }
}

/// The sums by reason, of reasons that occurred.
fn together(all: impl Iterator<Item = DropCount>) -> Vec<DropCount> {
    let mut sums: BTreeMap<u32, DropCount> = BTreeMap::new();
    for one in all.filter(|one| one.packets > 0) {
        let sum = sums.entry(one.reason as u32).or_insert(DropCount {
            packets: 0,
            bytes: 0,
            ..one
        });
        sum.packets += one.packets;
        sum.bytes += one.bytes;
    }
    sums.into_values().collect()
}

fn drop_count(drop: &DropCount) -> api::DropCount {
    api::DropCount {
        reason: drop.reason.name().to_owned(),
        description: drop.reason.description().to_owned(),
        packets: drop.packets,
        bytes: drop.bytes,
        answered: drop.reason.is_answered(),
    }
}

#[cfg(test)]
mod tests {
    use bpf_loader::DropReason;

    use super::*;

    #[test]
    fn what_pods_and_gateway_refuse_for_one_reason_is_one_line() {
        let count = |reason, packets| DropCount {
            reason,
            packets,
            bytes: 100 * packets,
        };
        let all = [
            count(DropReason::TooBig, 2),
            count(DropReason::Multicast, 0),
            count(DropReason::NatUnsolicited, 1),
            count(DropReason::TooBig, 3),
        ];
        let mut sums = together(all.into_iter());
        sums.sort_by_key(|sum| sum.packets);
        let wanted = [
            count(DropReason::NatUnsolicited, 1),
            count(DropReason::TooBig, 5),
        ];
        assert_eq!(sums, wanted);
    }
}
