// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Everything a program knows of the packet it is at, in memory of its CPU.
//!
//! Not on the stack, which has 512 bytes, and for a second reason: the verifier knows what is in
//! registers and on the stack and follows every case of it to the end, a million instructions for
//! what is here two thousand. Memory is any value to it, and one case.

use core::hint::black_box;

use bpf_abi::{
    FlowKey,
    nat::{FragmentKey, NatEntry, NatEvent, NatKey},
};

use bpf_programs::icmp::Complaint;

use crate::{errors::Quoted, family::Header, transport::Transport, tunnel::Parcel};

/// What is known. Only integers: every bit pattern is a value.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Work<A> {
    pub parcel: Parcel,
    pub header: Header<A>,
    pub transport: Transport,
    /// The key of the half the packet is at.
    pub key: NatKey<A>,
    /// The key of its other half.
    pub other: NatKey<A>,
    pub fragment: FragmentKey<A>,
    /// The packet an ICMP error quotes.
    pub quoted: Quoted<A>,
    /// What a route is asked for.
    pub flow: FlowKey,
    pub search: Search<A>,
    pub event: NatEvent,
    pub complaint: Complaint,
    /// Whose counters know an answer to the world.
    pub slot: u32,
}

/// The search for a port of a new mapping.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Search<A> {
    pub key: NatKey<A>,
    pub entry: NatEntry<A>,
    pub rule: u32,
    pub first: u32,
    pub span: u32,
    pub start: u32,
    /// Tries for one address: one where there are no ports to choose from.
    pub tries: u32,
    pub result: u32,
}

/// Makes the compiler, and so the verifier, read from memory what was just written.
#[inline(always)]
pub fn forget<A>(work: &mut Work<A>) -> &mut Work<A> {
    black_box(work)
}
