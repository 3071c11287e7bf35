// SPDX-License-Identifier: Apache-2.0
//! One TCP connection of a neighbour, from connected to closed.

use std::time::{Duration, Instant};

use bgp_wire::Open;

use super::open::Negotiated;
use super::{ConnId, SessionAddresses};
use crate::fsm::State;

/// The hold time until the neighbour's OPEN is there: "a HoldTimer value of 4 minutes is
/// suggested" (RFC 4271 §8.2.2).
pub(super) const LARGE_HOLD: Duration = Duration::from_secs(240);

/// A connection on which OPEN was sent.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) conn: ConnId,
    pub(super) addresses: SessionAddresses,
    /// What was offered on it.
    pub(super) offered: Box<Open>,
    /// Bytes received of a message that is not complete; at most one message.
    pub(super) unread: Vec<u8>,
    pub(super) phase: Phase,
}

/// How far a connection has come.
#[derive(Debug)]
pub(super) enum Phase {
    OpenSent { hold_at: Instant },
    OpenConfirm(Agreed),
    Established(Agreed),
}

/// Agreement and the timers under it.
#[derive(Debug)]
pub(super) struct Agreed {
    pub(super) negotiated: Box<Negotiated>,
    /// The neighbour's OPEN.
    pub(super) theirs: Box<Open>,
    pub(super) hold_at: Option<Instant>,
    pub(super) keepalive_at: Option<Instant>,
    /// The neighbour has confirmed, and the session waits until then for the other connection,
    /// which wins if it gets so far: see [`Peer::establish`](super::Peer).
    pub(super) held_back_until: Option<Instant>,
}

impl Connection {
    pub(super) fn state(&self) -> State {
        match self.phase {
            Phase::OpenSent { .. } => State::OpenSent,
            Phase::OpenConfirm(_) => State::OpenConfirm,
            Phase::Established(_) => State::Established,
        }
    }

    pub(super) fn agreed(&self) -> Option<&Agreed> {
        match &self.phase {
            Phase::OpenSent { .. } => None,
            Phase::OpenConfirm(agreed) | Phase::Established(agreed) => Some(agreed),
        }
    }

    pub(super) fn agreed_mut(&mut self) -> Option<&mut Agreed> {
        match &mut self.phase {
            Phase::OpenSent { .. } => None,
            Phase::OpenConfirm(agreed) | Phase::Established(agreed) => Some(agreed),
        }
    }

    pub(super) fn negotiated(&self) -> Option<&Negotiated> {
        self.agreed().map(|agreed| &*agreed.negotiated)
    }

    /// When the neighbour is given up.
    pub(super) fn hold_at(&self) -> Option<Instant> {
        match &self.phase {
            Phase::OpenSent { hold_at } => Some(*hold_at),
            Phase::OpenConfirm(agreed) | Phase::Established(agreed) => agreed.hold_at,
        }
    }

    /// When the next keepalive is due.
    pub(super) fn keepalive_at(&self) -> Option<Instant> {
        self.agreed().and_then(|agreed| agreed.keepalive_at)
    }

    /// Until when a confirmed connection waits for the other one.
    pub(super) fn held_back_until(&self) -> Option<Instant> {
        match &self.phase {
            Phase::OpenConfirm(agreed) => agreed.held_back_until,
            Phase::OpenSent { .. } | Phase::Established(_) => None,
        }
    }

    /// The hold time in force, in seconds.
    pub(super) fn hold_s(&self) -> u16 {
        self.negotiated()
            .map_or(LARGE_HOLD.as_secs() as u16, |negotiated| negotiated.hold_s)
    }

    /// Restarts the HoldTimer: the neighbour was heard.
    pub(super) fn heard(&mut self, now: Instant) {
        if let Some(agreed) = self.agreed_mut() {
            let hold_s = agreed.negotiated.hold_s;
            agreed.hold_at = (hold_s > 0).then(|| now + Duration::from_secs(hold_s.into()));
        }
    }

    /// The longest message to take.
    pub(super) fn max_len(&self) -> usize {
        self.negotiated()
            .map_or(bgp_wire::frame::MAX_LEN, |negotiated| {
                negotiated.context.max_len()
            })
    }
}
