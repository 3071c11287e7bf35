// SPDX-License-Identifier: Apache-2.0
//! `BGPPolicy` objects: what they say, for the speaker, and who uses them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp_core::config::{PeerName, PrefixRange};
use bgp_core::policy::{
    Action, AnyCommunity, Change, CommunityKind, CommunityPattern, Condition, NextHopChange,
    NumberRange, Origin, PolicyConfig, PolicyName, Quantifier, RouteOrigin, Statement, Verdict,
};
use ipnet::IpNet;
use router_resources::kinds::{
    self, AsnRange, PolicyAction, PolicyCommunities, PolicyCommunityPatterns, PolicyDefault,
    PolicyFamily, PolicyMatch, PolicyMed, PolicyNextHopMode, PolicyNumbers, PolicyOrigin,
    PolicyPrefix, PolicySet, PolicySource, PolicySpec, PolicyStatement,
};
use router_resources::{Entry, ObjectKey, Snapshot, Statement as Said, parse_address};
use router_types::{Afi, Asn, Family, Safi};

use crate::statements::{Statements, condition_type};

/// The policy objects, and who uses them.
#[derive(Debug)]
pub struct Policies {
    read: BTreeMap<String, (ObjectKey, Result<PolicyConfig, String>)>,
    users: BTreeMap<String, BTreeSet<String>>,
}

impl Policies {
    /// Reads all of them.
    pub fn new(snapshot: &Snapshot) -> Policies {
        let entry = |entry: Entry<'_, PolicySpec>| {
            let config = policy_config(entry.name(), entry.spec);
            (entry.name().to_owned(), (entry.key(), config))
        };
        Policies {
            read: snapshot.policies().map(entry).collect(),
            users: BTreeMap::new(),
        }
    }

    /// The policy a peer names; `user` is `instance/peer`, with what it is used for.
    ///
    /// # Errors
    /// There is no such policy, or it cannot be used: in words.
    pub fn named(&mut self, name: &str, user: &str) -> Result<&PolicyConfig, String> {
        let (_, config) = self
            .read
            .get(name)
            .ok_or_else(|| format!("BGPPolicy/{name} does not exist"))?;
        let users = self.users.entry(name.to_owned()).or_default();
        users.insert(user.to_owned());
        config
            .as_ref()
            .map_err(|error| format!("BGPPolicy/{name} cannot be used: {error}"))
    }

    /// Says of each policy whether it is used.
    pub(crate) fn conclude(&self, statements: &mut Statements) {
        for (name, (key, config)) in &self.read {
            if let Err(error) = config {
                statements.problem(key, condition_type::DEGRADED, "CannotBeUsed", error);
            }
            let statement = match self.users.get(name) {
                Some(users) => {
                    let users: Vec<&str> = users.iter().map(String::as_str).collect();
                    let message = format!("used by {}", users.join(", "));
                    Said::is_true(condition_type::IN_USE, "Referenced", message)
                }
                None => {
                    let message = "no peer of this node names it as its import or export policy";
                    Said::is_false(condition_type::IN_USE, "NotReferenced", message)
                }
            };
            statements.otherwise(key, statement);
        }
    }
}

/// The policy an object describes.
///
/// # Errors
/// What the schema and the rules of the object cannot see, in words.
pub fn policy_config(name: &str, spec: &PolicySpec) -> Result<PolicyConfig, String> {
    let statements: Result<Vec<Statement>, String> = spec
        .statements
        .iter()
        .map(|written| {
            statement(written).map_err(|error| format!("statement {}: {error}", written.name))
        })
        .collect();
    let default = match spec.default_action {
        PolicyDefault::Accept => Verdict::Accept,
        PolicyDefault::Reject => Verdict::Reject,
    };
    PolicyConfig::new(PolicyName(name.to_owned()), statements?, default)
        .map_err(|error| error.to_string())
}

fn statement(written: &PolicyStatement) -> Result<Statement, String> {
    let conditions = match &written.matches {
        Some(matches) => conditions(matches)?,
        None => Vec::new(),
    };
    let changes = match &written.set {
        Some(set) => changes(set)?,
        None => Vec::new(),
    };
    Ok(Statement {
        name: written.name.clone(),
        conditions,
        changes,
        action: match written.action {
            PolicyAction::Accept => Action::Final(Verdict::Accept),
            PolicyAction::Reject => Action::Final(Verdict::Reject),
            PolicyAction::Continue => Action::Continue,
        },
    })
}

fn conditions(matches: &PolicyMatch) -> Result<Vec<Condition>, String> {
    let mut conditions = Vec::new();
    if let Some(prefixes) = &matches.prefixes {
        let range = |entry: &PolicyPrefix| {
            let length = |length: Option<i32>| length.map(u8::try_from).transpose();
            let prefix: IpNet = parsed(&entry.prefix)?;
            let min = length(entry.min_length).map_err(|e| e.to_string())?;
            let max = length(entry.max_length).map_err(|e| e.to_string())?;
            PrefixRange::new(prefix, min, max).map_err(|e| e.to_string())
        };
        let ranges: Result<_, String> = prefixes.iter().map(range).collect();
        conditions.push(Condition::Prefixes(ranges?));
    }
    if let Some(families) = &matches.families {
        let families = families.iter().map(|family| registered(*family));
        conditions.push(Condition::Families(families.collect()));
    }
    if let Some(patterns) = &matches.as_paths {
        let patterns: Result<_, String> = patterns.iter().map(|text| parsed(text)).collect();
        conditions.push(Condition::AsPaths(patterns?));
    }
    if let Some(length) = matches.as_path_length {
        conditions.push(Condition::AsPathLength(numbers(length)?));
    }
    if let Some(ranges) = &matches.origin_asns {
        conditions.push(Condition::OriginAsns(asn_ranges(ranges)?));
    }
    if let Some(ranges) = &matches.neighbor_asns {
        conditions.push(Condition::NeighbourAsns(asn_ranges(ranges)?));
    }
    if let Some(ranges) = &matches.peer_asns {
        conditions.push(Condition::PeerAsns(asn_ranges(ranges)?));
    }
    if let Some(communities) = &matches.communities {
        for (quantifier, patterns) in [
            (Quantifier::Any, &communities.any),
            (Quantifier::All, &communities.all),
            (Quantifier::None, &communities.none),
        ] {
            if let Some(patterns) = patterns {
                let patterns = community_patterns(patterns)?;
                conditions.push(Condition::Communities {
                    quantifier,
                    patterns,
                });
            }
        }
    }
    if let Some(hops) = &matches.next_hops {
        let hops: Result<_, String> = hops.iter().map(|text| address_or_prefix(text)).collect();
        conditions.push(Condition::NextHops(hops?));
    }
    if let Some(origins) = &matches.origins {
        let origins = origins.iter().map(|origin| core_origin(*origin));
        conditions.push(Condition::Origins(origins.collect()));
    }
    if let Some(range) = matches.local_preference {
        conditions.push(Condition::LocalPref(numbers(range)?));
    }
    if let Some(range) = matches.med {
        conditions.push(Condition::Med(numbers(range)?));
    }
    if let Some(sources) = &matches.sources {
        let sources = sources.iter().map(|source| core_source(*source));
        conditions.push(Condition::Sources(sources.collect()));
    }
    if let Some(peers) = &matches.peers {
        let peers = peers.iter().map(|peer| PeerName::from(peer.clone()));
        conditions.push(Condition::Peers(peers.collect()));
    }
    Ok(conditions)
}

fn changes(set: &PolicySet) -> Result<Vec<Change>, String> {
    let mut changes = Vec::new();
    if let Some(value) = set.local_preference {
        changes.push(Change::LocalPref(number(value)?));
    }
    if let Some(med) = &set.med {
        changes.push(med_change(med)?);
    }
    if let Some(communities) = &set.communities {
        community_changes(communities, &mut changes)?;
    }
    if let Some(prepend) = &set.as_path_prepend {
        if let Some(asns) = &prepend.asns {
            let asns: Result<_, String> = asns.iter().map(|asn| number(*asn).map(Asn)).collect();
            changes.push(Change::Prepend(asns?));
        }
        if let Some(count) = prepend.count {
            let count = u8::try_from(count).map_err(|e| e.to_string())?;
            changes.push(Change::PrependOwn(count));
        }
    }
    if let Some(hop) = &set.next_hop {
        let change = match (&hop.address, hop.mode) {
            (Some(text), _) => NextHopChange::Address(parsed::<IpAddr>(text)?),
            (None, Some(PolicyNextHopMode::Own)) => NextHopChange::Own,
            (None, Some(PolicyNextHopMode::Unchanged)) => NextHopChange::Unchanged,
            (None, None) => return Err("nextHop says nothing".to_owned()),
        };
        changes.push(Change::NextHop(change));
    }
    if let Some(origin) = set.origin {
        changes.push(Change::Origin(core_origin(origin)));
    }
    Ok(changes)
}

fn med_change(med: &PolicyMed) -> Result<Change, String> {
    match (med.value, med.add, med.subtract) {
        (Some(value), ..) => Ok(Change::Med(number(value)?)),
        (None, Some(value), _) => Ok(Change::AddMed(number(value)?)),
        (None, None, Some(value)) => Ok(Change::SubtractMed(number(value)?)),
        (None, None, None) => Ok(Change::RemoveMed),
    }
}

/// By kind first `replace`, then `remove`, then `add`.
fn community_changes(
    communities: &PolicyCommunities,
    changes: &mut Vec<Change>,
) -> Result<(), String> {
    let lists = [
        communities.standard.as_ref().map(|change| {
            let kind = CommunityKind::Standard;
            (kind, &change.replace, &change.remove, &change.add)
        }),
        communities.large.as_ref().map(|change| {
            let kind = CommunityKind::Large;
            (kind, &change.replace, &change.remove, &change.add)
        }),
        communities.extended.as_ref().map(|change| {
            let kind = CommunityKind::Extended;
            (kind, &change.replace, &change.remove, &change.add)
        }),
    ];
    for (kind, replace, remove, add) in lists.into_iter().flatten() {
        if let Some(replace) = replace {
            changes.push(Change::ClearCommunities(kind));
            changes.extend(added(kind, replace)?);
        }
        if !remove.is_empty() {
            changes.push(Change::RemoveCommunities(patterns(kind, remove)?));
        }
        changes.extend(added(kind, add)?);
    }
    Ok(())
}

fn added(kind: CommunityKind, texts: &[String]) -> Result<Option<Change>, String> {
    let communities: Result<Vec<AnyCommunity>, String> = texts
        .iter()
        .map(|text| AnyCommunity::parse(kind, text).map_err(|e| format!("'{text}': {e}")))
        .collect();
    let communities = communities?;
    Ok((!communities.is_empty()).then_some(Change::AddCommunities(communities)))
}

fn community_patterns(written: &PolicyCommunityPatterns) -> Result<Vec<CommunityPattern>, String> {
    let mut all = patterns(CommunityKind::Standard, &written.standard)?;
    all.extend(patterns(CommunityKind::Large, &written.large)?);
    all.extend(patterns(CommunityKind::Extended, &written.extended)?);
    Ok(all)
}

fn patterns(kind: CommunityKind, texts: &[String]) -> Result<Vec<CommunityPattern>, String> {
    let read = |text: &String| {
        CommunityPattern::parse(kind, text).map_err(|error| format!("'{text}': {error}"))
    };
    texts.iter().map(read).collect()
}

fn asn_ranges(written: &[AsnRange]) -> Result<Vec<NumberRange>, String> {
    let range = |range: &AsnRange| {
        let bounds = range.bounds();
        bounds
            .and_then(|(min, max)| NumberRange::new(min, max))
            .ok_or_else(|| format!("{range:?} is no range of AS numbers"))
    };
    written.iter().map(range).collect()
}

fn numbers(written: PolicyNumbers) -> Result<NumberRange, String> {
    let min = number(written.min.unwrap_or(0))?;
    let max = number(written.max.unwrap_or(u32::MAX.into()))?;
    NumberRange::new(min, max).ok_or_else(|| format!("min {min} is above max {max}"))
}

fn number(value: i64) -> Result<u32, String> {
    u32::try_from(value).map_err(|_| format!("{value} is not between 0 and 4294967295"))
}

fn address_or_prefix(text: &str) -> Result<IpNet, String> {
    match parse_address(text) {
        Some((address, _)) => Ok(address.into()),
        None => parsed(text),
    }
}

fn parsed<T: std::str::FromStr>(text: &str) -> Result<T, String>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error| format!("'{text}': {error}"))
}

/// The numbers of a family in the registries ("Address Family Numbers", "SAFI Namespace").
fn registered(family: PolicyFamily) -> Family {
    let afi = match family.afi {
        kinds::Afi::Ipv4 => 1,
        kinds::Afi::Ipv6 => 2,
        kinds::Afi::L2vpn => 25,
        kinds::Afi::Ls => 16388,
        kinds::Afi::Opaque => 16397,
    };
    let safi = match family.safi {
        kinds::Safi::Unicast => 1,
        kinds::Safi::Multicast => 2,
        kinds::Safi::MplsLabel => 4,
        kinds::Safi::Encapsulation => 7,
        kinds::Safi::Vpls => 65,
        kinds::Safi::Evpn => 70,
        kinds::Safi::Ls => 71,
        kinds::Safi::SrPolicy => 73,
        kinds::Safi::Mup => 85,
        kinds::Safi::MplsVpn => 128,
        kinds::Safi::MplsVpnMulticast => 129,
        kinds::Safi::RouteTargetConstraints => 132,
        kinds::Safi::FlowspecUnicast => 133,
        kinds::Safi::FlowspecVpn => 134,
        kinds::Safi::KeyValue => 241,
    };
    Family {
        afi: Afi(afi),
        safi: Safi(safi),
    }
}

fn core_origin(origin: PolicyOrigin) -> Origin {
    match origin {
        PolicyOrigin::Igp => Origin::Igp,
        PolicyOrigin::Egp => Origin::Egp,
        PolicyOrigin::Incomplete => Origin::Incomplete,
    }
}

fn core_source(source: PolicySource) -> RouteOrigin {
    match source {
        PolicySource::PodCidr => RouteOrigin::PodCidr,
        PolicySource::PodIpPool => RouteOrigin::PodIpPool,
        PolicySource::Service => RouteOrigin::Service,
        PolicySource::Interface => RouteOrigin::Interface,
        PolicySource::Aggregate => RouteOrigin::Aggregate,
        PolicySource::Ebgp => RouteOrigin::External,
        PolicySource::Ibgp => RouteOrigin::Internal,
    }
}
