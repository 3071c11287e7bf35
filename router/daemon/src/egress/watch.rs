// SPDX-License-Identifier: Apache-2.0
//! How this node watches the other gateways of its policies, and what is missing for that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp_bfd::profile::Profile;
use egress_config::{Compiled, ProbeTarget, condition_type};
use egress_core::{PolicyId, World};
use egress_io::node::{Probe, Target, Watch};
use router_resources::{ObjectKey, Statement};

/// How this node watches other gateways, and what there is to say about that.
#[derive(Default)]
pub struct Watched {
    /// The sessions, by node.
    pub watches: BTreeMap<String, Watch>,
    /// BFDProfiles and the policies that name them.
    pub users: Vec<(String, String)>,
    /// About policies whose gateways are not watched.
    pub statements: Vec<(ObjectKey, Statement)>,
}

/// The BFD sessions with the other gateways of policies this node may be a gateway of. Where two
/// policies name different profiles for one node, that of the first counts.
pub fn watches(
    compiled: &Compiled,
    profile: impl Fn(&str) -> Result<Profile, String>,
    has_secret: bool,
) -> Watched {
    let world = &compiled.world;
    let mut watched = Watched::default();
    for policy in &world.policies {
        let nodes: BTreeSet<&String> = policy.groups.iter().flat_map(|g| &g.nodes).collect();
        if !nodes.contains(&world.node) {
            continue;
        }
        let health = compiled.health.get(&policy.id);
        let name = health.and_then(|health| health.bfd_profile.as_deref());
        if policy.can_move() && nodes.len() > 1 {
            let missing = missing(has_secret, name.is_some());
            let key = egress_config::key(&policy.id);
            watched
                .statements
                .extend(missing.map(|missing| (key, missing)));
        }
        let Some(name) = name else {
            continue;
        };
        watched.users.push((name.to_owned(), policy.id.to_string()));
        let profile = match profile(name) {
            Ok(profile) => profile,
            Err(error) => {
                let kind = condition_type::MISSING_BFD_PROFILE;
                let statement = Statement::is_true(kind, "CannotBeUsed", error);
                let key = egress_config::key(&policy.id);
                watched.statements.push((key, statement));
                continue;
            }
        };
        for other in nodes.into_iter().filter(|node| **node != world.node) {
            if let Some((local, peer)) = pair(world, other)
                && !watched.watches.contains_key(other)
            {
                let profile = profile.clone();
                let watch = Watch {
                    peer,
                    local,
                    profile,
                };
                watched.watches.insert(other.clone(), watch);
            }
        }
    }
    watched
}

/// What gateways of policies have to reach.
pub fn probes(compiled: &Compiled) -> BTreeMap<PolicyId, Probe> {
    let probes = compiled.health.iter().filter_map(|(id, health)| {
        let probe = health.probe.as_ref()?;
        let probe = Probe {
            target: match probe.target {
                ProbeTarget::Tcp(address) => Target::Tcp(address),
                ProbeTarget::Icmp(address) => Target::Icmp(address),
            },
            interval: probe.interval,
            timeout: probe.timeout,
            failure_threshold: probe.failure_threshold,
        };
        Some((id.clone(), probe))
    });
    probes.collect()
}

/// The addresses this node and another speak by: IPv4 if both have it.
fn pair(world: &World, other: &str) -> Option<(IpAddr, IpAddr)> {
    let addresses = |node: &str| world.nodes.get(node).map(|node| node.addresses.as_slice());
    let (own, others) = (addresses(&world.node)?, addresses(other)?);
    [true, false].into_iter().find_map(|is_v4| {
        let first = |of: &[IpAddr]| of.iter().find(|a| a.is_ipv4() == is_v4).copied();
        Some((first(own)?, first(others)?))
    })
}

/// What keeps connections from surviving their gateway.
fn missing(has_secret: bool, has_bfd: bool) -> Option<Statement> {
    let (reason, message) = match (has_secret, has_bfd) {
        (true, true) => return None,
        (false, _) => (
            "NoSecretFile",
            "this node has no egress.secretFile: it speaks to no other gateway, and connections do not \
             survive a change of the gateway",
        ),
        (true, false) => (
            "NoBFD",
            "health.bfdProfileRef is not set: a gateway that dies is not replaced until its Node object \
             has the taint node.kubernetes.io/out-of-service",
        ),
    };
    let kind = condition_type::UNGUARDED;
    Some(Statement::is_true(kind, reason, message))
}

#[cfg(test)]
mod tests {
    use egress_config::Health;

    use super::*;
    use crate::egress::testing;

    fn compiled(profile: Option<&str>) -> Compiled {
        let world = (*testing::view().world).clone();
        let health = profile.map(|profile| Health {
            bfd_profile: Some(profile.to_owned()),
            probe: None,
        });
        Compiled {
            health: health
                .map(|h| (testing::id("web"), h))
                .into_iter()
                .collect(),
            world,
            ..Compiled::default()
        }
    }

    #[test]
    fn each_other_gateway_of_a_policy_is_watched_by_its_profile() {
        let profile = |name: &str| match name {
            "fast" => Ok(Profile::default()),
            other => Err(format!("BFDProfile/{other} does not exist")),
        };
        let watched = watches(&compiled(Some("fast")), profile, true);
        let nodes: Vec<&String> = watched.watches.keys().collect();
        assert_eq!(nodes, ["node-b"]);
        let user = ("fast".to_owned(), "EgressGatewayPolicy/web".to_owned());
        assert_eq!(watched.users, [user]);
        assert!(watched.statements.is_empty(), "{:?}", watched.statements);
        let watched = watches(&compiled(Some("slow")), profile, true);
        assert!(watched.watches.is_empty());
        let (_, statement) = &watched.statements[0];
        assert_eq!(statement.message, "BFDProfile/slow does not exist");
    }

    #[test]
    fn a_policy_says_what_keeps_its_connections_from_surviving() {
        let reason = |profile: Option<&str>, has_secret| {
            let profiles = |_: &str| Ok(Profile::default());
            let watched = watches(&compiled(profile), profiles, has_secret);
            let mut statements = watched.statements.into_iter();
            statements.next().map(|(_, statement)| statement.reason)
        };
        assert_eq!(reason(Some("fast"), true), None);
        assert_eq!(reason(None, true), Some("NoBFD"));
        assert_eq!(reason(Some("fast"), false), Some("NoSecretFile"));
    }
}
