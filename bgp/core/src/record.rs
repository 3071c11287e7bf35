// SPDX-License-Identifier: Apache-2.0
//! Recordings: every input of every machine, one JSON object a line, and their replay.
//!
//! A recording that begins with the machines is complete: replayed, they do the same again, since
//! time and randomness are inputs, too. So a bug from the field becomes a test by copying its
//! recording. Passwords are not in recordings; addresses and routes are.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config::{InstanceConfig, InstanceName, PeerConfig, PeerName};
use crate::peer::{LocalSpeaker, Peer, PeerInput, PeerOutput};
use crate::rib::{Rib, RibInput};

/// One line of a recording.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Microseconds since the recording began.
    pub at_us: u64,
    /// The instance concerned.
    pub instance: InstanceName,
    /// What happened.
    pub event: RecordedEvent,
}

/// What a recording notes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum RecordedEvent {
    /// A neighbour's machine was made.
    PeerBegins {
        /// Its name.
        peer: PeerName,
        /// Its configuration.
        config: Box<PeerConfig>,
        /// The speaker it is a neighbour of.
        local: LocalSpeaker,
        /// The seed of its jitter.
        seed: u64,
    },
    /// A neighbour's machine was told something.
    Peer {
        /// Its name.
        peer: PeerName,
        /// What.
        input: PeerInput,
    },
    /// A RIB was made.
    RibBegins {
        /// The instance's configuration.
        config: Box<InstanceConfig>,
    },
    /// A RIB was told something.
    Rib {
        /// What.
        input: RibInput,
    },
}

/// Why a recording cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A line is not of a recording.
    #[error("line {line}: {error}: use a file written by the recorder of this version")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        error: serde_json::Error,
    },
    /// An input for a machine whose beginning is not recorded.
    #[error("line {line}: {machine} has no beginning: record from the start of the speaker")]
    NoBeginning {
        /// The line, from 1.
        line: usize,
        /// The machine.
        machine: String,
    },
}

impl Line {
    /// The line as it is written, with its line end.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// Runs a recording and returns everything the machines put out, as text for comparison: a line
/// for each output, after a line for each input that made one.
///
/// # Errors
/// Lines that cannot be read, and machines whose beginning is missing.
pub fn replay(recording: &str) -> Result<String, ReplayError> {
    let base = Instant::now();
    let mut peers: BTreeMap<(InstanceName, PeerName), Peer> = BTreeMap::new();
    let mut ribs: BTreeMap<InstanceName, (Rib, Vec<PeerName>)> = BTreeMap::new();
    let mut out = String::new();
    for (number, text) in recording.lines().enumerate() {
        let line = number + 1;
        if text.trim().is_empty() {
            continue;
        }
        let Line {
            at_us,
            instance,
            event,
        } = serde_json::from_str(text).map_err(|error| ReplayError::Syntax { line, error })?;
        let now = base + Duration::from_micros(at_us);
        let missing = |machine: String| ReplayError::NoBeginning { line, machine };
        match event {
            RecordedEvent::PeerBegins {
                peer,
                config,
                local,
                seed,
            } => {
                let machine = Peer::new(peer.clone(), *config, local, seed, now);
                peers.insert((instance, peer), machine);
            }
            RecordedEvent::Peer { peer, input } => {
                let key = (instance, peer);
                let machine = peers
                    .get_mut(&key)
                    .ok_or_else(|| missing(format!("peer {}", key.1)))?;
                machine.handle(input, now);
                while let Some(output) = machine.poll_output() {
                    note(&mut out, at_us, &key.1.0, &peer_output(&output));
                }
                if let Some((at, why)) = machine.poll_timeout() {
                    let at = at.saturating_duration_since(base).as_micros();
                    note(
                        &mut out,
                        at_us,
                        &key.1.0,
                        &format!("waits for {why} at {at}"),
                    );
                }
            }
            RecordedEvent::RibBegins { config } => {
                let names = config.peers().keys().cloned().collect();
                ribs.insert(instance, (Rib::new(*config, now), names));
            }
            RecordedEvent::Rib { input } => {
                let (rib, names) = ribs
                    .get_mut(&instance)
                    .ok_or_else(|| missing(format!("rib {instance}")))?;
                if let RibInput::Configure(config) = &input {
                    *names = config.peers().keys().cloned().collect();
                }
                rib.handle(input, now);
                while let Some(output) = rib.poll_output() {
                    note(&mut out, at_us, "rib", &format!("{output:?}"));
                }
                while let Some(change) = rib.poll_best() {
                    note(&mut out, at_us, "rib", &format!("{change:?}"));
                }
                for name in names {
                    while let Some(transmit) = rib.poll_transmit(name) {
                        let text = format!("sends {name} {}", hex(&transmit.bytes));
                        note(&mut out, at_us, "rib", &text);
                    }
                }
            }
        }
    }
    Ok(out)
}

fn note(out: &mut String, at_us: u64, who: &str, what: &str) {
    writeln!(out, "{at_us} {who}: {what}").expect("a string takes any text");
}

fn peer_output(output: &PeerOutput) -> String {
    match output {
        PeerOutput::Send { conn, bytes } => format!("Send {conn:?} {}", hex(bytes)),
        PeerOutput::Connect { .. }
        | PeerOutput::Close { .. }
        | PeerOutput::Up { .. }
        | PeerOutput::Down { .. }
        | PeerOutput::Routes(_)
        | PeerOutput::Resend { .. }
        | PeerOutput::RefreshBegins { .. }
        | PeerOutput::RefreshEnds { .. } => format!("{output:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
