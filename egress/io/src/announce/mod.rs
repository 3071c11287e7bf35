// SPDX-License-Identifier: Apache-2.0
//! Telling a shared segment that an address lives here, and asking whether it lives elsewhere.
//!
//! # Announcing
//!
//! Neighbours remember for minutes which hardware address an address has. When a gateway takes an
//! address over, [`announce`] overwrites that: for IPv4 with ARP Announcements (RFC 5227 §3), as a
//! request and as a reply, because some switches and hosts heed only one of them; for IPv6 with
//! unsolicited neighbour advertisements that override (RFC 4861 §7.2.6). Who never heard of the
//! address learns nothing; it asks when it needs it, and the kernel answers: for IPv4 wherever the
//! address is configured on the node, for IPv6 where [`crate::devices`] put a proxy.
//!
//! # Asking
//!
//! [`claimant`] sends ARP Probes (RFC 5227 §2.1.1) or solicitations as duplicate address detection
//! does (RFC 4862 §5.4.2), neither of which changes anybody's memory, and waits for somebody to
//! answer. Answers of this node itself do not count: the kernel answers on any link for what is
//! configured on another.
//!
//! Not here: defending an address (RFC 5227 §2.4). Who holds an address is decided by
//! `egress-core`, not by who shouts louder.

mod frame;
mod socket;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use router_netlink::{Link, MacAddress, Netlink};
use router_types::LinkIndex;
use tokio::time::{Instant, sleep_until, timeout_at};

use socket::{Asker, Sender};

pub use frame::{
    ADVERTISEMENT_FRAME, ARP_FRAME, SOLICITATION_FRAME, arp_announcement_reply,
    arp_announcement_request, arp_probe, neighbour_advertisement, neighbour_probe,
};

/// How many probes are sent: `PROBE_NUM` of RFC 5227 §1.1. RFC 4862 §5.1 sends one
/// (`DupAddrDetectTransmits`); more cost nothing.
const PROBES: u32 = 3;

/// When announcements are sent, counted from the first moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Schedule(Vec<Duration>);

impl Schedule {
    /// Times in ascending order, each of which is one announcement on each link. Each costs two ARP
    /// frames, or one neighbour advertisement, to every host of the segment.
    #[must_use]
    pub fn new(mut times: Vec<Duration>) -> Schedule {
        times.sort_unstable();
        Schedule(times)
    }

    /// The times.
    #[must_use]
    pub fn times(&self) -> &[Duration] {
        &self.0
    }
}

impl Default for Schedule {
    /// At once, after 100 ms and after 2 s. Three are `MAX_NEIGHBOR_ADVERTISEMENT` (RFC 4861 §10),
    /// 2 s `ANNOUNCE_INTERVAL` (RFC 5227 §1.1): a port of a switch that was not forwarding at first
    /// has a second chance.
    ///
    /// Deviation: the second follows after 100 ms (arbitrary: more than a burst of loss, less than
    /// anybody notices), not after `RETRANS_TIMER` of 1 s, because until it is heard connections
    /// stand still.
    fn default() -> Self {
        Schedule(vec![
            Duration::ZERO,
            Duration::from_millis(100),
            Duration::from_secs(2),
        ])
    }
}

/// What became of announcing.
#[derive(Debug, Default)]
pub struct Announced {
    /// Frames that were sent.
    pub frames: u64,
    /// The first failure of each link. The other links, and later attempts, went on.
    pub failures: Vec<LinkFailure>,
}

/// Why an address could not be announced on a link, or asked about.
#[derive(Debug, thiserror::Error)]
#[error("link {link}: {problem}")]
pub struct LinkFailure {
    /// The link: its name if it is known.
    pub link: LinkName,
    /// What is in the way.
    pub problem: LinkProblem,
}

/// A link, for messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkName {
    /// Its index.
    pub index: LinkIndex,
    /// Its name; `None` when it could not be read.
    pub name: Option<String>,
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => write!(f, "#{}", self.index.0),
        }
    }
}

/// What is in the way on a link.
#[derive(Debug, thiserror::Error)]
pub enum LinkProblem {
    /// The link cannot be read, or is gone.
    #[error(transparent)]
    Netlink(#[from] router_netlink::Error),
    /// Tunnels and point-to-point links have no neighbours to tell.
    #[error("it has no Ethernet address: nobody on it remembers one")]
    NoEthernet,
    /// The packet socket failed.
    #[error("cannot {action} a packet socket: {error}")]
    Socket {
        /// `open`, `send by` or `receive from`.
        action: &'static str,
        /// What the system said.
        error: io::Error,
    },
}

/// Tells the neighbours on these links, all of them as often as the schedule says, that these
/// addresses live at this node's interfaces. Ends after the last time of the schedule.
///
/// Dropping the future ends it: do so when an address is given up. Failures do not end it; links
/// are read anew each time, so that one that comes up in between is used.
pub async fn announce(addresses: &[IpAddr], links: &[LinkIndex], schedule: &Schedule) -> Announced {
    let start = Instant::now();
    let mut announced = Announced::default();
    for time in schedule.times() {
        sleep_until(start + *time).await;
        for link in links {
            match announce_once(addresses, *link) {
                Ok(frames) => announced.frames += frames,
                Err(failure) => {
                    tracing::debug!(%failure, "addresses not announced");
                    if !announced.failures.iter().any(|f| f.link.index == *link) {
                        announced.failures.push(failure);
                    }
                }
            }
        }
    }
    announced
}

/// Tells the neighbours on one link once, and returns how many frames that took.
///
/// # Errors
/// The first failure; frames after it were not sent.
pub fn announce_once(addresses: &[IpAddr], link: LinkIndex) -> Result<u64, LinkFailure> {
    let mut name = None;
    let mut send = || {
        let found = Netlink::open()?.link_by_index(link)?;
        let mac = ethernet(&found);
        name = Some(found.name);
        let mac = mac?;
        let socket = Sender::open(link).map_err(|error| LinkProblem::Socket {
            action: "open",
            error,
        })?;
        let mut frames = 0;
        for address in addresses {
            match address {
                IpAddr::V4(v4) => {
                    socket
                        .send(&arp_announcement_request(*v4, mac))
                        .map_err(not_sent)?;
                    socket
                        .send(&arp_announcement_reply(*v4, mac))
                        .map_err(not_sent)?;
                    frames += 2;
                }
                IpAddr::V6(v6) => {
                    socket
                        .send(&neighbour_advertisement(*v6, mac))
                        .map_err(not_sent)?;
                    frames += 1;
                }
            }
        }
        Ok(frames)
    };
    let result = send();
    result.map_err(|problem| LinkFailure {
        link: LinkName { index: link, name },
        problem,
    })
}

/// Finds whether another host on a link answers for an address, and under which hardware address.
/// `None` when nobody has within `patience`, in which three probes are sent: at once, after a
/// third, and after two thirds.
///
/// A second of patience is plenty on a segment: the standards wait for one (`RETRANS_TIMER`, RFC
/// 4861 §10; `PROBE_MIN`, RFC 5227 §1.1).
///
/// Deviation: another host's probe for the same address is no claim, though RFC 5227 §2.1.1 counts
/// it as a conflict: it does not hold the address yet, and asks for the same reason.
///
/// # Errors
/// When the question could not be asked; that says nothing of the address.
pub async fn claimant(
    address: IpAddr,
    link: LinkIndex,
    patience: Duration,
) -> Result<Option<MacAddress>, LinkFailure> {
    let mut name = None;
    let result = ask(address, link, patience, &mut name).await;
    result.map_err(|problem| LinkFailure {
        link: LinkName { index: link, name },
        problem,
    })
}

/// [`claimant`] as a question.
///
/// # Errors
/// As [`claimant`].
pub async fn is_claimed_by_other(
    address: IpAddr,
    link: LinkIndex,
    patience: Duration,
) -> Result<bool, LinkFailure> {
    Ok(claimant(address, link, patience).await?.is_some())
}

async fn ask(
    address: IpAddr,
    link: LinkIndex,
    patience: Duration,
    name: &mut Option<String>,
) -> Result<Option<MacAddress>, LinkProblem> {
    let mut netlink = Netlink::open()?;
    let found = netlink.link_by_index(link)?;
    *name = Some(found.name.clone());
    let mac = ethernet(&found)?;
    let own: Vec<MacAddress> = netlink.links()?.iter().filter_map(|l| l.mac).collect();
    let opened = match address {
        IpAddr::V4(_) => Asker::arp(link),
        IpAddr::V6(_) => Asker::advertisements(link),
    };
    let socket = opened.map_err(|error| LinkProblem::Socket {
        action: "open",
        error,
    })?;
    let start = Instant::now();
    let mut buffer = [0; 256];
    for attempt in 0..PROBES {
        match address {
            IpAddr::V4(v4) => socket.send(&arp_probe(v4, mac)).map_err(not_sent)?,
            IpAddr::V6(v6) => socket.send(&neighbour_probe(v6, mac)).map_err(not_sent)?,
        }
        let until = start + patience * (attempt + 1) / PROBES;
        while let Ok(received) = timeout_at(until, socket.receive(&mut buffer)).await {
            let frame = received.map_err(|error| LinkProblem::Socket {
                action: "receive from",
                error,
            })?;
            let claim = match address {
                IpAddr::V4(v4) => frame::arp_claim(frame, v4),
                IpAddr::V6(v6) => frame::neighbour_claim(frame, v6),
            };
            if let Some(other) = claim.filter(|mac| !own.contains(mac)) {
                return Ok(Some(other));
            }
        }
    }
    Ok(None)
}

fn ethernet(link: &Link) -> Result<MacAddress, LinkProblem> {
    match link.mac {
        Some(mac) if !link.loopback => Ok(mac),
        _ => Err(LinkProblem::NoEthernet),
    }
}

fn not_sent(error: io::Error) -> LinkProblem {
    LinkProblem::Socket {
        action: "send by",
        error,
    }
}

/// The Ethernet type of ARP (RFC 826).
const ETHERTYPE_ARP: u16 = 0x0806;
/// The Ethernet type of IPv6 (RFC 2464 §3).
const ETHERTYPE_IPV6: u16 = 0x86dd;
