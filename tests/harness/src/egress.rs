// SPDX-License-Identifier: Apache-2.0
//! The lab of pods that leave by a gateway, `lab/containerlab/egress`.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use lab_runner::{Lab, Node, Signal, wait_for};

use crate::{
    CONVERGED, Family, causeway, firewall, frr, guide::adapted, kernel, lab, lab_from, pod::Pod,
    root, standby::EGRESS,
};

/// The node, its address at the router, and the router's at the node, by family.
const SESSIONS: [(&str, &str, &str); 8] = [
    ("node1", "172.16.1.2", "172.16.1.1"),
    ("node1", "fd00:172:16:1::2", "fd00:172:16:1::1"),
    ("node2", "172.16.2.2", "172.16.2.1"),
    ("node2", "fd00:172:16:2::2", "fd00:172:16:2::1"),
    ("gw1", "172.16.11.2", "172.16.11.1"),
    ("gw1", "fd00:172:16:11::2", "fd00:172:16:11::1"),
    ("gw2", "172.16.12.2", "172.16.12.1"),
    ("gw2", "fd00:172:16:12::2", "fd00:172:16:12::1"),
];

/// The server behind the firewall.
pub const SERVER: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 168, 70, 10)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x192, 0x168, 0x70, 0, 0, 0, 0x10)),
];

/// The server's port that says back what it hears.
pub const ECHO: u16 = 7;

/// The server's port that tells who asks.
const WHO: u16 = 80;

/// The lab with every session up and every node ready for pods.
///
/// # Errors
/// When it cannot be brought up, or does not come up.
pub fn up(test: &str) -> Result<Lab> {
    ready(lab("egress", test)?)
}

/// As [`up`], of a changed copy of the topology's folder.
///
/// # Errors
/// As [`up`].
pub fn up_from(topology: &Path, test: &str) -> Result<Lab> {
    ready(lab_from(topology, test)?)
}

/// The lab without these nodes, where each costs ten seconds: with the plugin of node1 serving, and no
/// session waited for.
///
/// # Errors
/// When the topology has no such node, or the lab does not come up.
pub fn up_without(nodes: &[&str], test: &str) -> Result<Lab> {
    let folder = tempfile::tempdir()?;
    let copied = Command::new("cp")
        .arg("-a")
        .arg(root()?.join("lab/containerlab/egress"))
        .arg(folder.path())
        .status()?;
    ensure!(copied.success(), "cp: {copied}");
    let file = folder.path().join("egress/egress.clab.yml");
    let mut topology = fs::read_to_string(&file)?;
    for node in nodes {
        topology = without(&topology, node)?;
    }
    fs::write(&file, topology)?;
    let lab = lab_from(&file, test)?;
    wait_for("the plugin of node1", CONVERGED, || {
        Pod::plugin_serves(lab.node("node1"))
    })?;
    Ok(lab)
}

/// A topology without a node and its links.
fn without(topology: &str, node: &str) -> Result<String> {
    let (head, link) = (format!("    {node}:"), format!("\"{node}:"));
    ensure!(topology.contains(&head), "the topology has no {node}");
    let mut left = String::new();
    let mut is_of_node = false;
    for line in topology.lines() {
        // What belongs to the node is further in.
        is_of_node = line == head || (is_of_node && line.starts_with("      "));
        if !is_of_node && !line.contains(&link) {
            left += line;
            left.push('\n');
        }
    }
    Ok(left)
}

fn ready(lab: Lab) -> Result<Lab> {
    came_up(&lab)?;
    Ok(lab)
}

/// Waits until every session is up and every node ready for pods.
///
/// # Errors
/// When it does not come to that.
pub fn came_up(lab: &Lab) -> Result<()> {
    for (node, address, router) in SESSIONS {
        wait_for(
            &format!("the router's session with {node}"),
            CONVERGED,
            || frr::established(lab.node("tor"), address),
        )?;
        let family = match router.contains(':') {
            true => Family::Ipv6,
            false => Family::Ipv4,
        };
        wait_for(&format!("the default route of {node}"), CONVERGED, || {
            kernel::routed_by(lab.node(node), family, "default", &[router])
        })?;
        wait_for(&format!("the plugin of {node}"), CONVERGED, || {
            Pod::plugin_serves(lab.node(node))
        })?;
    }
    // The way there and back, without any pod: by the gateways' own addresses, which are refused.
    let (gateway, server) = (lab.node("gw2"), SERVER[0].to_string());
    wait_for("the firewall to refuse gw2", CONVERGED, || {
        let ping = gateway.exec(&["ping", "-c1", "-W1", &server])?;
        ensure!(!ping.success(), "{}", ping.stdout);
        let refused = firewall::refused(lab.node("firewall"))?;
        ensure!(!refused.is_empty(), "nothing was refused");
        Ok(())
    })?;
    firewall::forget(lab.node("firewall"))
}

/// The folder of resources all nodes of the lab read.
///
/// # Errors
/// When the lab has no copy of its files.
pub fn resources(lab: &Lab) -> Result<PathBuf> {
    let files = lab.files().context("the lab has a copy of its files")?;
    Ok(files.join("resources.d"))
}

/// Writes a file of resources, at once and as a whole.
///
/// # Errors
/// When it cannot be written.
pub fn write(lab: &Lab, file: &str, text: &str) -> Result<()> {
    let path = resources(lab)?.join(file);
    let beside = path.with_extension("new");
    fs::write(&beside, text)?;
    fs::rename(&beside, &path)?;
    Ok(())
}

/// Opens a connection to [`ECHO`], to be called within a pod.
///
/// # Errors
/// When there is none within three seconds.
pub fn connect(target: IpAddr) -> Result<TcpStream> {
    connect_within(target, Duration::from_secs(3))
}

/// The same with another limit, for connections that are to fail.
///
/// # Errors
/// When there is none within the limit.
pub fn connect_within(target: IpAddr, limit: Duration) -> Result<TcpStream> {
    let target = SocketAddr::new(target, ECHO);
    let connection = TcpStream::connect_timeout(&target, limit)?;
    connection.set_read_timeout(Some(CONVERGED))?;
    connection.set_write_timeout(Some(CONVERGED))?;
    Ok(connection)
}

/// Says something on a connection to [`ECHO`], and hears it.
///
/// # Errors
/// When the connection has ended, or something else comes back.
pub fn goes_on(connection: &mut TcpStream) -> Result<()> {
    connection.write_all(b"still there?")?;
    let mut heard = [0; 12];
    connection.read_exact(&mut heard)?;
    ensure!(&heard == b"still there?", "{heard:?}");
    Ok(())
}

/// Whom the server says it sees when a pod asks, at any of its addresses.
///
/// # Errors
/// When there is no answer.
pub fn seen_as(pod: &Pod<'_>, target: IpAddr) -> Result<IpAddr> {
    let at = SocketAddr::new(target, WHO);
    let mut connection =
        pod.within(|| Ok(TcpStream::connect_timeout(&at, Duration::from_secs(3))?))?;
    // One that a change has ended under it hears nothing more.
    connection.set_read_timeout(Some(Duration::from_secs(3)))?;
    connection.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    let said = answer
        .lines()
        .find_map(|line| line.strip_prefix("you are "));
    let said = said.with_context(|| format!("the server answered {answer:?}"))?;
    let address = said.trim_matches(['[', ']']);
    address.parse().with_context(|| format!("{said:?}"))
}

/// Waits until a pod leaves under the addresses of the policies, in both families.
///
/// # Errors
/// When the server goes on seeing another one, or nobody.
pub fn leaves(pod: &Pod<'_>) -> Result<()> {
    for (target, egress) in SERVER.into_iter().zip(EGRESS) {
        wait_for(&format!("the pod to reach {target}"), CONVERGED, || {
            let seen = seen_as(pod, target)?;
            ensure!(seen == egress, "it is {seen} to the server");
            Ok(())
        })?;
    }
    Ok(())
}

/// Takes the IPv4 addresses from all Node objects, and waits until a pod's gateway is reached by its
/// IPv6 address.
///
/// # Errors
/// When the files cannot be changed, or it does not come to that.
pub fn nodes_have_ipv6_alone(lab: &Lab, pod: &Pod<'_>) -> Result<()> {
    let nodes = fs::read_to_string(resources(lab)?.join("nodes.yaml"))?;
    let is_v6 = |line: &&str| !line.contains("InternalIP") || line.contains("fd00:");
    let nodes: Vec<&str> = nodes.lines().filter(is_v6).collect();
    write(lab, "nodes.yaml", &nodes.join("\n"))?;
    wait_for("the gateway's IPv6 address", CONVERGED, || {
        let command = format!("egress explain shop/{} {}", pod.name(), SERVER[0]);
        let explained = causeway::ask(pod.node(), &command)?;
        ensure!(explained["gatewayIP"] == "fd00:10::11", "{explained:#}");
        Ok(())
    })
}

/// Sends so many bytes while it reads them back, each with its right value.
///
/// # Errors
/// When something else comes back, or not all.
pub fn echoed_by_tcp(pod: &Pod<'_>, target: IpAddr, bytes: usize) -> Result<()> {
    let mut inbound = pod.within(|| connect(target))?;
    let mut outbound = inbound.try_clone()?;
    let sent: Vec<u8> = (0..bytes).map(|place| (place % 251) as u8).collect();
    let mut heard = vec![0; bytes];
    thread::scope(|scope| {
        let sender = scope.spawn(|| outbound.write_all(&sent));
        inbound.read_exact(&mut heard)?;
        let joined = sender.join().map_err(|_| anyhow!("the sender panicked"))?;
        joined.context("the sender")
    })?;
    ensure!(heard == sent, "{target} said something else");
    Ok(())
}

/// A pod's packet that may not be cut and is one byte larger than what the tunnel takes whole is
/// answered with that size, and the next one is not even sent; one of that size arrives.
///
/// # Errors
/// When it goes otherwise, by either family.
pub fn told_what_fits(pod: &Pod<'_>, bytes: u32) -> Result<()> {
    for (target, headers) in SERVER.into_iter().zip([28, 48]) {
        let ping = |bytes: u32| format!("ping -M do -c1 -W5 -s {} {target}", bytes - headers);
        let told = format!("! {} 2>&1", ping(bytes + 1));
        let said = pod.exec_ok(&["sh", "-c", &told])?;
        ensure!(said.contains(&bytes.to_string()), "{said}");
        // The kernel has learnt, and refuses the next one itself.
        let said = pod.exec_ok(&["sh", "-c", &told])?;
        ensure!(said.contains("too long"), "{said}");
        pod.exec_ok(&["sh", "-c", &ping(bytes)])?;
    }
    Ok(())
}

/// Tells all nodes of the addresses of pods with the label `app: billing`, as an API server does.
///
/// # Errors
/// When the file has no such pod on a pod's node.
pub fn known(lab: &Lab, pods: &[Pod<'_>]) -> Result<()> {
    let path = resources(lab)?.join("pods.yaml");
    let mut text = fs::read_to_string(path)?;
    for pod in pods {
        let node = pod.node().name();
        let spec = format!("  labels: {{ app: billing }}\nspec: {{ nodeName: {node} }}\n");
        let status = format!(
            "status: {{ phase: Running, podIPs: [{{ ip: {} }}, {{ ip: \"{}\" }}] }}\n",
            pod.v4, pod.v6
        );
        text = adapted(&text, &[(&spec, &format!("{spec}{status}"))])?;
    }
    write(lab, "pods.yaml", &text)
}

/// Waits until all that pods of a node send to gateways goes this way: `tunnel` or `native`.
///
/// # Errors
/// When it goes on otherwise.
pub fn ways(node: &Node, transport: &str) -> Result<()> {
    let what = format!("{} to use {transport}", node.name());
    wait_for(&what, CONVERGED, || {
        let paths = causeway::items(node, "egress list")?;
        let mut sent = paths.iter().filter(|path| path["action"] == "gateway");
        ensure!(sent.clone().count() > 0, "{paths:#?}");
        let is_so = sent.all(|path| path["transport"] == transport);
        ensure!(is_so, "{paths:#?}");
        Ok(())
    })
}

/// Restarts a node's daemon with settings changed: words of its file, and what stands in their place.
///
/// # Errors
/// When the file lacks the words, or the daemon does not start.
pub fn restart_with(lab: &Lab, node: &Node, words: &[(&str, &str)]) -> Result<()> {
    let files = lab.files().context("the lab has a copy of its files")?;
    let settings = files.join(node.name()).join("causeway.yaml");
    let text = fs::read_to_string(&settings)?;
    fs::write(&settings, adapted(&text, words)?)?;
    node.kill(Signal::SIGKILL)?;
    node.start()
}

/// What a condition of an `EgressGatewayPolicy` says; waits until it is there.
///
/// # Errors
/// When it does not come.
pub fn condition(node: &Node, policy: &str, kind: &str) -> Result<String> {
    wait_for(&format!("{kind} of {policy}"), CONVERGED, || {
        let command = format!("resources get EgressGatewayPolicy/{policy}");
        let resource = causeway::ask(node, &command)?;
        let conditions = resource["conditions"].as_array().into_iter().flatten();
        let mut of_kind = conditions.filter(|one| one["type"] == kind && one["status"] == "True");
        let found = of_kind.next().with_context(|| format!("{resource:#}"))?;
        Ok(found["message"].as_str().unwrap_or_default().to_owned())
    })
}
