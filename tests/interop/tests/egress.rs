// SPDX-License-Identifier: Apache-2.0
//! Pods that leave by a gateway, judged by a firewall that knows one address: what it counts is what
//! came to it, under whatever source.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use harness::{
    CONVERGED, Lab, Node, Signal, causeway,
    egress::{ECHO, SERVER, connect, echoed_by_tcp, goes_on, resources, told_what_fits, up, write},
    firewall,
    flood::{ENOUGH, Flood, socket},
    guide,
    pod::{Pod, Sandbox},
    standby::{self, EGRESS, seen_at},
    wait_for,
};

#[test]
fn selected_pods_leave_under_the_address_the_firewall_knows() -> Result<()> {
    let lab = up("leave")?;
    let (gw1, server) = (lab.node("gw1"), lab.node("server"));
    let entries = || -> Result<[u64; 2]> {
        let [one, other] = ["node1", "node2"].map(|node| entries_of_policies(lab.node(node)));
        Ok([one?, other?])
    };
    let before = wait_for("the maps of policies", CONVERGED, entries)?;
    let first = Pod::add_to(lab.node("node1"), "shop", "billing-1")?;
    let with_pod = entries()?;
    ensure!(with_pod[0] > before[0], "{before:?}, then {with_pod:?}");
    ensure!(
        with_pod[1] == before[1],
        "another node's pod: {before:?}, then {with_pod:?}"
    );
    let pods = [first, Pod::add_to(lab.node("node2"), "shop", "billing-2")?];
    for pod in &pods {
        for (target, egress) in SERVER.into_iter().zip(EGRESS) {
            reaches(pod, target)?;
            let said = pod.exec_ok(&["curl", "-s", "-m", "5", &url(target)])?;
            let seen = said.trim().strip_prefix("you are ").unwrap_or_default();
            let seen: IpAddr = seen
                .trim_matches(['[', ']'])
                .parse()
                .context(said.clone())?;
            ensure!(seen == egress, "{} is {seen} to the server", pod.name());
            echoed_by_udp(pod, target)?;
            pod.exec_ok(&["ping", "-c1", "-W5", &target.to_string()])?;
            // More than the tunnel takes in one packet, both ways.
            echoed_by_tcp(pod, target, 256 << 10)?;
        }
    }
    the_pod_hears_what_the_tunnel_takes(&pods[0])?;
    let clients: BTreeSet<IpAddr> = addresses(server)?;
    assert_eq!(clients, BTreeSet::from(EGRESS), "all the server has seen");
    nothing_refused(&lab)?;
    the_cli_says_so(&lab, &pods)?;

    // A connection is in the table of the gateway while it lasts.
    let held = pods[0].within(|| connect(SERVER[0]))?;
    let own = held.local_addr()?.to_string();
    wait_for("the connection at the gateway", CONVERGED, || {
        let mappings = causeway::items(gw1, "egress nat --protocol tcp")?;
        let found = mappings.iter().find(|mapping| mapping["pod"] == own);
        let mapping = found.with_context(|| format!("{own} is not in {mappings:#?}"))?;
        let egress = mapping["egress"].as_str().unwrap_or_default();
        ensure!(egress.starts_with("192.168.60.100:"), "{mapping:#}");
        ensure!(mapping["remote"] == "192.168.70.10:7", "{mapping:#}");
        ensure!(mapping["state"] == "established", "{mapping:#}");
        Ok(())
    })?;
    drop(held);
    a_narrower_way(&lab, &pods[0])?;
    nothing_refused(&lab)?;
    pods.into_iter().try_for_each(Pod::remove)?;
    the_chapter_can_be_followed(&lab)?;
    lab.down()
}

/// What the guide's chapter has a reader type, word by word, in a lab that is as shipped.
fn the_chapter_can_be_followed(lab: &Lab) -> Result<()> {
    let firewall = lab.node("firewall");
    firewall::forget(firewall)?;
    let mut heard = Vec::new();
    for shown in guide::shown("egress.md", "In the lab")? {
        let words: Vec<&str> = shown.command.iter().map(String::as_str).collect();
        let said = match words[..] {
            // It is.
            ["cargo", "xtask", "lab", "up", "egress"] => continue,
            ["cargo", "xtask", "lab", "log", "egress", node] => {
                wait_for("the log of a packet", CONVERGED, || {
                    // Printed a second later.
                    let log = lab.node(node).log();
                    ensure!(log.contains(&web(&heard)?), "{log}");
                    Ok(log)
                })?
            }
            [
                "cargo",
                "xtask",
                "lab",
                "exec",
                "egress",
                node,
                ref command @ ..,
            ] => {
                let output = lab.node(node).exec(command)?;
                // The pod that is refused, which the chapter says.
                let is_refused = words.contains(&"web-1") && words.contains(&"curl");
                ensure!(output.success() != is_refused, "{words:?}: {output:?}");
                output.stdout
            }
            _ => anyhow::bail!("{words:?} is not known here"),
        };
        for line in &shown.says {
            ensure!(said.contains(line), "{words:?} said {said}");
        }
        heard.push(said);
    }
    ensure!(heard.len() == 6, "{heard:#?}");
    let refused = heard.last().context("the set")?;
    ensure!(refused.contains(&web(&heard)?), "{refused}");
    for shown in guide::shown("egress.md", "Looking")? {
        let words: Vec<&str> = shown.command.iter().map(String::as_str).collect();
        let of_gateway = words.contains(&"rules") || words.contains(&"nat");
        let node = if of_gateway { "gw1" } else { "node1" };
        let said = lab.node(node).exec_ok(&words)?;
        for line in &shown.says {
            ensure!(said.contains(line), "{words:?} said {said}");
        }
    }
    Ok(())
}

/// The IPv4 address of the pod that no policy selects: the second that was made.
fn web(heard: &[String]) -> Result<String> {
    let made = heard.get(1).context("two pods")?;
    let address = made.split_whitespace().find(|word| word.starts_with("10."));
    let address = address.and_then(|address| address.split('/').next());
    Ok(address.with_context(|| made.clone())?.to_owned())
}

/// How much the maps of a node have of policies: destinations, those that new pods wait at among them,
/// and ways.
fn entries_of_policies(node: &Node) -> Result<u64> {
    let maps = causeway::items(node, "datapath maps")?;
    let of_policies = ["EGRESS_V4", "EGRESS_V6", "EGRESS_ENDS"].map(|name| {
        let map = maps.iter().find(|map| map["name"] == name);
        let entries = map.and_then(|map| map["entries"].as_u64());
        entries.with_context(|| format!("{name} in {maps:#?}"))
    });
    of_policies.into_iter().sum()
}

#[test]
fn the_firewall_writes_down_what_no_policy_selects() -> Result<()> {
    let lab = up("others")?;
    let firewall = lab.node("firewall");
    let pods = [
        Pod::add_to(lab.node("node1"), "shop", "web-1")?,
        Pod::add_to(lab.node("node2"), "shop", "web-2")?,
        // In another namespace the name and the labels of a pod that is selected are others' too.
        Pod::add_to(lab.node("node2"), "default", "billing-1")?,
    ];
    for pod in &pods {
        for (target, own) in SERVER.into_iter().zip([pod.v4, pod.v6]) {
            wait_for("the firewall to refuse the pod", CONVERGED, || {
                ensure!(pod.within(|| connect(target)).is_err(), "it is let through");
                let refused = firewall::refused(firewall)?;
                ensure!(refused.contains_key(&(own, target)), "{refused:?}");
                let log = firewall.log();
                let line = format!("{own}.");
                ensure!(log.contains(&line), "{own} is not in the log:\n{log}");
                Ok(())
            })?;
        }
    }
    let own: BTreeSet<IpAddr> = pods.iter().flat_map(|pod| [pod.v4, pod.v6]).collect();
    assert_eq!(sources(&lab)?, own, "nobody else was refused");
    assert_eq!(addresses(lab.node("server"))?, BTreeSet::new());
    assert_eq!(firewall::counted(firewall, "passed")?, 0);
    lab.down()
}

#[test]
fn a_policy_without_a_gateway_lets_nothing_out() -> Result<()> {
    let lab = up("closed")?;
    let node = lab.node("node1");
    write(
        &lab,
        "nowhere.yaml",
        "apiVersion: cilium.io/v2
kind: CiliumEgressGatewayPolicy
metadata:
  name: nowhere
spec:
  selectors:
    - podSelector:
        matchLabels: { app: web, io.kubernetes.pod.namespace: shop }
  destinationCIDRs: [192.168.70.0/24, \"fd00:192:168:70::/64\"]
  egressGateway:
    nodeSelector:
      matchLabels: { kubernetes.io/hostname: not-bought-yet }
",
    )?;
    wait_for("the policy in force", CONVERGED, || {
        causeway::items(node, "egress policies nowhere").map(drop)
    })?;
    let pod = Pod::add_to(node, "shop", "web-1")?;
    for target in SERVER {
        let flood = Flood::start(target, || pod.within(|| socket(target)))?;
        flood.wait_for(ENOUGH)?;
        drop(flood);
        ensure!(pod.within(|| connect(target)).is_err(), "it is let through");
    }
    nothing_refused(&lab)?;
    assert_eq!(firewall::counted(lab.node("firewall"), "passed")?, 0);
    let explained = causeway::ask(node, "egress explain shop/web-1 192.168.70.10")?;
    ensure!(explained["dropped"] == true, "{explained:#}");
    says(&explained, "no node matches the policy")?;
    let drops = causeway::items(node, "datapath drops")?;
    ensure!(
        drops
            .iter()
            .any(|drop| drop["reason"] == "egress-no-gateway"),
        "{drops:#?}"
    );
    let pods = causeway::items(node, "egress list")?;
    let of_pod = pods.iter().filter(|path| path["pod"] == "web-1");
    // Both addresses, each to both networks.
    assert_eq!(of_pod.filter(|path| path["action"] == "dropped").count(), 4);

    // With the policy gone the pod is one that nobody selects: the firewall hears of it.
    fs::remove_file(resources(&lab)?.join("nowhere.yaml"))?;
    wait_for("the firewall to refuse the pod", CONVERGED, || {
        ensure!(pod.within(|| connect(SERVER[0])).is_err(), "let through");
        let sources = sources(&lab)?;
        ensure!(sources.contains(&pod.v4), "{sources:?}");
        Ok(())
    })?;
    lab.down()
}

#[test]
fn a_new_pod_leaks_no_packet() -> Result<()> {
    let lab = up("new")?;
    let (node, firewall) = (lab.node("node1"), lab.node("firewall"));
    let names: Vec<String> = (0..10).map(|number| format!("new-{number}")).collect();
    let objects: Vec<String> = names
        .iter()
        .map(|name| pod_object(name, "billing"))
        .collect();
    write(&lab, "new.yaml", &objects.join("---\n"))?;
    wait_for("the objects in force", CONVERGED, || {
        let listed = causeway::items(node, "resources")?;
        let is_new = |item: &&serde_json::Value| item.to_string().contains("new-9");
        ensure!(listed.iter().any(|item| is_new(&item)), "{listed:#?}");
        Ok(())
    })?;
    for name in &names {
        // It sends before it has an interface, so that nothing is sooner than its packets.
        let sandbox = Sandbox::new(node, "shop", name)?;
        let mut floods = Vec::new();
        for target in SERVER {
            floods.push(Flood::start(target, || sandbox.within(|| socket(target)))?);
        }
        let before = firewall::counted(firewall, "passed")?;
        let pod = sandbox.connect()?;
        wait_for("packets of the pod to pass", CONVERGED, || {
            let passed = firewall::counted(firewall, "passed")?;
            ensure!(passed > before + 100, "{before} before, {passed} now");
            Ok(())
        })?;
        for flood in &mut floods {
            flood.stop()?;
        }
        pod.remove()?;
    }
    nothing_refused(&lab)?;

    // One whose labels nobody has told yet: silence, until they are there.
    let sandbox = Sandbox::new(node, "shop", "late")?;
    let mut floods = Vec::new();
    for target in SERVER {
        floods.push(Flood::start(target, || sandbox.within(|| socket(target)))?);
    }
    let before = firewall::counted(firewall, "passed")?;
    let late = sandbox.connect()?;
    for flood in &floods {
        flood.wait_for(ENOUGH)?;
    }
    nothing_refused(&lab)?;
    assert_eq!(
        before,
        firewall::counted(firewall, "passed")?,
        "labels are not known"
    );
    let drops = causeway::items(node, "datapath drops")?;
    ensure!(
        drops
            .iter()
            .any(|drop| drop["reason"] == "egress-undecided"),
        "{drops:#?}"
    );
    write(&lab, "late.yaml", &pod_object("late", "billing"))?;
    wait_for("its packets to pass", CONVERGED, || {
        let passed = firewall::counted(firewall, "passed")?;
        ensure!(passed > before, "{before} before, {passed} now");
        Ok(())
    })?;
    for flood in &mut floods {
        flood.stop()?;
    }
    nothing_refused(&lab)?;
    late.remove()?;

    // One that has no object, and whose labels the runtime says: it is selected from its first packet.
    let sandbox = Sandbox::new(node, "shop", "told")?;
    let mut flood = Flood::start(SERVER[0], || sandbox.within(|| socket(SERVER[0])))?;
    let before = firewall::counted(firewall, "passed")?;
    let told = sandbox.connect_as("billing")?;
    wait_for("its packets to pass", CONVERGED, || {
        let passed = firewall::counted(firewall, "passed")?;
        ensure!(passed > before, "{before} before, {passed} now");
        Ok(())
    })?;
    flood.stop()?;
    nothing_refused(&lab)?;
    told.remove()?;
    lab.down()
}

#[test]
fn held_addresses_move_when_an_operator_says_so_and_stay() -> Result<()> {
    let lab = up("standby")?;
    let (node, gw1) = (lab.node("node1"), lab.node("gw1"));
    // Addresses that Causeway holds are on no device beforehand.
    for (address, length) in EGRESS.into_iter().zip([24, 64]) {
        let address = format!("{address}/{length}");
        gw1.exec_ok(&["ip", "address", "delete", &address, "dev", "eth2"])?;
    }
    let policy = guide::manifest("egress.md", "billing-standby")?;
    write(&lab, "policies.yaml", &policy)?;
    wait_for("the policy in force", CONVERGED, || {
        let policies = causeway::items(node, "egress policies billing-standby")?;
        let gone = causeway::items(node, "egress policies billing").is_err();
        ensure!(policies.len() == 1 && gone, "{policies:#?}");
        Ok(())
    })?;
    let pod = Pod::add_to(node, "shop", "billing-1")?;
    leaves_by(&lab, &pod, "gw1")?;
    let mut lasting = pod.within(|| connect(SERVER[0]))?;
    // Who is linked with nobody yet goes by the Node objects alone, and would believe the next one.
    standby::linked(&lab)?;
    wait_for("links of node1", CONVERGED, || {
        let gateways = causeway::items(node, "egress gateways")?;
        let linked = gateways.iter().filter(|peer| peer["isLinked"] == true);
        ensure!(linked.count() == 2, "{gateways:#?}");
        Ok(())
    })?;
    standby::holds(&lab, "gw1")?;
    let nodes = fs::read_to_string(resources(&lab)?.join("nodes.yaml"))?;
    let spec = "spec:\n  podCIDRs: [\"10.244.11.0/24\"";
    let taint = "spec:\n  taints:\n    - { key: node.kubernetes.io/out-of-service, value: nodeshutdown, \
                 effect: NoExecute }\n  podCIDRs: [\"10.244.11.0/24\"";
    write(
        &lab,
        "nodes.yaml",
        &guide::adapted(&nodes, &[(spec, taint)])?,
    )?;
    standby::holds(&lab, "gw2")?;
    leaves_by(&lab, &pod, "gw2")?;
    write(&lab, "nodes.yaml", &nodes)?;
    wait_for("gw1 to be one of two again", CONVERGED, || {
        let policies = causeway::items(gw1, "egress policies billing-standby")?;
        let healthy = policies[0]["healthyGateways"].as_array().map(Vec::len);
        ensure!(healthy == Some(2), "{policies:#?}");
        Ok(())
    })?;
    // It does not take back what it had: connections would be moved a second time.
    standby::holds(&lab, "gw2")?;
    leaves_by(&lab, &pod, "gw2")?;
    goes_on(&mut lasting).context("at the next gateway")?;
    nothing_refused(&lab)?;
    // Without the policy the pod is one that nobody selects; what it began before is not touched. The
    // gateway's daemon does not see it go.
    let gw2 = lab.node("gw2");
    gw2.kill(Signal::SIGKILL)?;
    fs::remove_file(resources(&lab)?.join("policies.yaml"))?;
    wait_for("the firewall to refuse the pod", CONVERGED, || {
        ensure!(pod.within(|| connect(SERVER[0])).is_err(), "let through");
        Ok(())
    })?;
    goes_on(&mut lasting).context("without its policy")?;
    gw2.start()?;
    drains(gw2, "egress rules").with_context(|| seen_at(gw2))?;
    goes_on(&mut lasting).context("after a restart of the gateway")?;
    node.kill(Signal::SIGKILL)?;
    node.start()?;
    wait_for("the plugin of node1", CONVERGED, || {
        Pod::plugin_serves(node)
    })?;
    goes_on(&mut lasting).context("after a restart of the pod's node")?;
    ensure!(pod.within(|| connect(SERVER[0])).is_err(), "let through");
    ensure!(
        sources(&lab)?.contains(&pod.v4),
        "somebody else was refused"
    );
    let clients = addresses(lab.node("server"))?;
    assert_eq!(clients, BTreeSet::from(EGRESS), "all the server has seen");
    lab.down()
}

/// Waits until a rule drains.
fn drains(node: &Node, list: &str) -> Result<()> {
    wait_for("a rule that drains", CONVERGED, || {
        let rules = causeway::items(node, list)?;
        ensure!(
            rules.iter().any(|rule| rule["draining"] == true),
            "{rules:#?}"
        );
        Ok(())
    })
}

/// Waits until new connections of a pod go by this gateway, under the usual addresses.
fn leaves_by(lab: &Lab, pod: &Pod<'_>, gateway: &str) -> Result<()> {
    for target in SERVER {
        wait_for(&format!("a connection by {gateway}"), CONVERGED, || {
            let connection = pod.within(|| connect(target))?;
            let own = connection.local_addr()?.to_string();
            let mappings = causeway::items(lab.node(gateway), "egress nat --protocol tcp")?;
            let found = mappings.iter().any(|mapping| mapping["pod"] == own);
            ensure!(found, "{own} is not in {mappings:#?}");
            Ok(())
        })?;
        echoed_by_tcp(pod, target, 64 << 10)?;
    }
    Ok(())
}

/// Of a packet that may not be cut: the links' 1500 bytes less VXLAN over IPv4.
fn the_pod_hears_what_the_tunnel_takes(pod: &Pod<'_>) -> Result<()> {
    told_what_fits(pod, 1_450)?;
    let drops = causeway::items(pod.node(), "datapath drops")?;
    let told = drops.iter().find(|drop| drop["reason"] == "too-big");
    let told = told.with_context(|| format!("no such reason in {drops:#?}"))?;
    ensure!(told["packets"] == 2, "{told:#}");
    Ok(())
}

/// The nodes reach each other by a device that nobody has told Causeway of, and that takes less: pods
/// are told what fits, and nothing is cut on the way.
fn a_narrower_way(lab: &Lab, pod: &Pod<'_>) -> Result<()> {
    let ends = [
        (lab.node("node1"), "172.16.1.2", "172.16.11.2", "10.0.0.11"),
        (lab.node("gw1"), "172.16.11.2", "172.16.1.2", "10.0.0.1"),
    ];
    for (node, local, remote, other) in ends {
        let link = format!(
            "ip link add narrow mtu 1400 type vxlan id 9 dstport 4790 local {local} remote {remote}"
        );
        for command in [
            link.as_str(),
            "ip link set narrow up",
            &format!("ip route add {other}/32 dev narrow"),
        ] {
            let argv: Vec<&str> = command.split(' ').collect();
            node.exec_ok(&argv)?;
        }
    }
    let ping = |target: IpAddr, bytes: u32| {
        let headers = if target.is_ipv4() { 28 } else { 48 };
        format!("ping -M do -c1 -W5 -s {} {target}", bytes - headers)
    };
    for target in SERVER {
        wait_for("the pod to hear of it", CONVERGED, || {
            let told = format!("! {} 2>&1", ping(target, 1_351));
            let said = pod.exec_ok(&["sh", "-c", &told])?;
            ensure!(said.contains("1350"), "{said}");
            Ok(())
        })?;
    }
    let cut = || -> Result<Vec<u64>> { ends.iter().map(|(node, ..)| cut_at(node)).collect() };
    let before = cut()?;
    for target in SERVER {
        pod.exec_ok(&["sh", "-c", &ping(target, 1_350)])?;
        echoed_by_tcp(pod, target, 256 << 10)?;
    }
    let after = cut()?;
    ensure!(before == after, "{before:?} were cut, then {after:?}");
    for (node, ..) in ends {
        node.exec_ok(&["ip", "link", "delete", "narrow"])?;
    }
    Ok(())
}

/// Pieces of IPv4 packets that a node has made.
fn cut_at(node: &Node) -> Result<u64> {
    let counts = node.exec_ok(&["cat", "/proc/net/snmp"])?;
    let mut lines = counts.lines().filter_map(|line| line.strip_prefix("Ip: "));
    let names = lines.next().unwrap_or_default().split(' ');
    let mut counts = names.zip(lines.next().unwrap_or_default().split(' '));
    let pieces = counts.find(|(name, _)| *name == "FragCreates");
    let (_, pieces) = pieces.with_context(|| format!("no FragCreates in {counts:?}"))?;
    Ok(pieces.parse()?)
}

/// What `causeway egress` says on the pods' nodes.
fn the_cli_says_so(lab: &Lab, pods: &[Pod<'_>]) -> Result<()> {
    for pod in pods {
        let node = pod.node();
        let paths = causeway::items(node, "egress list")?;
        let networks = ["192.168.70.0/24", "fd00:192:168:70::/64"];
        for ((own, egress), network) in [pod.v4, pod.v6].into_iter().zip(EGRESS).zip(networks) {
            let own = own.to_string();
            let path = paths
                .iter()
                .find(|path| path["sourceIP"] == own && path["destinationCIDR"] == network);
            let path = path.with_context(|| format!("{own} is not in {paths:#?}"))?;
            ensure!(path["action"] == "gateway", "{path:#}");
            ensure!(path["gateway"] == "gw1", "{path:#}");
            ensure!(path["egressIPs"][0] == egress.to_string(), "{path:#}");
        }
        let command = format!("egress explain shop/{} 192.168.70.10", pod.name());
        let explained = causeway::ask(node, &command)?;
        ensure!(explained["verdict"] == "gateway", "{explained:#}");
        ensure!(explained["dropped"] == false, "{explained:#}");
        says(
            &explained,
            "is selected by CiliumEgressGatewayPolicy/billing,",
        )?;
        says(
            &explained,
            "is taken by CiliumEgressGatewayPolicy/billing for 192.168.70.0/24 through rule",
        )?;
        says(
            &explained,
            "to gateway gw1 at 10.0.0.11, as 192.168.60.100.",
        )?;
        // The router's own address is no destination of the policy.
        let command = format!("egress explain shop/{} 192.168.60.1", pod.name());
        let explained = causeway::ask(node, &command)?;
        ensure!(explained["dropped"] == false, "{explained:#}");
        ensure!(explained["verdict"] != "gateway", "{explained:#}");

        let policies = causeway::items(node, "egress policies billing")?;
        let selected = format!("shop/{}", pod.name());
        ensure!(policies[0]["pods"][0] == selected, "{policies:#?}");
        ensure!(policies[0]["activeGateways"][0] == "gw1", "{policies:#?}");
        let findings = policies[0]["findings"].as_array().map(Vec::len);
        ensure!(findings == Some(0), "{policies:#?}");
    }
    for node in ["node1", "node2", "gw1", "gw2"] {
        wait_for(&format!("{node} to be healthy"), CONVERGED, || {
            causeway::healthy(lab.node(node))
        })?;
    }
    Ok(())
}

/// Succeeds when an explanation has a sentence with these words.
fn says(explained: &serde_json::Value, words: &str) -> Result<()> {
    let sentences = explained["sentences"].as_array().into_iter().flatten();
    let mut texts = sentences.filter_map(|sentence| sentence.as_str());
    ensure!(
        texts.any(|text| text.contains(words)),
        "no {words:?} in {explained:#}"
    );
    Ok(())
}

/// Whose packets the firewall refused.
fn sources(lab: &Lab) -> Result<BTreeSet<IpAddr>> {
    let refused = firewall::refused(lab.node("firewall"))?;
    Ok(refused.into_keys().map(|(source, _)| source).collect())
}

fn nothing_refused(lab: &Lab) -> Result<()> {
    let node = lab.node("firewall");
    let refused = firewall::refused(node)?;
    // The packets are in its log a second later.
    ensure!(
        refused.is_empty(),
        "the firewall refused {refused:?}, of late:\n{}",
        node.log_tail()
    );
    Ok(())
}

/// Whom the server has seen.
fn addresses(server: &Node) -> Result<BTreeSet<IpAddr>> {
    let clients = firewall::clients(server)?;
    Ok(clients.into_iter().map(|(_, address)| address).collect())
}

fn reaches(pod: &Pod<'_>, target: IpAddr) -> Result<()> {
    let what = format!("{} to reach {target}", pod.name());
    wait_for(&what, CONVERGED, || {
        pod.within(|| connect(target)).map(drop)
    })
}

fn echoed_by_udp(pod: &Pod<'_>, target: IpAddr) -> Result<()> {
    let socket = pod.within(|| socket(target))?;
    socket.connect(SocketAddr::new(target, ECHO))?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut heard = [0; 8];
    wait_for("a datagram's echo", CONVERGED, || {
        socket.send(b"datagram")?;
        let bytes = socket.recv(&mut heard)?;
        ensure!(&heard[..bytes] == b"datagram", "{heard:?}");
        Ok(())
    })
}

fn url(target: IpAddr) -> String {
    match target {
        IpAddr::V4(address) => format!("http://{address}/"),
        IpAddr::V6(address) => format!("http://[{address}]/"),
    }
}

fn pod_object(name: &str, app: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: shop
  labels: {{ app: {app} }}
spec: {{ nodeName: node1 }}
"
    )
}
