// SPDX-License-Identifier: Apache-2.0
//! The kinds users write, one file each, with the field names, defaults, ranges and rules of the
//! upstream custom resources.
//!
//! The structs carry their JSON schema ([`schemars`]); the schema is both what the CRD files say
//! and what files are checked against, so the two cannot differ. What a schema cannot say (rules
//! between fields) is in `rules.rs` and, in the CEL language, beside the struct.

mod advertisement;
mod bfd_profile;
mod bgp_policy;
mod causeway_egress;
mod causeway_instance;
mod causeway_session;
mod cluster_config;
mod egress_policy;
mod kubernetes;
mod node_config;
mod node_config_override;
mod peer_config;

pub use advertisement::{
    Advertisement, AdvertisementSpec, AdvertisementType, Attributes, Communities, InterfaceOptions,
    ServiceAddressType, ServiceOptions, WellKnownCommunity,
};
pub use bfd_profile::{BfdAuthType, BfdAuthentication, BfdEcho, BfdProfileSpec};
pub use bgp_policy::{
    AsnRange, ExtendedChange, LargeChange, PolicyAction, PolicyCommunities, PolicyCommunityMatch,
    PolicyCommunityPatterns, PolicyDefault, PolicyFamily, PolicyMatch, PolicyMed, PolicyNextHop,
    PolicyNextHopMode, PolicyNumbers, PolicyOrigin, PolicyPrefix, PolicyPrepend, PolicySet,
    PolicySource, PolicySpec, PolicyStatement, StandardChange,
};
pub use causeway_egress::{
    AddressPool, CausewayEgressGateway, EgressAnnounce, EgressBgp, EgressConnections, EgressHealth,
    EgressMode, EgressPolicySpec, EgressPolicyStatus, EgressProbe, EgressTimeouts,
    MAX_POOL_ADDRESSES, PoolAssignment, ProbeProtocol, ServedPort, ServedProtocol, SourcePorts,
    ZonePreference,
};
pub use causeway_instance::{
    AggregateRoute, CausewayInstance, CausewayPeer, ListenRange, Shutdown,
};
pub use causeway_session::{
    AddPath, Capabilities, CausewayFamily, CausewayGracefulRestart, CausewaySession, Export,
    ExportNextHop, Import, ImportMode, ImportPrefix, LocalAs, ObjectRef, OnMaxRoutes, PrivateAs,
    RoleName, SessionRole, TtlSecurity,
};
pub use cluster_config::{
    AddressFamily, AutoDiscovery, AutoDiscoveryMode, BgpInstance, BgpPeer, BmpServer,
    ClusterConfigSpec, DefaultGateway, MonitoringPolicy, PeerConfigRef, Unnumbered,
};
pub use egress_policy::{CiliumEgressPolicySpec, EgressGateway, EgressSelector};
pub use kubernetes::{
    Namespace, Node, NodeAddress, NodeSpec, NodeStatus, Pod, PodIp, PodSpec, PodStatus, Secret,
    Taint,
};
pub use node_config::{
    NodeConfigInstance, NodeConfigPeer, NodeConfigSpec, NodeConfigStatus, NodeInstanceStatus,
    NodePeerStatus, NodePeerTimers, PeeringState, RouteCount,
};
pub use node_config_override::{NodeConfigOverrideSpec, OverrideInstance, OverridePeer};
pub use peer_config::{Afi, Family, GracefulRestart, PeerConfigSpec, Safi, Timers, Transport};
