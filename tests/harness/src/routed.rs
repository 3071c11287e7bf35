// SPDX-License-Identifier: Apache-2.0
//! The lab of egress gateways with the guide's policy `billing-routed`: its addresses are on no
//! segment, and the router knows where they are by BGP alone.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context, Result, ensure};
use lab_runner::{Lab, wait_for};

use crate::{
    CONVERGED, Family, egress, firewall,
    frr::{self, Offer},
    guide::{adapted, manifest},
    standby,
};

/// The addresses of the policy.
pub const EGRESS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xe, 0, 0, 0, 0, 0x10)),
];

/// The addresses of the gateways that the router talks to.
const PEERS: [(&str, [&str; 2]); 2] = [
    ("gw1", ["172.16.11.2", "fd00:172:16:11::2"]),
    ("gw2", ["172.16.12.2", "fd00:172:16:12::2"]),
];

/// What the policy says of its holder's and its standby's routes.
const MED: (u64, u64) = (10, 200);
const COMMUNITY: &str = "65001:60";

/// BFD with the router. Slow enough for a busy machine.
const PROFILE: &str = "---
apiVersion: causeway.io/v1alpha1
kind: BFDProfile
metadata: { name: router }
spec:
  transmitIntervalMilliseconds: 200
  receiveIntervalMilliseconds: 200
  detectMultiplier: 5
";

/// The lab with the policy in force, a firewall that lets its addresses pass, gateways that hear each
/// other, and BFD between all nodes and the router.
///
/// # Errors
/// As [`egress::up`], and when the gateways do not link.
pub fn up(test: &str) -> Result<Lab> {
    let lab = egress::up(test)?;
    firewall::accept_only(lab.node("firewall"), EGRESS)?;
    let tor = lab.node("tor");
    let mut lines = vec![
        "bfd",
        "profile nodes",
        "transmit-interval 200",
        "receive-interval 200",
        "detect-multiplier 5",
        "exit",
        "exit",
        "router bgp 65101",
    ];
    for group in ["nodes", "nodes6"] {
        lines.extend(match group {
            "nodes" => ["neighbor nodes bfd", "neighbor nodes bfd profile nodes"],
            _ => ["neighbor nodes6 bfd", "neighbor nodes6 bfd profile nodes"],
        });
    }
    frr::configure(tor, &lines)?;
    let file = |name: &str| {
        let path = egress::resources(&lab)?.join(name);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let peers = adapted(
        &file("peers.yaml")?,
        &[
            (
                "apiVersion: cilium.io/v2\nkind: CiliumBGPPeerConfig",
                "apiVersion: causeway.io/v1alpha1\nkind: BGPPeerConfig",
            ),
            ("spec:\n", "spec:\n  bfdProfileRef: { name: router }\n"),
        ],
    )?;
    egress::write(&lab, "peers.yaml", &(peers + PROFILE))?;
    let reference = |name: &str| {
        (
            format!("peerConfigRef: {{ name: {name} }}"),
            format!("peerConfigRef: {{ group: causeway.io, kind: BGPPeerConfig, name: {name} }}"),
        )
    };
    let references = ["fabric-v4", "fabric-v6"].map(reference);
    let words = references
        .each_ref()
        .map(|(from, to)| (from.as_str(), to.as_str()));
    egress::write(
        &lab,
        "cluster.yaml",
        &adapted(&file("cluster.yaml")?, &words)?,
    )?;
    for (gateway, addresses) in PEERS {
        for address in addresses {
            let what = format!("BFD of the router with {gateway}");
            let watched = wait_for(&what, CONVERGED, || {
                let peers = frr::show(tor, &format!("bfd peer {address}"))?;
                ensure!(peers["status"] == "up", "{peers:#}");
                frr::established(tor, address)
            });
            watched.with_context(|| {
                let said = lab.node(gateway).exec(&["causeway", "bfd", "sessions"]);
                let said = said.map_or_else(|error| error.to_string(), |said| said.stdout);
                said + &lab.node(gateway).log_tail()
            })?;
        }
    }
    let shared = manifest("egress.md", "gateways")?;
    let profile = shared
        .split("---\n")
        .nth(1)
        .context("the guide's BFD profile")?;
    let policies = manifest("egress.md", "billing-routed")? + "---\n" + profile;
    egress::write(&lab, "policies.yaml", &policies)?;
    standby::linked(&lab)?;
    Ok(lab)
}

/// Who has the addresses; none if nobody or both have.
///
/// # Errors
/// As [`standby::has_address`].
pub fn holder(lab: &Lab) -> Result<Option<String>> {
    standby::holder_of(lab, EGRESS)
}

/// Waits until one gateway alone has the addresses.
///
/// # Errors
/// When it does not come to that.
pub fn holds(lab: &Lab, gateway: &str) -> Result<()> {
    let what = format!("{gateway} alone to have the addresses");
    wait_for(&what, CONVERGED, || {
        let holder = holder(lab)?;
        ensure!(holder.as_deref() == Some(gateway), "{holder:?}");
        Ok(())
    })
}

/// What the router hears of the addresses from a gateway, of each family.
///
/// # Errors
/// When FRR does not say.
pub fn offers_of(lab: &Lab, gateway: &str) -> Result<[Option<Offer>; 2]> {
    let found = PEERS.iter().find(|(name, _)| *name == gateway);
    let (_, [v4, v6]) = found.with_context(|| format!("{gateway} is no gateway"))?;
    let offer = |family, address: IpAddr, peer: &str| {
        let mut offers = frr::offers(lab.node("tor"), family, &address.to_string())?;
        anyhow::Ok(offers.remove(peer))
    };
    Ok([
        offer(Family::Ipv4, EGRESS[0], v4)?,
        offer(Family::Ipv6, EGRESS[1], v6)?,
    ])
}

/// Succeeds when the router uses the holder's routes and has the standby's besides.
///
/// # Errors
/// When it does not.
pub fn routed_to(lab: &Lab, holder: &str) -> Result<()> {
    let offer = |med, is_used| {
        Some(Offer {
            med: Some(med),
            communities: vec![COMMUNITY.to_owned()],
            is_used,
        })
    };
    let of_holder = offers_of(lab, holder)?;
    let of_standby = offers_of(lab, standby::other(holder))?;
    let wanted = [offer(MED.0, true), offer(MED.0, true)];
    ensure!(of_holder == wanted, "of {holder}: {of_holder:?}");
    let wanted = [offer(MED.1, false), offer(MED.1, false)];
    ensure!(of_standby == wanted, "of the standby: {of_standby:?}");
    Ok(())
}

/// Succeeds when the router has heard nothing of the addresses from a gateway.
///
/// # Errors
/// When it has.
pub fn not_routed_to(lab: &Lab, gateway: &str) -> Result<()> {
    let offers = offers_of(lab, gateway)?;
    ensure!(offers == [None, None], "{offers:?}");
    Ok(())
}

/// The router sends by a gateway whatever BGP says, until [`Forced::end`].
pub struct Forced<'a>(&'a Lab, [Vec<String>; 2]);

impl<'a> Forced<'a> {
    /// By this one.
    ///
    /// # Errors
    /// When the router refuses the routes.
    pub fn by(lab: &'a Lab, gateway: &str) -> Result<Self> {
        let found = PEERS.iter().find(|(name, _)| *name == gateway);
        let (_, peers) = found.with_context(|| format!("{gateway} is no gateway"))?;
        let route = |family: &str, address: IpAddr, peer: &str| {
            let words = format!("{address} via {peer} metric 1");
            let words = words.split(' ').map(str::to_owned);
            let route = [family.to_owned(), "route".to_owned()].into_iter();
            route.chain(words).collect::<Vec<_>>()
        };
        let routes = [
            route("-4", EGRESS[0], peers[0]),
            route("-6", EGRESS[1], peers[1]),
        ];
        let forced = Forced(lab, routes);
        forced.each("add")?;
        Ok(forced)
    }

    /// As BGP says again.
    ///
    /// # Errors
    /// When the routes are gone.
    pub fn end(self) -> Result<()> {
        self.each("delete")
    }

    fn each(&self, what: &str) -> Result<()> {
        let Forced(lab, routes) = self;
        for route in routes {
            let mut argv = vec!["ip", &route[0], &route[1], what];
            argv.extend(route[2..].iter().map(String::as_str));
            lab.node("tor").exec_ok(&argv)?;
        }
        Ok(())
    }
}
