// SPDX-License-Identifier: Apache-2.0
//! What sessions agree on with FRR, and how they end: TTL security, roles, graceful restart with
//! NOTIFICATION, long-lived stale routes, several paths, shutdown communications, listen ranges,
//! fail-over on link loss.
//!
//! The speaker is this test's own, in the place of node1's daemon: each step is a configuration.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bgp_core::config::{
    AsnRange, GracefulRestart, ImportMode, InstanceConfig, Listen, ListenRange, LocalRoutes,
    Md5Password, PeerAddress, PeerConfig, RoleConfig, StaleTime, TcpMss, Timers, TtlSecurity,
};
use bgp_core::fsm::State;
use bgp_core::peer::{PeerSnapshot, StopReason};
use bgp_io::{Options, PeerReport, Speaker};
use bgp_wire::Role;
use harness::{CONVERGED, Node, Signal, causeway, frr, lab, wait_for};
use router_types::{Asn, Family};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

const FRR: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 2);
const OWN: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);

/// Less than the session's hold time of 90 s: who notices by then did not wait for it.
const AT_ONCE: Duration = Duration::from_secs(45);

#[test]
fn what_sessions_agree_on_with_frr_and_how_they_end() -> Result<()> {
    let lab = lab("peers", "sessions")?;
    let (node1, frr) = (lab.node("node1"), lab.node("frr"));
    for peer in ["frr-v4", "frr-v6"] {
        wait_for("the sessions with FRR", CONVERGED, || {
            causeway::established(node1, peer).map(drop)
        })?;
    }
    a_change_is_foretold(node1)?;
    a_drained_node_announces_that_it_leaves_and_then_nothing(node1, frr)?;
    a_lost_link_is_a_lost_session(node1)?;

    node1.kill(Signal::SIGKILL)?;
    let own = Own::start(node1)?;
    everything_is_agreed_on(&own, frr)?;
    shutdowns_are_told_both_ways(&own, frr)?;
    roles_that_do_not_fit_are_refused(&own, frr)?;
    a_range_takes_frr_by_its_call(&own, frr)?;
    own.stop();
    lab.down()
}

/// `causeway config diff`, against the daemon: what it says is what a change would do.
fn a_change_is_foretold(node1: &Node) -> Result<()> {
    let peers = fs::read_to_string(node1.path("/etc/causeway/resources.d/peers.yaml"))?;
    let changed = peers
        .replace("holdTimeSeconds: 3,", "holdTimeSeconds: 6,")
        .replacen("import: { mode: All }", "import: { mode: None }", 1);
    ensure!(changed != peers, "{peers}");
    fs::write(node1.path("/tmp/peers.yaml"), changed)?;
    let output = node1.exec(&[
        "causeway",
        "config",
        "diff",
        "/tmp/peers.yaml",
        "-o",
        "json",
    ])?;
    ensure!(output.status.code() == Some(1), "{}", output.stderr);
    let found: Value = serde_json::from_str(&output.stdout)?;
    let items = found["items"].as_array().context("items")?;
    let effects: Vec<(&str, &str)> = items
        .iter()
        .filter(|item| item["peer"] == "frr-v4")
        .filter_map(|item| Some((item["what"].as_str()?, item["effect"].as_str()?)))
        .collect();
    assert_eq!(
        effects,
        [
            ("hold time", "session-reset"),
            ("import policy", "route-refresh")
        ]
    );
    ensure!(items.len() == effects.len(), "nobody else: {found:#}");
    // It was a question, and nothing happened.
    let peer = causeway::established(node1, "frr-v4")?;
    assert_eq!(peer["applied-hold-time-seconds"], 3, "{peer:#}");
    Ok(())
}

/// `causeway drain`: GRACEFUL_SHUTDOWN, then withdrawal; the session stays, a restart changes nothing.
fn a_drained_node_announces_that_it_leaves_and_then_nothing(
    node1: &Node,
    frr: &Node,
) -> Result<()> {
    const PODS: &str = "10.244.1.0/24";
    let up = causeway::established(node1, "frr-v4")?["established-count"].clone();
    let begin = [
        "causeway",
        "drain",
        "--wait",
        "6s",
        "--reason",
        "new disks",
        "--detach",
    ];
    node1.exec_ok(&begin)?;
    wait_for("FRR to hear of it", CONVERGED, || {
        let paths = frr::paths(frr, harness::Family::Ipv4, PODS)?;
        let path = paths.first().context("no path")?;
        let marked = path.communities.iter().any(|c| c == "gracefulShutdown");
        ensure!(marked, "{path:?}");
        Ok(())
    })?;
    // It waits for the rest, and is done.
    let said = node1.exec_ok(&["causeway", "drain", "--wait", "1s", "--reason", "new disks"])?;
    ensure!(said.contains("drained: nothing is announced"), "{said}");
    let withdrawn = || {
        let paths = frr::paths(frr, harness::Family::Ipv4, PODS)?;
        ensure!(paths.is_empty(), "{paths:?}");
        Ok(())
    };
    wait_for("the routes to be withdrawn", CONVERGED, withdrawn)?;
    let peer = causeway::established(node1, "frr-v4")?;
    assert_eq!(peer["established-count"], up, "the session stays: {peer:#}");
    let says = |words: &str, argv: &[&str]| {
        let output = node1.exec(argv)?;
        ensure!(output.stdout.contains(words), "{}", output.stdout);
        Ok(())
    };
    says(
        "drained, so nothing is announced: new disks",
        &["causeway", "status"],
    )?;
    says("the node is drained", &["causeway", "bgp", "explain", PODS])?;

    node1.kill(Signal::SIGKILL)?;
    node1.start()?;
    wait_for("the session after a restart", CONVERGED, || {
        frr::established(frr, "10.1.1.1")?;
        causeway::established(node1, "frr-v4").map(drop)
    })?;
    says(
        "drained, so nothing is announced: new disks",
        &["causeway", "status"],
    )?;
    withdrawn()?;
    node1.exec_ok(&["causeway", "undrain"])?;
    wait_for("the routes to be back", CONVERGED, || {
        let paths = frr::paths(frr, harness::Family::Ipv4, PODS)?;
        let path = paths.first().context("no path")?;
        ensure!(path.communities == ["65001:100"], "{path:?}");
        Ok(())
    })
}

/// The daemon, not the test's speaker: it is the kernel that tells.
fn a_lost_link_is_a_lost_session(node1: &Node) -> Result<()> {
    node1.link_down("eth1")?;
    wait_for("the session on the link to end", AT_ONCE, || {
        let peer = causeway::peer(node1, "frr-v6")?;
        let text = peer.to_string();
        ensure!(text.contains("the link eth1 is down"), "{text}");
        Ok(())
    })?;
    let metrics = node1.exec_ok(&["curl", "-sS", "http://127.0.0.1:9962/metrics"])?;
    for line in [
        r#"causeway_bgp_session_flaps_total{instance="main",peer="frr-v6"} 1"#,
        r#"causeway_bgp_session_state{instance="main",peer="bird2"} 5"#,
        r#"causeway_bgp_notifications_total{code="6","#,
        r#"causeway_bgp_stale_routes{afi="ipv6",instance="main",peer="frr-v6",safi="unicast"} "#,
        r#"causeway_bgp_initial_sync_seconds{afi="ipv4",instance="main",peer="bird2",safi="unicast"} "#,
        r#"causeway_bgp_send_queue_bytes{instance="main",peer="bird2"} 0"#,
        "causeway_fib_convergence_seconds_count ",
        "causeway_drain_phase 0",
    ] {
        ensure!(metrics.contains(line), "no {line} in {metrics}");
    }
    node1.link_up("eth1")
}

fn everything_is_agreed_on(own: &Own, frr: &Node) -> Result<()> {
    frr::configure(
        frr,
        &[
            "router bgp 65011",
            "bgp graceful-restart",
            "bgp graceful-restart notification",
            "bgp long-lived-graceful-restart stale-time 77",
            "neighbor 10.1.1.1 ttl-security hops 1",
            "neighbor 10.1.1.1 local-role provider strict-mode",
            "address-family ipv4 unicast",
            "neighbor 10.1.1.1 addpath-tx-all-paths",
        ],
    )?;
    own.set(vec![("frr", settings()?)], None)?;
    let session = own.until_up("frr")?;
    let agreed = session.negotiated.context("up")?;
    assert_eq!(agreed.role, Some(Role::Customer));
    ensure!(agreed.notification_restart, "{agreed:?}");
    ensure!(agreed.context.extended_messages, "{agreed:?}");
    let ipv4 = agreed
        .context
        .family(Family::IPV4_UNICAST)
        .context("IPv4")?;
    ensure!(ipv4.add_path_receive && !ipv4.add_path_send, "{ipv4:?}");
    // The shorter of FRR's 77 s and this end's 50 s.
    let long_lived = agreed.long_lived[&Family::IPV4_UNICAST];
    assert_eq!(long_lived.stale_time, Duration::from_secs(50));
    assert_eq!(session.ttl, 255);

    let seen = frr::show(frr, "bgp neighbors 10.1.1.1")?;
    let seen = &seen["10.1.1.1"];
    assert_eq!(seen["localRole"], "provider", "{seen:#}");
    assert_eq!(seen["remoteRole"], "customer", "{seen:#}");
    Ok(())
}

fn shutdowns_are_told_both_ways(own: &Own, frr: &Node) -> Result<()> {
    frr::configure(
        frr,
        &[
            "router bgp 65011",
            "neighbor 10.1.1.1 shutdown message rack 7 moves",
        ],
    )?;
    // A Hard Reset around it, since both ends keep routes over other NOTIFICATIONs.
    let session = own.until("frr", "FRR's words", |session| {
        let received = session.notification_received.as_ref();
        received.is_some_and(|received| received.notification.text.contains("\"rack 7 moves\""))
    })?;
    let received = session.notification_received.context("received")?;
    assert_eq!(
        (received.notification.code, received.notification.subcode),
        (6, 9)
    );
    frr::configure(frr, &["router bgp 65011", "no neighbor 10.1.1.1 shutdown"])?;
    own.until_up("frr")?;

    let mut shut = settings()?;
    shut.shutdown = Some("rack 8 moves".into());
    own.set(vec![("frr", shut)], None)?;
    wait_for("our words", CONVERGED, || {
        let seen = frr::show(frr, "bgp neighbors 10.1.1.1")?;
        let seen = &seen["10.1.1.1"];
        ensure!(seen["lastNotificationHardReset"] == true, "{seen:#}");
        ensure!(
            seen.to_string().contains("Administrative Shutdown"),
            "{seen:#}"
        );
        Ok(())
    })?;
    own.set(vec![("frr", settings()?)], None)?;
    own.until_up("frr").map(drop)
}

fn roles_that_do_not_fit_are_refused(own: &Own, frr: &Node) -> Result<()> {
    let mut peer = settings()?;
    peer.role = Some(RoleConfig {
        role: Role::Peer,
        strict: false,
    });
    own.set(vec![("frr", peer)], None)?;
    own.until("frr", "the roles to be refused", |session| {
        let reasons = session
            .history
            .iter()
            .filter_map(|change| change.reason.as_ref());
        let last = session.last_error.iter().map(|(_, reason)| reason);
        reasons.chain(last).any(|reason| {
            let text = reason.to_string();
            text.contains("Role Mismatch") || text.contains("roles do not fit")
        })
    })?;
    frr::configure(
        frr,
        &[
            "router bgp 65011",
            "no neighbor 10.1.1.1 local-role provider",
        ],
    )?;
    own.until_up("frr").map(drop)
}

fn a_range_takes_frr_by_its_call(own: &Own, frr: &Node) -> Result<()> {
    let mut template = settings()?;
    template.address = PeerConfig::template().address;
    template.role = None;
    template.local_address = None;
    template.asn = None;
    template.timers = Timers::new(1, 9, 3)?;
    let prefix = "10.1.1.0/24".parse()?;
    let mut range = ListenRange::new(prefix, 4, template)?;
    range.asns = vec![AsnRange::new(65011..=65019)];
    own.set(Vec::new(), Some(("rack", range)))?;
    let name = format!("rack:{FRR}");
    own.until_up(&name)?;
    wait_for("FRR's routes", CONVERGED, || {
        let report = own.report(&name)?;
        assert_eq!(report.range, Some("rack".into()));
        let counts = report.routes.get(&Family::IPV4_UNICAST);
        ensure!(
            counts.is_some_and(|counts| counts.accepted > 0),
            "{counts:?}"
        );
        Ok(())
    })?;
    frr::configure(frr, &["router bgp 65011", "neighbor 10.1.1.1 shutdown"])?;
    wait_for("FRR to be forgotten", CONVERGED, || {
        ensure!(own.report(&name).is_err(), "still there");
        Ok(())
    })
}

/// FRR as a neighbour, with everything that can be agreed on.
fn settings() -> Result<PeerConfig> {
    let mut config = PeerConfig::new(PeerAddress::new(FRR.into(), None)?);
    config.asn = Some(Asn(65011));
    config.local_address = Some(OWN.into());
    config.password = Some(Md5Password::new("peers-frr")?);
    config.timers = Timers::new(1, 30, 10)?;
    config.ttl_security = Some(TtlSecurity::new(1)?);
    config.tcp_mss = Some(TcpMss::new(900)?);
    config.role = Some(RoleConfig {
        role: Role::Customer,
        strict: true,
    });
    config.graceful_restart = Some(GracefulRestart::new(60)?);
    let mut families = config.families().clone();
    families.remove(&Family::IPV6_UNICAST);
    for family in families.values_mut() {
        family.import.mode = ImportMode::All;
        family.add_path.receive = true;
        family.long_lived = Some(StaleTime::new(50)?);
    }
    Ok(config.with_families(families)?)
}

/// A speaker in a node's network namespace.
struct Own {
    runtime: Runtime,
    speaker: Speaker,
}

impl Own {
    fn start(node: &Node) -> Result<Own> {
        let runtime = Runtime::new()?;
        let (events, mut told) = mpsc::channel(64);
        let speaker = node.in_node(|| {
            let (speaker, _thread) = Speaker::start(Options::default(), events)?;
            Ok(speaker)
        })?;
        runtime.spawn(async move { while told.recv().await.is_some() {} });
        Ok(Own { runtime, speaker })
    }

    fn set(
        &self,
        peers: Vec<(&str, PeerConfig)>,
        range: Option<(&str, ListenRange)>,
    ) -> Result<()> {
        let mut config = InstanceConfig::new("test".into(), Asn(65001), OWN)?;
        config.listen = Some(Listen {
            port: PeerConfig::PORT,
            addresses: vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
            device: None,
        });
        for (name, peer) in peers {
            config.add_peer(name.into(), peer)?;
        }
        if let Some((name, range)) = range {
            config.add_range(name.into(), range)?;
        }
        let wanted = vec![(config, LocalRoutes::default())];
        let failures = self.runtime.block_on(self.speaker.apply(wanted));
        ensure!(failures.is_empty(), "{failures:?}");
        Ok(())
    }

    fn report(&self, peer: &str) -> Result<PeerReport> {
        let all = self.runtime.block_on(self.speaker.snapshot());
        let mut peers = all.into_iter().flat_map(|instance| instance.peers);
        peers
            .rfind(|report| *report.session.name.0 == *peer)
            .with_context(|| format!("no neighbour {peer}"))
    }

    fn until(
        &self,
        peer: &str,
        what: &str,
        condition: impl Fn(&PeerSnapshot) -> bool,
    ) -> Result<PeerSnapshot> {
        wait_for(what, CONVERGED, || {
            let session = self.report(peer)?.session;
            ensure!(condition(&session), "{session:#?}");
            Ok(session)
        })
    }

    fn until_up(&self, peer: &str) -> Result<PeerSnapshot> {
        self.until(peer, "the session to come up", |session| {
            session.state == State::Established
        })
    }

    fn stop(self) {
        self.runtime
            .block_on(self.speaker.stop(StopReason::Deconfigured));
    }
}
