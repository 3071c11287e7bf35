// SPDX-License-Identifier: Apache-2.0
//! Routes of VPNs through a reflector: BIRD 2, BIRD 3, FRR and GoBGP announce them, and each has the
//! others', with labels, route distinguishers and route targets as they were; GoBGP, which says what
//! it wants (RFC 4684), has those and no others. Restarts of either end, limits and upgrades concern
//! these routes as they do others.

mod limits;
mod restart;
mod upgrades;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use harness::{CONVERGED, Lab, bird, causeway, frr, gobgp, lab, wait_for};
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
    destinations_are_explained(&lab)?;
    limits::of_routes_of_vpns(&lab)?;
    restart::of_a_neighbour(&lab)?;
    restart::of_the_reflector(&lab)?;
    let _daemon = upgrades::are_no_event(&lab)?;
    what_the_reflector_asks_for_changes_live(&lab)?;
    lab.down()
}

/// The resources of the reflector with a line of BIRD 2's own for its VPN family of an address family.
fn with_bird2(afi: &str, line: &str) -> Result<String> {
    let pristine = harness::root()?.join("lab/containerlab/vpn/resources.d/reflector.yaml");
    let text = fs::read_to_string(pristine)?;
    let bird2 = "10.2.2.2, peerASN: 65000, peerConfigRef: { name: ";
    let own = text.replace(&format!("{bird2}client"), &format!("{bird2}bird2"));
    let (_, client) = text.split_once("---").context("two documents")?;
    let family = format!("- {{ afi: {afi}, safi: mpls_vpn");
    let config = client
        .replace("name: client", "name: bird2")
        .replace(&family, &format!("{family}, {line}"));
    ensure!(own != text && config.contains(line), "{text}");
    Ok(format!("{own}---{config}"))
}

/// The resources the daemon reads.
fn resources(lab: &Lab) -> Result<PathBuf> {
    let files = lab.files().context("the lab has a copy of its files")?;
    Ok(files.join("resources.d"))
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

/// Why the best is the best, and why GoBGP is not sent what it does not ask for.
fn destinations_are_explained(lab: &Lab) -> Result<()> {
    let explained = causeway::ask(lab.node("node1"), "bgp explain 65000:13 10.13.1.0/24")?;
    let one = &explained["explanations"][0];
    ensure!(one["route-distinguisher"] == "65000:13", "{explained:#}");
    ensure!(one["paths"][0]["verdict"] == "best", "{explained:#}");
    ensure!(one["paths"][0]["route"]["label"] == 301, "{explained:#}");
    let adverts = one["adverts"].as_array().context("adverts")?;
    let to = |peer: &str| {
        let found = adverts.iter().find(|advert| advert["peer"] == peer);
        found.map(|advert| advert["routes"][0].clone())
    };
    let sent = to("frr").context("FRR")?;
    ensure!(
        sent["sent"] == true && sent["next-hop"] == "10.2.3.2",
        "{explained:#}"
    );
    for (peer, why) in [("gobgp", "not-wanted"), ("bird3", "split-horizon")] {
        let withheld = to(peer).with_context(|| format!("no {peer}"))?;
        ensure!(withheld["withheld"] == why, "{peer}: {explained:#}");
    }
    // The longest match of an address, in words.
    let node = lab.node("node1");
    let text = node.exec_ok(&[
        "causeway",
        "bgp",
        "explain",
        "--rd",
        "65000:13",
        "10.13.1.7",
    ])?;
    ensure!(
        text.starts_with("65000:13 10.13.1.0/24 in main: the best of 1 route"),
        "{text}"
    );
    ensure!(text.contains("via 10.2.3.2 label 301"), "{text}");
    let nothing = node.exec(&["causeway", "bgp", "explain", "65000:99", "10.13.1.0/24"])?;
    ensure!(nothing.status.code() == Some(4), "{nothing:?}");
    Ok(())
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
