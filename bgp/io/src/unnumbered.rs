// SPDX-License-Identifier: Apache-2.0
//! Finding the router at the other end of a link, for sessions without configured addresses
//! ("unnumbered").
//!
//! On each link asked for, this end sends router advertisements (RFC 4861 §6.2) with a router
//! lifetime of 0, so that nobody takes it for a default router, and hears those of the other end.
//! Their source is the link-local address to call. Both ends must do so, as neither knows the
//! other's address before.
//!
//! [`RouterDiscovery`] runs one task for each link, on the runtime it is made in. A link that is not
//! there yet, or no longer, is tried again.

mod message;
mod socket;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use message::Message;
use socket::LinkSocket;

/// Between advertisements, as other routers have it on such links. RFC 4861 §6.2.1 allows from 4 s.
const INTERVAL: Duration = Duration::from_secs(10);

/// Between the first advertisements, of which there are [`FIRST`], and between attempts to open a
/// link (RFC 4861 §10 allows up to 16 s; a link that just came up is waited for).
const SHORT_INTERVAL: Duration = Duration::from_secs(1);

/// `MAX_INITIAL_RTR_ADVERTISEMENTS` of RFC 4861 §10.
const FIRST: u32 = 3;

/// How long a router that was heard keeps others on the link from its place: three intervals.
const HELD: Duration = Duration::from_secs(30);

/// The routers heard on links.
pub struct RouterDiscovery {
    tasks: BTreeMap<String, JoinHandle<()>>,
    shared: Arc<Shared>,
}

struct Shared {
    routers: Mutex<BTreeMap<String, Heard>>,
    changed: Box<dyn Fn() + Send + Sync>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Heard {
    router: Ipv6Addr,
    at: Instant,
}

impl RouterDiscovery {
    /// Hears on no link yet. `changed` is called whenever [`RouterDiscovery::routers`] has a new
    /// answer.
    pub fn new(changed: impl Fn() + Send + Sync + 'static) -> RouterDiscovery {
        RouterDiscovery {
            tasks: BTreeMap::new(),
            shared: Arc::new(Shared {
                routers: Mutex::default(),
                changed: Box::new(changed),
            }),
        }
    }

    /// Says on which links to advertise and hear, by the names of their interfaces.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn set_interfaces(&mut self, wanted: &BTreeSet<String>) {
        let shared = &self.shared;
        self.tasks.retain(|interface, task| {
            let is_wanted = wanted.contains(interface);
            if !is_wanted {
                task.abort();
                shared.lock().remove(interface);
            }
            is_wanted
        });
        for interface in wanted {
            if !self.tasks.contains_key(interface) {
                let task = tokio::spawn(serve(interface.clone(), Arc::clone(&self.shared)));
                self.tasks.insert(interface.clone(), task);
            }
        }
    }

    /// The link-local address of the router on each link where one was heard.
    pub fn routers(&self) -> BTreeMap<String, Ipv6Addr> {
        let routers = self.shared.lock();
        let entries = routers.iter();
        entries
            .map(|(name, heard)| (name.clone(), heard.router))
            .collect()
    }
}

impl Drop for RouterDiscovery {
    fn drop(&mut self) {
        self.tasks.values().for_each(JoinHandle::abort);
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Heard>> {
        self.routers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard(&self, interface: &str, router: Ipv6Addr, now: Instant) {
        let is_new = {
            let mut routers = self.lock();
            let next = chosen(routers.get(interface).copied(), router, now);
            let before = routers.insert(interface.to_owned(), next);
            before.map(|heard| heard.router) != Some(next.router)
        };
        if is_new {
            tracing::info!(interface, %router, "router heard on the link");
            (self.changed)();
        }
    }
}

/// Which router is the neighbour after one was heard: the one there was, unless it has been silent.
fn chosen(before: Option<Heard>, router: Ipv6Addr, now: Instant) -> Heard {
    match before {
        Some(before) if before.router != router && now.duration_since(before.at) < HELD => before,
        Some(_) | None => Heard { router, at: now },
    }
}

async fn serve(interface: String, shared: Arc<Shared>) {
    let mut is_reported = false;
    loop {
        match LinkSocket::open(&interface) {
            Ok(socket) => {
                is_reported = false;
                let error = converse(&socket, &interface, &shared).await;
                tracing::debug!(interface, %error, "link lost; opening it anew");
            }
            Err(error) if !is_reported => {
                is_reported = true;
                tracing::warn!(interface, %error, "cannot look for a router; trying again");
            }
            Err(_) => {}
        }
        tokio::time::sleep(SHORT_INTERVAL).await;
    }
}

/// Advertises and hears until the link fails.
async fn converse(socket: &LinkSocket, interface: &str, shared: &Shared) -> std::io::Error {
    if let Err(error) = socket.send(Message::Solicitation).await {
        return error;
    }
    let mut sent: u32 = 0;
    loop {
        if let Err(error) = socket.send(Message::Advertisement).await {
            return error;
        }
        sent = sent.saturating_add(1);
        let pause = if sent < FIRST {
            SHORT_INTERVAL
        } else {
            INTERVAL
        };
        let next = tokio::time::Instant::now() + pause;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(next) => break,
                received = socket.receive() => match received {
                    Ok(Some((from, Message::Advertisement))) => {
                        shared.heard(interface, from, Instant::now());
                    }
                    // Somebody has just come up: the answer goes to all, who asked included.
                    Ok(Some((_, Message::Solicitation))) => break,
                    Ok(None) => {}
                    Err(error) => return error,
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_router_takes_the_place_of_a_silent_one() {
        let [a, b]: [Ipv6Addr; 2] = ["fe80::a", "fe80::b"].map(|text| text.parse().unwrap());
        let start = Instant::now();
        let first = chosen(None, a, start);
        assert_eq!(first.router, a);
        let soon = start + HELD / 2;
        assert_eq!(chosen(Some(first), b, soon), first);
        assert_eq!(chosen(Some(first), a, soon).at, soon);
        assert_eq!(chosen(Some(first), b, start + HELD).router, b);
    }
}
