// SPDX-License-Identifier: Apache-2.0
//! What a speaker is told to be: instances, neighbours, policies and local routes.
//!
//! Values are valid by construction: fields that have ranges or depend on each other are private
//! and set through constructors that say what is wrong. Where the values come from (manifests, a
//! test, a recording) is not known here.

mod address;
mod as_number;
mod bfd;
mod change;
mod error;
mod family;
mod local;
mod policy;
mod range;
mod session;
mod timers;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bgp_wire::ExtendedCommunity;
use ipnet::IpNet;
use router_types::{Asn, Family};
use serde::{Deserialize, Serialize};

pub use crate::policy::{PolicyConfig, PolicyName};
pub use bgp_wire::Role;

pub use address::{Md5Password, PeerAddress};
pub use as_number::{LocalAs, PrivateAs};
pub use bfd::BfdSettings;
pub use change::{Change, Effect};
pub use error::ConfigError;
pub use family::{AddPathConfig, BeyondLimit, FamilyConfig, NextHopMode, PrefixLimit};
pub(crate) use local::family_of;
pub use local::{ExportAttributes, LocalRoute, LocalRoutes};
pub use policy::{ImportMode, ImportPolicy, PrefixRange};
pub use range::{AsnRange, ListenRange};
pub use session::{
    CapabilityUse, ConnectMode, GracefulRestart, RoleConfig, SendHold, StaleTime, TcpMss,
    TtlSecurity,
};
pub use timers::Timers;

use crate::serial;

/// The name of an instance, unique on the node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct InstanceName(pub String);

/// The name of a neighbour, unique in its instance. Shared: it goes along with every message.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct PeerName(pub Arc<str>);

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
        PeerName(name.into())
    }
}

impl From<String> for PeerName {
    fn from(name: String) -> Self {
        PeerName(name.into())
    }
}

impl From<PeerName> for String {
    fn from(name: PeerName) -> Self {
        (*name.0).to_owned()
    }
}

/// A neighbour.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default = "PeerConfig::template")]
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
    /// How far the neighbour may be by the TTL of its packets (RFC 5082, GTSM). Packets are then
    /// sent with TTL 255, whatever [`PeerConfig::ttl`] is, and others are dropped by the kernel.
    /// Default `None`: both ends must be configured for it.
    pub ttl_security: Option<TtlSecurity>,
    /// The largest TCP segment; `None` for what the path gives.
    pub tcp_mss: Option<TcpMss>,
    /// Who opens the connection.
    pub connect: ConnectMode,
    /// Whether an operator has shut the session down, with words for the neighbour's (RFC 9003,
    /// up to 255 octets, may be empty). Calls are refused meanwhile.
    pub shutdown: Option<String>,
    /// Whether an external neighbour on the link is given up at once when the link goes down
    /// ("fast external fail-over"). Default true.
    pub fast_failover: bool,
    /// How long nothing may leave before the session is given up (RFC 9687).
    pub send_hold: SendHold,
    /// Which capabilities are offered.
    pub capabilities: CapabilityUse,
    /// Whether messages up to 65535 octets are offered (RFC 8654). Default true.
    pub extended_messages: bool,
    /// The role towards an external neighbour (RFC 9234); `None` for none. With one, routes carry
    /// and obey ONLY_TO_CUSTOMER.
    pub role: Option<RoleConfig>,
    /// Graceful restart, where asked for.
    pub graceful_restart: Option<GracefulRestart>,
    /// Whether two connections collide also while one is established, so that the neighbour's newer
    /// one may win (RFC 4271 §6.8, `CollisionDetectEstablishedState`). Default false.
    pub collision_when_established: bool,
    /// Another AS number shown to this neighbour.
    pub local_as: Option<LocalAs>,
    /// AS numbers the neighbour may have; empty takes any that [`PeerConfig::asn`] takes. Set for
    /// neighbours of a [`ListenRange`].
    pub asns: Vec<AsnRange>,
    /// Whether the neighbour's AS number in paths sent to it is replaced by the own one, for sites
    /// that share a number. Default false.
    pub as_override: bool,
    /// What is done with private AS numbers in paths sent to it.
    pub private_as: PrivateAs,
    /// Whether paths of an external neighbour must begin with its AS number (RFC 4271 §6.3).
    /// Default true; route servers leave themselves out.
    pub enforce_first_as: bool,
    /// Whether routes are reflected to and from this internal neighbour (RFC 4456).
    pub route_reflector_client: bool,
    /// Whether all routes sent to it carry GRACEFUL_SHUTDOWN, and all of it are the last choice
    /// (RFC 8326): before maintenance of this session.
    pub graceful_shutdown: bool,
    /// Failure detection by BFD. Default none.
    #[serde(default)]
    pub bfd: Option<BfdSettings>,
    /// How often the own AS may be in a path from this neighbour. Default 0: such paths are loops.
    pub allow_own_as: u8,
    /// The families of the session.
    #[serde(with = "serial::by_family")]
    families: BTreeMap<Family, FamilyConfig>,
}

impl PeerConfig {
    /// The port BGP listens on.
    pub const PORT: u16 = 179;

    /// The families a session may have: unicast, routes of VPNs (RFC 4364, RFC 4659) and route target
    /// membership (RFC 4684).
    pub const CARRIED: [Family; 5] = [
        Family::IPV4_UNICAST,
        Family::IPV6_UNICAST,
        Family::VPNV4,
        Family::VPNV6,
        Family::ROUTE_TARGET,
    ];

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
            ttl_security: None,
            tcp_mss: None,
            connect: ConnectMode::default(),
            shutdown: None,
            fast_failover: true,
            send_hold: SendHold::default(),
            capabilities: CapabilityUse::default(),
            extended_messages: true,
            role: None,
            graceful_restart: None,
            collision_when_established: false,
            local_as: None,
            asns: Vec::new(),
            as_override: false,
            private_as: PrivateAs::default(),
            enforce_first_as: true,
            route_reflector_client: false,
            graceful_shutdown: false,
            bfd: None,
            allow_own_as: 0,
            families,
        }
    }

    /// What neighbours of a [`ListenRange`] are like, with the defaults of [`PeerConfig::new`]. It is
    /// no neighbour itself: its address is `0.0.0.0`.
    pub fn template() -> PeerConfig {
        PeerConfig {
            connect: ConnectMode::Passive,
            ..PeerConfig::new(PeerAddress::unset())
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
        if let Some(family) = families
            .keys()
            .find(|family| !Self::CARRIED.contains(family))
        {
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
        SocketAddr::new(self.address.ip(), self.port)
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
    /// The device calls come by, such as a VRF's: those of a VRF reach no socket but one that is bound
    /// to it. `None` takes those of every device that is in no VRF.
    #[serde(default)]
    pub device: Option<String>,
}

/// A prefix announced while something more specific is known (RFC 4271 §9.2.2.2).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Aggregate {
    /// The prefix announced.
    #[serde(with = "serial::text")]
    pub prefix: IpNet,
    /// Whether the more specific ones are not announced then.
    pub summary_only: bool,
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
    /// Whether paths of the same length through different neighbouring ASes are used together
    /// ("as-path multipath-relax"). Default true: a node's two switches often have an AS each.
    #[serde(default = "yes")]
    pub as_path_relax: bool,
    /// Whether paths used together are weighed by the link bandwidth communities of their routes,
    /// where all of them have one. Default true.
    #[serde(default = "yes")]
    pub weigh_by_link_bandwidth: bool,
    /// Whether external sessions without an import and an export policy exchange nothing (RFC 8212).
    /// Default false here; the kinds users write decide.
    #[serde(default)]
    pub ebgp_requires_policy: bool,
    /// The cluster of this route reflector (RFC 4456 §7); `None` uses the router id.
    #[serde(default)]
    pub cluster_id: Option<Ipv4Addr>,
    /// Whether everything is announced with GRACEFUL_SHUTDOWN (RFC 8326): before maintenance of the
    /// node.
    #[serde(default)]
    pub graceful_shutdown: bool,
    /// Whether nothing is announced at all, and what was is withdrawn: the node is drained. Sessions
    /// stay, and so does what was learned.
    #[serde(default)]
    pub drained: bool,
    /// The route targets of the VPN routes this speaker asks its neighbours for, each as an extended
    /// community (RFC 4684); `None` asks for all. Counts where that family is exchanged.
    #[serde(default)]
    pub route_targets: Option<BTreeSet<[u8; 8]>>,
    /// Prefixes announced while something more specific is known.
    #[serde(default)]
    pub aggregates: Vec<Aggregate>,
    /// The policies neighbours name. One that is named and not here rejects everything.
    #[serde(default)]
    pub policies: Vec<PolicyConfig>,
    /// Whether rejected routes are kept with their attributes, to be looked at. Costs memory as
    /// accepted ones do; without it they are counted and only their prefixes are kept.
    pub keep_rejected: bool,
    #[serde(default)]
    ranges: BTreeMap<PeerName, ListenRange>,
    peers: BTreeMap<PeerName, PeerConfig>,
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
            as_path_relax: true,
            weigh_by_link_bandwidth: true,
            ebgp_requires_policy: false,
            cluster_id: None,
            graceful_shutdown: false,
            drained: false,
            route_targets: None,
            aggregates: Vec::new(),
            policies: Vec::new(),
            keep_rejected: false,
            ranges: BTreeMap::new(),
            peers: BTreeMap::new(),
        })
    }

    /// Adds a neighbour.
    ///
    /// # Errors
    /// A name or an address that another neighbour of the instance has.
    pub fn add_peer(&mut self, name: PeerName, peer: PeerConfig) -> Result<(), ConfigError> {
        if self.peers.contains_key(&name) || self.ranges.contains_key(&name) {
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

    /// Asks for VPN routes with a route target, written `rt:65000:100`, and no longer for all.
    ///
    /// # Errors
    /// A text that is no route target.
    pub fn ask_for(&mut self, text: &str) -> Result<(), ConfigError> {
        let target: Option<ExtendedCommunity> = text.parse().ok();
        let target = target.filter(|target| target.is_route_target());
        let target = target.ok_or_else(|| ConfigError::RouteTarget(text.to_owned()))?;
        self.route_targets.get_or_insert_default().insert(target.0);
        Ok(())
    }

    /// Adds a listen range. Local routes name it as they name a neighbour: all neighbours of the
    /// range are told.
    ///
    /// # Errors
    /// A name that is taken, a prefix that another range has, and an instance that does not listen.
    pub fn add_range(&mut self, name: PeerName, range: ListenRange) -> Result<(), ConfigError> {
        if self.peers.contains_key(&name) || self.ranges.contains_key(&name) {
            return Err(ConfigError::DuplicateName(name));
        }
        if self.listen.is_none() {
            return Err(ConfigError::RangeWithoutListening(name.into()));
        }
        let same = |(_, other): &(&PeerName, &ListenRange)| other.prefix() == range.prefix();
        if let Some((first, _)) = self.ranges.iter().find(same) {
            return Err(ConfigError::DuplicateRange {
                first: first.clone().into(),
                second: name.into(),
                prefix: range.prefix(),
            });
        }
        self.ranges.insert(name, range);
        Ok(())
    }

    /// The listen ranges.
    pub fn ranges(&self) -> &BTreeMap<PeerName, ListenRange> {
        &self.ranges
    }

    /// The range an address is in, the most specific one.
    pub fn range_of(&self, ip: IpAddr) -> Option<(&PeerName, &ListenRange)> {
        self.ranges
            .iter()
            .filter(|(_, range)| range.prefix().contains(&ip))
            .max_by_key(|(_, range)| range.prefix().prefix_len())
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

/// The default of settings that recordings of earlier versions do not have.
fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests;
