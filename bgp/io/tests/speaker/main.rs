// SPDX-License-Identifier: Apache-2.0
//! Speakers against each other and against neighbours that misbehave, over loopback.
//!
//! One binary, so that it links once; one file for each theme.

mod advisories;
mod endless;
mod handover;
mod hostile;
mod listening;
mod load;
mod node;
mod passwords;
mod policy;
mod ranges;
mod raw;
mod recording;
mod sessions;
mod transport;
