// SPDX-License-Identifier: Apache-2.0
//! The endpoints of this node, and what each CNI operation does to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::endpoint::{Attachment, Endpoint, EndpointId, NetnsRef, Phase, PodRef};
use crate::failure::{Code, Failure};
use crate::ipam::{AllocateError, Family, Ipam};
use crate::journal::{Record, Replay};
use crate::pool::PoolError;

/// What ADD asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AddRequest {
    /// Container and device.
    pub attachment: Attachment,
    /// Name of the CNI network.
    pub network: String,
    /// The pod's namespace.
    pub netns: NetnsRef,
    /// The pod, when the runtime says.
    pub pod: Option<PodRef>,
    /// Addresses wanted, at most one per family; families not named get the lowest free one.
    pub requested: Vec<IpAddr>,
    /// MTU of the devices, in octets.
    pub mtu: u32,
}

/// What an ADD comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Addition {
    /// It was added before: the same endpoint is the answer, once the kernel is brought to it.
    Existing(Endpoint),
    /// A new endpoint; the record must be durable before anything else is done about it.
    New(Endpoint, Record),
}

/// What was found when a registry was opened.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Opened {
    /// The journal was another boot's: so many endpoints were dropped.
    pub dropped_by_reboot: usize,
    /// Endpoints whose ADD was broken off. They are in the registry; the caller removes them.
    pub interrupted: Vec<EndpointId>,
    /// Endpoints dropped because a younger one holds one of their addresses or names. Only a
    /// damaged journal has them.
    pub contradicted: Vec<Endpoint>,
}

/// The endpoints of this node and the addresses they hold.
///
/// Every method that changes something returns the [`Record`] of the change. A caller that
/// cannot make the record of an addition durable calls [`Registry::remove`] and acts as if the
/// addition had never been asked for.
#[derive(Debug)]
pub struct Registry {
    ipam: Ipam,
    endpoints: BTreeMap<EndpointId, Endpoint>,
    ids: BTreeMap<Attachment, EndpointId>,
    highest_id: u32,
}

impl Registry {
    /// Takes over what a journal says. `boot_id` is this boot's.
    ///
    /// # Errors
    ///
    /// [`PoolError`] when the pod CIDRs cannot be used.
    pub fn open(
        replay: Replay,
        boot_id: &str,
        cidrs: &[IpNet],
        cool_down: Duration,
        now: Instant,
    ) -> Result<(Registry, Opened), PoolError> {
        let mut registry = Registry {
            ipam: Ipam::new(cidrs, cool_down)?,
            endpoints: BTreeMap::new(),
            ids: BTreeMap::new(),
            highest_id: replay.highest_id,
        };
        let mut opened = Opened::default();
        for address in replay.dropped.iter().flat_map(|e| &e.addresses) {
            registry.ipam.cool(*address, now);
        }
        if replay.boot_id.as_deref().is_some_and(|id| id != boot_id) {
            opened.dropped_by_reboot = replay.endpoints.len();
            for address in replay.endpoints.values().flat_map(|e| &e.addresses) {
                registry.ipam.cool(*address, now);
            }
            return Ok((registry, opened));
        }
        // The youngest first: where a lost line makes two endpoints claim one thing, the drop of
        // the older one is what was lost.
        for endpoint in replay.endpoints.into_values().rev() {
            if registry.contradicts(&endpoint) {
                opened.contradicted.push(endpoint);
                continue;
            }
            if endpoint.phase == Phase::Creating {
                opened.interrupted.push(endpoint.id);
            }
            registry.insert(endpoint);
        }
        Ok((registry, opened))
    }

    /// ADD: finds the endpoint, or makes one and holds addresses for it.
    ///
    /// One address of each family the node has pod CIDRs of; none of either family is an error.
    ///
    /// # Errors
    ///
    /// [`Failure`] with [`Code::Exhausted`], [`Code::AddressRefused`], or, when the same names
    /// are attached in another namespace or network, [`Code::InvalidEnvironment`]. Nothing is
    /// held then.
    pub fn add(&mut self, request: &AddRequest, now: Instant) -> Result<Addition, Failure> {
        if let Some(endpoint) = self.find(&request.attachment) {
            return same_or_refused(endpoint, request).map(Addition::Existing);
        }
        let id = EndpointId(self.highest_id.checked_add(1).ok_or_else(|| {
            Failure::new(
                Code::Kernel,
                "all 4294967295 endpoint numbers were used up on this node",
            )
            .with_details("remove the journal of pods while no pod runs, then restart the daemon")
        })?);
        let addresses = self.hold_addresses(id, &request.requested, now)?;
        let salt = (0..)
            .find(|salt| !self.has_host_ifname(&request.attachment.host_ifname(*salt)))
            .expect("there are more names than endpoints");
        let endpoint = Endpoint {
            id,
            attachment: request.attachment.clone(),
            network: request.network.clone(),
            netns: request.netns.clone(),
            pod: request.pod.clone(),
            host_ifname: request.attachment.host_ifname(salt),
            host_mac: request.attachment.host_mac(salt),
            pod_mac: request.attachment.pod_mac(salt),
            addresses,
            mtu: request.mtu,
            phase: Phase::Creating,
        };
        self.highest_id = id.0;
        self.insert(endpoint.clone());
        let record = Record::Put(Box::new(endpoint.clone()));
        Ok(Addition::New(endpoint, record))
    }

    /// States that everything of an endpoint is in. `None` when it is not there (any more) or was
    /// ready before.
    pub fn set_ready(&mut self, id: EndpointId) -> Option<Record> {
        let endpoint = self
            .endpoints
            .get_mut(&id)
            .filter(|e| e.phase == Phase::Creating)?;
        endpoint.phase = Phase::Ready;
        Some(Record::Put(Box::new(endpoint.clone())))
    }

    /// Takes an endpoint back, its addresses with it. `None` when there is none.
    pub fn remove(&mut self, id: EndpointId, now: Instant) -> Option<(Endpoint, Record)> {
        let endpoint = self.endpoints.remove(&id)?;
        self.ids.remove(&endpoint.attachment);
        for address in &endpoint.addresses {
            self.ipam.release(*address, now);
        }
        Some((endpoint, Record::Drop(id)))
    }

    /// Takes in an endpoint that runs on the node and that the journal lost. `None` when its
    /// number, names or addresses are another's.
    pub fn recover(&mut self, endpoint: Endpoint) -> Option<Record> {
        if self.contradicts(&endpoint) {
            return None;
        }
        self.highest_id = self.highest_id.max(endpoint.id.0);
        let record = Record::Put(Box::new(endpoint.clone()));
        self.insert(endpoint);
        Some(record)
    }

    /// GC: the attachments of a network that are none of the valid ones.
    pub fn leaked(&self, network: &str, valid: &BTreeSet<Attachment>) -> Vec<Attachment> {
        self.endpoints
            .values()
            .filter(|e| e.network == network && !valid.contains(&e.attachment))
            .map(|e| e.attachment.clone())
            .collect()
    }

    /// The endpoint of an attachment.
    pub fn find(&self, attachment: &Attachment) -> Option<&Endpoint> {
        self.ids
            .get(attachment)
            .and_then(|id| self.endpoints.get(id))
    }

    /// The endpoint of a number.
    pub fn get(&self, id: EndpointId) -> Option<&Endpoint> {
        self.endpoints.get(&id)
    }

    /// All endpoints, by number.
    pub fn endpoints(&self) -> impl ExactSizeIterator<Item = &Endpoint> {
        self.endpoints.values()
    }

    /// The addresses.
    pub fn ipam(&self) -> &Ipam {
        &self.ipam
    }

    /// The addresses, to change CIDRs and what is occupied.
    pub fn ipam_mut(&mut self) -> &mut Ipam {
        &mut self.ipam
    }

    fn contradicts(&self, endpoint: &Endpoint) -> bool {
        self.endpoints.contains_key(&endpoint.id)
            || self.ids.contains_key(&endpoint.attachment)
            || self.has_host_ifname(&endpoint.host_ifname)
            || endpoint
                .addresses
                .iter()
                .any(|a| self.ipam.holder(*a).is_some())
    }

    /// Takes in an endpoint and whatever of its addresses it does not hold yet.
    fn insert(&mut self, endpoint: Endpoint) {
        for address in &endpoint.addresses {
            self.ipam
                .restore(*address, endpoint.id)
                .expect("nobody else holds its addresses: they were just allocated or checked");
        }
        self.ids.insert(endpoint.attachment.clone(), endpoint.id);
        self.endpoints.insert(endpoint.id, endpoint);
    }

    fn has_host_ifname(&self, name: &str) -> bool {
        self.endpoints.values().any(|e| e.host_ifname == name)
    }

    fn hold_addresses(
        &mut self,
        id: EndpointId,
        requested: &[IpAddr],
        now: Instant,
    ) -> Result<Vec<IpAddr>, Failure> {
        for family in Family::ALL {
            if requested
                .iter()
                .filter(|a| Family::of(**a) == family)
                .count()
                > 1
            {
                return Err(Failure::new(
                    Code::AddressRefused,
                    format!("more than one {family} address was asked for: an endpoint has one"),
                ));
            }
        }
        let mut addresses = Vec::new();
        for family in Family::ALL {
            let wanted = requested.iter().find(|a| Family::of(**a) == family);
            let result = match wanted {
                Some(address) => self
                    .ipam
                    .allocate_requested(*address, id)
                    .map(|()| *address),
                None if !self.ipam.serves(family) => continue,
                None => self.ipam.allocate(family, id, now),
            };
            match result {
                Ok(address) => addresses.push(address),
                Err(error) => {
                    self.let_go(&addresses);
                    return Err(self.explain(&error));
                }
            }
        }
        if addresses.is_empty() {
            return Err(
                Failure::new(Code::TryAgain, "the node has no pod CIDR yet").with_details(
                    "set podCIDRs of its Node object, or wait for whoever assigns them",
                ),
            );
        }
        Ok(addresses)
    }

    /// Undoes a hold that nobody was told of.
    fn let_go(&mut self, addresses: &[IpAddr]) {
        for address in addresses {
            self.ipam.forget(*address);
        }
    }

    fn explain(&self, error: &AllocateError) -> Failure {
        match error {
            AllocateError::Exhausted { .. } => Failure::new(Code::Exhausted, error.to_string())
                .with_details("give the node a further pod CIDR, or move pods to other nodes"),
            AllocateError::Held(address, id) => {
                let holder = self.endpoints.get(id).map_or_else(
                    || format!("endpoint {id}"),
                    |e| match &e.pod {
                        Some(pod) => format!("pod {pod} (container {})", e.attachment),
                        None => format!("container {}", e.attachment),
                    },
                );
                Failure::new(
                    Code::AddressRefused,
                    format!("{address} was asked for and is held by {holder}"),
                )
            }
            AllocateError::NoPool(_)
            | AllocateError::Outside(..)
            | AllocateError::Reserved(..)
            | AllocateError::Occupied(..) => Failure::new(Code::AddressRefused, error.to_string()),
        }
    }
}

fn same_or_refused(endpoint: &Endpoint, request: &AddRequest) -> Result<Endpoint, Failure> {
    let is_same_netns = endpoint.netns.inode == request.netns.inode
        && endpoint.netns.device == request.netns.device;
    let refused = |what: &str, there: &str, here: &str| {
        Failure::new(
            Code::InvalidEnvironment,
            format!(
                "{} is attached in {what} {there} already, and is asked for in {here}",
                endpoint.attachment
            ),
        )
        .with_details("send DEL for it first: CNI 1.1.0 allows one ADD between two DELs")
    };
    if !is_same_netns {
        return Err(refused(
            "network namespace",
            &endpoint.netns.path,
            &request.netns.path,
        ));
    }
    if endpoint.network != request.network {
        return Err(refused("network", &endpoint.network, &request.network));
    }
    if let Some(other) = request
        .requested
        .iter()
        .find(|a| !endpoint.addresses.contains(a))
    {
        return Err(Failure::new(
            Code::AddressRefused,
            format!(
                "{other} was asked for, and {} has other addresses",
                endpoint.attachment
            ),
        ));
    }
    Ok(endpoint.clone())
}

#[cfg(test)]
mod tests;
