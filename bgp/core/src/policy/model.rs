// SPDX-License-Identifier: Apache-2.0
//! What a policy says, valid by construction.

use std::fmt;
use std::net::IpAddr;

use bgp_wire::{Community, CommunityParseError, ExtendedCommunity, LargeCommunity, Origin};
use ipnet::IpNet;
use router_types::{AsPathPattern, Asn, Family};
use serde::{Deserialize, Serialize};

use super::community::{CommunityPattern, GRACEFUL_SHUTDOWN};
use super::form;
use crate::config::{PeerName, PrefixRange};
use crate::serial;

/// Most statements of a policy: what a [`super::Decision`] has room for.
pub const MAX_STATEMENTS: usize = 128;

/// Most AS numbers one statement puts in front of a path. Arbitrary; far more than anybody needs
/// to make a path unattractive, far less than a message holds.
pub const MAX_PREPEND: usize = 64;

/// The name of a policy, unique on the node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PolicyName(pub String);

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for PolicyName {
    fn from(name: &str) -> Self {
        PolicyName(name.to_owned())
    }
}

/// What happens to a route in the end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Verdict {
    /// It is taken, or sent.
    Accept,
    /// It is not.
    #[default]
    Reject,
}

/// What happens to a route that a statement matches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Action {
    /// No later statement is looked at.
    Final(Verdict),
    /// The changes are noted, and the next statement is looked at.
    Continue,
}

/// Numbers from one to another, both included.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct NumberRange {
    min: u32,
    max: u32,
}

impl NumberRange {
    /// Every number.
    pub const ALL: NumberRange = NumberRange {
        min: 0,
        max: u32::MAX,
    };

    /// From `min` to `max`; `None` when there is no number between.
    pub const fn new(min: u32, max: u32) -> Option<NumberRange> {
        if min <= max {
            Some(NumberRange { min, max })
        } else {
            None
        }
    }

    /// One number.
    pub const fn only(number: u32) -> NumberRange {
        NumberRange {
            min: number,
            max: number,
        }
    }

    /// Whether a number is in the range.
    pub const fn contains(self, number: u32) -> bool {
        self.min <= number && number <= self.max
    }

    /// The least number.
    pub const fn min(self) -> u32 {
        self.min
    }

    /// The greatest number.
    pub const fn max(self) -> u32 {
        self.max
    }
}

impl fmt::Display for NumberRange {
    /// `*`, `100`, `64512-65534`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == NumberRange::ALL {
            f.write_str("*")
        } else if self.min == self.max {
            write!(f, "{}", self.min)
        } else {
            write!(f, "{}-{}", self.min, self.max)
        }
    }
}

/// Where a route comes from.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub enum RouteOrigin {
    /// A pod prefix of this node.
    #[default]
    PodCidr,
    /// A prefix this node holds of a pool of pod addresses.
    PodIpPool,
    /// An address of a service.
    Service,
    /// An address of an interface.
    Interface,
    /// An aggregate this node makes of other routes.
    Aggregate,
    /// A neighbour in another AS.
    External,
    /// A neighbour in this AS.
    Internal,
}

impl RouteOrigin {
    /// Every value and its name in manifests.
    pub const NAMES: [(RouteOrigin, &'static str); 7] = [
        (RouteOrigin::PodCidr, "PodCIDR"),
        (RouteOrigin::PodIpPool, "CiliumPodIPPool"),
        (RouteOrigin::Service, "Service"),
        (RouteOrigin::Interface, "Interface"),
        (RouteOrigin::Aggregate, "Aggregate"),
        (RouteOrigin::External, "EBGP"),
        (RouteOrigin::Internal, "IBGP"),
    ];

    /// Whether the route was learned from a neighbour.
    pub fn is_learned(self) -> bool {
        matches!(self, RouteOrigin::External | RouteOrigin::Internal)
    }
}

impl fmt::Display for RouteOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = Self::NAMES.iter().find(|(value, _)| value == self);
        f.write_str(known.map_or("", |(_, name)| name))
    }
}

/// How many of the patterns a route's communities must match.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Quantifier {
    /// At least one.
    Any,
    /// Each.
    All,
    /// Not one.
    None,
}

/// One thing a route must be. All look at the route as it came to the policy, whatever earlier
/// statements change. Lists mean "any of"; an empty list holds for nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Condition {
    /// The prefix is in one of the ranges.
    Prefixes(Vec<PrefixRange>),
    /// The route is of one of the families.
    Families(#[serde(with = "form::families")] Vec<Family>),
    /// One of the patterns matches the AS path. A route without one has the empty path.
    AsPaths(#[serde(with = "serial::texts")] Vec<AsPathPattern>),
    /// The length of the AS path as the decision process counts it (RFC 4271 §9.1.2.2 a).
    AsPathLength(NumberRange),
    /// The last AS of the path, in which the route began. A path that is empty or ends in a set
    /// has none.
    OriginAsns(Vec<NumberRange>),
    /// The first AS of the path. A path that is empty or begins with a set has none.
    NeighbourAsns(Vec<NumberRange>),
    /// The AS of the neighbour the policy stands before.
    PeerAsns(Vec<NumberRange>),
    /// How the patterns fare against the route's communities.
    Communities {
        /// How many must match.
        quantifier: Quantifier,
        /// The patterns.
        patterns: Vec<CommunityPattern>,
    },
    /// The next hop as announced lies in one of the prefixes. Routes of the node itself have none.
    NextHops(#[serde(with = "serial::texts")] Vec<IpNet>),
    /// The ORIGIN attribute.
    Origins(#[serde(with = "form::origins")] Vec<Origin>),
    /// LOCAL_PREF; 100 where it is absent, as for the decision process.
    LocalPref(NumberRange),
    /// MULTI_EXIT_DISC; 0 where it is absent (RFC 4271 §9.1.2.2 c).
    Med(NumberRange),
    /// Where the route comes from.
    Sources(Vec<RouteOrigin>),
    /// The neighbour the route was learned from. Routes of the node itself have none.
    Peers(Vec<PeerName>),
}

impl Condition {
    /// Whether the prefix decides, and nothing else.
    pub(super) fn is_about_prefix(&self) -> bool {
        matches!(self, Condition::Prefixes(_))
    }
}

/// A community of any kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum AnyCommunity {
    /// RFC 1997.
    Standard(Community),
    /// RFC 8092.
    Large(LargeCommunity),
    /// RFC 4360.
    Extended(ExtendedCommunity),
}

impl AnyCommunity {
    /// Reads a community of a kind.
    ///
    /// # Errors
    /// Says what is expected.
    pub fn parse(kind: CommunityKind, text: &str) -> Result<AnyCommunity, CommunityParseError> {
        match kind {
            CommunityKind::Standard if text == GRACEFUL_SHUTDOWN => {
                Ok(AnyCommunity::Standard(Community::GRACEFUL_SHUTDOWN))
            }
            CommunityKind::Standard => text.parse().map(AnyCommunity::Standard),
            CommunityKind::Large => text.parse().map(AnyCommunity::Large),
            CommunityKind::Extended => text.parse().map(AnyCommunity::Extended),
        }
    }
}

impl fmt::Display for AnyCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnyCommunity::Standard(community) => community.fmt(f),
            AnyCommunity::Large(community) => community.fmt(f),
            AnyCommunity::Extended(community) => community.fmt(f),
        }
    }
}

/// A kind of communities.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum CommunityKind {
    /// RFC 1997.
    Standard,
    /// RFC 8092.
    Large,
    /// RFC 4360.
    Extended,
}

/// What a next hop becomes. The session's own rule (RFC 4271 §5.1.3) goes for what says nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum NextHopChange {
    /// This address.
    Address(IpAddr),
    /// This end of the session. On import there is no meaning to it, and it changes nothing.
    Own,
    /// What was received, even towards another AS.
    Unchanged,
}

/// One change to a route. Changes apply in the order of statements, and within a statement in the
/// order of its list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Change {
    /// Sets LOCAL_PREF.
    LocalPref(u32),
    /// Sets MULTI_EXIT_DISC.
    Med(u32),
    /// Adds to MULTI_EXIT_DISC, from 0 where it is absent, to 4294967295 at most.
    AddMed(u32),
    /// Takes from MULTI_EXIT_DISC, from 0 where it is absent, to 0 at least.
    SubtractMed(u32),
    /// Removes MULTI_EXIT_DISC.
    RemoveMed,
    /// Removes all communities of a kind.
    ClearCommunities(CommunityKind),
    /// Removes the communities any of the patterns match.
    RemoveCommunities(Vec<CommunityPattern>),
    /// Adds communities.
    AddCommunities(#[serde(with = "form::communities")] Vec<AnyCommunity>),
    /// Puts these AS numbers in front of the AS path, the first one foremost.
    Prepend(#[serde(with = "form::asns")] Vec<Asn>),
    /// Puts the own AS number in front of the AS path this many times.
    PrependOwn(u8),
    /// Sets the next hop.
    NextHop(NextHopChange),
    /// Sets ORIGIN.
    Origin(#[serde(with = "form::origin")] Origin),
}

/// One statement: what it is for, what it does.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Statement {
    /// Its name, unique in the policy.
    pub name: String,
    /// All of these must hold. None: it matches every route.
    pub conditions: Vec<Condition>,
    /// What is changed in a route that is accepted in the end.
    pub changes: Vec<Change>,
    /// What happens then.
    pub action: Action,
}

/// A policy: its statements in their order, and what becomes of a route that no final statement
/// matches.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyConfig {
    name: PolicyName,
    statements: Vec<Statement>,
    default: Verdict,
}

/// Why a policy is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PolicyError {
    /// There are more statements than a decision can name.
    #[error("policy {policy} has {count} statements: at most {MAX_STATEMENTS} are possible")]
    TooManyStatements {
        /// The policy.
        policy: PolicyName,
        /// How many.
        count: usize,
    },
    /// Two statements have one name.
    #[error("policy {policy}: two statements are called {statement}: names must differ")]
    DuplicateStatement {
        /// The policy.
        policy: PolicyName,
        /// The name.
        statement: String,
    },
    /// A statement rejects what it changes.
    #[error(
        "policy {policy}: statement {statement} changes a route and rejects it: do one of both"
    )]
    ChangesRejected {
        /// The policy.
        policy: PolicyName,
        /// The statement.
        statement: String,
    },
    /// A statement has more than one list of prefix ranges.
    #[error("policy {policy}: statement {statement} has several lists of prefixes: write one")]
    SeveralPrefixLists {
        /// The policy.
        policy: PolicyName,
        /// The statement.
        statement: String,
    },
    /// A statement makes AS paths longer than is good for anything.
    #[error(
        "policy {policy}: statement {statement} prepends {count} AS numbers: at most {MAX_PREPEND} are possible"
    )]
    TooLongPrepend {
        /// The policy.
        policy: PolicyName,
        /// The statement.
        statement: String,
        /// How many.
        count: usize,
    },
}

impl PolicyConfig {
    /// Takes statements in their order.
    ///
    /// # Errors
    /// [`PolicyError`] says which.
    pub fn new(
        name: PolicyName,
        statements: Vec<Statement>,
        default: Verdict,
    ) -> Result<PolicyConfig, PolicyError> {
        let config = PolicyConfig {
            name,
            statements,
            default,
        };
        config.check()?;
        Ok(config)
    }

    /// Whether all is as [`PolicyConfig::new`] demands; a policy from a recording may not be.
    pub(super) fn check(&self) -> Result<(), PolicyError> {
        let policy = || self.name.clone();
        let count = self.statements.len();
        if count > MAX_STATEMENTS {
            return Err(PolicyError::TooManyStatements {
                policy: policy(),
                count,
            });
        }
        for (index, statement) in self.statements.iter().enumerate() {
            let named = || statement.name.clone();
            if self.statements[..index]
                .iter()
                .any(|other| other.name == statement.name)
            {
                return Err(PolicyError::DuplicateStatement {
                    policy: policy(),
                    statement: named(),
                });
            }
            if statement.action == Action::Final(Verdict::Reject) && !statement.changes.is_empty() {
                return Err(PolicyError::ChangesRejected {
                    policy: policy(),
                    statement: named(),
                });
            }
            let about_prefix = statement.conditions.iter().filter(|c| c.is_about_prefix());
            if about_prefix.count() > 1 {
                return Err(PolicyError::SeveralPrefixLists {
                    policy: policy(),
                    statement: named(),
                });
            }
            let prepended = |change: &Change| match change {
                Change::Prepend(asns) => asns.len(),
                Change::PrependOwn(count) => usize::from(*count),
                _ => 0,
            };
            let count = statement.changes.iter().map(prepended).sum();
            if count > MAX_PREPEND {
                return Err(PolicyError::TooLongPrepend {
                    policy: policy(),
                    statement: named(),
                    count,
                });
            }
        }
        Ok(())
    }

    /// Its name.
    pub fn name(&self) -> &PolicyName {
        &self.name
    }

    /// Its statements, in order.
    pub fn statements(&self) -> &[Statement] {
        &self.statements
    }

    /// What becomes of a route that no final statement matches.
    pub fn default_verdict(&self) -> Verdict {
        self.default
    }
}
