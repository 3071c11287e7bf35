// SPDX-License-Identifier: Apache-2.0
//! Gateways that die, hang, are cut off or drained, under connections that must not notice, and a
//! firewall that must see one address.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use harness::{
    CONVERGED, Lab, Node, Signal, causeway,
    egress::{self, SERVER, connect},
    firewall, guide,
    pod::Pod,
    wait_for,
};

/// The addresses the policy's gateway holds.
const EGRESS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 168, 60, 100)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x192, 0x168, 0x60, 0, 0, 0, 0x100)),
];

/// The gateways' addresses for each other.
const GATEWAYS: [(&str, &str); 2] = [("gw1", "10.0.0.11"), ("gw2", "10.0.0.12")];

/// Round trips that show that a connection goes on.
const ENOUGH: u64 = 20;

#[test]
fn connections_outlive_whatever_happens_to_their_gateway() -> Result<()> {
    let lab = up()?;
    through_it_all(&lab).with_context(|| {
        let nodes = ["gw1", "gw2", "node1", "node2"].map(|node| lab.node(node));
        nodes.map(seen_at).join("\n")
    })
}

/// What a node says of itself, for when something went wrong.
fn seen_at(node: &Node) -> String {
    let mut seen = format!("== {}\n", node.name());
    for command in [
        "causeway egress gateways -o wide",
        "causeway egress rules -o wide",
        "causeway egress list",
        "causeway egress nat --protocol tcp",
        "causeway datapath drops",
        "ip neighbour",
        "ip route",
    ] {
        let argv: Vec<&str> = command.split(' ').collect();
        let said = node
            .exec(&argv)
            .map(|output| output.stdout + &output.stderr);
        seen += &format!(
            "-- {command}\n{}\n",
            said.unwrap_or_else(|error| error.to_string())
        );
    }
    seen + &node.log_tail()
}

fn through_it_all(lab: &Lab) -> Result<()> {
    let pods = [
        Pod::add_to(lab.node("node1"), "shop", "billing-1")?,
        Pod::add_to(lab.node("node2"), "shop", "billing-2")?,
    ];
    let mut talks = Talks::default();
    for pod in &pods {
        talks.add(pod)?;
    }
    holds(lab, "gw1")?;
    has_copies(lab, "gw2", &talks)?;

    // The daemon alone: the kernel goes on, and nobody takes anything over.
    stage("The daemon alone")?;
    lab.node("gw1").kill(Signal::SIGKILL)?;
    talks.go_on("without gw1's daemon")?;
    holds(lab, "gw1")?;
    lab.node("gw1").start()?;
    linked(lab)?;
    holds(lab, "gw1")?;
    has_copies(lab, "gw2", &talks)?;
    talks.go_on("with gw1's next daemon")?;

    // Everything it sends and gets is lost, as of a hung kernel.
    stage("Everything it sends")?;
    let hung = Cut::whole(lab.node("gw1"))?;
    holds(lab, "gw2")?;
    talks.go_on("with gw1 hung")?;
    talks.add(&pods[0])?;
    hung.mend()?;
    linked(lab)?;
    holds(lab, "gw2")?;
    has_copies(lab, "gw1", &talks)?;
    talks.go_on("with gw1 back")?;

    // An operator wants it away.
    stage("An operator")?;
    let gw2 = lab.node("gw2");
    gw2.exec_ok(&["causeway", "drain", "--detach", "--reason", "new disks"])?;
    holds(lab, "gw1")?;
    talks.go_on("with gw2 drained")?;
    gw2.exec_ok(&["causeway", "undrain"])?;
    has_copies(lab, "gw2", &talks)?;
    holds(lab, "gw1")?;

    // The two do not hear each other, and both live: nothing moves.
    stage("The two do not")?;
    let split = Cut::between_gateways(lab)?;
    unheard(lab)?;
    talks.go_on("with gateways that do not hear each other")?;
    holds(lab, "gw1")?;
    // What begins meanwhile is caught up with.
    talks.add(&pods[1])?;
    split.mend()?;
    linked(lab)?;
    has_copies(lab, "gw2", &talks)?;

    // Its cable is pulled.
    stage("Its cable")?;
    let gw1 = lab.node("gw1");
    gw1.link_down("eth1")?;
    holds(lab, "gw2")?;
    talks.go_on("with gw1's link down")?;
    gw1.link_up("eth1")?;
    linked(lab)?;
    has_copies(lab, "gw1", &talks)?;

    // Both, and back.
    stage("Both, and back")?;
    let both = [Cut::whole(lab.node("gw1"))?, Cut::whole(lab.node("gw2"))?];
    unheard(lab)?;
    for cut in both {
        cut.mend()?;
    }
    linked(lab)?;
    one_holds(lab)?;
    talks.go_on("with both gateways back")?;
    let holder = holder(lab)?.context("nobody holds the address")?;
    let other = if holder == "gw1" { "gw2" } else { "gw1" };
    has_copies(lab, other, &talks)?;

    // Its power is cut: all its processes and devices are gone at once.
    stage("Its power")?;
    lab.node(&holder).power_off()?;
    wait_for("the other gateway", CONVERGED, || {
        ensure!(has_address(lab.node(other))?, "{other} has no address");
        Ok(())
    })?;
    talks.go_on("without the gateway's power")?;
    talks.finish()?;

    let refused = firewall::refused(lab.node("firewall"))?;
    ensure!(refused.is_empty(), "the firewall refused {refused:?}");
    Ok(())
}

/// The lab with the policy of the guide in force.
fn up() -> Result<Lab> {
    let lab = egress::up("survival")?;
    let gw1 = lab.node("gw1");
    for (address, length) in EGRESS.into_iter().zip([24, 64]) {
        let address = format!("{address}/{length}");
        gw1.exec_ok(&["ip", "address", "delete", &address, "dev", "eth2"])?;
    }
    let policy = guide::manifest("egress.md", "billing-standby")?;
    egress::write(&lab, "policies.yaml", &policy)?;
    linked(&lab)?;
    Ok(lab)
}

/// Waits until the gateways hear each other, both ways.
fn linked(lab: &Lab) -> Result<()> {
    for (gateway, _) in GATEWAYS {
        wait_for(&format!("{gateway} to hear the other"), CONVERGED, || {
            let peers = causeway::items(lab.node(gateway), "egress gateways")?;
            let others = peers
                .iter()
                .filter(|peer| peer["name"].as_str().is_some_and(is_gateway));
            let others: Vec<_> = others.collect();
            let is_heard = |peer: &&serde_json::Value| {
                peer["isLinked"] == true && peer["bfd"] == "up" && peer["isDead"] == false
            };
            ensure!(
                others.len() == 1 && others.iter().all(is_heard),
                "{peers:#?}"
            );
            Ok(())
        })?;
    }
    Ok(())
}

/// Waits until BFD has seen that they do not.
fn unheard(lab: &Lab) -> Result<()> {
    for (gateway, _) in GATEWAYS {
        wait_for(&format!("{gateway} to hear nobody"), CONVERGED, || {
            let peers = causeway::items(lab.node(gateway), "egress gateways")?;
            let mut others = peers
                .iter()
                .filter(|peer| peer["name"].as_str().is_some_and(is_gateway));
            ensure!(others.all(|peer| peer["bfd"] == "down"), "{peers:#?}");
            Ok(())
        })?;
    }
    Ok(())
}

fn is_gateway(name: &str) -> bool {
    GATEWAYS.iter().any(|(gateway, _)| *gateway == name)
}

fn has_address(node: &Node) -> Result<bool> {
    let listed = node.exec_ok(&["ip", "-o", "address", "show"])?;
    let has = |address: IpAddr| listed.contains(&format!(" {address}/"));
    let (v4, v6) = (has(EGRESS[0]), has(EGRESS[1]));
    if v4 != v6 {
        bail!("{} has one of two addresses", node.name());
    }
    Ok(v4)
}

/// Who has the addresses; none if nobody or both have.
fn holder(lab: &Lab) -> Result<Option<String>> {
    let mut holders = Vec::new();
    for (gateway, _) in GATEWAYS {
        if has_address(lab.node(gateway))? {
            holders.push(gateway.to_owned());
        }
    }
    Ok(holders.pop().filter(|_| holders.is_empty()))
}

/// Waits until one gateway alone has the addresses.
fn holds(lab: &Lab, gateway: &str) -> Result<()> {
    wait_for(
        &format!("{gateway} alone to have the addresses"),
        CONVERGED,
        || {
            let holder = holder(lab)?;
            ensure!(holder.as_deref() == Some(gateway), "{holder:?}");
            Ok(())
        },
    )
}

fn one_holds(lab: &Lab) -> Result<()> {
    wait_for("one gateway to have the addresses", CONVERGED, || {
        holder(lab)?.context("none or both").map(drop)
    })
}

/// Waits until a gateway that stands by has every connection.
fn has_copies(lab: &Lab, gateway: &str, talks: &Talks) -> Result<()> {
    wait_for(&format!("copies at {gateway}"), CONVERGED, || {
        let mappings = causeway::items(lab.node(gateway), "egress nat --protocol tcp")?;
        for talk in &talks.0 {
            let own = talk.own.to_string();
            let found = mappings.iter().find(|mapping| mapping["pod"] == own);
            let mapping = found.with_context(|| format!("{own} is not in {mappings:#?}"))?;
            ensure!(mapping["state"] == "established", "{mapping:#}");
        }
        Ok(())
    })
}

/// Packets that are lost silently.
struct Cut<'a> {
    node: &'a Node,
}

impl<'a> Cut<'a> {
    /// All that a gateway sends and gets.
    fn whole(node: &'a Node) -> Result<Self> {
        let chain = |hook: &str, device: &str| {
            format!(
                "chain {hook}-{device} {{ type filter hook {hook} device {device} priority -500\n\
                 policy drop\n}}\n"
            )
        };
        let mut rules = "table netdev cut {\n".to_owned();
        for device in ["eth1", "eth2"] {
            rules += &chain("ingress", device);
            rules += &chain("egress", device);
        }
        Self::make(node, &(rules + "}\n"))
    }

    /// Between the gateways, at the router.
    fn between_gateways(lab: &'a Lab) -> Result<Self> {
        let [(_, one), (_, other)] = GATEWAYS;
        let rules = format!(
            "table ip cut {{\nchain forward {{\ntype filter hook forward priority 0\n\
             ip saddr {one} ip daddr {other} drop\nip saddr {other} ip daddr {one} drop\n}}\n}}\n"
        );
        Self::make(lab.node("tor"), &rules)
    }

    fn make(node: &'a Node, rules: &str) -> Result<Self> {
        let output = node.exec_with_input(&["nft", "-f", "-"], rules.as_bytes())?;
        ensure!(output.success(), "{rules}: {}", output.stderr);
        Ok(Self { node })
    }

    fn mend(self) -> Result<()> {
        let tables = self.node.exec_ok(&["nft", "list", "tables"])?;
        let table = tables.lines().find(|line| line.ends_with(" cut"));
        let table = table.context("the table of the cut")?;
        let mut argv = vec!["nft", "delete"];
        argv.extend(table.split_whitespace());
        self.node.exec_ok(&argv).map(drop)
    }
}

/// Connections of pods that say something all the time, and some that do not.
#[derive(Default)]
struct Talks(Vec<Talk>);

/// A connection to the server's echo.
struct Talk {
    own: SocketAddr,
    stream: TcpStream,
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    /// None of one that is silent until the end.
    talker: Option<thread::JoinHandle<Result<()>>>,
}

impl Talks {
    /// Of each family one that talks and one that does not.
    fn add(&mut self, pod: &Pod<'_>) -> Result<()> {
        for target in SERVER {
            for is_idle in [false, true] {
                let what = format!("a connection of {}", pod.name());
                let stream = wait_for(&what, CONVERGED, || pod.within(|| connect(target)))?;
                self.0.push(Talk::start(stream, is_idle)?);
            }
        }
        Ok(())
    }

    /// Waits until each that talks has had an answer some more times.
    fn go_on(&self, when: &str) -> Result<()> {
        for talk in self.0.iter().filter(|talk| talk.talker.is_some()) {
            let goal = talk.rounds.load(Ordering::Relaxed) + ENOUGH;
            wait_for(&format!("{} to go on {when}", talk.own), CONVERGED, || {
                let rounds = talk.rounds.load(Ordering::Relaxed);
                let is_over = talk
                    .talker
                    .as_ref()
                    .is_some_and(|talker| talker.is_finished());
                ensure!(!is_over, "the connection has ended after {rounds} rounds");
                ensure!(rounds >= goal, "{rounds} of {goal} rounds");
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Ends them; the silent ones say something now.
    fn finish(self) -> Result<()> {
        for mut talk in self.0 {
            talk.stop.store(true, Ordering::Relaxed);
            match talk.talker.take() {
                Some(talker) => talker.join().map_err(|_| anyhow!("a talker panicked"))??,
                None => round(&mut talk.stream, 0).context("a silent connection")?,
            }
        }
        Ok(())
    }
}

impl Talk {
    fn start(mut stream: TcpStream, is_idle: bool) -> Result<Self> {
        let own = stream.local_addr()?;
        round(&mut stream, 1)?;
        let (stop, rounds) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let talker = (!is_idle)
            .then(|| -> Result<_> {
                let mut stream = stream.try_clone()?;
                let (stop, rounds) = (Arc::clone(&stop), Arc::clone(&rounds));
                Ok(thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let number = rounds.load(Ordering::Relaxed);
                        round(&mut stream, number)
                            .with_context(|| format!("{own} after {number} rounds"))?;
                        rounds.fetch_add(1, Ordering::Relaxed);
                        thread::sleep(Duration::from_millis(20));
                    }
                    Ok(())
                }))
            })
            .transpose()?;
        Ok(Self {
            own,
            stream,
            stop,
            rounds,
            talker,
        })
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Says a number, and hears it.
fn round(stream: &mut TcpStream, number: u64) -> Result<()> {
    stream.write_all(&number.to_be_bytes())?;
    let mut heard = [0; 8];
    stream.read_exact(&mut heard)?;
    ensure!(heard == number.to_be_bytes(), "{heard:?} is not {number}");
    Ok(())
}

fn stage(what: &str) -> Result<()> {
    println!(
        "{:?} {what}",
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)?
            .as_secs()
            % 86400
    );
    Ok(())
}
