// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! A new mapping: an address and a port that nobody else has towards the same remote end.
//!
//! The port a connection has already is kept where it is free (RFC 4787 §4.2.1 allows it, and
//! people who read captures like it). Else ports are tried at random, and after that one after
//! the other from a random place on: at random for speed while there is room, in order so that
//! the last hundredth is found too.

use core::{ffi::c_void, hint::black_box, ptr};

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::generated::{bpf_get_prandom_u32, bpf_loop},
};
use bpf_abi::{
    DropReason,
    nat::{MAX_RULE_ADDRESSES, NatEntry, NatKey, NatRule, rule_flags, said, side},
};

use bpf_programs::packet::PROTOCOL_UDP;

use crate::{
    count,
    family::Family,
    mapping,
    maps::RULES,
    transport, tunnel,
    work::{self, Search, Work},
};

/// Ports tried at random for one address. At 99 % full, half of the searches end here.
const RANDOM_TRIES: u32 = 64;

/// Ports tried in order after that: with one port in a hundred free, a search fails once in 10^9.
const ORDERED_TRIES: u32 = 2_048;

const EEXIST: i32 = -17;

/// How a try ended.
mod result {
    /// Taken by another.
    pub const TAKEN: u32 = 0;
    /// Ours.
    pub const OURS: u32 = 1;
    /// The table is full.
    pub const FULL: u32 = 2;
}

/// Makes a mapping for the key in hand.
#[inline(always)]
pub fn claim<F: Family>(
    rule: &'static NatRule,
    work: &mut Work<F::Address>,
) -> Result<(), DropReason> {
    if work.transport.says & said::RST != 0 {
        // The end of something that is over.
        return Err(DropReason::NatUnrelated);
    }
    if rule.flags & rule_flags::DRAINING != 0 {
        return Err(DropReason::NatDraining);
    }
    let node = work.parcel.node()?;
    let (count, _) = F::addresses(rule);
    if count == 0 {
        return Err(DropReason::NatNoAddress);
    }
    let mut said = work.transport.says;
    if rule.flags & rule_flags::REPLICATED != 0 {
        said |= said::REPLICATED;
    }
    let key = &work.key;
    let search = &mut work.search;
    search.key = NatKey {
        side: side::BACK,
        ..*key
    };
    search.entry = NatEntry {
        last_seen: mapping::now(),
        rule: work.parcel.rule,
        said: said & !said::ANYTHING,
        slot: rule.slot,
        node,
        outer: work.parcel.outer(),
        address: key.local,
        port: key.local_port,
        reserved: 0,
    };
    search.rule = work.parcel.rule;
    search.first = u32::from(rule.first_port);
    search.span = u32::from(rule.last_port)
        .wrapping_sub(search.first)
        .wrapping_add(1)
        & 0x1_ffff;
    // SAFETY: a helper without arguments.
    search.start = unsafe { bpf_get_prandom_u32() } & 0xffff;
    search.tries = if transport::has_ports::<F>(key.protocol) {
        1 + RANDOM_TRIES + ORDERED_TRIES
    } else {
        1
    };
    search.result = result::TAKEN;
    // One loop of the kernel's, so that the verifier looks at one try and not at all of them. It
    // hands nothing but pointers to the stack over; the callback finds the search by itself.
    let tries = u32::from(count) * search.tries;
    let work = work::forget(work);
    // SAFETY: the callback is a function of the shape `bpf_loop` calls.
    unsafe {
        bpf_loop(tries, attempt::<F> as *mut c_void, ptr::null_mut(), 0);
    }
    // The callback has changed what the compiler believes to know.
    let work = work::forget(work);
    let search = &mut work.search;
    if search.result == result::FULL {
        return Err(DropReason::NatTableFull);
    }
    if search.result != result::OURS {
        return Err(DropReason::NatPortsExhausted);
    }
    // The search's own entry becomes the other half.
    search.entry.address = search.key.local;
    search.entry.port = search.key.local_port;
    search.entry.said = said;
    match F::mappings().insert(&work.key, &search.entry, u64::from(BPF_NOEXIST)) {
        Ok(()) => {
            count::opened(rule.slot);
            mapping::tell::<F>(&work.key, &search.entry, 0);
            Ok(())
        }
        Err(code) => {
            let _ = F::mappings().remove(&search.key);
            // Another CPU had a packet of the same flow in the same moment: its mapping counts.
            if code == EEXIST {
                Ok(())
            } else {
                Err(DropReason::NatTableFull)
            }
        }
    }
}

/// One try; 1 ends the loop. Tries are numbered, one address after the other, and for each the port
/// the connection has, then random ones, then all in order.
extern "C" fn attempt<F: Family>(index: u64, _context: *mut c_void) -> i64 {
    let Some(work) = F::work() else { return 1 };
    let search = &mut work.search;
    // SAFETY: a removed element stays readable while the program runs.
    let Some(rule) = (unsafe { RULES.get(search.rule) }) else {
        return 1;
    };
    let (tries, span) = (search.tries, search.span);
    // Never, but the divisions must not have a way to panic.
    if tries == 0 || span == 0 {
        return 1;
    }
    let index = index as u32;
    let (address, number) = (index / tries, index % tries);
    let (_, addresses) = F::addresses(rule);
    // The compiler would prove the mask away, and the verifier wants to see it.
    search.key.local = addresses[black_box(address as usize) & (MAX_RULE_ADDRESSES - 1)];
    let own_port = search.entry.port;
    let offset = if number == 0 {
        if tries == 1 {
            search.key.local_port = own_port;
            return take::<F>(search);
        }
        let offset = u32::from(u16::from_be(own_port)).wrapping_sub(search.first);
        if offset >= span {
            return 0;
        }
        offset
    } else if number <= RANDOM_TRIES {
        // SAFETY: a helper without arguments.
        (unsafe { bpf_get_prandom_u32() } & 0x00ff_ffff) % span
    } else {
        (search.start + number) % span
    };
    let port = (search.first.wrapping_add(offset) as u16).to_be();
    // What comes back to it would be taken for the tunnel's.
    if port == tunnel::port() && search.key.protocol == PROTOCOL_UDP {
        return 0;
    }
    search.key.local_port = port;
    take::<F>(search)
}

/// Takes what the search is at, if it is free; 1 when the search is over.
#[inline(always)]
fn take<F: Family>(search: &mut Search<F::Address>) -> i64 {
    search.result = match F::mappings().insert(&search.key, &search.entry, u64::from(BPF_NOEXIST)) {
        Ok(()) => result::OURS,
        Err(EEXIST) => result::TAKEN,
        Err(_) => result::FULL,
    };
    i64::from(search.result != result::TAKEN)
}
