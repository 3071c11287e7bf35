// SPDX-License-Identifier: Apache-2.0
//! Egress addresses that are on no segment, and that the router knows of by BGP alone: from the
//! gateway that holds them, and from the one that stands by.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context, Result, ensure};
use harness::{
    CONVERGED, Lab, causeway, egress, firewall,
    frr::Offer,
    guide::adapted,
    pod::Pod,
    routed::{self, EGRESS, Forced, holds, not_routed_to, routed_to},
    standby::{self, Cut, copied, linked, seen_at},
    talks::Talks,
    wait_for,
};

/// The router on the firewall's segment.
const ROUTER: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 168, 60, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x192, 0x168, 0x60, 0, 0, 0, 1)),
];

#[test]
fn addresses_that_bgp_announces_move_with_their_connections() -> Result<()> {
    let lab = routed::up("routed")?;
    through_it_all(&lab).with_context(|| {
        let nodes = ["gw1", "gw2", "node1"].map(|node| lab.node(node));
        let routes = ["ipv4", "ipv6"].map(|family| {
            let command = format!("show bgp {family} unicast");
            let said = lab.node("tor").exec(&["vtysh", "-c", &command]);
            said.map_or_else(|error| error.to_string(), |said| said.stdout)
        });
        nodes.map(seen_at).join("\n") + &routes.join("\n")
    })
}

fn through_it_all(lab: &Lab) -> Result<()> {
    let pod = Pod::add_to(lab.node("node1"), "shop", "billing-1")?;
    let mut talks = Talks::default();
    talks.add(&pod)?;
    let mut now = settled(lab, &talks)?;
    told(lab, &now)?;
    marked(lab, &now)?;

    // Who holds the address answers for it, whoever asks.
    for address in EGRESS {
        let said = pinged(lab, &address.to_string())?;
        ensure!(said.contains(" 0% packet loss"), "{said}");
    }
    // A fabric that does not heed the MED: answers come to the gateway that stands by.
    let forced = Forced::by(lab, standby::other(&now))?;
    talks.go_on("by the standby")?;
    talks.add(&pod)?;
    // What belongs to no connection ends there: it does not circle until its TTL is used up, and
    // nobody hears of it from another address.
    for address in EGRESS {
        let said = pinged(lab, &address.to_string())?;
        ensure!(said.contains(" 100% packet loss"), "{said}");
        ensure!(!said.contains("From "), "{said}");
    }
    ensure!(routed::holder(lab)?.as_ref() == Some(&now), "nothing moves");
    forced.end()?;
    now = settled(lab, &talks)?;

    // An operator wants it away.
    let drained = lab.node(&now);
    drained.exec_ok(&["causeway", "drain", "--detach", "--reason", "new disks"])?;
    holds(lab, standby::other(&now))?;
    talks.go_on("with the holder drained")?;
    wait_for("no way by the drained gateway", CONVERGED, || {
        not_routed_to(lab, &now)
    })?;
    talks.go_on("with no way by the drained gateway")?;
    drained.exec_ok(&["causeway", "undrain"])?;
    now = settled(lab, &talks)?;

    // Everything it sends and gets is lost, as of a hung kernel.
    let hung = Cut::whole(lab.node(&now))?;
    let next = standby::other(&now);
    holds_alone(lab, next)?;
    talks.go_on("with the holder hung")?;
    talks.add(&pod)?;
    hung.mend()?;
    linked(lab)?;
    now = settled(lab, &talks)?;
    talks.go_on("with the former holder back")?;

    // It hears no other node, and the router hears it.
    let isolated = Cut::from_nodes(lab, &now)?;
    let next = standby::other(&now);
    holds(lab, next)?;
    wait_for("no way by who is cut off", CONVERGED, || {
        not_routed_to(lab, &now)
    })?;
    talks.go_on("with the holder cut off")?;
    isolated.mend()?;
    linked(lab)?;
    now = settled(lab, &talks)?;

    // Its power is cut.
    let next = standby::other(&now);
    lab.node(&now).power_off()?;
    wait_for("the other gateway", CONVERGED, || {
        ensure!(standby::has(lab.node(next), EGRESS)?, "{next} has none");
        Ok(())
    })?;
    talks.go_on("without the gateway's power")?;
    talks.finish()?;

    // While the router takes away a way that is gone it says so itself, by ICMP, to the server.
    let mut refused = firewall::refused(lab.node("firewall"))?;
    refused.retain(|(source, _), _| !ROUTER.contains(source));
    ensure!(refused.is_empty(), "the firewall refused {refused:?}");
    Ok(())
}

/// Waits until one gateway has the addresses, the other every connection, and the router knows
/// both ways. Which has them.
fn settled(lab: &Lab, talks: &Talks) -> Result<String> {
    wait_for(
        "a holder, copies at the other, and routes",
        CONVERGED,
        || {
            let holder = routed::holder(lab)?.context("nobody has the addresses, or both")?;
            copied(lab, standby::other(&holder), talks)?;
            routed_to(lab, &holder)?;
            Ok(holder)
        },
    )
}

/// Waits until a gateway has the addresses while the other, which is not heard, still has them.
fn holds_alone(lab: &Lab, gateway: &str) -> Result<()> {
    wait_for(
        &format!("{gateway} to have the addresses"),
        CONVERGED,
        || {
            ensure!(standby::has(lab.node(gateway), EGRESS)?, "it has none");
            Ok(())
        },
    )
}

/// What gateways tell an operator.
fn told(lab: &Lab, holder: &str) -> Result<()> {
    let standby = standby::other(holder);
    for (node, stands_by, med) in [(holder, false, 10), (standby, true, 200)] {
        let rules = causeway::items(lab.node(node), "egress rules")?;
        let [rule] = rules.as_slice() else {
            anyhow::bail!("{rules:#?}");
        };
        ensure!(rule["standsBy"] == stands_by, "{rule:#}");
        ensure!(rule["ready"] == stands_by, "{rule:#}");
        ensure!(rule["holder"] == holder, "{rule:#}");
        let command = "bgp routes advertised ipv4 unicast peer tor-v4";
        let routes = causeway::items(lab.node(node), command)?;
        let prefix = format!("{}/32", EGRESS[0]);
        let route = routes.iter().find(|route| route["prefix"] == prefix);
        let route = route.with_context(|| format!("{routes:#?}"))?;
        ensure!(route["attributes"]["med"] == med, "{route:#}");
    }
    Ok(())
}

/// A fabric whose policy goes by communities can tell who stands by.
fn marked(lab: &Lab, holder: &str) -> Result<()> {
    let path = egress::resources(lab)?.join("policies.yaml");
    let before = fs::read_to_string(path)?;
    let med = "standbyMED: 200";
    let with_mark = format!("{med}\n      standbyCommunities: {{ standard: [\"65001:61\"] }}");
    egress::write(
        lab,
        "policies.yaml",
        &adapted(&before, &[(med, &with_mark)])?,
    )?;
    let communities = |offers: [Option<Offer>; 2]| {
        offers.map(|offer| offer.map(|offer| offer.communities).unwrap_or_default())
    };
    wait_for("the router to see who stands by", CONVERGED, || {
        let of_standby = communities(routed::offers_of(lab, standby::other(holder))?);
        ensure!(of_standby == [["65001:61"]; 2], "{of_standby:?}");
        Ok(())
    })?;
    let of_holder = communities(routed::offers_of(lab, holder)?);
    ensure!(of_holder == [["65001:60"]; 2], "{of_holder:?}");
    egress::write(lab, "policies.yaml", &before)?;
    wait_for("the router to have them as before", CONVERGED, || {
        routed::routed_to(lab, holder)
    })
}

/// What `ping` of the router says of an address.
fn pinged(lab: &Lab, address: &str) -> Result<String> {
    let ping = ["ping", "-c", "2", "-i", "0.2", "-W", "1", address];
    Ok(lab.node("tor").exec(&ping)?.stdout)
}
