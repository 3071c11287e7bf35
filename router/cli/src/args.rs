// SPDX-License-Identifier: Apache-2.0
//! The grammar of the command line: a noun, then a verb. Any unique beginning of a word will do.

mod bfd;
mod bgp;
mod egress;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

pub use bfd::BfdCommand;
pub use bgp::{
    BgpCommand, DecodeArgs, ExplainArgs, NeighborArgs, PeerArgs, PolicyCommand, PolicyTestArgs,
    RefreshArgs, ResetArgs, RoutesArgs,
};
pub use egress::{EgressCommand, FlowProtocol, NatArgs, TraceArgs};

use crate::exit::EXIT_CODES;
use crate::output::{ColorChoice, Format};

/// Show and steer causewayd: sessions, routes, pods and the data plane of this node.
#[derive(Debug, Parser)]
#[command(
    name = "causeway",
    version,
    about,
    long_about = None,
    infer_subcommands = true,
    subcommand_required = true,
    arg_required_else_help = true,
    before_help = "Examples:
  causeway status                         one look at everything
  causeway bgp peers                      sessions, and why one is down
  causeway bgp routes received peer tor-a what a peer sent
  causeway bgp explain 10.1.0.0/16        why a prefix is routed and announced as it is
  causeway fib explain 10.1.2.3           where a packet goes, and why
  causeway egress explain web-0 192.0.2.1 by which gateway a pod leaves, and why
  causeway config check resources.d/      find mistakes before the daemon does",
    after_help = EXIT_CODES,
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub struct Global {
    /// Format: table, wide, json, yaml, jsonpath=<path> or name
    #[arg(
        short,
        long,
        global = true,
        default_value = "table",
        value_name = "FORMAT",
        help_heading = "Output",
        hide_default_value = true
    )]
    pub output: Format,
    /// Leave out the headings of tables
    #[arg(long, global = true, help_heading = "Output")]
    pub no_headers: bool,
    /// Sort by the column of this title
    #[arg(long, global = true, value_name = "COLUMN", help_heading = "Output")]
    pub sort_by: Option<String>,
    /// Show again and again, each time after this long (2s unless given)
    #[arg(short, long, global = true, value_name = "INTERVAL", num_args = 0..=1,
          default_missing_value = "2s", require_equals = true, value_parser = duration,
          help_heading = "Output")]
    pub watch: Option<Duration>,
    /// When to colour; NO_COLOR and CLICOLOR_FORCE are heeded
    #[arg(
        long,
        global = true,
        default_value = "auto",
        value_name = "WHEN",
        help_heading = "Output",
        hide_default_value = true
    )]
    pub color: ColorChoice,
    /// The daemon's socket
    #[arg(long, global = true, env = "CAUSEWAY_SOCKET", default_value = router_api::DEFAULT_SOCKET,
          value_name = "PATH", help_heading = "Daemon")]
    pub socket: PathBuf,
    /// How long to wait for an answer
    #[arg(long, global = true, default_value = "10s", value_parser = duration,
          value_name = "DURATION", help_heading = "Daemon")]
    pub timeout: Duration,
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Health of the node: every component, and what is wrong
    #[command(before_help = "Examples:
  causeway status
  causeway status --wait --wait-duration 5m     until everything is up
  causeway status -o jsonpath={.health}")]
    Status(StatusArgs),
    /// Sessions and routes of the BGP speaker
    #[command(
        subcommand,
        infer_subcommands = true,
        before_help = "Examples:
  causeway bgp peers
  causeway bgp neighbor tor-a
  causeway bgp routes advertised peer tor-a"
    )]
    Bgp(BgpCommand),
    /// Sessions that find failures of the paths to peers
    #[command(
        subcommand,
        infer_subcommands = true,
        before_help = "Examples:
  causeway bfd sessions
  causeway bfd session 10.0.0.1
  causeway bfd sessions -o json"
    )]
    Bfd(BfdCommand),
    /// Gateways by which pods leave the cluster: policies, ways and connections
    #[command(
        subcommand,
        infer_subcommands = true,
        before_help = "Examples:
  causeway egress list
  causeway egress policies
  causeway egress nat --pod shop/web-0
  causeway egress explain shop/web-0 203.0.113.9
  causeway egress trace shop/web-0 203.0.113.9 --protocol tcp"
    )]
    Egress(EgressCommand),
    /// What was written for this node, and what came of it
    #[command(
        visible_alias = "resource",
        before_help = "Examples:
  causeway resources
  causeway resources get tor-peers
  causeway resources get CiliumBGPPeerConfig/tor-peers -o yaml"
    )]
    Resources(ResourcesArgs),
    /// Pods of this node, their interfaces and addresses
    #[command(
        visible_alias = "pod",
        before_help = "Examples:
  causeway pods
  causeway pods -o wide --sort-by addresses
  causeway pods pools"
    )]
    Pods(PodsArgs),
    /// Routes written to the kernel
    #[command(
        visible_alias = "route",
        before_help = "Examples:
  causeway fib
  causeway fib explain 10.1.2.3
  causeway fib explain 0.0.0.0/0"
    )]
    Fib(FibArgs),
    /// eBPF programs, maps, traffic and drops
    #[command(
        visible_alias = "dp",
        before_help = "Examples:
  causeway datapath
  causeway datapath drops
  causeway datapath endpoints --watch"
    )]
    Datapath(DatapathArgs),
    /// Settings of this node, and a check of files without the daemon
    #[command(
        subcommand,
        infer_subcommands = true,
        before_help = "Examples:
  causeway config check /etc/causeway/resources.d
  causeway config diff new-resources.d/
  causeway config show --origin"
    )]
    Config(ConfigCommand),
    /// What an error code means and what to do
    #[command(before_help = "Examples:
  causeway explain CW0202
  causeway explain            all codes")]
    Explain {
        /// The code
        code: Option<String>,
    },
    /// Take the node out of service: GRACEFUL_SHUTDOWN, a wait, then nothing is announced
    #[command(before_help = "Examples:
  causeway drain                                   and come back when it is done
  causeway drain --wait 2m --reason 'new disks'
  causeway drain --detach                          and come back at once
  causeway undrain")]
    Drain(DrainArgs),
    /// Put the node back into service
    #[command(before_help = "Examples:
  causeway undrain")]
    Undrain,
    /// Versions of this command and of the daemon
    Version,
    /// Completions for a shell, on standard output
    #[command(before_help = "Examples:
  causeway completion bash > /etc/bash_completion.d/causeway
  causeway completion zsh > ~/.zfunc/_causeway")]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Man pages, one for each command, into a directory
    #[command(before_help = "Examples:
  causeway man /usr/local/share/man/man1")]
    Man {
        /// The directory; it is made when it is not there
        directory: PathBuf,
    },
}

/// Options of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Wait until the node is healthy
    #[arg(long)]
    pub wait: bool,
    /// How long to wait at most
    #[arg(long, default_value = "5m", value_parser = duration, value_name = "DURATION")]
    pub wait_duration: Duration,
    /// Take a node with warnings for healthy
    #[arg(long)]
    pub ignore_warnings: bool,
}

/// Options of `drain`.
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// For how long GRACEFUL_SHUTDOWN is announced before routes are withdrawn
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "DURATION")]
    pub wait: Duration,
    /// Why, for whoever looks at the node meanwhile
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Do not wait until it is done
    #[arg(long)]
    pub detach: bool,
}

/// Options of `resources`.
#[derive(Debug, Args)]
pub struct ResourcesArgs {
    /// Only this kind
    #[arg(long)]
    pub kind: Option<String>,
    /// Only this namespace
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// What to show; the list unless given
    #[command(subcommand)]
    pub verb: Option<ResourcesVerb>,
}

/// The verbs of `resources`.
#[derive(Debug, Subcommand)]
pub enum ResourcesVerb {
    /// All of them
    #[command(alias = "ls")]
    List,
    /// One of them: its content, where it stands and its conditions
    #[command(alias = "describe", alias = "show")]
    Get {
        /// Its name, or kind/name, or kind/namespace/name
        name: String,
    },
}

/// Options of `pods`.
#[derive(Debug, Args)]
pub struct PodsArgs {
    /// Only this namespace
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// What to show; the pods unless given
    #[command(subcommand)]
    pub verb: Option<PodsVerb>,
}

/// The verbs of `pods`.
#[derive(Debug, Subcommand)]
pub enum PodsVerb {
    /// The pods
    #[command(alias = "ls")]
    List,
    /// The address pools and how full they are
    Pools,
}

/// Options of `fib`.
#[derive(Debug, Args)]
pub struct FibArgs {
    /// Only this kernel table
    #[arg(long, global = true)]
    pub table: Option<u32>,
    /// Only this family: ipv4 or ipv6
    #[arg(long, value_parser = ["ipv4", "ipv6"])]
    pub family: Option<String>,
    /// Show at most so many routes; 0 for all
    #[arg(long, default_value_t = 100_000)]
    pub limit: u64,
    /// What to show; the list unless given
    #[command(subcommand)]
    pub verb: Option<FibVerb>,
}

/// The verbs of `fib`.
#[derive(Debug, Subcommand)]
pub enum FibVerb {
    /// All routes
    #[command(alias = "ls")]
    List,
    /// The candidates for a destination, and why one is used
    Explain {
        /// A prefix, or an address
        destination: String,
    },
}

/// Options of `datapath`.
#[derive(Debug, Args)]
pub struct DatapathArgs {
    /// What to show; hooks and maps in short unless given
    #[command(subcommand)]
    pub verb: Option<DatapathVerb>,
}

/// The verbs of `datapath`.
#[derive(Debug, Subcommand)]
pub enum DatapathVerb {
    /// Hooks, programs and maps in short
    Show,
    /// Refused packets by reason
    Drops,
    /// Traffic of each pod
    Endpoints,
    /// Maps and how full they are
    Maps,
    /// Where programs are attached
    Hooks,
}

/// The verbs of `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Read files as the daemon would, and show every mistake
    #[command(before_help = "Examples:
  causeway config check /etc/causeway/resources.d
  causeway config check /etc/causeway/causeway.yaml    node settings, by the name of the file
  causeway config check peers.yaml -o json")]
    Check {
        /// Files and directories
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// What other resources would do to the sessions that are up; changes nothing
    #[command(before_help = "Examples:
  causeway config diff new-resources.d/      in place of everything that is there
  causeway config diff peers.yaml            in place of the file of that name
  causeway config diff peers.yaml -o json")]
    Diff {
        /// A directory, or files
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// The settings in force
    #[command(before_help = "Examples:
  causeway config show
  causeway config show --origin       and where each value comes from
  causeway config show --default      the commented default file")]
    Show {
        /// Where each value comes from
        #[arg(long)]
        origin: bool,
        /// The commented default file instead; needs no daemon
        #[arg(long, conflicts_with = "origin")]
        default: bool,
    },
}

/// Reads `500ms`, `2s`, `5m`, `1h`, or seconds without a unit.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let expected = || "expected a number and ms, s, m or h, such as 500ms or 5m".to_owned();
    let number: f64 = digits.parse().map_err(|_| expected())?;
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(expected()),
    };
    match Duration::try_from_secs_f64(number * unit) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("expected more than zero".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        for wrong in ["", "m", "5x", "-1s", "0s", "nans"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn unique_beginnings_and_watch_without_a_value_are_understood() {
        let cli = Cli::parse_from(["causeway", "bg", "peers", "-w"]);
        assert!(matches!(cli.command, Command::Bgp(BgpCommand::Peers(_))));
        assert_eq!(cli.global.watch, Some(Duration::from_secs(2)));
    }
}
