// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Mappings that are there: found, noted, told.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use bpf_abi::nat::{NatEntry, NatEvent, NatKey, said, side, tick};
use bpf_programs::packet::PROTOCOL_UDP;

use crate::{
    family::Family,
    maps::{EVENTS_LOST, NAT_EVENTS},
};

/// Now, in nanoseconds of the coarse monotonic clock. A packet asks once: each call of a helper
/// costs as much as a dozen instructions.
#[inline(always)]
pub fn clock() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// Now, in the unit of mappings.
#[inline(always)]
pub fn now() -> u32 {
    tick(clock())
}

/// Finds an entry.
#[inline(always)]
pub fn find<F: Family>(key: &NatKey<F::Address>) -> Option<&'static mut NatEntry<F::Address>> {
    let entry = F::mappings().get_ptr_mut(key)?;
    // SAFETY: the element stays readable and writable while the program runs, whoever removes it;
    // its fields are written one by one, each by plain stores of words.
    Some(unsafe { &mut *entry })
}

/// Finds the entry of a connection, or of a socket that keeps its port whomever it talks to. The key
/// is then that entry's.
#[inline(always)]
pub fn find_either<F: Family>(
    key: &mut NatKey<F::Address>,
) -> Option<&'static mut NatEntry<F::Address>> {
    if let Some(entry) = find::<F>(key) {
        return Some(entry);
    }
    if key.protocol != PROTOCOL_UDP {
        return None;
    }
    key.remote = F::ANY;
    key.remote_port = 0;
    find::<F>(key)
}

/// Notes a packet at this tick. Returns whether its direction said something new.
#[inline(always)]
pub fn note<A>(entry: &mut NatEntry<A>, says: u32, now: u32) -> bool {
    // A line of the cache that need not be written is not fetched for writing by every CPU.
    if entry.last_seen != now {
        entry.last_seen = now;
    }
    let before = entry.said;
    let is_new = before & says != says;
    if is_new {
        entry.said = before | says;
    }
    is_new
}

/// The key of the other half.
#[inline(always)]
pub fn other_half<F: Family>(
    key: &NatKey<F::Address>,
    entry: &NatEntry<F::Address>,
) -> NatKey<F::Address> {
    NatKey {
        remote: key.remote,
        local: entry.address,
        remote_port: key.remote_port,
        local_port: entry.port,
        protocol: key.protocol,
        side: if key.side == side::OUT {
            side::BACK
        } else {
            side::OUT
        },
        reserved: 0,
    }
}

/// Tells the daemon about a mapping, if its standby wants to hear it. What does not fit into the
/// buffer is missed and counted: then only the table knows all.
#[inline(always)]
pub fn tell<F: Family>(key: &NatKey<F::Address>, entry: &NatEntry<F::Address>, other_said: u32) {
    if entry.said & said::REPLICATED == 0 {
        return;
    }
    let is_out = key.side == side::OUT;
    let Some(work) = F::work() else { return };
    work.event = NatEvent {
        remote: F::widen(key.remote),
        pod: F::widen(if is_out { key.local } else { entry.address }),
        address: F::widen(if is_out { entry.address } else { key.local }),
        remote_port: key.remote_port,
        pod_port: if is_out { key.local_port } else { entry.port },
        port: if is_out { entry.port } else { key.local_port },
        protocol: key.protocol,
        ip_version: F::VERSION,
        rule: entry.rule,
        said_out: if is_out { entry.said } else { other_said },
        said_back: if is_out { other_said } else { entry.said },
        node: u32::from(entry.node),
    };
    if NAT_EVENTS.output(&work.event, 0).is_err()
        && let Some(lost) = EVENTS_LOST.get_ptr_mut(0)
    {
        // SAFETY: the element is this CPU's, which runs nothing else meanwhile.
        unsafe { *lost += 1 };
    }
}
