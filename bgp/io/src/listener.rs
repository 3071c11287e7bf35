// SPDX-License-Identifier: Apache-2.0
//! The listening sockets of an instance: who may call, and with which key.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use bgp_core::config::{InstanceConfig, InstanceName, Listen, Md5Password};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::socket;

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
    sockets: BTreeMap<SocketAddr, OneListener>,
    keys: BTreeMap<IpAddr, Md5Password>,
    /// What could not be opened, and why. Tried again at each change and now and then.
    failures: BTreeMap<SocketAddr, String>,
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
            sockets: BTreeMap::new(),
            keys: BTreeMap::new(),
            failures: BTreeMap::new(),
        }
    }

    /// Opens, closes and re-keys sockets until they are as configured. What does not change is not
    /// touched.
    pub(crate) async fn apply(&mut self, config: &InstanceConfig) {
        let wanted = config.listen.as_ref().map(addresses).unwrap_or_default();
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

        let keys: BTreeMap<IpAddr, Md5Password> = config
            .peers()
            .values()
            .filter_map(|peer| Some((peer.address.ip(), peer.password.clone()?)))
            .collect();
        for (address, one) in &self.sockets {
            for ip in self.keys.keys().filter(|ip| !keys.contains_key(ip)) {
                set_key(address, one.listener.as_fd(), *ip, None);
            }
            for (ip, key) in &keys {
                if self.keys.get(ip) != Some(key) {
                    set_key(address, one.listener.as_fd(), *ip, Some(key));
                }
            }
        }
        self.keys = keys;

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
        let listener = socket::listen(address, |socket| {
            for (ip, key) in &self.keys {
                set_key(&address, socket, *ip, Some(key));
            }
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

fn set_key(at: &SocketAddr, listener: BorrowedFd<'_>, peer: IpAddr, key: Option<&Md5Password>) {
    if at.is_ipv4() != peer.is_ipv4() {
        return;
    }
    let result = match key {
        Some(_) => socket::set_md5(listener, peer, key),
        None => socket::remove_md5(listener, peer).map(drop),
    };
    if let Err(error) = result {
        // They are not taken without their key either: see `socket::adopt`.
        tracing::error!(%at, %peer, %error, "cannot set the MD5 key: calls of this peer fail");
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
