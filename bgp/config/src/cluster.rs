// SPDX-License-Identifier: Apache-2.0
//! Which cluster configuration is for this node.

use router_resources::kinds::ClusterConfigSpec;
use router_resources::{Entry, Snapshot, Statement};

use crate::facts::NodeFacts;
use crate::statements::{Statements, condition_type};

/// Finds the cluster configuration for this node and says of the others why they are not used.
pub(crate) fn choose<'a>(
    snapshot: &'a Snapshot,
    facts: &NodeFacts,
    statements: &mut Statements,
) -> Option<Entry<'a, ClusterConfigSpec>> {
    let mut configs: Vec<_> = all(snapshot).collect();
    configs.sort_by_key(|entry| {
        let metadata = entry.metadata;
        (
            metadata.creation_timestamp,
            metadata.name.clone(),
            entry.key(),
        )
    });
    let mut chosen: Option<Entry<'a, ClusterConfigSpec>> = None;
    let mut losers = Vec::new();
    for entry in configs {
        let key = entry.key();
        let selects = |labels| {
            entry
                .spec
                .node_selector
                .as_ref()
                .is_none_or(|s| s.matches(labels))
        };
        let is_for_us = selects(&facts.labels);
        let others: Vec<_> = snapshot
            .nodes()
            .filter(|node| node.name() != facts.name && selects(&node.metadata.labels))
            .map(|node| node.name().to_owned())
            .collect();
        if !is_for_us && others.is_empty() {
            let message = format!(
                "nodeSelector matches no known node; the labels of this node, {}, are {}",
                facts.name,
                show_labels(facts)
            );
            statements.problem(
                &key,
                condition_type::NO_MATCHING_NODE,
                "NoMatchingNode",
                message,
            );
        }
        statements.otherwise(
            &key,
            Statement::is_false(
                condition_type::NO_MATCHING_NODE,
                "NodeMatched",
                "nodeSelector matches at least one node",
            ),
        );
        if !is_for_us {
            let message = format!("nodeSelector does not match this node, {}", facts.name);
            let statement = Statement::is_false(condition_type::IN_USE, "NotSelected", message);
            statements.otherwise(&key, statement);
            continue;
        }
        match &chosen {
            None => {
                let message = format!("nodeSelector matches this node, {}", facts.name);
                let statement = Statement::is_true(condition_type::IN_USE, "Selected", message);
                statements.otherwise(&key, statement);
                chosen = Some(entry);
            }
            Some(winner) => {
                let message = format!("{} comes first and is used", winner.key());
                let statement = Statement::is_false(condition_type::IN_USE, "Conflict", message);
                statements.otherwise(&key, statement);
                losers.push(key);
            }
        }
    }
    for loser in &losers {
        let winner = chosen.as_ref()?.key();
        let kind = condition_type::CONFLICTING_CLUSTER_CONFIG;
        let message = format!(
            "selects node {} as {winner} does, which is used",
            facts.name
        );
        statements.problem(loser, kind, "ConflictingClusterConfig", message);
        let message = format!("{loser} selects node {} too and is not used", facts.name);
        statements.problem(&winner, kind, "ConflictingClusterConfig", message);
    }
    for entry in all(snapshot) {
        let kind = condition_type::CONFLICTING_CLUSTER_CONFIG;
        let message = "no other configuration selects this node";
        statements.otherwise(
            &entry.key(),
            Statement::is_false(kind, "NoConflict", message),
        );
    }
    chosen
}

/// The cluster configurations of both kinds.
fn all(snapshot: &Snapshot) -> impl Iterator<Item = Entry<'_, ClusterConfigSpec>> {
    let ours = snapshot.causeway_cluster_configs();
    snapshot.cluster_configs().chain(ours)
}

fn show_labels(facts: &NodeFacts) -> String {
    let labels: Vec<String> = facts
        .labels
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    labels.join(", ")
}
