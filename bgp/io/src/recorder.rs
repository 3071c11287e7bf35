// SPDX-License-Identifier: Apache-2.0
//! Writing down every input of every machine, for replay (`bgp_core::record`).

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bgp_core::config::{InstanceConfig, InstanceName, PeerConfig, PeerName};
use bgp_core::peer::{LocalSpeaker, PeerInput};
use bgp_core::record::{Line, RecordedEvent};
use bgp_core::rib::RibInput;

/// The recording, if one is written. Clones write to the same file.
#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<Option<Recording>>>);

struct Recording {
    began: Instant,
    file: BufWriter<File>,
}

impl Recorder {
    /// Begins a recording, in place of one under way.
    pub(crate) fn start(&self, path: &Path) -> std::io::Result<()> {
        let file = BufWriter::new(File::create(path)?);
        *self.lock() = Some(Recording {
            began: Instant::now(),
            file,
        });
        Ok(())
    }

    /// Ends the recording.
    pub(crate) fn stop(&self) -> std::io::Result<()> {
        match self.lock().take() {
            Some(mut recording) => recording.file.flush(),
            None => Ok(()),
        }
    }

    pub(crate) fn peer(
        &self,
        instance: &InstanceName,
        peer: &PeerName,
        config: &PeerConfig,
        local: &LocalSpeaker,
        seed: u64,
    ) -> RecordedPeer {
        let recorded = RecordedPeer {
            recorder: self.clone(),
            instance: instance.clone(),
            peer: peer.clone(),
        };
        self.note(instance, || RecordedEvent::PeerBegins {
            peer: peer.clone(),
            config: Box::new(config.clone()),
            local: local.clone(),
            seed,
        });
        recorded
    }

    pub(crate) fn rib(&self, config: &InstanceConfig) -> RecordedRib {
        self.note(config.name(), || RecordedEvent::RibBegins {
            config: Box::new(config.clone()),
        });
        RecordedRib {
            recorder: self.clone(),
            instance: config.name().clone(),
        }
    }

    fn note(&self, instance: &InstanceName, event: impl FnOnce() -> RecordedEvent) {
        let mut recording = self.lock();
        let Some(open) = recording.as_mut() else {
            return;
        };
        let at_us = open.began.elapsed().as_micros().min(u64::MAX.into()) as u64;
        let line = Line {
            at_us,
            instance: instance.clone(),
            event: event(),
        };
        if let Err(error) = open.file.write_all(line.to_json().as_bytes()) {
            tracing::warn!(%error, "recording ended: the file cannot be written");
            *recording = None;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Recording>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The recorder of a neighbour's machine.
pub(crate) struct RecordedPeer {
    recorder: Recorder,
    instance: InstanceName,
    peer: PeerName,
}

impl RecordedPeer {
    pub(crate) fn input(&self, input: &PeerInput) {
        self.recorder.note(&self.instance, || RecordedEvent::Peer {
            peer: self.peer.clone(),
            input: input.clone(),
        });
    }
}

/// The recorder of a RIB.
pub(crate) struct RecordedRib {
    recorder: Recorder,
    instance: InstanceName,
}

impl RecordedRib {
    pub(crate) fn input(&self, input: &RibInput) {
        self.recorder.note(&self.instance, || RecordedEvent::Rib {
            input: input.clone(),
        });
    }
}
