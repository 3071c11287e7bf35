// SPDX-License-Identifier: Apache-2.0
//! The lab of egress gateways with the guide's policy `billing-standby`: two gateways that stand by
//! for each other, who holds its addresses, and packets that are lost silently.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, bail, ensure};
use lab_runner::{Lab, Node, wait_for};

use crate::{CONVERGED, causeway, egress, guide, talks::Talks};

/// The addresses the policy's gateway holds.
pub const EGRESS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 168, 60, 100)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x192, 0x168, 0x60, 0, 0, 0, 0x100)),
];

/// The gateways' addresses for each other.
pub const GATEWAYS: [(&str, &str); 2] = [("gw1", "10.0.0.11"), ("gw2", "10.0.0.12")];

/// The lab with the policy in force and gateways that hear each other.
///
/// # Errors
/// As [`egress::up`], and when the gateways do not link.
pub fn up(test: &str) -> Result<Lab> {
    up_with(test, &guide::manifest("egress.md", "billing-standby")?)
}

/// The same with other policies that hold the addresses.
///
/// # Errors
/// As [`up`].
pub fn up_with(test: &str, policies: &str) -> Result<Lab> {
    let lab = egress::up(test)?;
    put_in_force(&lab, policies)?;
    Ok(lab)
}

/// Puts the policy in force in a lab of the topology that is up.
///
/// # Errors
/// As [`up`].
pub fn in_force(lab: &Lab) -> Result<()> {
    put_in_force(lab, &guide::manifest("egress.md", "billing-standby")?)
}

/// The same with other policies that hold the addresses.
///
/// # Errors
/// As [`up`].
pub fn put_in_force(lab: &Lab, policies: &str) -> Result<()> {
    let gw1 = lab.node("gw1");
    for (address, length) in EGRESS.into_iter().zip([24, 64]) {
        let address = format!("{address}/{length}");
        gw1.exec_ok(&["ip", "address", "delete", &address, "dev", "eth2"])?;
    }
    egress::write(lab, "policies.yaml", policies)?;
    linked(lab)
}

/// Waits until the gateways hear each other, both ways.
///
/// # Errors
/// When they do not.
pub fn linked(lab: &Lab) -> Result<()> {
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
///
/// # Errors
/// When it does not see it.
pub fn unheard(lab: &Lab) -> Result<()> {
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

/// The addresses a gateway has itself towards the firewall.
pub fn own(gateway: &str) -> [IpAddr; 2] {
    let last = if gateway == GATEWAYS[0].0 { 0x11 } else { 0x12 };
    let v4 = Ipv4Addr::new(192, 168, 60, if last == 0x11 { 11 } else { 12 });
    let v6 = Ipv6Addr::new(0xfd00, 0x192, 0x168, 0x60, 0, 0, 0, last);
    [v4.into(), v6.into()]
}

/// The gateway that is not this one.
pub fn other(gateway: &str) -> &'static str {
    let [(one, _), (another, _)] = GATEWAYS;
    if gateway == one { another } else { one }
}

fn is_gateway(name: &str) -> bool {
    GATEWAYS.iter().any(|(gateway, _)| *gateway == name)
}

/// Whether a node has the addresses.
///
/// # Errors
/// When `ip` fails, or it has one of them.
pub fn has_address(node: &Node) -> Result<bool> {
    has(node, EGRESS)
}

/// The same of other addresses.
///
/// # Errors
/// As [`has_address`].
pub fn has(node: &Node, addresses: [IpAddr; 2]) -> Result<bool> {
    let listed = node.exec_ok(&["ip", "-o", "address", "show"])?;
    let has = |address: IpAddr| listed.contains(&format!(" {address}/"));
    let [v4, v6] = addresses.map(has);
    if v4 != v6 {
        bail!("{} has one of two addresses", node.name());
    }
    Ok(v4)
}

/// Who has the addresses; none if nobody or both have.
///
/// # Errors
/// As [`has_address`].
pub fn holder(lab: &Lab) -> Result<Option<String>> {
    holder_of(lab, EGRESS)
}

/// The same of other addresses.
///
/// # Errors
/// As [`has_address`].
pub fn holder_of(lab: &Lab, addresses: [IpAddr; 2]) -> Result<Option<String>> {
    let mut holders = Vec::new();
    for (gateway, _) in GATEWAYS {
        if has(lab.node(gateway), addresses)? {
            holders.push(gateway.to_owned());
        }
    }
    Ok(holders.pop().filter(|_| holders.is_empty()))
}

/// Waits until one gateway alone has the addresses.
///
/// # Errors
/// When it does not come to that.
pub fn holds(lab: &Lab, gateway: &str) -> Result<()> {
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

/// Waits until either gateway alone has the addresses; which.
///
/// # Errors
/// When it does not come to that.
pub fn one_holds(lab: &Lab) -> Result<String> {
    wait_for("one gateway to have the addresses", CONVERGED, || {
        holder(lab)?.context("none or both")
    })
}

/// Waits until a gateway that stands by has every connection.
///
/// # Errors
/// When it does not get them.
pub fn has_copies(lab: &Lab, gateway: &str, talks: &Talks) -> Result<()> {
    let what = format!("copies at {gateway}");
    wait_for(&what, CONVERGED, || copied(lab, gateway, talks))
}

/// Succeeds when a gateway has every connection.
///
/// # Errors
/// When it has not.
pub fn copied(lab: &Lab, gateway: &str, talks: &Talks) -> Result<()> {
    let mappings = causeway::items(lab.node(gateway), "egress nat --protocol tcp")?;
    for talk in talks.all() {
        let own = talk.own().to_string();
        let found = mappings.iter().find(|mapping| mapping["pod"] == own);
        let mapping = found.with_context(|| format!("{own} is not in {mappings:#?}"))?;
        ensure!(mapping["state"] == "established", "{mapping:#}");
    }
    Ok(())
}

/// What a node says of itself, for when something went wrong.
pub fn seen_at(node: &Node) -> String {
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

/// Packets that are lost silently.
pub struct Cut<'a> {
    node: &'a Node,
}

impl<'a> Cut<'a> {
    /// All that a gateway sends and gets.
    ///
    /// # Errors
    /// When nft refuses the rules.
    pub fn whole(node: &'a Node) -> Result<Self> {
        Self::of(node, &["eth1", "eth2"])
    }

    /// All that a node sends and gets by some devices.
    ///
    /// # Errors
    /// As [`Cut::whole`].
    pub fn of(node: &'a Node, devices: &[&str]) -> Result<Self> {
        let chain = |hook: &str, device: &str| {
            format!(
                "chain {hook}-{device} {{ type filter hook {hook} device {device} priority -500\n\
                 policy drop\n}}\n"
            )
        };
        let mut rules = "table netdev cut {\n".to_owned();
        for device in devices {
            rules += &chain("ingress", device);
            rules += &chain("egress", device);
        }
        Self::make(node, &(rules + "}\n"))
    }

    /// Between the gateways, at the router.
    ///
    /// # Errors
    /// As [`Cut::whole`].
    pub fn between_gateways(lab: &'a Lab) -> Result<Self> {
        let [(_, one), (_, other)] = GATEWAYS;
        let rules = format!(
            "table ip cut {{\nchain forward {{\ntype filter hook forward priority 0\n\
             ip saddr {one} ip daddr {other} drop\nip saddr {other} ip daddr {one} drop\n}}\n}}\n"
        );
        Self::make(lab.node("tor"), &rules)
    }

    /// Between a gateway and all other nodes, at the router, which hears it.
    ///
    /// # Errors
    /// As [`Cut::whole`].
    pub fn from_nodes(lab: &'a Lab, gateway: &str) -> Result<Self> {
        let found = GATEWAYS.iter().find(|(name, _)| *name == gateway);
        let (_, address) = found.with_context(|| format!("{gateway} is no gateway"))?;
        let rules = format!(
            "table ip cut {{\nchain forward {{\ntype filter hook forward priority 0\n\
             ip saddr {address} ip daddr 10.0.0.0/24 drop\n\
             ip saddr 10.0.0.0/24 ip daddr {address} drop\n}}\n}}\n"
        );
        Self::make(lab.node("tor"), &rules)
    }

    /// All that gateways and pods' nodes tell each other, at the router; what pods send passes.
    ///
    /// # Errors
    /// As [`Cut::whole`].
    pub fn words(lab: &'a Lab) -> Result<Self> {
        // TCP of the links, and BFD over several hops (RFC 5883 §5).
        let rules = "table inet cut {\nchain forward {\ntype filter hook forward priority 0\n\
                     tcp dport 4796 drop\ntcp sport 4796 drop\nudp dport 4784 drop\n}\n}\n";
        Self::make(lab.node("tor"), rules)
    }

    fn make(node: &'a Node, rules: &str) -> Result<Self> {
        let output = node.exec_with_input(&["nft", "-f", "-"], rules.as_bytes())?;
        ensure!(output.success(), "{rules}: {}", output.stderr);
        Ok(Self { node })
    }

    /// Takes the rules away again.
    ///
    /// # Errors
    /// When they are gone already.
    pub fn mend(self) -> Result<()> {
        let tables = self.node.exec_ok(&["nft", "list", "tables"])?;
        let table = tables.lines().find(|line| line.ends_with(" cut"));
        let table = table.context("the table of the cut")?;
        let mut argv = vec!["nft", "delete"];
        argv.extend(table.split_whitespace());
        self.node.exec_ok(&argv).map(drop)
    }
}
