// SPDX-License-Identifier: Apache-2.0
//! The API on the daemon's socket: each service turns what the subsystems say into messages.

mod bfd;
mod bgp;
mod bgp_explain;
mod bgp_routes;
mod cni;
mod config;
mod datapath;
mod egress;
mod egress_list;
mod egress_trace;
mod fib;
mod resources;
mod status;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use router_api::Access;
use router_api::v1alpha1 as api;
use tokio::task::JoinHandle;
use tonic::transport::Server;

pub use bgp::{names as family_names, peers as bgp_peers};
pub use egress::protocol_name;

use crate::run::Parts;

/// Answers that may wait for a slow caller.
const STREAM: usize = 4;

/// Opens the socket and serves until the task is aborted.
///
/// # Errors
/// When the socket cannot be made.
pub async fn serve(parts: Parts) -> anyhow::Result<JoinHandle<()>> {
    let path = parts.effective.settings.socket.clone();
    let listener = router_api::Listener::bind(&path, Access::default())?;
    let router = Server::builder()
        .add_service(api::bfd_server::BfdServer::new(bfd::Service(parts.clone())))
        .add_service(api::bgp_server::BgpServer::new(bgp::Service(parts.clone())))
        .add_service(api::cni_server::CniServer::new(cni::Service(parts.clone())))
        .add_service(api::pods_server::PodsServer::new(cni::Service(
            parts.clone(),
        )))
        .add_service(api::config_server::ConfigServer::new(config::Service(
            parts.clone(),
        )))
        .add_service(api::datapath_server::DatapathServer::new(
            datapath::Service(parts.clone()),
        ))
        .add_service(api::egress_server::EgressServer::new(egress::Service(
            parts.clone(),
        )))
        .add_service(api::fib_server::FibServer::new(fib::Service(parts.clone())))
        .add_service(api::resources_server::ResourcesServer::new(
            resources::Service(parts.clone()),
        ))
        .add_service(api::status_server::StatusServer::new(status::Service(
            parts,
        )));
    Ok(tokio::spawn(async move {
        if let Err(error) = router.serve_with_incoming(listener).await {
            tracing::error!(%error, "the API has ended");
        }
    }))
}

/// Unix time in nanoseconds of a moment of the monotonic clock.
fn unix_ns(at: Instant) -> i64 {
    #[expect(clippy::disallowed_methods, reason = "for people to read")]
    let now = SystemTime::now();
    let time = match at.checked_duration_since(Instant::now()) {
        Some(ahead) => now + ahead,
        None => now - at.elapsed(),
    };
    system_ns(time)
}

fn system_ns(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
