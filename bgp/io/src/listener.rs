// SPDX-License-Identifier: Apache-2.0
//! The listening sockets of an instance: who may call, and with which key.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use bgp_core::config::{InstanceConfig, InstanceName, Listen, Md5Password, TcpMss, TtlSecurity};
use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::{md5, socket};

/// A call that was taken.
#[derive(Debug)]
pub(crate) struct Call {
    /// The instance whose socket took it.
    pub(crate) instance: InstanceName,
    /// The connection.
    pub(crate) stream: TcpStream,
    /// Who calls.
    pub(crate) remote: SocketAddr,
}

/// The listening sockets of one instance.
#[derive(Debug)]
pub(crate) struct Listeners {
    instance: InstanceName,
    calls: mpsc::Sender<Call>,
    /// The device they are bound to.
    device: Option<Device>,
    sockets: BTreeMap<SocketAddr, OneListener>,
    keys: BTreeMap<IpNet, Md5Password>,
    security: Security,
    /// What could not be opened, and why. Tried again at each change and now and then.
    failures: BTreeMap<SocketAddr, String>,
}

/// A device by its name, and its index where it is there: another index is another device.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Device {
    name: String,
    index: Option<u32>,
}

impl Device {
    fn named(name: &str) -> Device {
        Device {
            name: name.to_owned(),
            index: socket::interface_index(name).ok(),
        }
    }
}

#[derive(Debug)]
struct OneListener {
    listener: Rc<TcpListener>,
    task: JoinHandle<()>,
}

impl Drop for OneListener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl OneListener {
    /// Closes the socket; when it returns the address is free.
    async fn close(mut self) {
        self.task.abort();
        // Cancelled, as it should be; a task that panicked has said so.
        let _ = (&mut self.task).await;
    }
}

impl Listeners {
    /// No sockets yet; calls will be put into `calls`.
    pub(crate) fn new(instance: InstanceName, calls: mpsc::Sender<Call>) -> Listeners {
        Listeners {
            instance,
            calls,
            device: None,
            sockets: BTreeMap::new(),
            keys: BTreeMap::new(),
            security: Security::default(),
            failures: BTreeMap::new(),
        }
    }

    /// Opens, closes and re-keys sockets until they are as configured. What does not change is not
    /// touched.
    pub(crate) async fn apply(&mut self, config: &InstanceConfig) {
        let wanted = config.listen.as_ref().map(addresses).unwrap_or_default();
        let device = config.listen.as_ref().and_then(|on| on.device.as_deref());
        let device = device.map(Device::named);
        if self.device != device {
            self.close().await;
            self.device = device;
        }
        let gone: Vec<SocketAddr> = self
            .sockets
            .keys()
            .filter(|address| !wanted.contains(address))
            .copied()
            .collect();
        for address in gone {
            if let Some(one) = self.sockets.remove(&address) {
                tracing::info!(%address, instance = %config.name(), "listens there no more");
                one.close().await;
            }
        }
        self.failures.retain(|address, _| wanted.contains(address));

        let keys = keys(config);
        let security = Security::of(config);
        for (address, one) in &self.sockets {
            for callers in self.keys.keys().filter(|known| !keys.contains_key(known)) {
                set_key(address, one.listener.as_fd(), *callers, None);
            }
            for (callers, key) in &keys {
                if self.keys.get(callers) != Some(key) {
                    set_key(address, one.listener.as_fd(), *callers, Some(key));
                }
            }
            if self.security != security {
                security.set(address, one.listener.as_fd());
            }
        }
        self.keys = keys;
        self.security = security;

        for address in wanted {
            if self.sockets.contains_key(&address) {
                continue;
            }
            match self.open(address) {
                Ok(one) => {
                    tracing::info!(%address, instance = %config.name(), "listening");
                    self.failures.remove(&address);
                    self.sockets.insert(address, one);
                }
                Err(error) => {
                    if self.failures.insert(address, error.to_string()).is_none() {
                        tracing::warn!(%address, instance = %config.name(), %error, "cannot listen");
                    }
                }
            }
        }
    }

    /// Closes all sockets; when it returns the addresses are free.
    pub(crate) async fn close(&mut self) {
        for (_, one) in std::mem::take(&mut self.sockets) {
            one.close().await;
        }
    }

    /// Whether [`Listeners::apply`] may have something to do though nothing was configured anew.
    pub(crate) fn have_to_be_looked_at(&self) -> bool {
        let is_another = |device: &Device| Device::named(&device.name) != *device;
        !self.failures.is_empty() || self.device.as_ref().is_some_and(is_another)
    }

    /// What could not be opened, and why.
    pub(crate) fn failures(&self) -> impl Iterator<Item = (SocketAddr, &str)> {
        self.failures
            .iter()
            .map(|(address, error)| (*address, error.as_str()))
    }

    /// Where calls are taken.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.sockets
            .values()
            .filter_map(|one| one.listener.local_addr().ok())
    }

    fn open(&self, address: SocketAddr) -> std::io::Result<OneListener> {
        let device = self.device.as_ref().map(|device| device.name.as_str());
        let listener = socket::listen(address, device, |socket| {
            for (callers, key) in &self.keys {
                set_key(&address, socket, *callers, Some(key));
            }
            self.security.set(&address, socket);
        })?;
        let listener = Rc::new(listener);
        let task = tokio::task::spawn_local(take_calls(
            self.instance.clone(),
            Rc::clone(&listener),
            self.calls.clone(),
        ));
        Ok(OneListener { listener, task })
    }
}

fn addresses(listen: &Listen) -> BTreeSet<SocketAddr> {
    let every = [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    ];
    let ips = if listen.addresses.is_empty() {
        &every[..]
    } else {
        &listen.addresses
    };
    ips.iter()
        .map(|ip| SocketAddr::new(*ip, listen.port))
        .collect()
}

/// The keys of those who may call: of neighbours by their address, of ranges by their prefix.
fn keys(config: &InstanceConfig) -> BTreeMap<IpNet, Md5Password> {
    let ranges = config.ranges().values().filter_map(|range| {
        let password = range.template().password.clone()?;
        Some((range.prefix(), password))
    });
    let peers = config
        .peers()
        .values()
        .filter_map(|peer| Some((IpNet::from(peer.address.ip()), peer.password.clone()?)));
    ranges.chain(peers).collect()
}

/// What holds for all calls to a socket, before it is known who calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Security {
    /// The lowest TTL any neighbour's packets may have; 0 where one of them is not limited (RFC
    /// 5082). Each connection has its own neighbour's limit from when it is taken.
    least_ttl: u8,
    /// The smallest segment size of all neighbours: calls have it from the listening socket.
    mss: Option<TcpMss>,
}

impl Security {
    fn of(config: &InstanceConfig) -> Security {
        let templates = config.ranges().values().map(|range| range.template());
        let callers = || config.peers().values().chain(templates.clone());
        Security {
            least_ttl: callers()
                .map(|peer| peer.ttl_security.map_or(0, TtlSecurity::least_ttl))
                .min()
                .unwrap_or(0),
            mss: callers().filter_map(|peer| peer.tcp_mss).min(),
        }
    }

    fn set(&self, at: &SocketAddr, listener: BorrowedFd<'_>) {
        let ttl = socket::set_least_ttl(listener, at.ip(), self.least_ttl);
        let mss = self
            .mss
            .map_or(Ok(()), |mss| socket::set_mss(listener, mss));
        if let Err(error) = ttl.and(mss) {
            // Connections are limited all the same when they are taken.
            tracing::warn!(%at, %error, "cannot limit TTL or segment size where calls are taken");
        }
    }
}

fn set_key(at: &SocketAddr, listener: BorrowedFd<'_>, callers: IpNet, key: Option<&Md5Password>) {
    if at.is_ipv4() != callers.addr().is_ipv4() {
        return;
    }
    let one = callers.prefix_len() == callers.max_prefix_len();
    let result = match (one, key) {
        (true, Some(_)) => md5::set(listener, callers.addr(), key),
        (true, None) => md5::remove(listener, callers.addr()).map(drop),
        (false, _) => md5::set_prefix(listener, callers, key),
    };
    if let Err(error) = result {
        // They are not taken without their key either: see `socket::adopt`.
        tracing::error!(
            %at, %callers, %error,
            "cannot set the MD5 key: calls of these neighbours fail; raise net.core.optmem_max \
             where there are many"
        );
    }
}

async fn take_calls(instance: InstanceName, listener: Rc<TcpListener>, calls: mpsc::Sender<Call>) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                let call = Call {
                    instance: instance.clone(),
                    stream,
                    remote,
                };
                if calls.send(call).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                // Out of descriptors, or the caller left: neither is mended by spinning.
                tracing::warn!(%error, "cannot take a call");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}
