// SPDX-License-Identifier: Apache-2.0
//! Copies of mappings: from the [`Sender`] of the node that holds a rule to the [`Receiver`] of a
//! node that stands by for it. One sender for each standby, one receiver for each holder.
//!
//! **How it goes.** The receiver subscribes to rules. For each the sender takes a snapshot: a
//! `Begin`, all mappings, an `End`; those of all rules that wait are taken together, in one walk
//! through the tables. Changes go through one queue for all rules, in the order they
//! happened, and on with the next: a port that one mapping gave up may be what another got. `Begin`
//! and `End` go through the same queue, so that a change is on the same side of them at both ends.
//! Once the link is lost nothing of it is remembered but the receiver's copies: the next
//! subscription begins with new snapshots, and what they do not contain is removed at their ends.
//!
//! **Snapshots and changes.** The owner of the mappings reads them a page at a time, and they change
//! meanwhile. [`Sender::poll_page`] marks how many changes the sender has seen; the owner takes a
//! page *before* it reads. A record whose key changed after the mark is left out, since the change
//! says more: it is sent, or is in the queue in front of the `End`. So no page brings back what a
//! change removed, however long it lay around. Changes may be told late (a queue of the kernel):
//! then a page is ahead of them, and the last of them makes it right. What may not happen is that
//! a change is told and a page read after that does not know of it.
//!
//! **Bounds.** At most [`Limits::window`] batches of [`crate::wire::MAX_RECORDS`] records are
//! unacknowledged; while a snapshot runs, half of them for it and half for changes. The queue takes
//! [`Limits::queue`] changes and three marks for each rule; when it overflows, the rules it has changes
//! of get a new snapshot ([`SenderCounters::overflows`]). Batches are forgotten as soon as they are
//! handed out: a stream delivers them or ends. A receiver keeps 48 octets and the overhead of an
//! ordered map for each mapping (70 MB for a million) and, of batches not yet polled, what the
//! window lets through.
//!
//! **What an owner must know.**
//! - A key may move from one rule to another, and with it to another holder. Copies are of a rule
//!   *and* a key: an [`Apply::Remove`] means the copy of that rule and nothing else.
//! - An egress port may have two owners for a moment while a snapshot runs: the one that is gone but
//!   not yet swept, and the new one. Whoever keeps them by egress port removes an entry only if it
//!   is of the key that is removed.
//! - A mapping that moves to another rule is a [`crate::mapping::Change::Remove`] of the old rule
//!   first.
//! - Who held a rule and stands by for it next has mappings that no snapshot knows of, even if it
//!   never ceased to be subscribed: [`Receiver::adopt`] tells of them, whenever a node steps down.
//! - After a planned hand-over the new holder goes on applying until it hears `Ended`, and sets only
//!   what it does not know: its own mappings are newer than the last words of the old holder.
//! - When a rule is given up, [`Sender::handle_held`] comes before the mappings are deleted: what is
//!   in the queue is still sent, then the receiver says [`ReceiverOutput::Ended`].

mod receiver;
mod sender;

pub use receiver::{
    Apply, Discarded, Dropped, Receiver, ReceiverCounters, ReceiverOutput, SubscribeError,
};
pub use sender::{Page, PageError, Rest, Sender, SenderCounters, SenderOutput, Synchronised};

/// How much a sender has under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    window: usize,
    queue: usize,
}

/// A limit that cannot be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// One would let a snapshot and changes wait for each other.
    #[error("window of {0} batches: use 2 to 1024")]
    Window(usize),
    /// Less than a batch.
    #[error("queue of {0} changes: use 512 to 16777216")]
    Queue(usize),
}

impl Limits {
    /// `window`: batches without acknowledgement, 2 to 1024; more fill a longer way, and take
    /// 48 KiB each at the channel. `queue`: changes that wait, 512 to 16777216; more outlast a
    /// longer stall before a new snapshot, and take 128 octets each.
    ///
    /// # Errors
    /// One of them is out of range.
    pub fn new(window: usize, queue: usize) -> Result<Limits, LimitsError> {
        if !(2..=1024).contains(&window) {
            return Err(LimitsError::Window(window));
        }
        if !(crate::wire::MAX_RECORDS..=1 << 24).contains(&queue) {
            return Err(LimitsError::Queue(queue));
        }
        Ok(Limits { window, queue })
    }

    /// Most batches without acknowledgement.
    pub fn window(&self) -> usize {
        self.window
    }

    /// Most changes that wait.
    pub fn queue(&self) -> usize {
        self.queue
    }
}

impl Default for Limits {
    /// 16 batches: 8192 mappings per round trip, 800 thousand a second at 10 ms. 65536 changes: a
    /// second of a gateway that opens 30 thousand connections a second and closes as many.
    fn default() -> Limits {
        Limits {
            window: 16,
            queue: 65_536,
        }
    }
}

#[cfg(test)]
mod tests;
