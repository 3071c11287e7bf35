// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! From a pod to the world.

use aya_ebpf::programs::TcContext;
use bpf_abi::{
    DropReason,
    nat::{FragmentEntry, NatEntry, NatKey, NatRule, rule_flags, said, side},
};
use bpf_programs::{
    fib,
    forward::Obstacle,
    packet::{Origin, PROTOCOL_UDP},
};

use crate::{
    Refusal, Verdict,
    answer::{self, Case, Complaint},
    claim::{self, Wish},
    count, errors,
    family::{self, Family, Header, Part},
    fragments,
    maps::RULES,
    mapping,
    rewrite::{self, Change, End},
    route::{self, Translated},
    transport::{self, Payload, Transport},
    tunnel::Parcel,
};

/// Judges a pod's packet.
#[inline(always)]
pub fn judge<F: Family>(ctx: &TcContext, parcel: &Parcel) -> Result<Verdict, Refusal> {
    // SAFETY: a removed element stays readable while the program runs.
    let Some(rule) = (unsafe { RULES.get(parcel.rule) }) else {
        return Err(Refusal::of(DropReason::NatUnknownRule));
    };
    let refused = |reason| Refusal {
        reason,
        slot: Some(rule.slot),
    };
    let header = F::header(ctx).map_err(refused)?;
    if let Part::Later { identification } = header.part {
        let key = fragments::key::<F>(&header, identification, side::OUT);
        let Some(known) = fragments::recall::<F>(&key) else {
            return Err(refused(DropReason::NatOrphanFragment));
        };
        return leave::<F>(ctx, rule, &header, known.address).map_err(refused);
    }
    match transport::read::<F>(ctx, &header).map_err(refused)? {
        Payload::Flow(transport) => flow::<F>(ctx, parcel, rule, &header, &transport),
        Payload::Error => errors::out::<F>(ctx, rule, &header).map_err(refused),
    }
}

#[inline(always)]
fn flow<F: Family>(
    ctx: &TcContext,
    parcel: &Parcel,
    rule: &NatRule,
    header: &Header<F::Address>,
    transport: &Transport,
) -> Result<Verdict, Refusal> {
    let refused = |reason| Refusal {
        reason,
        slot: Some(rule.slot),
    };
    let case = Case {
        parcel,
        rule,
        header,
    };
    let key = key_of::<F>(rule, header, transport);
    let entry = match mapping::find::<F>(&key) {
        Some(entry) => {
            go_on::<F>(parcel, &key, entry, transport).map_err(refused)?;
            *entry
        }
        None => {
            if transport.says & said::RST != 0 {
                return Err(refused(DropReason::NatUnrelated));
            }
            let wish = Wish {
                key,
                rule,
                rule_number: parcel.rule,
                node: parcel.node().map_err(refused)?,
                outer: parcel.outer(),
                says: transport.says,
            };
            match claim::claim::<F>(&wish) {
                Ok(entry) => entry,
                Err(reason @ (DropReason::NatPortsExhausted | DropReason::NatTableFull)) => {
                    // RFC 6888 REQ-8.
                    let complaint = Complaint::HostUnreachable { reason };
                    return answer::send::<F>(ctx, &case, &complaint);
                }
                Err(reason) => return Err(refused(reason)),
            }
        }
    };
    let translated = Translated {
        address: entry.address,
        ports: if transport.source_at == transport.destination_at {
            [0, 0]
        } else {
            [entry.port, transport.destination]
        },
    };
    let next_hop =
        route::find::<F>(ctx, rule.ifindex, header, &translated).map_err(refused)?;
    let fits = match family::check::<F>(ctx, header, next_hop.mtu) {
        Ok(()) => true,
        Err(Obstacle::Fragment) => false,
        Err(Obstacle::Refused(DropReason::TtlExceeded)) => {
            return answer::send::<F>(ctx, &case, &Complaint::TtlExceeded);
        }
        Err(Obstacle::Refused(_)) => {
            let complaint = Complaint::TooBig { mtu: next_hop.mtu };
            return answer::send::<F>(ctx, &case, &complaint);
        }
    };
    if let Part::First { identification } = header.part {
        let key = fragments::key::<F>(header, identification, side::OUT);
        let entry = FragmentEntry {
            address: entry.address,
            slot: rule.slot,
            node: entry.node,
        };
        fragments::remember::<F>(&key, entry);
    }
    let change = Change {
        end: End::Source,
        old: header.source,
        new: entry.address,
        old_port: transport.source,
        new_port: entry.port,
    };
    rewrite::apply::<F>(ctx, header, transport, &change).map_err(refused)?;
    count::left(ctx, rule.slot);
    if !fits {
        // The kernel cuts it, by the same routes; it has its new source already.
        return Ok(Verdict::Next);
    }
    F::lower(ctx, header.ttl, Origin::Pod).map_err(refused)?;
    Ok(Verdict::Redirected(fib::leave(&next_hop)))
}

/// The key of the out entry of a packet.
#[inline(always)]
fn key_of<F: Family>(
    rule: &NatRule,
    header: &Header<F::Address>,
    transport: &Transport,
) -> NatKey<F::Address> {
    let independent =
        header.protocol == PROTOCOL_UDP && rule.flags & rule_flags::UDP_INDEPENDENT != 0;
    NatKey {
        remote: if independent {
            F::ANY
        } else {
            header.destination
        },
        local: header.source,
        remote_port: if independent || transport.source_at == transport.destination_at {
            0
        } else {
            transport.destination
        },
        local_port: transport.source,
        protocol: header.protocol,
        side: side::OUT,
        reserved: 0,
    }
}

/// A packet of a mapping that is there.
#[inline(always)]
fn go_on<F: Family>(
    parcel: &Parcel,
    key: &NatKey<F::Address>,
    entry: &mut NatEntry<F::Address>,
    transport: &Transport,
) -> Result<(), DropReason> {
    let moved = entry.outer != parcel.outer();
    let reborn = transport.begins && entry.said & (said::FIN | said::RST) != 0;
    let is_new = mapping::note(entry, transport.says);
    if !(moved || reborn || is_new) {
        return Ok(());
    }
    let other = mapping::find::<F>(&mapping::other_half::<F>(key, entry));
    if moved {
        entry.node = parcel.node()?;
        entry.outer = parcel.outer();
    }
    if reborn {
        entry.said &= !(said::FIN | said::RST);
    }
    match other {
        Some(other) => {
            other.node = entry.node;
            other.outer = entry.outer;
            if reborn {
                other.said &= !(said::FIN | said::RST | said::ANYTHING);
            }
            mapping::tell::<F>(key, entry, Some(other));
        }
        None => mapping::tell::<F>(key, entry, None),
    }
    Ok(())
}

/// Sends a packet out of which only the source address changes.
#[inline(never)]
pub fn leave<F: Family>(
    ctx: &TcContext,
    rule: &NatRule,
    header: &Header<F::Address>,
    address: F::Address,
) -> Result<Verdict, DropReason> {
    let translated = Translated {
        address,
        ports: [0, 0],
    };
    let next_hop = route::find::<F>(ctx, rule.ifindex, header, &translated)?;
    let fits = match family::check::<F>(ctx, header, next_hop.mtu) {
        Ok(()) => true,
        Err(Obstacle::Fragment) => false,
        Err(Obstacle::Refused(reason)) => return Err(reason),
    };
    let change = Change {
        end: End::Source,
        old: header.source,
        new: address,
        old_port: 0,
        new_port: 0,
    };
    rewrite::write_address::<F>(ctx, &change)?;
    count::left(ctx, rule.slot);
    if !fits {
        return Ok(Verdict::Next);
    }
    F::lower(ctx, header.ttl, Origin::Pod)?;
    Ok(Verdict::Redirected(fib::leave(&next_hop)))
}
