// SPDX-License-Identifier: Apache-2.0
//! `causeway-cni`: the plugin that container runtimes execute (Container Network Interface,
//! versions 0.3.1, 0.4.0, 1.0.0 and 1.1.0).
//!
//! It reads what the runtime says, asks the daemon over its unix socket, and writes what the
//! daemon answers. It decides nothing and touches neither devices nor files, so that a node is
//! upgraded by upgrading the daemon.
//!
//! # Configuration
//!
//! ```json
//! { "cniVersion": "1.1.0", "name": "causeway", "plugins": [ { "type": "causeway-cni" } ] }
//! ```
//!
//! `socket` names the daemon's socket when it is not the usual one; `timeoutSeconds` (1 to 600,
//! default 60) bounds a whole call. `args.cni.ips`, the capability `ips` and `IP` in `CNI_ARGS`
//! ask for addresses. In a chain, the interfaces of earlier plugins (`prevResult`) come first in
//! the result.
//!
//! # When the daemon does not answer
//!
//! A daemon that is being restarted is waited for, 10 s at most. Then the plugin fails with code
//! 11, "try again later" (50 for STATUS, at once): a pod never starts without its network.

mod call;
mod daemon;
mod failure;
mod invocation;
mod result;

use std::io::{Read, Write};
use std::process::ExitCode;

use crate::call::Call;
use crate::failure::Failure;

/// The newest version spoken, for answers to those who name none.
const NEWEST_VERSION: &str = "1.1.0";
/// The versions spoken.
const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", NEWEST_VERSION];
/// Longest configuration read, in octets. Arbitrary; a GC of ten thousand attachments has one.
const MAX_CONFIG_OCTETS: u64 = 16 << 20;

fn main() -> ExitCode {
    let mut config = Vec::new();
    let read = std::io::stdin()
        .lock()
        .take(MAX_CONFIG_OCTETS)
        .read_to_end(&mut config);
    let version = invocation::version_of(&config);
    let outcome = read
        .map_err(|e| {
            Failure::new(
                Failure::IO,
                format!("cannot read the configuration from stdin: {e}"),
            )
        })
        .and_then(|_| run(&config));
    let (output, code) = match outcome {
        Ok(output) => (output, ExitCode::SUCCESS),
        Err(failure) => {
            let version = version.filter(|v| VERSIONS.contains(&v.as_str()));
            (
                failure.to_json(version.as_deref().unwrap_or(NEWEST_VERSION)),
                ExitCode::FAILURE,
            )
        }
    };
    match std::io::stdout().write_all(output.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

fn run(config: &[u8]) -> Result<String, Failure> {
    let call = Call::read(|name| std::env::var(name).ok(), config)?;
    if let Call::Version { version } = &call {
        return Ok(result::versions(version));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Failure::IO, format!("cannot wait for the daemon: {e}")))?;
    runtime.block_on(daemon::ask(call))
}
