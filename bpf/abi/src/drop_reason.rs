// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why a packet was refused.

use core::fmt;

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $text:literal, $answered:literal;)+) => {
        /// Why a packet was refused. Numbers are part of the layout and are never reused.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $name = $number,)+
        }

        impl DropReason {
            /// Every reason, in order of its number.
            pub const ALL: &[DropReason] = &[$(DropReason::$name,)+];

            /// The name in outputs and metric labels: lowercase words with hyphens.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$name => $text,)+ }
            }

            /// One sentence for an operator.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self { $(DropReason::$name => concat!($($doc,)+).trim_ascii(),)+ }
            }

            /// Whether the packet was handed to the kernel, which sends the ICMP error (or cuts
            /// an IPv4 packet into fragments when it may) instead of vanishing silently.
            #[must_use]
            pub const fn is_answered(self) -> bool {
                match self { $(DropReason::$name => $answered,)+ }
            }
        }

        impl TryFrom<u8> for DropReason {
            type Error = UnknownDropReason;

            fn try_from(number: u8) -> Result<Self, Self::Error> {
                match number {
                    $($number => Ok(DropReason::$name),)+
                    other => Err(UnknownDropReason(other)),
                }
            }
        }
    };
}

// A macro, so that number, name and sentence of a reason stand in one place as in a registry.
drop_reasons! {
    /// The frame ends inside its Ethernet, ARP or IP header.
    Truncated = 1, "truncated", false;
    /// The IP header contradicts itself: version, header length or total length.
    MalformedHeader = 2, "malformed-header", false;
    /// The source MAC address is not the pod's.
    SpoofedMac = 3, "spoofed-mac", false;
    /// The source IP address is not one of the pod's.
    SpoofedAddress = 4, "spoofed-address", false;
    /// An ARP packet claims a MAC or IP address that is not the pod's.
    SpoofedArp = 5, "spoofed-arp", false;
    /// The frame carries a VLAN tag, which pods may not send.
    VlanTagged = 6, "vlan-tagged", false;
    /// The frame is neither IPv4, IPv6 nor ARP.
    UnsupportedEthertype = 7, "unsupported-ethertype", false;
    /// The destination is a multicast or broadcast address, which is not forwarded.
    Multicast = 8, "multicast", false;
    /// A link-local packet other than neighbour discovery or an echo to the gateway.
    LinkLocal = 9, "link-local", false;
    /// No endpoint is known behind the device: it is being set up or torn down.
    UnknownDevice = 10, "unknown-device", false;
    /// TTL or hop limit used up; the sender gets ICMP time exceeded.
    TtlExceeded = 11, "ttl-exceeded", true;
    /// Larger than the path takes and may not be fragmented; the sender gets ICMP too big.
    TooBig = 12, "too-big", true;
    /// An unreachable route; the sender gets ICMP destination unreachable.
    Unreachable = 13, "unreachable", true;
    /// A prohibit route; the sender gets ICMP administratively prohibited.
    Prohibited = 14, "prohibited", true;
    /// A blackhole route: silence is what was asked for.
    Blackhole = 15, "blackhole", false;
    /// The packet could not be rewritten (out of memory).
    RewriteFailed = 16, "rewrite-failed", false;
    /// The destination MAC address is not the gateway's: the pod's neighbour entry is wrong.
    ForeignMac = 17, "foreign-mac", false;
    /// An egress policy selects the packet and no gateway can take it.
    EgressNoGateway = 18, "egress-no-gateway", false;
    /// An egress policy may select the pod: its labels are not known yet.
    EgressUndecided = 19, "egress-undecided", false;
    /// An egress policy selects the packet, which has IP options no gateway translates.
    EgressUnsupported = 20, "egress-unsupported", false;
    /// The tunnel to or from an egress gateway refused the packet.
    TunnelFailed = 21, "tunnel-failed", false;
    /// A packet for a way out this gateway does not have.
    NatUnknownRule = 22, "nat-unknown-rule", false;
    /// The tunnel brought a packet from an address that is no node's.
    NatUnknownNode = 23, "nat-unknown-node", false;
    /// The way out has no address of the packet's family on this gateway.
    NatNoAddress = 24, "nat-no-address", false;
    /// No port is free towards this destination; the pod gets ICMP host unreachable.
    NatPortsExhausted = 25, "nat-ports-exhausted", false;
    /// The table of mappings is full; the pod gets ICMP host unreachable.
    NatTableFull = 26, "nat-table-full", false;
    /// A new connection at a gateway that only finishes old ones.
    NatDraining = 27, "nat-draining", false;
    /// An ICMP error about a connection this gateway does not have.
    NatUnrelated = 28, "nat-unrelated", false;
    /// A fragment of a packet whose first fragment was not seen.
    NatOrphanFragment = 29, "nat-orphan-fragment", false;
    /// Options, extension headers or a protocol that cannot be translated.
    NatUnsupported = 30, "nat-unsupported", false;
    /// The gateway's routing table has no way to the destination.
    NoRoute = 31, "no-route", false;
    /// To an address that Causeway holds for its pods, and of no connection of this gateway.
    NatUnsolicited = 32, "nat-unsolicited", false;
}

impl DropReason {
    /// One more than the largest number: the size of an array indexed by reason.
    pub const COUNT: u32 = 33;

    /// The number in maps.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A number that names no reason: written by a program of another version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownDropReason(pub u8);

impl fmt::Display for UnknownDropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not the number of a drop reason", self.0)
    }
}

impl core::error::Error for UnknownDropReason {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_map_to_reasons_and_back() {
        for reason in DropReason::ALL {
            assert_eq!(DropReason::try_from(reason.number()), Ok(*reason));
            assert!(u32::from(reason.number()) < DropReason::COUNT);
        }
        assert_eq!(DropReason::try_from(0), Err(UnknownDropReason(0)));
        assert_eq!(DropReason::try_from(200), Err(UnknownDropReason(200)));
        assert_eq!(DropReason::ALL.len() as u32, DropReason::COUNT - 1);
    }

    #[test]
    fn names_are_unique_labels_and_descriptions_are_sentences() {
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert!(
                reason
                    .name()
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b == b'-')
            );
            assert!(
                reason.description().ends_with('.'),
                "{}",
                reason.description()
            );
            assert!(reason.description().as_bytes()[0].is_ascii_uppercase());
            for other in &DropReason::ALL[index + 1..] {
                assert_ne!(reason.name(), other.name());
            }
        }
    }
}
