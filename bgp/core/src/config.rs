// SPDX-License-Identifier: Apache-2.0
//! What a speaker is told to be: instances, neighbours, policies and local routes.
//!
//! Values are valid by construction: fields that have ranges or depend on each other are private
//! and set through constructors that say what is wrong. Where the values come from (manifests, a
//! test, a recording) is not known here.

mod change;
mod local;
mod policy;
mod timers;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use router_types::{Asn, Family};
use serde::{Deserialize, Serialize};

pub use change::{Change, Effect};
pub(crate) use local::family_of;
pub use local::{ExportAttributes, LocalRoute, LocalRoutes};
pub use policy::{ImportMode, ImportPolicy, PrefixRange};
pub use timers::Timers;

use crate::serial;

/// The name of an instance, unique on the node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct InstanceName(pub String);

/// The name of a neighbour, unique in its instance.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PeerName(pub String);

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for InstanceName {
    fn from(name: &str) -> Self {
        InstanceName(name.to_owned())
    }
}

impl From<&str> for PeerName {
    fn from(name: &str) -> Self {
        PeerName(name.to_owned())
    }
}

/// Why a configuration is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// AS 0 names nobody (RFC 7607).
    #[error("local AS 0 is reserved: use 1 to 4294967295")]
    LocalAsnZero,
    /// RFC 6286 §2.1: the identifier is any non-zero number.
    #[error("router id 0.0.0.0 is reserved: use the node's IPv4 address or any other number")]
    RouterIdZero,
    /// Two neighbours of one instance have the same address and port.
    #[error(
        "peers {first} and {second} both are {address}: an instance has one session with an address"
    )]
    DuplicateAddress {
        /// The neighbour that was there.
        first: PeerName,
        /// The neighbour that was added.
        second: PeerName,
        /// The address both have.
        address: PeerAddress,
    },
    /// Two neighbours of one instance have the same name.
    #[error("peer {0} is there twice: names are unique in an instance")]
    DuplicateName(PeerName),
    /// RFC 4271 §4.2: a hold time is zero or at least three seconds.
    #[error("hold time {0} s: use 0 (no keepalives) or 3 to 65535 s")]
    HoldTime(u64),
    /// Keepalives slower than the hold time would end every session.
    #[error("keepalive {keepalive} s is longer than hold time {hold} s: use at most a third of it")]
    KeepaliveTime {
        /// The keepalive interval asked for, in seconds.
        keepalive: u64,
        /// The hold time it must fit into, in seconds.
        hold: u64,
    },
    /// A retry timer of zero would dial without pause.
    #[error("connect retry time {0} s: use 1 to 2147483647 s")]
    ConnectRetryTime(u64),
    /// RFC 2385 and the kernel's `TCP_MD5SIG_MAXKEYLEN`.
    #[error("MD5 password of {0} bytes: use 1 to 80")]
    Md5Length(usize),
    /// A link-local address means nothing without its link.
    #[error("peer address {0} is link-local: write the interface behind it, such as fe80::1%eth0")]
    ZoneMissing(IpAddr),
    /// An address that no neighbour can have.
    #[error("peer address {0} is not the address of a neighbour: use a unicast address")]
    NotUnicast(IpAddr),
    /// A session without a family carries nothing.
    #[error("no address family: a session needs at least one of ipv4/unicast, ipv6/unicast")]
    NoFamily,
    /// A family this speaker does not carry.
    #[error("family {0} is not carried: use ipv4/unicast or ipv6/unicast")]
    FamilyNotCarried(Family),
    /// A prefix range whose lengths contradict each other.
    #[error(
        "prefix range {prefix} lengths {min} to {max}: use {len} <= minimum <= maximum <= {bits}"
    )]
    PrefixRange {
        /// The prefix the range is under.
        prefix: ipnet::IpNet,
        /// The shortest length asked for.
        min: u8,
        /// The longest length asked for.
        max: u8,
        /// The prefix's own length.
        len: u8,
        /// The address width.
        bits: u8,
    },
    /// The TTL leaves no hop.
    #[error("multihop TTL 0: use 1 (a neighbour on the link) to 255")]
    TtlZero,
    /// RFC 4724 §3: the restart time has twelve bits.
    #[error("graceful restart time {0} s: use 1 to 4095 s")]
    RestartTime(u16),
}

/// Where a neighbour is: an address, with the link for a link-local one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PeerAddress {
    ip: IpAddr,
    zone: Option<String>,
}

impl PeerAddress {
    /// Takes an address and, for a link-local one, the name of its interface.
    ///
    /// # Errors
    /// Addresses nobody can have, and link-local addresses without a zone.
    pub fn new(ip: IpAddr, zone: Option<String>) -> Result<PeerAddress, ConfigError> {
        if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return Err(ConfigError::NotUnicast(ip));
        }
        if zone.is_none() && matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
            return Err(ConfigError::ZoneMissing(ip));
        }
        Ok(PeerAddress { ip, zone })
    }

    /// The address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The name of the interface the address is on, where it was given.
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.zone {
            Some(zone) => write!(f, "{}%{zone}", self.ip),
            None => fmt::Display::fmt(&self.ip, f),
        }
    }
}

/// A TCP MD5 password (RFC 2385). Never shown: not by `Debug`, not in recordings.
#[derive(Clone, PartialEq, Eq)]
pub struct Md5Password(Vec<u8>);

impl Md5Password {
    /// Takes 1 to 80 bytes, the length the kernel takes.
    ///
    /// # Errors
    /// Any other length. An empty password is no password and is refused.
    pub fn new(password: impl Into<Vec<u8>>) -> Result<Md5Password, ConfigError> {
        let password = password.into();
        if password.is_empty() || password.len() > 80 {
            return Err(ConfigError::Md5Length(password.len()));
        }
        Ok(Md5Password(password))
    }

    /// The secret itself, for the socket option and nothing else.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Md5Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Md5Password(redacted)")
    }
}

impl Serialize for Md5Password {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("redacted")
    }
}

impl<'de> Deserialize<'de> for Md5Password {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Md5Password::new(text).map_err(serde::de::Error::custom)
    }
}

/// Who opens the TCP connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum ConnectMode {
    /// Dials, and takes a call where the instance listens.
    #[default]
    Both,
    /// Dials; refuses calls.
    Active,
    /// Waits to be called (RFC 4271 §8.1.1 `PassiveTcpEstablishment`).
    Passive,
}

/// Graceful restart of this speaker (RFC 4724), asked for by configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GracefulRestart {
    restart_time_s: u16,
}

impl GracefulRestart {
    /// Takes the time the neighbour shall wait for this speaker to be back, 1 to 4095 seconds.
    ///
    /// # Errors
    /// A time outside that range.
    pub fn new(restart_time_s: u16) -> Result<GracefulRestart, ConfigError> {
        match restart_time_s {
            1..=4095 => Ok(GracefulRestart { restart_time_s }),
            _ => Err(ConfigError::RestartTime(restart_time_s)),
        }
    }

    /// The restart time in seconds.
    pub fn restart_time_s(self) -> u16 {
        self.restart_time_s
    }
}

/// One family of a session.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FamilyConfig {
    /// Which of the neighbour's routes are taken. The default takes the default route only.
    pub import: ImportPolicy,
    /// The next hop to announce instead of this end's address of the session.
    pub next_hop: Option<IpAddr>,
}

/// A neighbour.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerConfig {
    /// Where it is.
    pub address: PeerAddress,
    /// The TCP port it listens on. Default 179.
    pub port: u16,
    /// Its AS number; `None` takes what its OPEN says.
    #[serde(with = "serial::asn_option")]
    pub asn: Option<Asn>,
    /// The address to call from; `None` leaves the choice to the kernel's routes.
    pub local_address: Option<IpAddr>,
    /// The device to bind the connection to (`SO_BINDTODEVICE`).
    pub interface: Option<String>,
    /// The TCP MD5 password.
    pub password: Option<Md5Password>,
    /// Timers.
    pub timers: Timers,
    /// TTL of an external session's packets: 1 for a neighbour on the link. Internal sessions
    /// always use 255, since their neighbours may be hops away.
    ttl: u8,
    /// Who opens the connection.
    pub connect: ConnectMode,
    /// Graceful restart, where asked for.
    pub graceful_restart: Option<GracefulRestart>,
    /// How often the own AS may be in a path from this neighbour. Default 0: such paths are loops.
    pub allow_own_as: u8,
    /// The families of the session.
    #[serde(with = "serial::families")]
    families: BTreeMap<Family, FamilyConfig>,
}

impl PeerConfig {
    /// The port BGP listens on.
    pub const PORT: u16 = 179;

    /// A neighbour at an address with the defaults: port 179, any AS, timers of [`Timers`], TTL 1,
    /// IPv4 and IPv6 unicast, import of the default route.
    pub fn new(address: PeerAddress) -> PeerConfig {
        let families = [Family::IPV4_UNICAST, Family::IPV6_UNICAST]
            .into_iter()
            .map(|family| (family, FamilyConfig::default()))
            .collect();
        PeerConfig {
            address,
            port: Self::PORT,
            asn: None,
            local_address: None,
            interface: None,
            password: None,
            timers: Timers::default(),
            ttl: 1,
            connect: ConnectMode::default(),
            graceful_restart: None,
            allow_own_as: 0,
            families,
        }
    }

    /// Sets the families.
    ///
    /// # Errors
    /// None at all, or one that is not carried.
    pub fn with_families(
        mut self,
        families: BTreeMap<Family, FamilyConfig>,
    ) -> Result<PeerConfig, ConfigError> {
        if families.is_empty() {
            return Err(ConfigError::NoFamily);
        }
        let carried = [Family::IPV4_UNICAST, Family::IPV6_UNICAST];
        if let Some(family) = families.keys().find(|family| !carried.contains(family)) {
            return Err(ConfigError::FamilyNotCarried(*family));
        }
        self.families = families;
        Ok(self)
    }

    /// Sets the TTL of an external session.
    ///
    /// # Errors
    /// A TTL of 0.
    pub fn with_ttl(mut self, ttl: u8) -> Result<PeerConfig, ConfigError> {
        if ttl == 0 {
            return Err(ConfigError::TtlZero);
        }
        self.ttl = ttl;
        Ok(self)
    }

    /// The families of the session.
    pub fn families(&self) -> &BTreeMap<Family, FamilyConfig> {
        &self.families
    }

    /// The configured TTL.
    pub fn ttl(&self) -> u8 {
        self.ttl
    }

    /// Address and port; the scope of a link-local address is for the caller to fill in.
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address.ip, self.port)
    }
}

/// Whether learned routes are passed on to other neighbours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Transit {
    /// They are not. A node is an edge: routes of one ToR shown to another would make the node a
    /// path between them. The default.
    #[default]
    Never,
    /// Best routes are passed on by the rules of RFC 4271 §9.2, without reflection between
    /// internal neighbours.
    Allowed,
}

/// Where an instance listens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Listen {
    /// The TCP port.
    pub port: u16,
    /// The addresses; empty means every address of both families.
    pub addresses: Vec<IpAddr>,
}

/// One speaker: an AS number, an identifier and its neighbours.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InstanceConfig {
    name: InstanceName,
    #[serde(with = "serial::asn")]
    local_asn: Asn,
    router_id: Ipv4Addr,
    /// Where it listens; `None` only dials.
    pub listen: Option<Listen>,
    /// Whether learned routes are passed on.
    pub transit: Transit,
    /// Whether best learned routes are told to whoever puts them into the kernel. Default true; a
    /// route server or reflector has no use for them there.
    #[serde(default = "yes")]
    pub install_routes: bool,
    /// The most next hops one destination may have, at least 1. Default 16.
    pub max_paths: u16,
    /// Whether rejected routes are kept with their attributes, to be looked at. Costs memory as
    /// accepted ones do; without it they are counted and only their prefixes are kept.
    pub keep_rejected: bool,
    peers: BTreeMap<PeerName, PeerConfig>,
}

fn yes() -> bool {
    true
}

impl InstanceConfig {
    /// An instance without neighbours.
    ///
    /// # Errors
    /// AS number 0 and router id 0.0.0.0.
    pub fn new(
        name: InstanceName,
        local_asn: Asn,
        router_id: Ipv4Addr,
    ) -> Result<InstanceConfig, ConfigError> {
        if local_asn == Asn(0) {
            return Err(ConfigError::LocalAsnZero);
        }
        if router_id.is_unspecified() {
            return Err(ConfigError::RouterIdZero);
        }
        Ok(InstanceConfig {
            name,
            local_asn,
            router_id,
            listen: None,
            transit: Transit::default(),
            install_routes: true,
            max_paths: 16,
            keep_rejected: false,
            peers: BTreeMap::new(),
        })
    }

    /// Adds a neighbour.
    ///
    /// # Errors
    /// A name or an address that another neighbour of the instance has.
    pub fn add_peer(&mut self, name: PeerName, peer: PeerConfig) -> Result<(), ConfigError> {
        if self.peers.contains_key(&name) {
            return Err(ConfigError::DuplicateName(name));
        }
        if let Some((first, other)) = self.peers.iter().find(|(_, other)| {
            // Calls come from the neighbour's ephemeral port: the address alone tells who calls.
            other.address == peer.address && (other.port == peer.port || self.listen.is_some())
        }) {
            return Err(ConfigError::DuplicateAddress {
                first: first.clone(),
                second: name,
                address: other.address.clone(),
            });
        }
        self.peers.insert(name, peer);
        Ok(())
    }

    /// The instance's name.
    pub fn name(&self) -> &InstanceName {
        &self.name
    }

    /// The AS number.
    pub fn local_asn(&self) -> Asn {
        self.local_asn
    }

    /// The BGP identifier.
    pub fn router_id(&self) -> Ipv4Addr {
        self.router_id
    }

    /// The neighbours.
    pub fn peers(&self) -> &BTreeMap<PeerName, PeerConfig> {
        &self.peers
    }
}

#[cfg(test)]
mod tests;
