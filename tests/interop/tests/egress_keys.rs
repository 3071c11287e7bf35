// SPDX-License-Identifier: Apache-2.0
//! Gateways with wrong keys, keys that are replaced, a gateway whose tunnel speaks otherwise, and
//! strangers at the port gateways are linked by.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use egress_sync::{
    channel::{Channel, Config, Key, Keys, Output, Timing},
    name::NodeName,
};
use harness::{
    CONVERGED, Lab, Node, causeway, egress, firewall,
    guide::{adapted, manifest},
    keys,
    pod::Pod,
    standby::{self, copied, holder, holds, linked, one_holds, seen_at},
    talks::Talks,
    wait_for,
};

/// Where gw1 listens for others.
const GW1: &str = "10.0.0.11:4796";

/// More than may be there without having proved themselves.
const CROWD: usize = 200;

/// What the end says that was refused: not why, for that is nobody's business.
const REFUSED_THERE: &str = "is egress.secretFile the same on both?";

#[test]
fn only_who_knows_the_key_is_heard() -> Result<()> {
    let lab = standby::up("keys")?;
    through_it_all(&lab).with_context(|| {
        let nodes = ["gw1", "gw2", "node1"].map(|node| lab.node(node));
        nodes.map(seen_at).join("\n")
    })
}

fn through_it_all(lab: &Lab) -> Result<()> {
    let (gw1, gw2, key) = (lab.node("gw1"), lab.node("gw2"), keys::of_the_lab()?);
    keys::apart(lab)?;
    let pod = Pod::add_to(lab.node("node1"), "shop", "billing-1")?;
    let mut talks = Talks::default();
    talks.add(&pod)?;
    settled(lab, &talks)?;

    strangers(lab, &pod, &key).context("strangers")?;
    settled(lab, &talks)?;
    talks.go_on("among strangers")?;
    otherwise(lab, "gw2").context("another tunnel")?;
    settled(lab, &talks)?;

    // Another key at either: first at the one that stands by, then at the one that holds, which is
    // not the one that would be elected by who knows nothing.
    gw1.exec_ok(&["causeway", "drain", "--detach", "--reason", "keys"])?;
    holds(lab, "gw2")?;
    gw1.exec_ok(&["causeway", "undrain"])?;
    settled(lab, &talks)?;
    for (wrong, of_wrong, of_right) in [
        (gw1, "knows none of the keys", REFUSED_THERE),
        (gw2, REFUSED_THERE, "knows none of the keys"),
    ] {
        let right = lab.node(standby::other(wrong.name()));
        keys::write(wrong, "another key, as long as needed\n")?;
        keys::restart(wrong)?;
        keys::says(wrong, right.name(), of_wrong)?;
        keys::says(right, wrong.name(), of_right)?;
        ensure!(holder(lab)?.as_deref() == Some("gw2"), "another holder");
        talks.go_on("with another key at one gateway")?;
        if wrong.name() == "gw2" {
            begins(lab, "gw1").context("a policy that begins meanwhile")?;
        }
        keys::write(wrong, &key)?;
        linked(lab)?;
        let now = settled(lab, &talks)?;
        ensure!(now == "gw2", "it has moved to {now}");
    }

    // No keys at all, or none that can be read.
    for (text, why) in [
        (None, "No such file"),
        (Some(""), "egress.key: no key"),
        (Some("# key\nshort\n"), "line 2: key of 5 octets"),
    ] {
        match text {
            Some(text) => keys::write(gw2, text)?,
            None => keys::remove(gw2)?,
        }
        keys::restart(gw2)?;
        keys::says(gw2, "gw1", why)?;
        keys::says(gw1, "gw2", REFUSED_THERE)?;
        ensure!(holder(lab)?.as_deref() == Some("gw2"), "another holder");
        keys::write(gw2, &key)?;
        linked(lab)?;
    }
    settled(lab, &talks)?;
    talks.go_on("with keys that were not there")?;

    // The guide's three steps. On the way every node meets others of the step before.
    let next = "the next key, as long as needed";
    for text in [
        format!("{key}\n{next}\n"),
        format!("{next}\n{key}\n"),
        format!("{next}\n"),
    ] {
        for node in ["gw2", "node1", "gw1"] {
            keys::write(lab.node(node), &text)?;
        }
        // The file is read at each connection, and there is none until now.
        keys::restart(gw1)?;
        linked(lab)?;
        talks.go_on("while the key is replaced")?;
    }
    settled(lab, &talks)?;
    talks.finish()?;

    let refused = firewall::refused(lab.node("firewall"))?;
    ensure!(refused.is_empty(), "the firewall refused {refused:?}");
    Ok(())
}

/// Whoever is linked with a gateway whose tunnel is at another port tells of it, and so does that one.
fn otherwise(lab: &Lab, gateway: &str) -> Result<()> {
    let node = lab.node(gateway);
    let files = lab.files().context("the lab has a copy of its files")?;
    let settings = files.join(gateway).join("causeway.yaml");
    let text = fs::read_to_string(&settings)?;
    let changed = adapted(&text, &[("egress:\n", "egress:\n  tunnelPort: 4790\n")])?;
    for (text, is_other) in [(changed, true), (text, false)] {
        fs::write(&settings, text)?;
        keys::restart(node)?;
        linked(lab)?;
        for (here, there) in [
            (lab.node(standby::other(gateway)), gateway),
            (lab.node("node1"), gateway),
            (node, standby::other(gateway)),
        ] {
            wait_for(&format!("{}, of {there}", here.name()), CONVERGED, || {
                let status = causeway::ask(here, "status")?;
                let issues = status["issues"].as_array().into_iter().flatten();
                let mut told = issues.filter(|issue| issue["code"] == "CW0713");
                let is_told = told.any(|issue| {
                    let message = issue["message"].as_str().unwrap_or_default();
                    let is_both = message.contains("port 4790") && message.contains("port 4789");
                    is_both && issue["object"] == format!("node {there}")
                });
                ensure!(is_told == is_other, "{status:#}");
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// A policy that begins while a gateway has another key gets a holder all the same.
fn begins(lab: &Lab, gateway: &str) -> Result<()> {
    let policy = manifest("egress.md", "billing-standby")?;
    let policy = policy.split("---\n").next().unwrap_or_default();
    let words = [
        ("name: billing-standby", "name: more"),
        ("app: billing", "app: more"),
        ("192.168.60.100", "192.168.60.101"),
        ("fd00:192:168:60::100", "fd00:192:168:60::101"),
    ];
    egress::write(lab, "more.yaml", &adapted(policy, &words)?)?;
    let more = ["192.168.60.101", "fd00:192:168:60::101"];
    let more = [more[0].parse()?, more[1].parse()?];
    wait_for("a holder", CONVERGED, || {
        let holder = standby::holder_of(lab, more)?;
        ensure!(holder.as_deref() == Some(gateway), "{holder:?}");
        Ok(())
    })?;
    fs::remove_file(egress::resources(lab)?.join("more.yaml"))?;
    Ok(())
}

/// Those who know no key, or repeat what others said, at the port of the holder.
fn strangers(lab: &Lab, pod: &Pod<'_>, key: &str) -> Result<()> {
    let (gw1, node1) = (lab.node("gw1"), lab.node("node1"));
    let before = (connections(gw1)?, linked_since(gw1)?);

    // Garbage, and nothing at all of what is expected.
    let hello = Said::by("node2", key)?;
    for bytes in [
        &b"GET / HTTP/1.0\r\n\r\n"[..],
        &[0xff; 70_000],
        &hello.hello[..20],
    ] {
        let answer = node1.in_node(|| answered(bytes))?;
        ensure!(answer.is_empty(), "an answer to garbage: {answer:?}");
    }

    // A connection that was good, byte by byte, once more.
    let first = hello.hello.len();
    let heard = node1.in_node(|| hello.talk())?;
    ensure!(heard.len() > first, "more is said than the first packet");
    let again = node1.in_node(|| replayed(&heard, first))?;
    ensure!(
        again.is_empty(),
        "a replayed connection is heard: {again:?}"
    );

    // A frame of a connection that is good, but for its seal.
    let mut forger = Said::by("node2", key)?;
    forger.is_forging = true;
    let talked = node1.in_node(|| forger.talk());
    let error = talked.err().context("a forged frame is taken")?;
    ensure!(format!("{error:#}").contains("closed"), "{error:#}");

    // A crowd, of a pod, that says nothing and stays; and a gateway that comes back meanwhile.
    let crowd = pod.within(|| {
        let one = || Ok(TcpStream::connect_timeout(&GW1.parse()?, CONVERGED)?);
        (0..CROWD).map(|_| one()).collect::<Result<Vec<_>>>()
    })?;
    keys::restart(lab.node("node1"))?;
    wait_for("node1 to be linked in a crowd", CONVERGED, || {
        let peer = keys::seen(node1, "gw1")?;
        ensure!(peer["isLinked"] == true, "{peer:#}");
        Ok(())
    })?;
    drop(crowd);

    let after = (connections(gw1)?, linked_since(gw1)?);
    ensure!(before == after, "{before:#?} became {after:#?}");
    let log = gw1.log();
    let told = log
        .lines()
        .filter(|line| line.contains("connection refused"));
    let told = told.count();
    ensure!(
        (1..=10).contains(&told),
        "{told} lines of strangers in the log"
    );
    Ok(())
}

/// A node of the cluster that knows the key, and is none of those that are linked.
struct Said {
    channel: Channel,
    hello: Vec<u8>,
    is_forging: bool,
}

impl Said {
    fn by(name: &str, key: &str) -> Result<Self> {
        let config = Config {
            name: NodeName::new(name)?,
            timing: Timing::default(),
            keys: Keys::new(vec![Key::new(key.as_bytes())?])?,
        };
        let mut channel = Channel::initiator(config, None, [7; 32], Instant::now());
        let hello = written(&mut channel);
        Ok(Self {
            channel,
            hello,
            is_forging: false,
        })
    }

    /// Connects, is taken, and says something. All it has written.
    fn talk(mut self) -> Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&GW1.parse()?, CONVERGED)?;
        stream.set_read_timeout(Some(CONVERGED))?;
        let mut said = self.hello.clone();
        stream.write_all(&self.hello)?;
        let mut is_taken = false;
        let mut buffer = [0; 4096];
        loop {
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                bail!("closed by the gateway");
            }
            self.channel.handle_bytes(&buffer[..count], Instant::now());
            while let Some(output) = self.channel.poll_output() {
                match output {
                    Output::Established { .. } => is_taken = true,
                    Output::Message(_) => {}
                    Output::Ended(end) => bail!("{end:?}"),
                }
            }
            let mut more = written(&mut self.channel);
            if is_taken {
                if !self.is_forging {
                    return Ok(said);
                }
                self.channel.send(b"no message", Instant::now())?;
                more.extend(written(&mut self.channel));
                *more.last_mut().context("a frame")? ^= 1;
                is_taken = false;
            }
            stream.write_all(&more)?;
            said.extend(more);
        }
    }
}

/// Everything a channel has to write.
fn written(channel: &mut Channel) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !channel.pending().is_empty() {
        let some = channel.pending().to_vec();
        channel.handle_written(some.len());
        bytes.extend(some);
    }
    bytes
}

/// What the gateway answers to some bytes before it closes.
fn answered(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&GW1.parse()?, CONVERGED)?;
    stream.set_read_timeout(Some(CONVERGED))?;
    // It may close before it has heard all of it.
    let _ = stream.write_all(bytes);
    ended(stream)
}

/// What comes until the gateway closes.
fn ended(mut stream: TcpStream) -> Result<Vec<u8>> {
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => Ok(answer),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(answer),
        Err(error) => Err(error).context("the gateway does not close"),
    }
}

/// What the gateway says to a connection of before that is said again, each packet in its turn, beyond
/// the answer that everybody gets to the first.
fn replayed(bytes: &[u8], first: usize) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&GW1.parse()?, CONVERGED)?;
    stream.set_read_timeout(Some(CONVERGED))?;
    let (first, rest) = bytes.split_at(first);
    stream.write_all(first)?;
    // Four octets, a kind, the length of the rest.
    let mut head = [0; 7];
    stream.read_exact(&mut head)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes([head[5], head[6]]))];
    stream.read_exact(&mut answer)?;
    let _ = stream.write_all(rest);
    ended(stream)
}

/// The connections a gateway translates, without what changes by itself.
fn connections(node: &Node) -> Result<BTreeSet<String>> {
    let mappings = causeway::items(node, "egress nat")?;
    let one = |mapping: &serde_json::Value| format!("{} {}", mapping["pod"], mapping["egress"]);
    Ok(mappings.iter().map(one).collect())
}

/// How often a gateway was linked with the other one.
fn linked_since(node: &Node) -> Result<usize> {
    let log = node.log();
    let other = format!("node={}", standby::other(node.name()));
    let lines = log
        .lines()
        .filter(|line| line.contains("linked with gateway"));
    let count = lines.filter(|line| line.contains(&other)).count();
    ensure!(count > 0, "{} was never linked", node.name());
    Ok(count)
}

/// Waits until one gateway has the addresses and the other every connection. Which has them.
fn settled(lab: &Lab, talks: &Talks) -> Result<String> {
    linked(lab)?;
    let now = one_holds(lab)?;
    wait_for("copies at the other", CONVERGED, || {
        copied(lab, standby::other(&now), talks)
    })?;
    Ok(now)
}
