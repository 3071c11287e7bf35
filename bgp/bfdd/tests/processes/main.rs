// SPDX-License-Identifier: Apache-2.0
//! Two processes against each other in two network namespaces. Needs root.

mod echo;
mod load;
mod pair;
mod sessions;
