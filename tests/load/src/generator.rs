// SPDX-License-Identifier: Apache-2.0
//! All peers, in one loop on one thread.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::peer::Peer;

/// Octets read at once.
const BUFFER: usize = 1 << 18;

/// Calls at a time: BIRD's socket takes eight that it has not looked at, and what is beyond waits
/// for TCP's retransmissions.
const CALLS: usize = 8;

/// How often peers look at the clock.
const TICK: Duration = Duration::from_millis(10);

/// The peers of one run.
pub struct Generator {
    /// All of them.
    pub peers: Vec<Peer>,
    buffer: Vec<u8>,
    last_tick: Instant,
}

impl Generator {
    /// Peers that will call.
    pub fn new(peers: Vec<Peer>) -> Generator {
        Generator {
            peers,
            buffer: vec![0; BUFFER],
            last_tick: Instant::now(),
        }
    }

    /// Waits for something to do, not longer than this, and does it.
    ///
    /// # Errors
    /// When the kernel refuses to wait.
    pub fn step(&mut self, longest: Duration) -> Result<()> {
        let now = Instant::now();
        if now - self.last_tick >= TICK {
            self.last_tick = now;
            let calling = self.peers.iter().filter(|peer| peer.is_calling());
            let mut free = CALLS.saturating_sub(calling.count());
            for peer in &mut self.peers {
                let was_calling = peer.is_calling();
                peer.tick(now, free > 0);
                free -= usize::from(peer.is_calling() && !was_calling);
            }
        }
        let mut places = Vec::with_capacity(self.peers.len());
        let mut waits: Vec<PollFd<'_>> = Vec::with_capacity(self.peers.len());
        for (place, peer) in self.peers.iter().enumerate() {
            if let Some((fd, reads, writes)) = peer.interest() {
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::POLLIN, reads);
                flags.set(PollFlags::POLLOUT, writes);
                waits.push(PollFd::new(fd as BorrowedFd<'_>, flags));
                places.push(place);
            }
        }
        let limit = TimeSpec::from_duration(longest.min(TICK));
        ppoll(&mut waits, Some(limit), None).context("cannot wait for the peers")?;
        let ready: Vec<(usize, PollFlags)> = places
            .into_iter()
            .zip(&waits)
            .filter_map(|(place, wait)| Some((place, wait.revents()?)))
            .filter(|(_, flags)| !flags.is_empty())
            .collect();
        drop(waits);
        for (place, flags) in ready {
            let peer = &mut self.peers[place];
            if flags.intersects(PollFlags::POLLOUT) {
                peer.write(Instant::now());
            }
            if flags.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
                peer.read(&mut self.buffer, Instant::now());
            }
        }
        Ok(())
    }

    /// Goes on until a condition holds; says how long that took.
    ///
    /// # Errors
    /// When it does not hold in time: the message has what `found` says.
    pub fn until(
        &mut self,
        what: &str,
        limit: Duration,
        mut holds: impl FnMut(&Generator) -> bool,
        found: impl FnOnce(&Generator) -> String,
    ) -> Result<Duration> {
        let start = Instant::now();
        while !holds(self) {
            if start.elapsed() > limit {
                let found = found(self);
                bail!("no {what} within {} s: {found}", limit.as_secs());
            }
            self.step(Duration::from_millis(20))?;
        }
        Ok(start.elapsed())
    }

    /// Waits for all sessions.
    ///
    /// # Errors
    /// When one does not come up.
    pub fn establish(&mut self, limit: Duration) -> Result<()> {
        let all = |own: &Generator| {
            let peers = &own.peers;
            peers.iter().all(Peer::is_established) || peers.iter().any(|peer| peer.is_refused)
        };
        self.until("sessions", limit, all, |own| {
            let down: Vec<&Peer> = own.peers.iter().filter(|p| !p.is_established()).collect();
            let first = down.first();
            let why = first.and_then(|peer| peer.last_loss.clone());
            format!(
                "{} of {} are down; {}: {}",
                down.len(),
                own.peers.len(),
                first.map_or_else(String::new, |peer| peer.identity.address.to_string()),
                why.unwrap_or_else(|| "no answer".to_owned())
            )
        })?;
        match self.peers.iter().find(|peer| peer.is_refused) {
            Some(peer) => bail!("the speaker does not carry {:?}", peer.family()),
            None => Ok(()),
        }
    }

    /// Goes on for a time.
    ///
    /// # Errors
    /// As [`Generator::step`].
    pub fn run_for(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            self.step(left)?;
        }
        Ok(())
    }
}
