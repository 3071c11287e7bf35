// SPDX-License-Identifier: Apache-2.0
//! Manifests of the operator's guide at work, with the addresses and AS numbers of a lab in the place
//! of theirs: what the guide says of them is what FRR and GoBGP see.

use std::fs;

use anyhow::{Context, Result, ensure};
use harness::{
    CONVERGED, Family, Lab, Node, Signal, causeway, frr, gobgp, guide, kernel, lab, wait_for,
};

const SESSION: &str = "10.1.1.1";

#[test]
fn sessions_are_what_the_guide_says() -> Result<()> {
    let lab = lab("peers", "guide")?;
    let (node, router) = (lab.node("node1"), lab.node("frr"));
    frr::configure(
        router,
        &[
            "router bgp 65011",
            "no neighbor 10.1.1.1 password",
            "no neighbor fd00:10:1:1::1",
            "bgp graceful-restart",
            "bgp long-lived-graceful-restart stale-time 7200",
            "neighbor 10.1.1.1 ttl-security hops 1",
            "neighbor 10.1.1.1 local-role provider",
            "address-family ipv4 unicast",
            "neighbor 10.1.1.1 addpath-tx-all-paths",
            "neighbor 10.1.1.1 default-originate",
        ],
    )?;
    let gobgp_file = files(&lab)?.join("gobgp/gobgpd.toml");
    let text = fs::read_to_string(&gobgp_file)?;
    let secured = "[neighbors.ttl-security.config]\nenabled = true\nttl-min = 255\n";
    let session = "[neighbors.timers.config]";
    ensure!(text.contains(session), "{text}");
    fs::write(
        &gobgp_file,
        text.replace(session, &format!("{secured}{session}")),
    )?;
    lab.node("gobgp").kill(Signal::SIGKILL)?;
    lab.node("gobgp").start()?;

    let example = guide::manifest("peers.md", "careful")?;
    let example = guide::adapted(
        &example,
        &[
            ("10.20.0.0/16", "10.1.4.0/24"),
            ("10.0.1.1", "10.1.1.2"),
            ("65101", "65011"),
            ("10.0.2.1", "10.1.2.2"),
            ("65102", "65012"),
        ],
    )?;
    let resources = files(&lab)?.join("resources.d");
    fs::remove_file(resources.join("peers.yaml"))?;
    write(&resources, "cluster.yaml", &example)?;
    let labelled = fs::read_to_string(resources.join("node.yaml"))?;
    let labelled = guide::adapted(&labelled, &[("labels: {", "labels: { rack: \"1\",")])?;
    write(&resources, "node.yaml", &labelled)?;

    let peer = wait_for("the session with tor1", CONVERGED, || {
        frr::established(router, SESSION)?;
        causeway::established(node, "tor1")
    })?;
    ensure!(peer["ebgp-multihop-ttl"] == 255, "{peer:#}");
    let seen = frr::show(router, &format!("bgp neighbors {SESSION}"))?;
    let seen = &seen[SESSION];
    ensure!(seen["remoteRole"] == "customer", "{seen:#}");
    let add_path = &seen["neighborCapabilities"]["addPath"]["ipv4Unicast"];
    ensure!(
        add_path["txAdvertised"] == true && add_path["rxReceived"] == true,
        "{add_path:#}"
    );
    let restart = &seen["gracefulRestartInfo"];
    ensure!(
        restart["timers"]["receivedRestartTimer"] == 120,
        "{restart:#}"
    );
    ensure!(
        restart["ipv4Unicast"]["timers"]["llgrStaleTime"] == 3600,
        "{restart:#}"
    );
    // Of all that FRR announces the policy takes the default route.
    wait_for("the default route", CONVERGED, || {
        kernel::routed_by(node, Family::Ipv4, "default", &["10.1.1.2"])
    })?;
    let refused = causeway::items(node, "bgp routes filtered ipv4 unicast peer tor1")?;
    ensure!(
        refused
            .iter()
            .any(|route| route["prefix"] == "10.11.0.0/24"),
        "{refused:#?}"
    );
    // The one that calls, from a range, by the same configuration.
    wait_for("GoBGP's call", CONVERGED, || {
        gobgp::established(lab.node("gobgp"), "10.1.4.1")?;
        causeway::established(node, "virtual-routers:10.1.4.2")
    })?;
    // The one that is shut down is not tried.
    let shut = causeway::peer(node, "tor2")?;
    ensure!(shut["session-state"] == "idle", "{shut:#}");
    ensure!(
        shut.to_string().contains("line card is replaced"),
        "{shut:#}"
    );

    a_shutdown_says_its_words(&resources, &example, router)?;
    a_range_has_room_for_so_many(&lab, &example)?;
    lab.down()
}

/// The message of `shutdown`, at the other end of a session that was up.
fn a_shutdown_says_its_words(
    resources: &std::path::Path,
    example: &str,
    router: &Node,
) -> Result<()> {
    let line = "          shutdown: { message: \"line card is replaced, back at noon\" }\n";
    let moved = guide::adapted(example, &[(line, "")])?;
    let tor1 = "          peerASN: 65011\n";
    let moved = guide::adapted(&moved, &[(tor1, &format!("{tor1}{line}"))])?;
    write(resources, "cluster.yaml", &moved)?;
    wait_for("FRR to hear the words", CONVERGED, || {
        let seen = frr::show(router, &format!("bgp neighbors {SESSION}"))?;
        let words = &seen[SESSION]["lastShutdownDescription"];
        ensure!(*words == "line card is replaced, back at noon", "{seen:#}");
        Ok(())
    })
}

/// `maxPeers`: the second caller is sent away, until there is room.
fn a_range_has_room_for_so_many(lab: &Lab, example: &str) -> Result<()> {
    let (node, router) = (lab.node("node1"), lab.node("frr"));
    let resources = files(lab)?.join("resources.d");
    let tor1 = "        - name: tor1\n          peerAddress: 10.1.1.2\n          peerASN: 65011\n\
                \x20         peerConfigRef: { kind: BGPPeerConfig, name: careful }\n";
    let narrow = guide::adapted(
        example,
        &[
            (tor1, ""),
            ("10.1.4.0/24", "10.1.0.0/16"),
            ("maxPeers: 50", "maxPeers: 1"),
        ],
    )?;
    write(&resources, "cluster.yaml", &narrow)?;
    let of = |address: &str| format!("virtual-routers:{address}");
    wait_for("one of two callers to be sent away", CONVERGED, || {
        let peers = causeway::items(node, "bgp peers")?;
        let callers = peers.iter().filter(|peer| {
            let name = peer["name"].as_str().unwrap_or_default();
            name.starts_with("virtual-routers:")
        });
        ensure!(callers.count() == 1, "{peers:#?}");
        let said = causeway::ask(node, "status")?["issues"].to_string();
        ensure!(said.contains("full: maxPeers is 1"), "{said}");
        Ok(())
    })?;
    let wide = guide::adapted(&narrow, &[("maxPeers: 1", "maxPeers: 2")])?;
    write(&resources, "cluster.yaml", &wide)?;
    for address in ["10.1.1.2", "10.1.4.2"] {
        wait_for(
            &format!("{address} as a peer of the range"),
            CONVERGED,
            || causeway::established(node, &of(address)),
        )?;
    }
    let said = causeway::ask(node, "status")?["issues"].to_string();
    ensure!(!said.contains("maxPeers"), "{said}");
    frr::established(router, SESSION)
}

#[test]
fn peers_without_addresses_are_found_as_the_guide_says() -> Result<()> {
    let lab = lab("discovery", "guide")?;
    let (node, tor) = (lab.node("node1"), lab.node("tor"));
    let resources = files(&lab)?.join("resources.d");
    let file = resources.join("bgp.yaml");
    let text = fs::read_to_string(&file)?;
    let advertisement = text.split("---\n").find(|part| part.contains("PodCIDR"));
    let advertisement = advertisement.context("the lab advertises its pods")?;
    write(&resources, "pods.yaml", advertisement)?;
    // The guide's has no timers: a call that comes too early is tried again after two minutes, and
    // this test would wait for it.
    let timers = "spec:\n  timers: { connectRetryTimeSeconds: 1 }\n  families:\n";

    let everywhere = guide::manifest("discovery.md", "everywhere")?;
    let everywhere = guide::adapted(&everywhere, &[("spec:\n  families:\n", timers)])?;
    write(&resources, "bgp.yaml", &everywhere)?;
    for name in ["gateway:172.16.1.1", "gateway6:fd00:172:16:1::1"] {
        wait_for(name, CONVERGED, || causeway::established(node, name))?;
    }
    wait_for("the pods at the gateway", CONVERGED, || {
        frr::used_paths(lab.node("gw1"), Family::Ipv4, "10.244.1.0/24", 2)
    })?;

    let unnumbered = guide::manifest("discovery.md", "unnumbered")?;
    let unnumbered = guide::adapted(
        &unnumbered,
        &[
            ("spec:\n  families:\n", timers),
            ("interface: eth1", "interface: eth3"),
        ],
    )?;
    write(&resources, "bgp.yaml", &unnumbered)?;
    wait_for("the session without addresses", CONVERGED, || {
        causeway::established(node, "tor1")
    })?;
    for (family, prefix) in [
        (Family::Ipv4, "10.244.1.0/24"),
        (Family::Ipv6, "fd00:10:244:1::/64"),
    ] {
        wait_for(prefix, CONVERGED, || {
            frr::used_paths(tor, family, prefix, 1)
        })?;
    }
    lab.down()
}

fn files(lab: &Lab) -> Result<std::path::PathBuf> {
    let files = lab.files().context("the lab has a copy of its files")?;
    Ok(files.to_owned())
}

fn write(folder: &std::path::Path, file: &str, text: &str) -> Result<()> {
    let path = folder.join(file);
    let beside = path.with_extension("new");
    fs::write(&beside, text)?;
    fs::rename(&beside, &path)?;
    Ok(())
}
