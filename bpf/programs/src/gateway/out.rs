// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! From a pod to the world.

use aya_ebpf::programs::TcContext;
use bpf_abi::{
    DropReason,
    nat::{JUDGED_MARK, NatEntry, NatKey, NatRule, route_port, rule_flags, said, side, tick},
};
use bpf_programs::{
    fib,
    forward::Obstacle,
    icmp::Complaint,
    packet::{Origin, PROTOCOL_UDP},
};

use crate::{
    Refusal, Verdict, claim, count, errors,
    family::{self, Family, Header, part},
    fragments, mapping,
    maps::RULES,
    rewrite::{self, End},
    route,
    transport::{self, Transport},
    tunnel,
    work::{self, Work},
};

/// Judges a packet that came out of the tunnel.
#[inline(always)]
pub fn judge<F: Family>(ctx: &TcContext) -> Result<Verdict, Refusal> {
    let Some(work) = F::work() else {
        return Err(Refusal::of(DropReason::RewriteFailed));
    };
    if !tunnel::arrival(ctx, &mut work.parcel) {
        return Ok(Verdict::Next);
    }
    let named = rule_of(work.parcel.rule);
    // What came without a tunnel may be of a connection of another rule than its pod has by now.
    if named.is_none() && work.parcel.is_native == 0 {
        return Err(Refusal::of(DropReason::NatUnknownRule));
    }
    let slot = named.map(|rule| rule.slot);
    let refused = |reason| Refusal { reason, slot };
    work.header = F::header(ctx).map_err(refused)?;
    if work.header.part != part::LATER {
        work.transport = transport::read::<F>(ctx, &work.header).map_err(refused)?;
    }
    let work = work::forget(work);
    if work.header.part == part::LATER {
        return match (fragments::recall::<F>(work, side::OUT), named) {
            (Some(known), Some(rule)) => {
                leave::<F>(ctx, rule, work, known.address).map_err(refused)
            }
            (Some(_), None) => Err(refused(DropReason::NatUnknownRule)),
            (None, _) => Err(refused(DropReason::NatOrphanFragment)),
        };
    }
    if work.transport.is_error != 0 {
        let address = errors::out::<F>(ctx, work).map_err(refused)?;
        let Some(rule) = rule_of(work.parcel.rule) else {
            return Err(refused(DropReason::NatUnknownRule));
        };
        return leave::<F>(ctx, rule, work, address).map_err(refused);
    }
    flow::<F>(ctx, named, work)
}

#[inline(always)]
fn rule_of(number: u32) -> Option<&'static NatRule> {
    // SAFETY: a removed element stays readable while the program runs.
    unsafe { RULES.get(number) }
}

#[inline(always)]
fn flow<F: Family>(
    ctx: &TcContext,
    named: Option<&'static NatRule>,
    work: &'static mut Work<F::Address>,
) -> Result<Verdict, Refusal> {
    let flags = named.map_or(0, |rule| rule.flags);
    work.key = key_of::<F>(flags, &work.header, &work.transport);
    let mut found = mapping::find::<F>(&work.key);
    let mut rule = named;
    if work.parcel.is_native != 0 {
        if found.is_none() && work.header.protocol == PROTOCOL_UDP {
            // A rule of the other kind may have made it.
            let other = flags ^ rule_flags::UDP_INDEPENDENT;
            work.key = key_of::<F>(other, &work.header, &work.transport);
            found = mapping::find::<F>(&work.key);
            if found.is_none() {
                work.key = key_of::<F>(flags, &work.header, &work.transport);
            }
        }
        if let Some(entry) = &found
            && entry.rule != work.parcel.rule
        {
            work.parcel.rule = entry.rule;
            rule = rule_of(entry.rule);
        }
    }
    let Some(rule) = rule else {
        return Err(Refusal::of(DropReason::NatUnknownRule));
    };
    let refused = |reason| Refusal {
        reason,
        slot: Some(rule.slot),
    };
    // What is said where nothing else is: removed in the very moment it was made.
    let mut complaint = Complaint::exhausted(DropReason::NatTableFull);
    let now = mapping::clock();
    if let Some(entry) = &mut found {
        go_on::<F>(work, entry, tick(now)).map_err(refused)?;
    } else {
        match claim::claim::<F>(rule, work) {
            Ok(()) => found = mapping::find::<F>(&work.key),
            Err(reason @ (DropReason::NatPortsExhausted | DropReason::NatTableFull)) => {
                // RFC 6888 REQ-8.
                complaint = Complaint::exhausted(reason);
            }
            Err(reason) => return Err(refused(reason)),
        }
    }
    if let Some(entry) = found {
        let ports = flow_ports(entry, &work.transport);
        let next_hop =
            route::find::<F>(ctx, rule, work, entry.address, ports, now).map_err(refused)?;
        match family::check::<F>(ctx, &work.header, next_hop.mtu) {
            Err(Obstacle::Refused(DropReason::TtlExceeded)) => {
                complaint = Complaint::ttl_exceeded();
            }
            Err(Obstacle::Refused(_)) => complaint = Complaint::too_big(next_hop.mtu),
            checked @ (Ok(()) | Err(Obstacle::Fragment)) => {
                fragments::remember::<F>(work, entry, side::OUT);
                let header = &work.header;
                rewrite::apply::<F>(ctx, header, &work.transport, End::Source, entry)
                    .map_err(refused)?;
                count::left(ctx, rule.slot);
                if checked.is_err() {
                    // The kernel cuts it, by the same routes, though among equal ones perhaps by
                    // another; it has its new source already.
                    ctx.set_mark(JUDGED_MARK);
                    return Ok(Verdict::Next);
                }
                F::lower(ctx, header.ttl, Origin::Pod).map_err(refused)?;
                return Ok(Verdict::Redirected(fib::leave(next_hop)));
            }
        }
    }
    work.complaint = complaint;
    Ok(Verdict::Answer)
}

/// The ports a route is asked for.
#[inline(always)]
fn flow_ports<A>(entry: &NatEntry<A>, transport: &Transport) -> u32 {
    if transport.source_at == transport.destination_at {
        0
    } else {
        u32::from(route_port(entry.port)) | u32::from(transport.destination) << 16
    }
}

/// The key of the out entry of a packet.
#[inline(always)]
fn key_of<F: Family>(
    flags: u32,
    header: &Header<F::Address>,
    transport: &Transport,
) -> NatKey<F::Address> {
    let independent = header.protocol == PROTOCOL_UDP && flags & rule_flags::UDP_INDEPENDENT != 0;
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
    work: &mut Work<F::Address>,
    entry: &mut NatEntry<F::Address>,
    now: u32,
) -> Result<(), DropReason> {
    let (parcel, transport) = (&work.parcel, &work.transport);
    let moved = entry.outer != parcel.outer();
    let reborn = transport.begins != 0 && entry.said & (said::FIN | said::RST) != 0;
    let is_new = mapping::note(entry, transport.says, now);
    if !(moved || reborn || is_new) {
        return Ok(());
    }
    work.other = mapping::other_half::<F>(&work.key, entry);
    let other = mapping::find::<F>(&work.other);
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
            mapping::tell::<F>(&work.key, entry, other.said);
        }
        None => mapping::tell::<F>(&work.key, entry, 0),
    }
    Ok(())
}

/// Sends a packet out of which only the source address changes.
#[inline(always)]
fn leave<F: Family>(
    ctx: &TcContext,
    rule: &NatRule,
    work: &mut Work<F::Address>,
    address: F::Address,
) -> Result<Verdict, DropReason> {
    let next_hop = route::find::<F>(ctx, rule, work, address, 0, mapping::clock())?;
    let header = &work.header;
    let fits = match family::check::<F>(ctx, header, next_hop.mtu) {
        Ok(()) => true,
        Err(Obstacle::Fragment) => false,
        Err(Obstacle::Refused(reason)) => return Err(reason),
    };
    rewrite::write_address::<F>(ctx, header, End::Source, address)?;
    count::left(ctx, rule.slot);
    if !fits {
        ctx.set_mark(JUDGED_MARK);
        return Ok(Verdict::Next);
    }
    F::lower(ctx, header.ttl, Origin::Pod)?;
    Ok(Verdict::Redirected(fib::leave(next_hop)))
}
