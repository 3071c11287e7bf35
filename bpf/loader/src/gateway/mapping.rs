// SPDX-License-Identifier: Apache-2.0
//! Mappings as the rest of the program knows them.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bpf_abi::nat::{AddressWords, NatEntry, NatEvent, NatKey, V4, V6, said, side};

/// One connection of a pod through a gateway, or one UDP socket of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The rule it was made by.
    pub rule: u32,
    /// Protocol number.
    pub protocol: u8,
    /// The pod's end; the port is 0 for protocols without ports, and the identifier of an echo.
    pub pod: SocketAddr,
    /// The world's end; `None` for a socket that keeps its port whomever it sends to.
    pub remote: Option<SocketAddr>,
    /// What the world sees.
    pub egress: SocketAddr,
    /// How answers get to the pod.
    pub node: PodNode,
    /// What the pod has said.
    pub said_out: Said,
    /// What the world has said.
    pub said_back: Said,
    /// Since when nobody has said anything.
    pub idle: Duration,
}

/// How answers get to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodNode {
    /// It is on this node.
    Here,
    /// By the tunnel, whose other end this is.
    Tunnel(IpAddr),
    /// By the routing table.
    Native,
}

/// What one side of a connection has said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Anything at all.
    pub anything: bool,
    /// TCP: FIN.
    pub fin: bool,
    /// TCP: RST.
    pub rst: bool,
}

impl Said {
    pub(crate) fn from_bits(bits: u32) -> Self {
        Self {
            anything: bits & said::ANYTHING != 0,
            fin: bits & said::FIN != 0,
            rst: bits & said::RST != 0,
        }
    }

    pub(crate) fn bits(self) -> u32 {
        (u32::from(self.anything) * said::ANYTHING)
            | (u32::from(self.fin) * said::FIN)
            | (u32::from(self.rst) * said::RST)
    }
}

/// Where a connection is in its life, for its timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// TCP before both sides have spoken.
    TcpOpening,
    /// TCP while both sides may speak.
    TcpEstablished,
    /// TCP after both sides said FIN, or one said RST.
    TcpClosing,
    /// UDP without an answer.
    UdpUnanswered,
    /// UDP.
    Udp,
    /// An ICMP query.
    Icmp,
    /// Every other protocol.
    Other,
}

impl Phase {
    /// The phase of a connection.
    #[must_use]
    pub fn of(protocol: u8, out: Said, back: Said) -> Self {
        match protocol {
            6 if out.rst || back.rst || (out.fin && back.fin) => Phase::TcpClosing,
            6 if out.anything && back.anything => Phase::TcpEstablished,
            6 => Phase::TcpOpening,
            17 if back.anything => Phase::Udp,
            17 => Phase::UdpUnanswered,
            1 | 58 => Phase::Icmp,
            _ => Phase::Other,
        }
    }

    /// The name in outputs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Phase::TcpOpening => "opening",
            Phase::TcpEstablished => "established",
            Phase::TcpClosing => "closing",
            Phase::UdpUnanswered => "unanswered",
            Phase::Udp | Phase::Icmp | Phase::Other => "active",
        }
    }
}

impl Mapping {
    /// Where the connection is in its life.
    #[must_use]
    pub fn phase(&self) -> Phase {
        Phase::of(self.protocol, self.said_out, self.said_back)
    }
}

/// A family's addresses as the maps have them.
pub(crate) trait Address: AddressWords + Ord {
    const ANY: Self;
    fn to_ip(self) -> IpAddr;
    fn from_ip(address: IpAddr) -> Option<Self>;
}

impl Address for V4 {
    const ANY: Self = [0];

    fn to_ip(self) -> IpAddr {
        IpAddr::from(self[0].to_ne_bytes())
    }

    fn from_ip(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(v4) => Some(words_v4(v4)),
            IpAddr::V6(_) => None,
        }
    }
}

impl Address for V6 {
    const ANY: Self = [0; 4];

    fn to_ip(self) -> IpAddr {
        IpAddr::from(bytes(self))
    }

    fn from_ip(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => Some(words_v6(v6)),
        }
    }
}

/// An address of either family in the shape both have in tables of outer addresses.
pub(crate) fn widen(address: IpAddr) -> V6 {
    match address {
        IpAddr::V4(v4) => [u32::from_ne_bytes(v4.octets()), 0, 0, 0],
        IpAddr::V6(v6) => words(v6.octets()),
    }
}

/// The other way round.
pub(crate) fn narrow(address: V6, ip_version: u8) -> IpAddr {
    if ip_version == 4 {
        IpAddr::from(address[0].to_ne_bytes())
    } else {
        IpAddr::from(bytes(address))
    }
}

/// An IPv4 address as the maps have it.
pub(crate) fn words_v4(address: std::net::Ipv4Addr) -> V4 {
    [u32::from_ne_bytes(address.octets())]
}

/// An IPv6 address as the maps have it.
pub(crate) fn words_v6(address: std::net::Ipv6Addr) -> V6 {
    words(address.octets())
}

fn words(bytes: [u8; 16]) -> V6 {
    let word =
        |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    [word(0), word(4), word(8), word(12)]
}

fn bytes(words: V6) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

/// The other half of an out entry.
pub(crate) fn back_key<A: Address>(key: &NatKey<A>, out: &NatEntry<A>) -> NatKey<A> {
    NatKey {
        local: out.address,
        local_port: out.port,
        side: side::BACK,
        ..*key
    }
}

/// The other half of a back entry.
pub(crate) fn out_key<A: Address>(key: &NatKey<A>, back: &NatEntry<A>) -> NatKey<A> {
    NatKey {
        local: back.address,
        local_port: back.port,
        side: side::OUT,
        ..*key
    }
}

/// A mapping out of its two halves.
pub(crate) fn read<A: Address>(
    key: &NatKey<A>,
    out: &NatEntry<A>,
    back: Option<&NatEntry<A>>,
    node: PodNode,
    now: u32,
) -> Mapping {
    let idle = [Some(out), back]
        .into_iter()
        .flatten()
        .map(|entry| ticks_since(entry.last_seen, now))
        .min()
        .unwrap_or_default();
    let end = |address: A, port: u16| SocketAddr::new(address.to_ip(), u16::from_be(port));
    let is_any = key.remote == A::ANY;
    Mapping {
        rule: out.rule,
        protocol: key.protocol,
        pod: end(key.local, key.local_port),
        remote: (!is_any).then(|| end(key.remote, key.remote_port)),
        egress: end(out.address, out.port),
        node,
        said_out: Said::from_bits(out.said),
        said_back: Said::from_bits(back.map_or(0, |back| back.said)),
        idle: duration_of(idle),
    }
}

/// What an event says.
pub(crate) fn from_event(event: &NatEvent, node: PodNode) -> Mapping {
    let end =
        |address, port: u16| SocketAddr::new(narrow(address, event.ip_version), u16::from_be(port));
    let is_any = event.remote == [0; 4];
    Mapping {
        rule: event.rule,
        protocol: event.protocol,
        pod: end(event.pod, event.pod_port),
        remote: (!is_any).then(|| end(event.remote, event.remote_port)),
        egress: end(event.address, event.port),
        node,
        said_out: Said::from_bits(event.said_out),
        said_back: Said::from_bits(event.said_back),
        idle: Duration::ZERO,
    }
}

/// The distance of two moments in ticks; one that seems to lie ahead was noted by another CPU a
/// moment ago.
pub(crate) fn ticks_since(then: u32, now: u32) -> u32 {
    let distance = now.wrapping_sub(then);
    if distance > u32::MAX / 2 { 0 } else { distance }
}

/// Ticks as time.
pub(crate) fn duration_of(ticks: u32) -> Duration {
    Duration::from_nanos(u64::from(ticks) << 20)
}

/// Time as ticks.
pub(crate) fn ticks_of(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos() >> 20).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Said = Said {
        anything: false,
        fin: false,
        rst: false,
    };
    const SPOKE: Said = Said {
        anything: true,
        ..NOTHING
    };
    const FIN: Said = Said { fin: true, ..SPOKE };
    const RST: Said = Said { rst: true, ..SPOKE };

    #[test]
    fn phases_follow_what_both_sides_said() {
        for (protocol, out, back, phase) in [
            (6, SPOKE, NOTHING, Phase::TcpOpening),
            (6, SPOKE, SPOKE, Phase::TcpEstablished),
            (6, FIN, SPOKE, Phase::TcpEstablished),
            (6, FIN, FIN, Phase::TcpClosing),
            (6, SPOKE, RST, Phase::TcpClosing),
            (17, SPOKE, NOTHING, Phase::UdpUnanswered),
            (17, SPOKE, SPOKE, Phase::Udp),
            (1, SPOKE, NOTHING, Phase::Icmp),
            (58, SPOKE, SPOKE, Phase::Icmp),
            (132, SPOKE, SPOKE, Phase::Other),
        ] {
            assert_eq!(Phase::of(protocol, out, back), phase, "{protocol}");
        }
    }

    #[test]
    fn addresses_survive_the_way_into_words_and_back() {
        for text in ["192.0.2.1", "2001:db8::1:2"] {
            let address: IpAddr = text.parse().expect("address");
            let version = if address.is_ipv4() { 4 } else { 6 };
            assert_eq!(narrow(widen(address), version), address);
        }
    }

    #[test]
    fn a_moment_ahead_is_now() {
        assert_eq!(ticks_since(10, 15), 5);
        assert_eq!(ticks_since(15, 10), 0);
        assert_eq!(ticks_since(u32::MAX, 4), 5);
        assert_eq!(ticks_of(duration_of(1234)), 1234);
    }
}
