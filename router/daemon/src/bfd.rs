// SPDX-License-Identifier: Apache-2.0
//! The way to `causeway-bfdd`, the process that runs BFD sessions and outlives this one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bgp_bfdd::client::{Client, Options};

/// When sessions that the last run wanted and this one does not are shut: late enough for
/// interfaces and resources to have come. Until then they do no harm.
const SETTLED: Duration = Duration::from_secs(60);

/// Starts the client. The process is started beside this one, where no service manager does that.
pub fn start(socket: &Path) -> Client {
    let client = Client::start(Options {
        socket: socket.with_file_name("bfd.sock"),
        program: program(),
        ..Options::default()
    });
    let settling = client.clone();
    tokio::spawn(async move {
        tokio::time::sleep(SETTLED).await;
        settling.retain();
    });
    client
}

/// The program, which lies beside the daemon's. systemd has a unit for it: two would fight over
/// the socket.
fn program() -> Option<PathBuf> {
    if std::env::var_os("INVOCATION_ID").is_some() {
        return None;
    }
    let program = std::env::current_exe()
        .ok()?
        .with_file_name("causeway-bfdd");
    program.exists().then_some(program)
}
