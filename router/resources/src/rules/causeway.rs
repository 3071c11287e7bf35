// SPDX-License-Identifier: Apache-2.0
//! Rules about what `BGPClusterConfig` and `BGPPeerConfig` add to upstream's kinds.

use std::collections::BTreeSet;

use crate::kinds::{
    BgpInstance, BgpPeer, Export, ExportNextHop, Family, Import, OnMaxRoutes, PeerConfigSpec,
};
use crate::path::Path;

use super::Rules;

impl Rules {
    pub(super) fn causeway_instance(&mut self, instance: &BgpInstance, path: &Path) {
        let ours = &instance.ours;
        if instance.local_port.is_none() {
            for (field, is_there) in [
                ("listenRanges", !ours.listen_ranges.is_empty()),
                ("listenAddresses", ours.listen_addresses.is_some()),
            ] {
                if is_there {
                    let message = format!("{field} needs localPort: the instance does not listen");
                    self.broken(path.join(field), message);
                }
            }
        }
        let addresses = ours.listen_addresses.iter().flatten();
        for (index, address) in addresses.enumerate() {
            self.address(Some(address), path.join("listenAddresses").join(index));
        }
        let mut names: BTreeSet<&str> = instance.peers.iter().map(|p| p.name.as_str()).collect();
        for (index, range) in ours.listen_ranges.iter().enumerate() {
            let path = path.join("listenRanges").join(index);
            if !names.insert(&range.name) {
                let message = format!("a peer of the instance is named '{}', too", range.name);
                self.broken(path.join("name"), message);
            }
            self.prefix(&range.prefix, path.join("prefix"));
            for (index, asns) in range.peer_asns.iter().flatten().enumerate() {
                self.asn_range(asns, path.join("peerASNs").join(index));
            }
            if let Some(reference) = &range.peer_config_ref {
                self.peer_config_ref(reference, &path.join("peerConfigRef"));
            }
        }
        for (index, aggregate) in ours.aggregates.iter().enumerate() {
            let path = path.join("aggregates").join(index).join("prefix");
            self.prefix(&aggregate.prefix, path);
        }
        self.router_id(ours.cluster_id.as_deref(), path.join("clusterID"));
    }

    pub(super) fn causeway_peer(&mut self, peer: &BgpPeer, path: &Path) {
        if peer.ours.interface.is_some() {
            for (field, is_there) in [
                ("peerAddress", peer.peer_address.is_some()),
                ("autoDiscovery", peer.auto_discovery.is_some()),
            ] {
                if is_there {
                    let message =
                        format!("interface takes the place of {field}; write one of them");
                    self.broken(path.join("interface"), message);
                }
            }
        }
        if let Some(shutdown) = &peer.ours.shutdown
            && shutdown.message.len() > 255
        {
            let message = format!(
                "the message has {} octets in UTF-8 and RFC 9003 has room for 255",
                shutdown.message.len()
            );
            self.broken(path.join("shutdown").join("message"), message);
        }
    }

    pub(super) fn causeway_family(&mut self, spec: &PeerConfigSpec, family: &Family, path: &Path) {
        if let Some(import) = &family.ours.import {
            self.import(import, family.afi, &path.join("import"));
            self.import_limit(import, &path.join("import"));
        }
        if let Some(export) = &family.ours.export {
            self.export(export, &path.join("export"));
        }
        let restarts = spec.graceful_restart.as_ref().is_some_and(|g| g.enabled);
        if family.ours.long_lived_stale_time_seconds.is_some() && !restarts {
            self.broken(
                path.join("longLivedStaleTimeSeconds"),
                "it begins where the restart time of gracefulRestart ends, which is not enabled",
            );
        }
    }

    fn import_limit(&mut self, import: &Import, path: &Path) {
        let parts = [
            ("warningPercent", import.warning_percent.is_some()),
            ("onMaxRoutes", import.on_max_routes.is_some()),
            (
                "restartAfterSeconds",
                import.restart_after_seconds.is_some(),
            ),
        ];
        for (field, is_there) in parts {
            if is_there && import.max_routes.is_none() {
                let message = format!("{field} needs maxRoutes");
                self.broken(path.join(field), message);
            }
        }
        if import.on_max_routes == Some(OnMaxRoutes::Warn) && import.restart_after_seconds.is_some()
        {
            let message = "with onMaxRoutes Warn the session does not end";
            self.broken(path.join("restartAfterSeconds"), message);
        }
    }

    fn export(&mut self, export: &Export, path: &Path) {
        let address = export.next_hop_address.as_ref();
        self.address(address, path.join("nextHopAddress"));
        if address.is_some() && export.next_hop == Some(ExportNextHop::Unchanged) {
            let message = "with nextHop Unchanged no other next hop is sent";
            self.broken(path.join("nextHopAddress"), message);
        }
    }
}
