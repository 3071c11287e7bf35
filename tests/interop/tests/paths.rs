// SPDX-License-Identifier: Apache-2.0
//! What the node makes of paths, as its neighbours and its kernel see it: reflection, several paths
//! for a prefix, AS numbers in paths, roles, limits, weights, aggregates, blackholes, next hops of
//! third parties, refreshes. FRR and BIRD 2 are external neighbours on the node's network, BIRD 3
//! and GoBGP internal ones.
//!
//! Each step writes the resources anew; what a step needs and does not change is as it was.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::{
    CONVERGED, Lab, bird, causeway, frr,
    paths::{
        Written, at, files, frr_by_range, in_kernel, nobody_was_reset, rejected, seen, unseen, up,
        with_peer, write,
    },
    upgrade, wait_for,
};

#[test]
fn reflection_several_paths_and_next_hops() -> Result<()> {
    let lab = up("reflection")?;
    next_hops_of_third_parties(&lab)?;
    reflection(&lab)?;
    several_paths(&lab)?;
    weights_and_multipath(&lab)?;
    aggregates(&lab)?;
    blackholes(&lab)?;
    refreshes(&lab)?;
    ipv6_alike(&lab)?;
    nearer_next_hops(&lab)?;
    nobody_was_reset(&lab)?;
    policies_required(&lab)?;
    nobody_was_reset(&lab)?;
    upgrades(&lab)?;
    lab.down()
}

#[test]
fn as_numbers_roles_and_limits() -> Result<()> {
    let lab = up("as-numbers")?;
    as_override(&lab)?;
    private_as_numbers(&lab)?;
    own_as_in_paths(&lab)?;
    nobody_was_reset(&lab)?;
    limits(&lab)?;
    who_dials_and_by_what(&lab)?;
    only_to_customers(&lab)?;
    another_as_number(&lab)?;
    first_as(&lab)?;
    lab.down()
}

/// RFC 4271 §5.1.3: on a network all share, who announced a route stays its next hop.
fn next_hops_of_third_parties(lab: &Lab) -> Result<()> {
    seen(lab, "bird2", "10.31.0.0/24", &[64500, 64501], "10.2.0.2")?;
    seen(lab, "frr", "10.32.0.0/24", &[64500, 64502], "10.2.0.3")?;
    seen(lab, "frr", "10.244.1.0/24", &[64500], "10.2.0.1")?;
    write(
        lab,
        &Written {
            peers: &[("frr", "", "export: { nextHop: Self }")],
            ..Written::default()
        },
    )?;
    seen(lab, "frr", "10.32.0.0/24", &[64500, 64502], "10.2.0.1")?;
    seen(lab, "bird2", "10.31.0.0/24", &[64500, 64501], "10.2.0.2")
}

/// RFC 4456: from the client to who is none and back, with marks, and no further.
fn reflection(lab: &Lab) -> Result<()> {
    write(lab, &Written::default())?;
    wait_for("BIRD 3's route at GoBGP", CONVERGED, || {
        let path = gobgp_attributes(lab, "10.33.0.0/24")?;
        ensure!(path.contains(r#""type":9,"value":"10.2.0.4""#), "{path}");
        ensure!(path.contains(r#""type":10,"value":["10.2.0.1"]"#), "{path}");
        Ok(())
    })?;
    wait_for("GoBGP's route at BIRD 3", CONVERGED, || {
        let text = bird::run(lab.node("bird3"), "show route all 10.34.0.0/24")?;
        ensure!(text.contains("bgp_originator_id: 10.2.0.5"), "{text}");
        ensure!(text.contains("bgp_cluster_list: 10.2.0.1"), "{text}");
        ensure!(text.contains("bgp_next_hop: 10.2.0.5"), "{text}");
        ensure!(text.contains("bgp_local_pref: 100"), "{text}");
        Ok(())
    })?;
    // Another number for the cluster, then no client.
    write(
        lab,
        &Written {
            instance: "clusterID: 192.0.2.7",
            ..Written::default()
        },
    )?;
    wait_for("the cluster's number", CONVERGED, || {
        let path = gobgp_attributes(lab, "10.33.0.0/24")?;
        ensure!(path.contains("192.0.2.7"), "{path}");
        Ok(())
    })?;
    write(
        lab,
        &Written {
            peers: &[("bird3", "", "addPath: { send: 4 }")],
            ..Written::default()
        },
    )?;
    unseen(lab, "gobgp", "10.33.0.0/24")?;
    unseen(lab, "bird3", "10.34.0.0/24")?;
    seen(lab, "frr", "10.33.0.0/24", &[64500], "10.2.0.4")
}

/// RFC 7911: both ways to a prefix, at those who take several.
fn several_paths(lab: &Lab) -> Result<()> {
    write(lab, &Written::default())?;
    let hops = |speaker: &str| -> Result<Vec<String>> {
        let paths = at(lab, speaker, "10.100.0.0/24")?;
        let mut hops: Vec<String> = paths.into_iter().flat_map(|path| path.next_hops).collect();
        hops.sort();
        Ok(hops)
    };
    for speaker in ["bird3", "gobgp"] {
        wait_for(&format!("both at {speaker}"), CONVERGED, || {
            let hops = hops(speaker)?;
            ensure!(hops == ["10.2.0.2", "10.2.0.3"], "{hops:?}");
            Ok(())
        })?;
    }
    // One of them goes and comes; its path alone does, at BIRD 3.
    bird::run(lab.node("bird2"), "disable own")?;
    wait_for("one at BIRD 3", CONVERGED, || {
        let hops = hops("bird3")?;
        ensure!(hops == ["10.2.0.2"], "{hops:?}");
        Ok(())
    })?;
    bird::run(lab.node("bird2"), "enable own")?;
    wait_for("both again", CONVERGED, || {
        let hops = hops("bird3")?;
        ensure!(hops.len() == 2, "{hops:?}");
        Ok(())
    })
}

/// What the kernel has of two ways: shares by link bandwidth, and one of them without relaxing.
fn weights_and_multipath(lab: &Lab) -> Result<()> {
    let prefix = "10.101.0.0/24";
    frr::configure(
        lab.node("frr"),
        &[
            // 800 Mbit/s, four times BIRD's.
            "route-map bandwidth permit 10",
            "set extcommunity bandwidth 800",
            "exit",
            "router bgp 64501",
            "address-family ipv4 unicast",
            "network 10.101.0.0/24 route-map bandwidth",
        ],
    )?;
    let weights = |wanted: &[(&str, u64)]| {
        wait_for(&format!("{wanted:?} in the kernel"), CONVERGED, || {
            let argv = ["ip", "-j", "route", "show", "exact", prefix];
            let routes = lab.node("node1").exec_json(&argv)?;
            let hops = routes[0]["nexthops"].as_array();
            let hops = hops.map_or(std::slice::from_ref(&routes[0]), Vec::as_slice);
            let mut found: Vec<(&str, u64)> = hops
                .iter()
                .filter_map(|hop| {
                    let weight = hop["weight"].as_u64().unwrap_or(1);
                    Some((hop["gateway"].as_str()?, weight))
                })
                .collect();
            found.sort_unstable();
            ensure!(found == wanted, "{routes:#}");
            Ok(())
        })
    };
    weights(&[("10.2.0.2", 256), ("10.2.0.3", 64)])?;
    let with = |instance| {
        let written = Written {
            instance,
            ..Written::default()
        };
        write(lab, &written)
    };
    with("weighByLinkBandwidth: false")?;
    weights(&[("10.2.0.2", 1), ("10.2.0.3", 1)])?;
    with("asPathRelax: false")?;
    weights(&[("10.2.0.2", 1)])
}

/// RFC 4271 §9.2.2.2: BIRD 2's routes as one, and what none of them takes goes nowhere.
fn aggregates(lab: &Lab) -> Result<()> {
    let aggregate = "10.32.0.0/16";
    let with = |instance| {
        let written = Written {
            instance,
            ..Written::default()
        };
        write(lab, &written)
    };
    with("aggregates: [{ prefix: 10.32.0.0/16, summaryOnly: true }]")?;
    for speaker in ["frr", "bird3", "gobgp"] {
        let path: &[u32] = if speaker == "frr" { &[64500] } else { &[] };
        seen(lab, speaker, aggregate, path, "10.2.0.1")?;
        unseen(lab, speaker, "10.32.0.0/24")?;
        unseen(lab, speaker, "10.32.2.0/24")?;
    }
    let shown = frr::show(lab.node("frr"), &format!("bgp ipv4 unicast {aggregate}"))?;
    let path = &shown["paths"][0];
    ensure!(path["atomicAggregate"] == true, "{path:#}");
    ensure!(path["aggregatorAs"] == 64500, "{path:#}");
    ensure!(path["aggregatorId"] == "10.2.0.1", "{path:#}");
    ensure!(path["origin"] == "IGP", "{path:#}");
    in_kernel(lab, aggregate, "unreachable")?;
    in_kernel(lab, "10.32.0.0/24", "via 10.2.0.3")?;
    let own = causeway::items(lab.node("node1"), "bgp routes prefix 10.32.0.0/16")?;
    ensure!(own.len() == 1, "{own:#?}");

    let why = causeway::ask(lab.node("node1"), "bgp explain 10.32.0.0/24 frr")?;
    ensure!(why.to_string().contains(aggregate), "{why:#}");

    with("aggregates: [{ prefix: 10.32.0.0/16 }]")?;
    seen(lab, "frr", "10.32.0.0/24", &[64500, 64502], "10.2.0.3")?;
    seen(lab, "frr", aggregate, &[64500], "10.2.0.1")?;
    // It lasts as long as something within does.
    bird::run(lab.node("bird2"), "disable own")?;
    unseen(lab, "frr", aggregate)?;
    in_kernel(lab, aggregate, "")?;
    bird::run(lab.node("bird2"), "enable own")?;
    seen(lab, "frr", aggregate, &[64500], "10.2.0.1")?;
    with("")?;
    unseen(lab, "frr", aggregate)?;
    in_kernel(lab, aggregate, "")
}

/// RFC 7999, both ways.
fn blackholes(lab: &Lab) -> Result<()> {
    let victim = "10.31.66.6/32";
    frr::configure(
        lab.node("frr"),
        &[
            "route-map drop permit 10",
            "set community blackhole",
            "exit",
            "router bgp 64501",
            "address-family ipv4 unicast",
            "network 10.31.66.6/32 route-map drop",
        ],
    )?;
    // Nothing was agreed on: a route like others.
    in_kernel(lab, victim, "via 10.2.0.2")?;
    seen(lab, "bird2", victim, &[64500, 64501], "10.2.0.2")?;
    write(
        lab,
        &Written {
            peers: &[("frr", "", "import: { mode: All, honorBlackhole: true }")],
            advertisement: "attributes: { communities: { wellKnown: [blackhole] } }",
            ..Written::default()
        },
    )?;
    in_kernel(lab, victim, "blackhole")?;
    unseen(lab, "bird2", victim)?;
    wait_for("the route within the AS", CONVERGED, || {
        let paths = at(lab, "bird3", victim)?;
        let path = paths.first().context("no path")?;
        // BLACKHOLE and NO_EXPORT.
        ensure!(path.communities == ["65535:65281", "65535:666"], "{path:?}");
        Ok(())
    })?;
    wait_for("the pods' community at FRR", CONVERGED, || {
        let paths = at(lab, "frr", "10.244.1.0/24")?;
        let path = paths.first().context("no path")?;
        // FRR adds NO_EXPORT by itself.
        ensure!(
            path.communities.iter().any(|c| c == "blackhole"),
            "{path:?}"
        );
        Ok(())
    })?;
    write(lab, &Written::default())?;
    in_kernel(lab, victim, "via 10.2.0.2")?;
    seen(lab, "bird2", victim, &[64500, 64501], "10.2.0.2")
}

/// RFC 7313: asked for by either end, with marks around what is sent, and nothing lost.
fn refreshes(lab: &Lab) -> Result<()> {
    let node = lab.node("node1");
    let shown = frr::show(lab.node("frr"), "bgp neighbors 10.2.0.1")?;
    let capabilities = &shown["10.2.0.1"]["neighborCapabilities"];
    ensure!(
        capabilities["enhancedRouteRefresh"] == "advertisedAndReceived",
        "{capabilities:#}"
    );
    for speaker in ["frr", "bird2"] {
        let count = || -> Result<(u64, u64)> {
            let peer = causeway::peer(node, speaker)?;
            let family = &peer["families"][0];
            let marks = peer["received"]["route-refresh"].as_u64();
            Ok((
                marks.context("a count of messages")?,
                family["received"].as_u64().context("a count of routes")?,
            ))
        };
        let (before, routes) = count()?;
        node.exec_ok(&["causeway", "bgp", "refresh", speaker])?;
        wait_for(&format!("both marks of {speaker}"), CONVERGED, || {
            let (marks, _) = count()?;
            ensure!(marks == before + 2, "{before} before, {marks} now");
            Ok(())
        })?;
        ensure!(count()?.1 == routes, "{speaker}: {routes} routes before");
    }
    // The other way: what they ask for comes between marks, or they would drop what they have.
    let frr_counts = || -> Result<u64> {
        let shown = frr::show(lab.node("frr"), "bgp neighbors 10.2.0.1")?;
        let stats = &shown["10.2.0.1"]["messageStats"];
        stats["routeRefreshRecv"].as_u64().context("a count")
    };
    let before = frr_counts()?;
    let soft = "clear bgp ipv4 unicast 10.2.0.1 soft in";
    lab.node("frr").exec_ok(&["vtysh", "-c", soft])?;
    wait_for("both marks at FRR", CONVERGED, || {
        let now = frr_counts()?;
        ensure!(now == before + 2, "{before} before, {now} now");
        Ok(())
    })?;
    let imported = || -> Result<u64> {
        let text = bird::run(lab.node("bird2"), "show protocols all node1")?;
        let line = text.lines().find(|line| line.contains("Import updates:"));
        let count = line.and_then(|line| line.split_whitespace().nth(2));
        Ok(count.context("a count of updates")?.parse()?)
    };
    let before = imported()?;
    bird::run(lab.node("bird2"), "reload in node1")?;
    wait_for("all of it at BIRD 2 again", CONVERGED, || {
        let advertised = causeway::peer(node, "bird2")?["families"][0]["advertised"].as_u64();
        let now = imported()?;
        ensure!(
            Some(now - before) >= advertised,
            "{before} before, {now} now"
        );
        Ok(())
    })?;
    seen(lab, "bird2", "10.31.0.0/24", &[64500, 64501], "10.2.0.2")?;
    seen(lab, "frr", "10.32.0.0/24", &[64500, 64502], "10.2.0.3")
}

/// Next hops of third parties, and aggregates.
fn ipv6_alike(lab: &Lab) -> Result<()> {
    let (of_frr, aggregate) = ("2001:db8:31::/48", "2001:db8:32::/48");
    let parts = ["2001:db8:32:1::/64", "2001:db8:32:2::/64"];
    write(lab, &Written::default())?;
    seen(lab, "bird2", of_frr, &[64500, 64501], "fd00:10:2::2")?;
    for part in parts {
        seen(lab, "frr", part, &[64500, 64502], "fd00:10:2::3")?;
    }
    let written = Written {
        instance: "aggregates: [{ prefix: \"2001:db8:32::/48\", summaryOnly: true }]",
        ..Written::default()
    };
    write(lab, &written)?;
    seen(lab, "frr", aggregate, &[64500], "fd00:10:2::1")?;
    for part in parts {
        unseen(lab, "frr", part)?;
        in_kernel(lab, part, "via fd00:10:2::3")?;
    }
    in_kernel(lab, aggregate, "unreachable")?;
    write(lab, &Written::default())?;
    unseen(lab, "frr", aggregate)?;
    seen(lab, "frr", parts[0], &[64500, 64502], "fd00:10:2::3")
}

/// RFC 4271 §9.1.2.2 e: of two routes of the AS, the one whose next hop is nearer by the kernel's
/// metric; as that changes, and until there is no way.
fn nearer_next_hops(lab: &Lab) -> Result<()> {
    let prefix = "10.35.0.0/24";
    let node = lab.node("node1");
    let way = |what: &str, to: &str, by: &str, metric: &str| {
        node.exec_ok(&["ip", "route", what, to, "via", by, "metric", metric])
    };
    // The farther one has the lower router id.
    way("add", "10.9.0.4/32", "10.2.0.4", "200")?;
    way("add", "10.9.0.5/32", "10.2.0.5", "100")?;
    let file = files(lab)?.join("bird3/bird.conf");
    let text = fs::read_to_string(&file)?;
    let changed = text
        .replace(
            "route 10.33.0.0/24 blackhole;",
            "route 10.33.0.0/24 blackhole;\n  route 10.35.0.0/24 blackhole { \
             bgp_community.add((64500, 4)); };",
        )
        .replace(
            "export where source = RTS_STATIC; next hop self;",
            "export filter { if source != RTS_STATIC then reject; \
             if net = 10.35.0.0/24 then bgp_next_hop = 10.9.0.4; accept; };",
        );
    fs::write(&file, &changed)?;
    bird::run(lab.node("bird3"), "configure")?;
    let add = "gobgp global rib add 10.35.0.0/24 nexthop 10.9.0.5 origin igp community 64500:5";
    let argv: Vec<&str> = add.split(' ').collect();
    lab.node("gobgp").exec_ok(&argv)?;
    let chosen = |community: &str, gateway: &str| {
        wait_for(&format!("the route of {community}"), CONVERGED, || {
            let paths = at(lab, "frr", prefix)?;
            let path = paths.first().context("no path")?;
            ensure!(path.communities == [community], "{paths:?}");
            Ok(())
        })?;
        in_kernel(lab, prefix, gateway)
    };
    chosen("64500:5", "via 10.2.0.5")?;
    let said = node.exec_ok(&["causeway", "bgp", "explain", prefix])?;
    ensure!(said.contains("metric 200, against 100 of gobgp"), "{said}");

    way("add", "10.9.0.5/32", "10.2.0.5", "300")?;
    way("delete", "10.9.0.5/32", "10.2.0.5", "100")?;
    chosen("64500:4", "via 10.2.0.4")?;
    // By another way, to the same next hop.
    way("add", "10.9.0.4/32", "10.2.0.3", "150")?;
    chosen("64500:4", "via 10.2.0.3")?;
    way("delete", "10.9.0.4/32", "10.2.0.3", "150")?;
    way("delete", "10.9.0.4/32", "10.2.0.4", "200")?;
    chosen("64500:5", "via 10.2.0.5")?;
    way("delete", "10.9.0.5/32", "10.2.0.5", "300")?;
    unseen(lab, "frr", prefix)?;
    in_kernel(lab, prefix, "")?;
    fs::write(&file, text)?;
    bird::run(lab.node("bird3"), "configure").map(drop)
}

/// RFC 8212: external neighbours without policies exchange nothing that was learned.
fn policies_required(lab: &Lab) -> Result<()> {
    let instance = "ebgpRequiresPolicy: true";
    let written = Written {
        instance,
        ..Written::default()
    };
    seen(lab, "bird3", "10.31.0.0/24", &[64501], "10.2.0.2")?;
    write(lab, &written)?;
    unseen(lab, "bird3", "10.31.0.0/24")?;
    unseen(lab, "frr", "10.33.0.0/24")?;
    unseen(lab, "bird2", "10.34.0.0/24")?;
    // An advertisement says by itself who is told.
    seen(lab, "frr", "10.244.1.0/24", &[64500], "10.2.0.1")?;
    seen(lab, "bird3", "10.34.0.0/24", &[], "10.2.0.5")?;
    rejected(lab, "frr", "10.31.0.0/24", "policy")?;
    let family = "import: { policyRef: { name: any } }\n      export: { policyRef: { name: any } }";
    let policy = "---\napiVersion: causeway.io/v1alpha1\nkind: BGPPolicy\n\
                  metadata: { name: any }\nspec: { statements: [{ name: all, action: Accept }] }\n";
    let written = Written {
        instance,
        peers: &[("frr", "", family)],
        objects: policy,
        ..Written::default()
    };
    write(lab, &written)?;
    seen(lab, "bird3", "10.31.0.0/24", &[64501], "10.2.0.2")?;
    seen(lab, "frr", "10.33.0.0/24", &[64500], "10.2.0.4")?;
    unseen(lab, "bird2", "10.34.0.0/24")
}

/// BIRD 2's path has FRR's number, which FRR would take for a loop.
fn as_override(lab: &Lab) -> Result<()> {
    seen(lab, "frr", "10.32.0.0/24", &[64500, 64502], "10.2.0.3")?;
    unseen(lab, "frr", "10.32.1.0/24")?;
    with_peer(lab, "frr", "asOverride: true")?;
    let path = &[64500, 64502, 64500];
    seen(lab, "frr", "10.32.1.0/24", path, "10.2.0.3")
}

/// RFC 6996.
fn private_as_numbers(lab: &Lab) -> Result<()> {
    let (mixed, alone) = ("10.32.2.0/24", "10.33.1.0/24");
    let cases: [(&str, &[u32], &[u32]); 4] = [
        ("Keep", &[64500, 64502, 65010, 65020], &[64500, 65030]),
        ("Remove", &[64500, 64502], &[64500]),
        ("Replace", &[64500, 64502, 64500, 64500], &[64500, 64500]),
        ("RemoveWhenAlone", &[64500, 64502, 65010, 65020], &[64500]),
    ];
    for (mode, of_mixed, of_alone) in cases {
        with_peer(lab, "frr", &format!("privateAS: {mode}"))?;
        seen(lab, "frr", mixed, of_mixed, "10.2.0.3")?;
        seen(lab, "frr", alone, of_alone, "10.2.0.4")?;
    }
    Ok(())
}

/// FRR sends a path with the node's number.
fn own_as_in_paths(lab: &Lab) -> Result<()> {
    frr::configure(
        lab.node("frr"),
        &[
            "route-map own-as permit 10",
            "set as-path prepend 64500",
            "exit",
            "router bgp 64501",
            "address-family ipv4 unicast",
            "network 10.31.1.0/24 route-map own-as",
        ],
    )?;
    rejected(lab, "frr", "10.31.1.0/24", "own AS")?;
    with_peer(lab, "frr", "allowOwnAS: 1")?;
    let path = &[64500, 64501, 64500];
    seen(lab, "bird2", "10.31.1.0/24", path, "10.2.0.2")
}

/// More routes than `maxRoutes`: a warning, then the end of the session until there is room.
fn limits(lab: &Lab) -> Result<()> {
    let node = lab.node("node1");
    let limited = |import: &str| {
        let written = Written {
            peers: &[("frr", "", import)],
            ..Written::default()
        };
        write(lab, &written)
    };
    limited("import: { mode: All, maxRoutes: 2, onMaxRoutes: Warn }")?;
    node.exec_ok(&["causeway", "bgp", "refresh", "frr"])?;
    frr::configure(
        lab.node("frr"),
        &[
            "router bgp 64501",
            "address-family ipv4 unicast",
            "network 10.31.2.0/24",
            "network 10.31.3.0/24",
        ],
    )?;
    seen(lab, "bird2", "10.31.3.0/24", &[64500, 64501], "10.2.0.2")?;
    wait_for("the warning", CONVERGED, || {
        let log = node.log_tail();
        ensure!(log.contains("maxRoutes is near or passed"), "{log}");
        Ok(())
    })?;
    nobody_was_reset(lab)?;

    // A limit that is lowered counts at once.
    let sessions = || -> Result<u64> {
        let shown = frr::show(lab.node("frr"), "bgp neighbors 10.2.0.1")?;
        let count = &shown["10.2.0.1"]["connectionsEstablished"];
        count.as_u64().context("a count")
    };
    let (before, since) = (sessions()?, Instant::now());
    limited("import: { mode: All, maxRoutes: 2, restartAfterSeconds: 8 }")?;
    wait_for("FRR to hear why", CONVERGED, || {
        let shown = frr::show(lab.node("frr"), "bgp neighbors 10.2.0.1")?;
        let shown = shown["10.2.0.1"].to_string();
        ensure!(
            shown.contains("Maximum Number of Prefixes Reached"),
            "{shown}"
        );
        Ok(())
    })?;
    // FRR calls every second; the node is there for it after eight, and ends it again. The time is from before the end of the session, so that a slow test is no error.
    wait_for("FRR to be spoken with again", CONVERGED, || {
        let now = sessions()?;
        ensure!(now > before, "{before} before, {now} now");
        Ok(())
    })?;
    let waited = since.elapsed();
    ensure!(waited >= Duration::from_secs(8), "after {waited:?}");
    write(lab, &Written::default())?;
    seen(lab, "bird2", "10.31.3.0/24", &[64500, 64501], "10.2.0.2")
}

/// Who may open the connection, and the device it is bound to.
fn who_dials_and_by_what(lab: &Lab) -> Result<()> {
    with_peer(lab, "bird2", "active: true\n  bindInterface: eth1")?;
    wait_for("the session from the device", CONVERGED, || {
        let peer = causeway::established(lab.node("node1"), "bird2")?;
        ensure!(peer["connect-mode"] == "active", "{peer:#}");
        let text = lab
            .node("node1")
            .exec_ok(&["ss", "-Htn", "dst", "10.2.0.3"])?;
        ensure!(text.contains("10.2.0.1%eth1"), "{text}");
        Ok(())
    })
}

/// The next daemon goes on with sessions that are sent several paths, by the same identifiers, and
/// with those of a listen range; what it does not have is withdrawn by the identifier it had.
fn upgrades(lab: &Lab) -> Result<()> {
    write(lab, &Written::default())?;
    let node = lab.node("node1");
    let folder = files(lab)?.join("resources.d");
    let text = fs::read_to_string(folder.join("cluster.yaml"))?;
    let text = frr_by_range(&text, "10.2.0.2/32")?;
    fs::write(folder.join("cluster.yaml"), &text)?;
    let sessions = ["rack:10.2.0.2", "bird2", "bird3", "gobgp"];
    wait_for("FRR by the range", CONVERGED, || {
        causeway::established(node, "rack:10.2.0.2")
    })?;
    let both = || -> Result<()> {
        let ids = identifiers(lab, "10.100.0.0/24")?;
        ensure!(ids.len() == 2, "{ids:?}");
        Ok(())
    };
    wait_for("both paths at GoBGP", CONVERGED, both)?;
    let ids = identifiers(lab, "10.100.0.0/24")?;
    let before = what_neighbours_saw(lab)?;
    let mut daemons = Vec::new();
    for _ in 0..5 {
        daemons.push(upgrade::take_over(node, &sessions, &[])?);
        wait_for("both paths still", CONVERGED, both)?;
    }
    assert_eq!(ids, identifiers(lab, "10.100.0.0/24")?);
    // The last one does not take what BIRD 2 announces.
    let next = node.path("/tmp/next.d");
    fs::create_dir(&next)?;
    for file in ["cluster.yaml", "node.yaml", "peers.yaml"] {
        fs::copy(folder.join(file), next.join(file))?;
    }
    let peers = fs::read_to_string(folder.join("peers.yaml"))?;
    let (head, tail) = peers.split_once("name: bird2 }").context("BIRD 2's")?;
    let tail = tail.replacen("mode: All", "mode: None", 1);
    fs::write(
        next.join("peers.yaml"),
        format!("{head}name: bird2 }}{tail}"),
    )?;
    let directory = ["resourcesDirectory=/tmp/next.d"];
    daemons.push(upgrade::take_over(node, &sessions, &directory)?);
    for speaker in ["frr", "bird3", "gobgp"] {
        unseen(lab, speaker, "10.32.0.0/24")?;
    }
    wait_for("FRR's path alone", CONVERGED, || {
        let left = identifiers(lab, "10.100.0.0/24")?;
        ensure!(
            left.len() == 1 && ids.contains(&left[0]),
            "{left:?} of {ids:?}"
        );
        Ok(())
    })?;
    seen(lab, "bird2", "10.31.0.0/24", &[64500, 64501], "10.2.0.2")?;
    assert_eq!(before, what_neighbours_saw(lab)?);
    Ok(())
}

fn what_neighbours_saw(lab: &Lab) -> Result<Vec<upgrade::Seen>> {
    Ok(vec![
        upgrade::seen_by_frr(lab.node("frr"), "10.2.0.1")?,
        upgrade::seen_by_bird(lab.node("bird2"), "node1")?,
        upgrade::seen_by_bird(lab.node("bird3"), "node1")?,
        upgrade::seen_by_gobgp(lab.node("gobgp"), "10.2.0.1")?,
    ])
}

/// The path identifiers GoBGP has for a prefix, sorted. Only its table for people has them, in the
/// first column.
fn identifiers(lab: &Lab, prefix: &str) -> Result<Vec<u32>> {
    let argv = ["gobgp", "neighbor", "10.2.0.1", "adj-in"];
    let text = lab.node("gobgp").exec_ok(&argv)?;
    let lines = text.lines().map(|line| line.split_whitespace().collect());
    let of_prefix = lines.filter(|words: &Vec<&str>| words.get(1) == Some(&prefix));
    let ids = of_prefix.map(|words| words[0].parse().with_context(|| text.clone()));
    let mut ids = ids.collect::<Result<Vec<u32>>>()?;
    ids.sort_unstable();
    Ok(ids)
}

/// RFC 9234: marks on the way out, leaks on the way in.
fn only_to_customers(lab: &Lab) -> Result<()> {
    let with = |bird2: &str| {
        let written = Written {
            peers: &[
                ("frr", "role: { name: Customer }", ""),
                ("bird2", bird2, ""),
            ],
            ..Written::default()
        };
        write(lab, &written)
    };
    with("role: { name: Provider }")?;
    wait_for("the mark at BIRD 2", CONVERGED, || {
        let text = bird::run(lab.node("bird2"), "show route all 10.33.0.0/24")?;
        ensure!(text.contains("BGP.otc: 64500"), "{text}");
        // FRR's has FRR's number, as it is a provider's.
        let text = bird::run(lab.node("bird2"), "show route all 10.31.0.0/24")?;
        ensure!(text.contains("BGP.otc: 64501"), "{text}");
        Ok(())
    })?;
    rejected(lab, "bird2", "10.32.3.0/24", "leak")?;
    with("role: { name: Peer }")?;
    seen(lab, "bird2", "10.33.0.0/24", &[64500], "10.2.0.4")?;
    unseen(lab, "bird2", "10.31.0.0/24")
}

/// FRR knows the node by another number.
fn another_as_number(lab: &Lab) -> Result<()> {
    frr::configure(
        lab.node("frr"),
        &["router bgp 64501", "neighbor 10.2.0.1 remote-as 64510"],
    )?;
    let cases: [(&str, &[u32], &[u32]); 3] = [
        ("", &[64510, 64500, 64502], &[64500, 64510, 64501]),
        (", replaceAS: true", &[64510, 64502], &[64500, 64510, 64501]),
        (", noPrepend: true", &[64510, 64500, 64502], &[64500, 64501]),
    ];
    for (more, sent, received) in cases {
        with_peer(lab, "frr", &format!("localAS: {{ asn: 64510{more} }}"))?;
        seen(lab, "frr", "10.32.0.0/24", sent, "10.2.0.3")?;
        seen(lab, "bird2", "10.31.0.0/24", received, "10.2.0.2")?;
    }
    frr::configure(
        lab.node("frr"),
        &["router bgp 64501", "neighbor 10.2.0.1 remote-as 64500"],
    )?;
    // The number of before is tried as well, where FRR has not changed yet.
    with_peer(lab, "frr", "localAS: { asn: 64510, dualAS: true }")?;
    seen(lab, "frr", "10.32.0.0/24", &[64500, 64502], "10.2.0.3")?;
    write(lab, &Written::default())?;
    seen(lab, "frr", "10.32.0.0/24", &[64500, 64502], "10.2.0.3")
}

/// BIRD 2 as a route server, which leaves its number out of paths.
fn first_as(lab: &Lab) -> Result<()> {
    let file = files(lab)?.join("bird2/bird.conf");
    let text = fs::read_to_string(&file)?;
    let changed = text.replace("connect retry time 1;", "connect retry time 1; rs client;");
    ensure!(changed != text, "{text}");
    fs::write(&file, changed)?;
    bird::run(lab.node("bird2"), "configure")?;
    rejected(lab, "bird2", "10.32.1.0/24", "does not begin")?;
    with_peer(lab, "bird2", "enforceFirstAS: false")?;
    seen(lab, "gobgp", "10.32.1.0/24", &[64501], "10.2.0.3")
}

fn gobgp_attributes(lab: &Lab, prefix: &str) -> Result<String> {
    let argv = ["gobgp", "--json", "global", "rib", "-a", "ipv4"];
    let table = lab.node("gobgp").exec_json(&argv)?;
    Ok(table[prefix].to_string())
}
