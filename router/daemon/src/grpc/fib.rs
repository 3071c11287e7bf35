// SPDX-License-Identifier: Apache-2.0
//! The routes this node writes, and why.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use router_api::v1alpha1 as api;
use router_reconcile::KeyState;
use router_types::{Forwarding, LinkIndex, NextHop, RouteKey, TableId};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::STREAM;
use crate::routes::View;
use crate::run::Parts;

/// Routes in one message.
const BATCH: usize = 1024;

pub struct Service(pub Parts);

#[tonic::async_trait]
impl api::fib_server::Fib for Service {
    type ListFibStream = ReceiverStream<Result<api::FibBatch, Status>>;

    async fn list_fib(
        &self,
        request: Request<api::ListFibRequest>,
    ) -> Result<Response<Self::ListFibStream>, Status> {
        let request = request.into_inner();
        let node = self.0.effective.settings.node_name.clone();
        let routes = self.0.routes.clone();
        let (sender, receiver) = tokio::sync::mpsc::channel(STREAM);
        tokio::spawn(async move {
            let mut after = None;
            let mut left = if request.limit == 0 {
                u64::MAX
            } else {
                request.limit
            };
            while left > 0 {
                let wanted = request.clone();
                let batch = usize::try_from(left).unwrap_or(BATCH).min(BATCH);
                let page = routes
                    .ask(move |view| page(view, &wanted, after, batch))
                    .await;
                let Some((routes, last)) = page else { return };
                left = left.saturating_sub(routes.len() as u64);
                if !routes.is_empty() {
                    let batch = api::FibBatch {
                        node: node.clone(),
                        routes,
                    };
                    if sender.send(Ok(batch)).await.is_err() {
                        return;
                    }
                }
                match last {
                    Some(key) => after = Some(key),
                    None => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn explain_route(
        &self,
        request: Request<api::ExplainRouteRequest>,
    ) -> Result<Response<api::ExplainRouteResponse>, Status> {
        let request = request.into_inner();
        let node = self.0.effective.settings.node_name.clone();
        let table = if request.table == 0 {
            TableId::MAIN
        } else {
            TableId(request.table)
        };
        let wanted = match (
            request.destination.parse::<IpNet>(),
            request.destination.parse(),
        ) {
            (Ok(prefix), _) => Wanted::Prefix(prefix.trunc()),
            (_, Ok(address)) => Wanted::Address(address),
            _ => {
                return Err(Status::invalid_argument(format!(
                    "{:?} is neither a prefix nor an address: write 10.0.0.0/8 or 10.1.2.3",
                    request.destination
                )));
            }
        };
        let answer = self
            .0
            .routes
            .ask(move |view| explain(view, table, wanted))
            .await
            .ok_or_else(|| Status::unavailable("the routes have stopped"))?;
        Ok(Response::new(api::ExplainRouteResponse { node, ..answer }))
    }
}

enum Wanted {
    Prefix(IpNet),
    Address(IpAddr),
}

/// One page of routes after a key, and the key to go on after.
fn page(
    view: &View<'_>,
    request: &api::ListFibRequest,
    after: Option<RouteKey>,
    limit: usize,
) -> (Vec<api::FibRoute>, Option<RouteKey>) {
    let names = names(view);
    let mut routes = Vec::new();
    // What the RIB wants or holds back, and what an earlier run left, in one order.
    let mut keys: BTreeMap<RouteKey, ()> = BTreeMap::new();
    let is_later = |key: &RouteKey| after.is_none_or(|after| *key > after);
    let wanted = |key: &RouteKey| {
        (request.table == 0 || request.table == key.table.0)
            && match request.afi.as_str() {
                "ipv4" => key.prefix.addr().is_ipv4(),
                "ipv6" => key.prefix.addr().is_ipv6(),
                _ => true,
            }
    };
    for key in view
        .rib
        .routes()
        .map(|(key, _)| *key)
        .filter(|key| is_later(key) && wanted(key))
    {
        keys.insert(key, ());
        if keys.len() >= limit {
            break;
        }
    }
    let bound = if keys.len() >= limit {
        keys.keys().next_back().copied()
    } else {
        None
    };
    for (key, _) in view.reconciler.stale() {
        if is_later(key) && wanted(key) && bound.is_none_or(|bound| *key <= bound) {
            keys.insert(*key, ());
        }
    }
    for key in keys.keys() {
        routes.push(route(view, &names, key));
    }
    (routes, bound)
}

fn route(view: &View<'_>, names: &BTreeMap<LinkIndex, String>, key: &RouteKey) -> api::FibRoute {
    let explanation = view.rib.explain(key);
    let status = view.reconciler.status(key);
    let used = explanation
        .candidates
        .iter()
        .find(|candidate| candidate.verdict == router_rib::Verdict::Used);
    let (state, reason) = match (&explanation.installed, status) {
        (Some(_), Some(status)) => match status.state {
            KeyState::Applied => (api::FibState::Installed, String::new()),
            KeyState::Failed => (
                api::FibState::Failed,
                status
                    .failure
                    .map(|failure| failure.last_error.clone())
                    .unwrap_or_default(),
            ),
            KeyState::Pending | KeyState::Deleting | KeyState::Stale => {
                (api::FibState::Pending, String::new())
            }
        },
        (Some(_), None) => (api::FibState::Pending, String::new()),
        (None, Some(status)) if status.state == KeyState::Stale => (
            api::FibState::Stale,
            "from an earlier run; kept until the peers are back".to_owned(),
        ),
        (None, _) => (
            api::FibState::HeldBack,
            explanation
                .candidates
                .iter()
                .map(reason)
                .next()
                .unwrap_or_default(),
        ),
    };
    let forwarding = explanation.installed.as_deref();
    api::FibRoute {
        table: key.table.0,
        prefix: key.prefix.to_string(),
        source: used
            .or(explanation.candidates.first())
            .map(|candidate| candidate.source.to_string())
            .unwrap_or_default(),
        next_hops: match forwarding {
            Some(Forwarding::Via(hops)) => hops.iter().map(|hop| next_hop(names, hop)).collect(),
            Some(Forwarding::Unreachable | Forwarding::Blackhole) | None => Vec::new(),
        },
        unreachable: forwarding == Some(&Forwarding::Unreachable),
        blackhole: forwarding == Some(&Forwarding::Blackhole),
        state: state.into(),
        reason,
        metric: view.ownership.metric,
    }
}

/// Why a candidate is used or not, with the reason of its next hops where that is it.
fn reason(candidate: &router_rib::CandidateReport) -> String {
    let unresolved = candidate.next_hops.iter().flatten().find_map(|hop| {
        let why = hop.resolved.as_ref().err()?;
        let via = hop
            .offered
            .via
            .map(|via| via.to_string())
            .unwrap_or_default();
        Some(format!("next hop {via}: {why}"))
    });
    match (&candidate.verdict, unresolved) {
        (router_rib::Verdict::Unresolved, Some(why)) => why,
        (verdict, _) => verdict.to_string(),
    }
}

fn explain(view: &View<'_>, table: TableId, wanted: Wanted) -> api::ExplainRouteResponse {
    let names = names(view);
    // A longer foreign route decides for an address, whatever this daemon wrote around it.
    let longer = match &wanted {
        Wanted::Prefix(_) => None,
        Wanted::Address(address) => view.rib.topology().lookup(table, *address, None),
    };
    let key = match wanted {
        Wanted::Prefix(prefix) => Some(RouteKey { table, prefix }),
        Wanted::Address(address) => view.rib.lookup(table, address),
    };
    if let Some(foreign) = longer
        && key.is_none_or(|key| foreign.key.prefix.prefix_len() > key.prefix.prefix_len())
    {
        let ways: Vec<String> = foreign
            .next_hops
            .iter()
            .map(|hop| {
                let hop = next_hop(&names, hop);
                let via = if hop.via.is_empty() {
                    String::new()
                } else {
                    format!(" via {}", hop.via)
                };
                format!("{via} dev {}", hop.device)
            })
            .collect();
        return api::ExplainRouteResponse {
            prefix: foreign.key.prefix.to_string(),
            verdict: format!(
                "a route that is not of BGP is the longest match and is used: {} proto {}{}",
                foreign.key.prefix,
                foreign.protocol,
                ways.join(",")
            ),
            ..Default::default()
        };
    }
    let Some(key) = key else {
        return api::ExplainRouteResponse {
            verdict: "no route of this daemon leads there; `ip route get` shows what the kernel \
                      does"
                .to_owned(),
            ..Default::default()
        };
    };
    let explanation = view.rib.explain(&key);
    let shown = route(view, &names, &key);
    let candidates = explanation
        .candidates
        .iter()
        .map(|candidate| api::RouteCandidate {
            chosen: candidate.verdict == router_rib::Verdict::Used,
            reason: reason(candidate),
            route: Some(api::FibRoute {
                table: key.table.0,
                prefix: key.prefix.to_string(),
                source: candidate.source.to_string(),
                next_hops: candidate
                    .next_hops
                    .iter()
                    .flatten()
                    .map(|hop| next_hop(&names, &hop.offered))
                    .collect(),
                unreachable: candidate.discard == Some(Forwarding::Unreachable),
                blackhole: candidate.discard == Some(Forwarding::Blackhole),
                ..Default::default()
            }),
        })
        .collect();
    let mut verdict = match (&explanation.installed, shown.reason.is_empty()) {
        (None, true) => "not a destination of this daemon".to_owned(),
        (None, false) => format!("not in the kernel: {}", shown.reason),
        (Some(_), true) => "in the kernel".to_owned(),
        (Some(_), false) => format!("refused by the kernel: {}", shown.reason),
    };
    for rival in &explanation.rivals {
        let which = match rival.rivalry {
            router_rib::Rivalry::Alone => continue,
            router_rib::Rivalry::Theirs => "is used instead",
            router_rib::Rivalry::Ours => "is not used",
        };
        verdict.push_str(&format!(
            "; a {} route with metric {} {which}",
            rival.route.protocol, rival.route.metric
        ));
    }
    api::ExplainRouteResponse {
        node: String::new(),
        prefix: key.prefix.to_string(),
        candidates,
        verdict,
    }
}

fn names(view: &View<'_>) -> BTreeMap<LinkIndex, String> {
    view.rib
        .topology()
        .links()
        .map(|link| (link.index, link.name.clone()))
        .collect()
}

fn next_hop(names: &BTreeMap<LinkIndex, String>, hop: &NextHop) -> api::FibNextHop {
    api::FibNextHop {
        via: hop.via.map(|via| via.to_string()).unwrap_or_default(),
        device: hop
            .link
            .and_then(|link| names.get(&link).cloned())
            .unwrap_or_default(),
        weight: u32::from(hop.weight),
    }
}
