// SPDX-License-Identifier: Apache-2.0
//! Connections as TCP has them: octets in order, cut anywhere, and ends of two sorts.

use std::collections::VecDeque;
use std::time::Instant;

use bgp_core::peer::{ConnId, FailureKind};

use crate::random::Random;

/// A connection between the two ends of a link.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) link: usize,
    /// The end that dialled.
    pub(crate) dialler: usize,
    /// Whether the dialler knows that it is connected.
    pub(crate) is_known: bool,
    pub(crate) ends: [WireEnd; 2],
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct WireEnd {
    pub(crate) conn: ConnId,
    /// Whether somebody is there who wants what comes.
    pub(crate) is_open: bool,
    /// What is under way to it.
    pub(crate) coming: VecDeque<Item>,
    /// When the last of that arrives.
    pub(crate) last: Instant,
    /// What has come of a message that is not whole.
    partial: Vec<u8>,
}

/// Something under way.
#[derive(Debug)]
pub(crate) enum Item {
    Bytes(Vec<u8>),
    /// The other end closed, or was reset.
    End(FailureKind),
}

impl Wire {
    pub(crate) fn new(link: usize, dialler: usize, conns: [ConnId; 2], now: Instant) -> Wire {
        let end = |conn| WireEnd {
            conn,
            is_open: true,
            coming: VecDeque::new(),
            last: now,
            partial: Vec::new(),
        };
        Wire {
            link,
            dialler,
            is_known: false,
            ends: conns.map(end),
        }
    }
}

impl WireEnd {
    /// Octets under way.
    pub(crate) fn backlog(&self) -> usize {
        let lens = self.coming.iter().map(|item| match item {
            Item::Bytes(bytes) => bytes.len(),
            Item::End(_) => 0,
        });
        lens.sum()
    }

    /// Whether what has come ends a message: only whole ones count as a sign of life.
    pub(crate) fn completes(&mut self, bytes: &[u8]) -> bool {
        self.partial.extend_from_slice(bytes);
        let mut completes = false;
        while let Some(len) = self.partial.get(16..18) {
            let len = usize::from(u16::from_be_bytes([len[0], len[1]]));
            if self.partial.len() < len {
                break;
            }
            self.partial.drain(..len);
            completes = true;
        }
        completes
    }

    /// Loses what is under way, from some octet on.
    pub(crate) fn lose(&mut self, random: &mut Random) {
        let keep = random.below(self.coming.len() as u64 + 1) as usize;
        self.coming.truncate(keep);
        if let Some(Item::Bytes(bytes)) = self.coming.back_mut() {
            bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
        }
    }
}

/// Cuts octets into pieces.
pub(crate) fn pieces(bytes: &[u8], random: &mut Random) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let whole = random.below(3) == 0;
        let len = if whole {
            rest.len()
        } else {
            1 + random.below(rest.len() as u64) as usize
        };
        let (piece, after) = rest.split_at(len);
        pieces.push(piece.to_vec());
        rest = after;
    }
    pieces
}
