// SPDX-License-Identifier: Apache-2.0
//! Runs containerlab topologies on this machine without Docker.
//!
//! [`Lab::up`] reads the same file that `containerlab deploy` takes and plays it with network,
//! mount, host name, IPC and process namespaces: a node is a small Debian ([`rootfs`]) under an
//! overlay with its own `/proc`, `/sys`, bpf file system, `/run` and `/tmp`; links are veth pairs
//! made directly between two nodes; images are played by real daemons ([`image`]) or by the
//! programs of this checkout. The order in a node is containerlab's: links, main process, `exec`.
//!
//! A lab outlives the process that made it unless it is attached; what it needs to be found and
//! removed again is recorded under [`STATE_ROOT`]. Nothing of a lab is visible in the root
//! namespaces except its processes.
//!
//! Not done, and an error when a file asks for it: other kinds than `linux` and `bridge`, other
//! links than veth between two nodes, `stages`, `healthcheck`, `startup-config`. Ignored with a
//! note: the management network, published ports, restart policies.
//!
//! ```no_run
//! use lab_runner::{Lab, Options};
//! # fn main() -> anyhow::Result<()> {
//! let file = "lab/containerlab/fabric/fabric.clab.yml".as_ref();
//! let lab = Lab::up(file, &Options::for_test("doc"), |step| eprintln!("{step}"))?;
//! let summary = lab.node("tor1").exec_json(&["vtysh", "-c", "show bgp summary json"])?;
//! lab.node("node1").kill(lab_runner::Signal::SIGKILL)?;
//! lab.node("node1").start()?;
//! # let _ = summary;
//! lab.down()
//! # }
//! ```

mod holder;
pub mod image;
mod lab;
mod link;
mod node;
pub mod preflight;
pub mod rootfs;
mod state;
pub mod topology;
mod wait;

pub use lab::{Lab, Options, down, find_topology, lab_name, recorded};
pub use nix::sys::signal::Signal;
pub use node::{Node, Output, Spawned};
pub use state::{Lifetime, ProcessId, STATE_ROOT, lock_file};
pub use topology::Topology;
pub use wait::wait_for;
