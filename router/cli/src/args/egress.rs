// SPDX-License-Identifier: Apache-2.0
//! The verbs of `egress`.

use std::net::IpAddr;

use clap::{Args, Subcommand, ValueEnum};

/// The verbs of `egress`.
#[derive(Debug, Subcommand)]
pub enum EgressCommand {
    /// Where what the pods of this node send goes: destination, gateway and address
    #[command(
        visible_alias = "ls",
        before_help = "Examples:
  causeway egress list
  causeway egress list -o wide
  causeway egress list --sort-by 'egress ip'"
    )]
    List,
    /// Policies: pods they select here, their gateways, addresses and findings
    #[command(
        alias = "policy",
        alias = "get",
        before_help = "Examples:
  causeway egress policies
  causeway egress policies web
  causeway egress policies EgressGatewayPolicy/web -o yaml"
    )]
    Policies {
        /// Only the policy of this name, or kind/name
        policy: Option<String>,
    },
    /// What this node is the gateway of: addresses, connections and traffic
    #[command(before_help = "Examples:
  causeway egress rules
  causeway egress rules -o wide --watch")]
    Rules,
    /// The other gateways: whether they are heard, and whose connections are copied where
    #[command(before_help = "Examples:
  causeway egress gateways
  causeway egress gateways -o wide --watch")]
    Gateways,
    /// Connections this node is the gateway of
    #[command(
        alias = "mappings",
        before_help = "Examples:
  causeway egress nat
  causeway egress nat --pod shop/web-0 --protocol tcp
  causeway egress nat --egress-ip 198.51.100.7 --remote 203.0.113.0/24
  causeway egress nat --limit 0 -o json"
    )]
    Nat(NatArgs),
    /// Why what a pod of this node sends to an address goes where it goes
    #[command(
        alias = "why",
        alias = "describe",
        before_help = "Examples:
  causeway egress explain shop/web-0 203.0.113.9
  causeway egress explain 10.1.0.2 203.0.113.9
  causeway egress explain shop/web-0 203.0.113.9 -o json",
        after_help = "The exit code is 1 when the packets are dropped."
    )]
    Explain {
        /// The pod, as namespace/name or name, or its address
        pod: String,
        /// The address it sends to
        destination: IpAddr,
    },
    /// One flow, followed through this node: the decision, what is noted of it, and its mapping
    #[command(
        alias = "follow",
        before_help = "Examples:
  causeway egress trace shop/web-0 203.0.113.9
  causeway egress trace shop/web-0 203.0.113.9 --protocol tcp --port 443
  causeway egress trace 10.1.0.2 203.0.113.9      on the gateway, which knows pods by address",
        after_help = "The exit code is 1 when what begins now is dropped."
    )]
    Trace(TraceArgs),
}

/// Options of `egress trace`.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// The pod, as namespace/name or name, or its address
    pub pod: String,
    /// The address it sends to
    pub destination: IpAddr,
    /// Only this protocol
    #[arg(long)]
    pub protocol: Option<FlowProtocol>,
    /// Only this port of the destination
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Only this port of the pod
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub source_port: Option<u16>,
}

/// A protocol of flows.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum FlowProtocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// Echoes, of the destination's family
    Icmp,
}

impl FlowProtocol {
    /// As the daemon has it.
    pub fn name(self) -> &'static str {
        match self {
            FlowProtocol::Tcp => "tcp",
            FlowProtocol::Udp => "udp",
            FlowProtocol::Icmp => "icmp",
        }
    }
}

/// Options of `egress nat`.
#[derive(Debug, Args)]
pub struct NatArgs {
    /// Only this rule, by its number
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub rule: Option<u32>,
    /// Only this pod: its address, or its name if it is a pod of this node
    #[arg(long)]
    pub pod: Option<String>,
    /// Only this address or prefix of the world
    #[arg(long, value_name = "ADDRESS")]
    pub remote: Option<String>,
    /// Only this address of the gateway
    #[arg(long, value_name = "ADDRESS")]
    pub egress_ip: Option<IpAddr>,
    /// Only this protocol, by name or number
    #[arg(long)]
    pub protocol: Option<String>,
    /// Show at most so many; 0 for all
    #[arg(long, default_value_t = 1000)]
    pub limit: u64,
}
