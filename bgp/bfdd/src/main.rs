// SPDX-License-Identifier: Apache-2.0
//! `causeway-bfdd`: runs BFD sessions for `causewayd`, and outlives it.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, bail};
use bgp_bfdd::server::{Options, Server};
use clap::Parser;
use nix::sys::signal::{SigSet, Signal};

/// Runs BFD sessions for causewayd, and outlives it.
#[derive(Parser, Debug)]
#[command(name = "causeway-bfdd", version, max_term_width = 100)]
struct Args {
    /// The socket causewayd asks for sessions on.
    #[arg(long, value_name = "PATH", default_value = "/run/causeway/bfd.sock")]
    socket: PathBuf,

    /// How many seconds sessions go on while nobody is connected who wants them.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    linger: u64,

    /// The least level of what is logged: error, warn, info, debug or trace.
    #[arg(long, default_value = "info")]
    log: String,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("causeway-bfdd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&args.log)
        .with_context(|| format!("--log {}: use error, warn, info, debug or trace", args.log))?;
    // Before any thread is there, so that all inherit it.
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGTERM);
    ends.add(Signal::SIGINT);
    ends.thread_block().context("blocking signals")?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(Lines::start())
        .init();
    let server = Server::start(Options {
        socket: args.socket.clone(),
        linger: Duration::from_secs(args.linger),
        lock_memory: true,
    })?;
    tracing::info!(socket = %args.socket.display(), version = env!("CARGO_PKG_VERSION"), "serving");
    let (told, ending) = mpsc::channel();
    std::thread::spawn(move || told.send(ends.wait()));
    let signal = loop {
        match ending.recv_timeout(Duration::from_secs(1)) {
            Ok(signal) => break signal.context("waiting for a signal")?,
            Err(RecvTimeoutError::Disconnected) => bail!("nobody waits for signals"),
            // Better no process than one without sessions: it is started again.
            Err(RecvTimeoutError::Timeout) if server.has_ended() => {
                bail!("the sessions' thread has ended")
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    };
    tracing::info!(%signal, "ending: neighbours are told AdminDown");
    server.end()?;
    Ok(())
}

/// Lines that may wait to be written.
const LINES: usize = 1024;

/// Writes lines by a thread of their own: the sessions' thread must not wait for whoever reads
/// them. When too many wait they are dropped.
#[derive(Clone)]
struct Lines(mpsc::SyncSender<Vec<u8>>);

impl Lines {
    fn start() -> impl Fn() -> Lines {
        let (sender, lines) = mpsc::sync_channel::<Vec<u8>>(LINES);
        std::thread::spawn(move || {
            while let Ok(line) = lines.recv() {
                // Nobody reads them: sessions go on all the same.
                let _ = io::stderr().write_all(&line);
            }
        });
        move || Lines(sender.clone())
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Full: see above.
        let _ = self.0.try_send(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
