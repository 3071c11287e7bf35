// SPDX-License-Identifier: Apache-2.0
//! Settings.

use std::fs;
use std::io;
use std::time::Duration;

use ipnet::IpNet;

/// Settings of [`Manager::start`](crate::Manager::start).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The node's pod CIDRs, of either family, any number, none overlapping. May be empty until
    /// they are known: ADD then says to try again. Default: none.
    pub pod_cidrs: Vec<IpNet>,
    /// MTU of new pods. Default: what the fabric devices allow, 1500 while none is known.
    pub mtu: Mtu,
    /// How long a released address is handed out last. Default: 60 s, twice the longest time a
    /// client usually goes on sending to an address that died.
    pub cool_down: Duration,
    /// How often the kernel is compared with the journal. Default: 60 s. Shorter costs one
    /// thread and a few dumps per pod each time.
    pub resync_interval: Duration,
    /// This boot's identifier, [`Config::current_boot_id`]. Endpoints of another boot are dropped.
    pub boot_id: String,
}

/// Where the MTU of new pods comes from. It counts octets of an IP packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mtu {
    /// This one. At least 1280 where pods have IPv6 addresses (RFC 8200 §5), and no more than the
    /// fabric carries.
    Fixed(u32),
    /// The smallest of these devices', read at each ADD; those that do not exist are left out.
    /// 1500 when there is none.
    SmallestOf(Vec<String>),
}

impl Config {
    /// Defaults for this boot.
    ///
    /// # Errors
    ///
    /// When the boot's identifier cannot be read.
    pub fn new() -> io::Result<Config> {
        Ok(Config {
            pod_cidrs: Vec::new(),
            mtu: Mtu::SmallestOf(Vec::new()),
            cool_down: Duration::from_secs(60),
            resync_interval: Duration::from_secs(60),
            boot_id: Config::current_boot_id()?,
        })
    }

    /// The kernel's identifier of this boot.
    ///
    /// # Errors
    ///
    /// When `/proc` is not mounted.
    pub fn current_boot_id() -> io::Result<String> {
        fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned())
    }
}
