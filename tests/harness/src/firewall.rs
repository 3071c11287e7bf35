// SPDX-License-Identifier: Apache-2.0
//! What the firewall and the server of `lab/containerlab/egress` have seen.

use std::{collections::BTreeMap, fs, net::IpAddr};

use anyhow::{Context, Result, ensure};
use lab_runner::Node;
use serde_json::Value;

use crate::{guide::adapted, root};

/// Packets the firewall refused, by source and destination.
///
/// # Errors
/// When nft fails or its answer has another form.
pub fn refused(firewall: &Node) -> Result<BTreeMap<(IpAddr, IpAddr), u64>> {
    let mut refused = BTreeMap::new();
    for set in ["refused4", "refused6"] {
        let answer = list(firewall, "set", set)?;
        let elements = answer["elem"].as_array().into_iter().flatten();
        for element in elements.map(|element| &element["elem"]) {
            let ends = &element["val"]["concat"];
            let end = |index: usize| -> Option<IpAddr> { ends[index].as_str()?.parse().ok() };
            let found = || Some(((end(0)?, end(1)?), element["counter"]["packets"].as_u64()?));
            let (ends, packets) = found().with_context(|| format!("an element: {element}"))?;
            refused.insert(ends, packets);
        }
    }
    Ok(refused)
}

/// Lets these addresses pass in the place of those of the lab's file, and forgets what was refused.
///
/// # Errors
/// When nft refuses the rules.
pub fn accept_only(firewall: &Node, addresses: [IpAddr; 2]) -> Result<()> {
    let path = root()?.join("lab/containerlab/egress/firewall/rules.nft");
    let rules = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let [v4, v6] = addresses.map(|address| address.to_string());
    let words = [
        ("192.168.60.100", v4.as_str()),
        ("fd00:192:168:60::100", &v6),
    ];
    let rules = adapted(&rules, &words)?;
    let rules = format!("delete table inet firewall\n{rules}");
    let output = firewall.exec_with_input(&["nft", "-f", "-"], rules.as_bytes())?;
    ensure!(output.success(), "{rules}: {}", output.stderr);
    Ok(())
}

/// Packets a counter of the firewall has: `passed` or `refused`.
///
/// # Errors
/// As [`refused`].
pub fn counted(firewall: &Node, counter: &str) -> Result<u64> {
    let answer = list(firewall, "counter", counter)?;
    let packets = answer["packets"].as_u64();
    packets.with_context(|| format!("a counter: {answer}"))
}

/// Has the firewall let these addresses and prefixes of one family pass as well.
///
/// # Errors
/// When nft refuses them.
pub fn allow(firewall: &Node, sources: &[&str]) -> Result<()> {
    let is_v6 = sources.iter().any(|source| source.contains(':'));
    let family = if is_v6 { "ip6" } else { "ip" };
    let sources = sources.join(", ");
    let rule = format!("insert rule inet firewall forward {family} saddr {{ {sources} }} accept");
    let output = firewall.exec_with_input(&["nft", "-f", "-"], rule.as_bytes())?;
    ensure!(output.success(), "{rule}: {}", output.stderr);
    Ok(())
}

/// Has the firewall forget what it has refused.
///
/// # Errors
/// When nft fails.
pub fn forget(firewall: &Node) -> Result<()> {
    for set in ["refused4", "refused6"] {
        firewall.exec_ok(&["nft", "flush", "set", "inet", "firewall", set])?;
    }
    Ok(())
}

/// Who the server says has asked, by protocol: `tcp`, `http` or `udp`, in order of time.
///
/// # Errors
/// When its log has another form.
pub fn clients(server: &Node) -> Result<Vec<(String, IpAddr)>> {
    let log = server.log();
    let lines = log.lines().filter(|line| {
        let protocol = line.split(' ').next();
        matches!(protocol, Some("tcp" | "http" | "udp"))
    });
    let client = |line: &str| -> Option<(String, IpAddr)> {
        let (protocol, address) = line.split_once(' ')?;
        let address = address.trim_matches(['[', ']']).parse().ok()?;
        Some((protocol.to_owned(), address))
    };
    lines
        .map(|line| client(line).with_context(|| format!("the server's log: {line}")))
        .collect()
}

/// One object of the firewall's table.
fn list(firewall: &Node, kind: &str, name: &str) -> Result<Value> {
    let answer = firewall.exec_json(&["nft", "-j", "list", kind, "inet", "firewall", name])?;
    let objects = answer["nftables"].as_array().into_iter().flatten();
    let mut found = objects.filter_map(|object| object.get(kind));
    found
        .next()
        .cloned()
        .with_context(|| format!("{kind} {name}: {answer}"))
}
