// SPDX-License-Identifier: Apache-2.0
//! Calls from neighbours, and from others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bgp_core::config::{Listen, Md5Password};
use bgp_wire::{ErrorKind, Notification};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::peer_task::{PeerCommand, PeerSender};
use crate::socket;

/// Between attempts to listen where it failed: an address may appear, another process may go.
const RETRY: Duration = Duration::from_secs(5);

/// How long an unknown caller gets to take the refusal.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(1);

/// Who may call, and with which keys.
#[derive(Clone, Default)]
pub(crate) struct Callers {
    pub(crate) peers: Vec<(SocketAddr, PeerSender)>,
    pub(crate) keys: Vec<(SocketAddr, Md5Password)>,
}

/// An address listened on, or why it is not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenStatus {
    /// The address.
    pub address: SocketAddr,
    /// Why nobody can call there; `None` when all is well.
    pub error: Option<String>,
}

/// The listening sockets of an instance.
pub(crate) struct Listeners {
    callers: watch::Sender<Callers>,
    tasks: Vec<JoinHandle<()>>,
    status: Arc<Mutex<Vec<ListenStatus>>>,
}

impl Listeners {
    pub(crate) fn start(listen: &Listen, callers: Callers, unknown: Arc<AtomicU64>) -> Listeners {
        let everywhere = [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ];
        let addresses = if listen.addresses.is_empty() {
            &everywhere[..]
        } else {
            &listen.addresses[..]
        };
        let (sender, receiver) = watch::channel(callers);
        let status: Arc<Mutex<Vec<ListenStatus>>> = Arc::default();
        let mut tasks = Vec::new();
        for address in addresses {
            let address = SocketAddr::new(*address, listen.port);
            let error = Some("not yet".to_owned());
            lock(&status).push(ListenStatus { address, error });
            let task = ListenTask {
                address,
                callers: receiver.clone(),
                status: status.clone(),
                unknown: unknown.clone(),
            };
            tasks.push(tokio::spawn(task.run()));
        }
        Listeners {
            callers: sender,
            tasks,
            status,
        }
    }

    pub(crate) fn set_callers(&self, callers: Callers) {
        self.callers.send_replace(callers);
    }

    pub(crate) fn status(&self) -> Vec<ListenStatus> {
        lock(&self.status).clone()
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

struct ListenTask {
    address: SocketAddr,
    callers: watch::Receiver<Callers>,
    status: Arc<Mutex<Vec<ListenStatus>>>,
    unknown: Arc<AtomicU64>,
}

impl ListenTask {
    async fn run(mut self) {
        loop {
            let keys = self.callers.borrow_and_update().keys.clone();
            let error = match socket::listen(self.address, &keys) {
                Ok(listener) => {
                    self.note(None);
                    self.serve(listener, keys).await
                }
                Err(error) => error,
            };
            tracing::warn!(address = %self.address, %error, "cannot listen");
            let hint = match error.kind() {
                std::io::ErrorKind::PermissionDenied => {
                    " (ports below 1024 need CAP_NET_BIND_SERVICE)"
                }
                std::io::ErrorKind::AddrInUse => " (another process listens there)",
                _ => "",
            };
            self.note(Some(format!("{error}{hint}")));
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Takes calls until the socket breaks.
    async fn serve(
        &mut self,
        listener: TcpListener,
        mut keys: Vec<(SocketAddr, Md5Password)>,
    ) -> std::io::Error {
        loop {
            tokio::select! {
                call = listener.accept() => match call {
                    Ok((stream, remote)) => self.called(stream, remote).await,
                    // Of the call, not of the socket (accept(2)); others say themselves again.
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
                    Err(error) => return error,
                },
                changed = self.callers.changed() => {
                    if changed.is_err() {
                        return std::io::Error::other("the instance stops");
                    }
                    let next = self.callers.borrow_and_update().keys.clone();
                    self.update_keys(&listener, &keys, &next);
                    keys = next;
                }
            }
        }
    }

    async fn called(&self, stream: TcpStream, remote: SocketAddr) {
        let peer = self
            .callers
            .borrow()
            .peers
            .iter()
            .find(|(known, _)| same_host(known, &remote))
            .map(|(_, peer)| peer.clone());
        match peer {
            Some(peer) => peer.send(PeerCommand::Called(stream)).await,
            None => {
                self.unknown.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%remote, "refused: no such neighbour");
                tokio::spawn(refuse(stream));
            }
        }
    }

    fn update_keys(
        &self,
        listener: &TcpListener,
        before: &[(SocketAddr, Md5Password)],
        after: &[(SocketAddr, Md5Password)],
    ) {
        let mine =
            |(remote, _): &&(SocketAddr, Md5Password)| remote.is_ipv6() == self.address.is_ipv6();
        for (remote, _) in before.iter().filter(mine) {
            if !after.iter().any(|(other, _)| other == remote) {
                self.set_key(listener, *remote, None);
            }
        }
        for (remote, password) in after.iter().filter(mine) {
            if !before
                .iter()
                .any(|(other, old)| other == remote && old == password)
            {
                self.set_key(listener, *remote, Some(password));
            }
        }
    }

    fn set_key(&self, listener: &TcpListener, remote: SocketAddr, password: Option<&Md5Password>) {
        if let Err(error) = socket::set_md5(listener, remote, password) {
            tracing::warn!(%remote, %error, "MD5 key not set on the listening socket");
        }
    }

    fn note(&self, error: Option<String>) {
        let mut all = lock(&self.status);
        if let Some(mine) = all.iter_mut().find(|status| status.address == self.address) {
            mine.error = error;
        }
    }
}

/// Whether a call is from a neighbour. Ports differ; a link counts where the neighbour has one.
fn same_host(known: &SocketAddr, remote: &SocketAddr) -> bool {
    match (known, remote) {
        (SocketAddr::V4(known), SocketAddr::V4(remote)) => known.ip() == remote.ip(),
        (SocketAddr::V6(known), SocketAddr::V6(remote)) => {
            let link = known.scope_id() == 0 || known.scope_id() == remote.scope_id();
            known.ip() == remote.ip() && link
        }
        (SocketAddr::V4(_), SocketAddr::V6(_)) | (SocketAddr::V6(_), SocketAddr::V4(_)) => false,
    }
}

/// Says why before hanging up (RFC 4271 §8.1.1 `SendNOTIFICATIONwithoutOPEN`).
async fn refuse(mut stream: TcpStream) {
    let mut bytes = Vec::new();
    Notification::new(ErrorKind::CONNECTION_REJECTED).encode(&mut bytes);
    let said = async {
        stream.write_all(&bytes).await?;
        stream.shutdown().await
    };
    match tokio::time::timeout(REFUSAL_PATIENCE, said).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the caller was gone"),
        Err(_) => tracing::debug!("the caller does not read"),
    }
}

fn lock(status: &Mutex<Vec<ListenStatus>>) -> std::sync::MutexGuard<'_, Vec<ListenStatus>> {
    status.lock().unwrap_or_else(PoisonError::into_inner)
}
