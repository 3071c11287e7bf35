// SPDX-License-Identifier: Apache-2.0
//! The handle of the thread that makes this node equal to what is decided about egress, and keeps
//! it so: [`Node::apply`] takes a new world and answers when the kernel has it. What the thread
//! does is in `worker`, what it knows of other gateways in `peers`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use bpf_loader::{Cursor, Datapath, DropCount, Mapping, RuleState, Service};
use egress_core::{Claims, Desired, PolicyId, RuleNumber, World};
use egress_sync::name::{NameError, NodeName};
use router_netlink::{Netlink, TunnelKind};
use router_types::LinkIndex;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::holdings::{Announcement, Holdings};
use crate::worker::Worker;

pub use egress_sync::wire::Tunnel;

pub use crate::peers::{Heard, PeerView, PeersConfig, StoreConfig, Watch};
pub use crate::probe::{Probe, Target};

/// What the thread must know before it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of the pins, as in [`bpf_loader::Config`].
    pub pin_root: PathBuf,
    /// What the tunnel speaks, the same on every node.
    pub tunnel_kind: TunnelKind,
    /// UDP port of the tunnel, the same on every node.
    pub tunnel_port: u16,
    /// Largest packet the tunnel takes whole, in bytes; the MTU of the fabric, or of the route to the
    /// other end where that is less, without the tunnel's headers where there is none.
    pub tunnel_mtu: Option<u16>,
    /// Mappings of each family at most.
    pub max_mappings: u32,
    /// Folder for what a restart must not forget.
    pub state_directory: PathBuf,
    /// The name of this node.
    pub name: String,
    /// What it is among the gateways.
    pub peers: PeersConfig,
    /// Told when [`Node::holdings`] are others than before by itself, without [`Node::apply`].
    pub held_changed: Arc<Notify>,
}

/// A world to be made true.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wish {
    /// What the decision is made of.
    pub world: World,
    /// Addresses of this node's containers that are no pods: no policy selects them.
    pub strangers: Vec<IpAddr>,
    /// The devices towards the fabric, with their MTU in bytes.
    pub fabric: Vec<(LinkIndex, u32)>,
    /// The BFD sessions with other gateways, by their names.
    pub watches: BTreeMap<String, Watch>,
    /// What the gateways of policies have to reach, whether this node may be one or not.
    pub probes: BTreeMap<PolicyId, Probe>,
    /// How addresses that are held are announced; of a policy that is not here: on segments alone.
    pub announce: BTreeMap<PolicyId, Announcement>,
    /// What else is served at addresses that are held.
    pub served: BTreeMap<PolicyId, BTreeSet<Service>>,
    /// Whether this node is to hand over what it holds: it is drained.
    pub is_leaving: bool,
}

/// What is decided, and what came of it.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// What the decision was made of.
    pub world: Arc<World>,
    /// Who holds which rules.
    pub claims: Arc<Claims>,
    /// The decision.
    pub desired: Arc<Desired>,
    /// The rules this node stands by for that it could take over with all their connections.
    pub ready: BTreeSet<RuleNumber>,
    /// The rules this node is the gateway of, or stands by for, with their traffic.
    pub rules: Vec<RuleState>,
    /// Connections of each rule at the last look, at its gateway.
    pub connections: BTreeMap<u32, u64>,
    /// Ports of each address and protocol that had connections at the last look.
    pub ports_used: BTreeMap<(IpAddr, u8), u64>,
    /// Refused packets of the gateway.
    pub refusals: Vec<DropCount>,
    /// The other gateways.
    pub peers: Vec<PeerView>,
    /// Why the tunnel is not as it should be, so that no packet of another node comes or goes.
    pub tunnel_problem: Option<String>,
    /// How often rules of a policy changed hands, as far as this node saw.
    pub failovers: BTreeMap<PolicyId, u64>,
}

pub(crate) enum Command {
    Apply(Box<Wish>, oneshot::Sender<Vec<String>>),
    View(SyncSender<Result<View, bpf_loader::Error>>),
    /// Some more mappings, and where the next begin.
    Mappings(
        Cursor,
        SyncSender<Result<(Vec<Mapping>, Cursor), bpf_loader::Error>>,
    ),
}

/// The egress of this node. Cheap to clone; the thread behind it ends with the last clone, and
/// leaves everything as it is.
#[derive(Clone, Debug)]
pub struct Node {
    /// Whoever sends one waits for the answer, so that there are few.
    commands: mpsc::UnboundedSender<Command>,
    holdings: Arc<Mutex<Holdings>>,
}

/// The thread is gone: it panicked.
#[derive(Debug, thiserror::Error)]
#[error("the egress thread has ended: see the log, and restart the daemon")]
pub struct Gone;

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// See there.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// A map cannot be read.
    #[error(transparent)]
    Datapath(#[from] bpf_loader::Error),
}

impl Node {
    /// Starts the thread, in the network namespace of the calling one, which is within a runtime if
    /// there is a store.
    ///
    /// # Errors
    /// When no thread or netlink socket can be made.
    pub fn start(config: Config, datapath: Arc<Mutex<Datapath>>) -> Result<Node, StartError> {
        let (commands, queue) = mpsc::unbounded_channel();
        let holdings = Arc::default();
        let name = NodeName::new(&config.name)?;
        let netlink = Netlink::open()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let worker = Worker::new(config, name, netlink, datapath, Arc::clone(&holdings));
        thread::Builder::new()
            .name("egress".to_owned())
            .spawn(move || runtime.block_on(worker.run(queue)))?;
        Ok(Node { commands, holdings })
    }

    /// Makes the node equal to a world. Answers when the kernel has it, with what could not be
    /// done, in words; all else was. It is tried again every ten seconds, and with the next world.
    pub async fn apply(&self, wish: Wish) -> Vec<String> {
        let (reply, answer) = oneshot::channel();
        let gone = || vec![Gone.to_string()];
        let command = Command::Apply(Box::new(wish), reply);
        if self.commands.send(command).is_err() {
            return gone();
        }
        answer.await.unwrap_or_else(|_| gone())
    }

    /// The addresses this node holds and is ready to hold. They are to be announced.
    pub fn holdings(&self) -> Holdings {
        lock(&self.holdings).clone()
    }

    /// What is decided, and what came of it. Blocks until the thread has time.
    ///
    /// # Errors
    /// When the thread is gone or a map cannot be read.
    pub fn view(&self) -> Result<View, ReadError> {
        self.ask(Command::View)
    }

    /// Visits every mapping of connections this node is the gateway or a standby of, in no order.
    /// Blocks: seconds with a million of them, in which the thread does everything else too.
    ///
    /// # Errors
    /// When the thread is gone or a map cannot be read.
    pub fn each_mapping(&self, visit: &mut dyn FnMut(&Mapping)) -> Result<(), ReadError> {
        let mut cursor = Cursor::default();
        while !cursor.is_at_end() {
            let (mappings, next) = self.ask(|reply| Command::Mappings(cursor, reply))?;
            mappings.iter().for_each(&mut *visit);
            cursor = next;
        }
        Ok(())
    }

    fn ask<T>(
        &self,
        command: impl FnOnce(SyncSender<Result<T, bpf_loader::Error>>) -> Command,
    ) -> Result<T, ReadError> {
        let (reply, answer) = sync_channel(1);
        self.commands.send(command(reply)).map_err(|_| Gone)?;
        Ok(answer.recv().map_err(|_| Gone)??)
    }
}

/// Why the thread could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No node is called so.
    #[error("nodeName: {0}")]
    Name(#[from] NameError),
    /// No netlink socket.
    #[error(transparent)]
    Netlink(#[from] router_netlink::Error),
    /// No thread.
    #[error("cannot start the egress thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Locks what no panic leaves half changed: every call of the data plane is complete in itself, and
/// the addresses are replaced at once.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
