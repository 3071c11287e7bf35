// SPDX-License-Identifier: Apache-2.0
//! The speaker of `bgp-io` and nothing around it, told by one file who its peers are: for
//! measurements of the speaker itself. It passes everything on.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use bgp_core::config::{
    ConnectMode, FamilyConfig, ImportMode, ImportPolicy, InstanceConfig, Listen, LocalRoutes,
    PeerAddress, PeerConfig, Timers, Transit,
};
use bgp_io::{Options, Speaker};
use bgp_load::subject::SpeakerFile;
use router_types::{Afi, Asn, Family, Safi};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

#[cfg(feature = "count-allocations")]
#[global_allocator]
static ALLOCATOR: bgp_load::counting::Counting = bgp_load::counting::Counting::new();

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let path = std::env::args()
        .nth(1)
        .context("usage: bgp-bench-speaker FILE")?;
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let file: SpeakerFile = serde_json::from_str(&text)?;
    let mut instance =
        InstanceConfig::new("bench".into(), Asn(file.asn), Ipv4Addr::new(10, 99, 255, 1))?;
    instance.transit = Transit::Allowed;
    instance.install_routes = false;
    instance.listen = Some(Listen {
        port: 179,
        addresses: vec![file.address],
    });
    for (number, (address, asn, (afi, safi))) in file.peers.iter().enumerate() {
        let family = Family {
            afi: Afi(*afi),
            safi: Safi(*safi),
        };
        let mut families = BTreeMap::new();
        let import = ImportPolicy {
            mode: ImportMode::All,
            ..ImportPolicy::default()
        };
        families.insert(
            family,
            FamilyConfig {
                import,
                ..FamilyConfig::default()
            },
        );
        let mut peer =
            PeerConfig::new(PeerAddress::new(*address, None)?).with_families(families)?;
        peer.asn = Some(Asn(*asn));
        peer.local_address = Some(file.address);
        peer.connect = ConnectMode::Passive;
        peer.timers = Timers::new(1, 90, 30)?;
        instance.add_peer(format!("p{number}").as_str().into(), peer)?;
    }
    let (events, mut taken) = mpsc::channel(64);
    let (speaker, thread) = Speaker::start(Options::default(), events)?;
    let problems = speaker
        .apply(vec![(instance, LocalRoutes::default())])
        .await;
    ensure!(problems.is_empty(), "{}", problems.join("; "));
    let mut terminated = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            // Best paths for the kernel, which has no part in this.
            event = taken.recv() => if event.is_none() { break },
            _ = terminated.recv() => {
                #[cfg(feature = "count-allocations")]
                eprint!("{}", ALLOCATOR.report());
                return Ok(());
            }
        }
    }
    let ended = thread.join();
    ensure!(ended.is_ok(), "the speaker's thread panicked");
    Ok(())
}
