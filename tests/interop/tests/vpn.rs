// SPDX-License-Identifier: Apache-2.0
//! Routes of VPNs through a reflector: BIRD 2, BIRD 3, FRR and GoBGP announce them, and each has the
//! others', with labels, route distinguishers and route targets as they were; GoBGP, which says what
//! it wants (RFC 4684), has those and no others.

use std::fs;

use anyhow::{Context, Result, ensure};
use harness::{CONVERGED, Lab, Spawned, bird, causeway, frr, gobgp, lab, upgrade, wait_for};
use serde_json::Value;

const PEERS: [&str; 4] = ["frr", "bird2", "bird3", "gobgp"];

/// Routes as the tests name them: route distinguisher, prefix, next hop, label, route target.
type Route = (&'static str, &'static str, &'static str, u64, &'static str);

const FOURS: [Route; 6] = [
    ("65000:11", "10.11.0.0/24", "10.2.1.2", 1100, "65000:100"),
    ("65000:12", "10.12.0.0/24", "10.2.2.2", 200, "65000:100"),
    ("65000:12", "10.12.1.0/24", "10.2.2.2", 201, "65000:200"),
    ("65000:13", "10.13.0.0/24", "10.2.3.2", 300, "65000:100"),
    ("65000:13", "10.13.1.0/24", "10.2.3.2", 301, "65000:300"),
    ("65000:14", "10.14.0.0/24", "10.2.4.2", 0, "65000:100"),
];

const SIXES: [Route; 2] = [
    (
        "65000:12",
        "fd00:12::/64",
        "fd00:10:2:2::2",
        206,
        "65000:100",
    ),
    (
        "65000:13",
        "fd00:13::/64",
        "fd00:10:2:3::2",
        306,
        "65000:100",
    ),
];

/// What GoBGP's VRF takes and has.
const RED: [&str; 4] = [
    "65000:11:10.11.0.0/24",
    "65000:12:10.12.0.0/24",
    "65000:13:10.13.0.0/24",
    "65000:14:10.14.0.0/24",
];

#[test]
fn routes_of_vpns_are_reflected_as_they_are_and_where_they_are_wanted() -> Result<()> {
    let lab = lab("vpn", "vpn")?;
    let node = lab.node("node1");
    for peer in PEERS {
        wait_for(&format!("the session with {peer}"), CONVERGED, || {
            causeway::established(node, peer)
        })?;
    }
    wait_for("all routes at the reflector", CONVERGED, || {
        for route in FOURS {
            stored(&lab, "vpnv4", route)?;
        }
        SIXES
            .iter()
            .try_for_each(|route| stored(&lab, "vpnv6", *route))
    })?;
    everybody_has_the_others_routes(&lab)?;
    the_neighbours_are_counted(&lab)?;
    gobgp_has_what_it_asks_for(&lab)?;
    the_best_of_two_is_sent_and_a_new_label_too(&lab)?;
    let _daemon = upgrades_are_no_event(&lab)?;
    what_the_reflector_asks_for_changes_live(&lab)?;
    lab.down()
}

/// Upgrades of the reflector, the last one to a daemon that does not take BIRD 2's IPv4 routes.
fn upgrades_are_no_event(lab: &Lab) -> Result<Spawned> {
    let node = lab.node("node1");
    let before = what_neighbours_saw(lab)?;
    let everybodys: Vec<Route> = FOURS.into_iter().filter(|r| r.0 != "65000:13").collect();
    let mut daemons = Vec::new();
    for _ in 0..3 {
        daemons.push(upgrade::take_over(node, &PEERS, &[])?);
        for route in &everybodys {
            at_bird(lab, "bird3", "vpn4s", *route)?;
        }
    }
    wait_for("the routes at the next daemon", CONVERGED, || {
        FOURS
            .into_iter()
            .try_for_each(|route| stored(lab, "vpnv4", route))
    })?;
    let files = lab
        .files()
        .context("the lab has a copy of its files")?
        .join("resources.d");
    let next = node.path("/tmp/next.d");
    fs::create_dir(&next)?;
    fs::copy(files.join("node.yaml"), next.join("node.yaml"))?;
    let text = fs::read_to_string(files.join("reflector.yaml"))?;
    let bird2 = "10.2.2.2, peerASN: 65000, peerConfigRef: { name: ";
    let less = text.replace(&format!("{bird2}client"), &format!("{bird2}closed"));
    ensure!(less != text, "{text}");
    let (_, client) = text.split_once("---").context("two documents")?;
    let closed = client.replace("name: client", "name: closed");
    let family = "ipv4, safi: mpls_vpn";
    let closed = closed.replace(family, &format!("{family}, import: {{ mode: None }}"));
    fs::write(next.join("reflector.yaml"), format!("{less}---{closed}"))?;
    daemons.push(upgrade::take_over(
        node,
        &PEERS,
        &["resourcesDirectory=/tmp/next.d"],
    )?);
    wait_for(
        "what the next daemon does not have to be withdrawn",
        CONVERGED,
        || {
            let text = bird::run(lab.node("bird3"), "show route table vpn4s")?;
            ensure!(!text.contains("10.12."), "{text}");
            Ok(())
        },
    )?;
    at_bird(lab, "bird3", "vpn4s", FOURS[0])?;
    gobgp_has(lab, &[RED[0], RED[2], RED[3]])?;
    let last = upgrade::take_over(node, &PEERS, &[])?;
    wait_for("all routes again", CONVERGED, || {
        for route in &everybodys {
            at_bird(lab, "bird3", "vpn4s", *route)?;
        }
        Ok(())
    })?;
    assert_eq!(before, what_neighbours_saw(lab)?);
    Ok(last)
}

fn what_neighbours_saw(lab: &Lab) -> Result<Vec<String>> {
    Ok(vec![
        upgrade::seen_by_frr(lab.node("frr"), "10.2.1.1")?,
        upgrade::seen_by_bird(lab.node("bird2"), "node1")?,
        upgrade::seen_by_bird(lab.node("bird3"), "node1")?,
        upgrade::seen_by_gobgp(lab.node("gobgp"), "10.2.4.1")?,
    ])
}

/// Whether `causeway bgp routes` lists a route.
fn stored(lab: &Lab, family: &str, route: Route) -> Result<()> {
    let (rd, prefix, hop, label, target) = route;
    let items = causeway::items(lab.node("node1"), &format!("bgp routes {family}"))?;
    let found = items.iter().find(|item| {
        item["route-distinguisher"] == rd && item["prefix"] == prefix && item["next-hop"] == hop
    });
    let found = found.with_context(|| format!("no {rd} {prefix} via {hop}: {items:#?}"))?;
    ensure!(found["label"] == label, "{found:#}");
    let targets = &found["attributes"]["extended-communities"];
    ensure!(
        targets == &serde_json::json!([format!("rt:{target}")]),
        "{found:#}"
    );
    Ok(())
}

fn everybody_has_the_others_routes(lab: &Lab) -> Result<()> {
    for (speaker, own) in [("bird2", "65000:12"), ("bird3", "65000:13")] {
        for route in FOURS.into_iter().filter(|route| route.0 != own) {
            wait_for(&format!("{} at {speaker}", route.1), CONVERGED, || {
                at_bird(lab, speaker, "vpn4s", route)
            })?;
        }
        for route in SIXES.into_iter().filter(|route| route.0 != own) {
            wait_for(&format!("{} at {speaker}", route.1), CONVERGED, || {
                at_bird(lab, speaker, "vpn6s", route)
            })?;
        }
    }
    for route in FOURS.into_iter().filter(|route| route.0 != "65000:11") {
        wait_for(&format!("{} at frr", route.1), CONVERGED, || {
            at_frr(lab, "ipv4", route)
        })?;
    }
    for route in SIXES {
        wait_for(&format!("{} at frr", route.1), CONVERGED, || {
            at_frr(lab, "ipv6", route)
        })?;
    }
    Ok(())
}

/// BIRD 2 and 3 name attributes differently: `BGP.next_hop`, `bgp_next_hop`.
fn at_bird(lab: &Lab, speaker: &str, table: &str, route: Route) -> Result<()> {
    let (rd, prefix, hop, label, target) = route;
    let command = format!("show route all table {table} {rd} {prefix}");
    let text = bird::run(lab.node(speaker), &command)?;
    let text = text.replace("BGP.", "bgp_");
    for line in [
        format!("bgp_next_hop: {hop}"),
        format!("bgp_mpls_label_stack: {label}"),
        format!("bgp_ext_community: (rt, {})", target.replace(':', ", ")),
        "bgp_cluster_list: 10.2.0.1".to_owned(),
    ] {
        ensure!(
            text.lines().any(|l| l.trim() == line),
            "no '{line}' in: {text}"
        );
    }
    Ok(())
}

fn at_frr(lab: &Lab, family: &str, route: Route) -> Result<()> {
    let (rd, prefix, hop, label, target) = route;
    let answer = frr::show(lab.node("frr"), &format!("bgp {family} vpn {prefix}"))?;
    let path = &answer[rd]["paths"][0];
    ensure!(path["remoteLabel"] == label, "{answer:#}");
    ensure!(
        path["extendedCommunity"]["string"] == format!("RT:{target}"),
        "{answer:#}"
    );
    ensure!(path["nexthops"][0]["ip"] == hop, "{answer:#}");
    Ok(())
}

fn the_neighbours_are_counted(lab: &Lab) -> Result<()> {
    wait_for("the counts of each family", CONVERGED, || {
        let peer = causeway::peer(lab.node("node1"), "bird2")?;
        let families = peer["families"].as_array().context("no families")?;
        let counts = |afi: &str, safi: &str| {
            let found = families
                .iter()
                .find(|f| f["afi"] == afi && f["safi"] == safi);
            found.map(|f| (f["received"].clone(), f["advertised"].clone()))
        };
        let number = |(received, sent): (u64, u64)| Some((Value::from(received), sent.into()));
        ensure!(counts("ipv4", "mpls_vpn") == number((2, 4)), "{peer:#}");
        ensure!(counts("ipv6", "mpls_vpn") == number((1, 1)), "{peer:#}");
        Ok(())
    })
}

/// The destinations GoBGP has of a family.
fn at_gobgp(lab: &Lab, family: &str) -> Result<Vec<String>> {
    let argv = ["gobgp", "--json", "global", "rib", "-a", family];
    let answer = lab.node("gobgp").exec_json(&argv)?;
    Ok(answer
        .as_object()
        .map_or_else(Vec::new, |table| table.keys().cloned().collect()))
}

fn gobgp_has(lab: &Lab, wanted: &[&str]) -> Result<()> {
    let mut all = at_gobgp(lab, "vpnv4")?;
    all.sort();
    ensure!(all == wanted, "GoBGP has {all:?}");
    Ok(())
}

fn gobgp_has_what_it_asks_for(lab: &Lab) -> Result<()> {
    gobgp::established(lab.node("gobgp"), "10.2.4.1")?;
    wait_for("the routes of GoBGP's VRF", CONVERGED, || {
        gobgp_has(lab, &RED)
    })?;
    // What of it is not the reflector's: it asks for all.
    ensure!(at_gobgp(lab, "rtc")?.contains(&"default".to_owned()));
    let command = "gobgp vrf add blue rd 65000:15 rt both 65000:200";
    let argv: Vec<&str> = command.split(' ').collect();
    lab.node("gobgp").exec_ok(&argv)?;
    let mut both = RED.to_vec();
    both.insert(2, "65000:12:10.12.1.0/24");
    wait_for("the routes of another VRF", CONVERGED, || {
        gobgp_has(lab, &both)
    })?;
    Ok(())
}

fn announce(lab: &Lab, what: &str) -> Result<()> {
    let command = format!("gobgp global rib {what}");
    let argv: Vec<&str> = command.split(' ').collect();
    lab.node("gobgp").exec_ok(&argv).map(drop)
}

fn the_best_of_two_is_sent_and_a_new_label_too(lab: &Lab) -> Result<()> {
    let route = "10.12.0.0/24 label 99 rd 65000:12 rt 65000:100 local-pref 200 nexthop 10.2.4.2";
    announce(lab, &format!("add -a vpnv4 {route}"))?;
    let better = |label| ("65000:12", "10.12.0.0/24", "10.2.4.2", label, "65000:100");
    wait_for("the better route at BIRD 3", CONVERGED, || {
        at_bird(lab, "bird3", "vpn4s", better(99))
    })?;
    wait_for("the better route at FRR", CONVERGED, || {
        at_frr(lab, "ipv4", better(99))
    })?;
    announce(
        lab,
        &format!("add -a vpnv4 {}", route.replace("label 99", "label 98")),
    )?;
    wait_for("the new label at BIRD 3", CONVERGED, || {
        at_bird(lab, "bird3", "vpn4s", better(98))
    })?;
    announce(
        lab,
        &format!("del -a vpnv4 {}", route.replace("label 99", "label 98")),
    )?;
    wait_for("BIRD 2's route again", CONVERGED, || {
        at_bird(lab, "bird3", "vpn4s", FOURS[1])
    })
}

fn what_the_reflector_asks_for_changes_live(lab: &Lab) -> Result<()> {
    let node = lab.node("node1");
    let before = causeway::peer(node, "gobgp")?["established-count"].clone();
    let files = lab.files().context("the lab has a copy of its files")?;
    let file = files.join("resources.d/reflector.yaml");
    let text = fs::read_to_string(&file)?;
    let asking = "      installRoutes: false\n      routeTargets: [\"rt:65000:300\"]\n";
    fs::write(&file, text.replace("      installRoutes: false\n", asking))?;
    wait_for("GoBGP to be asked for one target", CONVERGED, || {
        let asked = at_gobgp(lab, "rtc")?;
        ensure!(asked.contains(&"65000:65000:300".to_owned()), "{asked:?}");
        ensure!(!asked.contains(&"default".to_owned()), "{asked:?}");
        Ok(())
    })?;
    // GoBGP 3.36 crashes on this while it has a membership of no bits, which is gone now.
    lab.node("gobgp")
        .exec_ok(&["gobgp", "vrf", "del", "blue"])?;
    wait_for("what is not wanted any more to go", CONVERGED, || {
        gobgp_has(lab, &RED)
    })?;
    // Nobody else's routes went with it.
    at_frr(lab, "ipv4", FOURS[2])?;
    let after = causeway::peer(node, "gobgp")?["established-count"].clone();
    ensure!(before == after, "the session was reset: {before} {after}");
    Ok(())
}
