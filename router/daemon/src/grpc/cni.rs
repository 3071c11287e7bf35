// SPDX-License-Identifier: Apache-2.0
//! CNI calls and the list of pods.

use std::path::PathBuf;
use std::time::Duration;

use pods_core::cni::{Answer, Arguments, expected_addresses};
use pods_core::{Attachment, Code, Failure, Phase};
use pods_io::Manager;
use router_api::v1alpha1 as api;
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use crate::run::Parts;

pub struct Service(pub Parts);

impl Service {
    /// The pods part, or the refusal that says why there is none.
    fn pods(&self) -> Result<&Manager, Status> {
        self.0.pods.as_ref().ok_or_else(|| {
            let why = self.0.datapath.as_ref().err().map_or("", |why| why);
            refusal(
                Failure::new(Code::NotAvailable, "the data plane is not loaded")
                    .with_details(why.to_owned()),
            )
        })
    }
}

impl Service {
    /// Waits until the pods there are now have their egress policies. Until then a new pod's
    /// packets to destinations of policies are refused.
    async fn settled(&self) -> Result<(), Status> {
        /// Longer than any decision takes.
        const LIMIT: Duration = Duration::from_secs(20);
        let late = || {
            refusal(Failure::new(
                Code::TryAgain,
                "the egress policies of the pod are not in force yet",
            ))
        };
        let (waiter, told) = oneshot::channel();
        self.0.settle.send(waiter).await.map_err(|_| late())?;
        match tokio::time::timeout(LIMIT, told).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(late()),
        }
    }
}

fn refusal(failure: Failure) -> Status {
    api::CniFailure {
        code: failure.code as u32,
        message: failure.message,
        details: failure.details,
    }
    .into_status()
}

fn attachment(given: Option<api::CniAttachment>) -> Result<Attachment, Status> {
    let given = given.unwrap_or_default();
    Attachment::new(&given.container_id, &given.ifname).map_err(refusal)
}

#[tonic::async_trait]
impl api::cni_server::Cni for Service {
    async fn add(
        &self,
        request: Request<api::CniAddRequest>,
    ) -> Result<Response<api::CniAddResponse>, Status> {
        let pods = self.pods()?;
        let request = request.into_inner();
        let attachment = attachment(request.attachment)?;
        let arguments = Arguments::read(&request.args, &request.config).map_err(refusal)?;
        let endpoint = pods
            .add(
                attachment,
                request.network,
                PathBuf::from(request.netns),
                arguments.pod,
                arguments.requested,
            )
            .await
            .map_err(refusal)?;
        self.settled().await?;
        let answer = Answer::of(&endpoint);
        Ok(Response::new(api::CniAddResponse {
            interfaces: answer
                .interfaces
                .into_iter()
                .map(|interface| api::CniInterface {
                    name: interface.name,
                    mac: interface.mac.to_string(),
                    mtu: interface.mtu,
                    sandbox: interface.sandbox,
                })
                .collect(),
            ips: answer
                .ips
                .into_iter()
                .map(|(address, gateway)| api::CniIp {
                    address: address.to_string(),
                    gateway: gateway.to_string(),
                    interface: 1,
                })
                .collect(),
            routes: answer
                .routes
                .into_iter()
                .map(|(destination, gateway)| api::CniRoute {
                    dst: destination.to_string(),
                    gw: gateway.to_string(),
                })
                .collect(),
        }))
    }

    async fn del(
        &self,
        request: Request<api::CniDelRequest>,
    ) -> Result<Response<api::CniDelResponse>, Status> {
        let attachment = attachment(request.into_inner().attachment)?;
        self.pods()?.del(attachment).await.map_err(refusal)?;
        let (waiter, _) = oneshot::channel();
        // Nobody waits for it; when many do already, their turn serves this one too.
        let _ = self.0.settle.try_send(waiter);
        Ok(Response::new(api::CniDelResponse {}))
    }

    async fn check(
        &self,
        request: Request<api::CniCheckRequest>,
    ) -> Result<Response<api::CniCheckResponse>, Status> {
        let request = request.into_inner();
        let attachment = attachment(request.attachment)?;
        let expected =
            expected_addresses(&request.previous_result, &attachment).map_err(refusal)?;
        let netns = (!request.netns.is_empty()).then(|| PathBuf::from(request.netns));
        self.pods()?
            .check(attachment, netns, expected)
            .await
            .map_err(refusal)?;
        Ok(Response::new(api::CniCheckResponse {}))
    }

    async fn gc(
        &self,
        request: Request<api::CniGcRequest>,
    ) -> Result<Response<api::CniGcResponse>, Status> {
        let request = request.into_inner();
        let valid = request
            .valid_attachments
            .into_iter()
            .map(|given| attachment(Some(given)))
            .collect::<Result<_, _>>()?;
        let removed = self
            .pods()?
            .gc(request.network, valid)
            .await
            .map_err(refusal)?;
        Ok(Response::new(api::CniGcResponse {
            removed: removed
                .into_iter()
                .map(|attachment| api::CniAttachment {
                    container_id: attachment.container_id,
                    ifname: attachment.ifname,
                })
                .collect(),
        }))
    }

    async fn status(
        &self,
        _: Request<api::CniStatusRequest>,
    ) -> Result<Response<api::CniStatusResponse>, Status> {
        match self.pods()?.status().await.map_err(refusal)?.not_ready {
            Some(failure) => Err(refusal(failure)),
            None => Ok(Response::new(api::CniStatusResponse {})),
        }
    }
}

#[tonic::async_trait]
impl api::pods_server::Pods for Service {
    async fn list_pods(
        &self,
        request: Request<api::ListPodsRequest>,
    ) -> Result<Response<api::ListPodsResponse>, Status> {
        let wanted = request.into_inner();
        let node = self.0.effective.settings.node_name.clone();
        let Some(pods) = &self.0.pods else {
            return Ok(Response::new(api::ListPodsResponse {
                node,
                ..Default::default()
            }));
        };
        let endpoints = pods.list().await.map_err(refusal)?;
        let status = pods.status().await.map_err(refusal)?;
        let pods = endpoints
            .into_iter()
            .filter(|view| {
                let pod = view.endpoint.pod.as_ref();
                (wanted.namespace.is_empty()
                    || pod.is_some_and(|pod| pod.namespace == wanted.namespace))
                    && (wanted.name.is_empty() || pod.is_some_and(|pod| pod.name == wanted.name))
            })
            .map(|view| {
                let endpoint = view.endpoint;
                let pod = endpoint.pod.unwrap_or_default();
                api::Pod {
                    endpoint_id: endpoint.id.0,
                    namespace: pod.namespace,
                    name: pod.name,
                    container_id: endpoint.attachment.container_id,
                    ifname: endpoint.attachment.ifname,
                    host_ifname: endpoint.host_ifname,
                    netns: endpoint.netns.path,
                    addresses: endpoint.addresses.iter().map(ToString::to_string).collect(),
                    mac: endpoint.pod_mac.to_string(),
                    mtu: endpoint.mtu,
                    phase: match (&view.problem, endpoint.phase) {
                        (Some(_), _) => "failed",
                        (None, Phase::Creating) => "creating",
                        (None, Phase::Ready) => "ready",
                    }
                    .to_owned(),
                    message: view.problem.unwrap_or_default(),
                    labels: pod.labels.map(|labels| api::PodLabels {
                        labels: labels.into_iter().collect(),
                    }),
                }
            })
            .collect();
        let pools = status
            .pools
            .iter()
            .map(|pool| api::AddressPool {
                prefix: pool.cidr.to_string(),
                used: pool.held as u64,
                size: u64::try_from(pool.usable).unwrap_or(u64::MAX),
                retired: false,
            })
            .collect();
        Ok(Response::new(api::ListPodsResponse { node, pods, pools }))
    }
}
