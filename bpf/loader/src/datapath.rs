// SPDX-License-Identifier: Apache-2.0
//! The data plane as one handle.

use router_types::LinkIndex;

use crate::{
    Config, DropCount, Endpoint, EndpointId, EndpointState, EndpointTraffic, Error, OpenError,
    ReapReport, Status, SyncReport,
};

/// The loaded data plane. Dropping it leaves everything running.
#[derive(Debug)]
pub struct Datapath {}

impl Datapath {
    /// Loads the programs, adopting maps and links an earlier process pinned.
    ///
    /// # Errors
    /// When there is no BPF file system, the pins belong to another network namespace, or the
    /// kernel refuses the object.
    pub fn open(_config: Config) -> Result<Self, OpenError> {
        todo!()
    }

    /// Makes the local endpoints exactly these: maps filled, programs attached, others pruned with
    /// their counters. What fails for one endpoint is in the report and stops no other.
    ///
    /// # Errors
    /// When the maps cannot be read at all.
    pub fn sync_endpoints(&mut self, _wanted: &[Endpoint]) -> Result<SyncReport, Error> {
        todo!()
    }

    /// Adds or changes one endpoint. When it returns `Ok`, packets flow.
    ///
    /// # Errors
    /// When the device is gone or another one, an address is taken, or a map is full. Nothing
    /// half-done stays for a new endpoint.
    pub fn set_endpoint(&mut self, _wanted: &Endpoint) -> Result<(), Error> {
        todo!()
    }

    /// Removes one endpoint with its counters; unknown ones are removed already. The device may be
    /// gone.
    ///
    /// # Errors
    /// When a map or pin cannot be changed.
    pub fn remove_endpoint(&mut self, _id: EndpointId) -> Result<(), Error> {
        todo!()
    }

    /// Makes the fabric devices exactly these.
    ///
    /// # Errors
    /// When the pins cannot be read at all; failures of one device are in the report.
    pub fn sync_fabric(&mut self, _devices: &[LinkIndex]) -> Result<SyncReport, Error> {
        todo!()
    }

    /// Makes every cached routing answer stale. Call it after changing routes, links, rules or
    /// forwarding; without the call a change is effective after 100 ms.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn routes_changed(&mut self) -> Result<(), Error> {
        todo!()
    }

    /// Removes pins of devices that are gone, and folders of other layouts once nothing of them is
    /// attached. Call it after both syncs, and now and then.
    ///
    /// # Errors
    /// When the pin folder cannot be read.
    pub fn reap(&mut self) -> Result<ReapReport, Error> {
        todo!()
    }

    /// The endpoints as they are in the maps, with their traffic, in order of their numbers.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn endpoints(&self) -> Result<Vec<EndpointState>, Error> {
        todo!()
    }

    /// Traffic of every endpoint, in order of their numbers.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn counters(&self) -> Result<Vec<(EndpointId, EndpointTraffic)>, Error> {
        todo!()
    }

    /// Refused frames of the whole node by reason; every reason, also those that never occurred.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn drops(&self) -> Result<Vec<DropCount>, Error> {
        todo!()
    }

    /// Hooks, programs, attachments, fill of the maps.
    ///
    /// # Errors
    /// When a map or pin cannot be read.
    pub fn status(&self) -> Result<Status, Error> {
        todo!()
    }

    /// Detaches everything and removes every pin.
    ///
    /// # Errors
    /// When a pin or filter cannot be removed.
    pub fn uninstall(self) -> Result<(), Error> {
        todo!()
    }
}
