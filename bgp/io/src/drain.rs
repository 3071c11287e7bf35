// SPDX-License-Identifier: Apache-2.0
//! Draining the node: everything is announced with GRACEFUL_SHUTDOWN (RFC 8326), so that neighbours
//! choose other ways while this one still works; then nothing is announced any more. Sessions
//! stay.
//!
//! What was asked for lies in a file and survives the daemon. A file that cannot be read counts as a
//! drain that is done: a node somebody took out of service must not come back by an accident.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bgp_core::config::{InstanceConfig, InstanceName};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::speaker::Speaker;

/// The file's name, in the state directory.
const NAME: &str = "drain.json";

/// How long neighbours may take to be handed the marked routes. One that does not read must not keep
/// the node in service.
const TELLING: Duration = Duration::from_secs(30);

/// How often it is looked at whether neighbours have been told.
const LOOK: Duration = Duration::from_millis(200);

/// A drain that was asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Asked {
    /// When, Unix time in seconds.
    pub since_unix_s: u64,
    /// For how long GRACEFUL_SHUTDOWN is announced before routes are withdrawn.
    pub wait_s: u64,
    /// Whether they are.
    pub withdrawn: bool,
    /// The operator's words.
    pub reason: String,
}

/// Whether the node is drained. One for the daemon; shared.
#[derive(Debug)]
pub struct Drain {
    path: PathBuf,
    asked: Mutex<Option<Asked>>,
    /// Tells whoever configures the speaker.
    changed: Arc<Notify>,
    /// Tells [`Drain::run`].
    wake: Notify,
}

impl Drain {
    /// Reads what was asked for in an earlier run. `changed` is told of every change.
    pub fn open(state_directory: &Path, changed: Arc<Notify>) -> Drain {
        let path = state_directory.join(NAME);
        let asked = read(&path);
        if let Some(asked) = &asked {
            tracing::warn!(withdrawn = asked.withdrawn, reason = %asked.reason, "the node is drained");
        }
        Drain {
            path,
            asked: Mutex::new(asked),
            changed,
            wake: Notify::new(),
        }
    }

    /// What was asked for.
    pub fn asked(&self) -> Option<Asked> {
        lock(&self.asked).clone()
    }

    /// Begins a drain, or gives one that goes on another wait and reason.
    ///
    /// # Errors
    /// When it cannot be written down; nothing is changed then.
    pub fn begin(&self, wait: Duration, reason: String) -> io::Result<()> {
        let before = self.asked();
        #[expect(clippy::disallowed_methods, reason = "for people to read")]
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let asked = Asked {
            since_unix_s: match &before {
                Some(before) => before.since_unix_s,
                None => now.unwrap_or_default().as_secs(),
            },
            wait_s: wait.as_secs(),
            withdrawn: before.is_some_and(|before| before.withdrawn),
            reason,
        };
        tracing::warn!(wait_s = asked.wait_s, reason = %asked.reason, "draining the node");
        self.set(Some(asked))
    }

    /// Ends a drain. Returns whether there was one.
    ///
    /// # Errors
    /// When the file cannot be removed; the node stays drained then.
    pub fn end(&self) -> io::Result<bool> {
        if self.asked().is_none() {
            return Ok(false);
        }
        self.set(None)?;
        tracing::warn!("the node is no longer drained");
        Ok(true)
    }

    /// What an instance is, with the drain.
    pub fn apply(&self, config: &mut InstanceConfig) {
        if let Some(asked) = self.asked() {
            config.graceful_shutdown = true;
            config.drained |= asked.withdrawn;
        }
    }

    /// Withdraws when the time has come, for as long as the daemon runs.
    pub async fn run(self: Arc<Drain>, speaker: Speaker) {
        loop {
            match self.asked().filter(|asked| !asked.withdrawn) {
                None => self.wake.notified().await,
                Some(asked) => tokio::select! {
                    () = self.wake.notified() => {}
                    () = announce(&speaker, asked.wait_s) => self.withdraw(),
                },
            }
        }
    }

    fn withdraw(&self) {
        let Some(asked) = self.asked() else { return };
        tracing::warn!("drained: nothing is announced any more");
        let done = Asked {
            withdrawn: true,
            ..asked
        };
        if let Err(error) = self.set(Some(done.clone())) {
            // The wait begins anew after a restart: the node is still on its way out.
            tracing::error!(%error, file = %self.path.display(), "cannot be written");
            *lock(&self.asked) = Some(done);
            self.changed.notify_one();
        }
    }

    fn set(&self, asked: Option<Asked>) -> io::Result<()> {
        match &asked {
            Some(asked) => write(&self.path, asked)?,
            None => match fs::remove_file(&self.path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => sync_folder(&self.path)?,
            },
        }
        *lock(&self.asked) = asked;
        self.changed.notify_one();
        self.wake.notify_one();
        Ok(())
    }
}

/// Waits until neighbours have been handed what is marked, and then for as long as was asked.
async fn announce(speaker: &Speaker, wait_s: u64) {
    let told = async {
        while !is_told(speaker).await {
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(TELLING, told).await.is_err() {
        tracing::warn!("a peer does not take what it is sent; it is not waited for");
    }
    tokio::time::sleep(Duration::from_secs(wait_s)).await;
}

async fn is_told(speaker: &Speaker) -> bool {
    let snapshot = speaker.sessions().await;
    let names: Vec<InstanceName> = snapshot
        .iter()
        .map(|instance| instance.config.name().clone())
        .collect();
    for name in names {
        let told = speaker.ask(&name, |rib, _| rib.is_everybody_told()).await;
        if told == Some(false) {
            return false;
        }
    }
    snapshot
        .iter()
        .all(|instance| instance.config.graceful_shutdown)
}

/// Every change under the lock is one assignment: a panic leaves nothing half done.
fn lock(asked: &Mutex<Option<Asked>>) -> MutexGuard<'_, Option<Asked>> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(path: &Path) -> Option<Asked> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => return Some(unreadable(path, &error.to_string())),
    };
    Some(serde_json::from_str(&text).unwrap_or_else(|error| unreadable(path, &error.to_string())))
}

fn unreadable(path: &Path, why: &str) -> Asked {
    Asked {
        since_unix_s: 0,
        wait_s: 0,
        withdrawn: true,
        reason: format!("{} cannot be read: {why}", path.display()),
    }
}

/// Writes in place of what is there, so that a crash leaves the one or the other.
fn write(path: &Path, asked: &Asked) -> io::Result<()> {
    let text = serde_json::to_string(asked)?;
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_folder(path)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use router_types::Asn;

    use super::*;

    /// A folder of its own, gone with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let name = format!("causeway-drain-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn open(&self) -> Drain {
            Drain::open(&self.0, Arc::default())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn applied(drain: &Drain) -> (bool, bool) {
        let id = Ipv4Addr::new(10, 0, 0, 1);
        let mut config = InstanceConfig::new("i".into(), Asn(65001), id).unwrap();
        drain.apply(&mut config);
        (config.graceful_shutdown, config.drained)
    }

    #[test]
    fn a_drain_outlives_the_daemon_in_each_of_its_phases() {
        let folder = Folder::new("phases");
        let drain = folder.open();
        assert_eq!(applied(&drain), (false, false));
        drain.begin(Duration::from_secs(60), "disk".into()).unwrap();
        assert_eq!(applied(&drain), (true, false));
        let drain = folder.open();
        assert_eq!(applied(&drain), (true, false));
        assert_eq!(drain.asked().unwrap().reason, "disk");
        drain.withdraw();
        let drain = folder.open();
        assert_eq!(applied(&drain), (true, true));
        // Asked for again, it does not come back into service for the wait.
        drain.begin(Duration::from_secs(5), "again".into()).unwrap();
        assert_eq!(applied(&drain), (true, true));
        assert!(drain.end().unwrap());
        assert!(!drain.end().unwrap());
        assert_eq!(applied(&folder.open()), (false, false));
    }

    #[test]
    fn a_file_that_cannot_be_read_keeps_the_node_out_of_service() {
        let folder = Folder::new("broken");
        fs::write(folder.0.join(NAME), "{\"since").unwrap();
        let drain = folder.open();
        assert_eq!(applied(&drain), (true, true));
        assert!(drain.asked().unwrap().reason.contains(NAME));
        assert!(drain.end().unwrap());
        assert_eq!(applied(&folder.open()), (false, false));
    }

    #[test]
    fn a_drain_that_cannot_be_written_down_does_not_begin() {
        let folder = Folder::new("gone");
        let drain = folder.open();
        fs::remove_dir_all(&folder.0).unwrap();
        assert!(drain.begin(Duration::ZERO, String::new()).is_err());
        assert_eq!(applied(&drain), (false, false));
    }
}
