// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Fragments: the first one has the ports and tells the others by their identification. One that
//! comes before the first is refused, as in every translator that does not reassemble (RFC 4787
//! REQ-14 asks for reassembly or this).

use bpf_abi::nat::{FragmentEntry, FragmentKey, NatEntry};

use crate::{
    family::{Family, Header, part},
    work::Work,
};

/// What fragments of a packet have in common.
#[inline(always)]
fn key<F: Family>(header: &Header<F::Address>, side: u8) -> FragmentKey<F::Address> {
    FragmentKey {
        source: header.source,
        destination: header.destination,
        identification: header.identification,
        protocol: header.protocol,
        side,
        reserved: 0,
    }
}

/// Notes what a packet got, if it is the first fragment of one.
#[inline(always)]
pub fn remember<F: Family>(work: &mut Work<F::Address>, entry: &NatEntry<F::Address>, side: u8) {
    if work.header.part == part::FIRST {
        let fragment = FragmentEntry {
            address: entry.address,
            slot: entry.slot,
            node: entry.node,
        };
        // Where it fails, the other fragments are refused and counted as orphans.
        work.fragment = key::<F>(&work.header, side);
        let _ = F::fragmented().insert(&work.fragment, fragment, 0);
    }
}

/// What the first fragment of this one's packet got.
#[inline(always)]
pub fn recall<F: Family>(
    work: &mut Work<F::Address>,
    side: u8,
) -> Option<FragmentEntry<F::Address>> {
    work.fragment = key::<F>(&work.header, side);
    // SAFETY: copied at once.
    unsafe { F::fragmented().get(&work.fragment).copied() }
}
