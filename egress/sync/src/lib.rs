// SPDX-License-Identifier: Apache-2.0
//! Egress gateways among themselves.

pub mod channel;
pub mod claims;
pub mod mapping;
pub mod name;
pub mod replication;
pub mod wire;
