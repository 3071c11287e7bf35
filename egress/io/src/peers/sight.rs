// SPDX-License-Identifier: Apache-2.0
//! Which of the other gateways live, by BFD and by what the others say.
//!
//! A session that fails makes a node suspect, not dead: then everybody who is linked is asked
//! ([`egress_sync::witness`]), again and again while the session is down. So a node whose way to
//! this one alone is cut keeps what it holds, and one that dies later is found within
//! [`ASK_AGAIN`]. A node without BFD is never suspect.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bgp_bfd::profile::{Hops, Profile};
use bgp_bfd::session::SessionStatus;
use bgp_bfd::wire::State;
use bgp_bfdd::client::{Client, View};
use bgp_bfdd::protocol::SessionKey;
use egress_sync::lease::{ALONE_IN_A_ROW, ASK_AGAIN};
use egress_sync::name::NodeName;
use egress_sync::witness::Verdict;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::Event;

/// How long a session may take to come up for the first time.
const NEVER_UP: Duration = Duration::from_secs(3);

/// A BFD session with another gateway (RFC 5883).
#[derive(Clone, Debug, PartialEq)]
pub struct Watch {
    /// The other one's address.
    pub peer: IpAddr,
    /// This node's.
    pub local: IpAddr,
    /// How it runs.
    pub profile: Profile,
}

/// What BFD says of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The session is up.
    Yes,
    /// It is not.
    No,
    /// The process of BFD has not answered, or not any more.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    /// Nothing is known against it.
    Fine,
    /// It is not heard, and others are asked then.
    Suspect {
        since: Instant,
        ask_at: Instant,
        is_dead: bool,
    },
}

impl Sight {
    fn suspect(now: Instant) -> Sight {
        Sight::Suspect {
            since: now,
            ask_at: now,
            is_dead: false,
        }
    }
}

#[derive(Debug)]
struct Watched {
    watch: Watch,
    task: AbortHandle,
    since: Instant,
    /// The process's number of the session and its failures, when last looked at.
    seen: Option<(u32, u64)>,
    /// Whether the process answers.
    is_known: bool,
    is_up: bool,
    was_up: bool,
    sight: Sight,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is known of the other gateways.
#[derive(Debug)]
pub(super) struct Sights {
    client: Option<Client>,
    watched: BTreeMap<NodeName, Watched>,
    alone: u32,
    /// Those about whom nobody has answered since this node was cut off.
    unsure: BTreeSet<NodeName>,
}

impl Sights {
    pub(super) fn new(client: Option<Client>) -> Sights {
        Sights {
            client,
            watched: BTreeMap::new(),
            alone: 0,
            unsure: BTreeSet::new(),
        }
    }

    /// Watches these and no others.
    pub(super) fn set(
        &mut self,
        wanted: &BTreeMap<NodeName, Watch>,
        now: Instant,
        events: &mpsc::Sender<Event>,
    ) {
        let Some(client) = &self.client else {
            return;
        };
        self.watched.retain(|node, _| wanted.contains_key(node));
        self.unsure.retain(|node| wanted.contains_key(node));
        for (node, watch) in wanted {
            if let Some(watched) = self.watched.get(node)
                && watched.watch == *watch
            {
                continue;
            }
            let task = follow(client, node, watch, events.clone());
            let before = self.watched.remove(node);
            let watched = Watched {
                watch: watch.clone(),
                task,
                since: now,
                seen: None,
                is_known: false,
                is_up: false,
                was_up: false,
                sight: before.as_ref().map_or(Sight::Fine, |before| before.sight),
            };
            self.watched.insert(node.clone(), watched);
        }
    }

    /// BFD says something. Whether the decision may be another now.
    pub(super) fn handle_view(&mut self, node: &NodeName, view: &View, now: Instant) -> bool {
        let Some(watched) = self.watched.get_mut(node) else {
            return false;
        };
        let View::Known(status) = view else {
            // No news of the process is no news of the node.
            (watched.since, watched.was_up) = (now, false);
            watched.is_known = false;
            return false;
        };
        watched.is_known = true;
        let failed = watched.has_failed(status);
        watched.is_up = status.state == State::Up;
        watched.was_up |= watched.is_up;
        if watched.is_up {
            self.alone = 0;
            self.unsure.remove(node);
            let was = std::mem::replace(&mut watched.sight, Sight::Fine);
            if was != Sight::Fine {
                tracing::info!(%node, "gateway is heard again by BFD");
            }
            return was != Sight::Fine;
        }
        if failed && watched.sight == Sight::Fine {
            let diagnostic = status.last_down.unwrap_or(status.diagnostic);
            tracing::warn!(%node, reason = diagnostic.text(), "gateway is not heard by BFD");
            watched.sight = Sight::suspect(now);
        }
        false
    }

    /// A node has proved itself on a connection.
    pub(super) fn handle_linked(&mut self, node: &NodeName, now: Instant) -> bool {
        let was_isolated = self.is_isolated();
        self.alone = 0;
        self.unsure.remove(node);
        self.handle_sign(node, now) || was_isolated
    }

    /// A node has done something of late: it is asked about again, and not dead until then.
    pub(super) fn handle_sign(&mut self, node: &NodeName, now: Instant) -> bool {
        let Some(watched) = self.watched.get_mut(node) else {
            return false;
        };
        let Sight::Suspect {
            ask_at, is_dead, ..
        } = &mut watched.sight
        else {
            return false;
        };
        *ask_at = now;
        std::mem::replace(is_dead, false)
    }

    /// Those to ask about.
    pub(super) fn due(&mut self, now: Instant) -> Vec<NodeName> {
        let mut due = Vec::new();
        for (node, watched) in &mut self.watched {
            if watched.overdue_at().is_some_and(|at| now >= at) {
                tracing::warn!(%node, "gateway was never heard by BFD");
                watched.sight = Sight::suspect(now);
            }
            if let Sight::Suspect { ask_at, .. } = &mut watched.sight
                && *ask_at <= now
            {
                *ask_at = now + ASK_AGAIN;
                due.push(node.clone());
            }
        }
        due
    }

    /// What was found out. Whether the decision may be another now.
    ///
    /// Who was cut off takes nobody for dead by the first answer it gets: that may be of a witness
    /// which has just come back itself, to a question it had no time for. It asks once more.
    pub(super) fn handle_verdict(&mut self, node: &NodeName, verdict: Verdict) -> bool {
        let was_isolated = self.is_isolated();
        match verdict {
            Verdict::Isolated => self.alone = self.alone.saturating_add(1),
            Verdict::Alive | Verdict::Dead => self.alone = 0,
            Verdict::Alone => {}
        }
        let mut has_changed = was_isolated != self.is_isolated();
        if has_changed && !was_isolated {
            tracing::warn!("nobody is heard: this node is cut off, and holds nothing");
            self.unsure = self.watched.keys().cloned().collect();
        }
        let was_unsure = match verdict {
            Verdict::Alive | Verdict::Dead => self.unsure.remove(node),
            Verdict::Isolated | Verdict::Alone => false,
        };
        if let Some(watched) = self.watched.get_mut(node)
            && let Sight::Suspect { is_dead, .. } = &mut watched.sight
        {
            let found = match verdict {
                Verdict::Alive => false,
                Verdict::Dead if !was_unsure => true,
                Verdict::Dead | Verdict::Isolated | Verdict::Alone => *is_dead,
            };
            if found && !*is_dead {
                tracing::warn!(%node, "gateway is dead: nobody hears it");
            }
            has_changed |= *is_dead != found;
            *is_dead = found;
        }
        has_changed
    }

    /// Whether a node is dead as far as is known.
    pub(super) fn is_dead(&self, node: &NodeName) -> bool {
        let watched = self.watched.get(node);
        watched.is_some_and(|watched| matches!(watched.sight, Sight::Suspect { is_dead: true, .. }))
    }

    /// How long BFD has not heard a node, and how long it takes to see that.
    pub(super) fn suspect_for(&self, node: &NodeName, now: Instant) -> (Duration, Duration) {
        let Some(watched) = self.watched.get(node) else {
            return (Duration::ZERO, Duration::MAX);
        };
        let profile = &watched.watch.profile;
        // What both ends agree on is the slower one's (RFC 5880 §6.8.4); they have the same profile.
        let interval = profile.transmit.ms().max(profile.receive.ms());
        let detection = Duration::from_millis(interval.into()) * profile.multiplier.get().into();
        match watched.sight {
            Sight::Suspect { since, .. } => (now.duration_since(since), detection),
            Sight::Fine => (Duration::ZERO, detection),
        }
    }

    /// All that are dead as far as is known.
    pub(super) fn dead(&self) -> BTreeSet<NodeName> {
        let dead = self.watched.keys().filter(|node| self.is_dead(node));
        dead.cloned().collect()
    }

    /// What BFD says of a node; nothing where there is no session.
    pub(super) fn heard(&self, node: &NodeName) -> Option<Heard> {
        let watched = self.watched.get(node)?;
        Some(match (watched.is_known, watched.is_up) {
            (false, _) => Heard::Unknown,
            (true, false) => Heard::No,
            (true, true) => Heard::Yes,
        })
    }

    /// Those that are watched.
    pub(super) fn names(&self) -> impl Iterator<Item = &NodeName> {
        self.watched.keys()
    }

    /// Whether this node is cut off.
    pub(super) fn is_isolated(&self) -> bool {
        self.alone >= ALONE_IN_A_ROW
    }

    /// When [`Sights::due`] is to be called.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let times = self
            .watched
            .values()
            .filter_map(|watched| match watched.sight {
                Sight::Suspect { ask_at, .. } => Some(ask_at),
                Sight::Fine => watched.overdue_at(),
            });
        times.min()
    }
}

impl Watched {
    /// When the session will have taken too long to come up; never while nobody can say that it has
    /// not.
    fn overdue_at(&self) -> Option<Instant> {
        let is_awaited = self.is_known && !self.was_up && self.sight == Sight::Fine;
        is_awaited.then_some(self.since + NEVER_UP)
    }

    fn has_failed(&mut self, status: &SessionStatus) -> bool {
        let now = (status.local_discriminator, status.failures);
        let before = self.seen.replace(now);
        before.is_some_and(|(number, failures)| {
            number == status.local_discriminator && failures < status.failures
        })
    }
}

/// Asks for a session and tells what becomes of it, until the handle is aborted.
fn follow(
    client: &Client,
    node: &NodeName,
    watch: &Watch,
    events: mpsc::Sender<Event>,
) -> AbortHandle {
    let key = SessionKey {
        peer: watch.peer,
        local: Some(watch.local),
        interface: None,
        hops: Hops::Multi,
    };
    let mut session = client.request(key, watch.profile.clone());
    let node = node.clone();
    let following = async move {
        loop {
            let view = session.view();
            let node = node.clone();
            if events.send(Event::Bfd { node, view }).await.is_err() {
                return;
            }
            session.changed().await;
        }
    };
    tokio::spawn(following).abort_handle()
}

#[cfg(test)]
mod tests {
    use egress_sync::witness::Verdict::{Alive, Dead, Isolated};

    use super::*;

    fn name() -> NodeName {
        NodeName::new("gw2").expect("a name")
    }

    /// One gateway that BFD does not hear any more.
    fn suspicious(now: Instant) -> Sights {
        let mut sights = Sights::new(None);
        let address: IpAddr = "192.0.2.1".parse().expect("an address");
        let watched = Watched {
            watch: Watch {
                peer: address,
                local: address,
                profile: Profile::default(),
            },
            task: tokio::spawn(std::future::pending::<()>()).abort_handle(),
            since: now,
            seen: None,
            is_known: true,
            is_up: false,
            was_up: true,
            sight: Sight::suspect(now),
        };
        sights.watched.insert(name(), watched);
        sights
    }

    #[tokio::test]
    async fn who_was_cut_off_believes_a_death_when_it_hears_of_it_twice() {
        let mut sights = suspicious(Instant::now());
        for _ in 0..ALONE_IN_A_ROW {
            sights.handle_verdict(&name(), Isolated);
        }
        assert!(sights.is_isolated());
        assert!(sights.handle_verdict(&name(), Dead), "not cut off any more");
        assert!(!sights.is_isolated() && !sights.is_dead(&name()));
        assert!(sights.handle_verdict(&name(), Dead));
        assert!(sights.is_dead(&name()));
        // Cut off for one question alone is not cut off.
        let mut sights = suspicious(Instant::now());
        sights.handle_verdict(&name(), Isolated);
        assert!(sights.handle_verdict(&name(), Dead) && sights.is_dead(&name()));
        // Somebody has heard it in between: the next answer counts.
        let mut sights = suspicious(Instant::now());
        for verdict in [Isolated, Isolated, Alive, Dead] {
            sights.handle_verdict(&name(), verdict);
        }
        assert!(sights.is_dead(&name()));
    }

    #[tokio::test]
    async fn who_claims_is_not_dead_and_is_asked_about_at_once() {
        let began = Instant::now();
        let mut sights = suspicious(began);
        sights.handle_verdict(&name(), Dead);
        assert_eq!(sights.due(began), [name()]);
        let now = began + ASK_AGAIN / 2;
        assert!(sights.due(now).is_empty());
        assert!(sights.handle_sign(&name(), now) && !sights.is_dead(&name()));
        assert_eq!(sights.due(now), [name()]);
        assert!(!sights.handle_sign(&name(), now), "nothing new");
    }
}
