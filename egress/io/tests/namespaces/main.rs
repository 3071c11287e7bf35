// SPDX-License-Identifier: Apache-2.0
//! The crate against the real kernel, in network namespaces that end with each test.
//!
//! Needs root (CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN). Without root each test says so and
//! passes.

mod announce;
mod devices;
mod support;
