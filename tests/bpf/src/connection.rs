// SPDX-License-Identifier: Apache-2.0
//! One TCP connection with both ends in hand.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, TcpListener, TcpStream},
    thread,
};

use anyhow::{Context as _, Result, ensure};

use crate::{namespace::Namespace, traffic::PATIENCE};

/// Both ends of a connection.
#[derive(Debug)]
pub struct Connection {
    here: TcpStream,
    there: TcpStream,
    /// Whom the other end sees.
    pub seen: IpAddr,
}

impl Connection {
    /// Opens one to an address of the other namespace.
    ///
    /// # Errors
    /// When it does not open in time.
    pub fn open(from: &Namespace, to: &Namespace, address: IpAddr) -> Result<Self> {
        let listener = to.run(|| TcpListener::bind((address, 0)))?;
        let target = listener.local_addr()?;
        let here = from.run(|| TcpStream::connect_timeout(&target, PATIENCE))?;
        let (there, seen) = listener.accept()?;
        for stream in [&here, &there] {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
        }
        Ok(Self {
            here,
            there,
            seen: seen.ip(),
        })
    }

    /// A word to the other end, and one back.
    ///
    /// # Errors
    /// When one does not arrive in time.
    pub fn talk(&mut self) -> Result<()> {
        say(&mut self.here, &mut self.there).context("to the other end")?;
        say(&mut self.there, &mut self.here).context("back")
    }

    /// The same in the other order.
    ///
    /// # Errors
    /// When one does not arrive in time.
    pub fn talk_back(&mut self) -> Result<()> {
        say(&mut self.there, &mut self.here).context("back")?;
        say(&mut self.here, &mut self.there).context("to the other end")
    }

    /// The same connection seen from the other end.
    #[must_use]
    pub fn turned(self) -> Self {
        let Self { here, there, seen } = self;
        Self {
            here: there,
            there: here,
            seen,
        }
    }

    /// Sends so many bytes, while the caller does something else.
    #[must_use]
    pub fn transfer_in_background(self, bytes: usize) -> Transfer {
        let Self {
            mut here,
            mut there,
            ..
        } = self;
        let sender = thread::spawn(move || -> Result<()> {
            let chunk = vec![0x5a; 1 << 16];
            for _ in 0..bytes / chunk.len() {
                here.write_all(&chunk)?;
            }
            Ok(())
        });
        let receiver = thread::spawn(move || -> Result<usize> {
            let mut buffer = vec![0; 1 << 16];
            let mut received = 0;
            loop {
                match there.read(&mut buffer)? {
                    0 => return Ok(received),
                    count => received += count,
                }
            }
        });
        Transfer {
            bytes,
            sender,
            receiver,
        }
    }
}

/// Bytes on their way.
#[derive(Debug)]
pub struct Transfer {
    bytes: usize,
    sender: thread::JoinHandle<Result<()>>,
    receiver: thread::JoinHandle<Result<usize>>,
}

impl Transfer {
    /// Waits for all of them.
    ///
    /// # Errors
    /// When some do not arrive.
    pub fn finish(self) -> Result<()> {
        let panicked = |_| anyhow::anyhow!("a thread of a transfer panicked");
        self.sender.join().map_err(panicked)??;
        let received = self.receiver.join().map_err(panicked)??;
        ensure!(received == self.bytes, "{received} of {} bytes", self.bytes);
        Ok(())
    }
}

fn say(from: &mut TcpStream, to: &mut TcpStream) -> Result<()> {
    let mut word = [0; 5];
    from.write_all(b"hello")?;
    to.read_exact(&mut word)?;
    ensure!(&word == b"hello", "{word:?}");
    Ok(())
}
