// SPDX-License-Identifier: Apache-2.0
//! Policies that change under connections, and policies and devices that are wrong: what the server
//! sees, what the firewall refuses, and what an operator is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, TcpStream},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use harness::{
    CONVERGED, Lab, Node, Signal,
    causeway::{self, text},
    egress::{self, SERVER, connect, connect_within, echoed_by_tcp, goes_on, seen_as},
    firewall,
    flood::{ENOUGH, Flood, socket},
    pod::Pod,
    standby::{self, EGRESS, seen_at},
    wait_for,
};
use serde_json::Value;

#[test]
fn policies_change_and_are_wrong_and_nothing_leaves_under_another_address() -> Result<()> {
    let lab = egress::up("changes")?;
    let run = || -> Result<()> {
        let pod = Pod::add_to(lab.node("node1"), "shop", "billing-1")?;
        first_address(lab.node("gw1"))?;
        wrong(&lab, &pod)?;
        devices(&lab, &pod)?;
        for sources in [
            "192.168.60.11-192.168.60.12",
            "fd00:192:168:60::11-fd00:192:168:60::12",
        ] {
            firewall::allow(lab.node("firewall"), &[sources])?;
        }
        changes(&lab, &pod)?;
        overlapping(&lab, &pod)?;
        many(&lab, &pod)?;
        cluster_addresses(&lab, &pod)?;
        over_ipv6(&lab, &pod)
    };
    run().with_context(|| {
        let nodes = ["gw1", "gw2", "node1"].map(|node| lab.node(node));
        nodes.map(seen_at).join("\n")
    })?;
    lab.down()
}

/// Makes the address that the firewall lets pass the first one of the gateway's device, so that
/// `interface` means it.
fn first_address(gateway: &Node) -> Result<()> {
    for command in [
        "ip -4 address flush dev eth2",
        "ip address add 192.168.60.100/24 dev eth2",
        "ip address add 192.168.60.11/24 dev eth2",
        "ip route add 192.168.70.0/24 via 192.168.60.254",
    ] {
        let argv: Vec<&str> = command.split(' ').collect();
        gateway.exec_ok(&argv)?;
    }
    Ok(())
}

/// A policy of the pod, named `shape`, with these lines.
fn policy(name: &str, destinations: &str, more: &str) -> String {
    format!(
        "apiVersion: causeway.io/v1alpha1
kind: EgressGatewayPolicy
metadata:
  name: {name}
spec:
  selectors:
    - podSelector:
        matchLabels: {{ app: billing, io.kubernetes.pod.namespace: shop }}
  destinationCIDRs: [{destinations}]
{more}---
"
    )
}

/// Enough for a connection to come about: where it is too short, the server has seen it all the same.
const SHORT: Duration = Duration::from_millis(500);

/// Both networks of the server.
const BOTH: &str = "192.168.70.0/24, \"fd00:192:168:70::/64\"";

/// A gateway by its name, with its address.
fn by(gateway: &str, address: &str) -> String {
    format!(
        "  egressGateway:
    nodeSelector:
      matchLabels: {{ kubernetes.io/hostname: {gateway} }}
    {address}
"
    )
}

/// Addresses and nodes that are not there.
fn wrong(lab: &Lab, pod: &Pod<'_>) -> Result<()> {
    let (node, gw1) = (lab.node("node1"), lab.node("gw1"));
    let nowhere = by("gw1", "egressIP: 192.168.60.99");
    write(
        lab,
        &policy("nowhere", "192.168.70.0/24", &nowhere),
        "nowhere",
    )?;
    let told = egress::condition(gw1, "nowhere", "causeway.io/AddressMissing")?;
    ensure!(told.contains("192.168.60.99 is on no device"), "{told}");
    sends_nothing(lab, pod, SERVER[0])?;
    alarm(gw1, "nowhere", "CW0704")?;
    let listed = text(&condition_row(gw1, "nowhere")?);
    ensure!(listed.contains("192.168.60.99"), "{listed}");

    let nobody = by("not-bought-yet", "interface: eth2");
    write(lab, &policy("nobody", BOTH, &nobody), "nobody")?;
    egress::condition(node, "nobody", "causeway.io/NoMatchingNode")?;
    for target in SERVER {
        sends_nothing(lab, pod, target)?;
        let explained = explain(pod, target)?;
        ensure!(explained["dropped"] == true, "{explained:#}");
        ensure!(
            explained.to_string().contains("no node matches"),
            "{explained:#}"
        );
    }
    alarm(node, "nobody", "CW0703")
}

/// A device that goes and comes back, and an address that does.
fn devices(lab: &Lab, pod: &Pod<'_>) -> Result<()> {
    let (gw1, firewall) = (lab.node("gw1"), lab.node("firewall"));
    write(
        lab,
        &policy("device", BOTH, &by("gw1", "interface: eth2")),
        "device",
    )?;
    for (target, egress) in SERVER.into_iter().zip(EGRESS) {
        seen(pod, target, egress)?;
    }
    let mut floods = Vec::new();
    for target in SERVER {
        floods.push(Flood::start(target, || pod.within(|| socket(target)))?);
    }
    // The device has another name, with the same addresses and routes.
    gw1.exec_ok(&["ip", "link", "set", "eth2", "name", "lan0"])?;
    egress::condition(gw1, "device", "causeway.io/InterfaceMissing")?;
    for target in SERVER {
        sends_nothing(lab, pod, target)?;
    }
    alarm(gw1, "device", "CW0704")?;
    gw1.exec_ok(&["ip", "link", "set", "lan0", "name", "eth2"])?;
    for (target, egress) in SERVER.into_iter().zip(EGRESS) {
        seen(pod, target, egress)?;
    }

    // The address goes, and others are there.
    let v6 = format!("egressIP: \"{}\"", EGRESS[1]);
    let policies = policy(
        "address",
        "192.168.70.0/24",
        &by("gw1", "egressIP: 192.168.60.100"),
    ) + &policy("address-v6", "\"fd00:192:168:70::/64\"", &by("gw1", &v6));
    write(lab, &policies, "address")?;
    for ((target, egress), (length, name)) in SERVER
        .into_iter()
        .zip(EGRESS)
        .zip([(24, "address"), (64, "address-v6")])
    {
        seen(pod, target, egress)?;
        let address = format!("{egress}/{length}");
        let at_device = |verb: &str| {
            let more = if verb == "add" {
                ["nodad"].as_slice()
            } else {
                &[]
            };
            let argv = ["ip", "address", verb, &address, "dev", "eth2"];
            gw1.exec_ok(&[&argv, more].concat())
        };
        gw1.exec_ok(&["sysctl", "-w", "net.ipv4.conf.eth2.promote_secondaries=1"])?;
        at_device("delete")?;
        egress::condition(gw1, name, "causeway.io/AddressMissing")?;
        sends_nothing(lab, pod, target)?;
        at_device("add")?;
        seen(pod, target, egress)?;
    }
    for flood in &mut floods {
        flood.wait_for(ENOUGH)?;
        flood.stop()?;
    }
    let refused = firewall::refused(firewall)?;
    ensure!(refused.is_empty(), "the firewall refused {refused:?}");
    let clients = firewall::clients(lab.node("server"))?;
    let clients: BTreeSet<IpAddr> = clients.into_iter().map(|(_, address)| address).collect();
    ensure!(
        clients == BTreeSet::from(EGRESS),
        "the server saw {clients:?}"
    );
    Ok(())
}

/// Policies that get another address or gateway under connections.
fn changes(lab: &Lab, pod: &Pod<'_>) -> Result<()> {
    let ways = [
        ("gw1", "egressIP: 192.168.60.100", EGRESS[0]),
        ("gw1", "egressIP: 192.168.60.11", standby::own("gw1")[0]),
        ("gw2", "egressIP: 192.168.60.12", standby::own("gw2")[0]),
    ];
    let apply = |way: usize, connections: &str| -> Result<()> {
        let (gateway, address, seen_as) = ways[way];
        let more = by(gateway, address) + connections;
        write(lab, &policy("moving", "192.168.70.0/24", &more), "moving")?;
        seen(pod, SERVER[0], seen_as)
    };
    // What began goes on to its end.
    apply(0, "")?;
    let mut first = begin(pod)?;
    apply(1, "")?;
    goes_on(&mut first).context("with another address")?;
    let mut second = begin(pod)?;
    apply(2, "")?;
    for (held, (gateway, _, address)) in [&mut first, &mut second].into_iter().zip(ways) {
        goes_on(held).context("with another gateway")?;
        let own = held.local_addr()?.to_string();
        let mappings = causeway::items(lab.node(gateway), "egress nat --protocol tcp")?;
        let mapping = mappings.iter().find(|mapping| mapping["pod"] == own);
        let mapping = mapping.with_context(|| format!("{own} is not in {mappings:#?}"))?;
        ensure!(
            text(&mapping["egress"]).starts_with(&format!("{address}:")),
            "{mapping:#}"
        );
    }
    let rules = causeway::items(lab.node("gw1"), "egress rules")?;
    ensure!(
        rules.iter().any(|rule| rule["draining"] == true),
        "{rules:#?}"
    );

    // It ends with the change.
    let at_once = "  connections: { survive: false }\n";
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        apply(from, at_once)?;
        let mut held = begin(pod)?;
        apply(to, at_once)?;
        ends(&mut held).with_context(|| format!("from {:?} to {:?}", ways[from], ways[to]))?;
    }

    // It ends some time after the change, and not before.
    let limit = Duration::from_secs(2);
    let later = "  connections: { drainSeconds: 2 }\n";
    for (from, to) in [(0, 1), (1, 2)] {
        apply(from, later)?;
        let mut held = begin(pod)?;
        let changed = Instant::now();
        apply(to, later)?;
        ends(&mut held).with_context(|| format!("from {:?} to {:?}", ways[from], ways[to]))?;
        let lasted = changed.elapsed();
        ensure!(lasted >= limit, "it has ended after {lasted:?}");
    }

    // That time goes on while daemons are started anew: it is neither over then, nor does it begin
    // anew.
    let limit = Duration::from_secs(4);
    let later = "  connections: { drainSeconds: 4 }\n";
    let restarted = [lab.node("gw1"), pod.node()];
    for (from, to) in [(0, 1), (1, 2)] {
        apply(from, later)?;
        let mut held = begin(pod)?;
        let (changed, uptime) = (Instant::now(), uptime()?);
        // On the same gateway the rule stays, and the address goes.
        let (gateway, _, address) = ways[from];
        let what = (gateway == ways[to].0).then_some(address);
        apply(to, later)?;
        let (drain, before) = wait_for("the beginning to be written down", CONVERGED, || {
            let mut since = drains_since(restarted[0])?.into_iter();
            // Others were there before.
            let fresh = since.find(|((_, of), since)| *of == what && *since >= uptime);
            fresh.context("it does not drain")
        })?;
        for node in restarted {
            node.kill(Signal::SIGKILL)?;
            node.start()?;
        }
        ends_as(&mut held, || {
            let now = drains_since(restarted[0])?.remove(&drain);
            let is_same = now.is_none_or(|now| now.abs_diff(before) <= 100);
            ensure!(is_same, "{drain:?}: since {now:?}, and before {before}");
            Ok(())
        })
        .with_context(|| format!("from {:?} to {:?}", ways[from], ways[to]))?;
        let lasted = changed.elapsed();
        ensure!(lasted >= limit, "it has ended after {lasted:?}");
        wait_for("the plugin", CONVERGED, || Pod::plugin_serves(pod.node()))?;
    }
    Ok(())
}

/// A rule that drains, or an address it has no more.
type Drain = (u64, Option<IpAddr>);

/// Since when each drains at a gateway, in milliseconds since the boot, as is written for the next
/// daemon.
fn drains_since(gateway: &Node) -> Result<BTreeMap<Drain, u64>> {
    let known = fs::read_to_string(gateway.path("/var/lib/causeway/egress.json"))?;
    let known: Value = serde_json::from_str(&known)?;
    let mut since = BTreeMap::new();
    for (rule, at) in known["rules"]["drainSince"]
        .as_object()
        .into_iter()
        .flatten()
    {
        since.insert((rule.parse()?, None), at.as_u64().context("a number")?);
    }
    for left in known["rules"]["leftSince"].as_array().into_iter().flatten() {
        let numbers = left["rule"].as_u64().zip(left["since"].as_u64());
        let (rule, at) = numbers.with_context(|| format!("{left:#}"))?;
        since.insert((rule, Some(text(&left["address"]).parse()?)), at);
    }
    Ok(since)
}

/// Milliseconds since the boot.
fn uptime() -> Result<u64> {
    let text = fs::read_to_string("/proc/uptime")?;
    let seconds = text.split(' ').next().unwrap_or_default();
    let seconds: f64 = seconds.parse().with_context(|| text.clone())?;
    Ok((seconds * 1000.0) as u64)
}

/// Two policies that cover the same: the older one has the say, whatever its name.
fn overlapping(lab: &Lab, pod: &Pod<'_>) -> Result<()> {
    let aged = |name: &str, year: u16, gateway: &str| {
        let stamp = format!("  name: {name}\n  creationTimestamp: \"{year}-01-01T00:00:00Z\"\n");
        let policy = policy(name, BOTH, &by(gateway, "interface: eth2"));
        policy.replace(&format!("  name: {name}\n"), &stamp)
    };
    write(
        lab,
        &(aged("newer", 2025, "gw1") + &aged("older", 2024, "gw2")),
        "older",
    )?;
    for (target, own) in SERVER.into_iter().zip(standby::own("gw2")) {
        seen(pod, target, own)?;
        let explained = explain(pod, target)?;
        ensure!(
            explained["policy"] == "EgressGatewayPolicy/older",
            "{explained:#}"
        );
        ensure!(
            explained.to_string().contains("the older one"),
            "{explained:#}"
        );
    }
    let told = egress::condition(pod.node(), "newer", "causeway.io/Overlaps")?;
    ensure!(
        told.contains("EgressGatewayPolicy/older comes first"),
        "{told}"
    );
    let listed = text(&condition_row(pod.node(), "newer")?);
    ensure!(listed.contains("Shadowed"), "{listed}");
    let told = egress::condition(pod.node(), "older", "causeway.io/Overlaps")?;
    ensure!(told.contains("before EgressGatewayPolicy/newer"), "{told}");
    causeway::healthy(pod.node())
}

/// A pod that very many policies select, each for an address of the server, and one for all.
fn many(lab: &Lab, pod: &Pod<'_>) -> Result<()> {
    let server = lab.node("server");
    let ways = [
        ("gw1", "egressIP: 192.168.60.100", EGRESS[0]),
        ("gw2", "interface: eth2", standby::own("gw2")[0]),
        ("gw1", "egressIP: 192.168.60.11", standby::own("gw1")[0]),
    ];
    let way = |number: usize| ways[number % ways.len()];
    let mut policies = policy("all", "192.168.70.0/24", &by("gw2", "interface: eth2"));
    for number in 101..200 {
        let (gateway, address, _) = way(number);
        let destination = format!("192.168.70.{number}/32");
        policies += &policy(
            &format!("one-{number}"),
            &destination,
            &by(gateway, address),
        );
    }
    write(lab, &policies, "one-199")?;
    wait_for("all of them", CONVERGED, || {
        let policies = causeway::items(pod.node(), "egress policies")?;
        let name = format!("shop/{}", pod.name());
        let selecting = policies.iter().filter(|policy| policy["pods"][0] == name);
        ensure!(selecting.count() == 100, "{} policies", policies.len());
        Ok(())
    })?;
    for number in [101, 142, 163, 198, 199] {
        let target: IpAddr = format!("192.168.70.{number}").parse()?;
        let address = format!("{target}/24");
        server.exec_ok(&["ip", "address", "add", &address, "dev", "eth1"])?;
        let (gateway, _, egress) = way(number);
        seen(pod, target, egress)?;
        let explained = explain(pod, target)?;
        let policy = format!("EgressGatewayPolicy/one-{number}");
        ensure!(explained["policy"] == policy, "{explained:#}");
        ensure!(explained["gateway"] == gateway, "{explained:#}");
    }
    // What none of them names is the one's for all.
    seen(pod, SERVER[0], standby::own("gw2")[0])?;
    let explained = explain(pod, SERVER[0])?;
    ensure!(
        explained["policy"] == "EgressGatewayPolicy/all",
        "{explained:#}"
    );
    Ok(())
}

/// Addresses of services that something outside answers for: a policy that names them has pods leave
/// for them by the gateway, as for any other.
fn cluster_addresses(lab: &Lab, pod: &Pod<'_>) -> Result<()> {
    let (vip, gateway) = ("10.96.0.10", "gw2");
    for (node, command) in [
        ("server", format!("ip address add {vip}/32 dev eth1")),
        ("firewall", format!("ip route add {vip} via 192.168.70.10")),
        (gateway, format!("ip route add {vip} via 192.168.60.254")),
    ] {
        let argv: Vec<&str> = command.split(' ').collect();
        lab.node(node).exec_ok(&argv)?;
    }
    let services = policy("services", "10.96.0.0/12", &by(gateway, "interface: eth2"));
    write(lab, &services, "services")?;
    seen(pod, vip.parse()?, standby::own(gateway)[0])
}

/// Nodes that have IPv6 addresses alone: the tunnel is VXLAN over IPv6, and takes both families.
fn over_ipv6(lab: &Lab, pod: &Pod<'_>) -> Result<()> {
    let nodes = fs::read_to_string(egress::resources(lab)?.join("nodes.yaml"))?;
    let is_v6 = |line: &&str| !line.contains("InternalIP") || line.contains("fd00:");
    let nodes: Vec<&str> = nodes.lines().filter(is_v6).collect();
    egress::write(lab, "nodes.yaml", &nodes.join("\n"))?;
    write(
        lab,
        &policy("six", BOTH, &by("gw2", "interface: eth2")),
        "six",
    )?;
    for (target, own) in SERVER.into_iter().zip(standby::own("gw2")) {
        wait_for("the gateway's IPv6 address", CONVERGED, || {
            let explained = explain(pod, target)?;
            ensure!(explained["gatewayIP"] == "fd00:10::12", "{explained:#}");
            Ok(())
        })?;
        seen(pod, target, own)?;
        echoed_by_tcp(pod, target, 256 << 10)?;
        // As much in one segment as the tunnel takes whole, less the headers of TCP with its time
        // stamps.
        let whole = 1500 - 70;
        let ip = if target.is_ipv4() { 20 } else { 40 };
        let connection = pod.within(|| connect(target))?;
        let most = segment(&connection)?;
        ensure!(
            most == whole - ip - 32,
            "segments of {most} bytes to {target}"
        );
        let (size, target) = ((whole - ip - 8).to_string(), target.to_string());
        pod.exec_ok(&["ping", "-c1", "-W5", "-s", &size, &target])?;
    }
    // What the server says to connections that the changes before have ended is nobody's.
    let mut refused = firewall::refused(lab.node("firewall"))?;
    refused.retain(|(source, _), _| *source != SERVER[0]);
    ensure!(refused.is_empty(), "the firewall refused {refused:?}");
    Ok(())
}

/// How much a connection sends in one segment.
fn segment(connection: &TcpStream) -> Result<i32> {
    let mut most: libc::c_int = 0;
    let mut size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: both places are ours, and `size` is that of the first.
    let result = unsafe {
        libc::getsockopt(
            connection.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_MAXSEG,
            (&raw mut most).cast(),
            &raw mut size,
        )
    };
    ensure!(result == 0, "{}", std::io::Error::last_os_error());
    Ok(most)
}

/// A connection that has said something.
fn begin(pod: &Pod<'_>) -> Result<TcpStream> {
    let mut connection = wait_for("a connection", CONVERGED, || {
        pod.within(|| connect(SERVER[0]))
    })?;
    goes_on(&mut connection)?;
    Ok(connection)
}

/// Waits until a connection ends: who has it is told, and does not wait for answers for ever.
fn ends(connection: &mut TcpStream) -> Result<()> {
    ends_as(connection, || Ok(()))
}

/// The same while something else holds.
fn ends_as(connection: &mut TcpStream, mut holds: impl FnMut() -> Result<()>) -> Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(1)))?;
    wait_for("the connection to end", CONVERGED, || {
        let mut heard = [0; 12];
        let said = connection.write_all(b"still there?");
        let answered = said.and_then(|()| connection.read_exact(&mut heard));
        match answered {
            Ok(()) => holds().map_or_else(|error| Ok(Err(error)), |()| bail!("it goes on")),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => bail!("it is silent"),
            Err(_) => Ok(Ok(())),
        }
    })?
}

/// Succeeds when a new connection fails, with nothing at the firewall or the server.
fn sends_nothing(lab: &Lab, pod: &Pod<'_>, target: IpAddr) -> Result<()> {
    let (firewall, server) = (lab.node("firewall"), lab.node("server"));
    let attempt = || pod.within(|| connect_within(target, SHORT));
    wait_for("connections to fail", CONVERGED, || {
        ensure!(attempt().is_err(), "let through");
        Ok(())
    })?;
    let seen = firewall::clients(server)?.len();
    ensure!(attempt().is_err(), "let through");
    let refused = firewall::refused(firewall)?;
    ensure!(refused.is_empty(), "the firewall refused {refused:?}");
    let now = firewall::clients(server)?;
    ensure!(now.len() == seen, "the server has seen {:?}", &now[seen..]);
    Ok(())
}

/// Waits until the server sees the pod under an address.
fn seen(pod: &Pod<'_>, target: IpAddr, egress: IpAddr) -> Result<()> {
    wait_for(&format!("the server to see {egress}"), CONVERGED, || {
        let seen = seen_as(pod, target)?;
        ensure!(seen == egress, "it sees {seen}");
        Ok(())
    })
}

fn explain(pod: &Pod<'_>, target: IpAddr) -> Result<Value> {
    let command = format!("egress explain shop/{} {target}", pod.name());
    causeway::ask(pod.node(), &command)
}

/// Replaces the policies, and waits until all nodes know the one of this name.
fn write(lab: &Lab, policies: &str, name: &str) -> Result<()> {
    egress::write(lab, "policies.yaml", policies)?;
    for node in ["node1", "gw1", "gw2"] {
        wait_for(&format!("{name} at {node}"), CONVERGED, || {
            causeway::items(lab.node(node), &format!("egress policies {name}")).map(drop)
        })?;
    }
    Ok(())
}

/// The line of a policy in `causeway resources`.
fn condition_row(node: &Node, policy: &str) -> Result<Value> {
    let listed = node.exec_ok(&["causeway", "resources"])?;
    let line = listed.lines().find(|line| line.contains(policy));
    Ok(line.with_context(|| listed.clone())?.into())
}

/// Waits until the status of a node has an issue with a policy.
fn alarm(node: &Node, policy: &str, code: &str) -> Result<()> {
    wait_for(&format!("{code} at {}", node.name()), CONVERGED, || {
        let status = causeway::ask(node, "status")?;
        let mut issues = status["issues"].as_array().into_iter().flatten();
        let object = format!("EgressGatewayPolicy/{policy}");
        let is_meant = |issue: &Value| issue["object"] == object && issue["code"] == code;
        ensure!(issues.any(is_meant), "{status:#}");
        Ok(())
    })
}
