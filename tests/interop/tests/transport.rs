// SPDX-License-Identifier: Apache-2.0
//! The connections under sessions, as FRR and BIRD 2 meet them: where they come from, the size of
//! segments, keys that are replaced, offers that are refused, large messages, and a neighbour that
//! speaks and does not listen. All of it is written in resources.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use harness::{
    CONVERGED, Lab, Node, Spawned, bird, causeway, frr,
    paths::{Written, established, files, seen, unseen, up, with_peer, write},
    wait_for,
};
use serde_json::Value;

/// How many routes BIRD 2 announces with more communities than 4096 octets hold.
const LARGE: usize = 20;
/// As many of them as FRR's queue, its socket and ours do not take together.
const TOO_MUCH: usize = 200;
/// Large communities of each of these routes: of twelve octets each.
const COMMUNITIES: usize = 1000;
/// A session that is lost soon when nothing passes.
const SHORT: &str =
    "timers: { connectRetryTimeSeconds: 1, holdTimeSeconds: 3, keepAliveTimeSeconds: 1 }";

#[test]
fn connections_are_what_resources_say() -> Result<()> {
    let lab = up("transport")?;
    segments_are_small(&lab)?;
    an_interface_gives_the_source(&lab)?;
    a_key_is_replaced(&lab)?;
    a_key_that_one_end_alone_has_is_suspected(&lab)?;
    offers_that_are_refused_are_left_out(&lab)?;
    families_nobody_asked_for_end_nothing(&lab)?;
    messages_of_more_than_4096_octets(&lab)?;
    who_speaks_and_does_not_listen_is_given_up(&lab)?;
    for peer in ["bird3", "gobgp"] {
        let found = causeway::peer(lab.node("node1"), peer)?;
        ensure!(found["established-count"] == 1, "{found:#}");
    }
    lab.down()
}

/// `tcpMSS` counts from the next session on, for what FRR sends as well.
fn segments_are_small(lab: &Lab) -> Result<()> {
    let (node, router) = (lab.node("node1"), lab.node("frr"));
    let mss = || -> Result<u32> {
        let text = router.exec_ok(&["ss", "-Htni", "dst", "10.2.0.1"])?;
        let word = text.split_whitespace().find_map(|w| w.strip_prefix("mss:"));
        Ok(word.with_context(|| format!("no mss: {text}"))?.parse()?)
    };
    ensure!(mss()? > 1400, "{}", mss()?);
    with_peer(lab, "frr", "tcpMSS: 900")?;
    wait_for("the change to be taken up", CONVERGED, || {
        // A reset before would be in vain.
        node.exec_ok(&["causeway", "bgp", "reset", "frr", "--yes"])?;
        established(lab, &["frr"])?;
        let mss = mss()?;
        // Less the twelve octets of TCP's time stamps.
        ensure!((880..=900).contains(&mss), "{mss}");
        Ok(())
    })?;
    write(lab, &Written::default())
}

/// `transport.sourceInterface`: FRR is called from the address of another device.
fn an_interface_gives_the_source(lab: &Lab) -> Result<()> {
    let (node, router) = (lab.node("node1"), lab.node("frr"));
    for line in [
        "ip link add source0 type veth peer name source1",
        "ip address add 10.2.0.77/32 dev source0",
        "ip link set source0 up",
    ] {
        let argv: Vec<&str> = line.split(' ').collect();
        node.exec_ok(&argv)?;
    }
    frr::configure(
        router,
        &[
            "router bgp 64501",
            "no neighbor 10.2.0.1",
            "neighbor 10.2.0.77 remote-as 64500",
            "neighbor 10.2.0.77 timers connect 1",
        ],
    )?;
    with_peer(lab, "frr", "transport: { sourceInterface: source0 }")?;
    wait_for("the session from the other address", CONVERGED, || {
        frr::established(router, "10.2.0.77")?;
        let peer = causeway::established(node, "frr")?;
        let end = peer["local-endpoint"].as_str().unwrap_or_default();
        ensure!(end.starts_with("10.2.0.77:"), "{end}");
        Ok(())
    })?;
    frr::configure(
        router,
        &[
            "router bgp 64501",
            "no neighbor 10.2.0.77",
            "neighbor 10.2.0.1 remote-as 64500",
            "neighbor 10.2.0.1 timers connect 1",
        ],
    )?;
    write(lab, &Written::default())?;
    node.exec_ok(&["ip", "link", "delete", "source0"])?;
    established(lab, &["frr"])
}

/// FRR drops what is signed with another key, and gets it again once the keys are equal: within the
/// hold time that is no event.
fn a_key_is_replaced(lab: &Lab) -> Result<()> {
    let (node, router) = (lab.node("node1"), lab.node("frr"));
    let with_key = |key: &str| with_key(lab, key, "");
    let announce = |prefix: &str| {
        let network = format!("network {prefix}");
        let lines = ["router bgp 64501", "address-family ipv4 unicast", &network];
        frr::configure(router, &lines)
    };
    with_key("the-first-key")?;
    key_of_frr(lab, "the-first-key")?;
    wait_for("the session with a key", CONVERGED, || {
        frr::established(router, "10.2.0.1")?;
        let peer = causeway::established(node, "frr")?;
        ensure!(peer["tcp-password-enabled"] == true, "{peer:#}");
        Ok(())
    })?;
    let before = causeway::peer(node, "frr")?["established-count"].clone();
    let refused = || -> Result<u64> {
        let text = router.exec_ok(&["nstat", "-asz", "TcpExtTCPMD5Failure"])?;
        let line = text.lines().find(|line| line.starts_with("TcpExt"));
        let count = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(count.context("a count")?.parse()?)
    };
    let wrong = refused()?;
    with_key("the-second-key")?;
    announce("10.31.7.0/24")?;
    wait_for("FRR's kernel to drop our segments", CONVERGED, || {
        let now = refused()?;
        ensure!(now > wrong, "{wrong} before, {now} now");
        Ok(())
    })?;
    causeway::established(node, "frr")?;
    with_key("the-first-key")?;
    seen(lab, "bird2", "10.31.7.0/24", &[64500, 64501], "10.2.0.2")?;
    frr::established(router, "10.2.0.1")?;
    let after = causeway::established(node, "frr")?["established-count"].clone();
    ensure!(before == after, "{before} sessions before, {after} after");

    write(lab, &Written::default())?;
    frr::configure(
        router,
        &[
            "router bgp 64501",
            "no neighbor 10.2.0.1 password",
            "address-family ipv4 unicast",
            "no network 10.31.7.0/24",
        ],
    )?;
    established(lab, &["frr"])
}

/// Each end drops what the other signs, NOTIFICATIONs, too: the session is lost, attempts have no
/// answer, and whoever is woken by that is pointed to the key, at whichever end it was replaced.
fn a_key_that_one_end_alone_has_is_suspected(lab: &Lab) -> Result<()> {
    let (node, router) = (lab.node("node1"), lab.node("frr"));
    let session = |key: &str| {
        wait_for(&format!("the session with {key}"), CONVERGED, || {
            frr::established(router, "10.2.0.1")?;
            let peer = causeway::established(node, "frr")?;
            ensure!(peer["applied-hold-time-seconds"] == 3, "{peer:#}");
            ensure!(peer["tcp-password-enabled"] == true, "{peer:#}");
            Ok(())
        })?;
        seen(lab, "bird2", "10.31.0.0/24", &[64500, 64501], "10.2.0.2")
    };
    let suspected = |lost: &str| {
        wait_for("the node to suspect the key", CONVERGED, || {
            ensure!(frr::established(router, "10.2.0.1").is_err(), "FRR's is up");
            let peer = causeway::peer(node, "frr")?;
            let hint = "is the MD5 password right?";
            ensure!(peer["down-reason"] == "no answer", "{peer:#}");
            ensure!(peer["down-hint"] == hint, "{peer:#}");
            let history = peer["history"].as_array().context("a history")?;
            // The newest first.
            let end = history.iter().find(|was| was["from"] == "established");
            let reason = end.context("an end")?["reason"].to_string();
            ensure!(reason.contains(lost), "{peer:#}");
            let status = causeway::ask(node, "status")?["issues"].to_string();
            ensure!(status.contains(hint), "{status}");
            Ok(())
        })?;
        unseen(lab, "bird2", "10.31.0.0/24")
    };
    with_key(lab, "the-first-key", SHORT)?;
    key_of_frr(lab, "the-first-key")?;
    session("the first key")?;
    with_key(lab, "the-second-key", SHORT)?;
    suspected("hold time of 3 s: was the MD5 password replaced")?;
    key_of_frr(lab, "the-second-key")?;
    session("the second key")?;
    // FRR ends the session for it, and says so with the key both ends have still.
    key_of_frr(lab, "the-third-key")?;
    suspected("Configuration Change")?;
    with_key(lab, "the-third-key", SHORT)?;
    session("the third key")?;

    write(lab, &Written::default())?;
    let no_key = ["router bgp 64501", "no neighbor 10.2.0.1 password"];
    frr::configure(router, &no_key)?;
    established(lab, &["frr"])
}

/// Gives the node's end of FRR's session a key, beside what else the session says.
fn with_key(lab: &Lab, key: &str, session: &str) -> Result<()> {
    let secret = format!(
        "---\napiVersion: v1\nkind: Secret\n\
         metadata: {{ name: key-of-frr, namespace: kube-system }}\n\
         stringData: {{ password: {key} }}\n"
    );
    let session = format!("authSecretRef: key-of-frr\n  {session}");
    let written = Written {
        peers: &[("frr", &session, "")],
        objects: &secret,
        ..Written::default()
    };
    write(lab, &written)
}

/// Gives FRR's end a key.
fn key_of_frr(lab: &Lab, key: &str) -> Result<()> {
    let line = format!("neighbor 10.2.0.1 password {key}");
    frr::configure(lab.node("frr"), &["router bgp 64501", &line])
}

/// RFC 5492 §3: FRR insists on families that the node does not have, and refuses the OPEN; without
/// capabilities there is nothing to compare.
fn offers_that_are_refused_are_left_out(lab: &Lab) -> Result<()> {
    let (node, router) = (lab.node("node1"), lab.node("frr"));
    let strict = "neighbor 10.2.0.1 strict-capability-match";
    with_peer(lab, "frr", "capabilities: Always")?;
    frr::configure(
        router,
        &[
            "router bgp 64501",
            strict,
            "address-family ipv6 unicast",
            "neighbor 10.2.0.1 activate",
        ],
    )?;
    wait_for("the node to say what FRR refuses", CONVERGED, || {
        let peer = causeway::peer(node, "frr")?;
        ensure!(peer["session-state"] != "established", "established");
        let received = &peer["last-notification-received"];
        ensure!(
            received["code"] == 2 && received["subcode"] == 7,
            "{peer:#}"
        );
        Ok(())
    })?;
    let metrics = node.exec_ok(&["curl", "-sS", "http://127.0.0.1:9962/metrics"])?;
    let received = r#"causeway_bgp_notifications_total{code="2",direction="received",instance="main",peer="frr",subcode="7"} "#;
    ensure!(metrics.contains(received), "no {received} in {metrics}");
    write(lab, &Written::default())?;
    wait_for("the session without capabilities", CONVERGED, || {
        let peer = causeway::established(node, "frr")?;
        ensure!(
            peer["local-capabilities"] == serde_json::json!([]),
            "{peer:#}"
        );
        let shown = frr::show(router, "bgp neighbors 10.2.0.1")?;
        let capabilities = &shown["10.2.0.1"]["neighborCapabilities"];
        ensure!(capabilities["4byteAs"] == "advertised", "{capabilities:#}");
        Ok(())
    })?;
    seen(lab, "bird2", "10.31.0.0/24", &[64500, 64501], "10.2.0.2")?;
    seen(lab, "frr", "10.32.0.0/24", &[64500, 64502], "10.2.0.3")?;
    let no_strict = format!("no {strict}");
    frr::configure(
        router,
        &[
            "router bgp 64501",
            &no_strict,
            "address-family ipv6 unicast",
            "no neighbor 10.2.0.1 activate",
        ],
    )?;
    node.exec_ok(&["causeway", "bgp", "reset", "frr", "--yes"])?;
    wait_for("the session with all again", CONVERGED, || {
        let peer = causeway::established(node, "frr")?;
        ensure!(
            peer["local-capabilities"] != serde_json::json!([]),
            "{peer:#}"
        );
        Ok(())
    })
}

/// FRR offers EVPN, flow specifications and multicast.
fn families_nobody_asked_for_end_nothing(lab: &Lab) -> Result<()> {
    let families = ["l2vpn evpn", "ipv4 flowspec", "ipv4 multicast"];
    let say = |word: &str| -> Result<()> {
        for family in families {
            let family = format!("address-family {family}");
            let line = format!("{word}neighbor 10.2.0.1 activate");
            frr::configure(lab.node("frr"), &["router bgp 64501", &family, &line])?;
        }
        Ok(())
    };
    say("")?;
    wait_for("FRR to offer more than the node", CONVERGED, || {
        let peer = causeway::established(lab.node("node1"), "frr")?;
        let offered = peer["remote-capabilities"].to_string();
        for family in ["25/70", "ipv4/133", "ipv4/multicast"] {
            ensure!(offered.contains(family), "{family}: {peer:#}");
        }
        let families = peer["families"].as_array().context("families")?;
        ensure!(families.len() == 1, "{peer:#}");
        Ok(())
    })?;
    seen(lab, "bird2", "10.31.0.0/24", &[64500, 64501], "10.2.0.2")?;
    say("no ")?;
    established(lab, &["frr"])
}

/// RFC 8654: from BIRD 2, which has extended messages, to FRR, which has them; to GoBGP, which has
/// not, these routes cannot be told.
fn messages_of_more_than_4096_octets(lab: &Lab) -> Result<()> {
    large_routes(lab, LARGE)?;
    for number in [0, LARGE - 1] {
        let prefix = format!("10.36.{number}.0/24");
        seen(lab, "frr", &prefix, &[64500, 64502], "10.2.0.3")?;
        let paths = frr::paths(lab.node("frr"), harness::Family::Ipv4, &prefix)?;
        let communities = &paths.first().context("a path")?.large_communities;
        ensure!(communities.len() == COMMUNITIES, "{}", communities.len());
        unseen(lab, "gobgp", &prefix)?;
    }
    // Others of the same neighbour are there.
    seen(lab, "gobgp", "10.32.0.0/24", &[64502], "10.2.0.3")?;
    large_routes(lab, 0)?;
    unseen(lab, "frr", "10.36.0.0/24")
}

/// Has BIRD 2 announce so many large routes.
fn large_routes(lab: &Lab, count: usize) -> Result<()> {
    let pristine = harness::root()?.join("lab/containerlab/paths/bird2/bird.conf");
    let mut text = fs::read_to_string(pristine)?;
    let session = "neighbor 10.2.0.1 as 64500;";
    ensure!(text.contains(session), "{text}");
    text = text.replace(session, &format!("{session} enable extended messages on;"));
    if count > 0 {
        text.push_str("protocol static large { ipv4;\n");
        for number in 0..count {
            text.push_str(&format!("route 10.36.{number}.0/24 blackhole {{\n"));
            for community in 0..COMMUNITIES {
                text.push_str(&format!(
                    "bgp_large_community.add((64502, {number}, {community}));\n"
                ));
            }
            text.push_str("};\n");
        }
        text.push_str("}\n");
    }
    fs::write(files(lab)?.join("bird2/bird.conf"), text)?;
    let said = bird::run(lab.node("bird2"), "configure")?;
    ensure!(said.contains("Reconfig"), "{said}");
    established(lab, &["bird2"])
}

/// RFC 9687. FRR's main thread hangs: another of its threads goes on with keepalives, so that no
/// hold timer runs out, and nothing is read once its queue is full.
fn who_speaks_and_does_not_listen_is_given_up(lab: &Lab) -> Result<()> {
    let (node, router) = (lab.node("node1"), lab.node("frr"));
    // Not much fits between the two.
    router.exec_ok(&["sysctl", "-qw", "net.ipv4.tcp_rmem=4096 8192 8192"])?;
    frr::configure(router, &["router bgp 64501", "bgp input-queue-limit 1"])?;
    with_peer(lab, "frr", &format!("{SHORT}\n  sendHoldTimeSeconds: 6"))?;
    wait_for("the session with a short hold time", CONVERGED, || {
        let peer = causeway::established(node, "frr")?;
        ensure!(peer["applied-hold-time-seconds"] == 3, "{peer:#}");
        Ok(())
    })?;
    let hung = hang(router)?;
    let keepalives = || -> Result<Value> {
        Ok(causeway::established(node, "frr")?["received"]["keepalive"].clone())
    };
    let before = keepalives()?;
    large_routes(lab, TOO_MUCH)?;
    wait_for("FRR to be given up", CONVERGED, || {
        let peer = causeway::peer(node, "frr")?;
        ensure!(peer["session-state"] != "established", "established");
        let text = format!("{} {}", peer["down-reason"], peer["history"]);
        ensure!(
            text.contains("was not acknowledged") || text.contains("read nothing"),
            "{peer:#}"
        );
        let now = &peer["received"]["keepalive"];
        ensure!(now.as_u64() > before.as_u64(), "{before} before, {now} now");
        Ok(())
    })?;
    // The others had all of it meanwhile.
    seen(lab, "bird3", "10.32.0.0/24", &[64502], "10.2.0.3")?;
    hung.stop()?;
    large_routes(lab, 0)?;
    established(lab, &["frr"])
}

/// Stops the main thread of a router's bgpd, and no other, until the handle is stopped.
fn hang(router: &Node) -> Result<Spawned> {
    let ptrace = match std::env::consts::ARCH {
        "x86_64" => 101,
        "aarch64" => 117,
        other => bail!("which number has ptrace on {other}?"),
    };
    let pid = router.exec_ok(&["cat", "/run/frr/bgpd.pid"])?;
    // PTRACE_SEIZE and PTRACE_INTERRUPT; the thread goes on when the tracer ends.
    let script = format!(
        "$| = 1; for my $request (0x4206, 0x4207) {{ \
         syscall({ptrace}, $request, {pid}, 0, 0) == 0 or die qq(ptrace: $!\\n) }} \
         print qq(held\\n); sleep 3600;",
        pid = pid.trim()
    );
    let held = router.spawn(&["perl", "-e", &script])?;
    wait_for("the thread to be held", CONVERGED, || {
        ensure!(held.text().contains("held"), "{}", held.text());
        Ok(())
    })?;
    Ok(held)
}
