// SPDX-License-Identifier: Apache-2.0
//! Connections of pods that must not notice what happens to their gateway.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use lab_runner::wait_for;

use crate::{
    CONVERGED,
    egress::{SERVER, connect},
    pod::Pod,
};

/// Round trips that show that a connection goes on.
const ENOUGH: u64 = 20;

/// What a connection says at a time.
const WORD: usize = 8;

/// What one that transfers says at a time: some dozens of segments, and little enough for the buffers of both
/// ends, so that nobody waits for the other to read.
const PIECE: usize = 64 << 10;

/// Connections of pods that say something all the time, and some that do not.
#[derive(Debug, Default)]
pub struct Talks(Vec<Talk>);

/// A connection to the server's echo.
#[derive(Debug)]
pub struct Talk {
    own: SocketAddr,
    stream: TcpStream,
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    /// None of one that is silent until the end.
    talker: Option<thread::JoinHandle<Result<()>>>,
}

impl Talks {
    /// All of them.
    pub fn all(&self) -> &[Talk] {
        &self.0
    }

    /// Of each family one that talks and one that does not.
    ///
    /// # Errors
    /// When there is no connection.
    pub fn add(&mut self, pod: &Pod<'_>) -> Result<()> {
        for target in SERVER {
            for says in [Some(WORD), None] {
                self.begin(pod, target, says)?;
            }
        }
        Ok(())
    }

    /// Of each family one that transfers many octets at a time.
    ///
    /// # Errors
    /// As [`Talks::add`].
    pub fn transfer(&mut self, pod: &Pod<'_>) -> Result<()> {
        let mut targets = SERVER.into_iter();
        targets.try_for_each(|target| self.begin(pod, target, Some(PIECE)))
    }

    fn begin(&mut self, pod: &Pod<'_>, target: IpAddr, says: Option<usize>) -> Result<()> {
        let what = format!("a connection of {}", pod.name());
        let stream = wait_for(&what, CONVERGED, || pod.within(|| connect(target)))?;
        self.0.push(Talk::start(stream, says)?);
        Ok(())
    }

    /// Waits until each that talks has had an answer some more times.
    ///
    /// # Errors
    /// When one has ended or gets no answer.
    pub fn go_on(&self, when: &str) -> Result<()> {
        for talk in self.0.iter().filter(|talk| talk.talker.is_some()) {
            let goal = talk.rounds.load(Ordering::Relaxed) + ENOUGH;
            wait_for(&format!("{} to go on {when}", talk.own), CONVERGED, || {
                let rounds = talk.rounds.load(Ordering::Relaxed);
                let is_over = talk
                    .talker
                    .as_ref()
                    .is_some_and(|talker| talker.is_finished());
                ensure!(!is_over, "the connection has ended after {rounds} rounds");
                ensure!(rounds >= goal, "{rounds} of {goal} rounds");
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Ends them; the silent ones say something now.
    ///
    /// # Errors
    /// When one has ended before.
    pub fn finish(self) -> Result<()> {
        for mut talk in self.0 {
            talk.stop.store(true, Ordering::Relaxed);
            match talk.talker.take() {
                Some(talker) => talker.join().map_err(|_| anyhow!("a talker panicked"))??,
                None => round(&mut talk.stream, 0, WORD).context("a silent connection")?,
            }
        }
        Ok(())
    }
}

impl Talk {
    /// The pod's end.
    pub fn own(&self) -> SocketAddr {
        self.own
    }

    fn start(mut stream: TcpStream, says: Option<usize>) -> Result<Self> {
        let own = stream.local_addr()?;
        round(&mut stream, 1, WORD)?;
        let (stop, rounds) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let talker = says
            .map(|size| -> Result<_> {
                let mut stream = stream.try_clone()?;
                let (stop, rounds) = (Arc::clone(&stop), Arc::clone(&rounds));
                Ok(thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let number = rounds.load(Ordering::Relaxed);
                        round(&mut stream, number, size)
                            .with_context(|| format!("{own} after {number} rounds"))?;
                        rounds.fetch_add(1, Ordering::Relaxed);
                        thread::sleep(Duration::from_millis(20));
                    }
                    Ok(())
                }))
            })
            .transpose()?;
        Ok(Self {
            own,
            stream,
            stop,
            rounds,
            talker,
        })
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Says a number so often that it is so many octets, and hears it.
fn round(stream: &mut TcpStream, number: u64, size: usize) -> Result<()> {
    let said = number.to_be_bytes().repeat(size / WORD);
    stream.write_all(&said)?;
    let mut heard = vec![0; said.len()];
    stream.read_exact(&mut heard)?;
    let wrong = said
        .iter()
        .zip(&heard)
        .position(|(said, heard)| said != heard);
    ensure!(
        wrong.is_none(),
        "octet {wrong:?} of {size} is not of {number}"
    );
    Ok(())
}
