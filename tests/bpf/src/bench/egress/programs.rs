// SPDX-License-Identifier: Apache-2.0
//! What the programs take alone, by `BPF_PROG_TEST_RUN`: one packet per run, a fresh one each time,
//! less what a program takes that does nothing.

use anyhow::{Context as _, Result, ensure};
use harness::page::Samples;

use super::{
    super::{before_others, on_one_core, xdp::Alone},
    chain::{self, Chain},
    flows::{self, Way},
};
use crate::{egress::RULE, namespace::Namespace, pod::index_of};

/// Runs of each.
const RUNS: u32 = 20_000;
/// The first flow that nobody else uses.
const FIRST: u32 = 4_000_000;

const TC_ACT_REDIRECT: i32 = 7;

/// One program at one kind of packet.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cost {
    pub what: &'static str,
    pub program: &'static str,
    pub ns: Samples,
    pub instructions: u32,
    /// Median and least of what Cilium's programs took for the same, on another day and machine.
    pub cilium: [u32; 2],
}

/// Runs them in a chain of ours by VXLAN, which knows flow 0.
pub(super) fn run(chain: &Chain) -> Result<Vec<Cost>> {
    let lab = chain.lab().context("only ours has programs")?;
    let pod = chain::from_pod(&lab.pod);
    let (node, gateway) = (&lab.node, &lab.gateway_node);
    let pod_device = lab.pod.endpoint.link.0;
    let [tunnel, out] = [
        index_of(gateway, "cw-egress")?.0,
        index_of(gateway, "out")?.0,
    ];
    let out_frame = flows::frame(Way::Out, &pod);
    let tunnelled = flows::frame(Way::Out, &chain::in_tunnel(&lab.pod));
    let back = flows::frame(Way::Back, &chain::from_world());
    let mut all = Vec::new();
    let mut add = |what, program, at: &Namespace, device, frame: &[u8], mark, is_new, cilium| {
        let (ns, instructions) = at
            .run(|| one(program, device, frame, mark, is_new))
            .with_context(|| format!("{program}, {what}"))?;
        all.push(Cost {
            what,
            program,
            ns,
            instructions,
            cilium,
        });
        anyhow::Ok(())
    };
    let (known, new) = ("known connection", "new connection");
    add(
        known,
        "from_pod",
        node,
        pod_device,
        &out_frame,
        0,
        false,
        [136, 130],
    )?;
    // Before the next: a packet without a tunnel says that the pod has moved here.
    add(
        "answer",
        "egress_back",
        gateway,
        out,
        &back,
        0,
        false,
        [348, 330],
    )?;
    add(
        known,
        "egress_out",
        gateway,
        tunnel,
        &tunnelled,
        RULE,
        false,
        [390, 366],
    )?;
    add(
        new,
        "egress_out",
        gateway,
        tunnel,
        &tunnelled,
        RULE,
        true,
        [1972, 1246],
    )?;
    Ok(all)
}

/// Nanoseconds of each run, and instructions of the program.
fn one(name: &str, device: u32, frame: &[u8], mark: u32, is_new: bool) -> Result<(Samples, u32)> {
    on_one_core()?;
    before_others();
    let (program, nothing) = (Alone::at(device, name)?, Alone::nothing(device)?);
    let mut frame = frame.to_vec();
    let mut base = Vec::new();
    let mut taken = Vec::new();
    for run in 0..RUNS {
        if is_new {
            flows::set_flow(&mut frame, FIRST + run);
        }
        base.push(f64::from(nothing.run(&frame, mark)?.0));
        let (ns, verdict) = program.run(&frame, mark)?;
        ensure!(verdict == TC_ACT_REDIRECT, "it returned {verdict}");
        taken.push(f64::from(ns));
    }
    let base: Samples = base.into_iter().collect();
    let taken = taken.into_iter().map(|ns| ns - base.median()).collect();
    Ok((taken, program.translated_bytes / 8))
}
