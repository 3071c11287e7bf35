// SPDX-License-Identifier: Apache-2.0
//! `causeway fib`.

use ipnet::IpNet;
use router_api::Connection;
use router_api::v1alpha1::{
    ExplainRouteRequest, ExplainRouteResponse, FibNextHop, FibRoute, FibState, ListFibRequest,
};
use serde_json::{Map, Value, json};

use crate::args::{FibArgs, FibVerb};
use crate::failure::Failure;
use crate::output::{Cell, Column, Item, Listing, Page, Tone, View};

pub(crate) async fn fetch(connection: &Connection, args: &FibArgs) -> Result<View, Failure> {
    if let Some(FibVerb::Explain { destination }) = &args.verb {
        let is_address = destination.parse::<std::net::IpAddr>().is_ok();
        if !is_address && destination.parse::<IpNet>().is_err() {
            return Err(Failure::usage(format!(
                "{destination} is neither an address nor a prefix"
            ))
            .fix("write 10.1.2.3 or 10.1.0.0/16"));
        }
        let request = ExplainRouteRequest {
            destination: destination.clone(),
            table: args.table.unwrap_or(0),
        };
        let answer = connection.fib().explain_route(request).await;
        let answer = answer.map_err(|s| Failure::from_status("cannot explain the route", &s))?;
        return Ok(explain(destination, &answer.into_inner()));
    }
    let request = ListFibRequest {
        table: args.table.unwrap_or(0),
        afi: args.family.clone().unwrap_or_default(),
        limit: if args.limit == 0 { 0 } else { args.limit + 1 },
    };
    let failed = |s: &tonic::Status| Failure::from_status("cannot list the routes", s);
    let answer = connection.fib().list_fib(request).await;
    let mut batches = answer.map_err(|s| failed(&s))?.into_inner();
    let (mut node, mut routes) = (String::new(), Vec::new());
    while let Some(batch) = batches.message().await.map_err(|s| failed(&s))? {
        node = batch.node;
        routes.extend(batch.routes);
    }
    let truncated = args.limit != 0 && routes.len() as u64 > args.limit;
    if truncated {
        routes.truncate(args.limit as usize);
    }
    Ok(list(&node, &routes, truncated))
}

/// The listing of some routes.
pub fn list(node: &str, routes: &[FibRoute], truncated: bool) -> View {
    let mut fields = Map::new();
    fields.insert("node".to_owned(), node.into());
    fields.insert("truncated".to_owned(), truncated.into());
    let notes = truncated.then(|| {
        format!(
            "only the first {} routes are shown; --limit 0 shows all",
            routes.len()
        )
    });
    Listing {
        kind: "FIBRouteList",
        fields,
        columns: vec![
            Column::new("Prefix"),
            Column::new("Via"),
            Column::new("Device"),
            Column::new("Source"),
            Column::new("State"),
            Column::new("Reason").prose(),
            Column::new("Weight").wide().right(),
            Column::new("Table").wide().right(),
            Column::new("Metric").wide().right(),
        ],
        items: routes.iter().map(item).collect(),
        empty: "no routes are written or wanted".to_owned(),
        notes: notes.into_iter().collect(),
    }
    .into()
}

fn item(route: &FibRoute) -> Item {
    let (word, tone) = state(route.state());
    let only = FibNextHop::default();
    let hops = if route.next_hops.is_empty() {
        std::slice::from_ref(&only)
    } else {
        &route.next_hops
    };
    let rows = hops.iter().enumerate().map(|(index, hop)| {
        let first = |cell: Cell| if index == 0 { cell } else { Cell::default() };
        let via = match (dropped(route), hop.via.as_str()) {
            (Some(how), _) => how,
            (None, "") => "on link",
            (None, via) => via,
        };
        vec![
            first(route.prefix.as_str().into()),
            via.into(),
            hop.device.as_str().into(),
            first(route.source.as_str().into()),
            first(Cell::toned(tone, word)),
            first(route.reason.as_str().into()),
            if dropped(route).is_some() {
                Cell::default()
            } else {
                hop.weight.into()
            },
            first(route.table.into()),
            first(route.metric.into()),
        ]
    });
    Item {
        name: route.prefix.clone(),
        json: route_json(route),
        rows: rows.collect(),
    }
}

/// The page of an explanation.
pub fn explain(destination: &str, answer: &ExplainRouteResponse) -> View {
    let mut page = Page::new("RouteExplanation", destination);
    let candidates = answer.candidates.iter().map(|c| {
        json!({
            "route": c.route.as_ref().map(route_json),
            "chosen": c.chosen,
            "reason": c.reason,
        })
    });
    page.set_json(json!({
        "node": answer.node,
        "destination": destination,
        "prefix": answer.prefix,
        "verdict": answer.verdict,
        "candidates": candidates.collect::<Vec<_>>(),
    }));
    page.lines.push(vec![
        Cell::strong(format!("{destination}: ")),
        Cell::plain(answer.verdict.as_str()),
    ]);
    page.field("matches", answer.prefix.as_str());
    if !answer.candidates.is_empty() {
        page.heading("Candidates");
    }
    for candidate in &answer.candidates {
        let route = candidate.route.clone().unwrap_or_default();
        let (mark, tone) = match candidate.chosen {
            true => ("chosen    ", Tone::Good),
            false => ("not chosen", Tone::Dim),
        };
        page.lines.push(vec![
            Cell::toned(tone, format!("  {mark}")),
            Cell::plain(format!("  {} {}", route.source, hops_text(&route))),
        ]);
        let (word, tone) = state(route.state());
        if candidate.chosen && route.state() != FibState::Unspecified {
            page.lines.push(vec![
                Cell::plain("              kernel: "),
                Cell::toned(tone, word),
            ]);
        }
        if !candidate.reason.is_empty() {
            page.line(format!("              {}", candidate.reason));
        }
        if !route.reason.is_empty() {
            page.line(format!("              {}", route.reason));
        }
    }
    page.into()
}

/// How packets are dropped instead of forwarded, in the kernel's words.
fn dropped(route: &FibRoute) -> Option<&'static str> {
    match (route.unreachable, route.blackhole) {
        (true, _) => Some("unreachable"),
        (false, true) => Some("blackhole"),
        (false, false) => None,
    }
}

fn hops_text(route: &FibRoute) -> String {
    if let Some(how) = dropped(route) {
        return how.to_owned();
    }
    let hop = |hop: &FibNextHop| match (hop.via.as_str(), hop.device.as_str()) {
        ("", device) => format!("on link {device}"),
        (via, "") => format!("via {via}"),
        (via, device) => format!("via {via} ({device})"),
    };
    route
        .next_hops
        .iter()
        .map(hop)
        .collect::<Vec<_>>()
        .join(", ")
}

fn state(state: FibState) -> (&'static str, Tone) {
    match state {
        FibState::Unspecified => ("", Tone::Plain),
        FibState::Installed => ("installed", Tone::Good),
        FibState::Pending => ("pending", Tone::Notice),
        FibState::Failed => ("failed", Tone::Bad),
        FibState::HeldBack => ("held-back", Tone::Notice),
        FibState::Stale => ("stale", Tone::Notice),
    }
}

fn route_json(route: &FibRoute) -> Value {
    let hops = route
        .next_hops
        .iter()
        .map(|hop| json!({"via": hop.via, "device": hop.device, "weight": hop.weight}));
    json!({
        "table": route.table,
        "prefix": route.prefix,
        "source": route.source,
        "nextHops": hops.collect::<Vec<_>>(),
        "unreachable": route.unreachable,
        "blackhole": route.blackhole,
        "state": state(route.state()).0,
        "reason": route.reason,
        "metric": route.metric,
    })
}
