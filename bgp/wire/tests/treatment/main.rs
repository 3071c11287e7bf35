// SPDX-License-Identifier: Apache-2.0
//! What is done about malformed messages.
//!
//! [`rules`] goes through RFC 7606 rule by rule; [`attributes`] and [`prefixes`] go through every
//! attribute and every list of prefixes, each malformed in every way; [`sessions`] does so with OPEN,
//! NOTIFICATION, ROUTE-REFRESH and headers; [`vpn`] with routes of VPNs and memberships.

mod attributes;
mod judge;
mod prefixes;
mod rules;
mod sessions;
mod vpn;
