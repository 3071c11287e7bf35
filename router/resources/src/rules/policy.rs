// SPDX-License-Identifier: Apache-2.0
//! Rules of `BGPPolicy`.

use router_types::AsPathPattern;

use super::{Rules, parse_address};
use crate::kinds::{
    AsnRange, PolicyAction, PolicyCommunities, PolicyMatch, PolicyNumbers, PolicyPrefix, PolicySet,
    PolicySpec, PolicyStatement,
};
use crate::path::Path;

/// Statements that are never tried, because one before them takes every route, and why.
pub(crate) fn unreachable(spec: &PolicySpec) -> Vec<(Path, String)> {
    let takes_all = |statement: &PolicyStatement| {
        let nothing = PolicyMatch::default();
        let matches = statement.matches.as_ref();
        statement.action != PolicyAction::Continue && matches.is_none_or(|m| *m == nothing)
    };
    let Some(last) = spec.statements.iter().position(takes_all) else {
        return Vec::new();
    };
    let name = &spec.statements[last].name;
    let path = Path::root("spec").join("statements");
    let behind = last + 1..spec.statements.len();
    behind
        .map(|at| {
            let why = format!("is never tried: statement '{name}' before it takes every route");
            (path.join(at), why)
        })
        .collect()
}

impl Rules {
    pub(super) fn bgp_policy(&mut self, spec: &PolicySpec, path: &Path) {
        for (index, statement) in spec.statements.iter().enumerate() {
            let path = path.join("statements").join(index);
            if let Some(matches) = &statement.matches {
                self.policy_match(matches, &path.join("match"));
            }
            if let Some(set) = &statement.set {
                let path = path.join("set");
                if statement.action == PolicyAction::Reject {
                    self.broken(path.clone(), "set is not allowed with action Reject");
                }
                self.policy_set(set, &path);
            }
        }
    }

    fn policy_match(&mut self, matches: &PolicyMatch, path: &Path) {
        let prefixes = matches.prefixes.iter().flatten().enumerate();
        for (index, entry) in prefixes {
            self.policy_prefix(entry, &path.join("prefixes").join(index));
        }
        for (index, text) in matches.as_paths.iter().flatten().enumerate() {
            if let Err(error) = text.parse::<AsPathPattern>() {
                self.invalid(
                    path.join("asPaths").join(index),
                    format!("'{text}' is not a pattern over AS paths: {error}"),
                    "examples: ^$ (own routes), _65001_ (through AS 65001), ^65001( 65001)*$ (of the neighbour itself)",
                );
            }
        }
        for (field, ranges) in [
            ("originASNs", &matches.origin_asns),
            ("neighborASNs", &matches.neighbor_asns),
            ("peerASNs", &matches.peer_asns),
        ] {
            for (index, range) in ranges.iter().flatten().enumerate() {
                self.asn_range(range, path.join(field).join(index));
            }
        }
        for (field, numbers) in [
            ("asPathLength", matches.as_path_length),
            ("localPreference", matches.local_preference),
            ("med", matches.med),
        ] {
            self.numbers(numbers, path.join(field));
        }
        for (index, text) in matches.next_hops.iter().flatten().enumerate() {
            let path = path.join("nextHops").join(index);
            if text.contains('/') {
                self.prefix(text, path);
            } else {
                self.address(Some(text), path);
            }
        }
        if let Some(communities) = &matches.communities {
            let path = path.join("communities");
            let lists = [
                ("any", &communities.any),
                ("all", &communities.all),
                ("none", &communities.none),
            ];
            if lists.iter().all(|(_, list)| list.is_none()) {
                self.broken(path.clone(), "one of any, all, none is required");
            }
            for (field, patterns) in lists {
                let Some(patterns) = patterns else { continue };
                let path = path.join(field);
                if patterns.is_empty() {
                    let message = "one of standard, large, extended with an entry is required";
                    self.broken(path.clone(), message);
                }
                self.community_ranges(&patterns.standard, &path.join("standard"));
                self.community_ranges(&patterns.large, &path.join("large"));
                self.community_ranges(&patterns.extended, &path.join("extended"));
            }
        }
    }

    fn policy_prefix(&mut self, entry: &PolicyPrefix, path: &Path) {
        let Some(prefix) = self.prefix(&entry.prefix, path.join("prefix")) else {
            return;
        };
        let own = i32::from(prefix.prefix_len());
        let widest = i32::from(prefix.max_prefix_len());
        let min = entry.min_length.unwrap_or(own);
        let max = entry.max_length.unwrap_or(min);
        if !(own <= min && min <= max && max <= widest) {
            let message = format!(
                "minLength {min} and maxLength {max} must be in order between the prefix's own \
                 length {own} and {widest}"
            );
            self.broken(path.clone(), message);
        }
    }

    pub(super) fn asn_range(&mut self, range: &AsnRange, path: Path) {
        if let Some((min, max)) = range.bounds()
            && min > max
        {
            let help = format!("did you mean '{max}-{min}'?");
            self.invalid(path, format!("{min}-{max} holds no AS number"), &help);
        }
    }

    fn numbers(&mut self, numbers: Option<PolicyNumbers>, path: Path) {
        let Some(numbers) = numbers else { return };
        match (numbers.min, numbers.max) {
            (None, None) => self.broken(path, "min or max is required"),
            (Some(min), Some(max)) if min > max => {
                self.broken(path, format!("min {min} is above max {max}"));
            }
            _ => {}
        }
    }

    /// Ranges within patterns: the schema sees that they are numbers, not that they are in order.
    fn community_ranges(&mut self, patterns: &[String], path: &Path) {
        for (index, text) in patterns.iter().enumerate() {
            let backwards = text
                .split(':')
                .filter_map(|part| part.split_once('-'))
                .find_map(|(min, max)| {
                    let (min, max): (u32, u32) = (min.parse().ok()?, max.parse().ok()?);
                    (min > max).then(|| format!("{max}-{min}"))
                });
            if let Some(other) = backwards {
                let message = format!("'{text}' has a range that holds no number");
                let help = format!("did you mean '{other}'?");
                self.invalid(path.join(index), message, &help);
            }
        }
    }

    fn policy_set(&mut self, set: &PolicySet, path: &Path) {
        if let Some(med) = &set.med {
            let path = path.join("med");
            let given = [
                med.value.is_some(),
                med.add.is_some(),
                med.subtract.is_some(),
                med.remove.is_some(),
            ];
            if given.iter().filter(|given| **given).count() != 1 {
                let message = "exactly one of value, add, subtract, remove is required";
                self.broken(path, message);
            } else if med.remove == Some(false) {
                self.broken(path.join("remove"), "only true is allowed here");
            }
        }
        if let Some(prepend) = &set.as_path_prepend
            && prepend.count.is_some() == prepend.asns.is_some()
        {
            let message = "exactly one of count and asns is required";
            self.broken(path.join("asPathPrepend"), message);
        }
        if let Some(hop) = &set.next_hop {
            let path = path.join("nextHop");
            if hop.address.is_some() == hop.mode.is_some() {
                let message = "exactly one of address and mode is required";
                self.broken(path.clone(), message);
            }
            let parsed = hop.address.as_deref().and_then(parse_address);
            if let (Some(text), None) = (&hop.address, parsed) {
                self.invalid(
                    path.join("address"),
                    format!("'{text}' is not an IP address"),
                    "allowed: an address such as 192.0.2.1 or 2001:db8::1",
                );
            }
        }
        if let Some(communities) = &set.communities {
            self.removals(communities, &path.join("communities"));
        }
    }

    fn removals(&mut self, communities: &PolicyCommunities, path: &Path) {
        let standard = communities.standard.as_ref().map(|change| &change.remove);
        let large = communities.large.as_ref().map(|change| &change.remove);
        let extended = communities.extended.as_ref().map(|change| &change.remove);
        for (kind, patterns) in [
            ("standard", standard),
            ("large", large),
            ("extended", extended),
        ] {
            if let Some(patterns) = patterns {
                self.community_ranges(patterns, &path.join(kind).join("remove"));
            }
        }
    }
}
