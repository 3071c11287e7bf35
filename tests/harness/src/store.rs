// SPDX-License-Identifier: Apache-2.0
//! The lab of egress gateways with an etcd that its nodes reach by links of its own, and who
//! answers for an address on their segment.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::Write as _,
    net::IpAddr,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use lab_runner::{Lab, Node, Spawned, wait_for};

use crate::{
    CONVERGED, causeway, egress,
    guide::adapted,
    lab_from, root,
    standby::{self, GATEWAYS},
};

/// The nodes that reach etcd, each with its device and address towards it, and etcd's there.
const WAYS: [(&str, &str, &str, &str); 3] = [
    ("gw1", "eth3", "192.168.81.2/24", "192.168.81.1"),
    ("gw2", "eth3", "192.168.82.2/24", "192.168.82.1"),
    ("node1", "eth2", "192.168.83.2/24", "192.168.83.1"),
];

/// Seconds etcd takes a gateway that says nothing for alive: the fewest there are.
const LEASE: u32 = 3;

/// The topology `egress` with one node more, and the policy of [`standby::up`] in force: what the
/// published one is without.
///
/// # Errors
/// As [`standby::up`], and when the gateways do not reach etcd.
pub fn up(test: &str) -> Result<Lab> {
    let folder = tempfile::tempdir()?;
    let copied = Command::new("cp")
        .arg("-a")
        .arg(root()?.join("lab/containerlab/egress"))
        .arg(folder.path())
        .status()?;
    ensure!(copied.success(), "cp: {copied}");
    let folder = folder.path().join("egress");
    let file = folder.join("egress.clab.yml");
    add_etcd(&file)?;
    for (node, _, _, etcd) in WAYS {
        let settings = folder.join(node).join("causeway.yaml");
        let mut settings = OpenOptions::new().append(true).open(settings)?;
        writeln!(
            settings,
            "store: {{ endpoints: [\"http://{etcd}:2379\"], leaseSeconds: {LEASE} }}"
        )?;
    }
    // One that names an etcd and has no key: it says that it does not use it.
    let settings = folder.join("node2/causeway.yaml");
    let text = fs::read_to_string(&settings)?;
    let secret = "egress:\n  secretFile: /etc/causeway/egress.key\n";
    let store = "store: { endpoints: [\"http://192.168.83.1:2379\"] }\n";
    fs::write(&settings, adapted(&text, &[(secret, store)])?)?;
    let lab = lab_from(&file, test)?;
    egress::came_up(&lab)?;
    standby::in_force(&lab)?;
    all_reach(&lab, true)?;
    unused(lab.node("node2"))?;
    Ok(lab)
}

/// Waits until all nodes that have a way to etcd say that it answers, or that it does not.
///
/// # Errors
/// When it does not come to that.
pub fn all_reach(lab: &Lab, is_reached: bool) -> Result<()> {
    for (node, ..) in WAYS {
        wait_for(&format!("{node} to see etcd"), CONVERGED, || {
            reached(lab.node(node), is_reached)
        })?;
    }
    Ok(())
}

fn add_etcd(file: &Path) -> Result<()> {
    let text = fs::read_to_string(file)?;
    let node = WAYS.iter().enumerate().map(|(index, (.., etcd))| {
        let device = index + 1;
        format!("        - ip address add {etcd}/24 dev eth{device}\n")
    });
    let node: String = node.collect();
    let node = format!("    etcd:\n      image: quay.io/coreos/etcd:v3.5.16\n      exec:\n{node}");
    let links = WAYS.iter().enumerate().map(|(index, (node, device, ..))| {
        let other = index + 1;
        format!("    - {{ endpoints: [\"{node}:{device}\", \"etcd:eth{other}\"], mtu: 1500 }}\n")
    });
    let links: String = links.collect();
    let mut text = text.replacen("  links:\n", &format!("{node}  links:\n{links}"), 1);
    for (name, device, own, _) in WAYS {
        let at = format!("    {name}:\n      group: nodes\n      exec:\n");
        let line = format!("{at}        - ip address add {own} dev {device}\n");
        ensure!(text.contains(&at), "{name} as the topology has it");
        text = text.replacen(&at, &line, 1);
    }
    fs::write(file, text)?;
    Ok(())
}

/// Succeeds when a node says that it reaches etcd, or that it does not.
///
/// # Errors
/// When it says something else.
pub fn reached(node: &Node, is_reached: bool) -> Result<()> {
    let status = causeway::ask(node, "status")?;
    let issues = status["issues"].as_array();
    let mut issues = issues.into_iter().flatten();
    let told = issues.any(|issue| issue["code"] == "CW0602");
    let components = status["components"].as_array();
    let mut components = components.into_iter().flatten();
    let store = components.find(|component| component["name"] == "store");
    let store = store.with_context(|| format!("no store in {status:#}"))?;
    let count = u32::from(is_reached);
    ensure!(store["counts"]["reached"] == count, "{store:#}");
    ensure!(told != is_reached, "{status:#}");
    Ok(())
}

/// Waits until a node says that it does not use its etcd.
fn unused(node: &Node) -> Result<()> {
    wait_for("node2 to miss a key", CONVERGED, || {
        let status = causeway::ask(node, "status")?;
        let mut issues = status["issues"].as_array().into_iter().flatten();
        let told = issues.any(|issue| issue["code"] == "CW0603");
        ensure!(told, "{status:#}");
        Ok(())
    })
}

/// What is written in etcd, as `etcdctl` prints it: a line with the key, a line with the value.
///
/// # Errors
/// When etcd does not answer.
pub fn written(lab: &Lab) -> Result<String> {
    let argv = ["etcdctl", "get", "--prefix", "/causeway/"];
    lab.node("etcd").exec_ok(&argv)
}

/// Waits until all rules are written as a gateway's, and none as let go.
///
/// # Errors
/// When it does not come to that.
pub fn written_as(lab: &Lab, gateway: &str) -> Result<()> {
    let what = format!("all rules to be written as {gateway}'s");
    wait_for(&what, CONVERGED, || {
        let written = written(lab)?;
        let lines: Vec<&str> = written.lines().collect();
        let rules = lines.chunks(2).filter(|pair| pair[0].contains("/rules/"));
        let holders: BTreeSet<&str> = rules
            .filter_map(|pair| pair.get(1)?.split_once(' '))
            .map(|(_, holder)| holder)
            .collect();
        ensure!(holders == BTreeSet::from([gateway]), "{written}");
        Ok(())
    })
}

/// Asks the segment who answers for the IPv4 address of the policy.
#[derive(Debug)]
pub struct Answers<'a> {
    gateways: Vec<&'a Node>,
    asker: &'a Node,
    heard: Spawned,
}

impl<'a> Answers<'a> {
    /// Listens on the firewall.
    ///
    /// # Errors
    /// When it cannot.
    pub fn begin(lab: &'a Lab) -> Result<Self> {
        let asker = lab.node("firewall");
        let argv = ["tcpdump", "-l", "-n", "-i", "eth1", "arp"];
        let heard = asker.spawn(&argv)?;
        wait_for("tcpdump", CONVERGED, || {
            ensure!(heard.text().contains("listening on"), "{}", heard.text());
            Ok(())
        })?;
        let gateways = GATEWAYS.iter().map(|(gateway, _)| lab.node(gateway));
        Ok(Self {
            gateways: gateways.collect(),
            asker,
            heard,
        })
    }

    /// Asks once; who has answered. Each gateway with power must be able to.
    ///
    /// # Errors
    /// When nobody answers, or a gateway does not answer for itself.
    pub fn ask(&self) -> Result<BTreeSet<String>> {
        let address = standby::EGRESS[0];
        let before = self.heard.text().lines().count();
        self.ask_for(address, before)?;
        // A host answers in the order it is asked in: who has answered for itself has said all it had
        // to say before.
        let alive = self.gateways.iter().filter(|gateway| gateway.is_alive());
        for gateway in alive {
            let [own, _] = standby::own(gateway.name());
            self.ask_for(own, before)?;
        }
        Ok(self.answers(address, before))
    }

    /// Asks until somebody answers.
    fn ask_for(&self, address: IpAddr, before: usize) -> Result<()> {
        let target = address.to_string();
        let argv = ["ip", "neighbour", "flush", "to", &target, "dev", "eth1"];
        self.asker.exec_ok(&argv)?;
        wait_for(&format!("an answer for {target}"), CONVERGED, || {
            // The kernel asks for what it sends to; the ping's own answer is of no matter.
            self.asker.exec(&["ping", "-c1", "-W1", &target])?;
            let is_answered = !self.answers(address, before).is_empty();
            ensure!(is_answered, "{}", self.heard.text());
            Ok(())
        })
    }

    fn answers(&self, address: IpAddr, from: usize) -> BTreeSet<String> {
        let text = self.heard.text();
        let begin = format!("Reply {address} is-at ");
        let answers = text.lines().skip(from).filter_map(|line| {
            let (_, answer) = line.split_once(&begin)?;
            answer.split([',', ' ']).next()
        });
        answers.map(str::to_owned).collect()
    }
}
