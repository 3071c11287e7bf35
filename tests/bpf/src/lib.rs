// SPDX-License-Identifier: Apache-2.0
//! The data plane with real packets: pods and nodes as network namespaces, and the bench that
//! compares it with plain kernel forwarding.
//!
//! Everything happens in namespaces that belong to one thread and vanish with it. Needs root
//! and `ip`.

pub mod bench;
pub mod connection;
pub mod egress;
pub mod namespace;
pub mod packet;
pub mod pinned;
pub mod pod;
pub mod traffic;
