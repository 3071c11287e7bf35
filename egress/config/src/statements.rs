// SPDX-License-Identifier: Apache-2.0
//! Collecting what is to be said about policies: one condition of each type, problems joined.

use std::collections::BTreeMap;

use egress_core::{PolicyId, PolicyKind};
use router_resources::{Kind, ObjectKey, Statement};

/// The types of conditions this crate makes. All but [`IN_USE`](condition_type::IN_USE) are there
/// only while they are true.
pub mod condition_type {
    /// On every policy: whether it selects pods of this node, or this node may be its gateway.
    pub const IN_USE: &str = "causeway.io/InUse";
    /// A gateway of the policy matches no node.
    pub const NO_MATCHING_NODE: &str = "causeway.io/NoMatchingNode";
    /// No pod of this node is selected; nothing is wrong.
    pub const NO_MATCHING_POD: &str = "causeway.io/NoMatchingPod";
    /// Whether some pods of this node are selected is not known, since their labels are not. They
    /// send nothing to the destinations.
    pub const UNDECIDED: &str = "causeway.io/Undecided";
    /// This node may be the gateway, and does not have the device or it is down.
    pub const INTERFACE_MISSING: &str = "causeway.io/InterfaceMissing";
    /// This node may be the gateway, and its devices do not have the address; or the policy has
    /// none of a family it has destinations of.
    pub const ADDRESS_MISSING: &str = "causeway.io/AddressMissing";
    /// Another policy has an equal destination for a pod of this node. Says which one wins.
    pub const OVERLAPS: &str = "causeway.io/Overlaps";
    /// Another policy holds an address of this one.
    pub const SHARED_ADDRESS: &str = "causeway.io/SharedAddress";
    /// All addresses of the pool are drawn by other policies.
    pub const POOL_EXHAUSTED: &str = "causeway.io/PoolExhausted";
    /// The policy names a BFDProfile that does not exist.
    pub const MISSING_BFD_PROFILE: &str = "causeway.io/MissingBFDProfile";
    /// This node may be a gateway, and what keeps connections alive when one dies is not set up.
    pub const UNGUARDED: &str = "causeway.io/Unguarded";
    /// The policy asks for what Causeway does not do.
    pub const NOT_PROVIDED: &str = "causeway.io/NotProvided";
}

/// Problems by object and condition type, in the order they were found.
#[derive(Debug, Default)]
pub(crate) struct Statements {
    problems: BTreeMap<(ObjectKey, &'static str), (&'static str, Vec<String>)>,
    in_use: BTreeMap<(ObjectKey, &'static str), Statement>,
}

impl Statements {
    /// Notes that something is the case; said twice, the messages are joined.
    pub(crate) fn problem(
        &mut self,
        id: &PolicyId,
        kind: &'static str,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let (_, messages) = self
            .problems
            .entry((key(id), kind))
            .or_insert_with(|| (reason, Vec::new()));
        let message = message.into();
        if !messages.contains(&message) {
            messages.push(message);
        }
    }

    /// Notes whether the policy has an effect here.
    pub(crate) fn in_use(&mut self, id: &PolicyId, statement: Statement) {
        self.in_use
            .insert((key(id), statement.condition_type), statement);
    }

    /// All statements, in order of objects and types.
    pub(crate) fn finish(self) -> Vec<(ObjectKey, Statement)> {
        let mut all = self.in_use;
        for ((key, kind), (reason, messages)) in self.problems {
            let statement = Statement::is_true(kind, reason, messages.join("; "));
            all.insert((key, kind), statement);
        }
        all.into_iter()
            .map(|((key, _), statement)| (key, statement))
            .collect()
    }
}

/// The object of a policy.
pub fn key(id: &PolicyId) -> ObjectKey {
    let kind = match id.kind {
        PolicyKind::Cilium => Kind::CiliumEgressPolicy,
        PolicyKind::Causeway => Kind::EgressPolicy,
    };
    ObjectKey::cluster_wide(kind, id.name.clone())
}

/// Names in a message: three of them and how many more there are.
pub(crate) fn some_of<T: ToString>(names: impl IntoIterator<Item = T>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
    match names.as_slice() {
        [shown @ .., _] if shown.len() < 3 => names.join(", "),
        [first, second, third, rest @ ..] => {
            format!("{first}, {second}, {third} and {} more", rest.len())
        }
        _ => String::new(),
    }
}
