// SPDX-License-Identifier: Apache-2.0
//! Carrying what one piece says to the next, until none has anything to say.

use std::time::Instant;

use bpf_loader::{Cursor, Error, Gateway, Mapping};
use egress_sync::channel::{ChannelError, End, MAX_MESSAGE, Output};
use egress_sync::claims::{ClaimOutput, HandOverEnd, Holder};
use egress_sync::mapping::Change;
use egress_sync::name::{NodeName, Rule};
use egress_sync::replication::{Apply, PageError, ReceiverOutput, Rest, SenderOutput};
use egress_sync::wire::{self, Decoded, MAX_MISSED, Message};
use egress_sync::witness::{Verdict, WitnessOutput};

use super::connections::{DIAL_FIRST, LISTEN_AGAIN};
use super::tenure::{GRACE, HAND_OVER_AGAIN, LEAVE_LIMIT};
use super::{MAX_WAITING, Peers, copies};
use router_types::LinkIndex;

/// Copies put in before others have a turn.
const PORTION: usize = 2048;

/// Pages of snapshots read before others have a turn: a page takes some hundred microseconds.
const PAGES: usize = 16;

/// Events of the data plane taken at once.
const EVENTS: usize = 4096;

/// Why there is no link, where the other end knows more. It says nothing to who does not know its key.
const REFUSED_THERE: &str = "other end refused this one, and its log says why: is egress.secretFile the \
                             same on both?";

impl Peers {
    /// Does what there is to do. Whether there is more to do at once.
    pub(crate) fn pump(
        &mut self,
        mut gateway: Option<&mut Gateway>,
        fabric: &[LinkIndex],
        now: Instant,
    ) -> bool {
        self.handle_timeouts(now);
        let (mut left, mut pages) = (PORTION, PAGES);
        loop {
            let mut is_busy = self.read_links(now);
            for node in self.peers.keys().cloned().collect::<Vec<_>>() {
                is_busy |= self.receive(&node, gateway.as_deref_mut(), &mut left, now);
            }
            is_busy |= self.poll_ledger();
            is_busy |= self.poll_claims(gateway.as_deref_mut(), now);
            is_busy |= self.poll_witness(fabric, now);
            is_busy |= self.poll_leases(fabric);
            if std::mem::take(&mut self.has_lost_all) {
                self.unlink_all(now);
            }
            self.tell_missed(now);
            self.tell_held();
            is_busy |= self.poll_senders(gateway.as_deref_mut(), &mut pages, now);
            if !is_busy || left == 0 || pages == 0 {
                break;
            }
        }
        for link in self.links.values_mut() {
            link.flush();
        }
        left == 0 || pages == 0
    }

    /// Whether the decision may be another since the last call.
    pub(crate) fn take_stale(&mut self) -> bool {
        std::mem::take(&mut self.is_stale)
    }

    /// Tells those who stand by what happened to mappings.
    fn tell(&mut self, changes: &[Mapping]) {
        for mapping in changes {
            if let Some(told) = copies::to_wire(mapping, &self.own)
                && self.held.contains(&told.rule)
            {
                let change = Change::Set(told);
                self.each_sender(|sender| sender.handle_change(&change));
            }
        }
    }

    /// Tells them of the gateway's events; whether there may be more.
    pub(crate) fn tell_events(&mut self, gateway: &mut Gateway) -> bool {
        let changes = gateway.changes(EVENTS);
        // The buffer was full before something was lost, so there is something to read.
        if !changes.is_empty() {
            match gateway.missed() {
                Ok(0) => {}
                Ok(lost) => {
                    tracing::warn!(
                        lost,
                        "connections changed too fast: standbys get all of them anew"
                    );
                    self.tell_gap();
                }
                Err(error) => {
                    tracing::error!(%error, "whether connections were missed is not known");
                    self.tell_gap();
                }
            }
        }
        self.tell(&changes);
        changes.len() == EVENTS
    }

    /// Tells them of mappings that are gone.
    pub(crate) fn tell_gone(&mut self, gone: &[Mapping]) {
        for mapping in gone {
            let rule = Rule::new(mapping.rule).filter(|rule| self.held.contains(rule));
            if let (Some(rule), Some(key)) = (rule, copies::key(mapping)) {
                let change = Change::Remove { rule, key };
                self.each_sender(|sender| sender.handle_change(&change));
            }
        }
    }

    /// Changes were missed.
    fn tell_gap(&mut self) {
        self.each_sender(|sender| sender.handle_gap());
    }

    fn each_sender(&mut self, mut tell: impl FnMut(&mut egress_sync::replication::Sender)) {
        for peer in self.peers.values_mut() {
            tell(&mut peer.sender);
        }
    }

    /// The senders know what is held before anything of it is deleted.
    pub(crate) fn tell_held(&mut self) {
        let held = self.table.held().map(|claim| claim.rule).collect();
        if self.held != held {
            self.held = held;
            for peer in self.peers.values_mut() {
                peer.sender.handle_held(&self.held);
            }
        }
    }

    /// The others know whom this node takes for dead.
    fn tell_missed(&mut self, now: Instant) {
        let missed = self.sights.dead();
        if self.missed == missed {
            return;
        }
        self.missed = missed;
        let message = self.missed_here();
        for node in self.linked.keys().cloned().collect::<Vec<_>>() {
            self.send(&node, &message, now);
        }
    }

    fn missed_here(&self) -> Message {
        Message::Missed(self.missed.iter().take(MAX_MISSED).cloned().collect())
    }

    fn handle_timeouts(&mut self, now: Instant) {
        for link in self.links.values_mut() {
            if link.channel.poll_timeout().is_some_and(|(at, _)| at <= now) {
                link.channel.handle_timeout(now);
            }
        }
        if let Some(more) = self.refusals.take_untold(now) {
            tracing::warn!(more, "connections refused that are not in this log");
        }
        self.table.handle_timeout(now);
        self.witness.handle_timeout(now);
        self.ledger.handle_timeout(now);
        if self.is_spoken() {
            self.dial(now);
        }
        if self.listen_at.is_some_and(|at| at <= now) {
            self.listen_at = Some(now + LISTEN_AGAIN);
            self.listen(now);
        }
        let is_offered = |offered: Instant| now >= offered + HAND_OVER_AGAIN;
        // Time to take what nobody has been heard to hold.
        let is_sure = now >= self.unsure_since + GRACE;
        self.is_stale |= is_sure && !self.is_sure;
        self.is_sure = is_sure;
        let mut leaving = self.leaving.values();
        self.is_stale |=
            leaving.any(|(since, offered)| is_offered(*offered) || now >= *since + LEAVE_LIMIT);
        let linked = self.linked.keys().cloned().collect();
        if self.sights.is_isolated() {
            self.unsure_since = now;
        }
        for node in self.sights.due(now) {
            self.witness.ask(&node, &linked, now);
        }
    }

    fn read_links(&mut self, now: Instant) -> bool {
        let mut outputs = Vec::new();
        for (id, link) in &mut self.links {
            while let Some(output) = link.channel.poll_output() {
                outputs.push((*id, output));
            }
        }
        let is_busy = !outputs.is_empty();
        for (id, output) in outputs {
            match output {
                Output::Established { peer, .. } => self.established(id, peer, now),
                Output::Message(bytes) => self.read(id, &bytes, now),
                Output::Ended(end) => self.ended(id, end, now),
            }
        }
        is_busy
    }

    fn established(&mut self, id: u64, node: NodeName, now: Instant) {
        if !self.addresses.contains_key(&node) {
            tracing::warn!(%node, "a node that proves itself is none of the cluster");
            self.close(id);
            return;
        }
        if let Some(before) = self.linked.get(&node).copied() {
            // Both have connected: the one stays that the lower name began. Of two by one end the
            // newer counts.
            let is_ours = |id: &u64| self.links.get(id).is_some_and(|l| l.dialled.is_some());
            let wanted = self.name < node;
            if is_ours(&before) == wanted && is_ours(&id) != wanted {
                self.close(id);
                return;
            }
            self.unlink(&node, now);
            self.close(before);
        }
        tracing::info!(%node, "linked with gateway");
        self.linked.insert(node.clone(), id);
        self.known.insert(node.clone());
        self.table.handle_link_up(&node);
        // What others were asked before it spoke is out of date: it is asked itself.
        self.witness.forget(&node);
        self.is_stale |= self.sights.handle_linked(&node, now);
        let is_available = self.is_available;
        let peer = self.peer(&node, now);
        (peer.problem, peer.pause) = (None, DIAL_FIRST);
        peer.tunnel = None;
        peer.receiver.handle_link_up();
        for peer in self.peers.values_mut() {
            self.is_stale |= peer.missed.remove(&node);
        }
        self.send(&node, &Message::Standing { is_available }, now);
        self.send(&node, &Message::Tunnel(self.tunnel), now);
        self.send(&node, &self.missed_here(), now);
        self.tell_reached(&node, now);
    }

    /// What a link's other end says is over; the link may be already.
    fn unlink(&mut self, node: &NodeName, now: Instant) {
        self.linked.remove(node);
        self.table.handle_link_down(node);
        let peer = self.peer(node, now);
        peer.sender.handle_link_down();
        peer.receiver.handle_link_down();
    }

    /// Nobody is heard: what the links said is out of date before it is said again.
    fn unlink_all(&mut self, now: Instant) {
        for (node, id) in std::mem::take(&mut self.linked) {
            self.unlink(&node, now);
            self.close(id);
        }
    }

    /// A node is heard that was not: it is connected to at once.
    pub(super) fn dial_soon(&mut self, node: &NodeName, now: Instant) {
        if let Some(peer) = self.peers.get_mut(node) {
            (peer.dial_at, peer.pause) = (now, DIAL_FIRST);
        }
    }

    fn close(&mut self, id: u64) {
        if let Some(mut link) = self.links.remove(&id) {
            link.channel.close();
            link.flush();
        }
    }

    fn ended(&mut self, id: u64, end: End, now: Instant) {
        let Some(mut link) = self.links.remove(&id) else {
            return;
        };
        link.flush();
        let linked = self.linked.iter().find(|(_, of)| **of == id);
        let linked = linked.map(|(node, _)| node.clone());
        let reason = match end {
            End::Here => "closed here".to_owned(),
            End::There => "closed by the other end".to_owned(),
            End::Failed(ChannelError::EndOfStream) if linked.is_none() => REFUSED_THERE.to_owned(),
            End::Failed(error) => error.to_string(),
        };
        if let Some(node) = &linked {
            tracing::warn!(%node, %reason, "link with gateway lost");
            self.unlink(node, now);
            // It has been told.
            self.peer(node, now).problem = Some(reason.clone());
        }
        match linked.or(link.dialled.take()) {
            Some(node) => self.dial_failed(&node, &reason, now),
            None => self.refused(link.remote, &reason, now),
        }
    }

    fn read(&mut self, id: u64, bytes: &[u8], now: Instant) {
        let Some((from, _)) = self.linked.iter().find(|(_, of)| **of == id) else {
            return;
        };
        let from = from.clone();
        match wire::decode(bytes) {
            Ok(Decoded::Message(message)) => self.hear(&from, message, now),
            Ok(Decoded::Skipped { kind }) => tracing::debug!(node = %from, kind, "skipped"),
            Err(error) => {
                tracing::error!(node = %from, %error, "what a gateway says cannot be read");
                self.unlink(&from, now);
                self.close(id);
                self.dial_failed(&from, &error.to_string(), now);
            }
        }
    }

    fn hear(&mut self, from: &NodeName, message: Message, now: Instant) {
        let linked = self.linked.keys().cloned().collect();
        let had_heard = self.table.has_heard(from);
        let is_claim = self.table.handle_message(from, &message);
        // One that waited for what this one holds may go on.
        self.is_stale |= self.table.has_heard(from) != had_heard;
        if is_claim || self.witness.handle_message(from, &message, &linked, now) {
            return;
        }
        let own = self.tunnel;
        let peer = self.peer(from, now);
        match message {
            Message::Subscribe {
                epoch,
                is_restart,
                rules,
            } => peer.sender.handle_subscribe(epoch, is_restart, &rules),
            Message::Ack { epoch, sequence } => peer.sender.handle_ack(epoch, sequence),
            Message::Batch(batch) => peer.receiver.handle_batch(batch),
            Message::Standing { is_available } => {
                let was = std::mem::replace(&mut peer.is_available, is_available);
                self.is_stale |= was != is_available;
            }
            Message::Tunnel(theirs) => {
                peer.tunnel = Some(theirs);
                if theirs != own {
                    tracing::error!(
                        node = %from,
                        "its tunnel speaks {theirs}, this node's {own}: what they send to each other \
                         is lost until egress.tunnelProtocol and egress.tunnelPort are the same"
                    );
                }
            }
            Message::Missed(nodes) => {
                let was = std::mem::replace(&mut peer.missed, nodes.into_iter().collect());
                self.is_stale |= was != peer.missed;
            }
            Message::Reached(said) => {
                self.is_stale |= self.probes.handle_said(from, &said, now);
            }
            // Taken before.
            _ => {}
        }
    }

    /// Says something to a peer, if it is linked.
    pub(super) fn send(&mut self, to: &NodeName, message: &Message, now: Instant) {
        let Some(id) = self.linked.get(to).copied() else {
            return;
        };
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let bytes = match wire::encode(message) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::error!(node = %to, %error, "not said");
                return;
            }
        };
        if let Err(error) = link.channel.send(&bytes, now) {
            tracing::warn!(node = %to, %error, "the link begins anew");
            self.unlink(to, now);
            self.close(id);
            self.dial_failed(to, &error.to_string(), now);
        }
    }

    /// Carries out what a receiver has; at most so much.
    fn receive(
        &mut self,
        node: &NodeName,
        mut gateway: Option<&mut Gateway>,
        left: &mut usize,
        now: Instant,
    ) -> bool {
        let mut is_busy = false;
        while *left > 0 {
            let peer = self.peers.get_mut(node);
            let Some(output) = peer.and_then(|peer| peer.receiver.poll_output()) else {
                break;
            };
            is_busy = true;
            *left -= 1;
            match output {
                ReceiverOutput::Send(message) => self.send(node, &message, now),
                ReceiverOutput::Apply(apply) => self.apply(&apply, gateway.as_deref_mut()),
                ReceiverOutput::Synchronised(rule) => {
                    tracing::debug!(%node, rule = rule.get(), "copies are complete");
                    // It may be ready from now on.
                    self.is_stale = true;
                }
                ReceiverOutput::Ended(rule) => {
                    tracing::debug!(%node, rule = rule.get(), "not held there");
                }
            }
        }
        is_busy
    }

    fn apply(&mut self, apply: &Apply, gateway: Option<&mut Gateway>) {
        match apply {
            Apply::Set(told) => {
                let mapping = copies::from_wire(told, &self.own);
                let is_own = self.table.holds(told.rule);
                let id = (told.rule, *told.key());
                let put = gateway.map(|gateway| {
                    // What this node made itself is newer than the last words of who held it.
                    if is_own && gateway.find(&mapping)?.is_some() {
                        return Ok(());
                    }
                    gateway.set_mapping(&mapping)
                });
                match put {
                    Some(Ok(())) => _ = self.waiting.remove(&id),
                    Some(Err(Error::NoSuchRule(_) | Error::NoSuchNode(_))) | None => {
                        if self.waiting.len() < MAX_WAITING {
                            self.waiting.insert(id, mapping);
                        }
                    }
                    Some(Err(error)) => tracing::warn!(%error, ?mapping, "no copy"),
                }
            }
            Apply::Remove { rule, key } => {
                self.waiting.remove(&(*rule, *key));
                if self.table.holds(*rule) {
                    return;
                }
                let Some(gateway) = gateway else { return };
                let wanted = copies::from_key(*rule, key);
                let removed = gateway.find(&wanted).and_then(|found| match found {
                    // The connection may be another rule's by now.
                    Some(found) if found.rule == rule.get() => gateway.remove_mapping(&found),
                    Some(_) | None => Ok(()),
                });
                if let Err(error) = removed {
                    tracing::warn!(%error, "a copy stays that is over");
                }
            }
        }
    }

    /// Puts in what waited for a rule or a node.
    pub(super) fn retry_waiting(&mut self, gateway: Option<&mut Gateway>) {
        let Some(gateway) = gateway else { return };
        self.waiting.retain(|_, mapping| {
            matches!(
                gateway.set_mapping(mapping),
                Err(Error::NoSuchRule(_) | Error::NoSuchNode(_))
            )
        });
    }

    fn poll_claims(&mut self, mut gateway: Option<&mut Gateway>, now: Instant) -> bool {
        let mut is_busy = false;
        while let Some(output) = self.table.poll_output() {
            is_busy = true;
            match output {
                ClaimOutput::Send { to, message } => self.send(&to, &message, now),
                ClaimOutput::Holder { rule, holder } => self.note_holder(rule, &holder),
                ClaimOutput::StepDown { rule, to, term } => {
                    tracing::info!(rule = rule.get(), %to, term, "held by another node now");
                    // The last words, before it is nothing to be told any more.
                    if let Some(gateway) = gateway.as_deref_mut() {
                        self.tell_events(gateway);
                    }
                    self.tell_held();
                    // Whoever claims lives: to claim against it at once, because it was not heard
                    // before, would go on and on between the two.
                    self.sights.handle_sign(&to, now);
                    self.is_stale = true;
                }
                ClaimOutput::HandOverRequested { rule, from } => {
                    self.requested(rule, &from, gateway.as_deref_mut(), now);
                }
                ClaimOutput::HandOverEnded { rule, to, end } => match end {
                    HandOverEnd::Done => tracing::info!(rule = rule.get(), %to, "handed over"),
                    HandOverEnd::Refused
                    | HandOverEnd::TimedOut
                    | HandOverEnd::LinkLost
                    | HandOverEnd::Overtaken => {
                        tracing::warn!(rule = rule.get(), %to, ?end, "not handed over");
                    }
                },
            }
        }
        is_busy
    }

    fn note_holder(&mut self, rule: Rule, holder: &Holder) {
        self.is_stale = true;
        if holder.node == self.name {
            self.note_own(rule, holder.term, holder.is_released);
        }
        if holder.is_released {
            return;
        }
        let before = self.last_holder.insert(rule, holder.node.clone());
        if before.is_some_and(|before| before != holder.node) {
            *self.moves.entry(rule).or_default() += 1;
        }
    }

    /// The holder of a rule asks this node to take it.
    fn requested(
        &mut self,
        rule: Rule,
        from: &NodeName,
        gateway: Option<&mut Gateway>,
        now: Instant,
    ) {
        let is_standby = self
            .roles
            .standby
            .get(from)
            .is_some_and(|r| r.contains(&rule));
        let is_ready = self.is_available && !self.sights.is_isolated() && is_standby;
        // What was said before the question is carried out before the answer.
        self.receive(from, gateway, &mut usize::MAX.clone(), now);
        let peer = self.peers.get(from);
        let has_all = peer.is_some_and(|peer| peer.receiver.is_synchronised(rule));
        if is_ready && has_all && self.table.claim(rule).is_ok() {
            tracing::info!(rule = rule.get(), %from, "taken over");
            self.is_stale = true;
        } else {
            self.table.refuse(rule, from);
        }
    }

    fn poll_witness(&mut self, fabric: &[LinkIndex], now: Instant) -> bool {
        let mut is_busy = false;
        while let Some(output) = self.witness.poll_output() {
            is_busy = true;
            match output {
                WitnessOutput::Send { to, message } => self.send(&to, &message, now),
                WitnessOutput::Verdict { about, verdict } => {
                    // There were others to ask: that none is linked any more says the same as that
                    // none answers.
                    let is_other =
                        |node: &NodeName| *node != about && self.addresses.contains_key(node);
                    let verdict = match verdict {
                        Verdict::Alone if self.known.iter().any(is_other) => Verdict::Isolated,
                        other => other,
                    };
                    self.conclude(about, verdict, fabric);
                }
            }
        }
        is_busy
    }

    fn poll_senders(
        &mut self,
        mut gateway: Option<&mut Gateway>,
        pages: &mut usize,
        now: Instant,
    ) -> bool {
        let mut is_busy = false;
        for node in self.linked.keys().cloned().collect::<Vec<_>>() {
            while self.has_room(&node) {
                let output = self
                    .peers
                    .get_mut(&node)
                    .and_then(|p| p.sender.poll_output());
                match output {
                    Some(SenderOutput::Send(message)) => self.send(&node, &message, now),
                    Some(SenderOutput::NeedSnapshot { snapshot }) => {
                        let cursor = (snapshot, Cursor::default());
                        self.peer(&node, now).cursor = cursor;
                    }
                    Some(SenderOutput::Synchronised(rule)) => {
                        tracing::debug!(%node, rule = rule.get(), "standby has everything");
                        self.is_stale |= self.leaving.contains_key(&rule);
                    }
                    None if *pages == 0 => break,
                    None => match self.page(&node, gateway.as_deref_mut()) {
                        true => *pages -= 1,
                        false => break,
                    },
                }
                is_busy = true;
            }
        }
        is_busy
    }

    fn has_room(&self, node: &NodeName) -> bool {
        let link = self.linked.get(node).and_then(|id| self.links.get(id));
        link.is_some_and(|link| link.channel.room() >= MAX_MESSAGE)
    }

    /// Reads a page of a snapshot, if one is wanted.
    fn page(&mut self, node: &NodeName, gateway: Option<&mut Gateway>) -> bool {
        let own = &self.own;
        let Some(peer) = self.peers.get_mut(node) else {
            return false;
        };
        let Some(page) = peer.sender.poll_page() else {
            return false;
        };
        let (snapshot, cursor) = &mut peer.cursor;
        if *snapshot != page.snapshot {
            (*snapshot, *cursor) = (page.snapshot, Cursor::default());
        }
        let mut mappings = Vec::new();
        if let Some(gateway) = gateway {
            let is_wanted = |rule| Rule::new(rule).is_some_and(|rule| page.rules.contains(&rule));
            match gateway.next_mappings(&is_wanted, cursor) {
                Ok(found) => mappings.extend(found.iter().filter_map(|m| copies::to_wire(m, own))),
                Err(error) => {
                    tracing::error!(%error, "connections cannot be read for the standby");
                    return false;
                }
            }
        } else {
            *cursor = Cursor::end();
        }
        let mut rest = mappings.as_slice();
        loop {
            let (part, behind) = rest.split_at(rest.len().min(page.max_records));
            rest = behind;
            let is_last = rest.is_empty();
            let end = match is_last && cursor.is_at_end() {
                true => Rest::End,
                false => Rest::More,
            };
            match peer.sender.next_batch(&page, part, end) {
                Ok(()) => {}
                // Another one has been asked for by now.
                Err(PageError::Void) => return true,
                Err(error) => {
                    tracing::debug!(%node, %error, "snapshots begin anew");
                    peer.sender.handle_gap();
                    return true;
                }
            }
            if is_last {
                return true;
            }
        }
    }
}
