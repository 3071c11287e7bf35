// SPDX-License-Identifier: Apache-2.0
//! Two connections of one neighbour, of which one stays (RFC 4271 §6.8).

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bgp_wire::{ErrorKind, Notification, Open};
use router_types::Asn;

use super::connection::Connection;
use super::reason::DownReason;
use super::{ConnId, Direction, Peer, SessionAddresses};
use crate::fsm::{Event, State};

/// How long a connection that loses a collision waits for the one that wins. Arbitrary: an OPEN
/// that is under way comes within a round trip.
const HOLD_BACK: Duration = Duration::from_secs(5);

impl Peer {
    /// Takes a call while a session is up: OPEN will tell which of the two stays.
    pub(super) fn take_second(&mut self, conn: ConnId, addresses: SessionAddresses, now: Instant) {
        if let Some(incoming) = &self.incoming
            && incoming.state() == State::Established
        {
            // Both are the neighbour's: there is nothing to compare.
            self.refuse_call(conn, ErrorKind::CONNECTION_COLLISION);
            return;
        }
        if self.incoming.is_some() {
            self.drop_connection(Direction::Incoming, None, &DownReason::Collision);
        }
        self.send_open(conn, addresses, now);
        self.note(Event::TcpConnectionConfirmed, now);
    }

    /// RFC 4271 §6.8. Of two connections that know their neighbour's identifier one goes; which
    /// one is returned: identifiers and AS numbers decide, so that both ends agree without a word.
    /// A session that is up stays, unless `CollisionDetectEstablishedState` is configured.
    pub(super) fn resolve_collision(
        &mut self,
        newer: Direction,
        theirs: &Open,
        now: Instant,
    ) -> Option<Direction> {
        let loser = match self.connection(newer.other()).map(Connection::state)? {
            State::Established if !self.config.collision_when_established => newer,
            State::Established | State::OpenConfirm => self.loser(theirs.router_id, theirs.asn),
            // Its OPEN is still to come; it is looked at then.
            State::OpenSent | State::Idle | State::Active | State::Connect => return None,
        };
        let notification = Notification::new(ErrorKind::CONNECTION_COLLISION);
        self.vacate(loser, Some(notification), &DownReason::Collision);
        self.note(Event::OpenCollisionDump, now);
        Some(loser)
    }

    /// Which of two connections goes (RFC 4271 §6.8; RFC 6286 §2.3: the AS number decides between
    /// equal identifiers): the one dialled by the end with the lower identifier.
    fn loser(&self, their_id: Ipv4Addr, their_asn: Asn) -> Direction {
        if (self.local.router_id, self.session_asn()) < (their_id, their_asn) {
            Direction::Outgoing
        } else {
            Direction::Incoming
        }
    }

    /// The neighbour has confirmed: the session is up, or waits for the other connection.
    ///
    /// Where both ends dial, one of them may be through with a connection while the other has not
    /// compared yet, and will keep the other one. If the first were up at once, it would close what
    /// its neighbour keeps, and none would be left. So the connection that loses the comparison is
    /// not up before the other one has failed, or has been silent for [`HOLD_BACK`].
    pub(super) fn confirmed(&mut self, direction: Direction, now: Instant) {
        let other_may_win = self
            .connection(direction.other())
            .is_some_and(|other| other.state() == State::OpenSent)
            && self
                .connection(direction)
                .and_then(Connection::negotiated)
                .is_some_and(|up| self.loser(up.peer_router_id, up.peer_asn) == direction);
        if !other_may_win {
            self.establish(direction, now);
            return;
        }
        if let Some(connection) = self.connection_mut(direction) {
            connection.heard(now);
            if let Some(agreed) = connection.agreed_mut() {
                agreed.held_back_until.get_or_insert(now + HOLD_BACK);
            }
        }
    }

    /// Lets a connection be up that was held back, when it is time or the other one has failed.
    pub(super) fn release(&mut self, now: Instant) {
        for direction in [Direction::Outgoing, Direction::Incoming] {
            let held_back = self
                .connection(direction)
                .and_then(Connection::held_back_until);
            let alone = self.connection(direction.other()).is_none();
            if held_back.is_some_and(|until| alone || until <= now) {
                self.establish(direction, now);
            }
        }
    }

    /// A neighbour that sends routes is up, and has settled for this connection.
    pub(super) fn settle(&mut self, direction: Direction, now: Instant) {
        if self
            .connection(direction)
            .is_some_and(|connection| connection.held_back_until().is_some())
        {
            self.establish(direction, now);
        }
    }
}
