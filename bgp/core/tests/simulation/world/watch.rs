// SPDX-License-Identifier: Apache-2.0
//! What must hold at every moment, whatever happens.

use bgp_core::config::{InstanceConfig, PeerConfig, PeerName};
use bgp_core::peer::{DownReason, Negotiated};
use bgp_core::rib::{PrefixFilter, Rejection, Rib, RouteQuery, RouteTable, RouteView, Verdict};
use bgp_core::routes::RouteItem;

use bgp_wire::{PeerKind, SessionContext, Update, UpdateView, frame};

use super::*;
use crate::node::{Session, Tables};

/// What the tables were told that has an effect at once.
pub(super) enum Told {
    /// A session came up, in which these families were not forwarded for meanwhile: nothing of them
    /// is kept (RFC 4724 §4.2).
    Up(PeerName, Vec<Family>),
    /// A neighbour had nothing more to say of a family: what it did not say is gone (RFC 4724 §4.2,
    /// RFC 7313 §4).
    End(PeerName, Vec<Family>),
    /// A neighbour is gone for good.
    Gone(PeerName),
    /// Other limits count.
    Configured,
    Other,
}

impl Told {
    pub(super) fn by(input: &RibInput) -> Told {
        match input {
            RibInput::PeerUp { peer, session } => {
                let families = session.families.iter();
                let lost = families.filter(|family| !family.forwarding_preserved);
                Told::Up(peer.clone(), lost.map(|family| family.family).collect())
            }
            RibInput::Routes { peer, changes } => {
                let ended = changes.iter().filter_map(|item| match item {
                    RouteItem::EndOfRib { family } => Some(family),
                    RouteItem::Announce { .. } | RouteItem::Withdraw { .. } => None,
                });
                Told::End(peer.clone(), ended.collect())
            }
            RibInput::RefreshEnds { peer, family } => Told::End(peer.clone(), vec![*family]),
            RibInput::PeerDown {
                peer,
                keep_routes: None,
            } => Told::Gone(peer.clone()),
            RibInput::Configure(_) => Told::Configured,
            RibInput::PeerDown { .. }
            | RibInput::LocalRoutes(_)
            | RibInput::HoldEnds
            | RibInput::SendEnds
            | RibInput::Numbers(_)
            | RibInput::Inherit { .. }
            | RibInput::NextHops(_)
            | RibInput::Resend { .. }
            | RibInput::RefreshBegins { .. }
            | RibInput::Timeout => Told::Other,
        }
    }
}

/// The tables after they were told something.
pub(super) fn tables(
    tables: &Tables,
    config: &InstanceConfig,
    told: Told,
    now: Instant,
) -> Result<(), String> {
    match told {
        Told::Up(peer, families) => no_stale(tables, &peer, &families, "is back", now),
        Told::End(peer, families) => {
            // What was on its way when the session ended is not looked at.
            let link = tables.epochs.keys().find(|link| name(**link) == peer);
            let Some(link) = link else {
                return Ok(());
            };
            no_stale(tables, &peer, &families, "has said all", now)?;
            within_limits(tables, config, *link, now)
        }
        Told::Gone(peer) => {
            let counts = tables.rib.counts(&peer);
            match counts.values().any(|counts| counts.received > 0) {
                true => Err(format!("{peer} is gone, its routes are not: {counts:?}")),
                false => Ok(()),
            }
        }
        Told::Configured => {
            let mut links = tables.epochs.keys();
            links.try_for_each(|link| within_limits(tables, config, *link, now))
        }
        Told::Other => Ok(()),
    }
}

fn no_stale(
    tables: &Tables,
    peer: &PeerName,
    families: &[Family],
    why: &str,
    now: Instant,
) -> Result<(), String> {
    for &family in families {
        let routes = routes(tables, RouteTable::Received(peer.clone()), family, now);
        if let Some(stale) = routes.iter().find(|route| route.stale) {
            return Err(format!("{peer} {why}, and this is stale: {stale:?}"));
        }
    }
    Ok(())
}

/// No neighbour has more routes in the tables than it may, and where one is too many this was said.
fn within_limits(
    tables: &Tables,
    config: &InstanceConfig,
    link: usize,
    now: Instant,
) -> Result<(), String> {
    let peer = name(link);
    let family = Family::IPV4_UNICAST;
    let configured = &config.peers()[&peer].families()[&family];
    let Some(limit) = configured
        .limit
        .filter(|_| !tables.over_limit.contains(&link))
    else {
        return Ok(());
    };
    let filtered = routes(tables, RouteTable::Filtered(peer.clone()), family, now);
    let beyond = Some(Verdict::Rejected(Rejection::Limit));
    if let Some(route) = filtered.iter().find(|route| route.verdict == beyond) {
        return Err(format!("{peer}: {route:?}, and nobody was told"));
    }
    let accepted = tables
        .rib
        .counts(&peer)
        .get(&family)
        .map(|counts| counts.accepted);
    match accepted.filter(|accepted| *accepted > limit.limit().into()) {
        // A limit that is new is told to the tables by what waits for them.
        Some(_) if tables.is_to_be_configured() => Ok(()),
        Some(accepted) => Err(format!("{peer}: {accepted} routes, and may have {limit:?}")),
        None => Ok(()),
    }
}

fn routes(tables: &Tables, table: RouteTable, family: Family, now: Instant) -> Vec<RouteView> {
    let query = RouteQuery {
        table,
        family,
        filter: PrefixFilter::All,
        after: None,
        limit: usize::MAX,
    };
    tables.rib.routes(&query, now).routes
}

/// RFC 4724 §2: whoever says End-of-RIB of a family has said all of it.
pub(super) fn end_of_rib(rib: &Rib, peer: &PeerName, mut bytes: &[u8]) -> Result<(), String> {
    while let Ok(Some(frame)) = frame::next(bytes, frame::MAX_EXTENDED_LEN) {
        let update = (frame.kind == MessageKind::Update).then(|| UpdateView::split(frame.body));
        let is_end = update.is_some_and(|view| match view {
            Ok(view) => {
                let mut canonical = Vec::new();
                let context = SessionContext::plain(PeerKind::Internal, &PeerConfig::CARRIED);
                let update = Update::parse(&view, &context, &mut canonical);
                update.end_of_rib().is_some()
            }
            Err(_) => false,
        });
        let (_, behind) = rib.backlog(peer);
        if is_end && behind > 0 {
            return Err(format!(
                "{peer} is told the end, and {behind} routes are to come"
            ));
        }
        bytes = &bytes[frame.len..];
    }
    Ok(())
}

/// RFC 4271 §10: every KEEPALIVE comes after 75 to 100 % of the time between two.
pub(super) fn keepalive(session: &mut Session, now: Instant) -> Result<(), String> {
    let interval = session.peer.negotiated().and_then(|n| n.keepalive);
    if let (Some(interval), Some(before)) = (interval, session.said_at.replace(now)) {
        let after = now - before;
        if after > interval || after < interval * 3 / 4 {
            return Err(format!("a KEEPALIVE after {after:?} of {interval:?}"));
        }
    }
    Ok(())
}

/// Nothing was wrong with what anybody said, so nobody may say so.
pub(super) fn reason(session: &Session, reason: &DownReason, now: Instant) -> Result<(), String> {
    match reason {
        DownReason::NotificationSent(_) | DownReason::UnexpectedMessage { .. } => {
            Err(format!("down: {reason}"))
        }
        DownReason::HoldTimerExpired { hold_s, .. } => {
            let silent = now - session.heard_at;
            if silent < Duration::from_secs((*hold_s).into()) {
                return Err(format!("given up after {silent:?} of {hold_s} s"));
            }
            Ok(())
        }
        DownReason::NotificationReceived(text) => match (text.code, text.subcode) {
            // Hold timer, and what operators do.
            (4, 0) | (6, _) => Ok(()),
            _ => Err(format!("told off: {reason}")),
        },
        DownReason::ConnectionLost { .. } | DownReason::Stopped(_) | DownReason::Collision => {
            Ok(())
        }
        DownReason::NotStarted
        | DownReason::ConnectFailed { .. }
        | DownReason::PeerAs { .. }
        | DownReason::PeerAsNotInRange { .. }
        | DownReason::RoleMismatch { .. }
        | DownReason::SameRouterId
        | DownReason::NoCommonFamily { .. } => Err(format!("down: {reason}")),
    }
}

impl World {
    /// RFC 4724 §3: a node whose session comes back without a restart has forwarded meanwhile, and
    /// says so. Otherwise what is kept of it would go as soon as it is back.
    pub(super) fn forwards(
        &self,
        node: usize,
        link: usize,
        agreed: &Negotiated,
    ) -> Result<(), String> {
        let there = self.topology.links[link][1 - self.end_of(node, link)].node;
        let session = self.nodes[there]
            .as_ref()
            .map(|there| &there.sessions[&link]);
        // The second session of its life at least: one may be this.
        let is_back = session.is_some_and(|session| session.epoch > 1);
        let restart = agreed.graceful_restart.iter();
        let mut lost = restart.flat_map(|restart| &restart.families);
        let lost = lost.find(|family| is_back && !family.forwarding_preserved);
        match lost {
            Some(family) => Err(format!(
                "node {there}, link {link}: back without a restart, and does not forward {}",
                family.family
            )),
            None => Ok(()),
        }
    }

    /// Both ends of a link have dialled at once: one of the two connections has come up.
    pub(super) fn raced(&mut self, link: usize, since: Instant) -> Result<(), String> {
        if self.disturbed[link] <= since && self.down().contains(&link) {
            return Err(format!(
                "link {link}: both ends have dialled, and no session is up"
            ));
        }
        Ok(())
    }
}

impl Tables {
    fn is_to_be_configured(&self) -> bool {
        let is_configuration =
            |message: &ForRib| matches!(message, ForRib::Input(RibInput::Configure(_)));
        self.queue.iter().any(is_configuration)
    }
}
