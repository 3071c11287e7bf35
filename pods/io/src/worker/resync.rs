// SPDX-License-Identifier: Apache-2.0
//! Comparing all endpoints with the kernel: at the start, and now and then.

use std::collections::{BTreeMap, BTreeSet};

use pods_core::{Endpoint, EndpointId, Phase};
use router_netlink::{Link, LinkChange, Netns};
use router_types::LinkIndex;

use super::{Worker, find_netns, recover};
use crate::manager::StartError;
use crate::plumbing;
use crate::report::Resync;

impl Worker {
    /// Makes the kernel equal to the journal.
    ///
    /// The map entries are written between the two sides: an address that changed hands while no
    /// daemon was looking moves in one step, and no pod sends before its program is attached.
    pub(super) fn resync(&mut self) -> Result<Resync, StartError> {
        let mut report = Resync::default();
        self.undo_renames()?;
        let links: BTreeMap<String, Link> = self
            .netlink
            .links()?
            .into_iter()
            .map(|l| (l.name.clone(), l))
            .collect();
        let endpoints: Vec<Endpoint> = self.registry.endpoints().cloned().collect();
        let mut alive = Vec::new();
        for endpoint in endpoints {
            let netns = find_netns(&endpoint);
            let is_gone = netns.is_none() && !links.contains_key(&endpoint.host_ifname);
            if endpoint.phase == Phase::Creating || is_gone {
                self.reclaim(&endpoint, &mut report);
            } else {
                let link = links.get(&endpoint.host_ifname).map(|l| l.index);
                self.bring_host_side_up(endpoint, netns, link, &mut alive, &mut report);
            }
        }
        self.sweep(&links, &mut alive, &mut report)?;
        self.sync_datapath(&alive, &mut report)?;
        for (endpoint, netns) in &alive {
            // Inside a pod nothing is touched once it runs: it may have its reasons.
            let Some(netns) = netns
                .as_ref()
                .filter(|_| report.recreated.contains(&endpoint.attachment))
            else {
                continue;
            };
            if let Err(error) = plumbing::pod_side(endpoint, netns) {
                self.problem(endpoint, error.to_string(), &mut report);
            }
        }
        // A release that is waiting for room on the disk.
        if let Err(error) = self.store.repair(&self.registry) {
            tracing::warn!(%error, "the journal of pods is not up to date");
        }
        for (attachment, problem) in &report.failed {
            tracing::error!(%attachment, problem, "this pod is not as it should be");
        }
        self.last_resync = report.clone();
        Ok(report)
    }

    /// Gives devices back the names their endpoints know them by.
    fn undo_renames(&mut self) -> Result<(), router_netlink::Error> {
        for link in self.netlink.links()? {
            let Some(endpoint) = self.owner(&link).filter(|e| e.host_ifname != link.name) else {
                continue;
            };
            let name = endpoint.host_ifname.clone();
            tracing::warn!(
                device = link.name,
                was = name,
                "somebody renamed a pod's device"
            );
            // Before Linux 6.2 a device must be down for it; it is brought up again later.
            let live = LinkChange {
                name: Some(&name),
                ..LinkChange::default()
            };
            let down = LinkChange {
                up: Some(false),
                ..LinkChange::default()
            };
            let renamed = self.netlink.change_link(link.index, &live).or_else(|_| {
                self.netlink.change_link(link.index, &down)?;
                self.netlink.change_link(link.index, &live)
            });
            if let Err(error) = renamed {
                tracing::error!(%error, device = link.name, "a pod's device keeps its wrong name");
            }
        }
        Ok(())
    }

    /// The endpoint a device says it is of, and is, whatever its name.
    fn owner(&self, link: &Link) -> Option<&Endpoint> {
        let (id, _) = Endpoint::read_alias(link.alias.as_deref()?)?;
        let endpoint = self.registry.get(id)?;
        (link.mac == Some(plumbing::mac(endpoint.host_mac))).then_some(endpoint)
    }

    fn reclaim(&mut self, endpoint: &Endpoint, report: &mut Resync) {
        match self.release(endpoint) {
            Ok(()) => {
                tracing::warn!(pod = %endpoint.attachment, "reclaimed: it was never finished, or is gone without a DEL");
                report.reclaimed.push(endpoint.attachment.clone());
            }
            Err(error) => self.problem(endpoint, error.to_string(), report),
        }
    }

    fn bring_host_side_up(
        &mut self,
        endpoint: Endpoint,
        netns: Option<Netns>,
        link: Option<LinkIndex>,
        alive: &mut Vec<(Endpoint, Option<Netns>)>,
        report: &mut Resync,
    ) {
        match plumbing::host_side(&mut self.netlink, &endpoint, netns.as_ref()) {
            Ok(device) => {
                self.links.insert(endpoint.id, device.link);
                self.problems.remove(&endpoint.id);
                if device.was_created {
                    tracing::warn!(pod = %endpoint.attachment, device = endpoint.host_ifname, "made a lost device again");
                    report.recreated.push(endpoint.attachment.clone());
                } else {
                    report.adopted += 1;
                }
                alive.push((endpoint, netns));
            }
            Err(error) => {
                self.problem(&endpoint, error.to_string(), report);
                match link {
                    // Its programs and counters stay with the device, whatever is wrong with it.
                    Some(link) => {
                        self.links.insert(endpoint.id, link);
                        alive.push((endpoint, netns));
                    }
                    None => drop(self.links.remove(&endpoint.id)),
                }
            }
        }
    }

    /// Removes devices with our mark that no endpoint claims; or, when the journal lost something,
    /// makes endpoints of them again.
    fn sweep(
        &mut self,
        links: &BTreeMap<String, Link>,
        alive: &mut Vec<(Endpoint, Option<Netns>)>,
        report: &mut Resync,
    ) -> Result<(), router_netlink::Error> {
        let has_mark = |l: &Link| {
            l.alias
                .as_deref()
                .is_some_and(|a| a.starts_with(Endpoint::ALIAS_PREFIX))
        };
        let names: BTreeSet<&str> = self
            .registry
            .endpoints()
            .map(|e| e.host_ifname.as_str())
            .collect();
        let is_claimed = |l: &Link| names.contains(l.name.as_str()) || self.owner(l).is_some();
        let unclaimed: Vec<&Link> = links
            .values()
            .filter(|l| has_mark(l) && !is_claimed(l))
            .collect();
        self.kept.clear();
        for link in unclaimed {
            if self.is_memory_damaged {
                self.recover(link, alive, report)?;
                continue;
            }
            match self.netlink.delete_link(link.index) {
                Ok(()) => {
                    tracing::warn!(device = link.name, "removed a device no pod claims");
                    report.removed_devices.push(link.name.clone());
                }
                // Its namespace was just ending: the kernel was quicker.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes an endpoint of a device that the damaged journal forgot. Where that cannot be done
    /// the device stays as it is, and its addresses are not handed out.
    fn recover(
        &mut self,
        link: &Link,
        alive: &mut Vec<(Endpoint, Option<Netns>)>,
        report: &mut Resync,
    ) -> Result<(), router_netlink::Error> {
        if let Some(endpoint) = recover::endpoint_of(&mut self.netlink, link)?
            && let Some(record) = self.registry.recover(endpoint.clone())
        {
            tracing::warn!(device = link.name, pod = %endpoint.attachment, "recovered a pod that the damaged journal lost");
            if let Err(error) = self.store.put(&record, &self.registry) {
                // It is in the registry, and a journal that cannot be written is written anew
                // from there.
                tracing::error!(%error, "a recovered pod is not on disk yet");
            }
            self.links.insert(endpoint.id, link.index);
            report.recovered.push(endpoint.attachment.clone());
            alive.push((endpoint, None));
            return Ok(());
        }
        tracing::error!(device = link.name, "kept the device of an unknown pod");
        let addresses = recover::addresses(&mut self.netlink, link)?;
        let by = format!("device {} of an unknown pod", link.name);
        self.kept
            .extend(addresses.into_iter().map(|a| (a, by.clone())));
        report.kept_devices.push(link.name.clone());
        Ok(())
    }

    fn sync_datapath(
        &mut self,
        alive: &[(Endpoint, Option<Netns>)],
        report: &mut Resync,
    ) -> Result<(), bpf_loader::Error> {
        let wanted: Vec<_> = alive
            .iter()
            .filter_map(|(e, _)| Some(plumbing::datapath_endpoint(e, *self.links.get(&e.id)?)))
            .collect();
        let synced = {
            let mut datapath = plumbing::lock(&self.datapath);
            let synced = datapath.sync_endpoints(&wanted)?;
            datapath.routes_changed()?;
            synced
        };
        for (link, error) in synced.failed {
            let id = self.id_of(link);
            let endpoint = id.and_then(|id| alive.iter().find(|(e, _)| e.id == id));
            match endpoint {
                Some((endpoint, _)) => self.problem(endpoint, error.to_string(), report),
                None => tracing::error!(device = link.0, %error, "the data plane refused a device"),
            }
        }
        Ok(())
    }

    fn id_of(&self, link: LinkIndex) -> Option<EndpointId> {
        self.links
            .iter()
            .find(|(_, l)| **l == link)
            .map(|(id, _)| *id)
    }

    fn problem(&mut self, endpoint: &Endpoint, problem: String, report: &mut Resync) {
        self.problems.insert(endpoint.id, problem.clone());
        report.failed.push((endpoint.attachment.clone(), problem));
    }
}
