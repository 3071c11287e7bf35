// SPDX-License-Identifier: Apache-2.0
//! The crate against the real kernel, in network namespaces that end with each test.
//!
//! Needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN) and iproute2 as an independent witness. Without
//! root each test says so and passes.

mod devices;
mod fib;
mod links;
mod rfc8950;
mod routes;
mod support;
mod throughput;
mod watch;
