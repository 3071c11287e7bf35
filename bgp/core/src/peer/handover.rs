// SPDX-License-Identifier: Apache-2.0
//! A session that outlives its process: what the next one needs to go on with it.
//!
//! The TCP connection itself is the caller's to pass on. The neighbour notices nothing: the next
//! process knows what both OPENs said, sends a KEEPALIVE at once, asks for all routes again
//! (RFC 2918) and sends its own again, which changes nothing where they are the same. What the
//! process before has announced and the next one does not is for the caller to withdraw.

use std::time::Instant;

use bgp_wire::{Capability, ErrorKind, MessageKind, Notification, Open, frame};
use serde::{Deserialize, Serialize};

use super::connection::{Agreed, Connection, Phase};
use super::open::{self, OpenStyle};
use super::reason::DownReason;
use super::{ConnId, Direction, Outgoing, Peer, PeerOutput, SessionAddresses, StopReason};
use crate::fsm::Event;
use crate::serial;

/// An established session between two processes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Handover {
    /// The OPEN this end sent, as a whole message.
    #[serde(with = "serial::hex")]
    pub sent: Vec<u8>,
    /// The OPEN the neighbour sent, as a whole message.
    #[serde(with = "serial::hex")]
    pub received: Vec<u8>,
    /// What was received of a message that is not complete.
    #[serde(with = "serial::hex")]
    pub unread: Vec<u8>,
}

impl Peer {
    /// Lets go of the session that is up, without a word: the caller passes its connection on.
    /// `None` where there is none, or where its routes could not be asked for again.
    pub fn hand_over(&mut self, now: Instant) -> Option<(ConnId, Handover)> {
        let connection = self.established()?;
        let agreed = connection.agreed()?;
        // The next process has none of its routes and asks for them again.
        if !agreed.negotiated.route_refresh {
            return None;
        }
        let message = |open: &Open| {
            let mut bytes = Vec::new();
            open.encode(&mut bytes);
            bytes
        };
        let conn = connection.conn;
        let handover = Handover {
            sent: message(&connection.offered),
            received: message(&agreed.theirs),
            unread: connection.unread.clone(),
        };
        match conn.direction {
            Direction::Incoming => self.incoming = None,
            Direction::Outgoing => self.outgoing = Outgoing::Active { retry_at: None },
        }
        let down = DownReason::Stopped(StopReason::PlannedRestart);
        for direction in [Direction::Outgoing, Direction::Incoming] {
            self.drop_connection(direction, None, &down);
        }
        self.outgoing = Outgoing::Idle { restart_at: None };
        self.record.failed(down, now);
        self.note(Event::ManualStop, now);
        Some((conn, handover))
    }

    /// Goes on with a session of the process before. One that the configuration would not come to
    /// any more is reset, and built up anew.
    pub(super) fn adopt(
        &mut self,
        conn: ConnId,
        addresses: SessionAddresses,
        handover: &Handover,
        now: Instant,
    ) {
        debug_assert_eq!(
            conn.direction,
            Direction::Incoming,
            "an adopted session was not dialled"
        );
        let opens = decode(&handover.sent).zip(decode(&handover.received));
        let agreed = opens.and_then(|(ours, theirs)| {
            let offered = open::offer(
                &self.config,
                &self.local,
                self.session_asn(),
                OpenStyle::Full,
            );
            let same = lasting(&offered) == lasting(&ours) && self.config.shutdown.is_none();
            let judged = open::judge(&self.config, &self.local, &ours, &theirs, &addresses);
            let negotiated = judged.ok().filter(|_| same)?;
            Some((ours, theirs, negotiated))
        });
        let Some((offered, theirs, negotiated)) = agreed else {
            let mut bytes = Vec::new();
            Notification::new(ErrorKind::OTHER_CONFIGURATION_CHANGE).encode(&mut bytes);
            self.outputs.push_back(PeerOutput::Send { conn, bytes });
            let how = super::CloseHow::AfterSending;
            self.outputs.push_back(PeerOutput::Close { conn, how });
            return;
        };
        self.record.remote_asn = Some(theirs.asn);
        self.record.remote_router_id = Some(theirs.router_id);
        self.record.capabilities_sent = offered.capabilities.clone();
        self.record.capabilities_received = theirs.capabilities.clone();
        let families: Vec<_> = negotiated.families().collect();
        let interval = negotiated.keepalive;
        let agreed = Agreed {
            negotiated: Box::new(negotiated),
            theirs: Box::new(theirs),
            hold_at: None,
            keepalive_at: interval.map(|time| now + self.jitter.spread(time)),
            held_back_until: None,
        };
        self.outgoing = Outgoing::Active { retry_at: None };
        self.incoming = Some(Connection {
            conn,
            addresses,
            offered: Box::new(offered),
            unread: Vec::new(),
            phase: Phase::OpenConfirm(agreed),
        });
        self.establish(Direction::Incoming, now);
        // At once: nobody knows how long the process before has been silent.
        if interval.is_some() {
            let mut keepalive = Vec::new();
            frame::encode_keepalive(&mut keepalive);
            self.send(conn, MessageKind::Keepalive, keepalive);
        }
        for family in families {
            self.ask_for_routes(family, now);
        }
        self.bytes(conn, &handover.unread, now);
    }
}

fn decode(message: &[u8]) -> Option<Open> {
    let found = frame::next(message, frame::MAX_LEN).ok()??;
    Open::decode(found.body).ok()
}

/// An OPEN without what says that its sender has just restarted.
fn lasting(open: &Open) -> Open {
    let mut open = open.clone();
    for capability in &mut open.capabilities {
        match capability {
            Capability::GracefulRestart(restart) => {
                restart.restarted = false;
                for family in &mut restart.families {
                    family.forwarding_preserved = false;
                }
            }
            Capability::LongLivedGracefulRestart(list) => {
                for family in list {
                    family.forwarding_preserved = false;
                }
            }
            _ => {}
        }
    }
    open
}
