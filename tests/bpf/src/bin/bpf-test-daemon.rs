// SPDX-License-Identifier: Apache-2.0
//! A process that holds the data plane like the daemon does, for tests that kill it.
//!
//! `bpf-test-daemon <pin root> <name of a host device>...`: opens the data plane, keeps the
//! endpoints it adopts whose devices are named, prints one line per endpoint and `ready`, and
//! waits to be killed.

use std::{io::Write as _, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use bpf_loader::{Config, Datapath};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let pin_root = PathBuf::from(arguments.next().context("name the pin root")?);
    let devices: Vec<String> = arguments.collect();
    let mut datapath = Datapath::open(Config {
        pin_root,
        ..Config::default()
    })?;
    let mut wanted = Vec::new();
    for state in datapath.endpoints()? {
        let name = nix::net::if_::if_indextoname(state.endpoint.link.0)?;
        if devices
            .iter()
            .any(|device| device.as_bytes() == name.to_bytes())
        {
            println!("{} {}", state.endpoint.id, state.traffic.tx_packets);
            wanted.push(state.endpoint);
        }
    }
    let report = datapath.sync_endpoints(&wanted)?;
    ensure!(report.failed.is_empty(), "{:?}", report.failed);
    println!("ready");
    std::io::stdout().flush()?;
    loop {
        std::thread::park();
    }
}
