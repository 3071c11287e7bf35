// SPDX-License-Identifier: Apache-2.0
//! `CiliumBGPAdvertisement`: what is advertised, and with which attributes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pattern;
use crate::selector::LabelSelector;

/// A list of things to advertise. Peers select the object by its labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdvertisementSpec {
    /// The advertisements.
    pub advertisements: Vec<Advertisement>,
}

/// One thing to advertise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.advertisementType != 'PodCIDR' || !has(self.selector)",
        "message": "selector is not allowed for advertisementType PodCIDR"
    },
    {
        "rule": "(self.advertisementType == 'Service') == has(self.service)",
        "message": "service is required for advertisementType Service and not allowed for others"
    },
    {
        "rule": "(self.advertisementType == 'Interface') == has(self.interface)",
        "message": "interface is required for advertisementType Interface and not allowed for others"
    }
]))]
pub struct Advertisement {
    /// What kind of prefix is advertised.
    pub advertisement_type: AdvertisementType,
    /// Settings of type `Service`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceOptions>,
    /// Settings of type `Interface`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<InterfaceOptions>,
    /// Which services or pools, by their labels. Absent: none. Not allowed for `PodCIDR`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// Path attributes of the advertised routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Attributes>,
}

/// What kind of prefix is advertised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AdvertisementType {
    /// The pod prefixes of the node.
    #[serde(rename = "PodCIDR")]
    PodCidr,
    /// The prefixes a node holds of a CiliumPodIPPool.
    #[serde(rename = "CiliumPodIPPool")]
    CiliumPodIpPool,
    /// Addresses of services.
    Service,
    /// Addresses of a network interface.
    Interface,
}

impl AdvertisementType {
    /// The name as manifests write it.
    pub fn as_str(self) -> &'static str {
        match self {
            AdvertisementType::PodCidr => "PodCIDR",
            AdvertisementType::CiliumPodIpPool => "CiliumPodIPPool",
            AdvertisementType::Service => "Service",
            AdvertisementType::Interface => "Interface",
        }
    }
}

/// Settings of a `Service` advertisement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceOptions {
    /// Which of a service's addresses are advertised.
    #[schemars(length(min = 1))]
    pub addresses: Vec<ServiceAddressType>,
    /// Advertise a covering IPv4 prefix of this length instead of host routes.
    #[serde(
        rename = "aggregationLengthIPv4",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 0, max = 31))]
    pub aggregation_length_ipv4: Option<i32>,
    /// Advertise a covering IPv6 prefix of this length instead of host routes.
    #[serde(
        rename = "aggregationLengthIPv6",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 0, max = 127))]
    pub aggregation_length_ipv6: Option<i32>,
}

/// Which of a service's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceAddressType {
    /// The addresses of a load balancer.
    #[serde(rename = "LoadBalancerIP")]
    LoadBalancerIp,
    /// The cluster's own addresses of the service.
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    /// The addresses listed in `externalIPs`.
    #[serde(rename = "ExternalIP")]
    ExternalIp,
}

/// Settings of an `Interface` advertisement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InterfaceOptions {
    /// The name of the interface whose addresses are advertised as host routes.
    #[schemars(length(min = 1))]
    pub name: String,
}

/// Path attributes of advertised routes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attributes {
    /// Communities to attach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub communities: Option<Communities>,
    /// LOCAL_PREF (RFC 4271 §5.1.5). Sent to internal peers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub local_preference: Option<i64>,
}

/// Communities in their three notations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Communities {
    /// RFC 1997: two 16-bit numbers, `65000:100`, or one of 32 bits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(regex(pattern = pattern::standard_community())))]
    pub standard: Vec<String>,
    /// RFC 1997 and successors, by the name in the IANA registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub well_known: Vec<WellKnownCommunity>,
    /// RFC 8092: three 32-bit numbers, `65000:1:2`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(regex(pattern = pattern::large_community())))]
    pub large: Vec<String>,
}

/// A community of the IANA registry by its name.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
#[expect(
    missing_docs,
    reason = "the registry's names; the numbers are in `value`"
)]
pub enum WellKnownCommunity {
    Internet,
    PlannedShut,
    AcceptOwn,
    RouteFilterTranslatedV4,
    RouteFilterV4,
    RouteFilterTranslatedV6,
    RouteFilterV6,
    LlgrStale,
    NoLlgr,
    Blackhole,
    NoExport,
    NoAdvertise,
    NoExportSubconfed,
    NoPeer,
}

impl WellKnownCommunity {
    /// All of them.
    pub const ALL: [WellKnownCommunity; 14] = [
        WellKnownCommunity::Internet,
        WellKnownCommunity::PlannedShut,
        WellKnownCommunity::AcceptOwn,
        WellKnownCommunity::RouteFilterTranslatedV4,
        WellKnownCommunity::RouteFilterV4,
        WellKnownCommunity::RouteFilterTranslatedV6,
        WellKnownCommunity::RouteFilterV6,
        WellKnownCommunity::LlgrStale,
        WellKnownCommunity::NoLlgr,
        WellKnownCommunity::Blackhole,
        WellKnownCommunity::NoExport,
        WellKnownCommunity::NoAdvertise,
        WellKnownCommunity::NoExportSubconfed,
        WellKnownCommunity::NoPeer,
    ];

    /// The name as manifests write it.
    pub fn name(self) -> &'static str {
        match self {
            WellKnownCommunity::Internet => "internet",
            WellKnownCommunity::PlannedShut => "planned-shut",
            WellKnownCommunity::AcceptOwn => "accept-own",
            WellKnownCommunity::RouteFilterTranslatedV4 => "route-filter-translated-v4",
            WellKnownCommunity::RouteFilterV4 => "route-filter-v4",
            WellKnownCommunity::RouteFilterTranslatedV6 => "route-filter-translated-v6",
            WellKnownCommunity::RouteFilterV6 => "route-filter-v6",
            WellKnownCommunity::LlgrStale => "llgr-stale",
            WellKnownCommunity::NoLlgr => "no-llgr",
            WellKnownCommunity::Blackhole => "blackhole",
            WellKnownCommunity::NoExport => "no-export",
            WellKnownCommunity::NoAdvertise => "no-advertise",
            WellKnownCommunity::NoExportSubconfed => "no-export-subconfed",
            WellKnownCommunity::NoPeer => "no-peer",
        }
    }

    /// The number on the wire.
    pub fn value(self) -> u32 {
        const RESERVED: u32 = 0xffff_0000;
        match self {
            WellKnownCommunity::Internet => 0,
            WellKnownCommunity::PlannedShut => RESERVED,
            WellKnownCommunity::AcceptOwn => RESERVED | 1,
            WellKnownCommunity::RouteFilterTranslatedV4 => RESERVED | 2,
            WellKnownCommunity::RouteFilterV4 => RESERVED | 3,
            WellKnownCommunity::RouteFilterTranslatedV6 => RESERVED | 4,
            WellKnownCommunity::RouteFilterV6 => RESERVED | 5,
            WellKnownCommunity::LlgrStale => RESERVED | 6,
            WellKnownCommunity::NoLlgr => RESERVED | 7,
            WellKnownCommunity::Blackhole => RESERVED | 666,
            WellKnownCommunity::NoExport => RESERVED | 65281,
            WellKnownCommunity::NoAdvertise => RESERVED | 65282,
            WellKnownCommunity::NoExportSubconfed => RESERVED | 65283,
            WellKnownCommunity::NoPeer => RESERVED | 65284,
        }
    }
}
