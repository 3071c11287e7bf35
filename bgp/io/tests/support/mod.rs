// SPDX-License-Identifier: Apache-2.0
//! Speakers for tests.
#![allow(dead_code, reason = "each test binary uses its part of this")]

use std::future::Future;
use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use bgp_core::config::{
    ExportAttributes, FamilyConfig, ImportMode, ImportPolicy, InstanceConfig, Listen, LocalRoutes,
    PeerAddress, PeerConfig, Timers,
};
use bgp_core::peer::PeerSnapshot;
use bgp_core::rib::FamilyCounts;
use bgp_io::{Handle, Options};
use router_types::{Asn, Family};

/// One end of a session.
pub(crate) struct Side {
    pub(crate) ip: Ipv4Addr,
    pub(crate) asn: u32,
    pub(crate) port: u16,
}

impl Side {
    pub(crate) fn new(ip: &str, asn: u32, port: u16) -> Side {
        Side {
            ip: ip.parse().unwrap(),
            asn,
            port,
        }
    }

    pub(crate) fn config(
        &self,
        other: &Side,
        change: impl FnOnce(&mut PeerConfig),
    ) -> InstanceConfig {
        let mut config = InstanceConfig::new("i".into(), Asn(self.asn), self.ip).unwrap();
        config.listen = Some(Listen {
            port: self.port,
            addresses: vec![self.ip.into()],
        });
        let address = PeerAddress::new(other.ip.into(), None).unwrap();
        let mut peer = PeerConfig::new(address);
        peer.port = other.port;
        peer.local_address = Some(self.ip.into());
        peer.timers = Timers::new(2, 9, 3).unwrap();
        let mut peer = importing(&peer, ImportMode::DefaultRoute);
        change(&mut peer);
        config.add_peer("p".into(), peer).unwrap();
        config
    }

    pub(crate) async fn start(&self, other: &Side, change: impl FnOnce(&mut PeerConfig)) -> Handle {
        self.start_with(Options::default(), other, change).await
    }

    pub(crate) async fn start_with(
        &self,
        options: Options,
        other: &Side,
        change: impl FnOnce(&mut PeerConfig),
    ) -> Handle {
        let handle = bgp_io::spawn(options).unwrap();
        handle
            .apply(vec![self.config(other, change)])
            .await
            .unwrap();
        handle
    }
}

/// The next hop announced: a loopback address is none, and refused as such.
pub(crate) const NEXT_HOP: &str = "192.0.2.1";

/// A neighbour with another import policy for both families.
pub(crate) fn importing(peer: &PeerConfig, mode: ImportMode) -> PeerConfig {
    let family = FamilyConfig {
        import: ImportPolicy {
            mode,
            max_routes: None,
        },
        next_hop: Some(NEXT_HOP.parse().unwrap()),
    };
    let families = [Family::IPV4_UNICAST, Family::IPV6_UNICAST];
    peer.clone()
        .with_families(families.into_iter().map(|f| (f, family.clone())).collect())
        .unwrap()
}

pub(crate) fn local_routes(prefixes: &[&str]) -> LocalRoutes {
    let mut routes = LocalRoutes::default();
    for prefix in prefixes {
        routes.add(
            prefix.parse().unwrap(),
            "p".into(),
            ExportAttributes::default(),
        );
    }
    routes
}

pub(crate) async fn session(handle: &Handle) -> PeerSnapshot {
    handle.snapshot().await.unwrap().instances[0].peers[0]
        .session
        .clone()
}

pub(crate) async fn counts(handle: &Handle) -> FamilyCounts {
    let snapshot = handle.snapshot().await.unwrap();
    let families = &snapshot.instances[0].peers[0].families;
    families
        .get(&Family::IPV4_UNICAST)
        .copied()
        .unwrap_or_default()
}

/// A port nobody listens on, for all of 127/8.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("0.0.0.0:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Waits for a condition.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !condition().await {
        assert!(Instant::now() < limit, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
