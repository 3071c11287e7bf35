// SPDX-License-Identifier: Apache-2.0
//! BFD sessions, as the process that runs them reports.

use bgp_bfd::profile::Hops;
use bgp_bfdd::client::Connection;
use bgp_bfdd::protocol::SessionReport;
use router_api::v1alpha1 as api;
use tonic::{Request, Response, Status};

use crate::run::Parts;

pub struct Service(pub Parts);

#[tonic::async_trait]
impl api::bfd_server::Bfd for Service {
    async fn list_bfd_sessions(
        &self,
        request: Request<api::ListBfdSessionsRequest>,
    ) -> Result<Response<api::ListBfdSessionsResponse>, Status> {
        let peer = request.into_inner().peer;
        let node = self.0.effective.settings.node_name.clone();
        let connection = self.0.bfd.connection().borrow().clone();
        if let Connection::Missing(why) = connection {
            // Without sessions there need not be a process.
            return Ok(Response::new(api::ListBfdSessionsResponse {
                node,
                warnings: vec![format!("causeway-bfdd is not there: {why}")],
                ..Default::default()
            }));
        }
        let report = self.0.bfd.report().await;
        let report = report.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(api::ListBfdSessionsResponse {
            node,
            pid: report.pid,
            warnings: report.warnings,
            sessions: report
                .sessions
                .iter()
                .filter(|session| peer.is_empty() || session.key.peer.to_string() == peer)
                .map(session)
                .collect(),
            drops: drops(&report.drops),
            lateness_max_us: report.lateness_max_us,
        }))
    }
}

fn drops(all: &[(String, u64)]) -> Vec<api::BfdDrop> {
    let one = |(reason, packets): &(String, u64)| api::BfdDrop {
        reason: reason.clone(),
        packets: *packets,
    };
    all.iter().map(one).collect()
}

fn session(report: &SessionReport) -> api::BfdSession {
    let (key, status) = (&report.key, &report.status);
    let source = report.source.map(|source| source.ip());
    api::BfdSession {
        peer: key.peer.to_string(),
        local_address: key
            .local
            .or(source)
            .map(|a| a.to_string())
            .unwrap_or_default(),
        interface: key.interface.clone().unwrap_or_default(),
        hops: match key.hops {
            Hops::Single => "single-hop".into(),
            Hops::Multi => "multi-hop".into(),
        },
        state: status.state.name().into(),
        diagnostic: status.diagnostic.text().into(),
        remote_state: status.remote_state.name().into(),
        remote_diagnostic: status.remote_diagnostic.text().into(),
        in_state_ms: u64::try_from(status.in_state.as_millis()).unwrap_or(u64::MAX),
        local_discriminator: status.local_discriminator,
        remote_discriminator: status.remote_discriminator,
        transmit_interval_us: status.transmit_interval_us,
        detection_time_us: status.detection_time_us,
        multiplier: status.multiplier.into(),
        desired_min_tx_us: status.desired_min_tx_us,
        required_min_rx_us: status.required_min_rx_us,
        required_min_echo_rx_us: status.required_min_echo_rx_us,
        remote_multiplier: status.remote_multiplier.into(),
        remote_min_tx_us: status.remote_min_tx_us,
        remote_min_rx_us: status.remote_min_rx_us,
        remote_min_echo_rx_us: status.remote_min_echo_rx_us,
        remote_control_plane_independent: status.remote_control_plane_independent,
        polling: status.polling,
        packets_in: status.packets_in,
        packets_out: status.packets_out,
        up_count: status.up_count,
        down_count: status.down_count,
        last_down: status
            .last_down
            .map(|d| d.text().into())
            .unwrap_or_default(),
        failure: report.failure.clone().unwrap_or_default(),
        send_failures: report.send_failures,
        drops: drops(&report.drops),
        echo_state: status.echo_state.name().into(),
        echo_interval_us: status.echo.map_or(0, |echo| echo.interval_us),
        echo_detection_time_us: status.echo.map_or(0, |echo| echo.detection_time_us),
        echo_round_trip_us: status.echo.map_or(0, |echo| echo.round_trip_us),
        echoes_in: status.echoes_in,
        echoes_out: status.echoes_out,
        echoes_lost: status.echoes_lost,
        echoes_reflected: report.echoes_reflected,
        echo_source: report
            .echo_source
            .map(|a| a.to_string())
            .unwrap_or_default(),
        echo_failure: report.echo_failure.clone().unwrap_or_default(),
    }
}
