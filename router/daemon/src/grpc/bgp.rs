// SPDX-License-Identifier: Apache-2.0
//! The neighbours of the BGP instances.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use bgp_config::SessionStatus;
use bgp_core::config::{
    ConnectMode, FamilyConfig, ImportMode, InstanceName, PeerConfig, PeerName, PrefixLimit,
};
use bgp_core::fsm::State;
use bgp_core::peer::{DownReason, MessageCounts, NotificationRecord};
use bgp_io::{InstanceSnapshot, PeerReport, Reset};
use bgp_wire::describe::capability_value;
use bgp_wire::{AttributeCode, Capability};
use router_api::v1alpha1 as api;
use router_resources::kinds::PeeringState;
use router_types::{Family, TableId};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{bgp_explain, bgp_routes, unix_ns};
use crate::intent::lock;
use crate::learned::Delivered;
use crate::run::Parts;

pub struct Service(pub Parts);

#[tonic::async_trait]
impl api::bgp_server::Bgp for Service {
    type ListRoutesStream = ReceiverStream<Result<api::RouteBatch, Status>>;

    async fn list_peers(
        &self,
        request: Request<api::ListPeersRequest>,
    ) -> Result<Response<api::ListPeersResponse>, Status> {
        let request = request.into_inner();
        let node = self.0.effective.settings.node_name.clone();
        Ok(Response::new(api::ListPeersResponse {
            node,
            peers: peers(&self.0)
                .await
                .into_iter()
                .filter(|peer| {
                    (request.instance.is_empty() || request.instance == peer.instance)
                        && (request.peer.is_empty() || is_named(peer, &request.peer))
                })
                .collect(),
        }))
    }

    async fn list_routes(
        &self,
        request: Request<api::ListRoutesRequest>,
    ) -> Result<Response<Self::ListRoutesStream>, Status> {
        bgp_routes::list(&self.0, request.into_inner()).await
    }

    async fn explain_prefix(
        &self,
        request: Request<api::ExplainPrefixRequest>,
    ) -> Result<Response<api::ExplainPrefixResponse>, Status> {
        let answer = bgp_explain::explain(&self.0, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn begin_drain(
        &self,
        request: Request<api::BeginDrainRequest>,
    ) -> Result<Response<api::DrainState>, Status> {
        let request = request.into_inner();
        let wait = Duration::from_secs(request.wait_s.into());
        let begun = self.0.drain.begin(wait, request.reason);
        begun.map_err(|error| {
            Status::failed_precondition(format!(
                "the drain would not survive a restart, so it is not begun: {error}"
            ))
        })?;
        Ok(Response::new(drain_state(&self.0)))
    }

    async fn end_drain(
        &self,
        _: Request<api::EndDrainRequest>,
    ) -> Result<Response<api::DrainState>, Status> {
        self.0.drain.end().map_err(|error| {
            Status::failed_precondition(format!(
                "the node would be drained after a restart: {error}"
            ))
        })?;
        Ok(Response::new(drain_state(&self.0)))
    }

    async fn get_drain(
        &self,
        _: Request<api::GetDrainRequest>,
    ) -> Result<Response<api::DrainState>, Status> {
        Ok(Response::new(drain_state(&self.0)))
    }

    async fn refresh_peer(
        &self,
        request: Request<api::RefreshPeerRequest>,
    ) -> Result<Response<api::PeerActionResponse>, Status> {
        let request = request.into_inner();
        self.act(
            &request.instance,
            &request.peer,
            Reset::SoftIn,
            "asked for its routes",
        )
        .await
    }

    async fn reset_peer(
        &self,
        request: Request<api::ResetPeerRequest>,
    ) -> Result<Response<api::PeerActionResponse>, Status> {
        let request = request.into_inner();
        self.act(
            &request.instance,
            &request.peer,
            Reset::Hard,
            "session reset",
        )
        .await
    }
}

impl Service {
    async fn act(
        &self,
        instance: &str,
        peer: &str,
        how: Reset,
        what: &str,
    ) -> Result<Response<api::PeerActionResponse>, Status> {
        let mut done = Vec::new();
        for found in peers(&self.0).await {
            if (instance.is_empty() || instance == found.instance) && is_named(&found, peer) {
                if how == Reset::SoftIn && found.session_state() != api::SessionState::Established {
                    return Err(Status::failed_precondition(format!(
                        "the session with {}/{} is not established, so there is nobody to ask; its \
                         routes come when it is",
                        found.instance, found.name
                    )));
                }
                let instance = InstanceName(found.instance.clone());
                let name = PeerName::from(found.name.clone());
                if self.0.speaker.reset(&instance, &name, how).await {
                    done.push(format!("{}/{}: {what}", found.instance, found.name));
                }
            }
        }
        if done.is_empty() {
            return Err(Status::not_found(format!(
                "no peer {peer:?}: `causeway bgp peers`"
            )));
        }
        Ok(Response::new(api::PeerActionResponse { done }))
    }
}

fn drain_state(parts: &Parts) -> api::DrainState {
    let node = parts.effective.settings.node_name.clone();
    let Some(asked) = parts.drain.asked() else {
        return api::DrainState {
            node,
            phase: "in-service".to_owned(),
            ..Default::default()
        };
    };
    let since = Duration::from_secs(asked.since_unix_s).as_nanos();
    api::DrainState {
        node,
        phase: if asked.withdrawn {
            "withdrawn"
        } else {
            "announcing"
        }
        .to_owned(),
        since_unix_ns: i64::try_from(since).unwrap_or(i64::MAX),
        wait_s: u32::try_from(asked.wait_s).unwrap_or(u32::MAX),
        reason: asked.reason,
    }
}

/// Whether a peer goes by a name or address.
pub fn is_named(peer: &api::BgpPeer, name: &str) -> bool {
    peer.name == name || peer.peer_address == name
}

/// All neighbours: those that run, and those the configuration names and that cannot run.
pub async fn peers(parts: &Parts) -> Vec<api::BgpPeer> {
    let mut peers: Vec<api::BgpPeer> = Vec::new();
    let instances = parts.speaker.snapshot().await;
    let off_link = off_link(parts, &instances).await;
    for instance in &instances {
        peers.extend(
            instance
                .peers
                .iter()
                .map(|report| peer(&parts.delivered, &off_link, instance, report)),
        );
    }
    let state = lock(&parts.state);
    for skipped in &state.compiled.skipped {
        let local_asn = state
            .compiled
            .instances
            .iter()
            .find(|instance| instance.config.name().0 == skipped.instance)
            .map_or(0, |instance| instance.config.local_asn().0);
        let asn = u32::try_from(skipped.asn).unwrap_or_default();
        peers.push(api::BgpPeer {
            instance: skipped.instance.clone(),
            name: skipped.peer.clone(),
            local_asn,
            peer_asn: asn,
            configured_peer_asn: asn,
            peer_address: skipped.address.clone().unwrap_or_default(),
            session_state: api::SessionState::Idle.into(),
            down_reason: skipped.why.clone(),
            down_code: "CW0201".to_owned(),
            ..Default::default()
        });
    }
    peers.sort_by(|a, b| (&a.instance, &a.name).cmp(&(&b.instance, &b.name)));
    peers
}

/// The sessions in the words of the status of `CiliumBGPNodeConfig`.
pub async fn session_statuses(parts: &Parts) -> Vec<SessionStatus> {
    let mut all = Vec::new();
    for instance in parts.speaker.snapshot().await {
        for report in &instance.peers {
            let session = &report.session;
            all.push(SessionStatus {
                instance: instance.config.name().0.clone(),
                peer: session.name.0.to_string(),
                peer_asn: session
                    .remote_asn
                    .or(session.configured_asn)
                    .map(|asn| asn.0),
                state: match session.state {
                    State::Idle => PeeringState::Idle,
                    State::Connect => PeeringState::Connect,
                    State::Active => PeeringState::Active,
                    State::OpenSent => PeeringState::OpenSent,
                    State::OpenConfirm => PeeringState::OpenConfirm,
                    State::Established => PeeringState::Established,
                },
                hold_time_s: session.timers.hold_s,
                keepalive_s: session
                    .timers
                    .keepalive
                    .map(|every| u16::try_from(every.as_secs()).unwrap_or(u16::MAX)),
                established_since: session.established_at.map(|at| {
                    #[expect(clippy::disallowed_methods, reason = "for people to read")]
                    let now = SystemTime::now();
                    now - at.elapsed()
                }),
                routes: report
                    .routes
                    .iter()
                    .map(|(family, counts)| (*family, counts.received, counts.advertised))
                    .collect(),
            });
        }
    }
    all
}

/// The neighbours one hop away that are on no network of this node.
async fn off_link(parts: &Parts, instances: &[InstanceSnapshot]) -> BTreeSet<IpAddr> {
    let sessions = instances.iter().flat_map(|instance| &instance.peers);
    let one_hop: Vec<IpAddr> = sessions
        .map(|report| &report.session)
        .filter(|session| session.ttl == 1 && session.down.is_some())
        .map(|session| session.address.ip())
        .collect();
    if one_hop.is_empty() {
        return BTreeSet::new();
    }
    let answer = parts.routes.ask(move |view| {
        let topology = view.rib.topology();
        let is_off = |ip: &IpAddr| topology.connected_around(TableId::MAIN, *ip).is_none();
        one_hop.into_iter().filter(is_off).collect()
    });
    answer.await.unwrap_or_default()
}

fn peer(
    delivered: &Delivered,
    off_link: &BTreeSet<IpAddr>,
    instance: &InstanceSnapshot,
    report: &PeerReport,
) -> api::BgpPeer {
    let session = &report.session;
    let config = instance.config.peers().get(&session.name);
    let why = session.down.clone().map(|why| {
        if off_link.contains(&session.address.ip()) {
            why.off_link()
        } else {
            why
        }
    });
    let down = why.as_ref().map(ToString::to_string).unwrap_or_default();
    // Reasons end with the question to ask, where there is one.
    let (down_reason, down_hint) = match down.split_once(": ") {
        Some((reason, hint)) if hint.ends_with('?') => (reason.to_owned(), hint.to_owned()),
        _ => (down, String::new()),
    };
    api::BgpPeer {
        instance: instance.config.name().0.clone(),
        name: session.name.0.to_string(),
        local_asn: session.local_asn.0,
        peer_asn: session
            .remote_asn
            .or(session.configured_asn)
            .map_or(0, |asn| asn.0),
        configured_peer_asn: session.configured_asn.map_or(0, |asn| asn.0),
        peer_address: session.address.to_string(),
        peer_port: u32::from(session.port),
        session_state: state(session.state).into(),
        uptime_ns: session.established_at.map_or(0, |at| {
            i64::try_from(at.elapsed().as_nanos()).unwrap_or(i64::MAX)
        }),
        state_since_unix_ns: unix_ns(session.since),
        families: config
            .map(|config| families(delivered, instance.config.name(), config, report))
            .unwrap_or_default(),
        timers: Some(api::PeerTimers {
            configured_hold_s: u32::from(session.timers.configured.hold_s()),
            applied_hold_s: u32::from(session.timers.hold_s.unwrap_or_default()),
            configured_keepalive_s: seconds(session.timers.configured.keepalive()),
            applied_keepalive_s: session.timers.keepalive.map_or(0, seconds),
            connect_retry_s: seconds(session.timers.configured.connect_retry()),
        }),
        graceful_restart: Some(graceful_restart(report)),
        local_capabilities: session.capabilities_sent.iter().map(capability).collect(),
        remote_capabilities: session
            .capabilities_received
            .iter()
            .map(capability)
            .collect(),
        sent: Some(counters(&session.counters.sent)),
        received: Some(counters(&session.counters.received)),
        last_notification_sent: session.notification_sent.as_ref().map(notification),
        last_notification_received: session.notification_received.as_ref().map(notification),
        down_reason,
        down_hint,
        down_code: why.as_ref().map_or("", DownReason::code).to_owned(),
        history: session
            .history
            .iter()
            .rev()
            .map(|change| api::StateChange {
                at_unix_ns: unix_ns(change.at),
                from: state(change.from).into(),
                to: state(change.to).into(),
                reason: match &change.reason {
                    Some(reason) => reason.to_string(),
                    None => format!("{:?}", change.event),
                },
            })
            .collect(),
        local_endpoint: session
            .local_endpoint()
            .map(|endpoint| endpoint.to_string())
            .unwrap_or_default(),
        local_router_id: session.router_id.to_string(),
        peer_router_id: session
            .remote_router_id
            .map(|id| id.to_string())
            .unwrap_or_default(),
        md5: session.password,
        ttl: u32::from(session.ttl),
        connect_mode: config
            .map(|config| match config.connect {
                ConnectMode::Both => "both",
                ConnectMode::Active => "active",
                ConnectMode::Passive => "passive",
            })
            .unwrap_or_default()
            .to_owned(),
        established_count: session.counters.established,
        attribute_errors: session
            .counters
            .attribute_errors
            .iter()
            .map(|((attribute, treatment), count)| api::AttributeErrorCount {
                attribute: AttributeCode(*attribute).to_string(),
                treatment: treatment.name().to_owned(),
                count: *count,
            })
            .collect(),
        interface: config
            .and_then(|config| config.interface.clone())
            .unwrap_or_default(),
    }
}

fn families(
    delivered: &Delivered,
    instance: &InstanceName,
    config: &PeerConfig,
    report: &PeerReport,
) -> Vec<api::PeerFamily> {
    let negotiated = |family: &Family| {
        report
            .session
            .negotiated
            .as_ref()
            .is_some_and(|n| n.families().any(|f| f == *family))
    };
    config
        .families()
        .iter()
        .map(|(family, config)| {
            let counts = report.routes.get(family).copied().unwrap_or_default();
            let (afi, safi) = names(*family);
            api::PeerFamily {
                afi,
                safi,
                received: counts.received,
                accepted: counts.accepted,
                advertised: counts.advertised,
                held: counts.held,
                export_limit: config.limit_out.map_or(0, std::num::NonZeroU32::get),
                import_limit: config.limit.map_or(0, PrefixLimit::limit),
                import_warning: config.limit.map_or(0, PrefixLimit::warn_at),
                negotiated: negotiated(family),
                end_of_rib_received: delivered.has(instance, &report.session.name, *family),
                import_policy: policy(config),
            }
        })
        .collect()
}

/// `ipv4` and `unicast`.
pub fn names(family: Family) -> (String, String) {
    let text = family.to_string();
    match text.split_once('/') {
        Some((afi, safi)) => (afi.to_owned(), safi.to_owned()),
        None => (text, String::new()),
    }
}

fn policy(config: &FamilyConfig) -> String {
    let mode = match &config.import.mode {
        ImportMode::DefaultRoute => "default route only".to_owned(),
        ImportMode::Prefixes(ranges) => format!("{} prefix ranges", ranges.len()),
        ImportMode::All => "everything".to_owned(),
        ImportMode::None => "nothing".to_owned(),
    };
    match config.limit {
        Some(limit) => format!("{mode}, at most {} routes", limit.limit()),
        None => mode,
    }
}

fn graceful_restart(report: &PeerReport) -> api::GracefulRestart {
    let session = &report.session;
    let theirs = session
        .capabilities_received
        .iter()
        .find_map(|capability| match capability {
            Capability::GracefulRestart(theirs) => Some(theirs),
            _ => None,
        });
    api::GracefulRestart {
        enabled: session.graceful_restart_s.is_some(),
        restart_time_s: u32::from(session.graceful_restart_s.unwrap_or_default()),
        peer_enabled: theirs.is_some(),
        peer_restart_time_s: theirs.map_or(0, |theirs| u32::from(theirs.restart_time_s)),
        note: String::new(),
    }
}

fn capability(capability: &Capability) -> api::Capability {
    api::Capability {
        code: u32::from(capability.code()),
        name: Capability::name_of(capability.code())
            .unwrap_or("unknown")
            .to_owned(),
        value: capability_value(capability),
    }
}

fn counters(counts: &MessageCounts) -> api::MessageCounters {
    api::MessageCounters {
        open: counts.open,
        update: counts.update,
        notification: counts.notification,
        keepalive: counts.keepalive,
        route_refresh: counts.route_refresh,
        bytes: counts.bytes,
    }
}

fn notification(record: &NotificationRecord) -> api::NotificationRecord {
    let text = &record.notification;
    api::NotificationRecord {
        code: u32::from(text.code),
        subcode: u32::from(text.subcode),
        // The text ends with the numbers, which have fields of their own.
        name: text.text.split(" (").next().unwrap_or_default().to_owned(),
        text: text.meaning.clone(),
        data: text.data.clone(),
        at_unix_ns: unix_ns(record.at),
    }
}

fn state(state: State) -> api::SessionState {
    match state {
        State::Idle => api::SessionState::Idle,
        State::Connect => api::SessionState::Connect,
        State::Active => api::SessionState::Active,
        State::OpenSent => api::SessionState::OpenSent,
        State::OpenConfirm => api::SessionState::OpenConfirm,
        State::Established => api::SessionState::Established,
    }
}

fn seconds(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

/// When a route of an age came.
pub fn since(age: std::time::Duration) -> i64 {
    unix_ns(Instant::now().checked_sub(age).unwrap_or_else(Instant::now))
}
