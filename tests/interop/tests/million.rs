// SPDX-License-Identifier: Apache-2.0
//! A neighbour that sends a full table and more: a million routes to a node that wants none of
//! them, and a hundred thousand to one that installs them. Other sessions, with a hold time of nine
//! seconds, live through it.
//!
//! The neighbour is this test, in the place of tor2's bgpd: no router's own speed is in the way.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use harness::{CONVERGED, Lab, Node, Signal, causeway, frr, lab, wait_for};

const REJECTED: u32 = 1_000_000;
const INSTALLED: u32 = 100_000;
/// How long a million routes may take: the tests run a debug build on whatever machine.
const TAKEN_IN: Duration = Duration::from_secs(180);
/// The most memory that the daemon may ever have had, in KiB. A million rejected routes cost about
/// a hundred bytes each; the rest is room.
const MEMORY_KIB: u64 = 1 << 20;

/// The sender: tor2 and its link to node1, where the daemon waits on BGP's port.
const OWN_ASN: u32 = 65102;
const OWN_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 16, 21, 1);
const NODE1: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(172, 16, 21, 2)), 179);
/// Prefixes in one UPDATE: what fits into 4096 octets (RFC 4271 §4), rounded down.
const PER_UPDATE: u32 = 1000;

#[test]
fn a_million_routes_delay_nobody() -> Result<()> {
    let lab = lab("fabric", "million")?;
    let (node1, tor2) = (lab.node("node1"), lab.node("tor2"));
    for peer in ["tor1-v4", "tor1-v6", "tor2-v4", "tor2-v6"] {
        wait_for(peer, CONVERGED, || causeway::established(node1, peer))?;
    }
    let before = tor1_sessions(&lab)?;
    tor2.kill(Signal::SIGKILL)?;
    wait_for("the session with tor2 to end", CONVERGED, || {
        let state = &causeway::peer(node1, "tor2-v4")?["session-state"];
        ensure!(*state != "established", "{state}");
        Ok(())
    })?;
    let idle_kib = memory_kib(node1)?;

    let start = Instant::now();
    let sender = Sender::start(tor2, REJECTED)?;
    wait_for("a million routes to be counted", TAKEN_IN, || {
        let peer = causeway::established(node1, "tor2-v4")?;
        let family = &peer["families"][0];
        ensure!(
            family["received"] == REJECTED && family["accepted"] == 0,
            "{family}"
        );
        Ok(())
    })?;
    let took = start.elapsed();
    let peak_kib = memory_kib(node1)?;
    println!(
        "{REJECTED} routes counted and rejected in {took:?}; memory {} MiB before, {} MiB at most",
        idle_kib >> 10,
        peak_kib >> 10
    );
    ensure!(peak_kib < MEMORY_KIB, "{peak_kib} KiB of memory");
    assert_eq!(
        before,
        tor1_sessions(&lab)?,
        "tor1's sessions were not reset"
    );
    ensure!(bgp_routes(node1)? <= 1, "none is installed");
    sender.finish()?;

    // The same neighbour, wanted.
    let resources = lab
        .files()
        .context("the lab has a private copy")?
        .join("resources.d");
    fs::write(resources.join("all.yaml"), TAKE_ALL)?;
    let cluster = resources.join("cluster.yaml");
    let text = fs::read_to_string(&cluster)?;
    let tor2 =
        "          peerAddress: 172.16.21.1\n          peerASN: 65102\n          peerConfigRef: ";
    let old = format!("{tor2}{{ name: fabric-v4 }}");
    ensure!(text.contains(&old), "{text}");
    let new = format!("{tor2}{{ group: causeway.io, kind: BGPPeerConfig, name: take-all }}");
    fs::write(&cluster, text.replace(&old, &new))?;
    wait_for("the other policy", CONVERGED, || {
        let policy = causeway::peer(node1, "tor2-v4")?["families"][0]["import-policy"].to_string();
        ensure!(
            policy.contains("all") || policy.contains("every"),
            "{policy}"
        );
        Ok(())
    })?;
    let start = Instant::now();
    let sender = Sender::start(lab.node("tor2"), INSTALLED)?;
    wait_for("the routes in the kernel", TAKEN_IN, || {
        let count = bgp_routes(node1)?;
        ensure!(count >= INSTALLED as usize, "{count} routes");
        Ok(())
    })?;
    println!(
        "{INSTALLED} routes in the kernel after {:?}",
        start.elapsed()
    );
    sender.finish()?;
    wait_for("the routes to go with the session", TAKEN_IN, || {
        let count = bgp_routes(node1)?;
        ensure!(count <= 1, "{count} routes");
        Ok(())
    })?;
    println!(
        "and gone again; memory {} MiB at most",
        memory_kib(node1)? >> 10
    );
    assert_eq!(
        before,
        tor1_sessions(&lab)?,
        "tor1's sessions were not reset"
    );
    lab.down()
}

/// Takes whatever the neighbour sends.
const TAKE_ALL: &str = "\
apiVersion: causeway.io/v1alpha1
kind: BGPPeerConfig
metadata:
  name: take-all
spec:
  timers: { connectRetryTimeSeconds: 1, holdTimeSeconds: 9, keepAliveTimeSeconds: 3 }
  families:
    - afi: ipv4
      safi: unicast
      import: { mode: All }
";

/// A BGP speaker that can do one thing.
struct Sender {
    connection: TcpStream,
    reader: JoinHandle<()>,
}

impl Sender {
    /// Opens a session from a node and sends so many routes; returns when they are written.
    fn start(node: &Node, count: u32) -> Result<Self> {
        let connection = wait_for("node1 to take a session", CONVERGED, || {
            let mut connection =
                node.in_node(|| Ok(TcpStream::connect_timeout(&NODE1, Duration::from_secs(5))?))?;
            connection.set_read_timeout(Some(Duration::from_secs(15)))?;
            connection.write_all(&open())?;
            // Its OPEN, and the KEEPALIVE that says it has taken ours.
            for wanted in [1, 4] {
                let kind = read_message(&mut connection)?;
                ensure!(
                    kind == wanted,
                    "a message of type {kind} instead of {wanted}"
                );
            }
            connection.write_all(&message(4, &[]))?;
            Ok(connection)
        })?;
        // Every KEEPALIVE is answered by one, which keeps the session up.
        let reader = {
            let (mut input, mut output) = (connection.try_clone()?, connection.try_clone()?);
            input.set_read_timeout(None)?;
            thread::spawn(move || {
                while let Ok(kind) = read_message(&mut input) {
                    // One write, and so one whole message among those of the other thread.
                    if kind == 4 && output.write_all(&message(4, &[])).is_err() {
                        return;
                    }
                }
            })
        };
        let mut output = connection.try_clone()?;
        for first in (0..count).step_by(PER_UPDATE as usize) {
            output
                .write_all(&update(first, PER_UPDATE.min(count - first)))
                .with_context(|| format!("after {first} routes"))?;
        }
        Ok(Self { connection, reader })
    }

    /// Closes the connection.
    fn finish(self) -> Result<()> {
        self.connection.shutdown(std::net::Shutdown::Both)?;
        let ended = self.reader.join();
        ensure!(ended.is_ok(), "the reader panicked");
        Ok(())
    }
}

/// RFC 4271 §4.1.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(19 + body.len()).unwrap_or(u16::MAX);
    let mut message = vec![0xff; 16];
    message.extend(length.to_be_bytes());
    message.push(kind);
    message.extend(body);
    message
}

/// RFC 4271 §4.2, with the capabilities for IPv4 unicast (RFC 4760) and 4-octet AS (RFC 6793).
fn open() -> Vec<u8> {
    let mut body = vec![4];
    body.extend(u16::try_from(OWN_ASN).unwrap_or(23456).to_be_bytes());
    body.extend(9_u16.to_be_bytes());
    body.extend(OWN_ADDRESS.octets());
    let mut capabilities = vec![1, 4, 0, 1, 0, 1, 65, 4];
    capabilities.extend(OWN_ASN.to_be_bytes());
    body.extend([14, 2, 12]);
    body.extend(capabilities);
    message(1, &body)
}

/// RFC 4271 §4.3: some /24 from 16.0.0.0 on, by a path of their own.
fn update(first: u32, count: u32) -> Vec<u8> {
    let mut attributes = vec![0x40, 1, 1, 0];
    attributes.extend([0x40, 2, 10, 2, 2]);
    attributes.extend(OWN_ASN.to_be_bytes());
    attributes.extend((4_200_000_000 + first / PER_UPDATE).to_be_bytes());
    attributes.extend([0x40, 3, 4]);
    attributes.extend(OWN_ADDRESS.octets());
    let mut body = vec![0, 0];
    body.extend(u16::try_from(attributes.len()).unwrap_or(0).to_be_bytes());
    body.extend(attributes);
    for number in first..first + count {
        let [_, a, b, c] = (0x10_0000 + number).to_be_bytes();
        body.extend([24, a, b, c]);
    }
    message(2, &body)
}

/// Reads one message and returns its type.
fn read_message(input: &mut TcpStream) -> io::Result<u8> {
    let mut header = [0; 19];
    input.read_exact(&mut header)?;
    let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
    let mut body = vec![0; length.saturating_sub(header.len())];
    input.read_exact(&mut body)?;
    Ok(header[18])
}

/// How often tor1's sessions with node1 came and went.
fn tor1_sessions(lab: &Lab) -> Result<Vec<String>> {
    let mut sessions = Vec::new();
    for address in ["172.16.11.2", "fd00:172:16:11::2"] {
        frr::established(lab.node("tor1"), address)?;
        let answer = frr::show(lab.node("tor1"), &format!("bgp neighbors {address}"))?;
        let neighbor = &answer[address];
        sessions.push(format!(
            "{address}: {} established, {} dropped",
            neighbor["connectionsEstablished"], neighbor["connectionsDropped"]
        ));
    }
    Ok(sessions)
}

/// IPv4 routes of the protocol bgp in a node's kernel.
fn bgp_routes(node: &Node) -> Result<usize> {
    let count = node.exec_ok(&[
        "sh",
        "-c",
        "ip -o -4 route show proto bgp type unicast | wc -l",
    ])?;
    count.trim().parse().context("wc prints a number")
}

/// The most memory that the daemon has had.
fn memory_kib(node: &Node) -> Result<u64> {
    let daemon = node.main_process().context("the daemon runs")?;
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line
        .and_then(|line| line.split_whitespace().next())
        .context("no VmHWM")?;
    Ok(number.parse()?)
}
