// SPDX-License-Identifier: Apache-2.0
//! `causeway bgp`.

mod policy;

use clap::{Args, Subcommand};

pub use policy::{PolicyCommand, PolicyTestArgs};

/// The verbs of `bgp`.
#[derive(Debug, Subcommand)]
pub enum BgpCommand {
    /// Every session in a line per family
    #[command(
        visible_alias = "ls",
        before_help = "Examples:
  causeway bgp peers
  causeway bgp peers -o wide
  causeway bgp peers -o jsonpath='{.items[?@.session-state != \"established\"].name}'"
    )]
    Peers(PeerArgs),
    /// Routes: available, received, advertised or filtered
    #[command(before_help = "Examples:
  causeway bgp routes                                  available, ipv4 unicast
  causeway bgp routes advertised ipv6 unicast peer tor-a
  causeway bgp routes received peer 10.0.0.1 10.1.0.0/16 longer
  causeway bgp routes for 10.1.2.3                     the longest match
  causeway bgp routes filtered peer tor-b              refused by the import policy")]
    Routes(RoutesArgs),
    /// Why a prefix is routed and announced as it is: each route against the best one, each peer
    #[command(
        alias = "why",
        before_help = "Examples:
  causeway bgp explain 10.1.0.0/16
  causeway bgp explain 10.1.2.3                        the longest match
  causeway bgp explain 10.1.0.0/16 tor-a               only what tor-a sent and is sent
  causeway bgp explain 65000:1 10.1.0.0/16             of a VPN, by its route distinguisher
  causeway bgp explain 10.1.0.0/16 -o json"
    )]
    Explain(ExplainArgs),
    /// One session in full: why it is down, timers, capabilities, counters, history
    #[command(
        alias = "describe",
        before_help = "Examples:
  causeway bgp neighbor tor-a
  causeway bgp neighbor 10.0.0.1 -o yaml"
    )]
    Neighbor(NeighborArgs),
    /// Ask a peer for its routes again, without ending the session
    #[command(before_help = "Examples:
  causeway bgp refresh tor-a")]
    Refresh(RefreshArgs),
    /// End a session and start it again
    #[command(before_help = "Examples:
  causeway bgp reset tor-a --yes")]
    Reset(ResetArgs),
    /// Try a route on a routing policy
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Read BGP messages from hexadecimal digits, a file or standard input; needs no daemon
    #[command(before_help = "Examples:
  causeway bgp decode ffffffffffffffffffffffffffffffff001304
  causeway bgp decode captured.bin -o json
  xxd -p captured.bin | causeway bgp decode -")]
    Decode(DecodeArgs),
}

/// Options of `bgp peers`.
#[derive(Debug, Args)]
pub struct PeerArgs {
    /// Only this instance
    #[arg(long)]
    pub instance: Option<String>,
}

/// Options of `bgp neighbor`.
#[derive(Debug, Args)]
pub struct NeighborArgs {
    /// The peer: its name, instance/name, or address
    pub peer: String,
}

/// Options of `bgp routes`.
#[derive(Debug, Args)]
pub struct RoutesArgs {
    /// [available|received|advertised|filtered] [afi safi] [instance NAME] [peer PEER]
    /// [PREFIX [longer] | for ADDRESS]
    #[arg(value_name = "WORDS")]
    pub words: Vec<String>,
    /// Show at most so many routes; 0 for all
    #[arg(long, default_value_t = 100_000)]
    pub limit: u64,
}

/// Options of `bgp explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// [RD] PREFIX [PEER]: a prefix, or an address for its longest match; before it the route
    /// distinguisher of a VPN; after it the only peer of interest by its name, instance/name, or
    /// address
    #[arg(value_name = "WORDS", required = true, num_args = 1..=3)]
    pub words: Vec<String>,
    /// The route distinguisher of a VPN
    #[arg(long, value_name = "RD")]
    pub rd: Option<String>,
    /// Only this instance
    #[arg(long)]
    pub instance: Option<String>,
}

/// Options of `bgp refresh`.
#[derive(Debug, Args)]
pub struct RefreshArgs {
    /// The peer: its name, instance/name, or address
    pub peer: String,
}

/// Options of `bgp reset`.
#[derive(Debug, Args)]
pub struct ResetArgs {
    /// The peer: its name, instance/name, or address
    pub peer: String,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// Options of `bgp decode`.
#[derive(Debug, Args)]
pub struct DecodeArgs {
    /// Hexadecimal digits, the name of a file, or - for standard input
    #[arg(required = true)]
    pub input: Vec<String>,
}
