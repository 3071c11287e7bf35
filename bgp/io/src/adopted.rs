// SPDX-License-Identifier: Apache-2.0
//! Sessions of the process before that wait for their neighbours.
//!
//! Most neighbours are there with the first configuration. Those that are found on the network
//! (unnumbered, default gateways) come some time later.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bgp_core::config::{PeerConfig, PeerName};

use crate::handover::HandedSession;

/// How long a session waits for its neighbour to be found: a router answers a solicitation within
/// 3.5 s (RFC 4861 §6.2.6). Nothing is sent meanwhile, so that it must be less than a hold time.
const PATIENCE: Duration = Duration::from_secs(4);

/// The sessions that wait, by the names of their neighbours.
#[derive(Debug)]
pub(crate) struct Adopted {
    sessions: BTreeMap<PeerName, HandedSession>,
    until: Instant,
}

impl Adopted {
    pub(crate) fn new(sessions: Vec<HandedSession>) -> Adopted {
        let named = sessions.into_iter();
        Adopted {
            sessions: named.map(|s| (s.record.peer.clone(), s)).collect(),
            until: Instant::now() + PATIENCE,
        }
    }

    /// The session of a neighbour, where it leads to the neighbour's address.
    pub(crate) fn take(&mut self, name: &PeerName, config: &PeerConfig) -> Option<HandedSession> {
        let remote = self.sessions.get(name)?.stream.peer_addr().ok()?;
        (remote.ip() == config.address.ip())
            .then(|| self.sessions.remove(name))
            .flatten()
    }

    /// All of them.
    pub(crate) fn take_all(&mut self) -> Vec<HandedSession> {
        std::mem::take(&mut self.sessions).into_values().collect()
    }

    /// All of them, once they have waited long enough.
    pub(crate) fn take_overdue(&mut self) -> Vec<HandedSession> {
        if Instant::now() < self.until {
            return Vec::new();
        }
        self.take_all()
    }
}
