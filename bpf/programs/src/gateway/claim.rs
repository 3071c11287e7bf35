// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! A new mapping: an address and a port that nobody else has towards the same remote end.
//!
//! The port a connection has already is kept where it is free (RFC 4787 §4.2.1 allows it, and
//! people who read captures like it). Else ports are tried at random, and after that one after
//! the other from a random place on: at random for speed while there is room, in order so that
//! the last hundredth is found too.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::generated::{bpf_get_prandom_u32, bpf_loop},
};
use bpf_abi::{
    DropReason,
    nat::{MAX_RULE_ADDRESSES, NatEntry, NatKey, NatRule, rule_flags, said, side},
};

use crate::{count, family::Family, mapping, transport};

/// Ports tried at random for one address. At 99 % full, half of the searches end here.
const RANDOM_TRIES: u32 = 64;

/// Ports tried in order after that: with one port in a hundred free, a search fails once in 10^9.
const ORDERED_TRIES: u32 = 2_048;

const EEXIST: i32 = -17;

/// A search for a port.
struct Search<F: Family> {
    key: NatKey<F::Address>,
    entry: NatEntry<F::Address>,
    first: u32,
    span: u32,
    start: u32,
    result: u32,
}

/// How a try ended.
mod result {
    /// Taken by another.
    pub const TAKEN: u32 = 0;
    /// Ours.
    pub const OURS: u32 = 1;
    /// The table is full.
    pub const FULL: u32 = 2;
}

/// What a claim is for.
pub struct Wish<'a, A> {
    /// The key of the out entry.
    pub key: NatKey<A>,
    pub rule: &'a NatRule,
    pub rule_number: u32,
    /// The pod's node.
    pub node: u16,
    /// The outer source address in a word.
    pub outer: u32,
    /// What the first packet says.
    pub says: u32,
}

/// Makes a mapping; the out entry as it is in the table now.
#[inline(never)]
pub fn claim<F: Family>(wish: &Wish<'_, F::Address>) -> Result<NatEntry<F::Address>, DropReason> {
    let rule = wish.rule;
    if rule.flags & rule_flags::DRAINING != 0 {
        return Err(DropReason::NatDraining);
    }
    let (count, addresses) = F::addresses(rule);
    if count == 0 {
        return Err(DropReason::NatNoAddress);
    }
    let mut said = wish.says;
    if rule.flags & rule_flags::REPLICATED != 0 {
        said |= said::REPLICATED;
    }
    let has_ports = transport::has_ports::<F>(wish.key.protocol);
    let first = u32::from(rule.first_port);
    let mut search = Search::<F> {
        key: NatKey {
            local: F::ANY,
            side: side::BACK,
            ..wish.key
        },
        entry: NatEntry {
            last_seen: mapping::now(),
            rule: wish.rule_number,
            said: said & !said::ANYTHING,
            slot: rule.slot,
            node: wish.node,
            outer: wish.outer,
            address: wish.key.local,
            port: wish.key.local_port,
            reserved: 0,
        },
        first,
        span: (u32::from(rule.last_port)).wrapping_sub(first).wrapping_add(1) & 0x1_ffff,
        start: 0,
        result: result::TAKEN,
    };
    let mut index = 0;
    while index < MAX_RULE_ADDRESSES {
        if index as u8 >= count {
            break;
        }
        // The compiler would prove the mask away, and the verifier wants to see it.
        search.key.local = addresses[core::hint::black_box(index) & (MAX_RULE_ADDRESSES - 1)];
        search_address(&mut search, wish.key.local_port, has_ports);
        if search.result != result::TAKEN {
            break;
        }
        index += 1;
    }
    if search.result == result::FULL {
        return Err(DropReason::NatTableFull);
    }
    if search.result != result::OURS {
        return Err(DropReason::NatPortsExhausted);
    }
    let out = NatEntry {
        address: search.key.local,
        port: search.key.local_port,
        said,
        ..search.entry
    };
    match F::mappings().insert(wish.key, out, u64::from(BPF_NOEXIST)) {
        Ok(()) => {
            count::opened(rule.slot);
            mapping::tell::<F>(&wish.key, &out, None);
            Ok(out)
        }
        Err(code) => {
            let _ = F::mappings().remove(search.key);
            // Another CPU had a packet of the same flow in the same moment: its mapping counts.
            match mapping::find::<F>(&wish.key) {
                Some(there) if code == EEXIST => Ok(*there),
                _ => Err(DropReason::NatTableFull),
            }
        }
    }
}

#[inline(always)]
fn search_address<F: Family>(search: &mut Search<F>, own_port: u16, has_ports: bool) {
    let port = u32::from(u16::from_be(own_port));
    let in_range = port.wrapping_sub(search.first) < search.span;
    if in_range || !has_ports {
        search.key.local_port = own_port;
        take(search);
        if search.result != result::TAKEN || !has_ports {
            return;
        }
    }
    if search.span == 0 {
        return;
    }
    let context: *mut Search<F> = search;
    // SAFETY: the callbacks get the pointer that is given here, and return before this does.
    unsafe {
        bpf_loop(
            RANDOM_TRIES,
            try_random::<F> as *mut c_void,
            context.cast(),
            0,
        );
    }
    if search.result != result::TAKEN {
        return;
    }
    // SAFETY: a helper without arguments.
    search.start = unsafe { bpf_get_prandom_u32() } & 0xffff;
    // SAFETY: as above.
    unsafe {
        bpf_loop(
            ORDERED_TRIES,
            try_next::<F> as *mut c_void,
            context.cast(),
            0,
        );
    }
}

extern "C" fn try_random<F: Family>(_index: u64, context: *mut c_void) -> i64 {
    // SAFETY: `bpf_loop` hands over what `search_address` gave it.
    let search = unsafe { &mut *context.cast::<Search<F>>() };
    // SAFETY: a helper without arguments.
    let number = unsafe { bpf_get_prandom_u32() };
    try_port(search, number & 0x00ff_ffff)
}

extern "C" fn try_next<F: Family>(index: u64, context: *mut c_void) -> i64 {
    // SAFETY: `bpf_loop` hands over what `search_address` gave it.
    let search = unsafe { &mut *context.cast::<Search<F>>() };
    let number = search.start.wrapping_add(index as u32);
    try_port(search, number)
}

/// Tries one port; 1 ends the loop.
#[inline(always)]
fn try_port<F: Family>(search: &mut Search<F>, number: u32) -> i64 {
    let span = search.span;
    // Never: the caller has looked. The division must not have a way to panic.
    if span == 0 {
        return 1;
    }
    let port = search.first.wrapping_add(number % span) as u16;
    search.key.local_port = port.to_be();
    take(search);
    i64::from(search.result != result::TAKEN)
}

#[inline(always)]
fn take<F: Family>(search: &mut Search<F>) {
    search.result = match F::mappings().insert(search.key, search.entry, u64::from(BPF_NOEXIST)) {
        Ok(()) => result::OURS,
        Err(EEXIST) => result::TAKEN,
        Err(_) => result::FULL,
    };
}
