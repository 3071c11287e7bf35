// SPDX-License-Identifier: Apache-2.0
//! Commands that ask the daemon: `fetch` gets the answer, a pure `view` makes of it what is shown.

pub mod bfd;
pub mod bgp_actions;
pub mod bgp_explain;
pub mod bgp_neighbor;
pub mod bgp_peers;
pub mod bgp_policy;
pub mod bgp_routes;
pub mod config;
pub mod config_diff;
pub mod datapath;
pub mod drain;
pub mod egress;
pub mod egress_trace;
pub mod fib;
pub mod pods;
pub mod resources;
pub mod status;
pub mod version;

use router_api::Connection;

use crate::args::{BgpCommand, Command, ConfigCommand, PolicyCommand};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::run::Outcome;

/// Asks the daemon and makes the view.
pub(crate) async fn fetch(
    command: &Command,
    connection: &Connection,
    now_unix_ns: i64,
) -> Result<Outcome, Failure> {
    let view = match command {
        Command::Status(args) => return status::fetch(connection, args, now_unix_ns).await,
        Command::Bgp(BgpCommand::Peers(args)) => bgp_peers::fetch(connection, args).await?,
        Command::Bgp(BgpCommand::Neighbor(args)) => {
            bgp_neighbor::fetch(connection, args, now_unix_ns).await?
        }
        Command::Bgp(BgpCommand::Routes(args)) => {
            bgp_routes::fetch(connection, args, now_unix_ns).await?
        }
        Command::Bgp(BgpCommand::Explain(args)) => {
            return bgp_explain::fetch(connection, args, now_unix_ns).await;
        }
        Command::Bgp(BgpCommand::Refresh(args)) => bgp_actions::refresh(connection, args).await?,
        Command::Bgp(BgpCommand::Reset(args)) => bgp_actions::reset(connection, args).await?,
        Command::Bgp(BgpCommand::Policy(PolicyCommand::Test(args))) => {
            return bgp_policy::fetch(connection, args).await;
        }
        Command::Egress(verb) => return egress::fetch(connection, verb).await,
        Command::Bfd(verb) => bfd::fetch(connection, verb).await?,
        Command::Drain(args) => drain::view(&drain::begin(connection, args).await?, now_unix_ns),
        Command::Undrain => drain::end(connection, now_unix_ns).await?,
        Command::Resources(args) => resources::fetch(connection, args, now_unix_ns).await?,
        Command::Pods(args) => pods::fetch(connection, args).await?,
        Command::Fib(args) => fib::fetch(connection, args).await?,
        Command::Datapath(args) => datapath::fetch(connection, args).await?,
        Command::Config(ConfigCommand::Diff { paths }) => {
            return config_diff::fetch(connection, paths).await;
        }
        Command::Config(ConfigCommand::Show { origin, .. }) => {
            config::fetch(connection, *origin).await?
        }
        Command::Version => return version::fetch(Some(connection.clone())).await,
        Command::Bgp(BgpCommand::Decode(_))
        | Command::Config(ConfigCommand::Check { .. })
        | Command::Explain { .. }
        | Command::Completion { .. }
        | Command::Man { .. } => unreachable!("these commands need no daemon"),
    };
    Ok((view, Exit::Ok))
}
