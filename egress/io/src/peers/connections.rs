// SPDX-License-Identifier: Apache-2.0
//! Connections with other gateways: who is called, who may call, and what becomes of the calls.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use egress_sync::channel::{Channel, Config, Timing};
use egress_sync::name::NodeName;

use super::link::{self, Link, LinkEvent};
use super::strangers::may_come;
use super::{Peers, secret};

/// The pauses between attempts to connect.
pub(super) const DIAL_FIRST: Duration = Duration::from_millis(100);
const DIAL_LAST: Duration = Duration::from_secs(2);

/// How often an address that could not be listened on is tried.
pub(super) const LISTEN_AGAIN: Duration = Duration::from_secs(1);

impl Peers {
    /// Listens where others would connect to, if they do.
    pub(super) fn listen(&mut self, now: Instant) {
        let wanted: BTreeSet<IpAddr> = match self.roles.is_candidate {
            true => self.own.iter().copied().collect(),
            false => BTreeSet::new(),
        };
        self.listeners.retain(|address, listener| {
            let is_wanted = wanted.contains(address);
            if !is_wanted {
                listener.abort();
            }
            is_wanted
        });
        self.listen_at = None;
        for address in wanted {
            if self.listeners.contains_key(&address) {
                continue;
            }
            let socket = SocketAddr::new(address, self.config.port);
            match link::listen(socket, self.events.clone()) {
                Ok(listener) => _ = self.listeners.insert(address, listener),
                Err(error) => {
                    tracing::warn!(%socket, %error, "gateways cannot connect here");
                    self.listen_at = Some(now + LISTEN_AGAIN);
                }
            }
        }
    }

    pub(super) fn handle_link(&mut self, event: LinkEvent, now: Instant) {
        match event {
            LinkEvent::Opened { stream, dialled } => {
                if let Some(peer) = &dialled {
                    self.peer(peer, now).is_dialling = false;
                }
                let remote = match stream.peer_addr() {
                    Ok(remote) => remote,
                    // It is over already.
                    Err(error) => {
                        if let Some(peer) = dialled {
                            self.dial_failed(&peer, &error.to_string(), now);
                        }
                        return;
                    }
                };
                if let Err(error) = self.open(stream, remote, dialled.clone(), now) {
                    match dialled {
                        Some(peer) => self.dial_failed(&peer, &error.to_string(), now),
                        None => self.refused(remote, &error.to_string(), now),
                    }
                }
            }
            LinkEvent::NotOpened { peer, error } => {
                self.peer(&peer, now).is_dialling = false;
                self.dial_failed(&peer, &error.to_string(), now);
            }
            LinkEvent::Read { id, bytes } => {
                if let Some(link) = self.links.get_mut(&id) {
                    link.channel.handle_bytes(&bytes, now);
                }
            }
            LinkEvent::Written { id } => {
                if let Some(link) = self.links.get_mut(&id) {
                    link.handle_written();
                }
            }
            LinkEvent::Closed { id } => {
                if let Some(link) = self.links.get_mut(&id) {
                    link.channel.handle_end_of_stream();
                }
            }
        }
    }

    fn open(
        &mut self,
        stream: tokio::net::TcpStream,
        remote: SocketAddr,
        dialled: Option<NodeName>,
        now: Instant,
    ) -> Result<(), OpenError> {
        if dialled.is_none() {
            let proved: BTreeSet<u64> = self.linked.values().copied().collect();
            let others = self.links.iter().filter(|(_, link)| link.dialled.is_none());
            let strangers = others.filter(|(id, _)| !proved.contains(id));
            let strangers = strangers.map(|(_, link)| link.remote.ip().to_canonical());
            let is_of_node = |address| self.node_at(address).is_some();
            if !may_come(remote.ip().to_canonical(), strangers, is_of_node) {
                return Err(OpenError::Strangers);
            }
        }
        let Some(path) = &self.config.secret_file else {
            return Err(OpenError::NoSecret);
        };
        let config = Config {
            name: self.name.clone(),
            timing: Timing::default(),
            keys: secret::read(path)?,
        };
        let nonce = nonce()?;
        let channel = match &dialled {
            Some(peer) => Channel::initiator(config, Some(peer.clone()), nonce, now),
            None => Channel::responder(config, nonce, now),
        };
        self.next_link += 1;
        let id = self.next_link;
        let link = Link::start(id, stream, remote, channel, dialled, &self.events);
        self.links.insert(id, link);
        Ok(())
    }

    /// Notes why a node is not linked, for people. The log hears of it when it is another reason than
    /// before: it is tried again for as long as it takes.
    pub(super) fn dial_failed(&mut self, node: &NodeName, problem: &str, now: Instant) {
        let peer = self.peer(node, now);
        peer.dial_at = now + peer.pause;
        peer.pause = (peer.pause * 2).min(DIAL_LAST);
        self.note_problem(node, problem, now);
    }

    /// A connection of somebody else did not come to a link.
    pub(super) fn refused(&mut self, remote: SocketAddr, reason: &str, now: Instant) {
        let node = self.node_at(remote.ip().to_canonical()).cloned();
        let node = node.filter(|node| !self.linked.contains_key(node));
        if let Some(node) = node {
            self.note_problem(&node, reason, now);
        } else if self.refusals.is_told(now) {
            tracing::warn!(%remote, reason, "connection refused");
        }
    }

    fn note_problem(&mut self, node: &NodeName, problem: &str, now: Instant) {
        let peer = self.peer(node, now);
        if peer.problem.as_deref() != Some(problem) {
            tracing::warn!(%node, reason = problem, "no link with gateway");
            peer.problem = Some(problem.to_owned());
        }
    }

    /// The other node that has an address.
    fn node_at(&self, address: IpAddr) -> Option<&NodeName> {
        let mut nodes = self.addresses.iter();
        let found = nodes.find(|(node, of)| **node != self.name && of.contains(&address))?;
        Some(found.0)
    }

    /// Whether there is a connection with a node, or one this end began that has not proved itself.
    pub(super) fn is_open(&self, node: &NodeName) -> bool {
        let mut links = self.links.values();
        self.linked.contains_key(node) || links.any(|link| link.dialled.as_ref() == Some(node))
    }

    /// Connects to those who should be linked and are not.
    pub(super) fn dial(&mut self, now: Instant) {
        for node in &self.roles.dialled {
            let is_open = self.is_open(node);
            let Some(peer) = self.peers.get_mut(node).filter(|_| !is_open) else {
                continue;
            };
            if peer.is_dialling || now < peer.dial_at {
                continue;
            }
            let there = self.addresses.get(node).map_or(&[][..], Vec::as_slice);
            let pair = there.iter().find_map(|to| {
                let from = self.own.iter().find(|own| own.is_ipv4() == to.is_ipv4())?;
                Some((*from, *to))
            });
            let Some((from, to)) = pair else {
                peer.problem = Some("no address of a family this node has".to_owned());
                peer.dial_at = now + DIAL_LAST;
                continue;
            };
            peer.is_dialling = true;
            let (from, to) = (
                SocketAddr::new(from, 0),
                SocketAddr::new(to, self.config.port),
            );
            link::dial(node.clone(), from, to, self.events.clone());
        }
    }
}

/// Why a connection is not taken.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("{0}")]
    System(#[from] io::Error),
    #[error(transparent)]
    Secret(#[from] secret::SecretError),
    #[error("egress.secretFile is not set")]
    NoSecret,
    #[error("too many others have not proved themselves yet")]
    Strangers,
}

/// Octets nobody can guess.
pub(crate) fn nonce() -> io::Result<[u8; 32]> {
    use std::io::Read as _;
    let mut nonce = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut nonce)?;
    Ok(nonce)
}
