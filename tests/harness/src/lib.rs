// SPDX-License-Identifier: Apache-2.0
//! What interop tests ask the peers, over the lab's nodes.
