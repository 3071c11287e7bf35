// SPDX-License-Identifier: Apache-2.0
//! Egress gateways among themselves: who holds which rule, and copies of NAT mappings, so that a
//! standby takes over a gateway's addresses with its connections. Sans-IO: no clock, socket, task
//! or global; no randomness but what the caller passes in.
//!
//! A *rule* is one way out ([`name::Rule`]); one node *holds* it: has its addresses and translates
//! what leaves through them. A *mapping* is one translated connection ([`mapping::Mapping`]).
//!
//! | module | what it is |
//! |---|---|
//! | [`channel`] | one connection between two nodes, on which only those with the key are heard |
//! | [`wire`] | messages as bytes |
//! | [`claims`] | one table for each node: who holds which rule; planned hand-over |
//! | [`replication`] | a sender and a receiver for each other node: copies of mappings |
//! | [`ledger`] | claims as they are written in a store, where there is one |
//! | [`lease`] | what a store says of a node nobody else can be asked about |
//! | [`witness`] | whether a node that is not heard is dead: what the others say |
//!
//! **What is left to the caller.** Sockets, clocks and nonces. Who connects to whom: of two nodes
//! the one of the lower name, say, so that there is one connection and not two; over a new one of
//! the same node the old one is closed first. Who should hold a rule, and who stands by for it. The
//! mappings themselves and the addresses. Whether a node is dead: BFD finds that sooner than
//! an idle timeout.
//!
//! **How the pieces go together.** For each other node a channel, a sender and a receiver; one
//! table of claims. The sender and the receiver last from one connection to the next.
//!
//! - On [`channel::Output::Established`]: [`claims::ClaimTable::handle_link_up`],
//!   [`replication::Receiver::handle_link_up`].
//! - On [`channel::Output::Message`]: [`wire::decode`], [`claims::ClaimTable::handle_message`]; what that
//!   does not take: [`wire::Message::Subscribe`] and [`wire::Message::Ack`] to the sender,
//!   [`wire::Message::Batch`] to the receiver. What cannot be decoded ends the channel.
//! - On [`channel::Output::Ended`]: `handle_link_down` of the table, the sender and the receiver; poll
//!   the receiver, whose last outputs still count.
//! - On [`claims::ClaimOutput::Holder`]: [`replication::Sender::handle_held`] for all other nodes,
//!   [`replication::Receiver::handle_rules`] for the holders this node stands by for.
//! - On [`claims::ClaimOutput::StepDown`]: the same, in this order: the senders are told before mappings
//!   are deleted; [`replication::Receiver::adopt`] if this node is the standby from here on.
//! - A takeover: poll the receiver until nothing comes, make the copies mappings,
//!   [`claims::ClaimTable::claim`]; `handle_rules` without the rule once the former holder is lost or
//!   the receiver has said [`replication::ReceiverOutput::Ended`].
//! - A planned hand-over: [`replication::Sender::synchronised`] gives what
//!   [`claims::ClaimTable::hand_over`] takes. Who is asked looks whether its receiver
//!   [`replication::Receiver::is_synchronised`], and does as in a takeover or refuses.
//!
//! **Polling order.** After each call into any of them: the channels' outputs, the receivers, the
//! table of claims, the senders, again until nothing comes; then what channels have to write, then
//! the timers. A sender is polled only while its channel has room for a message
//! ([`channel::Channel::room`]): that is how a slow standby slows its stream and nothing else. Claims
//! are few and do not wait: for them some room is kept (64 KiB or more), and a channel that
//! cannot take one is ended; the next begins with all claims anew.
//!
//! **What cannot be decided.** Two halves of a cluster that see nothing of each other each take the
//! other for dead, and each may have a holder of the same rule; the fabric decides whose
//! announcement of the address counts. Once a link joins them, one of the two steps down by itself
//! ([`claims`]); mappings made by the loser meanwhile are lost with it. Copies are as old as the
//! way to the standby is long: what a gateway did in its last milliseconds dies with it.
//!
//! With a store both reach ([`ledger`]), that ends it as well.
//!
//! **What is not here.** Secrecy of the stream ([`channel`] says why), membership (who the nodes
//! are), and the store itself: without one a node that restarts learns its terms from the others.

pub mod channel;
pub mod claims;
pub mod lease;
pub mod ledger;
pub mod mapping;
pub mod name;
pub mod replication;
pub mod wire;
pub mod witness;
