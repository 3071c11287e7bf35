// SPDX-License-Identifier: Apache-2.0
//! The routes of the BGP tables, streamed page by page.

use bgp_core::config::{InstanceName, PeerConfig, PeerName};
use bgp_core::rib::{PrefixFilter, RouteQuery, RouteTable, RouteView, Verdict};
use bgp_wire::{Destination, Label, PathAttributes};
use ipnet::IpNet;
use router_api::v1alpha1 as api;
use router_types::Family;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};

use super::{STREAM, bgp};
use crate::run::Parts;

/// Routes in one page.
const PAGE: usize = 1024;

type Stream = ReceiverStream<Result<api::RouteBatch, Status>>;

/// One table to go through.
struct Source {
    instance: InstanceName,
    local_asn: u32,
    table: RouteTable,
}

/// Answers `ListRoutes`.
pub async fn list(
    parts: &Parts,
    request: api::ListRoutesRequest,
) -> Result<Response<Stream>, Status> {
    let families = families(request.family.as_ref())?;
    let filter = filter(&request)?;
    let peers = bgp::peers(parts).await;
    let sources = sources(&request, &peers)?;
    let node = parts.effective.settings.node_name.clone();
    let speaker = parts.speaker.clone();
    let only_longest = !request.for_address.is_empty();
    let (sender, receiver) = tokio::sync::mpsc::channel(STREAM);
    tokio::spawn(async move {
        let mut left = if request.limit == 0 {
            u64::MAX
        } else {
            request.limit
        };
        for source in sources {
            for family in &families {
                let mut after = None;
                let mut longest: Vec<RouteView> = Vec::new();
                loop {
                    let query = RouteQuery {
                        table: source.table.clone(),
                        family: *family,
                        filter: filter.clone(),
                        after,
                        limit: usize::try_from(left).unwrap_or(PAGE).min(PAGE),
                    };
                    let page = speaker
                        .ask(&source.instance, move |rib, now| rib.routes(&query, now))
                        .await;
                    let Some(page) = page else { break };
                    after = page.next;
                    if only_longest {
                        longest.extend(page.routes);
                        // The same prefix may be in several VPNs.
                        let bits = |view: &RouteView| view.prefix.prefix().map(|p| p.prefix_len());
                        let most = longest.iter().filter_map(bits).max();
                        longest.retain(|route| bits(route) == most);
                    } else if !send(&sender, &node, &source, &peers, page.routes, &mut left).await {
                        return;
                    }
                    if after.is_none() || left == 0 {
                        break;
                    }
                }
                if !send(&sender, &node, &source, &peers, longest, &mut left).await {
                    return;
                }
            }
        }
    });
    Ok(Response::new(ReceiverStream::new(receiver)))
}

async fn send(
    sender: &tokio::sync::mpsc::Sender<Result<api::RouteBatch, Status>>,
    node: &str,
    source: &Source,
    peers: &[api::BgpPeer],
    routes: Vec<RouteView>,
    left: &mut u64,
) -> bool {
    let taken = usize::try_from(*left).unwrap_or(usize::MAX);
    let routes: Vec<api::BgpRoute> = routes
        .into_iter()
        .take(taken)
        .map(|view| route(&source.instance.0, source.local_asn, peers, view))
        .collect();
    *left -= routes.len() as u64;
    if routes.is_empty() {
        return true;
    }
    sender
        .send(Ok(api::RouteBatch {
            node: node.to_owned(),
            routes,
        }))
        .await
        .is_ok()
}

fn families(wanted: Option<&api::AddressFamily>) -> Result<Vec<Family>, Status> {
    let known = PeerConfig::CARRIED;
    let Some(wanted) = wanted.filter(|family| !family.afi.is_empty()) else {
        return Ok(known[..2].to_vec());
    };
    let safi = if wanted.safi.is_empty() {
        "unicast"
    } else {
        &wanted.safi
    };
    known
        .into_iter()
        .find(|family| bgp::names(*family) == (wanted.afi.clone(), safi.to_owned()))
        .map(|family| vec![family])
        .ok_or_else(|| {
            Status::invalid_argument(format!(
                "family {} {safi} is not carried: use ipv4 or ipv6 with unicast or mpls_vpn, or \
                 ipv4 route_target_constraints",
                wanted.afi
            ))
        })
}

fn filter(request: &api::ListRoutesRequest) -> Result<PrefixFilter, Status> {
    if !request.for_address.is_empty() {
        return request
            .for_address
            .parse()
            .map(PrefixFilter::For)
            .map_err(|_| {
                Status::invalid_argument(format!("{:?} is no address", request.for_address))
            });
    }
    if request.prefix.is_empty() {
        return Ok(PrefixFilter::All);
    }
    let prefix: IpNet = request.prefix.parse().map_err(|_| {
        Status::invalid_argument(format!(
            "{:?} is no prefix: write 10.0.0.0/8",
            request.prefix
        ))
    })?;
    Ok(if request.longer {
        PrefixFilter::Longer(prefix.trunc())
    } else {
        PrefixFilter::Exact(prefix.trunc())
    })
}

/// The tables asked for: one for each instance, or for each peer where the table is a peer's.
fn sources(
    request: &api::ListRoutesRequest,
    peers: &[api::BgpPeer],
) -> Result<Vec<Source>, Status> {
    let wanted: Vec<&api::BgpPeer> = peers
        .iter()
        .filter(|peer| request.instance.is_empty() || request.instance == peer.instance)
        .filter(|peer| request.peer.is_empty() || bgp::is_named(peer, &request.peer))
        .collect();
    if wanted.is_empty() && !request.peer.is_empty() {
        return Err(Status::not_found(format!(
            "no peer {:?}: `causeway bgp peers`",
            request.peer
        )));
    }
    if wanted.is_empty() && !request.instance.is_empty() {
        return Err(Status::not_found(format!(
            "no instance {:?}",
            request.instance
        )));
    }
    let source = |peer: &api::BgpPeer, table| Source {
        instance: InstanceName(peer.instance.clone()),
        local_asn: peer.local_asn,
        table,
    };
    let name = |peer: &api::BgpPeer| PeerName::from(peer.name.clone());
    Ok(match request.table() {
        api::RouteTable::Unspecified | api::RouteTable::Available => {
            let mut sources: Vec<Source> = Vec::new();
            for peer in wanted {
                if !sources
                    .iter()
                    .any(|known| known.instance.0 == peer.instance)
                {
                    sources.push(source(peer, RouteTable::Available));
                }
            }
            sources
        }
        api::RouteTable::Received => wanted
            .iter()
            .map(|peer| source(peer, RouteTable::Received(name(peer))))
            .collect(),
        api::RouteTable::Advertised => wanted
            .iter()
            .map(|peer| source(peer, RouteTable::Advertised(name(peer))))
            .collect(),
        api::RouteTable::Filtered => wanted
            .iter()
            .map(|peer| source(peer, RouteTable::Filtered(name(peer))))
            .collect(),
    })
}

/// A route of an instance.
pub fn route(
    instance: &str,
    local_asn: u32,
    peers: &[api::BgpPeer],
    view: RouteView,
) -> api::BgpRoute {
    let peer = view
        .peer
        .as_ref()
        .map(|peer| peer.0.to_string())
        .unwrap_or_default();
    let (afi, safi) = bgp::names(view.prefix.family());
    let rd = match view.prefix {
        Destination::Vpn(vpn) => vpn.rd.to_string(),
        Destination::Ip(_) | Destination::RouteTarget(_) => String::new(),
    };
    api::BgpRoute {
        instance: instance.to_owned(),
        local_asn,
        prefix: match view.prefix {
            Destination::Vpn(vpn) => vpn.prefix.to_string(),
            other => other.to_string(),
        },
        route_distinguisher: rd,
        label: view.label.map(Label::value),
        next_hop: view.next_hop.map(|hop| hop.to_string()).unwrap_or_default(),
        peer_address: peers
            .iter()
            .find(|known| known.instance == instance && known.name == peer)
            .map(|known| known.peer_address.clone())
            .unwrap_or_default(),
        peer,
        since_unix_ns: view.age.map_or(0, bgp::since),
        best: view.is_best(),
        multipath: view.verdict == Some(Verdict::Multipath),
        reason: match view.verdict {
            None | Some(Verdict::Best) => String::new(),
            Some(verdict) => verdict.to_string(),
        },
        attributes: view.attributes.as_ref().map(attributes),
        stale: view.stale,
        family: Some(api::AddressFamily { afi, safi }),
    }
}

/// Path attributes.
pub fn attributes(attributes: &PathAttributes) -> api::PathAttributes {
    fn texts<T: ToString>(values: &[T]) -> Vec<String> {
        values.iter().map(ToString::to_string).collect()
    }
    api::PathAttributes {
        origin: attributes
            .origin
            .map(|origin| origin.to_string())
            .unwrap_or_default(),
        as_path: attributes
            .as_path
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        med: attributes.med,
        local_pref: attributes.local_pref,
        communities: texts(&attributes.communities),
        large_communities: texts(&attributes.large_communities),
        extended_communities: texts(&attributes.extended_communities),
        atomic_aggregate: attributes.atomic_aggregate,
        aggregator: attributes
            .aggregator
            .as_ref()
            .map(|aggregator| format!("{} {}", aggregator.asn, aggregator.router_id))
            .unwrap_or_default(),
        originator_id: attributes
            .originator_id
            .map(|id| id.to_string())
            .unwrap_or_default(),
        cluster_list: texts(&attributes.cluster_list),
        unknown: attributes
            .opaque
            .iter()
            .map(|opaque| api::UnknownAttribute {
                r#type: u32::from(opaque.code.0),
                flags: u32::from(opaque.flags.bits()),
                value: opaque.value.clone(),
            })
            .collect(),
    }
}
