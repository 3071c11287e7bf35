// SPDX-License-Identifier: Apache-2.0
//! Which node holds which rule.
//!
//! **How it goes.** A node that wants a rule claims it under a term one above the highest it knows of
//! ([`ClaimTable::claim`]); whether it should is decided elsewhere. Each node tells each other what
//! it holds: all of it when a link comes up, and what it knows of others then; its own changes
//! after. Every node is meant to be linked with every other: news is not passed on but where
//! somebody is found not to know it. Every node keeps, for each rule, the best
//! claim it has ever heard of: the one of the highest term and, among claims of one term, the one of
//! the lowest name. Two claims of one term are made when two nodes take a rule over at once, or by
//! the two halves of a cluster that had fallen apart. The lowest name wins them because gateways are
//! preferred in that order elsewhere too, so that the winner is the one an election would pick;
//! anything would do that all nodes see alike.
//!
//! A node that hears of a better claim than its own holds the rule no more
//! ([`ClaimOutput::StepDown`]). Who hears a claim that is not the best answers with the best
//! ([`Message::Seen`]), so news reaches nodes whose link to the holder is down. Hearsay about a node
//! that is linked is put to that node, which knows best. A better claim that has been let go takes
//! nothing away: who holds the rule goes on under a higher term.
//!
//! A claim stays known when its holder is lost or lets go: it says who held the rule last, and which
//! term comes next. The table has one entry for each rule ever heard of: about 100 octets.
//!
//! **Planned hand-over.** The holder asks a standby that has all mappings ([`ClaimTable::hand_over`]),
//! the standby claims, the holder sees the claim and steps down. Between the two both hold the rule
//! and both translate alike: a moment of overlap instead of a gap. If the standby refuses, is lost
//! or does not answer, the holder has not stopped holding.
//!
//! **What cannot be decided.** Two halves of a cluster that see nothing of each other may each have
//! a holder: to tell a dead node from one that is out of reach takes a majority or a third party,
//! and neither is here. As soon as one link joins the halves, one of the two steps down. And a node
//! that restarts knows nothing of its former claims until its peers tell: alone, it begins with term
//! 1.
//!
//! **What is left to the owner.** When to claim and when to let go; and on `StepDown` to ask its
//! election once more before it takes addresses down: if the winner is known to be dead, to claim
//! again at once costs nothing.
//!
//! **Polling order.** After each call, [`ClaimTable::poll_output`] until nothing comes, then
//! [`ClaimTable::poll_timeout`]. News of one round of calls go out together.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::name::{NodeName, Rule};
use crate::replication::Synchronised;
use crate::wire::{Claim, MAX_CLAIMS, MAX_SEEN, Message, Seen};

/// How long a standby has to answer a hand-over: many round trips and a scheduler's hiccup; the
/// holder holds meanwhile, so it costs nothing.
pub const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(2);

/// The best claim to a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Whose.
    pub node: NodeName,
    /// Under which term.
    pub term: u64,
    /// Whether it has let go since: nobody holds the rule.
    pub is_released: bool,
}

/// How a planned hand-over ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandOverEnd {
    /// The standby holds the rule.
    Done,
    /// The standby will not; this node goes on.
    Refused,
    /// The standby did not answer; this node goes on. It steps down if the answer comes late.
    TimedOut,
    /// The link is lost; this node goes on.
    LinkLost,
    /// Another node claimed the rule, or this one let it go.
    Overtaken,
}

/// What a table wants of its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimOutput {
    /// Send this.
    Send {
        /// To this node, which is linked.
        to: NodeName,
        /// This.
        message: Message,
    },
    /// This is the best claim to a rule as of now; this node's own are told too.
    Holder {
        /// The rule.
        rule: Rule,
        /// Its holder.
        holder: Holder,
    },
    /// Another node's claim is better: this node holds the rule no more.
    StepDown {
        /// The rule.
        rule: Rule,
        /// Who holds it.
        to: NodeName,
        /// Under which term.
        term: u64,
    },
    /// The holder asks this node to take the rule over: [`ClaimTable::claim`] or
    /// [`ClaimTable::refuse`]. All its mappings have come before.
    HandOverRequested {
        /// The rule.
        rule: Rule,
        /// Its holder.
        from: NodeName,
    },
    /// A hand-over this node asked for is over.
    HandOverEnded {
        /// The rule.
        rule: Rule,
        /// The standby.
        to: NodeName,
        /// How.
        end: HandOverEnd,
    },
}

/// Why a rule cannot be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("term {0} has no next: somebody made it up")]
pub struct TermsExhausted(pub u64);

/// Why a rule cannot be handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandOverError {
    /// This node does not hold it.
    #[error("rule {0} is not held here")]
    NotHeld(Rule),
    /// The standby cannot be asked.
    #[error("no link to the standby of rule {0}")]
    NotLinked(Rule),
    /// It has been asked already.
    #[error("rule {0} is being handed over")]
    UnderWay(Rule),
}

#[derive(Debug)]
struct HandOver {
    to: NodeName,
    deadline: Instant,
}

/// What one node knows of all claims.
#[derive(Debug)]
pub struct ClaimTable {
    name: NodeName,
    best: BTreeMap<Rule, Holder>,
    /// Nodes that are linked, with what a list that is not complete yet has said.
    linked: BTreeMap<NodeName, BTreeSet<Rule>>,
    /// Those whose list is complete.
    heard: BTreeSet<NodeName>,
    handing: BTreeMap<Rule, HandOver>,
    /// Rules every node is to be told about.
    news: BTreeSet<Rule>,
    /// Bounded: a few for each rule of a message and each node, and callers empty it.
    outputs: VecDeque<ClaimOutput>,
}

impl ClaimTable {
    /// A table of a node that holds nothing and knows nothing.
    pub fn new(name: NodeName) -> ClaimTable {
        ClaimTable {
            name,
            best: BTreeMap::new(),
            linked: BTreeMap::new(),
            heard: BTreeSet::new(),
            handing: BTreeMap::new(),
            news: BTreeSet::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Takes a rule, from whomever. The term; that of before if the rule is held already.
    ///
    /// # Errors
    /// There is no higher term.
    pub fn claim(&mut self, rule: Rule) -> Result<u64, TermsExhausted> {
        let last = match self.best.get(&rule) {
            Some(best) if self.is_own(best) => return Ok(best.term),
            Some(best) => best.term,
            None => 0,
        };
        let term = last.checked_add(1).ok_or(TermsExhausted(last))?;
        self.set_own(rule, term);
        Ok(term)
    }

    /// Lets a rule go; nothing happens if it is not held.
    pub fn release(&mut self, rule: Rule) {
        if !self.holds(rule) {
            return;
        }
        if let Some(best) = self.best.get_mut(&rule) {
            best.is_released = true;
        }
        self.end_hand_over(rule, HandOverEnd::Overtaken);
        self.news.insert(rule);
        self.tell_owner(rule);
    }

    /// Asks a standby that has all mappings of a rule to claim it.
    ///
    /// # Errors
    /// The rule is not held, the standby is not linked, or has been asked.
    pub fn hand_over(
        &mut self,
        synchronised: Synchronised,
        now: Instant,
    ) -> Result<(), HandOverError> {
        let Synchronised { rule, standby: to } = synchronised;
        let Some(best) = self.best.get(&rule).filter(|best| self.is_own(best)) else {
            return Err(HandOverError::NotHeld(rule));
        };
        if !self.linked.contains_key(&to) {
            return Err(HandOverError::NotLinked(rule));
        }
        if self.handing.contains_key(&rule) {
            return Err(HandOverError::UnderWay(rule));
        }
        let term = best.term;
        self.send(&to, Message::HandOver(Claim { rule, term }));
        let deadline = now + HAND_OVER_TIMEOUT;
        self.handing.insert(rule, HandOver { to, deadline });
        Ok(())
    }

    /// Declines what [`ClaimOutput::HandOverRequested`] asked for.
    pub fn refuse(&mut self, rule: Rule, from: &NodeName) {
        if let Some(best) = self.best.get(&rule) {
            let term = best.term;
            self.send(from, Message::HandOverRefused(Claim { rule, term }));
        }
    }

    /// A node can be spoken to. Again, without [`ClaimTable::handle_link_down`]: it is another link.
    pub fn handle_link_up(&mut self, peer: &NodeName) {
        self.handle_link_down(peer);
        self.linked.insert(peer.clone(), BTreeSet::new());
        let held: Vec<Claim> = self.held().collect();
        let mut parts = held.chunks(MAX_CLAIMS).peekable();
        let mut is_first = true;
        loop {
            let claims = parts.next().unwrap_or_default().to_vec();
            let is_last = parts.peek().is_none();
            let list = Message::ClaimList {
                is_first,
                is_last,
                claims,
            };
            self.send(peer, list);
            if is_last {
                break;
            }
            is_first = false;
        }
        let rules: Vec<Rule> = self.best.keys().copied().collect();
        let seen = self.news_of(rules.into_iter()).seen;
        for part in seen.chunks(MAX_SEEN) {
            self.send(peer, Message::Seen(part.to_vec()));
        }
    }

    /// A node cannot be spoken to. What it held is still known.
    pub fn handle_link_down(&mut self, peer: &NodeName) {
        if self.linked.remove(peer).is_none() {
            return;
        }
        self.heard.remove(peer);
        self.outputs
            .retain(|output| !matches!(output, ClaimOutput::Send { to, .. } if to == peer));
        let handing: Vec<Rule> = self
            .handing
            .iter()
            .filter(|(_, hand_over)| hand_over.to == *peer)
            .map(|(rule, _)| *rule)
            .collect();
        for rule in handing {
            self.end_hand_over(rule, HandOverEnd::LinkLost);
        }
    }

    /// What a linked node says; who is not linked is not heard. Whether it was about claims: if
    /// not, it is for somebody else.
    pub fn handle_message(&mut self, from: &NodeName, message: &Message) -> bool {
        let is_linked = self.linked.contains_key(from);
        match message {
            Message::ClaimList { .. }
            | Message::Claimed(_)
            | Message::Released(_)
            | Message::Seen(_)
            | Message::HandOver(_)
            | Message::HandOverRefused(_)
                if !is_linked => {}
            Message::ClaimList {
                is_first,
                is_last,
                claims,
            } => self.handle_list(from, *is_first, *is_last, claims),
            Message::Claimed(claims) => {
                for claim in claims {
                    self.learn(from, *claim, from, false);
                }
            }
            Message::Released(claims) => {
                for claim in claims {
                    self.learn(from, *claim, from, true);
                }
            }
            Message::Seen(seen) => {
                for Seen {
                    claim,
                    holder,
                    is_released,
                } in seen
                {
                    self.learn(from, *claim, holder, *is_released);
                }
            }
            Message::HandOver(claim) => self.handle_hand_over(from, *claim),
            Message::HandOverRefused(claim) => {
                let is_asked = self.handing.get(&claim.rule);
                if is_asked.is_some_and(|hand_over| hand_over.to == *from) {
                    self.end_hand_over(claim.rule, HandOverEnd::Refused);
                }
            }
            Message::Subscribe { .. }
            | Message::Batch(_)
            | Message::Ack { .. }
            | Message::Ask { .. }
            | Message::Heard { .. }
            | Message::Ping { .. }
            | Message::Pong { .. }
            | Message::Standing { .. }
            | Message::Reached(_)
            | Message::Missed(_)
            | Message::Tunnel(_) => return false,
        }
        true
    }

    /// A store says that this is the best claim: as good as its holder's word, but that what has
    /// been let go stays so, since the store may be late.
    pub fn handle_record(&mut self, claim: Claim, holder: &NodeName, is_released: bool) {
        let is_same = self
            .best
            .get(&claim.rule)
            .is_some_and(|best| best.node == *holder && best.term == claim.term);
        if !is_same || is_released {
            self.learn(&holder.clone(), claim, holder, is_released);
        }
    }

    /// The term a claim to a rule would have; nothing if there is no higher one.
    pub fn next_term(&self, rule: Rule) -> Option<u64> {
        let last = self.best.get(&rule).map_or(0, |best| best.term);
        last.checked_add(1)
    }

    /// The time of [`ClaimTable::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        let late: Vec<Rule> = self
            .handing
            .iter()
            .filter(|(_, hand_over)| hand_over.deadline <= now)
            .map(|(rule, _)| *rule)
            .collect();
        for rule in late {
            self.end_hand_over(rule, HandOverEnd::TimedOut);
        }
    }

    /// When [`ClaimTable::handle_timeout`] is to be called, and what for.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let deadlines = self.handing.values().map(|hand_over| hand_over.deadline);
        deadlines.min().map(|deadline| (deadline, "hand_over"))
    }

    /// What there is to do.
    pub fn poll_output(&mut self) -> Option<ClaimOutput> {
        if self.outputs.is_empty() && !self.news.is_empty() {
            self.spread_news();
        }
        self.outputs.pop_front()
    }

    /// The best claim to a rule that is known.
    pub fn holder(&self, rule: Rule) -> Option<&Holder> {
        self.best.get(&rule)
    }

    /// The best claims to all rules, in order.
    pub fn holders(&self) -> impl Iterator<Item = (Rule, &Holder)> {
        self.best.iter().map(|(rule, best)| (*rule, best))
    }

    /// Whether this node holds a rule.
    pub fn holds(&self, rule: Rule) -> bool {
        self.best.get(&rule).is_some_and(|best| self.is_own(best))
    }

    /// Whether a linked node has said all that it holds.
    pub fn has_heard(&self, peer: &NodeName) -> bool {
        self.heard.contains(peer)
    }

    /// What this node holds, in order.
    pub fn held(&self) -> impl Iterator<Item = Claim> {
        self.best
            .iter()
            .filter(|(_, best)| self.is_own(best))
            .map(|(rule, best)| Claim {
                rule: *rule,
                term: best.term,
            })
    }

    fn is_own(&self, holder: &Holder) -> bool {
        holder.node == self.name && !holder.is_released
    }

    fn handle_list(&mut self, from: &NodeName, is_first: bool, is_last: bool, claims: &[Claim]) {
        if let Some(named) = self.linked.get_mut(from) {
            if is_first {
                named.clear();
            }
            named.extend(claims.iter().map(|claim| claim.rule));
        }
        for claim in claims {
            self.learn(from, *claim, from, false);
        }
        if !is_last {
            return;
        }
        self.heard.insert(from.clone());
        let named = self.linked.get_mut(from).map(std::mem::take);
        let named = named.unwrap_or_default();
        let gone: Vec<Claim> = self
            .best
            .iter()
            .filter(|(rule, best)| best.node == *from && !best.is_released && !named.contains(rule))
            .map(|(rule, best)| Claim {
                rule: *rule,
                term: best.term,
            })
            .collect();
        for claim in gone {
            self.learn(from, claim, from, true);
        }
    }

    fn handle_hand_over(&mut self, from: &NodeName, claim: Claim) {
        let is_theirs = self
            .best
            .get(&claim.rule)
            .is_some_and(|best| best.node == *from && best.term == claim.term && !best.is_released);
        if is_theirs {
            self.outputs.push_back(ClaimOutput::HandOverRequested {
                rule: claim.rule,
                from: from.clone(),
            });
        } else {
            self.send(from, Message::HandOverRefused(claim));
            self.tell(claim.rule, from);
        }
    }

    /// Compares a claim to the best.
    fn learn(&mut self, from: &NodeName, claim: Claim, holder: &NodeName, is_released: bool) {
        let Claim { rule, term } = claim;
        if *holder == self.name {
            self.learn_of_self(from, claim);
            return;
        }
        let is_direct = from == holder;
        let new = Holder {
            node: holder.clone(),
            term,
            is_released,
        };
        let old = self.best.get(&rule);
        match old.map(|old| rank(&new).cmp(&rank(old))) {
            None | Some(std::cmp::Ordering::Greater) => {
                if is_released && self.holds(rule) {
                    // Nobody else holds it: we go on, above it.
                    self.set_own(rule, term.saturating_add(1));
                } else {
                    self.replace(rule, new, from);
                }
            }
            Some(std::cmp::Ordering::Equal) => {
                // What a node says of itself counts. Of a node that is out of reach it counts that
                // it has let go, which it cannot undo under this term.
                let counts = is_direct || (is_released && !self.linked.contains_key(holder));
                let is_news = old.is_some_and(|old| old.is_released != is_released);
                if counts && is_news {
                    self.best.insert(rule, new);
                    self.tell_owner(rule);
                }
            }
            Some(std::cmp::Ordering::Less) => {
                // That it has let go of what does not count needs no answer.
                if !(is_direct && is_released) {
                    self.tell(rule, from);
                }
            }
        }
    }

    /// Somebody says that this node holds or held a rule.
    fn learn_of_self(&mut self, from: &NodeName, claim: Claim) {
        let Claim { rule, term } = claim;
        let claimed = Holder {
            node: self.name.clone(),
            term,
            is_released: true,
        };
        if self
            .best
            .get(&rule)
            .is_none_or(|best| rank(&claimed) > rank(best))
        {
            // Of before a restart.
            if self.holds(rule) {
                self.set_own(rule, term.saturating_add(1));
            } else {
                self.replace(rule, claimed, from);
            }
        }
        self.tell(rule, from);
    }

    /// A better claim of another node, or of this one before a restart.
    fn replace(&mut self, rule: Rule, new: Holder, from: &NodeName) {
        let is_loss = self.holds(rule);
        let node = new.node.clone();
        let (term, is_released) = (new.term, new.is_released);
        let old = self.best.insert(rule, new);
        if is_loss {
            let is_asked = self.handing.get(&rule);
            let end = if is_asked.is_some_and(|hand_over| hand_over.to == node) {
                HandOverEnd::Done
            } else {
                HandOverEnd::Overtaken
            };
            self.end_hand_over(rule, end);
            self.outputs.push_back(ClaimOutput::StepDown {
                rule,
                to: node.clone(),
                term,
            });
            // All who believed us learn whom to believe.
            self.news.insert(rule);
        } else if let Some(old) = old
            && old.node != *from
            && old.node != node
            && !old.is_released
        {
            // The loser may have no link to the winner.
            self.tell(rule, &old.node);
        }
        if node != *from && !is_released {
            // Hearsay: whose claim it is knows best.
            self.tell(rule, &node);
        }
        self.tell_owner(rule);
    }

    fn set_own(&mut self, rule: Rule, term: u64) {
        let own = Holder {
            node: self.name.clone(),
            term,
            is_released: false,
        };
        self.best.insert(rule, own);
        self.news.insert(rule);
        self.tell_owner(rule);
    }

    fn end_hand_over(&mut self, rule: Rule, end: HandOverEnd) {
        if let Some(HandOver { to, .. }) = self.handing.remove(&rule) {
            self.outputs
                .push_back(ClaimOutput::HandOverEnded { rule, to, end });
        }
    }

    fn tell_owner(&mut self, rule: Rule) {
        if let Some(holder) = self.best.get(&rule) {
            let holder = holder.clone();
            self.outputs.push_back(ClaimOutput::Holder { rule, holder });
        }
    }

    /// Tells one node the best claim to a rule.
    fn tell(&mut self, rule: Rule, to: &NodeName) {
        let News {
            claimed,
            released,
            seen,
        } = self.news_of(std::iter::once(rule));
        if !claimed.is_empty() {
            self.send(to, Message::Claimed(claimed));
        }
        if !released.is_empty() {
            self.send(to, Message::Released(released));
        }
        if !seen.is_empty() {
            self.send(to, Message::Seen(seen));
        }
    }

    fn spread_news(&mut self) {
        let rules = std::mem::take(&mut self.news);
        let News {
            claimed,
            released,
            seen,
        } = self.news_of(rules.into_iter());
        let messages: Vec<Message> = claimed
            .chunks(MAX_CLAIMS)
            .map(|part| Message::Claimed(part.to_vec()))
            .chain(
                released
                    .chunks(MAX_CLAIMS)
                    .map(|part| Message::Released(part.to_vec())),
            )
            .chain(
                seen.chunks(MAX_SEEN)
                    .map(|part| Message::Seen(part.to_vec())),
            )
            .collect();
        let peers: Vec<NodeName> = self.linked.keys().cloned().collect();
        for message in messages {
            for to in &peers {
                self.send(to, message.clone());
            }
        }
    }

    fn news_of(&self, rules: impl Iterator<Item = Rule>) -> News {
        let mut news = News::default();
        for rule in rules {
            let Some(best) = self.best.get(&rule) else {
                continue;
            };
            let claim = Claim {
                rule,
                term: best.term,
            };
            if self.is_own(best) {
                news.claimed.push(claim);
            } else if best.node == self.name {
                news.released.push(claim);
            } else {
                news.seen.push(Seen {
                    claim,
                    holder: best.node.clone(),
                    is_released: best.is_released,
                });
            }
        }
        news
    }

    fn send(&mut self, to: &NodeName, message: Message) {
        if self.linked.contains_key(to) {
            let to = to.clone();
            self.outputs.push_back(ClaimOutput::Send { to, message });
        }
    }
}

/// The best claims to some rules, by how they are told.
#[derive(Default)]
struct News {
    claimed: Vec<Claim>,
    released: Vec<Claim>,
    seen: Vec<Seen>,
}

/// The higher, the better: the term, then the lower name.
fn rank(holder: &Holder) -> (u64, std::cmp::Reverse<&NodeName>) {
    (holder.term, std::cmp::Reverse(&holder.node))
}

#[cfg(test)]
mod tests;
