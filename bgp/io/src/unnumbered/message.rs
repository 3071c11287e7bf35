// SPDX-License-Identifier: Apache-2.0
//! The two messages of router discovery (RFC 4861 §4.1, §4.2), and which are believed.

use std::net::Ipv6Addr;

const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;

const SOLICITATION_LENGTH: usize = 8;
const ADVERTISEMENT_LENGTH: usize = 16;

/// A message that was not forwarded by a router has this hop limit (RFC 4861 §6.1).
pub(super) const HOP_LIMIT: u8 = 255;

/// A message of router discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// "Which routers are there?"
    Solicitation,
    /// "I am a router."
    Advertisement,
}

impl Message {
    /// As octets of ICMPv6. The kernel fills in the checksum. An advertisement says nothing of
    /// prefixes and timers, and has a router lifetime of 0: not a default router.
    pub(super) fn encode(self) -> Vec<u8> {
        let (kind, length) = match self {
            Message::Solicitation => (SOLICITATION, SOLICITATION_LENGTH),
            Message::Advertisement => (ADVERTISEMENT, ADVERTISEMENT_LENGTH),
        };
        let mut octets = vec![0; length];
        octets[0] = kind;
        octets
    }

    /// Reads a message that passes the tests of RFC 4861 §6.1.1 and §6.1.2; `None` for all else.
    pub(super) fn decode(octets: &[u8], from: Ipv6Addr, hop_limit: u8) -> Option<Message> {
        let [kind, code, ..] = *octets else {
            return None;
        };
        let (message, fixed) = match kind {
            SOLICITATION => (Message::Solicitation, SOLICITATION_LENGTH),
            ADVERTISEMENT => (Message::Advertisement, ADVERTISEMENT_LENGTH),
            _ => return None,
        };
        let is_from_the_link = match message {
            Message::Solicitation => from.is_unspecified() || from.is_unicast_link_local(),
            Message::Advertisement => from.is_unicast_link_local(),
        };
        let options = octets.get(fixed..)?;
        let is_valid =
            hop_limit == HOP_LIMIT && code == 0 && is_from_the_link && are_whole(options);
        is_valid.then_some(message)
    }
}

/// Whether options fill their room: each says its length in units of eight octets, not 0.
fn are_whole(mut options: &[u8]) -> bool {
    while let [_, units, ..] = *options {
        let length = usize::from(units) * 8;
        if length == 0 || length > options.len() {
            return false;
        }
        options = &options[length..];
    }
    options.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    #[test]
    fn what_is_encoded_is_decoded() {
        for message in [Message::Solicitation, Message::Advertisement] {
            let octets = message.encode();
            assert_eq!(Message::decode(&octets, ROUTER, 255), Some(message));
        }
    }

    #[test]
    fn a_real_advertisement_with_options_is_read() {
        // Hop limit 64, lifetime 1800 s; source link-layer address, MTU 1500.
        let octets = [
            134, 0, 0x12, 0x34, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, // fixed part
            1, 1, 2, 0, 0, 0, 0, 1, // source link-layer address
            5, 1, 0, 0, 0, 0, 0x05, 0xdc, // MTU
        ];
        assert_eq!(
            Message::decode(&octets, ROUTER, 255),
            Some(Message::Advertisement)
        );
        for cut in 0..octets.len() {
            let is_whole = cut == 16 || cut == 24;
            let read = Message::decode(&octets[..cut], ROUTER, 255);
            assert_eq!(read.is_some(), is_whole, "{cut} octets");
        }
    }

    #[test]
    fn what_a_router_forwarded_or_nobody_on_the_link_sent_is_not_believed() {
        let octets = Message::Advertisement.encode();
        assert_eq!(Message::decode(&octets, ROUTER, 254), None);
        let far: Ipv6Addr = "2001:db8::1".parse().unwrap();
        assert_eq!(Message::decode(&octets, far, 255), None);
        assert_eq!(Message::decode(&octets, Ipv6Addr::UNSPECIFIED, 255), None);
        let mut coded = octets.clone();
        coded[1] = 1;
        assert_eq!(Message::decode(&coded, ROUTER, 255), None);
        let mut endless = octets;
        endless.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Message::decode(&endless, ROUTER, 255), None);
    }

    #[test]
    fn other_messages_are_not_ours() {
        assert_eq!(Message::decode(&[135; 24], ROUTER, 255), None);
    }
}
