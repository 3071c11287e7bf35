// SPDX-License-Identifier: Apache-2.0
//! The speakers that are measured: their configurations and how they start.

mod bird;
mod causeway;
mod frr;
mod gobgp;
mod openbgpd;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::Process;
use crate::table::Family;
use crate::world::World;

pub use causeway::{SpeakerFile, SpeakerPeer};

/// The AS of every speaker that is measured.
pub const SPEAKER_ASN: u32 = 64999;
/// What all keep their files in, of those in the lab's Debian.
const FOLDER: &str = "/etc/bench";

/// A speaker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Subject {
    /// The daemon of this checkout, by its program.
    Causewayd(PathBuf),
    /// `bgp-io` and nothing else, by the program of this package.
    Speaker(PathBuf),
    /// BIRD 2.
    Bird2,
    /// BIRD 3, with as many threads as there are processors.
    Bird3,
    /// FRR's bgpd, without zebra.
    Frr,
    /// GoBGP.
    GoBgp,
    /// OpenBGPD.
    OpenBgpd,
}

/// What a speaker is told of a peer.
#[derive(Clone, Debug)]
pub struct Neighbour {
    /// Where it calls from.
    pub address: IpAddr,
    /// Its AS.
    pub asn: u32,
    /// The family of the session.
    pub family: Family,
    /// The community that the policy towards it adds; `None` has no policy.
    pub adds: Option<u32>,
}

/// What a speaker is told.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The speaker's address.
    pub address: IpAddr,
    /// All peers.
    pub neighbours: Vec<Neighbour>,
}

impl Subject {
    /// The name in tables and on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Subject::Causewayd(_) => "causewayd",
            Subject::Speaker(_) => "speaker",
            Subject::Bird2 => "bird2",
            Subject::Bird3 => "bird3",
            Subject::Frr => "frr",
            Subject::GoBgp => "gobgp",
            Subject::OpenBgpd => "openbgpd",
        }
    }

    /// All that this package does not build.
    pub fn rivals() -> [Subject; 5] {
        [
            Subject::Bird2,
            Subject::Bird3,
            Subject::Frr,
            Subject::GoBgp,
            Subject::OpenBgpd,
        ]
    }

    /// What is said about the configuration beside the numbers.
    pub fn remark(&self) -> &'static str {
        match self {
            Subject::Causewayd(_) => "`transit: true`, `installRoutes: false`, `import: All`",
            Subject::Speaker(_) => "`bgp-io` alone: transit, import of everything",
            Subject::Bird2 => "`import all; export all; next hop self`, no protocol kernel",
            Subject::Bird3 => "as BIRD 2, `threads` as many as processors",
            Subject::Frr => "`bgpd -n -Z`, `no bgp ebgp-requires-policy`, interval 0",
            Subject::GoBgp => "defaults, no zebra",
            Subject::OpenBgpd => "`fib-update no`, `allow from any`, `allow to any`",
        }
    }

    /// Which version it is, by its own word.
    ///
    /// # Errors
    /// When the program is not there.
    pub fn version(&self, world: &World) -> Result<String> {
        let (program, argument) = match self {
            Subject::Causewayd(path) => (path.display().to_string(), "--version"),
            Subject::Speaker(_) => return Ok("this checkout".to_owned()),
            Subject::Bird2 => (bird::BIRD2.to_owned(), "--version"),
            Subject::Bird3 => (bird::BIRD3.to_owned(), "--version"),
            Subject::Frr => (frr::PROGRAM.to_owned(), "--version"),
            Subject::GoBgp => (gobgp::PROGRAM.to_owned(), "--version"),
            Subject::OpenBgpd => (openbgpd::PROGRAM.to_owned(), "-V"),
        };
        let mut command = if self.is_rival() {
            let mut command = Command::new("chroot");
            command.arg(world.root()).arg(program);
            command
        } else {
            Command::new(program)
        };
        let output = command.arg(argument).output().context("cannot ask")?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let line = text
            .lines()
            .find(|line| line.contains(|c: char| c.is_ascii_digit()));
        Ok(line.unwrap_or("unknown").trim().to_owned())
    }

    /// Starts it with a configuration.
    ///
    /// # Errors
    /// When files cannot be written or the program not be started.
    pub fn start(&self, world: &World, setup: &Setup) -> Result<Process> {
        let argv = match self {
            Subject::Causewayd(program) => causeway::daemon(world, setup, program)?,
            Subject::Speaker(program) => causeway::speaker(world, setup, program)?,
            Subject::Bird2 => bird::prepare(world, setup, bird::BIRD2)?,
            Subject::Bird3 => bird::prepare(world, setup, bird::BIRD3)?,
            Subject::Frr => frr::prepare(world, setup)?,
            Subject::GoBgp => gobgp::prepare(world, setup)?,
            Subject::OpenBgpd => openbgpd::prepare(world, setup)?,
        };
        Process::start(world, &argv, self.is_rival())
    }

    /// Whether it is somebody else's.
    pub fn is_rival(&self) -> bool {
        match self {
            Subject::Causewayd(_) | Subject::Speaker(_) => false,
            Subject::Bird2 | Subject::Bird3 | Subject::Frr | Subject::GoBgp | Subject::OpenBgpd => {
                true
            }
        }
    }
}

/// Writes a file where the lab's Debian finds it by this path.
fn write(world: &World, path: &str, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = world.root().join(path.trim_start_matches('/'));
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    // OpenBGPD reads no configuration that others may read.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(())
}

/// A community as people write it.
fn community(number: u32) -> (u32, u32) {
    (number >> 16, number & 0xffff)
}
