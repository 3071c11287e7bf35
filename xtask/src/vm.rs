// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask vm`: a command on another kernel than this machine's.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Args;
use lab_runner::preflight::is_root;
use lab_vm::{Kernel, Vm};

#[derive(Args)]
pub(crate) struct Arguments {
    /// MiB of memory.
    #[arg(long, default_value_t = Vm::default().memory)]
    memory: u32,
    /// Seconds until the machine is switched off.
    #[arg(long, default_value_t = Vm::default().limit.as_secs())]
    limit: u64,
    /// What to run: words that are put together to a line of shell, as by ssh.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<String>,
}

/// Its exit code becomes ours; 125 where the machine gave none.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    ensure!(
        is_root(),
        "the guest reads this machine's files by our rights: run it as root (sudo)"
    );
    let vm = Vm {
        memory: arguments.memory,
        limit: std::time::Duration::from_secs(arguments.limit),
        is_shown: true,
        ..Vm::default()
    };
    match vm.run(Kernel::Debian13, &arguments.command.join(" ")) {
        Ok(output) => {
            let code = u8::try_from(output.code);
            Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            Ok(ExitCode::from(125))
        }
    }
}
