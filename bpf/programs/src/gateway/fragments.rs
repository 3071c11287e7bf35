// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Fragments: the first one has the ports and tells the others by their identification. One that
//! comes before the first is refused, as in every translator that does not reassemble (RFC 4787
//! REQ-14 asks for reassembly or this).

use bpf_abi::nat::{FragmentEntry, FragmentKey};

use crate::family::{Family, Header};

/// What fragments of a packet have in common.
#[inline(always)]
pub fn key<F: Family>(
    header: &Header<F::Address>,
    identification: u32,
    side: u8,
) -> FragmentKey<F::Address> {
    FragmentKey {
        source: header.source,
        destination: header.destination,
        identification,
        protocol: header.protocol,
        side,
        reserved: 0,
    }
}

/// Notes what the first fragment got.
#[inline(always)]
pub fn remember<F: Family>(key: &FragmentKey<F::Address>, entry: FragmentEntry<F::Address>) {
    // Where it fails, the other fragments are refused and counted as orphans.
    let _ = F::fragmented().insert(key, entry, 0);
}

/// What the first fragment got.
#[inline(always)]
pub fn recall<F: Family>(
    key: &FragmentKey<F::Address>,
) -> Option<FragmentEntry<F::Address>> {
    // SAFETY: copied at once.
    unsafe { F::fragmented().get(key).copied() }
}
