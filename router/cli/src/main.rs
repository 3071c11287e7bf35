// SPDX-License-Identifier: Apache-2.0
//! `causeway`, the command line of the appliance.

fn main() -> std::process::ExitCode {
    causeway_cli::run(std::env::args_os())
}
