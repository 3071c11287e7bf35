// SPDX-License-Identifier: Apache-2.0
//! The topology `paths`: one node that passes routes on between FRR, BIRD 2, BIRD 3 and GoBGP, and
//! whose resources tests write anew for each step.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use lab_runner::{Lab, wait_for};
use serde_json::Value;

use crate::{BgpPath, CONVERGED, Family, bird, causeway, frr, gobgp, lab, root};

/// The node's peers, by the names of their nodes.
pub const PEERS: [&str; 4] = ["frr", "bird2", "bird3", "gobgp"];

/// What the resources say beyond what the topology's always do.
#[derive(Default)]
pub struct Written<'a> {
    /// A line of the instance.
    pub instance: &'a str,
    /// Lines of peers' sessions and of their IPv4 family.
    pub peers: &'a [(&'a str, &'a str, &'a str)],
    /// A line of the pods' advertisement.
    pub advertisement: &'a str,
    /// More objects, with their separators.
    pub objects: &'a str,
}

/// Brings the topology up, with all sessions.
///
/// # Errors
/// When a session does not come up.
pub fn up(test: &str) -> Result<Lab> {
    let lab = lab("paths", test)?;
    established(&lab, &PEERS)?;
    Ok(lab)
}

/// Waits until the sessions with these peers are up.
///
/// # Errors
/// When one does not come up.
pub fn established(lab: &Lab, peers: &[&str]) -> Result<()> {
    for peer in peers {
        wait_for(peer, CONVERGED, || {
            causeway::established(lab.node("node1"), peer)
        })?;
    }
    Ok(())
}

/// The lab's own copy of the topology's folder.
///
/// # Errors
/// When it has none.
pub fn files(lab: &Lab) -> Result<PathBuf> {
    let files = lab.files().context("the lab has a copy of its files")?;
    Ok(files.to_owned())
}

/// Writes the resources with one peer's session as given.
///
/// # Errors
/// As [`write`].
pub fn with_peer(lab: &Lab, peer: &str, session: &str) -> Result<()> {
    let written = Written {
        peers: &[(peer, session, "")],
        ..Written::default()
    };
    write(lab, &written)
}

/// Writes the resources: those of the topology, with what is asked for.
///
/// # Errors
/// When a file cannot be written, or the topology is not what this takes it for.
pub fn write(lab: &Lab, wanted: &Written<'_>) -> Result<()> {
    let folder = files(lab)?.join("resources.d");
    for (file, text) in texts(wanted)? {
        // At once: a half of it is a resource, too.
        let path = folder.join(file);
        let beside = path.with_extension("new");
        fs::write(&beside, text)?;
        fs::rename(&beside, &path)?;
    }
    Ok(())
}

/// What [`write`] writes, by the names of the files.
///
/// # Errors
/// When the topology is not what this takes it for.
pub fn texts(wanted: &Written<'_>) -> Result<Vec<(&'static str, String)>> {
    let pristine = root()?.join("lab/containerlab/paths/resources.d");
    let insert = |file: &str, after: &str, line: &str| -> Result<String> {
        let text = fs::read_to_string(pristine.join(file))?;
        let (head, tail) = text.split_once(after).context("as the topology has it")?;
        Ok(format!("{head}{after}{line}\n{tail}"))
    };
    let instance = format!("      {}", wanted.instance);
    let cluster = insert("cluster.yaml", "transit: true\n", &instance)?;
    let attributes = format!("      {}", wanted.advertisement);
    let node = insert("node.yaml", "advertisementType: PodCIDR\n", &attributes)?;

    let mut peers = fs::read_to_string(pristine.join("peers.yaml"))?;
    for (peer, session, family) in wanted.peers {
        let mut parts: Vec<String> = peers.split("---\n").map(str::to_owned).collect();
        let named = format!("name: {peer} }}");
        let part = parts.iter_mut().find(|part| part.contains(&named));
        let part = part.with_context(|| format!("no peer {peer}"))?;
        if !family.is_empty() {
            let lines = part.lines().filter(|line| {
                let default = line.contains("import:") && family.contains("import:");
                let client = line.contains("routeReflectorClient") || line.contains("addPath");
                !default && !client
            });
            *part = lines.map(|line| format!("{line}\n")).collect();
            part.push_str(&format!("      {family}\n"));
        }
        if session.contains("timers:") {
            let lines = part.lines().filter(|line| !line.contains("timers:"));
            *part = lines.map(|line| format!("{line}\n")).collect();
        }
        *part = part.replacen("spec:\n", &format!("spec:\n  {session}\n"), 1);
        peers = parts.join("---\n");
    }
    peers.push_str(wanted.objects);
    Ok(vec![
        ("cluster.yaml", cluster),
        ("node.yaml", node),
        ("peers.yaml", peers),
    ])
}

/// The cluster's configuration with FRR no longer named, but taken by the listen range `rack`.
///
/// # Errors
/// When the topology is not what this takes it for.
pub fn frr_by_range(cluster: &str, prefix: &str) -> Result<String> {
    let (head, tail) = cluster
        .split_once("        - name: frr\n")
        .context("FRR is first")?;
    let (_, tail) = tail
        .split_once("        - name: bird2\n")
        .context("then BIRD 2")?;
    let range = format!(
        "      listenRanges:\n        \
         - {{ name: rack, prefix: {prefix}, peerConfigRef: {{ name: frr }} }}\n"
    );
    let head = head.replacen("      peers:\n", &format!("{range}      peers:\n"), 1);
    Ok(format!("{head}        - name: bird2\n{tail}"))
}

/// All paths a speaker has for a prefix of either family.
///
/// # Errors
/// As the speaker's own.
pub fn at(lab: &Lab, speaker: &str, prefix: &str) -> Result<Vec<BgpPath>> {
    let node = lab.node(speaker);
    let family = match prefix.contains(':') {
        true => Family::Ipv6,
        false => Family::Ipv4,
    };
    match speaker {
        "frr" => frr::paths(node, family, prefix),
        "gobgp" => gobgp::paths(node, family, prefix),
        _ => bird::paths(node, prefix),
    }
}

/// Waits until a speaker has a path of these AS numbers and this next hop for a prefix.
///
/// # Errors
/// When it does not come to have it.
pub fn seen(lab: &Lab, speaker: &str, prefix: &str, path: &[u32], hop: &str) -> Result<()> {
    wait_for(
        &format!("{prefix} at {speaker} as {path:?} by {hop}"),
        CONVERGED,
        || {
            let all = at(lab, speaker, prefix)?;
            let is_it =
                |found: &BgpPath| found.as_path == path && found.next_hops.iter().any(|h| h == hop);
            ensure!(all.iter().any(is_it), "{all:?}");
            Ok(())
        },
    )
}

/// Waits until a speaker has no path for exactly this prefix.
///
/// # Errors
/// When it keeps one.
pub fn unseen(lab: &Lab, speaker: &str, prefix: &str) -> Result<()> {
    wait_for(
        &format!("{prefix} to be gone at {speaker}"),
        CONVERGED,
        || {
            let all = at(lab, speaker, prefix)?;
            ensure!(all.is_empty(), "{all:?}");
            Ok(())
        },
    )
}

/// Waits until the node says of a neighbour's route that it is rejected, and why.
///
/// # Errors
/// When it does not.
pub fn rejected(lab: &Lab, peer: &str, prefix: &str, why: &str) -> Result<()> {
    wait_for(
        &format!("{prefix} of {peer} to be rejected"),
        CONVERGED,
        || {
            let command = format!("bgp routes filtered ipv4 unicast peer {peer}");
            let all = causeway::items(lab.node("node1"), &command)?;
            let found = all.iter().find(|route| route["prefix"] == prefix);
            let text = found.map_or_else(String::new, Value::to_string);
            ensure!(text.contains(why), "{all:#?}");
            Ok(())
        },
    )
}

/// Waits until the node's kernel has a route for exactly this prefix with these words; none for no
/// words.
///
/// # Errors
/// When it does not.
pub fn in_kernel(lab: &Lab, prefix: &str, words: &str) -> Result<()> {
    let family = if prefix.contains(':') { "-6" } else { "-4" };
    wait_for(
        &format!("{prefix} {words} in the kernel"),
        CONVERGED,
        || {
            let argv = ["ip", family, "route", "show", "exact", prefix];
            let text = lab.node("node1").exec_ok(&argv)?;
            ensure!(text.trim().is_empty() == words.is_empty(), "{text}");
            ensure!(text.contains(words), "{text}");
            Ok(())
        },
    )
}

/// Succeeds when every session is the first with its peer.
///
/// # Errors
/// When one was established more than once.
pub fn nobody_was_reset(lab: &Lab) -> Result<()> {
    for peer in PEERS {
        let found = causeway::peer(lab.node("node1"), peer)?;
        ensure!(found["established-count"] == 1, "{found:#}");
    }
    Ok(())
}
