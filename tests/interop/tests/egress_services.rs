// SPDX-License-Identifier: Apache-2.0
//! Services beside egress gateways: calls to pods that a policy selects for all destinations, and an
//! address that pods leave under and are called at, before and after it moves. The services are
//! translations that nftables makes on the nodes, as a proxy of Kubernetes writes them.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use harness::{
    CONVERGED, Lab, Node, causeway,
    egress::{self, SERVER, seen_as},
    firewall, guide,
    pod::Pod,
    standby::{self, EGRESS, has_copies, holds, one_holds, seen_at},
    talks::Talks,
    wait_for,
};

/// The service's port at the address pods leave under, in the guide's policy.
const FRONT: u16 = 443;

/// Its port at the nodes' own addresses.
const NODE_PORT: u16 = 30080;

/// Where the pod serves it.
const BACK: u16 = 8443;

/// Enough for a kernel to answer.
const SHORT: Duration = Duration::from_millis(500);

/// How long an answer may take before it is asked again.
const PATIENCE: Duration = Duration::from_secs(3);

/// What serves both ports on a node: the pod, called under an address of the node.
const PROXY: &str = "table inet services {
  chain arriving {
    type nat hook prerouting priority dstnat
    ip daddr 192.168.60.100 meta l4proto { tcp, udp } th dport 443 mark set 0x4000 dnat ip to 10.244.1.2:8443
    ip6 daddr fd00:192:168:60::100 meta l4proto { tcp, udp } th dport 443 mark set 0x4000 dnat ip6 to [fd00:10:244:1::2]:8443
    meta nfproto ipv4 tcp dport 30080 fib daddr type local mark set 0x4000 dnat ip to 10.244.1.2:8443
    meta nfproto ipv6 tcp dport 30080 fib daddr type local mark set 0x4000 dnat ip6 to [fd00:10:244:1::2]:8443
  }
  chain leaving {
    type nat hook postrouting priority srcnat
    mark and 0x4000 == 0x4000 masquerade
  }
}
";

/// The nodes that serve, with addresses of theirs towards the router.
const NODES: [(&str, [&str; 2]); 3] = [
    ("node1", ["172.16.1.2", "fd00:172:16:1::2"]),
    ("node2", ["172.16.2.2", "fd00:172:16:2::2"]),
    ("gw1", ["172.16.11.2", "fd00:172:16:11::2"]),
];

#[test]
fn an_address_of_a_service_is_the_source_too_and_both_outlive_the_gateway() -> Result<()> {
    let policies = guide::manifest("egress.md", "billing-standby")?;
    let profile = policies.split("---\n").nth(1).context("a BFD profile")?;
    let policy = guide::manifest("egress.md", "billing-front")?;
    let lab = standby::up_with("services", &format!("{policy}---\n{profile}"))?;
    let run = || -> Result<()> {
        open(lab.node("firewall"))?;
        for node in ["node1", "node2", "gw1", "gw2"] {
            load(lab.node(node), PROXY)?;
        }
        let pod = Pod::add_to(lab.node("node1"), "shop", "billing-1")?;
        let (tcp, udp) = (
            format!("TCP6-LISTEN:{BACK}"),
            format!("UDP6-RECVFROM:{BACK}"),
        );
        let _tcp = serve(&pod, &format!("{tcp},ipv6only=0,fork,reuseaddr"))?;
        let _udp = serve(&pod, &format!("{udp},ipv6only=0,fork"))?;
        let mut talks = Talks::default();
        talks.add(&pod)?;
        let holder = one_holds(&lab)?;
        called_everywhere(&lab, &pod)?;
        talks.go_on("with the pod called")?;

        let next = standby::other(&holder);
        has_copies(&lab, next, &talks)?;
        lab.node(&holder)
            .exec_ok(&["causeway", "drain", "--detach", "--reason", "new disks"])?;
        holds(&lab, next)?;
        called_everywhere(&lab, &pod)?;
        talks.go_on("with the address elsewhere")?;
        talks.finish()?;

        no_more(&lab, &policy, profile, next)?;
        let refused = firewall::refused(lab.node("firewall"))?;
        ensure!(refused.is_empty(), "the firewall refused {refused:?}");
        Ok(())
    };
    run().with_context(|| {
        let nodes = ["gw1", "gw2", "node1"].map(|node| lab.node(node));
        nodes.map(seen_at).join("\n")
    })?;
    lab.down()
}

/// The pod is called at the policy's addresses and at every node, and leaves under the former.
fn called_everywhere(lab: &Lab, pod: &Pod<'_>) -> Result<()> {
    let server = lab.node("server");
    for address in EGRESS {
        wait_for(&format!("the service at {address}"), CONVERGED, || {
            call(server, SocketAddr::new(address, FRONT))
        })?;
        wait_for(
            &format!("the datagram's answer of {address}"),
            CONVERGED,
            || ask(server, SocketAddr::new(address, FRONT)),
        )?;
        let beside = SocketAddr::new(address, FRONT + 1);
        let heard = server.in_node(|| Ok(TcpStream::connect_timeout(&beside, SHORT)))?;
        let Err(error) = heard else {
            bail!("somebody serves {beside}");
        };
        let is_silent = error.kind() == std::io::ErrorKind::TimedOut;
        ensure!(is_silent, "of {beside} the server hears {error}");
    }
    for (node, addresses) in NODES {
        for address in addresses {
            let at = SocketAddr::new(address.parse()?, NODE_PORT);
            wait_for(&format!("the service at {node}, {at}"), CONVERGED, || {
                call(server, at)
            })?;
        }
    }
    for address in EGRESS {
        let at = SocketAddr::new(address, FRONT);
        wait_for(&format!("the pod to reach {at}"), CONVERGED, || {
            serves(pod.within(|| Ok(TcpStream::connect_timeout(&at, PATIENCE)?))?)
        })?;
    }
    for (target, address) in SERVER.into_iter().zip(EGRESS) {
        let seen = seen_as(pod, target)?;
        ensure!(seen == address, "the pod is {seen} to {target}");
    }
    Ok(())
}

/// Without `servedPorts` the service is not reached any more, and the gateway counts why.
fn no_more(lab: &Lab, policy: &str, profile: &str, holder: &str) -> Result<()> {
    let (head, rest) = policy.split_once("  servedPorts:\n").context("the ports")?;
    let (_, tail) = rest.split_once("  health:").context("what follows them")?;
    let text = format!("{head}  health:{tail}---\n{profile}");
    egress::write(lab, "policies.yaml", &text)?;
    let unsolicited = || -> Result<u64> {
        let drops = causeway::items(lab.node(holder), "datapath drops")?;
        let found = drops
            .iter()
            .find(|drop| drop["reason"] == "nat-unsolicited");
        let packets = found.and_then(|drop| drop["packets"].as_u64());
        packets.with_context(|| format!("{drops:#?}"))
    };
    for address in EGRESS {
        let at = SocketAddr::new(address, FRONT);
        wait_for(&format!("{at} to be silent"), CONVERGED, || {
            let before = unsolicited()?;
            let called = || Ok(TcpStream::connect_timeout(&at, SHORT));
            ensure!(
                lab.node("server").in_node(called)?.is_err(),
                "{at} is served"
            );
            ensure!(
                unsolicited()? > before,
                "{at} says nothing, and nothing is counted"
            );
            Ok(())
        })?;
    }
    Ok(())
}

/// Calls the service from outside.
fn call(server: &Node, at: SocketAddr) -> Result<()> {
    let caller = serves(server.in_node(|| Ok(TcpStream::connect_timeout(&at, PATIENCE)?))?)?;
    ensure!(!SERVER.contains(&caller), "the pod was called by {caller}");
    Ok(())
}

/// What a call comes to: the pod says who called, and says back what it hears.
fn serves(stream: TcpStream) -> Result<IpAddr> {
    stream.set_read_timeout(Some(CONVERGED))?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut caller = String::new();
    answers.read_line(&mut caller)?;
    let caller = caller.trim().trim_matches(['[', ']']);
    let caller: IpAddr = caller.parse().with_context(|| format!("{caller:?}"))?;
    (&stream).write_all(b"what is owed?")?;
    let mut heard = [0; 13];
    answers.read_exact(&mut heard)?;
    ensure!(&heard == b"what is owed?", "{heard:?}");
    Ok(caller.to_canonical())
}

/// Asks the service by a datagram; its answer begins with who asked.
fn ask(server: &Node, at: SocketAddr) -> Result<()> {
    let any: IpAddr = if at.is_ipv4() { "0.0.0.0" } else { "::" }.parse()?;
    let socket = server.in_node(|| Ok(UdpSocket::bind((any, 0))?))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(at)?;
    socket.send(b"what is owed?")?;
    let mut heard = [0; 128];
    let length = socket.recv(&mut heard)?;
    let heard = String::from_utf8_lossy(&heard[..length]).into_owned();
    ensure!(heard.contains("\n"), "{heard:?}");
    Ok(())
}

/// Serves in a pod: says who calls, and says back what it hears.
fn serve(pod: &Pod<'_>, socket: &str) -> Result<harness::Spawned> {
    pod.spawn(&["socat", socket, "SYSTEM:echo $SOCAT_PEERADDR; exec cat"])
}

/// Has the firewall pass calls of the server, and what answers them.
fn open(firewall: &Node) -> Result<()> {
    load(
        firewall,
        "insert rule inet firewall forward ct state established,related accept\n\
         insert rule inet firewall forward iifname eth2 accept\n",
    )
}

fn load(node: &Node, rules: &str) -> Result<()> {
    let output = node.exec_with_input(&["nft", "-f", "-"], rules.as_bytes())?;
    ensure!(output.success(), "{rules}: {}", output.stderr);
    Ok(())
}
