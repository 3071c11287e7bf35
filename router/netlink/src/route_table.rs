// SPDX-License-Identifier: Apache-2.0
//! The routes this daemon owns, as operations of a reconciler.
//!
//! # Ownership
//!
//! A route is ours if it has our protocol and metric, and is in a table we manage. Listings are
//! filtered by that in the kernel. Deletions name the protocol, which the kernel compares. Only a
//! replacement is dangerous: `NLM_F_REPLACE` takes the place of whatever has the same table, prefix
//! and metric, whoever wrote it. So a key is first *added* (`NLM_F_EXCL`), and replaced only when
//! it is known from a listing, a notification or our own success that what is there is ours.
//!
//! # IPv6
//!
//! Replacing an IPv6 multipath route is not atomic inside the kernel: it is a list of siblings, the
//! old ones go when the first new one is in, and an error at the third leaves two. After a failed
//! write a key is therefore *uncertain*: the next attempt deletes what is left of ours before it
//! adds. Nobody else's route is touched by that either.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use router_reconcile::{Operation, Operations};
use router_types::{Forwarding, RouteKey, TableId};

use crate::error::{Error, Problem};
use crate::netlink::Netlink;
use crate::netns::Netns;
use crate::route::{Described, KernelRoute, Protocol, RouteFilter, key_message, write_message};
use crate::socket::{BATCH, Request};
use crate::watch::Event;

/// Which routes are ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ownership {
    /// Written with this protocol.
    pub protocol: Protocol,
    /// And this metric. Not 0, which IPv6 reads as 1024.
    pub metric: u32,
    /// In these tables.
    pub tables: BTreeSet<TableId>,
}

impl Default for Ownership {
    /// Protocol `bgp`, metric 20, table `main`.
    fn default() -> Self {
        Ownership {
            protocol: Protocol::BGP,
            metric: 20,
            tables: BTreeSet::from([TableId::MAIN]),
        }
    }
}

impl Ownership {
    /// Whether a route is ours.
    pub fn includes(&self, route: &KernelRoute) -> bool {
        route.protocol == self.protocol
            && route.metric == self.metric
            && self.tables.contains(&route.key.table)
    }
}

/// The kernel's routing tables, as far as they are ours.
pub struct RouteTable {
    netlink: Netlink,
    ownership: Ownership,
    /// What the kernel has of a key that we do not know to be absent.
    known: BTreeMap<RouteKey, Known>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Known {
    /// What is there is ours.
    Present,
    /// A write failed half way, perhaps.
    Uncertain,
}

impl RouteTable {
    /// Opens a socket in the calling thread's namespace. Nothing is read or written yet.
    pub fn open(ownership: Ownership) -> Result<Self, Error> {
        Ok(Self::new(Netlink::open()?, ownership))
    }

    /// Opens a socket in another namespace.
    pub fn open_in(netns: &Netns, ownership: Ownership) -> Result<Self, Error> {
        Ok(Self::new(Netlink::open_in(netns)?, ownership))
    }

    /// Which routes are ours.
    pub fn ownership(&self) -> &Ownership {
        &self.ownership
    }

    /// Takes note of what a [`Watcher`](crate::Watcher) tells, and returns what is to be told to the
    /// reconciler ([`handle_observed`](router_reconcile::Reconciler::handle_observed)), if anything.
    pub fn note(&mut self, event: &Event) -> Option<(RouteKey, Option<KernelRoute>)> {
        match event {
            Event::RouteSet(route) if self.ownership.includes(route) => {
                self.known.insert(route.key, Known::Present);
                Some((route.key, Some(route.clone())))
            }
            // Same place, another owner: ours has been replaced.
            Event::RouteSet(route)
                if route.metric == self.ownership.metric
                    && self.known.remove(&route.key).is_some() =>
            {
                Some((route.key, None))
            }
            Event::RouteGone(route) if self.ownership.includes(route) => {
                self.known.remove(&route.key);
                Some((route.key, None))
            }
            Event::RouteSet(_)
            | Event::RouteGone(_)
            | Event::LinkSet(_)
            | Event::LinkGone(_)
            | Event::AddressSet(_)
            | Event::AddressGone(_)
            | Event::Lost => None,
        }
    }

    /// The number of this table's socket: notifications of changes made through it carry it.
    pub fn port(&self) -> Result<u32, Error> {
        self.netlink
            .socket
            .port()
            .map_err(|e| Error::new("read a netlink socket's port", e.into()))
    }

    fn new(netlink: Netlink, ownership: Ownership) -> Self {
        RouteTable {
            netlink,
            ownership,
            known: BTreeMap::new(),
        }
    }

    /// The messages for one operation: the last one decides its outcome.
    fn requests(&self, operation: &Operation<RouteKey, Arc<Forwarding>>) -> Vec<Request> {
        let Ownership {
            protocol, metric, ..
        } = self.ownership;
        let delete = |key: &RouteKey| Request {
            message: RouteNetlinkMessage::DelRoute(key_message(*key, protocol, metric)),
            flags: 0,
        };
        match operation {
            Operation::Delete(key) => vec![delete(key)],
            Operation::Update(key, forwarding) => {
                let write = |flags| Request {
                    message: RouteNetlinkMessage::NewRoute(write_message(
                        *key, forwarding, protocol, metric,
                    )),
                    flags: NLM_F_CREATE | flags,
                };
                match self.known.get(key) {
                    None => vec![write(NLM_F_EXCL)],
                    Some(Known::Present) => vec![write(NLM_F_REPLACE)],
                    Some(Known::Uncertain) => vec![delete(key), write(NLM_F_EXCL)],
                }
            }
        }
    }

    /// Draws the conclusion from the answer to an operation's last message.
    fn conclude(
        &mut self,
        operation: &Operation<RouteKey, Arc<Forwarding>>,
        result: Result<(), Problem>,
    ) -> Result<(), Error> {
        let protocol = self.ownership.protocol;
        match operation {
            Operation::Update(key, forwarding) => match result {
                Ok(()) => {
                    self.known.insert(*key, Known::Present);
                    Ok(())
                }
                Err(problem) => {
                    self.known.insert(*key, Known::Uncertain);
                    let action = format!("write {protocol} route {}", Described(*key, forwarding));
                    Err(Error::new(action, problem))
                }
            },
            Operation::Delete(key) => match result {
                Ok(())
                | Err(Problem::Refused {
                    errno: Errno::ESRCH | Errno::ENOENT,
                    ..
                }) => {
                    self.known.remove(key);
                    Ok(())
                }
                Err(problem) => {
                    self.known.insert(*key, Known::Uncertain);
                    Err(Error::new(
                        format!("delete {protocol} route {}", key.prefix),
                        problem,
                    ))
                }
            },
        }
    }

    fn apply_chunk(
        &mut self,
        chunk: &[Operation<RouteKey, Arc<Forwarding>>],
    ) -> Vec<Result<(), Error>> {
        let mut requests = Vec::with_capacity(chunk.len());
        let mut last_of = Vec::with_capacity(chunk.len());
        for operation in chunk {
            requests.extend(self.requests(operation));
            last_of.push(requests.len() - 1);
        }
        match self.netlink.socket.batch(requests) {
            Ok(mut results) => chunk
                .iter()
                .zip(last_of)
                .map(|(operation, at)| {
                    let result = std::mem::replace(&mut results[at], Ok(()));
                    self.conclude(operation, result)
                })
                .collect(),
            // What was done is unknown, for each of them.
            Err(problem) => {
                tracing::warn!(%problem, "a batch of routes has no outcome");
                chunk
                    .iter()
                    .map(|op| self.conclude(op, Err(Problem::Lost)))
                    .collect()
            }
        }
    }
}

impl Operations for RouteTable {
    type Key = RouteKey;
    type Desired = Arc<Forwarding>;
    type Actual = KernelRoute;
    type Error = Error;

    fn is_as_desired(desired: &Arc<Forwarding>, actual: &KernelRoute) -> bool {
        // A next hop the kernel has taken out of use does not make the route another one.
        actual
            .forwarding()
            .is_some_and(|forwarding| forwarding == **desired)
    }

    async fn list(&mut self) -> Result<Vec<(RouteKey, KernelRoute)>, Error> {
        let mut listing = Vec::new();
        for table in self.ownership.tables.clone() {
            let filter = RouteFilter {
                table: Some(table),
                protocol: Some(self.ownership.protocol),
            };
            let routes = self.netlink.routes(filter)?;
            let ours = routes
                .into_iter()
                .filter(|route| self.ownership.includes(route));
            listing.extend(ours.map(|route| (route.key, route)));
            tokio::task::yield_now().await;
        }
        self.known = listing
            .iter()
            .map(|(key, _)| (*key, Known::Present))
            .collect();
        Ok(listing)
    }

    async fn apply(
        &mut self,
        batch: &[Operation<RouteKey, Arc<Forwarding>>],
    ) -> Vec<Result<(), Error>> {
        let mut results = Vec::with_capacity(batch.len());
        for chunk in batch.chunks(BATCH) {
            results.extend(self.apply_chunk(chunk));
            tokio::task::yield_now().await;
        }
        results
    }
}

impl fmt::Debug for RouteTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteTable")
            .field("ownership", &self.ownership)
            .field("known", &self.known.len())
            .finish_non_exhaustive()
    }
}
