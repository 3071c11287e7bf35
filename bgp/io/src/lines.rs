// SPDX-License-Identifier: Apache-2.0
//! The short way from the tables to neighbours, for what a few changes lead to.
//!
//! Whoever works changes in on the thread of the sessions writes there and then what neighbours
//! are told, as long as nothing is under way to them by the long way, through the inbox of each
//! neighbour's task.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use bgp_core::config::PeerName;
use bgp_core::rib::Transmit;

use crate::connection::Writer;
use crate::rib_thread::Credit;

/// The neighbours of an instance whose sessions are up.
#[derive(Clone, Default, Debug)]
pub(crate) struct Lines(Rc<RefCell<BTreeMap<PeerName, Rc<Line>>>>);

/// A session that is up.
#[derive(Debug)]
pub(crate) struct Line {
    epoch: u64,
    credit: Arc<Credit>,
    writer: Writer,
    sent: Cell<Sent>,
}

/// What was sent and not counted yet.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Sent {
    pub(crate) updates: u64,
    pub(crate) refreshes: u64,
    pub(crate) bytes: u64,
}

impl Line {
    pub(crate) fn new(epoch: u64, credit: Arc<Credit>, writer: Writer) -> Line {
        Line {
            epoch,
            credit,
            writer,
            sent: Cell::default(),
        }
    }

    /// Writes routes.
    pub(crate) fn send(&self, transmit: Transmit) {
        let mut sent = self.sent.get();
        sent.updates += u64::from(transmit.updates);
        sent.refreshes += u64::from(transmit.refreshes);
        sent.bytes += transmit.bytes.len() as u64;
        self.sent.set(sent);
        let written = self.writer.send_routes(transmit.bytes);
        self.credit.written(written);
    }

    /// The kernel took bytes that waited.
    pub(crate) fn written(&self, bytes: usize) {
        self.credit.written(bytes);
    }

    /// What was sent since the last time.
    pub(crate) fn take_sent(&self) -> Sent {
        self.sent.take()
    }
}

impl Lines {
    /// A session came up.
    pub(crate) fn open(&self, peer: PeerName, line: Rc<Line>) {
        self.0.borrow_mut().insert(peer, line);
    }

    /// It is down, or about to be.
    pub(crate) fn close(&self, peer: &PeerName, line: &Rc<Line>) {
        let mut lines = self.0.borrow_mut();
        if lines.get(peer).is_some_and(|open| Rc::ptr_eq(open, line)) {
            lines.remove(peer);
        }
    }

    /// Writes to a neighbour what was taken from the tables for its session of a count.
    ///
    /// # Errors
    /// What has to go the long way.
    pub(crate) fn send(
        &self,
        peer: &PeerName,
        epoch: u64,
        transmit: Transmit,
    ) -> Result<(), Transmit> {
        let lines = self.0.borrow();
        let line = lines.get(peer).filter(|line| line.epoch == epoch);
        match line {
            // Nothing may overtake what is under way.
            Some(line) if line.credit.is_idle() => {
                line.credit.take(transmit.bytes.len());
                line.send(transmit);
                Ok(())
            }
            Some(_) | None => Err(transmit),
        }
    }
}

#[cfg(test)]
mod tests {
    use bgp_core::peer::{ConnId, Direction};
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::{Notify, mpsc};

    use super::*;
    use crate::connection::Connection;

    fn transmit(bytes: &'static [u8]) -> Transmit {
        Transmit {
            bytes: bytes.into(),
            updates: 1,
            refreshes: 0,
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn nothing_overtakes_what_is_under_way() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stream, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (mut neighbour, _) = accepted.unwrap();
        let conn = ConnId {
            direction: Direction::Outgoing,
            serial: 1,
        };
        let (reports, _progress) = mpsc::unbounded_channel();
        let (connection, _task) = Connection::new(conn, stream.unwrap(), reports);
        let credit = Arc::new(Credit::new(Arc::new(Notify::new())));
        let line = Line::new(2, credit.clone(), connection.writer().clone());
        let (line, lines, peer) = (Rc::new(line), Lines::default(), PeerName::from("peer"));
        assert!(lines.send(&peer, 2, transmit(b"nobody")).is_err());
        lines.open(peer.clone(), line.clone());
        assert!(lines.send(&peer, 1, transmit(b"last session's")).is_err());

        // On its way through the inbox.
        let long = transmit(b"first ");
        credit.take(long.bytes.len());
        let second = lines.send(&peer, 2, transmit(b"second ")).unwrap_err();
        line.send(long);
        lines.send(&peer, 2, second).unwrap();
        let mut read = [0; 13];
        neighbour.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"first second ");
        let sent = line.take_sent();
        assert_eq!((sent.updates, sent.bytes), (2, 13));

        lines.close(&peer, &line);
        assert!(lines.send(&peer, 2, transmit(b"too late")).is_err());
    }
}
