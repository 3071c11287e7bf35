// SPDX-License-Identifier: Apache-2.0
//! The handle on the pods of this node.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use bpf_loader::Datapath;
use ipnet::IpNet;
use pods_core::{Attachment, Code, Endpoint, Failure, PodRef, PoolError};
use tokio::sync::oneshot;

use crate::config::{Config, Mtu};
use crate::report::{EndpointView, PodsStatus, Resync, StartReport};
use crate::store::{StateFolder, StoreError};
use crate::worker::Worker;

/// How many operations may wait for the one that is being carried out. At 40 ms each the last of
/// 256 waits ten seconds, which runtimes do; a kubelet starts some ten pods at a time.
pub const QUEUE_LENGTH: usize = 256;

/// Why the pods part cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The pod CIDRs cannot be used.
    #[error(transparent)]
    Pools(#[from] PoolError),
    /// The journal cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The kernel's configuration cannot be read or changed.
    #[error(transparent)]
    Netlink(#[from] router_netlink::Error),
    /// The data plane's maps cannot be read.
    #[error(transparent)]
    Datapath(#[from] bpf_loader::Error),
    /// No thread could be made.
    #[error("cannot start the thread of the pods: {0}")]
    Thread(#[from] io::Error),
}

/// What a runtime asks ADD for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AddCall {
    pub(crate) attachment: Attachment,
    pub(crate) network: String,
    pub(crate) netns: PathBuf,
    pub(crate) pod: Option<PodRef>,
    pub(crate) requested: Vec<IpAddr>,
}

type Reply<T> = oneshot::Sender<T>;

/// What the thread is asked to do.
pub(crate) enum Command {
    Add(AddCall, Reply<Result<Endpoint, Failure>>),
    Del(Attachment, Reply<Result<(), Failure>>),
    Check(
        Attachment,
        Option<PathBuf>,
        Vec<IpAddr>,
        Reply<Result<(), Failure>>,
    ),
    Gc(
        String,
        BTreeSet<Attachment>,
        Reply<Result<Vec<Attachment>, Failure>>,
    ),
    Status(Reply<PodsStatus>),
    List(Reply<Vec<EndpointView>>),
    SetCidrs(Vec<IpNet>, Reply<Result<(), PoolError>>),
    SetMtu(Mtu, Reply<()>),
    Resync(Reply<Resync>),
}

/// The pods of this node. Cheap to clone; the thread behind it ends with the last clone, and
/// leaves all pods as they are.
#[derive(Clone, Debug)]
pub struct Manager {
    commands: SyncSender<Command>,
}

impl Manager {
    /// Opens the journal, brings the kernel to it, and starts the thread.
    ///
    /// The thread works in the network namespace of the calling thread, and so must `datapath`.
    /// Blocks for as long as the comparison with the kernel takes: some milliseconds per pod.
    /// Switches on IP forwarding; devices that took router advertisements go on taking them.
    ///
    /// # Errors
    ///
    /// [`StartError`]; pods that run are left as they are. What goes wrong with single endpoints
    /// is in the [`StartReport`] instead.
    pub fn start(
        config: Config,
        folder: StateFolder,
        datapath: Arc<Mutex<Datapath>>,
    ) -> Result<(Manager, StartReport), StartError> {
        let (commands, queue) = sync_channel(QUEUE_LENGTH);
        let (mut worker, report) = Worker::start(config, folder, datapath)?;
        thread::Builder::new()
            .name("pods".to_owned())
            .spawn(move || worker.run(&queue))?;
        Ok((Manager { commands }, report))
    }

    /// CNI ADD: gives a container a device, addresses and a way out, and answers when packets
    /// flow. The same call again gets the same answer.
    ///
    /// `requested` may name one address per family.
    ///
    /// # Errors
    ///
    /// [`Failure`] for the runtime; nothing of the endpoint stays then.
    pub async fn add(
        &self,
        attachment: Attachment,
        network: String,
        netns: PathBuf,
        pod: Option<PodRef>,
        requested: Vec<IpAddr>,
    ) -> Result<Endpoint, Failure> {
        let call = AddCall {
            attachment,
            network,
            netns,
            pod,
            requested,
        };
        self.ask(|reply| Command::Add(call, reply)).await?
    }

    /// CNI DEL: takes everything back. Unknown attachments are taken back already.
    ///
    /// # Errors
    ///
    /// [`Failure`] when the kernel refuses; the endpoint stays known and the call can be repeated.
    pub async fn del(&self, attachment: Attachment) -> Result<(), Failure> {
        self.ask(|reply| Command::Del(attachment, reply)).await?
    }

    /// CNI CHECK: compares an endpoint with the kernel and, if given, with the addresses the
    /// runtime remembers.
    ///
    /// # Errors
    ///
    /// [`Code::Mismatch`] with every difference in the details; [`Code::UnknownContainer`].
    pub async fn check(
        &self,
        attachment: Attachment,
        netns: Option<PathBuf>,
        expected: Vec<IpAddr>,
    ) -> Result<(), Failure> {
        self.ask(|reply| Command::Check(attachment, netns, expected, reply))
            .await?
    }

    /// CNI GC: removes the endpoints of a network that are none of the valid ones, and returns
    /// them.
    ///
    /// # Errors
    ///
    /// [`Failure`] naming those that could not be removed; the others are.
    pub async fn gc(
        &self,
        network: String,
        valid: BTreeSet<Attachment>,
    ) -> Result<Vec<Attachment>, Failure> {
        self.ask(|reply| Command::Gc(network, valid, reply)).await?
    }

    /// State of the part; [`PodsStatus::not_ready`] answers CNI STATUS.
    ///
    /// # Errors
    ///
    /// Only when the thread does not answer.
    pub async fn status(&self) -> Result<PodsStatus, Failure> {
        self.ask(Command::Status).await
    }

    /// All endpoints, by number.
    ///
    /// # Errors
    ///
    /// Only when the thread does not answer.
    pub async fn list(&self) -> Result<Vec<EndpointView>, Failure> {
        self.ask(Command::List).await
    }

    /// Replaces the pod CIDRs. Endpoints outside of them keep their addresses until they end.
    ///
    /// # Errors
    ///
    /// [`Code::InvalidConfig`] when they overlap or are not fit for pods; nothing changes then.
    pub async fn set_pod_cidrs(&self, cidrs: Vec<IpNet>) -> Result<(), Failure> {
        self.ask(|reply| Command::SetCidrs(cidrs, reply))
            .await?
            .map_err(|e| Failure::new(Code::InvalidConfig, e.to_string()))
    }

    /// Replaces where the MTU of new pods comes from.
    ///
    /// # Errors
    ///
    /// Only when the thread does not answer.
    pub async fn set_mtu(&self, mtu: Mtu) -> Result<(), Failure> {
        self.ask(|reply| Command::SetMtu(mtu, reply)).await
    }

    /// Compares the kernel with the journal at once and brings it back to it.
    ///
    /// # Errors
    ///
    /// Only when the thread does not answer.
    pub async fn resync(&self) -> Result<Resync, Failure> {
        self.ask(Command::Resync).await
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let gone = || {
            Failure::new(Code::TryAgain, "the pods part of the daemon has stopped")
                .with_details("see the daemon's log for why; it restarts with the daemon")
        };
        self.commands
            .try_send(command(reply))
            .map_err(|error| match error {
                TrySendError::Full(_) => Failure::new(
                    Code::TryAgain,
                    format!("{QUEUE_LENGTH} pod operations are waiting already"),
                ),
                TrySendError::Disconnected(_) => gone(),
            })?;
        answer.await.map_err(|_| gone())
    }
}
