// SPDX-License-Identifier: Apache-2.0
//! From the speaker's tables to the routes of the node, and from its next hops back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bgp_core::config::{InstanceName, PeerName};
use bgp_core::deliveries::Deliveries;
use bgp_core::rib::NextHopState as SpeakerHop;
use bgp_io::{RouteEvent, Speaker};
use router_rib::{NextHopChange, NextHopState, OriginId, TrackedNextHop};
use router_types::{Family, Forwarding, RouteSource, TableId};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::routes::{Learned, Routes};

/// How often next hops are compared with those the tables use.
const TRACK: Duration = Duration::from_millis(200);

/// Carries route events to the node's routes. Ends with the speaker.
///
/// After a restart learned routes are held until `release`: the kernel has those of the run
/// before, and a destination that two neighbours offer must not lose one of them because the other
/// is heard first (RFC 4724 §4.1, deferred selection). What `release` brings is answered once they
/// are passed on.
pub async fn carry(
    mut events: mpsc::Receiver<RouteEvent>,
    speaker: Speaker,
    routes: Routes,
    delivered: Arc<Delivered>,
    release: oneshot::Receiver<oneshot::Sender<()>>,
) {
    let mut held = Some(Vec::new());
    let mut release = std::pin::pin!(release);
    let mut origins: BTreeMap<InstanceName, OriginId> = BTreeMap::new();
    let mut next_origin = crate::routes::LOCAL.0;
    let mut new_origin = || {
        next_origin += 1;
        OriginId(next_origin)
    };
    let mut tick = tokio::time::interval(TRACK);
    let mut tracked = BTreeSet::new();
    let mut dirty = false;
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(RouteEvent::NextHops { instance }) => {
                    dirty = true;
                    origins.entry(instance).or_insert_with(&mut new_origin);
                }
                Some(RouteEvent::Best { instance, changes }) => {
                    let origin = *origins.entry(instance).or_insert_with(&mut new_origin);
                    let learned = changes.into_iter().map(|change| match change.best {
                        Some(best) => Learned {
                            prefix: change.prefix,
                            source: best.source,
                            forwarding: Some(
                                best.discard.unwrap_or(Forwarding::Via(best.next_hops)),
                            ),
                        },
                        None => Learned {
                            prefix: change.prefix,
                            source: RouteSource::Ebgp,
                            forwarding: None,
                        },
                    });
                    match &mut held {
                        Some(held) => held.push((origin, learned.collect())),
                        None => routes.learned(origin, learned.collect()).await,
                    }
                }
                Some(RouteEvent::EndOfRib { instance, peer, family }) => {
                    delivered.add(instance, peer, family);
                }
                Some(RouteEvent::InstanceGone(instance)) => {
                    dirty = true;
                    if let Some(origin) = origins.remove(&instance) {
                        if let Some(held) = &mut held {
                            held.retain(|(of, _)| *of != origin);
                        }
                        routes.withdraw_origin(origin).await;
                    }
                }
                None => return,
            },
            // Dropped without a word, it releases all the same.
            passed = &mut release, if held.is_some() => {
                for (origin, learned) in held.take().into_iter().flatten() {
                    routes.learned(origin, learned).await;
                }
                if let Ok(passed) = passed {
                    // Nobody waits any more: they are passed on all the same.
                    let _ = passed.send(());
                }
            }
            _ = tick.tick(), if dirty => {
                dirty = false;
                let mut wanted = BTreeSet::new();
                for instance in origins.keys() {
                    let hops = speaker.ask(instance, |rib, _| rib.next_hops().collect::<Vec<_>>());
                    // A link-local one is reached over the link of its session, as long as that lasts;
                    // without the link there is nothing to ask.
                    let hops = hops.await.unwrap_or_default().into_iter();
                    wanted.extend(hops.filter(|hop| !is_link_local(hop)));
                }
                if wanted != tracked {
                    let hops = wanted.iter().map(|address| TrackedNextHop {
                        table: TableId::MAIN,
                        address: *address,
                        link: None,
                    });
                    routes.track(hops.collect()).await;
                    tracked = wanted;
                }
            }
        }
    }
}

fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// What the tables are told about next hops.
pub fn speaker_hops(changes: Vec<NextHopChange>) -> Vec<SpeakerHop> {
    changes
        .into_iter()
        .map(|change| SpeakerHop {
            address: change.next_hop.address,
            metric: match change.state {
                NextHopState::Reachable { metric, .. } => Some(metric),
                NextHopState::Unreachable(_) => None,
            },
        })
        .collect()
}

/// Which neighbours have sent all their routes, for those who wait for it.
#[derive(Debug, Default)]
pub struct Delivered {
    deliveries: std::sync::Mutex<Deliveries>,
    changed: Notify,
}

impl Delivered {
    fn add(&self, instance: InstanceName, peer: PeerName, family: Family) {
        crate::intent::lock(&self.deliveries).end_of_rib(instance, peer, family);
        self.changed.notify_waiters();
    }

    /// As [`Deliveries::has`].
    pub fn has(&self, instance: &InstanceName, peer: &PeerName, family: Family) -> bool {
        crate::intent::lock(&self.deliveries).has(instance, peer, family)
    }

    /// Waits until [`Deliveries::are_complete`], or the limit is over.
    pub async fn all(&self, speaker: &Speaker, limit: Duration) {
        let complete = async {
            loop {
                let changed = self.changed.notified();
                let instances = speaker.sessions().await;
                let sessions = instances.iter().flat_map(|instance| {
                    let name = instance.config.name();
                    instance.peers.iter().map(move |peer| (name, &peer.session))
                });
                if crate::intent::lock(&self.deliveries).are_complete(sessions) {
                    return;
                }
                // A neighbour may also go away, or agree on fewer families, without a word here.
                let _ = tokio::time::timeout(Duration::from_secs(1), changed).await;
            }
        };
        if tokio::time::timeout(limit, complete).await.is_err() {
            tracing::info!(
                ?limit,
                "not every neighbour has sent all its routes in time"
            );
        }
    }
}
