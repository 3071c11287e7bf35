// SPDX-License-Identifier: Apache-2.0
//! BFD sessions beside a bench: our own process in the speaker's namespace, another one in the
//! peers', and how often they lost each other.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bgp_bfd::profile::{Interval, Profile};
use bgp_bfd::wire::State;
use bgp_bfdd::protocol::{self, Event, Report, Request, SessionKey, VERSION, Wanted};

use crate::world::{SPEAKER_V4, World, peer_v4};

/// How often each end sends, and how many packets missing in a row mean down.
const INTERVAL_MS: u64 = 50;
const MULTIPLIER: u8 = 3;

/// How long the processes may take to serve, and sessions to come up.
const LIMIT: Duration = Duration::from_secs(20);
/// Longer than any answer.
const ANSWER: Duration = Duration::from_secs(10);

/// What became of the sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Measured {
    /// How many there were.
    pub sessions: usize,
    /// How often one was lost, at the end that saw more of it.
    pub flaps: u64,
    /// How late a timer of the speaker's process was served at most.
    pub latest: Duration,
}

/// The sessions of a run.
pub struct Bfd {
    speaker: End,
    peers: End,
    sessions: usize,
}

/// One process.
struct End {
    child: Child,
    stream: UnixStream,
    questions: u64,
}

impl Bfd {
    /// Starts both processes and a session for each of these peers, and waits until all are up.
    ///
    /// # Errors
    /// When a process does not start, or a session does not come up.
    pub fn start(world: &World, program: &Path, peers: Range<u16>) -> Result<Bfd> {
        let namespace = world.speaker().as_raw_fd();
        let mut bfd = Bfd {
            speaker: End::start(world, program, "bfd-speaker", Some(namespace))?,
            peers: End::start(world, program, "bfd-peers", None)?,
            sessions: peers.len(),
        };
        for number in peers {
            let peer: IpAddr = peer_v4(number).into();
            bfd.speaker.want(peer, SPEAKER_V4.into())?;
            bfd.peers.want(SPEAKER_V4.into(), peer)?;
        }
        let start = Instant::now();
        loop {
            let reports = [bfd.speaker.report()?, bfd.peers.report()?];
            let up = reports.each_ref().map(|report| {
                let sessions = report.sessions.iter();
                sessions.filter(|s| s.status.state == State::Up).count()
            });
            if up == [bfd.sessions; 2] {
                return Ok(bfd);
            }
            ensure!(
                start.elapsed() < LIMIT,
                "of {} BFD sessions {up:?} are up",
                bfd.sessions
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What became of them by now.
    ///
    /// # Errors
    /// When a process does not answer any more.
    pub fn measured(&mut self) -> Result<Measured> {
        let reports = [self.speaker.report()?, self.peers.report()?];
        let flaps = reports.each_ref().map(|report| {
            let sessions = report.sessions.iter();
            sessions.map(|s| s.status.down_count).sum::<u64>()
        });
        let [speaker, _] = &reports;
        Ok(Measured {
            sessions: self.sessions,
            flaps: flaps[0].max(flaps[1]),
            latest: Duration::from_micros(speaker.lateness_max_us),
        })
    }
}

impl End {
    fn start(world: &World, program: &Path, name: &str, namespace: Option<RawFd>) -> Result<End> {
        let socket: PathBuf = world.dir().join(format!("{name}.sock"));
        let log = File::create(world.dir().join(format!("{name}.log")))?;
        let mut command = Command::new(program);
        command
            .arg("--socket")
            .arg(&socket)
            .args(["--log", "warn"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        // SAFETY: between fork and exec only system calls are made, on values made before.
        unsafe {
            command.pre_exec(move || {
                let checked = |code| match code {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                };
                if let Some(namespace) = namespace {
                    checked(libc::setns(namespace, libc::CLONE_NEWNET))?;
                }
                checked(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))
            });
        }
        let mut child = command.spawn().with_context(|| {
            format!(
                "cannot start {} (cargo build -p bgp-bfdd)",
                program.display()
            )
        })?;
        let start = Instant::now();
        let stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(error) => {
                    if let Some(status) = child.try_wait()? {
                        bail!("{name} ended: {status}");
                    }
                    ensure!(start.elapsed() < LIMIT, "{name} does not serve: {error}");
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        };
        stream.set_read_timeout(Some(ANSWER))?;
        let mut end = End {
            child,
            stream,
            questions: 0,
        };
        end.say(&Request::Hello {
            version: VERSION,
            owner: "bench".to_owned(),
        })?;
        match end.hear()? {
            Event::Hello { warnings, .. } => {
                for warning in warnings {
                    eprintln!("{name}: {warning}");
                }
            }
            Event::State { .. } | Event::Report { .. } => bail!("{name} does not greet"),
        }
        Ok(end)
    }

    fn want(&mut self, peer: IpAddr, local: IpAddr) -> Result<()> {
        let interval = Interval::from_ms(INTERVAL_MS)?;
        let profile = Profile {
            transmit: interval,
            receive: interval,
            multiplier: NonZeroU8::new(MULTIPLIER).context("not 0")?,
            ..Profile::default()
        };
        let key = SessionKey {
            peer,
            local: Some(local),
            interface: None,
            hops: Default::default(),
        };
        self.say(&Request::Want(Box::new(Wanted::new(key, profile))))
    }

    fn report(&mut self) -> Result<Report> {
        self.questions += 1;
        let question = self.questions;
        self.say(&Request::Report { id: question })?;
        loop {
            match self.hear()? {
                Event::Report { id, report } if id == question => return Ok(*report),
                Event::Hello { .. } | Event::State { .. } | Event::Report { .. } => {}
            }
        }
    }

    fn say(&mut self, request: &Request) -> Result<()> {
        protocol::write_frame(&mut self.stream, request).context("cannot speak to causeway-bfdd")
    }

    fn hear(&mut self) -> Result<Event> {
        let event = protocol::read_frame(&mut self.stream);
        event
            .context("causeway-bfdd does not answer")?
            .context("causeway-bfdd has ended")
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // What is measured is measured; the process must not stay.
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("cannot end causeway-bfdd: {error}");
        }
    }
}
