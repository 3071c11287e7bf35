// SPDX-License-Identifier: Apache-2.0
//! The BGP-4 codec: bytes to values and back, without sockets, clocks or sessions.
//!
//! A stream is cut by [`frame::next`], a message read by [`Message::decode`]. OPEN, NOTIFICATION
//! and ROUTE-REFRESH become values at once. UPDATE is read in place, in two steps that let the
//! caller skip decoding of attributes it has seen before: see [`update`]. Messages are appended
//! to a `Vec<u8>`; UPDATEs by [`announce`] and [`withdraw`], which fill them with prefixes.
//!
//! No input makes this crate panic. An error either says which NOTIFICATION ends the session, or,
//! in an UPDATE, is a [`Fault`] with its treatment by RFC 7606; what to do is left to the caller.
//!
//! # Implemented
//!
//! RFC 4271 §4 and §6.1–§6.4 (messages, error codes), 4760 (IPv4 and IPv6 unicast and multicast
//! prefixes; families not named here are recognised and passed over), 4364 §4.3 and 4659 §3 (VPN
//! prefixes, of one label: RFC 8277 §2.2), 4684 §4 (route target membership), 2545 and 8950 (next
//! hops), 5492 and 9072 (capabilities), 6793 (AS numbers), 2918 and 7313 (refresh), 4724, 8538, 9494 (restart
//! capabilities, End-of-RIB), 7911 (path identifiers), 8654 (long messages), 7606, 7607, 9774
//! (errors), 1997, 4360, 8092 (communities), 4456, 5065, 9234 (attributes), 4486, 9003, 9384,
//! 9687 (reasons for ending). PREFIX_SID (8669) is carried as bytes. Not read: labelled
//! unicast, EVPN and flow specification prefixes, stacks of labels (RFC 8277 §2.1: only where both
//! ends ask for them), outbound route filters.

#![no_std]
extern crate alloc;

mod as_path;
mod attribute;
mod capability;
mod community;
mod context;
mod cursor;
pub mod describe;
mod fault;
pub mod frame;
mod message;
mod next_hop;
mod nlri;
mod notification;
mod open;
mod pack;
mod path;
mod refresh;
pub mod update;

pub use as_path::{AsPath, AsPathError, AsPathParseError, Segment, SegmentKind};
pub use attribute::{
    AttributeClass, AttributeCode, AttributeFlags, Overrun, RawAttribute, RawAttributes,
};
pub use capability::{
    AddPath, Capability, ExtendedNextHop, GracefulFamily, GracefulRestart, LongLivedStale, Role,
};
pub use community::{Community, CommunityParseError, ExtendedCommunity, LargeCommunity};
pub use context::{AsSetPolicy, FamilyContext, PeerKind, SessionContext};
pub use fault::{Fault, Finding, Treatment};
pub use frame::{Frame, MessageKind};
pub use message::Message;
pub use next_hop::PathNextHop;
pub use nlri::{
    Destination, Label, Nlri, NlriEntry, NlriError, NlriIter, RouteDistinguisher,
    RouteDistinguisherParseError, RouteTargetEntry, RouteTargetIter, RouteTargetPrefix, VpnEntry,
    VpnIter, VpnPrefix,
};
pub use notification::{ErrorKind, MAX_SHUTDOWN_COMMUNICATION, Notification};
pub use open::{Open, VERSION};
pub use pack::{
    PackError, announce, announce_with, end_of_rib, fits, withdraw, withdraw_nlri, withdraw_with,
};
pub use path::{Aggregator, DecodedAttributes, OpaqueAttribute, Origin, PathAttributes};
pub use refresh::{RefreshKind, RouteRefresh};
pub use update::{MpReach, Update, UpdateView};
