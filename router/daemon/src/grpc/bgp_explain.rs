// SPDX-License-Identifier: Apache-2.0
//! Why a prefix is routed and announced as it is.

use std::net::IpAddr;

use bgp_core::config::{InstanceName, PeerName};
use bgp_core::rib::{
    Advert, AdvertExplanation, Explanation, PathExplanation, PolicyStatement, Silence, Verdict,
    Withheld,
};
use bgp_wire::{Destination, RouteDistinguisher, VpnPrefix};
use ipnet::IpNet;
use router_api::v1alpha1 as api;
use tonic::Status;

use super::bgp;
use super::bgp_routes::{attributes, route};
use crate::run::Parts;

/// What is asked about.
enum Asked {
    Prefix(IpNet),
    Address(IpAddr),
}

/// Answers `ExplainPrefix`.
pub async fn explain(
    parts: &Parts,
    request: api::ExplainPrefixRequest,
) -> Result<api::ExplainPrefixResponse, Status> {
    let text = &request.destination;
    let destination = match (text.parse::<IpNet>(), text.parse::<IpAddr>()) {
        (Ok(prefix), _) => Asked::Prefix(prefix.trunc()),
        (_, Ok(address)) => Asked::Address(address),
        _ => {
            return Err(Status::invalid_argument(format!(
                "{text:?} is neither a prefix nor an address: write 10.0.0.0/8 or 10.1.2.3"
            )));
        }
    };
    let rd = match request.route_distinguisher.as_str() {
        "" => None,
        text => Some(text.parse::<RouteDistinguisher>().map_err(|error| {
            Status::invalid_argument(format!(
                "{text:?} is no route distinguisher: {error}: write 65000:1 or 192.0.2.1:1"
            ))
        })?),
    };
    let peers = bgp::peers(parts).await;
    let mut wanted: Vec<(&str, u32, Option<PeerName>)> = Vec::new();
    for peer in &peers {
        let here = request.instance.is_empty() || request.instance == peer.instance;
        let named = request.peer.is_empty() || bgp::is_named(peer, &request.peer);
        if here && named && wanted.iter().all(|(known, ..)| *known != peer.instance) {
            let name = (!request.peer.is_empty()).then(|| PeerName::from(peer.name.clone()));
            wanted.push((&peer.instance, peer.local_asn, name));
        }
    }
    if wanted.is_empty() {
        return Err(Status::not_found(
            match (&request.peer, &request.instance) {
                (peer, _) if !peer.is_empty() => format!("no peer {peer:?}: `causeway bgp peers`"),
                (_, instance) if !instance.is_empty() => format!("no instance {instance:?}"),
                _ => "no BGP instance runs on this node: `causeway resources` says why".to_owned(),
            },
        ));
    }
    let mut explanations = Vec::new();
    for (name, local_asn, peer) in wanted {
        let instance = InstanceName(name.to_owned());
        let of_peer = peer.clone();
        let (known, address) = match (&destination, rd) {
            (Asked::Prefix(prefix), None) => (Some(Destination::Ip(*prefix)), None),
            (Asked::Prefix(prefix), Some(rd)) => {
                let prefix = *prefix;
                (Some(Destination::Vpn(VpnPrefix { rd, prefix })), None)
            }
            (Asked::Address(address), _) => (None, Some(*address)),
        };
        let answer = parts.speaker.ask(&instance, move |rib, now| {
            let destination = known.or_else(|| rib.longest_match(address?, rd))?;
            Some(rib.explain(destination, of_peer.as_ref(), now))
        });
        let Some(answer) = answer.await else { continue };
        let scene = Scene {
            instance: name,
            local_asn,
            peers: &peers,
        };
        explanations.push(match answer {
            Some(explained) => scene.explanation(&explained, peer.as_ref()),
            None => api::PrefixExplanation {
                instance: name.to_owned(),
                local_asn,
                summary: format!("no route in this instance matches {text}"),
                route_distinguisher: request.route_distinguisher.clone(),
                ..Default::default()
            },
        });
    }
    Ok(api::ExplainPrefixResponse {
        node: parts.effective.settings.node_name.clone(),
        explanations,
    })
}

/// The instance an explanation is of.
struct Scene<'a> {
    instance: &'a str,
    local_asn: u32,
    peers: &'a [api::BgpPeer],
}

impl Scene<'_> {
    fn explanation(&self, all: &Explanation, only: Option<&PeerName>) -> api::PrefixExplanation {
        // What the peer's routes are compared with stays beside them.
        let concerns = |path: &&PathExplanation| {
            only.is_none() || path.route.peer.as_ref() == only || path.route.is_best()
        };
        let paths: Vec<&PathExplanation> = all.paths.iter().filter(concerns).collect();
        api::PrefixExplanation {
            instance: self.instance.to_owned(),
            local_asn: self.local_asn,
            prefix: match all.destination {
                Destination::Vpn(vpn) => vpn.prefix.to_string(),
                other => other.to_string(),
            },
            route_distinguisher: match all.destination {
                Destination::Vpn(vpn) => vpn.rd.to_string(),
                Destination::Ip(_) | Destination::RouteTarget(_) => String::new(),
            },
            summary: summary(all),
            paths: paths.into_iter().map(|path| self.path(path)).collect(),
            covering_prefix: all.covering.map(|net| net.to_string()).unwrap_or_default(),
            silent: all
                .silent
                .iter()
                .map(|(peer, silence)| self.silent(peer, *silence))
                .collect(),
            adverts: all
                .adverts
                .iter()
                .map(|advert| self.advert(advert, all.suppressed_by))
                .collect(),
        }
    }

    fn path(&self, path: &PathExplanation) -> api::PathExplanation {
        let verdict = path.route.verdict;
        let (rejection, rule) = match verdict {
            Some(Verdict::Rejected(why)) => (why.name(), why.rule().unwrap_or_default()),
            Some(Verdict::NextHopUnreachable) => ("", "RFC 4271 §9.1.2.1"),
            _ => ("", ""),
        };
        let mut shown = route(
            self.instance,
            self.local_asn,
            self.peers,
            path.route.clone(),
        );
        shown.reason = match &path.policy {
            Some(by) => format!("the import policy rejects it: {}", statement_text(by)),
            None => shown.reason,
        };
        api::PathExplanation {
            route: Some(shown),
            verdict: match verdict {
                Some(Verdict::Best) => "best",
                Some(Verdict::Multipath) => "multipath",
                Some(Verdict::BeyondPathLimit) => "beyond-path-limit",
                Some(Verdict::OtherAsPath) => "other-as-path",
                Some(Verdict::LocalRoute) => "local-route",
                Some(Verdict::NextHopUnreachable) => "next-hop-unreachable",
                Some(Verdict::Lost(_)) => "lost",
                Some(Verdict::Rejected(_)) => "rejected",
                None => "",
            }
            .to_owned(),
            lost: path.lost.as_ref().map(|lost| api::PathComparison {
                step: lost.step.name().to_owned(),
                rule: lost.step.rule().to_owned(),
                value: lost.value.clone(),
                other_value: lost.other.clone(),
                other_peer: lost.against.0.to_string(),
            }),
            rejection: rejection.to_owned(),
            rule: rule.to_owned(),
            policy: path.policy.as_ref().map(statement),
        }
    }

    fn silent(&self, peer: &PeerName, silence: Silence) -> api::SilentPeer {
        let known = self.peer(peer);
        api::SilentPeer {
            peer: peer.0.to_string(),
            peer_address: known.map_or_else(String::new, |known| known.peer_address.clone()),
            silence: silence.name().to_owned(),
            reason: match (silence, known) {
                (Silence::NotEstablished, Some(known)) => down(known),
                _ => silence.to_string(),
            },
        }
    }

    fn advert(&self, all: &AdvertExplanation, aggregate: Option<IpNet>) -> api::AdvertExplanation {
        let known = self.peer(&all.peer);
        api::AdvertExplanation {
            peer: all.peer.0.to_string(),
            peer_address: known.map_or_else(String::new, |known| known.peer_address.clone()),
            adverts: all
                .routes
                .iter()
                .map(|one| one_advert(one, known, aggregate))
                .collect(),
            pending: all.is_pending,
            waiting_bytes: all.waiting_bytes as u64,
        }
    }

    fn peer(&self, name: &PeerName) -> Option<&api::BgpPeer> {
        let mut peers = self.peers.iter();
        peers.find(|peer| peer.instance == self.instance && *peer.name == *name.0)
    }
}

fn one_advert(advert: &Advert, to: Option<&api::BgpPeer>, aggregate: Option<IpNet>) -> api::Advert {
    let from = advert.from.as_ref().map(|from| from.0.to_string());
    let from = from.unwrap_or_default();
    match &advert.outcome {
        Ok((sent, hop)) => api::Advert {
            from,
            sent: true,
            next_hop: hop.to_string(),
            attributes: Some(attributes(sent)),
            ..Default::default()
        },
        Err(why) => api::Advert {
            from,
            withheld: why.name().to_owned(),
            reason: match (why, to, &advert.policy) {
                (Withheld::NotEstablished, Some(peer), _) => down(peer),
                (Withheld::Policy(_), _, Some(by)) => {
                    format!("the export policy rejects it: {}", statement_text(by))
                }
                _ => match aggregate.filter(|_| *why == Withheld::Suppressed) {
                    Some(aggregate) => format!("{aggregate} is sent in its place"),
                    None => why.to_string(),
                },
            },
            rule: why.rule().unwrap_or_default().to_owned(),
            policy: advert.policy.as_ref().map(statement),
            ..Default::default()
        },
    }
}

/// Why a session is not established.
fn down(peer: &api::BgpPeer) -> String {
    if peer.down_reason.is_empty() {
        Silence::NotEstablished.to_string()
    } else {
        format!("{}: {}", Silence::NotEstablished, peer.down_reason)
    }
}

fn statement(by: &PolicyStatement) -> api::PolicyStatementRef {
    api::PolicyStatementRef {
        policy: by.policy.0.clone(),
        statement: by.statement.clone().unwrap_or_default(),
    }
}

fn statement_text(by: &PolicyStatement) -> String {
    match &by.statement {
        Some(statement) => format!("statement {statement} of {}", by.policy.0),
        None => format!("the default of {}", by.policy.0),
    }
}

fn summary(all: &Explanation) -> String {
    let used = |path: &&PathExplanation| {
        let verdict = path.route.verdict;
        matches!(verdict, Some(Verdict::Best | Verdict::Multipath))
    };
    let best = all.paths.iter().find(|path| path.route.is_best());
    let many = |count: usize| match count {
        1 => "1 route".to_owned(),
        count => format!("{count} routes"),
    };
    let is_of_vpn = matches!(all.destination, Destination::Vpn(_));
    match (
        best.map(|path| &path.route.peer),
        all.paths.len(),
        all.covering,
    ) {
        (Some(None), ..) => "a route of the node itself".to_owned(),
        (Some(Some(peer)), count, _) => {
            let beside = all.paths.iter().filter(used).count() - 1;
            let beside = match beside {
                0 => String::new(),
                1 => ", one more is used beside it".to_owned(),
                more => format!(", {more} more are used beside it"),
            };
            format!("the best of {} is that of {peer}{beside}", many(count))
        }
        // Packets of VPNs go through nodes that are in them.
        (None, 0, Some(covering)) if is_of_vpn => {
            format!("no route; the nearest one around it is {covering}")
        }
        (None, count, Some(covering)) if is_of_vpn => {
            let routes = many(count);
            format!("none of {routes} can be used; the nearest one around it is {covering}")
        }
        (None, 0, Some(covering)) => {
            format!("no route; packets go by {covering}")
        }
        (None, 0, None) => "no route, and none around it".to_owned(),
        (None, count, Some(covering)) => {
            format!(
                "none of {} can be used; packets go by {covering}",
                many(count)
            )
        }
        (None, count, None) => {
            format!(
                "none of {} can be used, and there is none around it",
                many(count)
            )
        }
    }
}
