// SPDX-License-Identifier: Apache-2.0
//! Gateways that die, hang, are cut off or drained, under connections that must not notice, and a
//! firewall that must see one address.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use harness::{
    CONVERGED, Lab, Node, Signal, causeway,
    egress::{SERVER, connect},
    firewall,
    pod::Pod,
    standby::{self, Cut, has_address, holds, linked, one_holds, unheard},
    wait_for,
};

/// Round trips that show that a connection goes on.
const ENOUGH: u64 = 20;

#[test]
fn connections_outlive_whatever_happens_to_their_gateway() -> Result<()> {
    let lab = standby::up("survival")?;
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
    let holder = one_holds(lab)?;
    talks.go_on("with both gateways back")?;
    let other = standby::other(&holder);
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
