// SPDX-License-Identifier: Apache-2.0
//! `causeway bgp policy`.

use std::net::IpAddr;
use std::path::PathBuf;

use bgp_core::policy::{AnyCommunity, CommunityKind, Origin, RouteOrigin};
use bgp_wire::AsPath;
use clap::{Args, Subcommand};
use ipnet::IpNet;

/// The verbs of `bgp policy`.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Follow a route through a policy: each statement's verdict, and what becomes of the route
    #[command(before_help = "Examples:
  causeway bgp policy test from-fabric --route 10.1.0.0/16 --as-path '65001 65002'
  causeway bgp policy test from-fabric -f policy.yaml --route 0.0.0.0/0 --communities 65000:1,no-export
  causeway bgp policy test to-fabric --route 10.244.1.0/24 --source PodCIDR --local-asn 65010

The exit code is 0 when the policy accepts the route and 1 when it rejects it.")]
    Test(PolicyTestArgs),
}

/// Options of `bgp policy test`.
#[derive(Debug, Args)]
pub struct PolicyTestArgs {
    /// The BGPPolicy
    pub policy: String,
    /// Read the policy from these files or directories instead of asking the daemon
    #[arg(short, long, value_name = "FILE")]
    pub file: Vec<PathBuf>,
    /// The destination of the route
    #[arg(long, value_name = "PREFIX", value_parser = route)]
    pub route: IpNet,
    /// Its AS path, nearest AS first: '65001 65002 {65003,65004}'
    #[arg(
        long,
        value_name = "ASNS",
        default_value = "",
        hide_default_value = true
    )]
    pub as_path: AsPath,
    /// Its communities of any kind: 65000:1, no-export, 65000:1:2, rt:65000:1
    #[arg(long, value_delimiter = ',', value_parser = community, value_name = "COMMUNITIES")]
    pub communities: Vec<AnyCommunity>,
    /// Its next hop
    #[arg(long, value_name = "ADDRESS")]
    pub next_hop: Option<IpAddr>,
    /// Its MULTI_EXIT_DISC
    #[arg(long)]
    pub med: Option<u32>,
    /// Its LOCAL_PREF
    #[arg(long)]
    pub local_preference: Option<u32>,
    /// Its ORIGIN: igp, egp or incomplete
    #[arg(long, value_parser = origin, default_value = "igp")]
    pub origin: Origin,
    /// Where it comes from: EBGP, IBGP, PodCIDR, CiliumPodIPPool, Service, Interface, Aggregate
    #[arg(long, value_parser = source, default_value = "EBGP")]
    pub source: RouteOrigin,
    /// The peer it was learned from
    #[arg(long)]
    pub peer: Option<String>,
    /// The AS of the peer the policy is used for; the first of the AS path unless given
    #[arg(long, value_name = "ASN")]
    pub peer_asn: Option<u32>,
    /// The node's own AS, for what is prepended
    #[arg(
        long,
        value_name = "ASN",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub local_asn: u32,
}

fn route(text: &str) -> Result<IpNet, String> {
    let prefix: IpNet = text
        .parse()
        .map_err(|_| "expected a prefix such as 10.1.0.0/16 or 2001:db8::/32".to_owned())?;
    if prefix.trunc() == prefix {
        Ok(prefix)
    } else {
        Err(format!(
            "it has host bits set; did you mean {}?",
            prefix.trunc()
        ))
    }
}

/// A community of any kind, told by its form.
fn community(text: &str) -> Result<AnyCommunity, String> {
    let is_extended = ["rt:", "soo:", "0x"].iter().any(|p| text.starts_with(p));
    let kind = match text.matches(':').count() {
        _ if is_extended => CommunityKind::Extended,
        2 => CommunityKind::Large,
        _ => CommunityKind::Standard,
    };
    AnyCommunity::parse(kind, text.trim()).map_err(|error| error.to_string())
}

fn origin(text: &str) -> Result<Origin, String> {
    let all = [Origin::Igp, Origin::Egp, Origin::Incomplete];
    let found = all.into_iter().find(|origin| origin.to_string() == text);
    found.ok_or_else(|| "expected igp, egp or incomplete".to_owned())
}

fn source(text: &str) -> Result<RouteOrigin, String> {
    let known = |(_, name): &&(RouteOrigin, &str)| name.eq_ignore_ascii_case(text);
    let found = RouteOrigin::NAMES.iter().find(known);
    found.map(|(source, _)| *source).ok_or_else(|| {
        let names = RouteOrigin::NAMES.map(|(_, name)| name);
        format!("expected one of {}", names.join(", "))
    })
}
