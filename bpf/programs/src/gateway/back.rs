// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! From the world to a pod: answers of mappings, and nothing else. What belongs to no mapping is
//! not judged here.

use aya_ebpf::programs::TcContext;
use bpf_abi::{
    DropReason,
    nat::{FragmentEntry, LOCAL_NODE, NatEntry, NatKey, side},
};
use bpf_programs::packet::{Origin, PROTOCOL_UDP};

use crate::{
    Refusal, Verdict, count, errors,
    family::{Family, Header, Part},
    fragments, mapping,
    rewrite::{self, Change, End},
    transport::{self, Payload, Transport},
    tunnel,
};

/// Judges a packet from the fabric.
#[inline(always)]
pub fn judge<F: Family>(ctx: &TcContext) -> Result<Verdict, Refusal> {
    let Ok(header) = F::header(ctx) else {
        return Ok(Verdict::Next);
    };
    if let Part::Later { identification } = header.part {
        let key = fragments::key::<F>(&header, identification, side::BACK);
        return match fragments::recall::<F>(&key) {
            Some(known) => {
                let refused = |reason| Refusal {
                    reason,
                    slot: Some(known.slot),
                };
                go_back::<F>(ctx, &header, &known).map_err(refused)
            }
            None => Ok(Verdict::Next),
        };
    }
    match transport::read::<F>(ctx, &header) {
        Ok(Payload::Flow(transport)) => flow::<F>(ctx, &header, &transport),
        Ok(Payload::Error) => errors::back::<F>(ctx, &header),
        Err(_) => Ok(Verdict::Next),
    }
}

#[inline(always)]
fn flow<F: Family>(
    ctx: &TcContext,
    header: &Header<F::Address>,
    transport: &Transport,
) -> Result<Verdict, Refusal> {
    let key = NatKey {
        remote: header.source,
        local: header.destination,
        remote_port: if transport.source_at == transport.destination_at {
            0
        } else {
            transport.source
        },
        local_port: transport.destination,
        protocol: header.protocol,
        side: side::BACK,
        reserved: 0,
    };
    let Some((key, entry)) = find::<F>(key) else {
        return Ok(Verdict::Next);
    };
    if mapping::note(entry, transport.says) {
        let other = mapping::find::<F>(&mapping::other_half::<F>(&key, entry));
        mapping::tell::<F>(&key, entry, other.as_deref());
    }
    let pod = FragmentEntry {
        address: entry.address,
        slot: entry.slot,
        node: entry.node,
    };
    let refused = |reason| Refusal {
        reason,
        slot: Some(pod.slot),
    };
    if let Part::First { identification } = header.part {
        let key = fragments::key::<F>(header, identification, side::BACK);
        fragments::remember::<F>(&key, pod);
    }
    if header.ttl <= 1 {
        return Err(refused(DropReason::TtlExceeded));
    }
    let change = Change {
        end: End::Destination,
        old: header.destination,
        new: entry.address,
        old_port: transport.destination,
        new_port: entry.port,
    };
    rewrite::apply::<F>(ctx, header, transport, &change).map_err(refused)?;
    hand_over::<F>(ctx, header, &pod).map_err(refused)
}

/// Finds the back entry of a packet: of its connection, or of a socket that takes answers from
/// anybody.
#[inline(always)]
pub fn find<F: Family>(
    key: NatKey<F::Address>,
) -> Option<(NatKey<F::Address>, &'static mut NatEntry<F::Address>)> {
    if let Some(entry) = mapping::find::<F>(&key) {
        return Some((key, entry));
    }
    if key.protocol != PROTOCOL_UDP {
        return None;
    }
    let key = NatKey {
        remote: F::ANY,
        remote_port: 0,
        ..key
    };
    mapping::find::<F>(&key).map(|entry| (key, entry))
}

/// Sends a packet back of which only the destination address changes.
#[inline(always)]
pub fn go_back<F: Family>(
    ctx: &TcContext,
    header: &Header<F::Address>,
    pod: &FragmentEntry<F::Address>,
) -> Result<Verdict, DropReason> {
    if header.ttl <= 1 {
        return Err(DropReason::TtlExceeded);
    }
    let change = Change {
        end: End::Destination,
        old: header.destination,
        new: pod.address,
        old_port: 0,
        new_port: 0,
    };
    rewrite::write_address::<F>(ctx, &change)?;
    hand_over::<F>(ctx, header, pod)
}

/// Gives a packet that is rewritten to the pod's node.
#[inline(always)]
pub fn hand_over<F: Family>(
    ctx: &TcContext,
    header: &Header<F::Address>,
    pod: &FragmentEntry<F::Address>,
) -> Result<Verdict, DropReason> {
    count::answered(ctx, pod.slot);
    if pod.node != LOCAL_NODE {
        // On this node the next program lowers it.
        F::lower(ctx, header.ttl, Origin::Fabric)?;
    }
    tunnel::to_pod(ctx, pod.node)
}
