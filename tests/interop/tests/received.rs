// SPDX-License-Identifier: Apache-2.0
//! What neighbours say, and what the node makes of it: several paths of one neighbour for a prefix,
//! GRACEFUL_SHUTDOWN, more routes than were reckoned with, packets from too far away, and calls that
//! come by a device.

use std::fs;

use anyhow::{Context, Result, ensure};
use harness::{
    CONVERGED, Lab, Spawned, bird, causeway, frr,
    paths::{
        PEERS, Written, established, files, frr_by_range, in_kernel, seen, texts, unseen, up,
        with_peer, write,
    },
    upgrade, wait_for,
};

#[test]
fn what_neighbours_say_is_heeded() -> Result<()> {
    let lab = up("received")?;
    let _daemon = several_paths_of_a_neighbour(&lab)?;
    graceful_shutdown(&lab)?;
    limits_that_are_near(&lab)?;
    a_call_by_a_device(&lab)?;
    packets_from_afar(&lab)?;
    metrics_tell_it(&lab)?;
    a_range_with_a_key(&lab)?;
    lab.down()
}

/// RFC 7911 §3: BIRD 3 announces a prefix twice; each path comes and goes by itself, and both survive
/// an upgrade of the daemon. Returns the daemon that runs from then on.
fn several_paths_of_a_neighbour(lab: &Lab) -> Result<Spawned> {
    const PREFIX: &str = "10.35.0.0/24";
    let (node, router) = (lab.node("node1"), lab.node("bird3"));
    let file = files(lab)?.join("bird3/bird.conf");
    let before = fs::read_to_string(&file)?;
    let receives = "next hop self; add paths rx;";
    ensure!(before.contains(receives), "{before}");
    let two = format!(
        "protocol static one {{ ipv4; route {PREFIX} via 10.2.0.2; }}\n\
         protocol static two {{ ipv4; route {PREFIX} via 10.2.0.3; }}\n"
    );
    fs::write(&file, before.replace(receives, "add paths on;") + &two)?;
    bird::run(router, "configure")?;
    let both = "addPath: { send: 4, receive: true }";
    let written = Written {
        peers: &[("bird3", "", both)],
        ..Written::default()
    };
    write(lab, &written)?;
    let hops = |wanted: &[&str]| {
        wait_for(&format!("{PREFIX} by {wanted:?}"), CONVERGED, || {
            let all = causeway::items(node, "bgp routes ipv4 unicast")?;
            let of_bird3 = all
                .iter()
                .filter(|route| route["prefix"] == PREFIX && route["peer"] == "bird3");
            let mut found: Vec<&str> = of_bird3
                .filter_map(|route| route["next-hop"].as_str())
                .collect();
            found.sort_unstable();
            ensure!(found == wanted, "{found:?}");
            Ok(())
        })?;
        for hop in wanted {
            in_kernel(lab, PREFIX, &format!("via {hop} "))?;
        }
        let said = node.exec_ok(&["causeway", "bgp", "explain", PREFIX])?;
        let is_beside = said.contains("used beside the best");
        ensure!(is_beside == (wanted.len() == 2), "{said}");
        Ok(())
    };
    hops(&["10.2.0.2", "10.2.0.3"])?;
    let daemon = upgrade::take_over(node, &PEERS, &[])?;
    hops(&["10.2.0.2", "10.2.0.3"])?;
    bird::run(router, "disable one")?;
    hops(&["10.2.0.3"])?;
    bird::run(router, "enable one")?;
    hops(&["10.2.0.2", "10.2.0.3"])?;
    bird::run(router, "disable two")?;
    hops(&["10.2.0.2"])?;

    fs::write(&file, before)?;
    bird::run(router, "configure")?;
    write(lab, &Written::default())?;
    established(lab, &PEERS)?;
    in_kernel(lab, PREFIX, "")?;
    Ok(daemon)
}

/// RFC 8326 §4: routes of an external neighbour that is about to go are the last resort, without a
/// policy that says so.
fn graceful_shutdown(lab: &Lab) -> Result<()> {
    const PREFIX: &str = "10.100.0.0/24";
    let (node, router) = (lab.node("node1"), lab.node("frr"));
    let by = |wanted: &[&str]| {
        wait_for(&format!("{PREFIX} by {wanted:?}"), CONVERGED, || {
            let text = node.exec_ok(&["ip", "route", "show", "exact", PREFIX])?;
            for hop in ["10.2.0.2", "10.2.0.3"] {
                let is_there = text.contains(&format!("via {hop} "));
                ensure!(is_there == wanted.contains(&hop), "{text}");
            }
            Ok(())
        })
    };
    by(&["10.2.0.2", "10.2.0.3"])?;
    let family = ["router bgp 64501", "address-family ipv4 unicast"];
    let going = format!("network {PREFIX} route-map going");
    let map = [
        "route-map going permit 10",
        "set community graceful-shutdown",
        "exit",
    ];
    frr::configure(router, &[&map[..], &family, &[&going]].concat())?;
    by(&["10.2.0.3"])?;
    let said = node.exec_ok(&["causeway", "bgp", "explain", PREFIX])?;
    ensure!(said.contains("local preference 0, against 100"), "{said}");
    // It is the only one: better than nothing.
    bird::run(lab.node("bird2"), "disable own")?;
    by(&["10.2.0.2"])?;
    bird::run(lab.node("bird2"), "enable own")?;
    by(&["10.2.0.3"])?;
    let stays = format!("network {PREFIX}");
    let none = format!("no {going}");
    frr::configure(router, &[&family[..], &[&none, &stays]].concat())?;
    by(&["10.2.0.2", "10.2.0.3"])
}

/// `warningPercent` and `onMaxRoutes: Warn`: nothing is refused, and the status says it as long as it
/// is so.
fn limits_that_are_near(lab: &Lab) -> Result<()> {
    let node = lab.node("node1");
    let status = |max: u32, wanted: Option<&str>| {
        let import = format!(
            "import: {{ mode: All, maxRoutes: {max}, warningPercent: 50, onMaxRoutes: Warn }}"
        );
        let written = Written {
            peers: &[("frr", "", &import)],
            ..Written::default()
        };
        write(lab, &written)?;
        wait_for(&format!("{wanted:?} with {max}"), CONVERGED, || {
            let issues = causeway::ask(node, "status")?["issues"].to_string();
            let limit = format!("import.maxRoutes is {max}");
            ensure!(issues.contains("CW0210") == wanted.is_some(), "{issues}");
            if let Some(wanted) = wanted {
                ensure!(issues.contains(&format!("{wanted}: {limit}")), "{issues}");
            }
            Ok(())
        })
    };
    // FRR has two.
    status(100, None)?;
    status(4, Some("2 ipv4/unicast routes are taken"))?;
    status(1, Some("2 ipv4/unicast routes are taken"))?;
    seen(lab, "bird2", "10.31.0.0/24", &[64500, 64501], "10.2.0.2")?;
    status(6, None)?;
    write(lab, &Written::default())
}

/// `bindInterface`: also a connection that the neighbour made is bound to the device.
fn a_call_by_a_device(lab: &Lab) -> Result<()> {
    let node = lab.node("node1");
    with_peer(lab, "bird2", "passive: true\n  bindInterface: eth1")?;
    wait_for("the session by the device", CONVERGED, || {
        let peer = causeway::established(node, "bird2")?;
        ensure!(peer["connect-mode"] == "passive", "{peer:#}");
        let text = node.exec_ok(&["ss", "-Htn", "dst", "10.2.0.3"])?;
        ensure!(text.contains("10.2.0.1%eth1:179"), "{text}");
        Ok(())
    })?;
    // BIRD 2 calls as before, and not by this one.
    with_peer(lab, "bird2", "passive: true\n  bindInterface: lo")?;
    wait_for("a call by another device", CONVERGED, || {
        let peer = causeway::peer(node, "bird2")?;
        ensure!(peer["session-state"] != "established", "still up");
        let text = bird::run(lab.node("bird2"), "show protocols all node1")?;
        ensure!(!text.contains("Established"), "{text}");
        ensure!(text.contains("Last error"), "{text}");
        Ok(())
    })?;
    unseen(lab, "frr", "10.32.0.0/24")?;
    write(lab, &Written::default())?;
    established(lab, &["bird2"])
}

/// RFC 5082: a packet that a router has forwarded is none of a neighbour on the link.
fn packets_from_afar(lab: &Lab) -> Result<()> {
    let (node, router) = (lab.node("node1"), lab.node("frr"));
    frr::configure(
        router,
        &["router bgp 64501", "neighbor 10.2.0.1 ttl-security hops 1"],
    )?;
    let secure = "ttlSecurity: { maxHops: 1 }\n  \
                  timers: { connectRetryTimeSeconds: 1, holdTimeSeconds: 3, keepAliveTimeSeconds: 1 }";
    with_peer(lab, "frr", secure)?;
    let is_up = || {
        wait_for("the session on the link", CONVERGED, || {
            frr::established(router, "10.2.0.1")?;
            let peer = causeway::established(node, "frr")?;
            ensure!(peer["applied-hold-time-seconds"] == 3, "{peer:#}");
            Ok(())
        })
    };
    is_up()?;
    for rule in [
        "add table ip far",
        "add chain ip far out { type filter hook output priority 0 ; }",
        "add rule ip far out tcp dport 179 ip ttl set 254",
        "add rule ip far out tcp sport 179 ip ttl set 254",
    ] {
        router.exec_ok(&["nft", rule])?;
    }
    wait_for("the session to be lost", CONVERGED, || {
        let peer = causeway::peer(node, "frr")?;
        ensure!(peer["session-state"] != "established", "still up");
        let text = peer["history"].to_string();
        ensure!(text.contains("hold time of 3 s"), "{text}");
        Ok(())
    })?;
    unseen(lab, "bird2", "10.31.0.0/24")?;
    router.exec_ok(&["nft", "delete table ip far"])?;
    is_up()?;
    seen(lab, "bird2", "10.31.0.0/24", &[64500, 64501], "10.2.0.2")
}

/// What a fabric engineer graphs, after all this and a reset by FRR.
fn metrics_tell_it(lab: &Lab) -> Result<()> {
    let (node, router) = (lab.node("node1"), lab.node("frr"));
    let metric = |name: &str| -> Result<f64> {
        let text = node.exec_ok(&["curl", "-sS", "http://127.0.0.1:9962/metrics"])?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.map_or(Ok(0.0), str::parse)?)
    };
    let of_frr = r#"instance="main",peer="frr""#;
    let notifications = |code: u8, direction: &str, subcode: u8| {
        metric(&format!(
            "causeway_bgp_notifications_total{{code=\"{code}\",direction=\"{direction}\",{of_frr},\
             subcode=\"{subcode}\"}}"
        ))
    };
    let flaps = || metric(&format!("causeway_bgp_session_flaps_total{{{of_frr}}}"));
    let accepted = || {
        metric(&format!(
            "causeway_bgp_accepted_routes{{afi=\"ipv4\",{of_frr},safi=\"unicast\"}}"
        ))
    };
    let converged = || metric("causeway_fib_convergence_seconds_count");
    // The hold time that ran out, and the reset of a moment.
    let expired = notifications(4, "sent", 0)?;
    ensure!(expired >= 1.0, "{expired}");
    let before = (flaps()?, notifications(6, "received", 4)?, converged()?);
    ensure!(before.0 >= 1.0, "{before:?}");
    router.exec_ok(&["vtysh", "-c", "clear bgp 10.2.0.1"])?;
    wait_for("the reset in the metrics", CONVERGED, || {
        let after = (flaps()?, notifications(6, "received", 4)?, converged()?);
        ensure!(after.0 == before.0 + 1.0, "{before:?} {after:?}");
        ensure!(after.1 == before.1 + 1.0, "{before:?} {after:?}");
        ensure!(after.2 > before.2, "{before:?} {after:?}");
        let routes = accepted()?;
        ensure!(routes == 2.0, "{routes}");
        Ok(())
    })
}

/// The key of a listen range holds for every address of its prefix; calls with another one and with
/// none are not taken.
fn a_range_with_a_key(lab: &Lab) -> Result<()> {
    const MEMBER: &str = "rack:10.2.0.2";
    let (node, router) = (lab.node("node1"), lab.node("frr"));
    let with_key = |key: &str| {
        let secret = format!(
            "---\napiVersion: v1\nkind: Secret\n\
             metadata: {{ name: key-of-rack, namespace: kube-system }}\n\
             stringData: {{ password: {key} }}\n"
        );
        let written = Written {
            peers: &[("frr", "authSecretRef: key-of-rack", "")],
            objects: &secret,
            ..Written::default()
        };
        let folder = files(lab)?.join("resources.d");
        for (file, text) in texts(&written)? {
            let text = if file == "cluster.yaml" {
                frr_by_range(&text, "10.2.0.2/31")?
            } else {
                text
            };
            let beside = folder.join(file).with_extension("new");
            fs::write(&beside, text)?;
            fs::rename(&beside, folder.join(file))?;
        }
        Ok::<(), anyhow::Error>(())
    };
    let key_of_frr = |line: &str| frr::configure(router, &["router bgp 64501", line]);
    let is_up = |key: &str| {
        wait_for(&format!("FRR with {key}"), CONVERGED, || {
            frr::established(router, "10.2.0.1")?;
            let peer = causeway::established(node, MEMBER)?;
            ensure!(peer["tcp-password-enabled"] == true, "{peer:#}");
            Ok(())
        })
    };
    let count = |name: &str| -> Result<u64> {
        let text = node.exec_ok(&["nstat", "-asz", name])?;
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(value.with_context(|| text.clone())?.parse()?)
    };
    let refused = |what: &str, counter: &str| {
        let before = count(counter)?;
        wait_for(what, CONVERGED, || {
            ensure!(frr::established(router, "10.2.0.1").is_err(), "FRR is up");
            let now = count(counter)?;
            ensure!(now > before, "{counter}: {before} before, {now} now");
            Ok(())
        })
    };
    frr::configure(
        router,
        &[
            "router bgp 64501",
            "no neighbor 10.2.0.1 ttl-security hops 1",
        ],
    )?;
    with_key("the-key-of-the-rack")?;
    key_of_frr("neighbor 10.2.0.1 password the-key-of-the-rack")?;
    is_up("the key")?;
    // FRR ends the session for its own change.
    with_key("another-key")?;
    key_of_frr("neighbor 10.2.0.1 password another-key")?;
    seen(lab, "bird2", "10.31.0.0/24", &[64500, 64501], "10.2.0.2")?;
    is_up("the other key")?;
    key_of_frr("neighbor 10.2.0.1 password a-wrong-key")?;
    refused("a wrong key", "TcpExtTCPMD5Failure")?;
    key_of_frr("no neighbor 10.2.0.1 password")?;
    refused("no key", "TcpExtTCPMD5NotFound")?;
    key_of_frr("neighbor 10.2.0.1 password another-key")?;
    is_up("the key again")
}
