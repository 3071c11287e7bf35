// SPDX-License-Identifier: Apache-2.0
//! Routes on their way from a session to the RIB.
//!
//! What a read of a connection brings goes over as one [`RouteBatch`]: two allocations however many
//! UPDATEs it holds, prefixes as they came. [`RouteChange`] is the same spelled out, for recordings
//! and tests.

use std::net::{IpAddr, Ipv6Addr};
use std::ops::Range;
use std::sync::Arc;

use bgp_wire::{Nlri, NlriEntry};
use ipnet::IpNet;
use router_types::{Family, Safi};
use serde::{Deserialize, Serialize};

use crate::serial;

/// A next hop as announced.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct NextHopAddress {
    /// The address; an IPv6 one also for IPv4 prefixes where RFC 8950 was agreed.
    pub address: IpAddr,
    /// The link-local address beside a global one (RFC 2545 §3).
    pub link_local: Option<Ipv6Addr>,
}

/// One thing an UPDATE says. An UPDATE becomes one to four of these, withdrawals first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RouteChange {
    /// Routes that are there, or there with other attributes.
    Announce {
        /// Family of the prefixes.
        #[serde(with = "serial::family")]
        family: Family,
        /// The path attributes in canonical form: ordered by type, AS numbers of four octets,
        /// without next hop and multiprotocol attributes. Equal bytes are equal attributes.
        #[serde(with = "serial::shared_hex")]
        attributes: Arc<[u8]>,
        /// The next hop.
        next_hop: NextHopAddress,
        /// The destinations.
        #[serde(with = "serial::texts")]
        prefixes: Vec<IpNet>,
        /// The path identifier of each (RFC 7911 §3); none without add-path.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        path_ids: Vec<u32>,
    },
    /// Routes that are gone, or must be treated so (RFC 7606 §2).
    Withdraw {
        /// Family of the prefixes.
        #[serde(with = "serial::family")]
        family: Family,
        /// The destinations.
        #[serde(with = "serial::texts")]
        prefixes: Vec<IpNet>,
        /// The path identifier of each (RFC 7911 §3); none without add-path.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        path_ids: Vec<u32>,
    },
    /// As `Announce`, for a family whose destinations are more than prefixes.
    AnnounceNlri {
        /// The family.
        #[serde(with = "serial::family")]
        family: Family,
        /// The path attributes in canonical form.
        #[serde(with = "serial::shared_hex")]
        attributes: Arc<[u8]>,
        /// The next hop.
        next_hop: NextHopAddress,
        /// Whether there are path identifiers (RFC 7911 §3).
        add_path: bool,
        /// The destinations as they stand in a message.
        #[serde(with = "serial::hex")]
        nlri: Vec<u8>,
    },
    /// As `Withdraw`, for a family whose destinations are more than prefixes.
    WithdrawNlri {
        /// The family.
        #[serde(with = "serial::family")]
        family: Family,
        /// Whether there are path identifiers (RFC 7911 §3).
        add_path: bool,
        /// The destinations as they stand in a message.
        #[serde(with = "serial::hex")]
        nlri: Vec<u8>,
    },
    /// All routes of the family were sent (RFC 4724 §2).
    EndOfRib {
        /// The family.
        #[serde(with = "serial::family")]
        family: Family,
    },
}

/// What one or more UPDATEs say, in order.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(from = "Vec<RouteChange>", into = "Vec<RouteChange>")]
pub struct RouteBatch {
    /// Attributes and prefixes of all items.
    bytes: Vec<u8>,
    items: Vec<Packed>,
}

/// One thing an UPDATE says, as [`RouteBatch::iter`] gives it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RouteItem<'a> {
    /// [`RouteChange::Announce`].
    Announce {
        /// The path attributes in canonical form.
        attributes: &'a [u8],
        /// The next hop.
        next_hop: NextHopAddress,
        /// The destinations.
        nlri: Nlri<'a>,
    },
    /// [`RouteChange::Withdraw`].
    Withdraw {
        /// The destinations.
        nlri: Nlri<'a>,
    },
    /// [`RouteChange::EndOfRib`].
    EndOfRib {
        /// The family.
        family: Family,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Packed {
    family: Family,
    add_path: bool,
    kind: Kind,
    attributes: (u32, u32),
    nlri: (u32, u32),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Announce(NextHopAddress),
    Withdraw,
    EndOfRib,
}

impl RouteBatch {
    /// Nothing yet.
    pub fn new() -> RouteBatch {
        RouteBatch::default()
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes it holds, the measure of work.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Makes room for what an UPDATE of so many octets comes to, mostly.
    pub(crate) fn expect(&mut self, octets: usize) {
        self.bytes.reserve(octets);
    }

    /// Appends attributes in canonical form, for the announcements that follow. Returns where they
    /// are, and what `write` returned.
    pub fn push_attributes<T>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> T,
    ) -> (Range<usize>, T) {
        let start = self.bytes.len();
        let result = write(&mut self.bytes);
        (start..self.bytes.len(), result)
    }

    /// Attributes appended before.
    pub(crate) fn attributes(&self, at: &Range<usize>) -> &[u8] {
        self.bytes.get(at.clone()).unwrap_or(&[])
    }

    /// Takes attributes away that were appended last, and that nothing announces.
    pub(crate) fn drop_attributes(&mut self, at: Range<usize>) {
        self.bytes.truncate(at.start);
    }

    /// Appends an announcement with attributes appended before.
    pub fn announce(&mut self, attributes: Range<usize>, next_hop: NextHopAddress, nlri: Nlri<'_>) {
        let nlri_at = self.push_nlri(nlri);
        self.items.push(Packed {
            family: nlri.family(),
            add_path: nlri.has_path_ids(),
            kind: Kind::Announce(next_hop),
            attributes: narrow(attributes),
            nlri: nlri_at,
        });
    }

    /// Appends a withdrawal.
    pub fn withdraw(&mut self, nlri: Nlri<'_>) {
        let nlri_at = self.push_nlri(nlri);
        self.items.push(Packed {
            family: nlri.family(),
            add_path: nlri.has_path_ids(),
            kind: Kind::Withdraw,
            attributes: (0, 0),
            nlri: nlri_at,
        });
    }

    /// Appends an End-of-RIB.
    pub fn end_of_rib(&mut self, family: Family) {
        self.items.push(Packed {
            family,
            add_path: false,
            kind: Kind::EndOfRib,
            attributes: (0, 0),
            nlri: (0, 0),
        });
    }

    /// Appends another batch.
    pub fn append(&mut self, other: &RouteBatch) {
        if self.is_empty() {
            self.clone_from(other);
            return;
        }
        let by = self.bytes.len();
        let moved = |(start, end): (u32, u32)| narrow(start as usize + by..end as usize + by);
        self.bytes.extend_from_slice(&other.bytes);
        self.items.extend(other.items.iter().map(|item| Packed {
            attributes: moved(item.attributes),
            nlri: moved(item.nlri),
            ..*item
        }));
    }

    /// What it says, in order.
    pub fn iter(&self) -> impl Iterator<Item = RouteItem<'_>> {
        self.items.iter().map(|item| match item.kind {
            Kind::Announce(next_hop) => RouteItem::Announce {
                attributes: self.slice(item.attributes),
                next_hop,
                nlri: self.nlri(item),
            },
            Kind::Withdraw => RouteItem::Withdraw {
                nlri: self.nlri(item),
            },
            Kind::EndOfRib => RouteItem::EndOfRib {
                family: item.family,
            },
        })
    }

    fn push_nlri(&mut self, nlri: Nlri<'_>) -> (u32, u32) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(nlri.as_bytes());
        narrow(start..self.bytes.len())
    }

    fn nlri(&self, item: &Packed) -> Nlri<'_> {
        let bytes = self.slice(item.nlri);
        Nlri::parse(item.family, item.add_path, bytes).unwrap_or_else(|_| Nlri::empty(item.family))
    }

    fn slice(&self, (start, end): (u32, u32)) -> &[u8] {
        self.bytes.get(start as usize..end as usize).unwrap_or(&[])
    }
}

/// A batch is bounded by a read of a connection, far below 4 GiB.
fn narrow(range: Range<usize>) -> (u32, u32) {
    (range.start as u32, range.end as u32)
}

impl From<Vec<RouteChange>> for RouteBatch {
    fn from(changes: Vec<RouteChange>) -> RouteBatch {
        let mut batch = RouteBatch::new();
        for change in changes {
            match change {
                RouteChange::Announce {
                    family,
                    attributes,
                    next_hop,
                    prefixes,
                    path_ids,
                } => {
                    let (at, ()) = batch.push_attributes(|out| out.extend_from_slice(&attributes));
                    let bytes = pack(&prefixes, &path_ids);
                    if let Ok(nlri) = Nlri::parse(family, !path_ids.is_empty(), &bytes) {
                        batch.announce(at, next_hop, nlri);
                    }
                }
                RouteChange::Withdraw {
                    family,
                    prefixes,
                    path_ids,
                } => {
                    let bytes = pack(&prefixes, &path_ids);
                    if let Ok(nlri) = Nlri::parse(family, !path_ids.is_empty(), &bytes) {
                        batch.withdraw(nlri);
                    }
                }
                RouteChange::AnnounceNlri {
                    family,
                    attributes,
                    next_hop,
                    add_path,
                    nlri,
                } => {
                    let (at, ()) = batch.push_attributes(|out| out.extend_from_slice(&attributes));
                    if let Ok(nlri) = Nlri::parse(family, add_path, &nlri) {
                        batch.announce(at, next_hop, nlri);
                    }
                }
                RouteChange::WithdrawNlri {
                    family,
                    add_path,
                    nlri,
                } => {
                    if let Ok(nlri) = Nlri::parse(family, add_path, &nlri) {
                        batch.withdraw(nlri);
                    }
                }
                RouteChange::EndOfRib { family } => batch.end_of_rib(family),
            }
        }
        batch
    }
}

impl From<RouteBatch> for Vec<RouteChange> {
    fn from(batch: RouteBatch) -> Vec<RouteChange> {
        let ids = |nlri: Nlri<'_>| nlri.iter().filter_map(|entry| entry.path_id).collect();
        let prefixes = |nlri: Nlri<'_>| nlri.iter().map(|entry| entry.prefix).collect();
        let is_plain = |nlri: Nlri<'_>| nlri.family().safi == Safi::UNICAST;
        let spelled = |item: RouteItem<'_>| match item {
            RouteItem::Announce {
                attributes,
                next_hop,
                nlri,
            } if !is_plain(nlri) => RouteChange::AnnounceNlri {
                family: nlri.family(),
                attributes: attributes.into(),
                next_hop,
                add_path: nlri.has_path_ids(),
                nlri: nlri.as_bytes().to_vec(),
            },
            RouteItem::Withdraw { nlri } if !is_plain(nlri) => RouteChange::WithdrawNlri {
                family: nlri.family(),
                add_path: nlri.has_path_ids(),
                nlri: nlri.as_bytes().to_vec(),
            },
            RouteItem::Announce {
                attributes,
                next_hop,
                nlri,
            } => RouteChange::Announce {
                family: nlri.family(),
                attributes: attributes.into(),
                next_hop,
                prefixes: prefixes(nlri),
                path_ids: ids(nlri),
            },
            RouteItem::Withdraw { nlri } => RouteChange::Withdraw {
                family: nlri.family(),
                prefixes: prefixes(nlri),
                path_ids: ids(nlri),
            },
            RouteItem::EndOfRib { family } => RouteChange::EndOfRib { family },
        };
        batch.iter().map(spelled).collect()
    }
}

impl PartialEq for RouteBatch {
    /// Whether both say the same, in whatever order their bytes lie.
    fn eq(&self, other: &RouteBatch) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for RouteBatch {}

impl std::fmt::Debug for RouteBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let changes: Vec<RouteChange> = self.clone().into();
        changes.fmt(f)
    }
}

fn pack(prefixes: &[IpNet], path_ids: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (i, prefix) in prefixes.iter().enumerate() {
        let entry = NlriEntry {
            path_id: path_ids.get(i).copied(),
            prefix: *prefix,
        };
        entry.encode(!path_ids.is_empty(), &mut bytes);
    }
    bytes
}
