// SPDX-License-Identifier: Apache-2.0
//! The settings as they are written, before texts become addresses and paths.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::store::RawStore;
use super::{DevicePattern, EgressSettings, EgressTransport, LogFormat, Settings, TunnelProtocol};
use crate::selector::is_dns_subdomain;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawSettings {
    pub(super) node_name: String,
    pub(super) node_addresses: Vec<String>,
    #[serde(rename = "podCIDRs")]
    pub(super) pod_cidrs: Vec<String>,
    pub(super) cluster: RawCluster,
    pub(super) devices: Vec<String>,
    #[schemars(length(min = 1))]
    pub(super) resources_directory: String,
    // 107 bytes and the final zero are what sockaddr_un holds (unix(7)).
    #[schemars(length(min = 1, max = 107))]
    pub(super) socket: String,
    #[schemars(length(min = 1))]
    pub(super) pin_root: String,
    #[schemars(length(min = 1))]
    pub(super) state_directory: String,
    pub(super) metrics_address: String,
    pub(super) log: RawLog,
    pub(super) bgp: RawBgp,
    pub(super) kernel: RawKernel,
    pub(super) egress: RawEgress,
    pub(super) store: RawStore,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawCluster {
    #[schemars(length(min = 1, max = 32))]
    pub(super) name: String,
    #[schemars(range(min = 0, max = 255))]
    pub(super) id: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawLog {
    #[schemars(length(min = 1))]
    pub(super) level: String,
    pub(super) format: RawLogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawLogFormat {
    Text,
    Json,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawBgp {
    #[schemars(length(min = 1))]
    pub(super) secrets_namespace: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawKernel {
    #[schemars(range(min = 1, max = 4_294_967_295_i64))]
    pub(super) table: i64,
    // 0 to 4 are the kernel's own (rtnetlink(7), RTPROT_STATIC is 4).
    #[schemars(range(min = 5, max = 255))]
    pub(super) protocol: i64,
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub(super) metric: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawEgress {
    pub(super) tunnel_protocol: RawTunnelProtocol,
    #[schemars(range(min = 0, max = 65535))]
    pub(super) tunnel_port: i64,
    pub(super) transport: RawEgressTransport,
    #[schemars(range(min = 0, max = 65465))]
    pub(super) pod_tunnel_mtu: i64,
    #[schemars(range(min = 1024, max = 8_388_608))]
    pub(super) max_mappings: i64,
    #[schemars(range(min = 1, max = 65535))]
    pub(super) peer_port: i64,
    pub(super) secret_file: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawTunnelProtocol {
    Vxlan,
    Geneve,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawEgressTransport {
    Tunnel,
    Either,
    Native,
}

impl Default for RawSettings {
    fn default() -> Self {
        RawSettings {
            node_name: String::new(),
            node_addresses: Vec::new(),
            pod_cidrs: Vec::new(),
            cluster: RawCluster::default(),
            devices: Vec::new(),
            resources_directory: "/etc/causeway/resources.d".into(),
            socket: "/run/causeway/causeway.sock".into(),
            pin_root: "/sys/fs/bpf/causeway".into(),
            state_directory: "/var/lib/causeway".into(),
            metrics_address: "127.0.0.1:9962".into(),
            log: RawLog::default(),
            bgp: RawBgp::default(),
            kernel: RawKernel::default(),
            egress: RawEgress::default(),
            store: RawStore::default(),
        }
    }
}

impl Default for RawCluster {
    fn default() -> Self {
        RawCluster {
            name: "default".into(),
            id: 0,
        }
    }
}

impl Default for RawLog {
    fn default() -> Self {
        RawLog {
            level: "info".into(),
            format: RawLogFormat::Text,
        }
    }
}

impl Default for RawBgp {
    fn default() -> Self {
        RawBgp {
            secrets_namespace: "kube-system".into(),
        }
    }
}

impl Default for RawKernel {
    fn default() -> Self {
        // 186 is RTPROT_BGP; 20 is the distance routers commonly give to external BGP.
        RawKernel {
            table: 254,
            protocol: 186,
            metric: 20,
        }
    }
}

impl Default for RawEgress {
    fn default() -> Self {
        // 4796 is arbitrary: close to VXLAN's, and in no list of services we know. 2^18 mappings are
        // what the maps of bpf-abi hold by default.
        RawEgress {
            tunnel_protocol: RawTunnelProtocol::Vxlan,
            tunnel_port: 0,
            transport: RawEgressTransport::Tunnel,
            pod_tunnel_mtu: 0,
            max_mappings: 262_144,
            peer_port: 4796,
            secret_file: String::new(),
        }
    }
}

/// VXLAN's UDP port (RFC 7348 §5).
const VXLAN_PORT: u16 = 4789;

/// Geneve's UDP port (RFC 8926 §3.3).
const GENEVE_PORT: u16 = 6081;

/// The smallest MTU IPv6 works with (RFC 8200 §5).
const SMALLEST_MTU: i64 = 1280;

/// A value that fits the schema and means nothing: the setting's path, what is wrong, what is
/// allowed.
pub(super) type Refusal = (String, String, &'static str);

impl RawSettings {
    /// Reads the texts. All refusals are reported.
    pub(super) fn read(&self, host_name: &str) -> Result<Settings, Vec<Refusal>> {
        let mut refusals: Vec<Refusal> = Vec::new();
        let mut refuse = |path: String, found: &str, allowed| {
            refusals.push((path, format!("'{found}' is not allowed"), allowed));
        };
        let node_name = if self.node_name.is_empty() {
            host_name.to_owned()
        } else {
            self.node_name.clone()
        };
        if !is_dns_subdomain(&node_name) {
            let allowed = "allowed: a host name in lower case, as in the Node object";
            refuse("nodeName".into(), &node_name, allowed);
        }
        let mut node_addresses = Vec::new();
        for (index, text) in self.node_addresses.iter().enumerate() {
            match text.parse() {
                Ok(address) => node_addresses.push(address),
                Err(_) => {
                    refuse(
                        format!("nodeAddresses[{index}]"),
                        text,
                        "allowed: an IP address",
                    );
                }
            }
        }
        let mut pod_cidrs: Vec<ipnet::IpNet> = Vec::new();
        for (index, text) in self.pod_cidrs.iter().enumerate() {
            match text.parse::<ipnet::IpNet>() {
                Ok(prefix) if prefix.trunc() == prefix => pod_cidrs.push(prefix),
                _ => {
                    let allowed = "allowed: a prefix with host bits zero such as 10.244.1.0/24";
                    refuse(format!("podCIDRs[{index}]"), text, allowed);
                }
            }
        }
        let name = &self.cluster.name;
        let is_name_char = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !name.chars().all(is_name_char) || name.starts_with('-') || name.ends_with('-') {
            let allowed = "allowed: lower-case letters, digits and '-', which is not at an end";
            refuse("cluster.name".into(), name, allowed);
        }
        let mut devices = Vec::new();
        for (index, text) in self.devices.iter().enumerate() {
            match DevicePattern::new(text) {
                Some(pattern) => devices.push(pattern),
                None => {
                    refuse(
                        format!("devices[{index}]"),
                        text,
                        "allowed: a device name or pattern",
                    );
                }
            }
        }
        for (path, text) in [
            ("resourcesDirectory", &self.resources_directory),
            ("socket", &self.socket),
            ("pinRoot", &self.pin_root),
            ("stateDirectory", &self.state_directory),
        ] {
            if !text.starts_with('/') {
                refuse(path.into(), text, "allowed: an absolute path");
            }
        }
        let metrics_address = match self.metrics_address.as_str() {
            "off" => None,
            text => match text.parse() {
                Ok(address) => Some(address),
                Err(_) => {
                    let allowed =
                        "allowed: an address and port such as 127.0.0.1:9962 or [::]:9962, or off";
                    refuse("metricsAddress".into(), text, allowed);
                    None
                }
            },
        };
        if !is_dns_subdomain(&self.bgp.secrets_namespace) {
            let allowed = "allowed: the name of a namespace";
            refuse(
                "bgp.secretsNamespace".into(),
                &self.bgp.secrets_namespace,
                allowed,
            );
        }
        let mtu = self.egress.pod_tunnel_mtu;
        if mtu != 0 && mtu < SMALLEST_MTU {
            let allowed = "allowed: 1280 to 65465, or 0 to go by the devices towards the fabric";
            refuse("egress.podTunnelMtu".into(), &mtu.to_string(), allowed);
        }
        let secret_file = &self.egress.secret_file;
        if !secret_file.is_empty() && !secret_file.starts_with('/') {
            // Not shown: somebody may have written the key itself.
            refusals.push((
                "egress.secretFile".into(),
                "the value is no path".into(),
                "allowed: an absolute path of the file with the key",
            ));
        }
        let store = self.store.read(&mut refusals);
        if !refusals.is_empty() {
            return Err(refusals);
        }
        let (tunnel_protocol, own_port) = match self.egress.tunnel_protocol {
            RawTunnelProtocol::Vxlan => (TunnelProtocol::Vxlan, VXLAN_PORT),
            RawTunnelProtocol::Geneve => (TunnelProtocol::Geneve, GENEVE_PORT),
        };
        // The schema has checked the ranges of the numbers.
        Ok(Settings {
            node_name,
            node_addresses,
            pod_cidrs,
            cluster_name: name.clone(),
            cluster_id: self.cluster.id as u8,
            devices,
            resources_directory: self.resources_directory.clone().into(),
            socket: self.socket.clone().into(),
            pin_root: self.pin_root.clone().into(),
            state_directory: self.state_directory.clone().into(),
            metrics_address,
            log_level: self.log.level.clone(),
            log_format: match self.log.format {
                RawLogFormat::Text => LogFormat::Text,
                RawLogFormat::Json => LogFormat::Json,
            },
            bgp_secrets_namespace: self.bgp.secrets_namespace.clone(),
            kernel_table: self.kernel.table as u32,
            kernel_protocol: self.kernel.protocol as u8,
            kernel_metric: self.kernel.metric as u32,
            egress: EgressSettings {
                tunnel_protocol,
                tunnel_port: match self.egress.tunnel_port {
                    0 => own_port,
                    port => port as u16,
                },
                transport: match self.egress.transport {
                    RawEgressTransport::Tunnel => EgressTransport::Tunnel,
                    RawEgressTransport::Either => EgressTransport::Either,
                    RawEgressTransport::Native => EgressTransport::Native,
                },
                pod_tunnel_mtu: (mtu != 0).then_some(mtu as u16),
                max_mappings: self.egress.max_mappings as u32,
                peer_port: self.egress.peer_port as u16,
                secret_file: (!secret_file.is_empty()).then(|| secret_file.into()),
            },
            store,
        })
    }
}
