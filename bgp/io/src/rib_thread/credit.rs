// SPDX-License-Identifier: Apache-2.0
//! What a neighbour's session may have under way between the tables and the kernel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Bytes under way to a neighbour before the RIB waits for the kernel to take some: several round
/// trips of a fast link, and little enough to be forgotten when the session ends.
const MOST: usize = 512 * 1024;

/// How few bytes under way count as room again, for who had to wait.
const FEW: usize = MOST / 2;

/// Counts the bytes of one session that left the tables and are not with the kernel. The RIB's
/// thread takes, the session gives back, and a wake-up passes between them only when one is asked
/// for.
#[derive(Debug)]
pub(crate) struct Credit {
    under_way: AtomicUsize,
    /// Whether the RIB's thread wants to know of room.
    awaited: AtomicBool,
    wake: Arc<Notify>,
}

impl Credit {
    pub(crate) fn new(wake: Arc<Notify>) -> Credit {
        Credit {
            under_way: AtomicUsize::new(0),
            awaited: AtomicBool::new(false),
            wake,
        }
    }

    /// The kernel took bytes.
    pub(crate) fn written(&self, bytes: usize) {
        let before = self.under_way.fetch_sub(bytes, Ordering::SeqCst);
        if before.saturating_sub(bytes) < FEW && self.awaited.swap(false, Ordering::SeqCst) {
            self.wake.notify_one();
        }
    }

    /// Takes bytes from the tables.
    pub(crate) fn take(&self, bytes: usize) {
        self.under_way.fetch_add(bytes, Ordering::SeqCst);
    }

    pub(super) fn has_room(&self) -> bool {
        self.under_way.load(Ordering::SeqCst) < MOST
    }

    /// Asks for a word when there is room again, unless there is by now.
    pub(super) fn has_room_at_last(&self) -> bool {
        self.awaited.store(true, Ordering::SeqCst);
        self.under_way.load(Ordering::SeqCst) < FEW
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.under_way.load(Ordering::SeqCst) == 0
    }

    /// Whether everything is with the kernel. If not, a word is given when that may have changed.
    pub(super) fn is_all_written(&self) -> bool {
        self.awaited.store(true, Ordering::SeqCst);
        self.is_idle()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_been_woken(wake: &Notify) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            tokio::select! {
                biased;
                () = wake.notified() => true,
                () = std::future::ready(()) => false,
            }
        })
    }

    #[test]
    fn nobody_is_woken_who_did_not_ask() {
        let wake = Arc::new(Notify::new());
        let credit = Credit::new(wake.clone());
        credit.take(MOST);
        credit.written(MOST);
        assert!(!has_been_woken(&wake));
    }

    #[test]
    fn who_waits_for_room_is_woken_once_when_half_of_it_is_free() {
        let wake = Arc::new(Notify::new());
        let credit = Credit::new(wake.clone());
        credit.take(MOST);
        assert!(!credit.has_room());
        assert!(!credit.has_room_at_last());
        credit.written(FEW);
        assert!(!has_been_woken(&wake), "half is still under way");
        credit.written(1);
        assert!(has_been_woken(&wake));
        credit.written(1);
        assert!(!has_been_woken(&wake), "nobody asked again");
    }

    #[test]
    fn room_that_came_before_the_question_needs_no_wake_up() {
        let credit = Credit::new(Arc::new(Notify::new()));
        credit.take(MOST);
        credit.written(MOST);
        assert!(credit.has_room_at_last());
    }

    #[test]
    fn who_lets_go_is_woken_until_all_is_written() {
        let wake = Arc::new(Notify::new());
        let credit = Credit::new(wake.clone());
        credit.take(2);
        assert!(!credit.is_all_written());
        credit.written(1);
        assert!(has_been_woken(&wake));
        assert!(!credit.is_all_written());
        credit.written(1);
        assert!(has_been_woken(&wake));
        assert!(credit.is_all_written());
    }
}
