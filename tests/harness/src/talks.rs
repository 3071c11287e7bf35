// SPDX-License-Identifier: Apache-2.0
//! Connections of pods that must not notice what happens to their gateway.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
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
            for is_idle in [false, true] {
                let what = format!("a connection of {}", pod.name());
                let stream = wait_for(&what, CONVERGED, || pod.within(|| connect(target)))?;
                self.0.push(Talk::start(stream, is_idle)?);
            }
        }
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
                None => round(&mut talk.stream, 0).context("a silent connection")?,
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

    fn start(mut stream: TcpStream, is_idle: bool) -> Result<Self> {
        let own = stream.local_addr()?;
        round(&mut stream, 1)?;
        let (stop, rounds) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let talker = (!is_idle)
            .then(|| -> Result<_> {
                let mut stream = stream.try_clone()?;
                let (stop, rounds) = (Arc::clone(&stop), Arc::clone(&rounds));
                Ok(thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let number = rounds.load(Ordering::Relaxed);
                        round(&mut stream, number)
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

/// Says a number, and hears it.
fn round(stream: &mut TcpStream, number: u64) -> Result<()> {
    stream.write_all(&number.to_be_bytes())?;
    let mut heard = [0; 8];
    stream.read_exact(&mut heard)?;
    ensure!(heard == number.to_be_bytes(), "{heard:?} is not {number}");
    Ok(())
}
