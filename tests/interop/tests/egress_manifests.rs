// SPDX-License-Identifier: Apache-2.0
//! `CiliumEgressGatewayPolicy` in every form upstream's documentation writes it: who is selected, by
//! what, and under which address each leaves.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use harness::{
    CONVERGED, Lab, causeway,
    egress::{ECHO, SERVER, seen_as, up, write},
    firewall,
    flood::socket,
    pod::{Pod, Sandbox, reachable},
    standby::seen_at,
    wait_for,
};

/// The server's address that a policy excludes.
const EXCLUDED: &str = "192.168.70.11";

/// What the firewall lets pass beside 192.168.60.100: gateways under their own addresses.
const PASS: [&[&str]; 2] = [
    &["192.168.60.11", "192.168.60.12", "172.16.11.2"],
    &["fd00:192:168:60::11", "fd00:192:168:60::12"],
];

/// A policy for each form, and each for pods of its own.
const POLICIES: &str = r#"# By labels and namespace, to everywhere but one address, by a labelled node's egressIP.
apiVersion: cilium.io/v2
kind: CiliumEgressGatewayPolicy
metadata:
  name: egress-sample
spec:
  selectors:
  - podSelector:
      matchLabels:
        org: empire
        class: mediabot
        # The following label selects default namespace
        io.kubernetes.pod.namespace: default
  destinationCIDRs:
  - "0.0.0.0/0"
  excludedCIDRs:
  - "192.168.70.11/32"
  egressGateway:
    nodeSelector:
      matchLabels:
        egress-node: "true"
    egressIP: 192.168.60.100
---
# By expressions, over the namespace's labels as well, and by the first address of a device.
apiVersion: cilium.io/v2
kind: CiliumEgressGatewayPolicy
metadata:
  name: expressions
spec:
  selectors:
  - podSelector:
      matchExpressions:
      - { key: tier, operator: In, values: [back, middle] }
      - { key: retired, operator: DoesNotExist }
      - { key: io.cilium.k8s.namespace.labels.team, operator: In, values: [pay] }
  destinationCIDRs: ["192.168.70.0/24", "fd00:192:168:70::/64"]
  egressGateway:
    nodeSelector:
      matchLabels: { kubernetes.io/hostname: gw2 }
    interface: eth2
---
# All pods of namespaces with a label.
apiVersion: cilium.io/v2
kind: CiliumEgressGatewayPolicy
metadata:
  name: namespaces
spec:
  selectors:
  - namespaceSelector:
      matchLabels: { team: audit }
    podSelector: {}
  destinationCIDRs: ["192.168.70.0/24", "fd00:192:168:70::/64"]
  egressGateway:
    nodeSelector:
      matchLabels: { kubernetes.io/hostname: gw1 }
    interface: eth2
---
# Only the pods of one node, and of one namespace.
apiVersion: cilium.io/v2
kind: CiliumEgressGatewayPolicy
metadata:
  name: of-one-node
spec:
  selectors:
  - namespaceSelector:
      matchLabels: { kubernetes.io/metadata.name: shop }
    podSelector:
      matchLabels: { app: here }
    nodeSelector:
      matchLabels: { kubernetes.io/hostname: node1 }
  destinationCIDRs: ["192.168.70.0/24"]
  egressGateway:
    nodeSelector:
      matchExpressions:
      - { key: kubernetes.io/hostname, operator: In, values: [gw1] }
    egressIP: 192.168.60.100
---
# Several gateways: each pod has one of them, by its UID. Upstream's definition wants the single one
# all the same, and does not use it.
apiVersion: cilium.io/v2
kind: CiliumEgressGatewayPolicy
metadata:
  name: several
spec:
  selectors:
  - podSelector:
      matchLabels: { app: several }
  destinationCIDRs: ["192.168.70.0/24"]
  egressGateway:
    nodeSelector:
      matchLabels: { kubernetes.io/hostname: node1 }
  egressGateways:
  - nodeSelector:
      matchLabels: { kubernetes.io/hostname: gw1 }
    egressIP: 192.168.60.100
  - nodeSelector:
      matchLabels: { kubernetes.io/hostname: gw2 }
    interface: eth2
---
# Neither address nor device: that of the default route.
apiVersion: cilium.io/v2
kind: CiliumEgressGatewayPolicy
metadata:
  name: default-route
spec:
  selectors:
  - podSelector:
      matchLabels: { app: default-route }
  destinationCIDRs: ["192.168.70.0/24"]
  egressGateway:
    nodeSelector:
      matchLabels: { kubernetes.io/hostname: gw1 }
---
# Labels that the container runtime says, of a pod without an object.
apiVersion: cilium.io/v2
kind: CiliumEgressGatewayPolicy
metadata:
  name: by-the-runtime
spec:
  selectors:
  - podSelector:
      matchLabels: { app: labelled }
  destinationCIDRs: ["192.168.70.0/24"]
  egressGateway:
    nodeSelector:
      matchLabels: { kubernetes.io/hostname: gw2 }
    interface: eth2
"#;

const NAMESPACES: &str = "---
apiVersion: v1
kind: Namespace
metadata:
  name: default
---
apiVersion: v1
kind: Namespace
metadata:
  name: books
  labels: { team: audit }
";

/// A pod, its labels, and whether it is seen under an address of a gateway, or as itself: then the
/// firewall refuses it.
struct Case {
    node: &'static str,
    namespace: &'static str,
    name: &'static str,
    labels: &'static str,
    uid: &'static str,
    leaves_as: &'static [&'static str],
}

const fn case(
    node: &'static str,
    [namespace, name, labels]: [&'static str; 3],
    leaves_as: &'static [&'static str],
) -> Case {
    let uid = "";
    Case {
        node,
        namespace,
        name,
        labels,
        uid,
        leaves_as,
    }
}

const CASES: &[Case] = &[
    case(
        "node1",
        ["default", "mediabot", "org: empire, class: mediabot"],
        &["192.168.60.100"],
    ),
    // The same labels elsewhere.
    case(
        "node2",
        ["shop", "rebel", "org: empire, class: mediabot"],
        &[],
    ),
    case(
        "node1",
        ["shop", "back", "tier: back"],
        &["192.168.60.12", "fd00:192:168:60::12"],
    ),
    case(
        "node1",
        ["shop", "retired", "tier: back, retired: yes"],
        &[],
    ),
    case("node2", ["default", "back-other", "tier: back"], &[]),
    case(
        "node2",
        ["books", "any", "app: any"],
        // The first as the kernel lists them: of IPv6 the newest.
        &["192.168.60.11", "fd00:192:168:60::100"],
    ),
    case(
        "node1",
        ["shop", "here-1", "app: here"],
        &["192.168.60.100"],
    ),
    case("node2", ["shop", "here-2", "app: here"], &[]),
    // FNV-1a of the UID, modulo two gateways in the order of their nodes' addresses.
    Case {
        uid: "5e8f2f1c-0d3f-4b0e-9c0a-3b6d8b9d0002",
        ..case(
            "node1",
            ["shop", "several-1", "app: several"],
            &["192.168.60.100"],
        )
    },
    Case {
        uid: "5e8f2f1c-0d3f-4b0e-9c0a-3b6d8b9d0001",
        ..case(
            "node1",
            ["shop", "several-2", "app: several"],
            &["192.168.60.12"],
        )
    },
    case(
        "node1",
        ["shop", "routed", "app: default-route"],
        &["172.16.11.2"],
    ),
];

#[test]
fn upstreams_policies_select_and_translate_as_upstream_says() -> Result<()> {
    let lab = up("manifests")?;
    for sources in PASS {
        firewall::allow(lab.node("firewall"), sources)?;
    }
    // A second leg and strict checks of the way back, as many distributions set them.
    for gateway in ["gw1", "gw2"] {
        for device in ["all", "eth1", "eth2"] {
            let strict = format!("net.ipv4.conf.{device}.rp_filter=1");
            lab.node(gateway).exec_ok(&["sysctl", "-w", &strict])?;
        }
    }
    through_it_all(&lab).with_context(|| {
        let nodes = ["gw1", "gw2", "node1", "node2"].map(|node| lab.node(node));
        nodes.map(seen_at).join("\n")
    })?;
    lab.down()
}

fn through_it_all(lab: &Lab) -> Result<()> {
    let server = lab.node("server");
    let excluded = format!("{EXCLUDED}/24");
    server.exec_ok(&["ip", "address", "add", &excluded, "dev", "eth1"])?;
    let nodes = harness::egress::resources(lab)?.join("nodes.yaml");
    let nodes = std::fs::read_to_string(nodes)?;
    let own = "kubernetes.io/hostname: gw1\n";
    ensure!(nodes.contains(own), "{nodes}");
    let labelled = format!("{own}    egress-node: \"true\"\n");
    write(lab, "nodes.yaml", &nodes.replace(own, &labelled))?;
    write(lab, "pods-of-cases.yaml", &objects())?;
    write(lab, "policies.yaml", POLICIES)?;
    for node in ["node1", "node2", "gw1", "gw2"] {
        let node = lab.node(node);
        wait_for("the policies to be known", CONVERGED, || {
            let known = causeway::items(node, "egress policies")?;
            let written = POLICIES.matches("\nkind: ").count();
            ensure!(known.len() == written, "{known:#?}");
            let sample = "resources get CiliumEgressGatewayPolicy/egress-sample";
            let status = &causeway::ask(node, sample)?["object"]["status"];
            ensure!(status["activeGateways"][0] == "gw1", "{status:#}");
            ensure!(status["healthyGateways"][0] == "gw1", "{status:#}");
            ensure!(status["addresses"][0] == "192.168.60.100", "{status:#}");
            Ok(())
        })?;
    }
    let pods = CASES.iter().map(|case| {
        let pod = Sandbox::new(lab.node(case.node), case.namespace, case.name)?.connect()?;
        first_packet(&pod, case)?;
        Ok(pod)
    });
    let pods = pods.collect::<Result<Vec<_>>>()?;
    for (case, pod) in CASES.iter().zip(&pods) {
        judged(lab, case, pod).with_context(|| format!("pod {}", case.name))?;
    }
    // All but one address is a destination, and within the cluster there is no gateway for all that.
    let mediabot = &pods[0];
    as_itself(lab, mediabot, EXCLUDED.parse()?)?;
    reachable(mediabot, &pods[1])?;
    let labelled = Sandbox::new(lab.node("node2"), "shop", "labelled")?;
    let labelled = labelled.connect_as("labelled")?;
    let seen = seen_as(&labelled, SERVER[0])?;
    ensure!(seen.to_string() == "192.168.60.12", "labelled as {seen}");
    Ok(())
}

/// The objects of all pods.
fn objects() -> String {
    let pods = CASES.iter().map(|case| {
        let Case {
            node,
            namespace,
            name,
            labels,
            uid,
            ..
        } = case;
        let uid = match uid.is_empty() {
            true => String::new(),
            false => format!("\n  uid: {uid}"),
        };
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}{uid}\n  \
             labels: {{ {labels} }}\nspec: {{ nodeName: {node} }}\n"
        )
    });
    NAMESPACES.to_owned() + &pods.collect::<String>()
}

/// The very first packet of a pod, sent once, is answered: its entries are in when ADD returns.
fn first_packet(pod: &Pod<'_>, case: &Case) -> Result<()> {
    if case.leaves_as.is_empty() {
        return Ok(());
    }
    let socket = pod.within(|| socket(SERVER[0]))?;
    socket.connect(SocketAddr::new(SERVER[0], ECHO))?;
    socket.set_read_timeout(Some(CONVERGED))?;
    socket.send(b"first")?;
    let mut heard = [0; 8];
    let bytes = socket.recv(&mut heard);
    let bytes = bytes.with_context(|| format!("the first packet of {}", case.name))?;
    ensure!(&heard[..bytes] == b"first", "{heard:?}");
    Ok(())
}

/// A pod leaves under the addresses of its case, and where there is none of a family, as itself.
fn judged(lab: &Lab, case: &Case, pod: &Pod<'_>) -> Result<()> {
    for target in SERVER {
        let expected = case.leaves_as.iter().map(|address| address.parse());
        let expected = expected.collect::<Result<Vec<IpAddr>, _>>()?;
        let mut of_family = expected.iter().filter(|a| a.is_ipv4() == target.is_ipv4());
        match of_family.next() {
            Some(expected) => {
                let seen = seen_as(pod, target)?;
                ensure!(seen == *expected, "seen as {seen}");
            }
            None => as_itself(lab, pod, target)?,
        }
    }
    Ok(())
}

/// No policy takes what a pod sends there: it comes to the firewall under the pod's own address.
fn as_itself(lab: &Lab, pod: &Pod<'_>, target: IpAddr) -> Result<()> {
    let own = if target.is_ipv4() { pod.v4 } else { pod.v6 };
    let socket = pod.within(|| socket(target))?;
    wait_for(
        &format!("{own} at the firewall, for {target}"),
        CONVERGED,
        || {
            socket.send_to(b"as itself", SocketAddr::new(target, ECHO))?;
            let refused = firewall::refused(lab.node("firewall"))?;
            ensure!(refused.contains_key(&(own, target)), "{refused:?}");
            Ok(())
        },
    )
}
