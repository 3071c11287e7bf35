// SPDX-License-Identifier: Apache-2.0
//! Ways out, as a gateway is told about them.

use std::{net::IpAddr, time::Duration};

use bpf_abi::nat::{MAX_RULE_ADDRESSES, NatRule, rule_flags};
use router_types::LinkIndex;

use super::mapping::{Address as _, Phase};

/// One way out of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayRule {
    /// The device packets leave by; the routing table decides where there is none.
    pub interface: Option<LinkIndex>,
    /// What connections are given as source, in this order, as ports run out; at most
    /// [`MAX_RULE_ADDRESSES`] of each family. Without one of a packet's family it is refused.
    pub addresses: Vec<IpAddr>,
    /// The lowest port connections get.
    pub first_port: u16,
    /// The highest port connections get, not below the lowest.
    pub last_port: u16,
    /// Whether a UDP socket keeps one mapping whomever it sends to (RFC 4787 §4.1).
    pub is_udp_endpoint_independent: bool,
    /// Whether changes of mappings are told as events.
    pub is_replicated: bool,
    /// Whether only connections that are there are served.
    pub is_draining: bool,
    /// Whether another gateway holds the rule, and the mappings are copies of its: none ends by
    /// itself, and none begins. Those that are there are translated all the same.
    pub is_copy: bool,
    /// How long connections keep an address that is none of the rule's any more while it has others
    /// of the family; until they end where there is none.
    pub drain: Option<Duration>,
    /// How long idle mappings live.
    pub timeouts: Timeouts,
}

/// How long an idle mapping lives in each phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the phases' names say it")]
pub struct Timeouts {
    pub tcp_opening: Duration,
    pub tcp_established: Duration,
    pub tcp_closing: Duration,
    pub udp_unanswered: Duration,
    pub udp: Duration,
    pub icmp: Duration,
    pub other: Duration,
}

impl Timeouts {
    /// The timeout of a phase.
    #[must_use]
    pub fn of(&self, phase: Phase) -> Duration {
        match phase {
            Phase::TcpOpening => self.tcp_opening,
            Phase::TcpEstablished => self.tcp_established,
            Phase::TcpClosing => self.tcp_closing,
            Phase::UdpUnanswered => self.udp_unanswered,
            Phase::Udp => self.udp,
            Phase::Icmp => self.icmp,
            Phase::Other => self.other,
        }
    }

    /// No mapping of the protocol ends before this.
    pub(crate) fn shortest(&self, protocol: u8) -> Duration {
        match protocol {
            6 => self
                .tcp_opening
                .min(self.tcp_established)
                .min(self.tcp_closing),
            17 => self.udp_unanswered.min(self.udp),
            1 | 58 => self.icmp,
            _ => self.other,
        }
    }
}

impl GatewayRule {
    /// Whether new connections get other addresses than this one.
    pub(crate) fn has_left(&self, address: IpAddr) -> bool {
        let mut of_family = self.addresses.iter();
        !self.addresses.contains(&address) && of_family.any(|a| a.is_ipv4() == address.is_ipv4())
    }

    /// The rule as the programs read it.
    pub(crate) fn encode(&self, slot: u16) -> NatRule {
        let mut rule = NatRule {
            ifindex: self.interface.map_or(0, |link| link.0),
            flags: (u32::from(self.is_udp_endpoint_independent) * rule_flags::UDP_INDEPENDENT)
                | (u32::from(self.is_replicated) * rule_flags::REPLICATED)
                | (u32::from(self.is_draining || self.is_copy) * rule_flags::DRAINING),
            slot,
            first_port: self.first_port,
            last_port: self.last_port,
            ..NatRule::default()
        };
        let v4 = self
            .addresses
            .iter()
            .filter_map(|a| <[u32; 1]>::from_ip(*a));
        for (place, address) in rule.v4.iter_mut().zip(v4.take(MAX_RULE_ADDRESSES)) {
            *place = address;
            rule.count_v4 += 1;
        }
        let v6 = self
            .addresses
            .iter()
            .filter_map(|a| <[u32; 4]>::from_ip(*a));
        for (place, address) in rule.v6.iter_mut().zip(v6.take(MAX_RULE_ADDRESSES)) {
            *place = address;
            rule.count_v6 += 1;
        }
        rule
    }
}
