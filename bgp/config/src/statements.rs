// SPDX-License-Identifier: Apache-2.0
//! Collecting what is to be said about objects: one condition of each type, problems joined.

use std::collections::BTreeMap;

use router_resources::{ObjectKey, Statement};

/// The types of conditions this crate makes.
pub mod condition_type {
    /// On a cluster configuration: no known node is selected.
    pub const NO_MATCHING_NODE: &str = "cilium.io/NoMatchingNode";
    /// On a cluster configuration: a peer names a peer configuration that does not exist.
    pub const MISSING_PEER_CONFIGS: &str = "cilium.io/MissingPeerConfigs";
    /// On a cluster configuration: another one selects this node too.
    pub const CONFLICTING_CLUSTER_CONFIG: &str = "cilium.io/ConflictingClusterConfig";
    /// On a peer configuration: the Secret, its key or its content is missing.
    pub const MISSING_AUTH_SECRET: &str = "cilium.io/MissingAuthSecret";
    /// On every BGP object: whether it has an effect on this node.
    pub const IN_USE: &str = "causeway.io/InUse";
    /// On every BGP object in use: whether a part of it cannot be done, and why.
    pub const DEGRADED: &str = "causeway.io/Degraded";
    /// On objects that ask for what this version does not do.
    pub const NOT_PROVIDED: &str = "causeway.io/NotProvided";
    /// On what is written to be advertised, or looks as if it were, and is not: families and
    /// advertisements without a selector or without a match, interfaces that are not there.
    pub const NOT_ADVERTISED: &str = "causeway.io/NotAdvertised";
}

/// Problems by object and condition type, in the order they were found.
#[derive(Debug, Default)]
pub(crate) struct Statements {
    problems: BTreeMap<(ObjectKey, &'static str), (&'static str, Vec<String>)>,
    fine: BTreeMap<(ObjectKey, &'static str), Statement>,
}

impl Statements {
    /// Notes that something is the case; said twice, the messages are joined.
    pub(crate) fn problem(
        &mut self,
        key: &ObjectKey,
        kind: &'static str,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let (_, messages) = self
            .problems
            .entry((key.clone(), kind))
            .or_insert_with(|| (reason, Vec::new()));
        let message = message.into();
        if !messages.contains(&message) {
            messages.push(message);
        }
    }

    /// Notes what to say when no problem of the type was found.
    pub(crate) fn otherwise(&mut self, key: &ObjectKey, statement: Statement) {
        self.fine
            .entry((key.clone(), statement.condition_type))
            .or_insert(statement);
    }

    /// All statements, in order of objects and types.
    pub(crate) fn finish(self) -> Vec<(ObjectKey, Statement)> {
        let mut all = self.fine;
        for ((key, kind), (reason, messages)) in self.problems {
            let statement = Statement::is_true(kind, reason, messages.join("; "));
            all.insert((key, kind), statement);
        }
        all.into_iter()
            .map(|((key, _), statement)| (key, statement))
            .collect()
    }
}
