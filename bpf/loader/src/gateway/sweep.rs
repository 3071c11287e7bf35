// SPDX-License-Identifier: Apache-2.0
//! Removing what is over, and finding halves without the other one.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use bpf_abi::nat::{NatEntry, NatKey, V4, V6, side};

use super::{
    Cursor, Gateway,
    mapping::{self, Mapping, Phase, Said, ticks_of, ticks_since},
    now,
    tables::{Family, keys},
};
use crate::{Error, kernel::Position};

/// Entries read in one call: few enough for a pause between them to be short.
const BATCH: usize = 4_096;

/// Entries read at once for somebody who takes mappings in small portions.
const PAGE: usize = 512;

/// Every so many sweeps, halves are looked for whose other half is gone.
const FULL_EVERY: u64 = 16;

/// What a sweep found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Mappings that live on, by rule.
    pub live: BTreeMap<u32, u64>,
    /// Which ports of each address have connections of this gateway's own, by protocol number: a bit
    /// for each.
    ports: HashMap<(IpAddr, u8), Vec<u64>>,
    /// Mappings that were removed: idle for too long, or of a rule that is gone.
    pub removed: u64,
    /// Mappings of replicated rules among them, for the standby to hear of.
    pub replicated: Vec<Mapping>,
    /// Halves without the other one that were removed: a process died between two writes.
    pub halves: u64,
}

impl Swept {
    /// How many ports of each address have connections of this gateway's own, by protocol number.
    pub fn ports_used(&self) -> impl Iterator<Item = ((IpAddr, u8), u64)> {
        self.ports.iter().map(|(address, ports)| {
            let used = ports.iter().map(|word| u64::from(word.count_ones()));
            (*address, used.sum())
        })
    }
}

/// A sweep under way.
#[derive(Debug, Default)]
pub struct Sweep {
    cursor: Cursor,
    /// What it found and did so far.
    pub swept: Swept,
}

/// What becomes of an entry.
enum Fate {
    Stays,
    Over,
    Half,
}

impl Gateway {
    /// One portion of a family's table; where the next begins.
    fn sweep_batch<A: Family>(
        &mut self,
        at: Position,
        swept: &mut Swept,
    ) -> Result<Option<Position>, Error> {
        let is_full = self.sweeps.is_multiple_of(FULL_EVERY);
        let mut entries = Vec::with_capacity(BATCH);
        let next = self.tables.batch::<A>(at, BATCH, &mut entries)?;
        let now = now();
        for (key, entry) in &entries {
            if key.side == side::OUT {
                self.sweep_out(key, entry, now, swept)?;
            } else if is_full {
                self.sweep_back(key, entry, swept)?;
            }
        }
        Ok(next)
    }

    /// See [`Gateway::sweep_on`].
    pub(super) fn sweep_next(&mut self, sweep: &mut Sweep) -> Result<bool, Error> {
        if let Some(at) = sweep.cursor.v4 {
            sweep.cursor.v4 = self.sweep_batch::<V4>(at, &mut sweep.swept)?;
        } else if let Some(at) = sweep.cursor.v6 {
            sweep.cursor.v6 = self.sweep_batch::<V6>(at, &mut sweep.swept)?;
        }
        Ok(sweep.cursor.is_at_end())
    }

    /// See [`Gateway::find`].
    pub(super) fn find_of<A: Family>(&self, of: &Mapping) -> Result<Option<Mapping>, Error> {
        let (key, _) = keys::<A>(of)?;
        let Some(out) = self.tables.half::<A>(&key)? else {
            return Ok(None);
        };
        let back = self.tables.half::<A>(&mapping::back_key(&key, &out))?;
        let node = self.node_of(out.node);
        Ok(Some(mapping::read(&key, &out, back.as_ref(), node, now())))
    }

    /// See [`Gateway::next_mappings`].
    pub(super) fn next_of<A: Family>(
        &self,
        is_wanted: &dyn Fn(u32) -> bool,
        at: &mut Option<Position>,
        found: &mut Vec<Mapping>,
    ) -> Result<(), Error> {
        let Some(position) = *at else {
            return Ok(());
        };
        let mut entries = Vec::with_capacity(PAGE);
        *at = self.tables.batch::<A>(position, PAGE, &mut entries)?;
        let now = now();
        for (key, out) in &entries {
            if key.side == side::OUT && is_wanted(out.rule) {
                let back = self.tables.half::<A>(&mapping::back_key(key, out))?;
                let node = self.node_of(out.node);
                found.push(mapping::read(key, out, back.as_ref(), node, now));
            }
        }
        Ok(())
    }

    pub(super) fn mappings_of<A: Family>(&self) -> Result<Vec<Mapping>, Error> {
        let mut entries = Vec::new();
        let mut position = Some(Position::default());
        while let Some(at) = position {
            position = self.tables.batch::<A>(at, BATCH, &mut entries)?;
        }
        let now = now();
        let backs: BTreeMap<NatKey<A>, NatEntry<A>> = entries
            .iter()
            .filter(|(key, _)| key.side == side::BACK)
            .copied()
            .collect();
        let outs = entries.iter().filter(|(key, _)| key.side == side::OUT);
        Ok(outs
            .map(|(key, out)| {
                let back = backs.get(&mapping::back_key(key, out));
                mapping::read(key, out, back, self.node_of(out.node), now)
            })
            .collect())
    }

    pub(super) fn count_family<A: Family>(
        &self,
        live: &mut BTreeMap<u32, u64>,
    ) -> Result<(), Error> {
        let mut entries = Vec::with_capacity(BATCH);
        let mut position = Some(Position::default());
        while let Some(at) = position {
            entries.clear();
            position = self.tables.batch::<A>(at, BATCH, &mut entries)?;
            for (_, out) in entries.iter().filter(|(key, _)| key.side == side::OUT) {
                *live.entry(out.rule).or_default() += 1;
            }
        }
        Ok(())
    }

    fn sweep_out<A: Family>(
        &mut self,
        key: &NatKey<A>,
        out: &NatEntry<A>,
        now: u32,
        swept: &mut Swept,
    ) -> Result<(), Error> {
        match self.fate(key, out, now)? {
            Fate::Stays => {
                *swept.live.entry(out.rule).or_default() += 1;
                // The ports of a copy are used at the gateway that holds the address.
                if self.rules.get(&out.rule).is_some_and(|rule| rule.is_copy) {
                    return Ok(());
                }
                let address = (out.address.to_ip(), key.protocol);
                let ports = swept.ports.entry(address);
                let ports = ports.or_insert_with(|| vec![0; 1 << 10]);
                let port = u16::from_be(out.port);
                ports[usize::from(port >> 6)] |= 1 << (port & 63);
            }
            Fate::Over => {
                let mapping = mapping::read(key, out, None, self.node_of(out.node), now);
                // The out half first: while the back half stands, nobody else gets its port.
                self.tables.remove_half::<A>(key)?;
                self.tables.remove_half::<A>(&mapping::back_key(key, out))?;
                swept.removed += 1;
                if self
                    .rules
                    .get(&out.rule)
                    .is_some_and(|rule| rule.is_replicated)
                {
                    swept.replicated.push(mapping);
                }
            }
            Fate::Half => {
                self.tables.remove_half::<A>(key)?;
                swept.halves += 1;
            }
        }
        Ok(())
    }

    fn fate<A: Family>(
        &mut self,
        key: &NatKey<A>,
        out: &NatEntry<A>,
        now: u32,
    ) -> Result<Fate, Error> {
        let Some(rule) = self.rules.get(&out.rule) else {
            return Ok(Fate::Over);
        };
        let address = out.address.to_ip();
        // At a standby too: who takes over goes on counting.
        let left_at = rule.has_left(address).then(|| {
            let left = self.left.entry((out.rule, address));
            *left.or_insert(now)
        });
        if rule.is_copy {
            return Ok(Fate::Stays);
        }
        if let Some((left_at, drain)) = left_at.zip(rule.drain)
            && ticks_since(left_at, now) >= ticks_of(drain)
        {
            return Ok(Fate::Over);
        }
        // Copies do not tell of each packet: from a takeover on the time counts anew. After a
        // restart too, since nobody knows how long ago that was.
        let began = self.since.get(&out.rule).copied().or(self.adopted_at);
        let since = began.map_or(u32::MAX, |began| ticks_since(began, now));
        let idle = ticks_since(out.last_seen, now).min(since);
        if idle < ticks_of(rule.timeouts.shortest(key.protocol)) {
            return Ok(Fate::Stays);
        }
        let Some(back) = self.tables.half::<A>(&mapping::back_key(key, out))? else {
            return Ok(Fate::Half);
        };
        let idle = idle.min(ticks_since(back.last_seen, now));
        let phase = Phase::of(
            key.protocol,
            Said::from_bits(out.said),
            Said::from_bits(back.said),
        );
        Ok(if idle < ticks_of(rule.timeouts.of(phase)) {
            Fate::Stays
        } else {
            Fate::Over
        })
    }

    /// A back half whose out half is gone, or is another's.
    fn sweep_back<A: Family>(
        &mut self,
        key: &NatKey<A>,
        back: &NatEntry<A>,
        swept: &mut Swept,
    ) -> Result<(), Error> {
        /// A half this young may be waiting for the other one.
        const YOUNG_TICKS: u32 = 10_000;
        let age = ticks_since(back.last_seen, now());
        if age < YOUNG_TICKS {
            return Ok(());
        }
        let out = self.tables.half::<A>(&mapping::out_key(key, back))?;
        let is_whole =
            out.is_some_and(|out| out.address == key.local && out.port == key.local_port);
        if !is_whole {
            self.tables.remove_half::<A>(key)?;
            swept.halves += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        GatewayConfig, GatewayRule, HookChoice, PodNode, Timeouts, program_tests::isolate,
    };

    const RULE: u32 = 5_000;

    fn rule(timeout: Duration) -> GatewayRule {
        GatewayRule {
            interface: None,
            addresses: vec!["198.51.100.50".parse().expect("address")],
            first_port: 1024,
            last_port: u16::MAX,
            is_udp_endpoint_independent: false,
            is_replicated: true,
            is_draining: false,
            is_copy: false,
            drain: None,
            timeouts: Timeouts {
                tcp_opening: timeout,
                tcp_established: timeout,
                tcp_closing: timeout,
                udp_unanswered: timeout,
                udp: timeout,
                icmp: timeout,
                other: timeout,
            },
        }
    }

    fn mapping(port: u16, idle: Duration) -> Mapping {
        let end = |address: &str| format!("{address}:{port}").parse().expect("an end");
        Mapping {
            rule: RULE,
            protocol: 17,
            pod: end("10.244.0.1"),
            remote: Some(end("198.51.100.10")),
            egress: end("198.51.100.50"),
            node: PodNode::Here,
            said_out: Said::default(),
            said_back: Said::default(),
            idle,
        }
    }

    /// Removes one side of the mapping with this port.
    fn halve(gateway: &mut Gateway, port: u16, side: u8) {
        let mut entries = Vec::new();
        let all = gateway
            .tables
            .batch::<V4>(Position::default(), 100, &mut entries);
        assert!(all.expect("a read").is_none(), "all in one batch");
        let (key, _) = entries
            .iter()
            .find(|(key, _)| key.side == side && u16::from_be(key.local_port) == port)
            .expect("the half");
        gateway.tables.remove_half::<V4>(key).expect("a removal");
    }

    /// Needs root.
    #[test]
    fn halves_without_the_other_one_are_removed_and_young_ones_wait() {
        std::thread::spawn(|| {
            let pin_root = isolate();
            assert_eq!(Gateway::capacity(&pin_root), None);
            let mut gateway = Gateway::open(&GatewayConfig {
                pin_root: pin_root.clone(),
                hook: HookChoice::Auto,
                max_mappings: 128,
                tunnel_port: 4_789,
            })
            .expect("open");
            assert_eq!(Gateway::capacity(&pin_root), Some(128));
            let minute = Duration::from_secs(60);
            gateway
                .sync_rules(&[(RULE, rule(10 * minute))].into())
                .expect("rules");
            for (port, idle) in [
                (2_001, minute),
                (2_002, minute),
                (2_003, Duration::ZERO),
                (2_004, minute),
            ] {
                gateway
                    .set_mapping(&mapping(port, idle))
                    .expect("a mapping");
            }
            halve(&mut gateway, 2_001, side::OUT);
            halve(&mut gateway, 2_002, side::BACK);
            halve(&mut gateway, 2_003, side::OUT);
            // The second goes when its time has come, the third when it is older.
            let swept = gateway.sweep().expect("a sweep");
            assert_eq!((swept.halves, swept.removed), (1, 0));
            assert_eq!(swept.live, [(RULE, 2)].into());
            gateway
                .sync_rules(&[(RULE, rule(minute / 2))].into())
                .expect("rules");
            let swept = gateway.sweep().expect("a sweep");
            assert_eq!((swept.halves, swept.removed), (1, 1));
            assert_eq!(swept.replicated.len(), 1);
            assert_eq!(swept.replicated[0].pod.port(), 2_004);
            assert!(gateway.mappings().expect("mappings").is_empty());
            gateway.uninstall().expect("uninstall");
        })
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }

    /// Needs root.
    #[test]
    fn connections_leave_an_address_with_its_time_to_drain_and_only_for_another_one() {
        std::thread::spawn(|| {
            let mut gateway = Gateway::open(&GatewayConfig {
                pin_root: isolate(),
                hook: HookChoice::Auto,
                max_mappings: 128,
                tunnel_port: 4_789,
            })
            .expect("open");
            let mut rule = rule(Duration::from_secs(600));
            let mut live_with = |addresses: &[&str], drain: Option<Duration>| {
                let addresses = addresses.iter().map(|a| a.parse().expect("address"));
                rule.addresses = addresses.collect();
                rule.drain = drain;
                let rules = [(RULE, rule.clone())].into();
                gateway.sync_rules(&rules).expect("rules");
                let mapping = mapping(2_001, Duration::ZERO);
                gateway.set_mapping(&mapping).expect("a mapping");
                gateway.sweep().expect("a sweep").live.contains_key(&RULE)
            };
            let (before, after) = ("198.51.100.50", "198.51.100.51");
            let (never, long) = (Some(Duration::ZERO), Some(Duration::from_secs(60)));
            assert!(live_with(&[before], never));
            assert!(live_with(&[after], None), "for ever");
            assert!(live_with(&[after], long), "for a minute");
            assert!(live_with(&[after, before], never), "it is one of two");
            assert!(live_with(&[], never), "there is nothing else");
            assert!(live_with(&["2001:db8::1"], never), "nor of the family");
            assert!(!live_with(&[after], never), "at once");
            // A copy is somebody else's: it stays, and its port is none of this gateway's.
            assert!(live_with(&[before], never));
            let used = gateway.sweep().expect("a sweep");
            assert_eq!(used.ports_used().count(), 1);
            rule.is_copy = true;
            rule.addresses = vec![after.parse().expect("address")];
            gateway.sync_rules(&[(RULE, rule)].into()).expect("rules");
            let used = gateway.sweep().expect("a sweep");
            assert_eq!((used.live.len(), used.ports_used().count()), (1, 0));
            gateway.uninstall().expect("uninstall");
        })
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}
