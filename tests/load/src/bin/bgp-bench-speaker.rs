// SPDX-License-Identifier: Apache-2.0
//! The speaker of `bgp-io` and nothing around it, told by one file who its peers are: for
//! measurements of the speaker itself. It passes everything on.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use bgp_core::config::{
    ConnectMode, FamilyConfig, ImportMode, ImportPolicy, InstanceConfig, Listen, LocalRoutes,
    NextHopMode, PeerAddress, PeerConfig, PolicyConfig, PolicyName, Timers, Transit,
};
use bgp_core::policy::{Action, AnyCommunity, Change, Statement, Verdict};
use bgp_io::{Options, Speaker};
use bgp_load::subject::{SpeakerFile, SpeakerPeer};
use bgp_wire::Community;
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
    instance.install_routes = false;
    instance.listen = Some(Listen {
        port: 179,
        addresses: vec![file.address],
        device: None,
    });
    for (number, peer) in file.peers.iter().enumerate() {
        let policy = peer.adds.map(|community| marking(number, community));
        let policy = policy.transpose()?;
        let config = neighbour(&file, peer, policy.as_ref())?;
        instance.add_peer(format!("p{number}").as_str().into(), config)?;
        instance.policies.extend(policy);
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
            // What else the owner of a speaker is told; best paths are not among it.
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

fn neighbour(
    file: &SpeakerFile,
    peer: &SpeakerPeer,
    policy: Option<&PolicyConfig>,
) -> Result<PeerConfig> {
    let family = Family {
        afi: Afi(peer.family.0),
        safi: Safi(peer.family.1),
    };
    let settings = FamilyConfig {
        import: ImportPolicy {
            mode: ImportMode::All,
        },
        export_policy: policy.map(|policy| policy.name().clone()),
        // It has no labels of its own to be the next hop of VPN routes with.
        next_hop_mode: if family.safi == Safi::MPLS_VPN {
            NextHopMode::Unchanged
        } else {
            NextHopMode::ToSelf
        },
        ..FamilyConfig::default()
    };
    let address = PeerAddress::new(peer.address, None)?;
    let families = BTreeMap::from([(family, settings)]);
    let mut config = PeerConfig::new(address).with_families(families)?;
    config.asn = Some(Asn(peer.asn));
    config.local_address = Some(file.address);
    config.connect = ConnectMode::Passive;
    config.timers = Timers::new(1, 90, 30)?;
    Ok(config)
}

/// A policy that adds a community to everything.
fn marking(number: usize, community: u32) -> Result<PolicyConfig> {
    let statement = Statement {
        name: "mark".to_owned(),
        conditions: Vec::new(),
        changes: vec![Change::AddCommunities(vec![AnyCommunity::Standard(
            Community(community),
        )])],
        action: Action::Final(Verdict::Accept),
    };
    let name = PolicyName(format!("p{number}"));
    Ok(PolicyConfig::new(name, vec![statement], Verdict::Reject)?)
}
