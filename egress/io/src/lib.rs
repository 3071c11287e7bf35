// SPDX-License-Identifier: Apache-2.0
//! What an egress gateway does to the node and the segments it is on: the devices it needs, the
//! addresses it holds, and telling neighbours that an address lives here.
//!
//! * [`devices`]: the tunnel device and the device of held addresses, as desired state.
//! * [`node`]: the thread that makes a node equal to what is decided, and keeps it so, together with
//!   the other gateways.
//! * [`holdings`]: the addresses a node holds and is ready to hold, for those who tell BGP peers.
//! * [`announce`]: gratuitous ARP and unsolicited neighbour advertisements, and the question whether
//!   another host answers for an address.
//!
//! Everything happens in the network namespace of the calling thread. It takes `CAP_NET_ADMIN`, for
//! packet sockets `CAP_NET_RAW`.

pub mod announce;
pub mod devices;
pub mod holdings;
mod links;
mod memory;
pub mod node;
mod peers;
mod probe;
mod tables;
mod worker;
