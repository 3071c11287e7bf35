// SPDX-License-Identifier: Apache-2.0
//! A `BGPPolicy` in both directions against FRR: what it makes of FRR's routes, what FRR is sent,
//! and that a change of it needs no new session.

use std::fs;

use anyhow::{Context, Result, ensure};
use harness::{CONVERGED, Family, Lab, causeway, frr, lab, wait_for};
use serde_json::Value;

const SESSION: &str = "frr-v4";
const PODS: &str = "10.244.1.0/24";

/// What FRR announces, each by a route map of its own.
const ANNOUNCED: &[&str] = &[
    "route-map far permit 10",
    "set as-path prepend 65020 65020",
    "exit",
    "route-map tagged permit 10",
    "set community 65011:7 65011:666",
    "set large-community 65011:1:2",
    "set extcommunity rt 65011:5",
    "set metric 50",
    "exit",
    "route-map unwanted permit 10",
    "set community 65011:999",
    "exit",
    "router bgp 65011",
    "address-family ipv4 unicast",
    "network 10.11.1.0/24 route-map far",
    "network 10.11.2.0/24 route-map tagged",
    "network 10.11.3.0/24 route-map unwanted",
    "network 10.11.4.0/25",
];

const POLICIES: &str = r#"apiVersion: causeway.io/v1alpha1
kind: BGPPolicy
metadata: { name: from-frr }
spec:
  statements:
    - name: unwanted
      match:
        communities: { any: { standard: ["65011:900-999"] } }
      action: Reject
    - name: far
      match:
        asPaths: ["^65011 65020_"]
        asPathLength: { min: 3 }
        nextHops: [10.1.1.0/24]
      set:
        localPreference: 50
        origin: incomplete
      action: Continue
    - name: tagged
      match:
        communities:
          all: { standard: ["65011:7"], large: ["65011:1:*"], extended: ["rt:65011:*"] }
        med: { min: 50, max: 50 }
      set:
        localPreference: 300
        med: { add: 5 }
        communities:
          standard: { remove: ["65011:666"], add: ["65001:1", no-export] }
          extended: { remove: ["rt:65011:5"], add: ["rt:65001:6"] }
      action: Continue
    - name: ours
      match:
        prefixes: [{ prefix: 10.11.0.0/16, minLength: 24, maxLength: 24 }]
        originASNs: [65011, 65020]
        neighborASNs: [65011]
        sources: [EBGP]
        peers: [frr-v4]
      action: Accept
---
apiVersion: causeway.io/v1alpha1
kind: BGPPolicy
metadata: { name: to-frr }
spec:
  statements:
    - name: pods
      match:
        sources: [PodCIDR]
        peerASNs: [65000-65100]
      set:
        asPathPrepend: { count: 2 }
        med: { value: 77 }
        communities:
          standard: { replace: ["65001:5"] }
          large: { add: ["65001:2:2"] }
          extended: { add: ["rt:65001:9"] }
        nextHop: { address: 10.1.1.99 }
      action: Accept
"#;

#[test]
fn a_policy_decides_what_is_taken_and_what_is_sent() -> Result<()> {
    let lab = lab("peers", "policy")?;
    let (node, other) = (lab.node("node1"), lab.node("frr"));
    wait_for(SESSION, CONVERGED, || causeway::established(node, SESSION))?;
    frr::configure(other, ANNOUNCED)?;
    wait_for("FRR's routes as they are", CONVERGED, || {
        let routes = received(&lab)?;
        ensure!(routes.len() == 5, "{routes:#?}");
        Ok(())
    })?;

    use_policies(&lab)?;
    wait_for("the import policy to be met", CONVERGED, || {
        let routes = received(&lab)?;
        let taken: Vec<&str> = routes.iter().filter_map(|r| r["prefix"].as_str()).collect();
        ensure!(
            taken == ["10.11.0.0/24", "10.11.1.0/24", "10.11.2.0/24"],
            "{taken:?}"
        );
        Ok(())
    })?;
    let routes = received(&lab)?;
    let [plain, far, tagged] = [0, 1, 2].map(|at| &routes[at]["attributes"]);
    assert_eq!(plain["local-preference"], Value::Null, "{plain:#}");
    assert_eq!(far["local-preference"], 50, "{far:#}");
    assert_eq!(far["origin"], "incomplete", "{far:#}");
    assert_eq!(tagged["local-preference"], 300, "{tagged:#}");
    assert_eq!(tagged["med"], 55, "{tagged:#}");
    assert_eq!(
        tagged["communities"],
        serde_json::json!(["65001:1", "65011:7", "no-export"]),
        "{tagged:#}"
    );
    assert_eq!(
        tagged["extended-communities"],
        serde_json::json!(["rt:65001:6"]),
        "{tagged:#}"
    );
    the_tool_says_the_same(&lab)?;

    wait_for("the export policy at FRR", CONVERGED, || {
        let paths = frr::paths(other, Family::Ipv4, PODS)?;
        let path = paths.first().context("no path")?;
        ensure!(path.as_path == [65001, 65001, 65001], "{path:?}");
        ensure!(path.next_hops == ["10.1.1.99"], "{path:?}");
        ensure!(path.communities == ["65001:5"], "{path:?}");
        ensure!(
            path.large_communities == ["65001:1:100", "65001:2:2"],
            "{path:?}"
        );
        let shown = frr::show(other, &format!("bgp ipv4 unicast {PODS}"))?;
        ensure!(shown["paths"][0]["metric"] == 77, "{shown:#}");
        let extended = &shown["paths"][0]["extendedCommunity"]["string"];
        ensure!(*extended == "RT:65001:9", "{shown:#}");
        Ok(())
    })?;

    every_route_is_explained(&lab)?;
    routes_beyond_the_limit_wait(&lab)?;
    ten_thousand_prefixes_are_as_good_as_ten(&lab)?;

    // Without its only statement the policy sends nothing; the session does not notice.
    let changed = POLICIES.replace("sources: [PodCIDR]", "sources: [Service]");
    fs::write(files(&lab)?.join("policies.yaml"), changed)?;
    wait_for("FRR to lose the pods", CONVERGED, || {
        let paths = frr::paths(other, Family::Ipv4, PODS)?;
        ensure!(paths.is_empty(), "{paths:?}");
        Ok(())
    })?;
    let said = explain(&lab, &format!("{PODS} {SESSION}"))?;
    says(&said, "the export policy rejects it: the default of to-frr")?;
    let peer = causeway::peer(node, SESSION)?;
    assert_eq!(peer["established-count"], 1, "{peer:#}");
    lab.down()
}

/// `causeway bgp explain`, as an operator reads it.
fn every_route_is_explained(lab: &Lab) -> Result<()> {
    // FRR's route with the longer path meets one of GoBGP: the policy's local preference decides.
    let add = ["gobgp", "global", "rib", "add", "10.11.1.0/24"];
    lab.node("gobgp").exec_ok(&add)?;
    wait_for("both routes", CONVERGED, || {
        let said = explain(lab, "10.11.1.0/24")?;
        says(&said, "the best of 2 routes is that of gobgp")?;
        says(
            &said,
            "local preference 50, against 100 of gobgp (RFC 4271 §9.1.1)",
        )?;
        says(&said, "does not pass learned routes on")
    })?;
    let said = explain(lab, "10.11.3.0/24")?;
    says(&said, "none of 1 route can be used")?;
    says(
        &said,
        "the import policy rejects it: statement unwanted of from-frr",
    )?;
    let said = explain(lab, &format!("{PODS} {SESSION}"))?;
    says(&said, "a route of the node itself")?;
    says(&said, "sent       the node's own route, via 10.1.1.99")?;
    says(
        &explain(lab, PODS)?,
        "the session does not carry the family",
    )?;
    // An address goes by its longest match.
    says(
        &explain(lab, "10.11.2.77")?,
        "10.11.2.0/24 in main: the best of 1 route",
    )?;
    let node = lab.node("node1");
    let nothing = node.exec(&["causeway", "bgp", "explain", "203.0.113.0/24"])?;
    ensure!(nothing.status.code() == Some(4), "{}", nothing.stdout);
    says(&nothing.stdout, "no route, and none around it")?;
    says(&nothing.stdout, "it has sent no route for the prefix")?;
    let data = causeway::ask(node, "bgp explain 10.11.3.0/24")?;
    let path = &data["explanations"][0]["paths"][0];
    assert_eq!(path["verdict"], "rejected", "{data:#}");
    assert_eq!(path["policy"]["statement"], "unwanted", "{data:#}");
    Ok(())
}

/// `export.maxRoutes`, switched on and off while the session is up.
fn routes_beyond_the_limit_wait(lab: &Lab) -> Result<()> {
    const MORE: &str = "10.244.2.0/24";
    let (node, other) = (lab.node("node1"), lab.node("frr"));
    let folder = files(lab)?;
    let edit = |file: &str, from: &str, to: &str| -> Result<()> {
        let path = folder.join(file);
        let text = fs::read_to_string(&path)?;
        ensure!(text.contains(from), "{file} lacks {from}");
        fs::write(&path, text.replacen(from, to, 1))?;
        Ok(())
    };
    let at_frr = || -> Result<Vec<&str>> {
        let mut found = Vec::new();
        for prefix in [PODS, MORE] {
            if !frr::paths(other, Family::Ipv4, prefix)?.is_empty() {
                found.push(prefix);
            }
        }
        Ok(found)
    };
    let unlimited = "export: { policyRef: { name: to-frr } }";
    let limited = "export: { policyRef: { name: to-frr }, maxRoutes: 1 }";
    edit("peers.yaml", unlimited, limited)?;
    edit(
        "node.yaml",
        "\"10.244.1.0/24\"",
        "\"10.244.1.0/24\", \"10.244.2.0/24\"",
    )?;
    wait_for("the second prefix to wait", CONVERGED, || {
        let found = at_frr()?;
        ensure!(found == [PODS], "{found:?}");
        let status = node.exec(&["causeway", "status"])?.stdout;
        says(
            &status,
            "1 ipv4/unicast routes are not sent: export.maxRoutes is 1",
        )?;
        let metrics = node.exec_ok(&["curl", "-sS", "http://127.0.0.1:9962/metrics"])?;
        let held = r#"causeway_bgp_held_routes{afi="ipv4",instance="main",peer="frr-v4",safi="unicast"} 1"#;
        says(&metrics, held)
    })?;
    let said = explain(lab, &format!("{MORE} {SESSION}"))?;
    says(
        &said,
        "the peer is sent as many routes as it may be (export.maxRoutes)",
    )?;
    edit("peers.yaml", limited, unlimited)?;
    wait_for("both prefixes at FRR", CONVERGED, || {
        let found = at_frr()?;
        ensure!(found == [PODS, MORE], "{found:?}");
        Ok(())
    })
}

/// A statement of as many prefixes as an operator may come with, changed in one of them. That the
/// decision takes no more steps is counted beside the code.
fn ten_thousand_prefixes_are_as_good_as_ten(lab: &Lab) -> Result<()> {
    let (_, to_frr) = POLICIES.split_once("---\n").context("two policies")?;
    for wanted in ["10.11.2.0/24", "10.11.4.0/25"] {
        let mut policy = "apiVersion: causeway.io/v1alpha1\nkind: BGPPolicy\n\
                          metadata: { name: from-frr }\nspec:\n  statements:\n    - name: listed\n      \
                          action: Accept\n      match:\n        prefixes:\n"
            .to_owned();
        for number in 0..10_000_u32 {
            let prefix = match number {
                5_000 => wanted.to_owned(),
                _ => format!("172.20.{}.{}/32", number >> 8, number & 0xff),
            };
            policy.push_str(&format!("          - {{ prefix: {prefix} }}\n"));
        }
        policy.push_str("---\n");
        policy.push_str(to_frr);
        fs::write(files(lab)?.join("policies.yaml"), policy)?;
        wait_for(&format!("{wanted} alone"), CONVERGED, || {
            let routes = received(lab)?;
            let taken: Vec<&str> = routes.iter().filter_map(|r| r["prefix"].as_str()).collect();
            ensure!(taken == [wanted], "{taken:?}");
            Ok(())
        })?;
    }
    fs::write(files(lab)?.join("policies.yaml"), POLICIES)?;
    Ok(())
}

fn explain(lab: &Lab, what: &str) -> Result<String> {
    let mut argv = vec!["causeway", "bgp", "explain"];
    argv.extend(what.split_whitespace());
    lab.node("node1").exec_ok(&argv)
}

fn says(text: &str, words: &str) -> Result<()> {
    ensure!(text.contains(words), "no {words:?} in:\n{text}");
    Ok(())
}

/// The folder of the lab's resources.
fn files(lab: &Lab) -> Result<std::path::PathBuf> {
    let files = lab.files().context("the lab has a copy of its files")?;
    Ok(files.join("resources.d"))
}

/// Writes the policies and names them for the session, both ways.
fn use_policies(lab: &Lab) -> Result<()> {
    let folder = files(lab)?;
    fs::write(folder.join("policies.yaml"), POLICIES)?;
    let mut changed = 0;
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        let named = "import: { policyRef: { name: from-frr } }\n      \
                     export: { policyRef: { name: to-frr } }";
        if let Some((before, after)) = text.split_once("name: frr-v4\nspec:") {
            let after = after.replacen("import: { mode: All }", named, 1);
            fs::write(&path, format!("{before}name: frr-v4\nspec:{after}"))?;
            changed += 1;
        }
    }
    ensure!(
        changed == 1,
        "{changed} files have the peer's configuration"
    );
    Ok(())
}

/// FRR's routes, by prefix.
fn received(lab: &Lab) -> Result<Vec<Value>> {
    let command = format!("bgp routes received ipv4 unicast peer {SESSION}");
    let mut routes = causeway::items(lab.node("node1"), &command)?;
    routes.sort_by_key(|route| route["prefix"].as_str().map(str::to_owned));
    Ok(routes)
}

/// `causeway bgp policy test` with the daemon's policy and routes like FRR's.
fn the_tool_says_the_same(lab: &Lab) -> Result<()> {
    let common = "bgp policy test from-frr --next-hop 10.1.1.2 --peer frr-v4";
    for (route, verdict, by) in [
        ("--route 10.11.0.0/24 --as-path 65011", "Accept", "ours"),
        (
            "--route 10.11.1.0/24 --as-path 65011,65020,65020",
            "Accept",
            "ours",
        ),
        (
            "--route 10.11.3.0/24 --as-path 65011 --communities 65011:999",
            "Reject",
            "unwanted",
        ),
    ] {
        let answer = causeway::ask(lab.node("node1"), &format!("{common} {route}"))?;
        assert_eq!(answer["verdict"], verdict, "{answer:#}");
        assert_eq!(answer["decidedBy"], by, "{answer:#}");
    }
    let too_long = format!("{common} --route 10.11.4.0/25 --as-path 65011");
    let answer = causeway::ask(lab.node("node1"), &too_long)?;
    assert_eq!(answer["verdict"], "Reject", "{answer:#}");
    assert_eq!(answer["decidedBy"], Value::Null, "{answer:#}");
    Ok(())
}
