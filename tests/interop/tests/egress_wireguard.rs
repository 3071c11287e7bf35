// SPDX-License-Identifier: Apache-2.0
//! Egress gateways where the operator encrypts what goes between nodes by the kernel's WireGuard: the
//! lab runs as a whole on Debian's kernel in a virtual machine. What is in the packets a router between
//! the nodes says.

use std::{
    collections::BTreeSet,
    env,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use harness::{
    CONVERGED, Lab, Node,
    egress::{self, ECHO, SERVER, echoed_by_tcp, leaves, told_what_fits},
    firewall,
    pod::Pod,
    rootfs,
    standby::EGRESS,
    wait_for,
};
use lab_vm::{Kernel, Vm, is_guest};

/// The operator's device.
const DEVICE: &str = "wg0";

/// Its UDP port.
const PORT: u16 = 51820;

/// The node, its address on the fabric, and those other nodes know it by.
const ENDS: [(&str, &str, [&str; 2]); 2] = [
    ("node1", "172.16.1.2", ["10.0.0.1", "fd00:10::1"]),
    ("gw1", "172.16.11.2", ["10.0.0.11", "fd00:10::11"]),
];

/// What the tunnel takes whole: WireGuard's 1420 bytes less VXLAN over IPv4, and over IPv6.
const FITS: [u32; 2] = [1_370, 1_350];

/// Counts at the router what is WireGuard's between node1 and gw1, and what should be in it: the
/// tunnel, whatever is between the nodes' addresses (of pieces only the first has a port), and what has
/// a pod's address.
const AT_ROUTER: &str = "table inet test {
  counter to-gateway { }
  counter from-gateway { }
  counter tunnel { }
  counter nodes { }
  counter pods { }
  chain forward {
    type filter hook forward priority 0
    udp dport 51820 ip saddr 172.16.1.2 ip daddr 172.16.11.2 counter name to-gateway
    udp dport 51820 ip saddr 172.16.11.2 ip daddr 172.16.1.2 counter name from-gateway
    udp dport { 4789, 6081 } counter name tunnel
    ip saddr { 10.0.0.1, 10.0.0.11 } ip daddr { 10.0.0.1, 10.0.0.11 } counter name nodes
    ip6 saddr { fd00:10::1, fd00:10::11 } ip6 daddr { fd00:10::1, fd00:10::11 } counter name nodes
    ip saddr 10.244.1.0/24 counter name pods
    ip daddr 10.244.1.0/24 counter name pods
    ip6 saddr fd00:10:244:1::/64 counter name pods
    ip6 daddr fd00:10:244:1::/64 counter name pods
  }
}
";

/// Counts at a node the pieces that come out of WireGuard, before they are put together.
const AT_NODE: &str = "table inet test {
  counter pieces { }
  chain prerouting {
    type filter hook prerouting priority -500
    iifname wg0 ip frag-off & 0x3fff != 0 counter name pieces
    iifname wg0 exthdr frag exists counter name pieces
  }
}
";

#[test]
fn pods_leave_through_a_gateway_behind_wireguard() -> Result<()> {
    // The guest has no mirror to make it from.
    rootfs::ensure(|step| eprintln!("{step}"))?;
    let vm = Vm {
        memory: 3072,
        ..Vm::default()
    };
    let own = env::current_exe()?;
    let test = "all_that_pods_send_to_the_gateway_is_encrypted_and_fits";
    let command = format!(
        "'{}' --exact {test} --ignored --nocapture 2>&1",
        own.display()
    );
    let output = vm.run(Kernel::Debian13, &command)?;
    ensure!(output.code == 0, "{output}");
    ensure!(output.text.contains("1 passed"), "{output}");
    println!("{output}");
    Ok(())
}

#[test]
#[ignore = "runs in the virtual machine of the test above"]
fn all_that_pods_send_to_the_gateway_is_encrypted_and_fits() -> Result<()> {
    ensure!(is_guest(), "this one runs in a virtual machine");
    let lab = egress::up_without(&["node2", "gw2"], "wireguard")?;
    encrypt(&lab)?;
    count(lab.node("tor"), AT_ROUTER)?;
    let pod = Pod::add_to(lab.node("node1"), "shop", "billing-1")?;
    all_is_well(&lab, &pod, FITS[0]).context("between the nodes' IPv4 addresses")?;
    egress::nodes_have_ipv6_alone(&lab, &pod)?;
    all_is_well(&lab, &pod, FITS[1]).context("between the nodes' IPv6 addresses")?;

    let node = lab.node("node1");
    let [(_, _, here), (_, _, there)] = ENDS;
    let route = format!("{} dev {DEVICE} src {} metric 5", there[1], here[1]);
    let narrower = format!("ip route change {route} mtu 1400");
    node.exec_ok(&["sh", "-c", &narrower])?;
    wait_for("the pod to hear of a narrower route", CONVERGED, || {
        told_what_fits(&pod, 1_330)
    })?;

    // WireGuard finds its peer by the destination, which would be the server: not without the tunnel.
    egress::known(&lab, std::slice::from_ref(&pod))?;
    for (name, _, _) in ENDS {
        let words = [
            ("devices: [", "devices: [\"wg0\", "),
            ("egress:\n", "egress:\n  transport: native\n"),
        ];
        egress::restart_with(&lab, lab.node(name), &words)?;
    }
    egress::ways(node, "tunnel")?;
    leaves(&pod).context("with the native transport")?;

    for counter in ["tunnel", "nodes", "pods"] {
        let packets = counted(lab.node("tor"), counter)?;
        ensure!(packets == 0, "{packets} not encrypted: {counter}");
    }
    let refused = firewall::refused(lab.node("firewall"))?;
    ensure!(refused.is_empty(), "the firewall refused {refused:?}");
    let clients = firewall::clients(lab.node("server"))?;
    let clients: BTreeSet<_> = clients.into_iter().map(|(_, address)| address).collect();
    ensure!(clients == EGRESS.into(), "the server has seen {clients:?}");
    lab.down()
}

/// What an operator does on either node: a device, a peer, and a route to what the peer is known by.
fn encrypt(lab: &Lab) -> Result<()> {
    let mut keys = Vec::new();
    for (name, _, _) in ENDS {
        let node = lab.node(name);
        let private = node.exec_ok(&["wg", "genkey"])?;
        let public = node.exec_with_input(&["wg", "pubkey"], private.as_bytes())?;
        ensure!(public.success(), "wg pubkey: {}", public.stderr);
        node.exec_ok(&["ip", "link", "add", DEVICE, "type", "wireguard"])?;
        keys.push((private, public.stdout.trim().to_owned()));
    }
    for (here, there) in [(0, 1), (1, 0)] {
        let (name, _, own) = ENDS[here];
        let (_, endpoint, peer) = ENDS[there];
        let node = lab.node(name);
        let set = format!(
            "wg set {DEVICE} listen-port {PORT} private-key /dev/stdin peer {} endpoint \
             {endpoint}:{PORT} allowed-ips {}/32,{}/128",
            keys[there].1, peer[0], peer[1]
        );
        let output = node.exec_with_input(&["sh", "-c", &set], keys[here].0.as_bytes())?;
        ensure!(output.success(), "{set}: {}", output.stderr);
        node.exec_ok(&["ip", "link", "set", DEVICE, "mtu", "1420", "up"])?;
        for (own, peer) in own.into_iter().zip(peer) {
            let route = format!("ip route add {peer} dev {DEVICE} src {own} metric 5");
            node.exec_ok(&["sh", "-c", &route])?;
        }
        count(node, AT_NODE)?;
    }
    for address in ENDS[1].2 {
        wait_for("WireGuard between the nodes", CONVERGED, || {
            let node = lab.node("node1");
            node.exec_ok(&["ping", "-c1", "-W2", address]).map(drop)
        })?;
    }
    Ok(())
}

/// A pod leaves under the policies' addresses, hears what fits, and sends no piece by TCP.
fn all_is_well(lab: &Lab, pod: &Pod<'_>, fits: u32) -> Result<()> {
    leaves(pod)?;
    told_what_fits(pod, fits)?;
    let [node, gateway, tor] = ["node1", "gw1", "tor"].map(|name| lab.node(name));
    let ways = ["to-gateway", "from-gateway"];
    let before = ways.map(|way| counted(tor, way));
    let pieces = [counted(node, "pieces")?, counted(gateway, "pieces")?];
    for target in SERVER {
        echoed_by_tcp(pod, target, 256 << 10)?;
    }
    for (way, before) in ways.into_iter().zip(before) {
        let packets = counted(tor, way)? - before?;
        ensure!(packets > 200, "{packets} packets {way} by WireGuard");
    }
    let now = [counted(node, "pieces")?, counted(gateway, "pieces")?];
    ensure!(now == pieces, "{pieces:?} pieces before TCP, {now:?} then");
    for target in SERVER {
        echoed_in_pieces(pod, target, 1_400)?;
    }
    Ok(())
}

/// A datagram whose packet has so many bytes, from a socket as programs have it: the kernel forbids
/// that it is cut until it has heard that it must be, and then cuts it itself.
fn echoed_in_pieces(pod: &Pod<'_>, target: IpAddr, bytes: usize) -> Result<()> {
    let (any, headers): (IpAddr, usize) = match target {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), 28),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), 48),
    };
    let socket = pod.within(|| {
        let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        socket.connect(SocketAddr::new(target, ECHO))?;
        Ok(socket)
    })?;
    socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    let sent: Vec<u8> = (0..bytes - headers)
        .map(|place| (place % 251) as u8)
        .collect();
    wait_for(&format!("{bytes} bytes from {target}"), CONVERGED, || {
        let mut heard = vec![0; bytes];
        socket.send(&sent)?;
        let came = socket.recv(&mut heard)?;
        ensure!(heard[..came] == sent, "{came} bytes came back");
        Ok(())
    })
}

/// Begins to count.
fn count(node: &Node, rules: &str) -> Result<()> {
    let output = node.exec_with_input(&["nft", "-f", "-"], rules.as_bytes())?;
    ensure!(output.success(), "{rules}: {}", output.stderr);
    Ok(())
}

fn counted(node: &Node, counter: &str) -> Result<u64> {
    let answer = node.exec_json(&["nft", "-j", "list", "counter", "inet", "test", counter])?;
    let objects = answer["nftables"].as_array().into_iter().flatten();
    let mut packets = objects.filter_map(|object| object["counter"]["packets"].as_u64());
    packets
        .next()
        .with_context(|| format!("{counter}: {answer}"))
}
