// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Into a local pod.

use aya_ebpf::{helpers::generated::bpf_redirect_peer, programs::TcContext};
use bpf_abi::{AddressEntry, DropReason};
use bpf_programs::packet::{self, MacPair};

use crate::{Verdict, count};

/// Gives the packet to the pod that has this address.
#[inline(always)]
pub fn into_pod(ctx: &TcContext, pod: &AddressEntry) -> Result<Verdict, DropReason> {
    packet::set_macs(
        ctx,
        MacPair {
            destination: packet::mac(&pod.pod_mac),
            source: packet::mac(&pod.host_mac),
        },
    )?;
    count::received(ctx, pod.slot);
    // SAFETY: a plain helper call; both arguments are numbers.
    Ok(Verdict::Redirected(
        unsafe { bpf_redirect_peer(pod.ifindex, 0) } as i32,
    ))
}
