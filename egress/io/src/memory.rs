// SPDX-License-Identifier: Apache-2.0
//! What a restart must not forget: the rules of the last decision, so that connections go on whose
//! policy went away before the restart or during it.
//!
//! Programs and tables of the kernel stay over a restart and know rules by their numbers. What a
//! number meant is in no object any more once its policy is gone: it is kept here, until the next
//! reboot, with which the tables go.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use egress_core::{Desired, GatewayRule, PolicyId, RuleEnd, RuleNumber};
use serde::{Deserialize, Serialize};

/// The file's name in the folder of the daemon's state.
const FILE: &str = "egress.json";

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The rules of a decision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rules {
    /// See [`Desired::ends`].
    ends: BTreeMap<RuleNumber, RuleEnd>,
    /// See [`Desired::gateway`].
    gateway: BTreeMap<RuleNumber, GatewayRule>,
    /// Since when rules drain, in milliseconds since the boot.
    #[serde(default)]
    drain_since: BTreeMap<RuleNumber, u64>,
    /// Since when rules have addresses no more that connections have still.
    #[serde(default)]
    left_since: Vec<Left>,
    /// Addresses of pods that policies select or did, while there may be connections of that time.
    pods: BTreeSet<IpAddr>,
}

/// An address that a rule has no more.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Left {
    rule: u32,
    address: IpAddr,
    /// In milliseconds since the boot.
    since: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    version: u32,
    boot_id: String,
    rules: Rules,
}

const VERSION: u32 = 1;

/// Why nothing is known of before.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MemoryError {
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, io::Error),
    #[error("cannot write {0}: {1}")]
    Write(PathBuf, io::Error),
    #[error(
        "{0}: {1}; connections of policies that were deleted before the restart end, all others go on"
    )]
    Format(PathBuf, serde_json::Error),
}

/// The file, and what is in it.
#[derive(Debug)]
pub(crate) struct Memory {
    path: PathBuf,
    boot_id: String,
    written: Rules,
}

/// What was known before the restart.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    /// The ends and the gateway's rules; nothing else.
    pub(crate) desired: Desired,
    /// Since when rules drain.
    pub(crate) drains: BTreeMap<RuleNumber, Instant>,
    /// See [`bpf_loader::Gateway::left`], with the moments.
    pub(crate) left: BTreeMap<(u32, IpAddr), Instant>,
    /// Addresses of pods that policies selected.
    pub(crate) pods: BTreeSet<IpAddr>,
}

impl Memory {
    /// The file in this folder. Nothing is read.
    pub(crate) fn new(folder: &Path) -> Memory {
        // Without one every start is after a boot.
        let boot_id = fs::read_to_string(BOOT_ID).unwrap_or_default();
        Memory {
            path: folder.join(FILE),
            boot_id: boot_id.trim().to_owned(),
            written: Rules::default(),
        }
    }

    /// What was written since the boot; nothing if there is no such file.
    ///
    /// # Errors
    /// When the file cannot be read, or is not one of these.
    pub(crate) fn read(&self, now: Instant) -> Result<Remembered, MemoryError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Remembered::default()),
            Err(error) => return Err(MemoryError::Read(self.path.clone(), error)),
        };
        let document: Document = serde_json::from_slice(&bytes)
            .map_err(|error| MemoryError::Format(self.path.clone(), error))?;
        let is_ours = document.version == VERSION
            && document.boot_id == self.boot_id
            && !self.boot_id.is_empty();
        if !is_ours {
            return Ok(Remembered::default());
        }
        let Rules {
            ends,
            gateway,
            drain_since,
            left_since,
            pods,
        } = document.rules;
        let uptime = bpf_loader::clock::since_boot();
        let since = |at: u64| {
            let ago = uptime.saturating_sub(Duration::from_millis(at));
            now.checked_sub(ago).unwrap_or(now)
        };
        Ok(Remembered {
            desired: Desired {
                ends,
                gateway,
                ..Desired::default()
            },
            drains: drain_since
                .into_iter()
                .map(|(rule, at)| (rule, since(at)))
                .collect(),
            left: left_since
                .into_iter()
                .map(|left| ((left.rule, left.address), since(left.since)))
                .collect(),
            pods,
        })
    }

    /// Writes what is to be known after a restart, if it is not written already.
    ///
    /// # Errors
    /// When the file cannot be written. It is tried again with the next call.
    pub(crate) fn write(
        &mut self,
        desired: &Desired,
        drains: &BTreeMap<RuleNumber, Instant>,
        left: &BTreeMap<(u32, IpAddr), Instant>,
        leavers: &BTreeSet<IpAddr>,
        now: Instant,
    ) -> Result<(), MemoryError> {
        let uptime = bpf_loader::clock::since_boot();
        let at = |since: &Instant| {
            let ago = now.saturating_duration_since(*since);
            uptime.saturating_sub(ago).as_millis() as u64
        };
        // The moment it began at does not change from one call to the next.
        let drain_at = |rule: &RuleNumber, since: &Instant| {
            let written = self.written.drain_since.get(rule).copied();
            written.unwrap_or_else(|| at(since))
        };
        let left_at = |(rule, address): (u32, IpAddr), since: &Instant| {
            let since = at(since);
            let mut written = self.written.left_since.iter();
            let written = written.find(|one| {
                (one.rule, one.address) == (rule, address) && one.since.abs_diff(since) <= 1000
            });
            written.copied().unwrap_or(Left {
                rule,
                address,
                since,
            })
        };
        let rules = Rules {
            ends: desired.ends.clone(),
            gateway: desired.gateway.clone(),
            drain_since: drains
                .iter()
                .map(|(rule, since)| (*rule, drain_at(rule, since)))
                .collect(),
            left_since: left.iter().map(|(of, since)| left_at(*of, since)).collect(),
            pods: desired.sources.keys().chain(leavers).copied().collect(),
        };
        if rules == self.written {
            return Ok(());
        }
        let document = Document {
            version: VERSION,
            boot_id: self.boot_id.clone(),
            rules,
        };
        let failed = |error| MemoryError::Write(self.path.clone(), error);
        let bytes = serde_json::to_vec(&document)
            .map_err(|error| MemoryError::Format(self.path.clone(), error))?;
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        // Whole or not at all. What a reboot leaves of it is of no use, so it need not reach the
        // disk.
        let beside = self.path.with_extension("json.new");
        fs::write(&beside, bytes).map_err(failed)?;
        fs::rename(&beside, &self.path).map_err(failed)?;
        self.written = document.rules;
        Ok(())
    }
}

impl Remembered {
    /// Which policies the held addresses were of.
    pub(crate) fn held(&self, addresses: &BTreeSet<IpAddr>) -> BTreeMap<IpAddr, PolicyId> {
        let rules = self.desired.gateway.values().filter(|rule| rule.is_held);
        let all = rules.flat_map(|rule| {
            let policy = &rule.key.policy;
            rule.addresses()
                .map(move |address| (address, policy.clone()))
        });
        all.filter(|(address, _)| addresses.contains(address))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use egress_core::{
        End, Exit, Life, PodKey, PolicyKind, PortRange, RuleKey, SetNumber, Source, Timeouts,
    };

    use super::*;

    fn number() -> RuleNumber {
        RuleNumber::new(5000).unwrap()
    }

    fn decided() -> Desired {
        let key = RuleKey {
            policy: PolicyId {
                kind: PolicyKind::Causeway,
                name: "billing".to_owned(),
            },
            group: 0,
            exit: Exit::Shared,
        };
        let rule = GatewayRule {
            key: key.clone(),
            v4: vec!["192.0.2.1".parse().unwrap()],
            v6: vec!["2001:db8::1".parse().unwrap()],
            output: Some(7),
            ports: PortRange::default(),
            is_udp_endpoint_independent: false,
            timeouts: Timeouts::default(),
            is_held: true,
            drain: Some(Duration::from_secs(60)),
            life: Life::Draining {
                at_most: Some(Duration::from_secs(60)),
            },
        };
        let end = RuleEnd {
            key,
            gateway: "gw1".to_owned(),
            end: End::Remote("10.0.0.11".parse().unwrap()),
            neighbours: Vec::new(),
            drain: None,
            life: Life::Active,
        };
        let pod = PodKey {
            namespace: "shop".to_owned(),
            name: "billing-1".to_owned(),
        };
        let source = Source {
            pod,
            set: SetNumber(NonZeroU32::MIN),
            is_known_to_all: true,
        };
        Desired {
            sources: [("10.244.0.1".parse().unwrap(), source)].into(),
            ends: [(number(), end)].into(),
            gateway: [(number(), rule)].into(),
            ..Desired::default()
        }
    }

    #[test]
    fn the_next_process_knows_what_the_last_one_decided() {
        let folder = tempfile::tempdir().unwrap();
        let now = Instant::now();
        let nothing = Memory::new(folder.path()).read(now).unwrap();
        assert_eq!(nothing.desired, Desired::default());
        let (desired, leaver) = (decided(), "10.244.0.9".parse().unwrap());
        let since = now.checked_sub(Duration::from_secs(5)).unwrap_or(now);
        let mut memory = Memory::new(folder.path());
        let drains = [(number(), since)].into();
        let left = [((5000, leaver), since)].into();
        let leavers = [leaver].into();
        let mut write = |now| memory.write(&desired, &drains, &left, &leavers, now);
        write(now).unwrap();
        // Written once more it is the same.
        let bytes = fs::read(folder.path().join(FILE)).unwrap();
        write(now + Duration::from_millis(999)).unwrap();
        assert_eq!(fs::read(folder.path().join(FILE)).unwrap(), bytes);

        let later = now + Duration::from_secs(1);
        let known = Memory::new(folder.path()).read(later).unwrap();
        assert_eq!(known.desired.ends, desired.ends);
        assert_eq!(known.desired.gateway, desired.gateway);
        assert_eq!(known.pods, ["10.244.0.1".parse().unwrap(), leaver].into());
        let drained = later.duration_since(known.drains[&number()]);
        let left = later.duration_since(known.left[&(5000, leaver)]);
        // To the millisecond, as the boot's clock counts.
        let exact = Duration::from_millis(2);
        for ago in [drained, left] {
            let most = since.elapsed() + exact;
            assert!(ago + exact >= now - since && ago <= most, "{ago:?}");
        }
        let found = ["192.0.2.1", "198.51.100.1"].map(|at| at.parse().unwrap());
        let held = known.held(&found.into());
        assert_eq!(held.into_keys().collect::<Vec<_>>(), found[..1]);
    }

    #[test]
    fn a_file_of_another_boot_says_nothing_and_a_broken_one_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let now = Instant::now();
        let mut memory = Memory::new(folder.path());
        memory.boot_id = "another".to_owned();
        let (drains, left, leavers) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let write = |memory: &mut Memory| {
            let decided = decided();
            memory.write(&decided, &drains, &left, &leavers, now)
        };
        write(&mut memory).unwrap();
        let known = Memory::new(folder.path()).read(now).unwrap();
        assert_eq!(known.desired, Desired::default());
        let path = folder.path().join(FILE);
        fs::write(&path, "{").unwrap();
        let error = Memory::new(folder.path()).read(now).unwrap_err();
        assert!(error.to_string().contains("egress.json"), "{error}");
        // The next decision mends it.
        write(&mut Memory::new(folder.path())).unwrap();
        let known = Memory::new(folder.path()).read(now).unwrap();
        assert_eq!(known.desired.gateway, decided().gateway);
    }
}
