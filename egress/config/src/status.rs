// SPDX-License-Identifier: Apache-2.0
//! What a policy's object says of how it stands.

use egress_core::PolicyState;
use router_resources::condition::Condition;
use router_resources::kinds::EgressPolicyStatus;

/// Makes the status of a policy of either kind. Upstream's has none in its definition, and says the
/// same here.
pub fn policy_status(state: &PolicyState, conditions: &[Condition]) -> EgressPolicyStatus {
    EgressPolicyStatus {
        active_gateways: state.active_gateways.iter().cloned().collect(),
        healthy_gateways: state.healthy_gateways.iter().cloned().collect(),
        addresses: state.addresses.iter().copied().collect(),
        conditions: conditions.to_vec(),
    }
}
