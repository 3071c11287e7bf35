// SPDX-License-Identifier: Apache-2.0
//! The manager on a real kernel: namespaces, veth pairs, eBPF programs. Needs root; makes
//! namespaces `cwpods-*` and pin folders of the same names, and removes them.

mod killed;
mod pods;
mod support;
