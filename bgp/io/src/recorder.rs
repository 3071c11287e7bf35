// SPDX-License-Identifier: Apache-2.0
//! Writes every input of every machine to a file, for `bgp_core::record` to replay.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bgp_core::config::InstanceName;
use bgp_core::record::{Line, RecordedEvent};

/// A recording under way, or none. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Option<Arc<Recording>>);

#[derive(Debug)]
struct Recording {
    began: Instant,
    file: Mutex<Option<File>>,
}

impl Recorder {
    /// Records nothing.
    pub fn off() -> Recorder {
        Recorder(None)
    }

    /// Records into a file, which is made or emptied. A recording must begin with the speaker to be
    /// complete.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn to_file(path: &Path) -> io::Result<Recorder> {
        let file = Mutex::new(Some(File::create(path)?));
        Ok(Recorder(Some(Arc::new(Recording {
            began: Instant::now(),
            file,
        }))))
    }

    /// Notes an event. It is made only when something records.
    pub(crate) fn note(
        &self,
        instance: &InstanceName,
        at: Instant,
        event: impl FnOnce() -> RecordedEvent,
    ) {
        let Some(recording) = &self.0 else { return };
        let line = Line {
            at_us: at.saturating_duration_since(recording.began).as_micros() as u64,
            instance: instance.clone(),
            event: event(),
        };
        let mut file = recording
            .file
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(open) = &mut *file
            && let Err(error) = open.write_all(line.to_json().as_bytes())
        {
            // A full disk must not touch the sessions; half a recording is none.
            tracing::error!(%error, "the recording ends here: it cannot be written");
            *file = None;
        }
    }
}
