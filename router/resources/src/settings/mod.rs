// SPDX-License-Identifier: Apache-2.0
//! The node's own settings, `causeway.yaml`.
//!
//! Every setting has a default, a place in the file, an environment variable and, where the
//! daemon has one, a flag; flag beats environment beats file beats default. [`Effective`] keeps for
//! each value where it came from. The file is read as strictly as resources are, with the same
//! findings.

mod layers;
mod raw;
mod store;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use crate::check::read_file;
use crate::diagnostic::{Code, Diagnostic};
use crate::store::FileContent;

pub use layers::{Effective, Inputs, Origin, Setting};
pub use store::{StoreSettings, StoreTls};

/// Where the file is unless a flag says otherwise.
pub const DEFAULT_PATH: &str = "/etc/causeway/causeway.yaml";

/// The commented default file.
pub const DEFAULT_FILE: &str = include_str!("causeway.yaml");

/// The settings of a node. Ranges and defaults are described in [`DEFAULT_FILE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The name of the node.
    pub node_name: String,
    /// The node's addresses; empty to take them from the Node object or the `lo`
    /// device.
    pub node_addresses: Vec<IpAddr>,
    /// The node's pod prefixes; empty to take them from the Node object.
    pub pod_cidrs: Vec<IpNet>,
    /// The name of the cluster.
    pub cluster_name: String,
    /// The number of the cluster, 0 to 255.
    pub cluster_id: u8,
    /// Names or patterns of the devices towards the fabric. Default: none, which means every device
    /// that is neither the loopback, nor a pod's, nor a port of another.
    pub devices: Vec<DevicePattern>,
    /// The directory resources are read from.
    pub resources_directory: PathBuf,
    /// The socket the daemon serves.
    pub socket: PathBuf,
    /// The folder of pinned eBPF objects.
    pub pin_root: PathBuf,
    /// The folder of what must survive a reboot.
    pub state_directory: PathBuf,
    /// Where metrics are served; `None` for nowhere.
    pub metrics_address: Option<SocketAddr>,
    /// The log filter.
    pub log_level: String,
    /// The form of log lines.
    pub log_format: LogFormat,
    /// The namespace of BGP secrets.
    pub bgp_secrets_namespace: String,
    /// The kernel table of learned routes.
    pub kernel_table: u32,
    /// The protocol number of learned routes.
    pub kernel_protocol: u8,
    /// The metric of learned routes.
    pub kernel_metric: u32,
    /// The data plane of egress gateways.
    pub egress: EgressSettings,
    /// The etcd nodes agree by; none by default.
    pub store: Option<StoreSettings>,
}

/// What a node as an egress gateway, or with pods that use one, is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressSettings {
    /// What the tunnel speaks, the same on every node. Default: VXLAN.
    pub tunnel_protocol: TunnelProtocol,
    /// UDP port of the tunnel, the same on every node. Default: that of the protocol, 4789 (RFC 7348
    /// §5) or 6081 (RFC 8926 §3.3).
    pub tunnel_port: u16,
    /// Largest packet of a pod in the tunnel, in bytes, 1280 to 65465; `None` to go by the MTU of
    /// the devices towards the fabric and of the routes to other nodes, the default.
    pub pod_tunnel_mtu: Option<u16>,
    /// How packets get from pods' nodes to gateways. Default: the tunnel.
    pub transport: EgressTransport,
    /// Connections of each family at once, 1024 to 8388608. Default: 262144. Each costs kernel
    /// memory whether in use or not.
    pub max_mappings: u32,
    /// TCP port gateways tell each other of connections on, the same on every node. Default: 4796.
    pub peer_port: u16,
    /// The file with the key gateways prove themselves to each other with. Default: none.
    pub secret_file: Option<PathBuf>,
}

/// What the tunnel between pods' nodes and egress gateways speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelProtocol {
    /// RFC 7348.
    Vxlan,
    /// RFC 8926.
    Geneve,
}

/// How packets get from pods' nodes to egress gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EgressTransport {
    /// By the tunnel.
    Tunnel,
    /// By the tunnel, and what comes without it is taken: on the way from one to the other.
    Either,
    /// As they are, where the gateway is a neighbour and knows the pod; else by the tunnel.
    Native,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The name of a device, or a pattern in which `*` stands for any characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePattern(String);

impl DevicePattern {
    /// Takes a name or pattern of 1 to 64 characters without white space or `/`.
    pub fn new(text: &str) -> Option<Self> {
        let is_allowed = |c: char| !c.is_whitespace() && c != '/';
        let is_valid = (1..=64).contains(&text.len()) && text.chars().all(is_allowed);
        is_valid.then(|| DevicePattern(text.to_owned()))
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a device of this name is meant.
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else {
            return false;
        };
        let mut last = None;
        for part in parts {
            if let Some(between) = last.replace(part) {
                match rest.find(between) {
                    Some(at) => rest = &rest[at + between.len()..],
                    None => return false,
                }
            }
        }
        match last {
            None => rest.is_empty(),
            Some(end) => rest.ends_with(end),
        }
    }
}

impl Settings {
    /// Whether a device that is no pod's leads to the fabric. `is_internal`: it is the loopback, or
    /// a port of another device.
    #[must_use]
    pub fn is_fabric_device(&self, name: &str, is_internal: bool) -> bool {
        if self.devices.is_empty() {
            !is_internal
        } else {
            self.devices.iter().any(|pattern| pattern.matches(name))
        }
    }

    /// Reads the file, the environment and the host name of this process.
    ///
    /// `path` is the file a flag names, which must exist; without it [`DEFAULT_PATH`] is read where
    /// it exists. `flags` are setting paths and values as given on the command line.
    ///
    /// # Errors
    /// The findings, at least one of them an error.
    pub fn load(
        path: Option<&Path>,
        flags: Vec<(String, String)>,
    ) -> Result<Effective, Vec<Diagnostic>> {
        let file = path.unwrap_or(Path::new(DEFAULT_PATH));
        let content = match (read_file(file), path) {
            (FileContent::Bytes(bytes), _) => Some((file.to_path_buf(), bytes)),
            (FileContent::Removed, None) => None,
            (FileContent::Removed, Some(_)) => {
                let message = "the settings file does not exist";
                let mut finding = Diagnostic::about_file(file, Code::Unreadable, message);
                finding.help =
                    Some("`causeway config show --default` prints one to begin with".into());
                return Err(vec![finding]);
            }
            (FileContent::Unreadable(why), _) => {
                return Err(crate::parse::unreadable(file, &why).diagnostics);
            }
            (FileContent::TooLarge(size), _) => {
                return Err(crate::parse::too_large(file, size).diagnostics);
            }
        };
        // Variables that are not UTF-8 cannot be ours: names and values are plain text.
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host_name = host_name.trim().to_lowercase();
        Effective::resolve(Inputs {
            file: content,
            environment,
            flags,
            host_name,
        })
    }
}

#[cfg(test)]
mod tests;
