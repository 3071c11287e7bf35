// SPDX-License-Identifier: Apache-2.0
//! What the API and the metrics ask the egress part: its decision, and what its data plane counts.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bpf_loader::{DropCount, Mapping, RuleTraffic};
use egress_core::{Claims, Desired, PolicyId, RuleNumber, World};

/// Whoever does the egress of this node. Both calls may block for as long as the kernel takes.
pub trait EgressSource: Send + Sync {
    /// What is decided, and what it came to.
    ///
    /// # Errors
    /// When the data plane cannot be read.
    fn view(&self) -> anyhow::Result<EgressView>;

    /// Calls `visit` with every mapping of connections this node is the gateway of, in no order.
    ///
    /// # Errors
    /// When the data plane cannot be read.
    fn each_mapping(&self, visit: &mut dyn FnMut(&Mapping)) -> anyhow::Result<()>;
}

/// Egress at one moment. World, claims and decision belong together.
#[derive(Clone, Debug, Default)]
pub struct EgressView {
    /// What the decision was made of.
    pub world: Arc<World>,
    /// Who holds which rules.
    pub claims: Arc<Claims>,
    /// The decision.
    pub desired: Arc<Desired>,
    /// What came of the rules this node is the gateway of, as far as the data plane has them.
    pub rules: BTreeMap<RuleNumber, RuleReport>,
    /// Refused packets of the whole gateway; reasons that never occurred may be there or not.
    pub refusals: Vec<DropCount>,
    /// How many ports of an address have connections at the moment, by address and protocol
    /// number. What is not known is not there.
    pub ports_used: BTreeMap<(IpAddr, u8), u64>,
    /// How often this node saw another node become the gateway of a policy's rule.
    pub failovers: BTreeMap<PolicyId, u64>,
}

/// What came of a rule at its gateway.
#[derive(Clone, Debug, Default)]
pub struct RuleReport {
    /// Mappings at the last look.
    pub connections: u64,
    /// Traffic so far.
    pub traffic: RuleTraffic,
    /// Refused packets by reason; only reasons that occurred.
    pub refusals: Vec<DropCount>,
}

#[cfg(test)]
pub mod testing;
