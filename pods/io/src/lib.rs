// SPDX-License-Identifier: Apache-2.0
//! Local pods on a real kernel: devices, addresses, routes, eBPF endpoints, and the journal.
//!
//! [`Manager`] is the handle the daemon keeps. Behind it one thread owns the
//! [`pods_core::Registry`], the journal, a netlink socket and the use of the data plane, and
//! carries out one operation after another, so that two operations on one container never meet.
//! The thread lives in the network namespace of whoever called [`Manager::start`].
//!
//! # What a pod gets
//!
//! ```text
//!   pod's namespace                               node's namespace
//!  +---------------------------------+           +-------------------------------------------+
//!  | eth0  10.1.0.7/32 fd00::7/128   |  veth     | cw0123456789  (eBPF: from_pod, to_pod)    |
//!  |   default via 169.254.1.1 onlink|===========|   10.1.0.7/32, fd00::7/128 dev cw01..     |
//!  |   default via fe80::1           |           |   neighbour 10.1.0.7, fd00::7 = pod's MAC |
//!  |   neighbours of both gateways = |           +-------------------------------------------+
//!  |     MAC of cw0123456789         |
//!  +---------------------------------+
//! ```
//!
//! No ARP, no neighbour discovery, no duplicate address detection: nothing that a packet would
//! have to wait for. The gateways' addresses exist nowhere but in those neighbour entries.
//! Host routes carry protocol [`ROUTE_PROTOCOL`] in table `main`, which no BGP daemon prunes.
//!
//! # Desired state
//!
//! The journal's endpoints are the desired state. One function makes the kernel equal to an
//! endpoint; ADD calls it, a restart calls it for all, and so does every
//! [`Config::resync_interval`]. It writes only what differs: a pod whose daemon restarts keeps
//! its device, its traffic and its counters. The pod's own side is written by ADD, and when its
//! device had to be made again; in between it is the pod's, and CHECK says what became of it.
//!
//! ADD answers when everything is in, in this order: addresses held and on disk, devices, host
//! side, eBPF programs and map entries, then the pod's side up. What fails is rolled back.
//!
//! # What is cleaned up
//!
//! * An endpoint whose ADD was broken off by a crash: at the next start.
//! * An endpoint whose namespace and device are both gone: at the start and at every resync.
//! * A device with our mark that no endpoint claims: at every comparison. Unless the journal was
//!   damaged: then the device is somebody's who was forgotten, and the endpoint is read back from
//!   it.
//! * What GC says, for its network.
//!
//! # Whose thread may wait
//!
//! The methods of [`Manager`] are async and wait for the thread's answer. An ADD takes some 3 ms
//! of work and 10 to 40 ms of waiting for the kernel (an RCU grace period when programs are
//! attached), a DEL about 50 ms (the same, when a device is deleted); when [`QUEUE_LENGTH`] operations wait already, the next is refused with
//! [`Code::TryAgain`](pods_core::Code::TryAgain) rather than queued for longer than its caller
//! would wait.

mod config;
mod inspect;
mod manager;
mod plumbing;
mod report;
mod store;
mod worker;

pub use config::{Config, Mtu};
pub use manager::{Manager, QUEUE_LENGTH, StartError};
pub use plumbing::{ROUTE_PROTOCOL, is_pod_device};
pub use report::{EndpointView, PodsStatus, Resync, StartReport};
pub use store::{StateFolder, StoreError};
