// SPDX-License-Identifier: Apache-2.0
//! `causeway bgp routes`: the words and columns of `cilium bgp routes`, and more of both.

use std::net::IpAddr;

use ipnet::IpNet;
use router_api::Connection;
use router_api::v1alpha1::{
    AddressFamily, BgpRoute, ListRoutesRequest, PathAttributes, RouteTable,
};
use serde_json::{Map, Value, json};
use tonic::Code;

use super::bgp_neighbor;
use super::bgp_peers::hex;
use crate::args::RoutesArgs;
use crate::failure::Failure;
use crate::output::{Cell, Column, Item, Listing, Tone, View, age, rfc3339};
use crate::suggest::nearest;

pub(crate) async fn fetch(
    connection: &Connection,
    args: &RoutesArgs,
    now_unix_ns: i64,
) -> Result<View, Failure> {
    let mut request = parse(&args.words)?;
    let table = request.table();
    // One more than shown, to know whether there are more.
    request.limit = if args.limit == 0 { 0 } else { args.limit + 1 };
    let failed = |s: &tonic::Status| Failure::from_status("cannot list the routes", s);
    let wanted_peer = request.peer.clone();
    let mut batches = match connection.bgp().list_routes(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => {
            if status.code() == Code::NotFound && !wanted_peer.is_empty() {
                // Says which name is near.
                bgp_neighbor::find(connection, &wanted_peer).await?;
            }
            return Err(failed(&status));
        }
    };
    let (mut node, mut routes) = (String::new(), Vec::new());
    while let Some(batch) = batches.message().await.map_err(|s| failed(&s))? {
        node = batch.node;
        routes.extend(batch.routes);
    }
    let truncated = args.limit != 0 && routes.len() as u64 > args.limit;
    if truncated {
        routes.truncate(args.limit as usize);
    }
    Ok(view(&node, table, &routes, truncated, now_unix_ns))
}

/// Reads the words after `bgp routes`, in the order of `cilium bgp routes` or any other.
pub fn parse(words: &[String]) -> Result<ListRoutesRequest, Failure> {
    const KNOWN: [&str; 18] = [
        "available",
        "received",
        "advertised",
        "filtered",
        "ipv4",
        "ipv6",
        "unicast",
        "mpls_vpn",
        "vpnv4",
        "vpnv6",
        "route_target_constraints",
        "peer",
        "neighbor",
        "instance",
        "vrouter",
        "for",
        "prefix",
        "longer",
    ];
    let mut request = ListRoutesRequest {
        table: RouteTable::Available.into(),
        family: Some(AddressFamily {
            afi: "ipv4".into(),
            safi: "unicast".into(),
        }),
        ..Default::default()
    };
    let mut family_given = false;
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let mut argument = |of: &str| {
            words.next().map(str::to_owned).ok_or_else(|| {
                Failure::usage(format!("`{of}` needs a value after it"))
                    .fix(format!("write `{of} <value>`"))
            })
        };
        let family = request.family.get_or_insert_default();
        match word {
            "available" => request.set_table(RouteTable::Available),
            "received" => request.set_table(RouteTable::Received),
            "advertised" => request.set_table(RouteTable::Advertised),
            "filtered" => request.set_table(RouteTable::Filtered),
            "ipv4" | "ipv6" => {
                family.afi = word.to_owned();
                family_given = true;
            }
            "unicast" | "mpls_vpn" | "route_target_constraints" => family.safi = word.to_owned(),
            "vpnv4" | "vpnv6" => {
                family.afi = word.replace("vpnv", "ipv");
                family.safi = "mpls_vpn".to_owned();
                family_given = true;
            }
            "peer" | "neighbor" => {
                let name = argument(word)?;
                match name.split_once('/') {
                    Some((instance, peer)) => {
                        request.instance = instance.to_owned();
                        request.peer = peer.to_owned();
                    }
                    None => request.peer = name,
                }
            }
            "instance" | "vrouter" => request.instance = argument(word)?,
            "prefix" => request.prefix = prefix(&argument(word)?)?.to_string(),
            "for" => {
                let text = argument(word)?;
                let address: IpAddr = text.parse().map_err(|_| {
                    Failure::usage(format!("{text} is no IP address")).fix("write `for 10.1.2.3`")
                })?;
                request.for_address = address.to_string();
            }
            "longer" => request.longer = true,
            text if text.parse::<IpAddr>().is_ok() => request.for_address = text.to_owned(),
            text if text.contains('/') => request.prefix = prefix(text)?.to_string(),
            other => {
                let fix = match nearest(other, KNOWN) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("words are {}, a prefix or an address", KNOWN.join(", ")),
                };
                return Err(Failure::usage(format!("`{other}` is not understood")).fix(fix));
            }
        }
    }
    if !request.prefix.is_empty() && !request.for_address.is_empty() {
        return Err(Failure::usage("a prefix and an address exclude each other")
            .fix("leave one of them out"));
    }
    if request.longer && request.prefix.is_empty() {
        return Err(Failure::usage("`longer` needs a prefix").fix("write `10.1.0.0/16 longer`"));
    }
    let is_v6 = request.prefix.contains(':') || request.for_address.contains(':');
    let has_destination = !request.prefix.is_empty() || !request.for_address.is_empty();
    if has_destination && !family_given {
        let afi = if is_v6 { "ipv6" } else { "ipv4" };
        request.family.get_or_insert_default().afi = afi.to_owned();
    }
    Ok(request)
}

fn prefix(text: &str) -> Result<IpNet, Failure> {
    let net: IpNet = text.parse().map_err(|_| {
        Failure::usage(format!("{text} is no prefix"))
            .fix("write an address and a length: 10.1.0.0/16")
    })?;
    Ok(net.trunc())
}

/// The listing of some routes of a table.
pub fn view(
    node: &str,
    table: RouteTable,
    routes: &[BgpRoute],
    truncated: bool,
    now_unix_ns: i64,
) -> View {
    let has_peer = table != RouteTable::Available;
    let mut columns = vec![Column::new("Node"), Column::new("VRouter")];
    if has_peer {
        columns.push(Column::new("Peer"));
    }
    let is_vpn = routes
        .iter()
        .any(|route| !route.route_distinguisher.is_empty());
    if is_vpn {
        columns.push(Column::new("RD"));
    }
    columns.extend([Column::new("Prefix"), Column::new("NextHop")]);
    if is_vpn {
        columns.push(Column::new("Label"));
    }
    columns.extend([Column::new("Age"), Column::new("Attrs").prose()]);
    let reason = Column::new("Reason").prose();
    if table == RouteTable::Filtered {
        columns.push(reason);
    } else {
        columns.extend([Column::new("Best").wide(), reason.wide()]);
    }
    if !has_peer {
        columns.push(Column::new("Peer").wide());
    }
    columns.push(Column::new("Instance").wide());
    let mut fields = Map::new();
    fields.insert("node".to_owned(), node.into());
    fields.insert("table".to_owned(), table_word(table).into());
    fields.insert("truncated".to_owned(), truncated.into());
    let notes = truncated.then(|| {
        format!(
            "only the first {} routes are shown; --limit 0 shows all",
            routes.len()
        )
    });
    Listing {
        kind: "BGPRouteList",
        fields,
        columns,
        items: routes
            .iter()
            .map(|route| item(node, table, is_vpn, route, now_unix_ns))
            .collect(),
        empty: format!("no {} routes", table_word(table)),
        notes: notes.into_iter().collect(),
    }
    .into()
}

fn item(node: &str, table: RouteTable, is_vpn: bool, route: &BgpRoute, now_unix_ns: i64) -> Item {
    let attributes = route.attributes.clone().unwrap_or_default();
    let has_peer = table != RouteTable::Available;
    let mut row: Vec<Cell> = vec![node.into(), route.local_asn.into()];
    if has_peer {
        row.push(route.peer_address.as_str().into());
    }
    if is_vpn {
        row.push(route.route_distinguisher.as_str().into());
    }
    row.extend([route.prefix.as_str().into(), next_hop_text(route).into()]);
    if is_vpn {
        let label = route.label.map(|label| label.to_string());
        row.push(label.unwrap_or_else(|| "-".to_owned()).into());
    }
    row.extend([
        age(route.since_unix_ns, now_unix_ns).into(),
        route
            .attributes
            .as_ref()
            .map_or("-".to_owned(), attributes_text)
            .into(),
    ]);
    if table != RouteTable::Filtered {
        row.push(match (route.best, route.multipath) {
            (true, _) => Cell::toned(Tone::Good, "best"),
            (false, true) => Cell::toned(Tone::Good, "multipath"),
            (false, false) => Cell::default(),
        });
    }
    row.push(match (route.stale, route.reason.as_str()) {
        (false, "") if table == RouteTable::Filtered => "refused by the import policy".into(),
        (true, "") => "stale".into(),
        (true, reason) => format!("stale; {reason}").into(),
        (false, reason) => reason.into(),
    });
    if !has_peer {
        row.push(if route.peer.is_empty() {
            "local".into()
        } else {
            route.peer.as_str().into()
        });
    }
    row.push(route.instance.as_str().into());
    Item {
        name: route.prefix.clone(),
        json: route_json(route, &attributes, now_unix_ns),
        rows: vec![row],
    }
}

/// The node's own routes have the unspecified address, as in Cilium's table.
pub(super) fn next_hop_text(route: &BgpRoute) -> &str {
    match (route.next_hop.as_str(), route.peer.as_str()) {
        ("", "") if route.prefix.contains(':') => "::",
        ("", "") => "0.0.0.0",
        ("", _) => "-",
        (next_hop, _) => next_hop,
    }
}

/// Attributes in the braces of `cilium bgp routes`.
pub(super) fn attributes_text(a: &PathAttributes) -> String {
    let origin = match a.origin.as_str() {
        "igp" => "i",
        "egp" => "e",
        "incomplete" => "?",
        other => other,
    };
    let mut parts = vec![
        format!("{{Origin: {origin}}}"),
        format!("{{AsPath: {}}}", a.as_path),
    ];
    let mut list = |name: &str, values: &[String]| {
        if !values.is_empty() {
            parts.push(format!("{{{name}: {}}}", values.join(", ")));
        }
    };
    list("Communities", &a.communities);
    list("LargeCommunity", &a.large_communities);
    list("ExtendedCommunities", &a.extended_communities);
    list("ClusterList", &a.cluster_list);
    if let Some(local_pref) = a.local_pref {
        parts.push(format!("{{LocalPref: {local_pref}}}"));
    }
    if let Some(med) = a.med {
        parts.push(format!("{{Med: {med}}}"));
    }
    if a.atomic_aggregate {
        parts.push("{AtomicAggregate}".to_owned());
    }
    for (name, value) in [
        ("Aggregator", &a.aggregator),
        ("OriginatorId", &a.originator_id),
    ] {
        if !value.is_empty() {
            parts.push(format!("{{{name}: {value}}}"));
        }
    }
    for u in &a.unknown {
        parts.push(format!("{{Type {}: {}}}", u.r#type, hex(&u.value)));
    }
    format!("[{}]", parts.join(" "))
}

pub(super) fn route_json(route: &BgpRoute, a: &PathAttributes, now_unix_ns: i64) -> Value {
    let family = route.family.clone().unwrap_or_default();
    let age_ns = match route.since_unix_ns {
        0 => 0,
        since => (now_unix_ns - since).max(0),
    };
    let mut json = json!({
        "instance": route.instance,
        "local-asn": route.local_asn,
        "family": {"afi": family.afi, "safi": family.safi},
        "prefix": route.prefix,
        "next-hop": route.next_hop,
        "peer": route.peer,
        "peer-address": route.peer_address,
        "since": rfc3339(route.since_unix_ns),
        "age-nanoseconds": age_ns,
        "best": route.best,
        "multipath": route.multipath,
        "stale": route.stale,
        "reason": route.reason,
        "attributes": attributes_json(a),
    });
    if !route.route_distinguisher.is_empty() {
        json["route-distinguisher"] = route.route_distinguisher.as_str().into();
        json["label"] = route.label.into();
    }
    json
}

/// Path attributes for programs.
pub(super) fn attributes_json(a: &PathAttributes) -> Value {
    let unknown = a
        .unknown
        .iter()
        .map(|u| json!({"type": u.r#type, "flags": u.flags, "value": hex(&u.value)}));
    json!({
            "origin": a.origin,
            "as-path": a.as_path,
            "med": a.med,
            "local-preference": a.local_pref,
            "communities": a.communities,
            "large-communities": a.large_communities,
            "extended-communities": a.extended_communities,
            "atomic-aggregate": a.atomic_aggregate,
            "aggregator": a.aggregator,
            "originator-id": a.originator_id,
            "cluster-list": a.cluster_list,
            "unknown": unknown.collect::<Vec<_>>(),
    })
}

fn table_word(table: RouteTable) -> &'static str {
    match table {
        RouteTable::Unspecified => "unknown",
        RouteTable::Available => "available",
        RouteTable::Received => "received",
        RouteTable::Advertised => "advertised",
        RouteTable::Filtered => "filtered",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<ListRoutesRequest, Failure> {
        parse(
            &line
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn nothing_means_available_ipv4_unicast() {
        let request = parsed("").unwrap();
        assert_eq!(request.table(), RouteTable::Available);
        let family = request.family.unwrap();
        assert_eq!(
            (family.afi.as_str(), family.safi.as_str()),
            ("ipv4", "unicast")
        );
    }

    #[test]
    fn the_words_of_cilium_are_understood() {
        let request = parsed("advertised ipv6 unicast vrouter fabric neighbor fd00::1").unwrap();
        assert_eq!(request.table(), RouteTable::Advertised);
        assert_eq!(
            (request.instance.as_str(), request.peer.as_str()),
            ("fabric", "fd00::1")
        );
        assert_eq!(request.family.unwrap().afi, "ipv6");
    }

    #[test]
    fn a_peer_may_be_named_with_its_instance() {
        let request = parsed("received peer fabric/tor-a").unwrap();
        assert_eq!(
            (request.instance.as_str(), request.peer.as_str()),
            ("fabric", "tor-a")
        );
    }

    #[test]
    fn destinations_choose_the_family() {
        let request = parsed("received peer tor-a fd00:1::5/32 longer").unwrap();
        assert_eq!(request.prefix, "fd00:1::/32", "host bits go");
        assert!(request.longer);
        assert_eq!(request.family.unwrap().afi, "ipv6");
        assert_eq!(parsed("for 10.1.2.3").unwrap().for_address, "10.1.2.3");
        assert_eq!(parsed("10.1.2.3").unwrap().for_address, "10.1.2.3");
    }

    #[test]
    fn nonsense_is_refused_with_a_suggestion() {
        let failure = parsed("recieved").unwrap_err();
        assert_eq!(failure.fix.as_deref(), Some("did you mean `received`?"));
        for wrong in [
            "peer",
            "longer",
            "for tor-a",
            "10.0.0.0/33",
            "10.0.0.0/8 10.1.1.1",
        ] {
            assert_eq!(
                parsed(wrong).unwrap_err().exit,
                crate::Exit::Usage,
                "{wrong}"
            );
        }
    }
}
